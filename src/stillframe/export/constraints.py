"""After the run: do the guards agree with what the user declared?

Every declared dim is a symbol with its declared range, so a guard was recorded only where that
range does not imply it. Each such guard on a declared dim narrows what the user asked for, and is a
violation; all are reported in one error, with the user's lines and a spec to paste that says what
the program works for. Guards on ``Dim.AUTO`` dims narrow the program's range instead and are
checked when the program is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stillframe import stack
from stillframe.errors import ConstraintViolationError
from stillframe.export.inputs import FakeInputs, Place
from stillframe.export.verdicts import Verdict, named
from stillframe.shapes.env import Guard, ShapeEnv, SymbolInfo
from stillframe.shapes.solve import Solution
from stillframe.symbolic import Expr, Facts, Range, eq, to_python


def check_guards(
    env: ShapeEnv, baseline: Facts, *, prefer_asserts: bool = False
) -> tuple[list[Guard], list[Guard]]:
    """The conditions that the program checks when called, and those that violate the declaration.

    Args:
        env: after the run.
        baseline: its facts before the run: what was declared.
        prefer_asserts: conditions on declared dims are checked when called instead of being
            violations, unless they make a dim constant outright (``s == 4``).
    """
    violations = [g for g in env.guards if _violates(env, g, prefer_asserts)]
    if not prefer_asserts:
        violations += _indirect(env, baseline, violations)
    return [*env.supposed, *env.guards], violations


def narrowing(env: ShapeEnv) -> list[Guard]:
    """The guards that would be violations if they were not checked at every call.

    A bound on one dim is none of them: it is in the dim's range, which calls check all the same.
    """
    guards = [guard for guard in env.guards if _violates(env, guard, prefer_asserts=False)]
    return [guard for guard in guards if not _is_in_ranges(env, guard)]


def _is_in_ranges(env: ShapeEnv, guard: Guard) -> bool:
    ranges = Facts()
    for symbol in guard.expr.free_symbols:
        ranges.set_range(symbol, env.facts.range_of(symbol))
    return ranges.decide(guard.expr) is True


def belief_notes(env: ShapeEnv, guards: Iterable[Guard]) -> list[str]:
    """A sentence for each condition that the program relies on and does not check."""
    checks = [(c.expr, stack.summary(c.stack)[-1:]) for c in env.unchecked]
    checks += [(g.expr, tuple(g.where[-1:])) for g in guards]
    return list(
        dict.fromkeys(
            f"{named(env, expr)} is not checked when the program runs"
            + "".join(f", as it would be for {where}" for where in place)
            for expr, place in checks
        )
    )


def _violates(env: ShapeEnv, guard: Guard, prefer_asserts: bool) -> bool:
    policies = {env.symbols[s].policy for s in guard.expr.free_symbols}
    if "auto" in policies:
        return False
    if prefer_asserts:
        return _fixes_a_symbol(guard.expr)
    if "dynamic" in policies and "declared" not in policies:
        return _is_constant_now(env, guard)
    return True


def _fixes_a_symbol(expr: Expr) -> bool:
    return expr.op == "eq" and expr.args[0].op == "symbol" and expr.args[1].is_constant


def _is_constant_now(env: ShapeEnv, guard: Guard) -> bool:
    """Whether a DYNAMIC dim of the guard became a constant."""
    return any(
        env.symbols[s].policy == "dynamic" and env.facts.simplify(s).is_constant
        for s in guard.expr.free_symbols
    )


def _indirect(env: ShapeEnv, baseline: Facts, known: list[Guard]) -> list[Guard]:
    """Guards that restrict a declared dim by way of AUTO dims (``a == b`` and ``a == 4``)."""
    if known or all(i.policy != "auto" for i in env.symbols.values()):
        return []
    declared = [i for i in env.symbols.values() if i.policy == "declared"]
    restricted = [i.symbol for i in declared if _is_restricted(env.facts, baseline, i)]
    forms: dict[Expr, Expr] = {}
    for info in declared:
        form = env.facts.simplify(info.symbol)
        first = forms.setdefault(form, info.symbol)
        if first is not info.symbol and baseline.decide(eq(first, info.symbol)) is not True:
            restricted.append(info.symbol)
    return connected(env.guards, restricted)


def _is_restricted(facts: Facts, baseline: Facts, info: SymbolInfo) -> bool:
    before, after = baseline.range_of(info.symbol), facts.range_of(info.symbol)
    if after.lower > before.lower or after.upper < before.upper:
        return True
    congruence = facts.congruence_of(info.symbol)
    return congruence is not None and congruence != baseline.congruence_of(info.symbol)


def connected(guards: Iterable[Guard], symbols: Iterable[Expr]) -> list[Guard]:
    """The guards that are linked with one of the symbols by shared symbols."""
    reached = set(symbols)
    left = list(guards)
    found: list[Guard] = []
    while True:
        touching = [g for g in left if not reached.isdisjoint(g.expr.free_symbols)]
        if not touching:
            return found
        found += touching
        left = [g for g in left if g not in touching]
        reached.update(*(g.expr.free_symbols for g in touching))


# -- the error ------------------------------------------------------------------------------------


def violation(
    env: ShapeEnv,
    guards: list[Guard],
    verdicts: list[Verdict],
    spec: str,
) -> ConstraintViolationError:
    """One error for all violations.

    Args:
        env: after the run.
        guards: the conditions that the declaration does not imply.
        verdicts: what became of every declared size.
        spec: Python text that declares what the program works for.
    """
    lines = []
    where: list[str] = []
    for guard in guards:
        lines.append(f"{named(env, guard.expr)}   because of {origin(guard)}")
        where.extend(w for w in guard.where[-1:] if w not in where)
    names = sorted({env.symbols[s].dim_name for g in guards for s in g.expr.free_symbols})
    changed = dict.fromkeys(str(v) for v in verdicts if v.outcome != "as declared" and v.declared)
    return ConstraintViolationError(
        f"The program does not work for all declared sizes of {', '.join(names)}. It requires:"
        + "".join(f"\n    {line}" for line in dict.fromkeys(lines)),
        why="the example's sizes decided each condition, and the declared ranges do not imply it",
        where=where,
        hints=[
            *(_advice(v) for v in verdicts if v.outcome == "static" and v.declared),
            "\n".join(("declare what it works for:", *(f"# {c}" for c in changed), spec)),
        ],
        spec=spec,
    )


def _advice(verdict: Verdict) -> str:
    return f"{verdict.place} must be {verdict.result}: leave it static, or change that line"


def origin(guard: Guard) -> str:
    """The user's line that asked."""
    return guard.where[-1] if guard.where else "a library function"


# -- the corrected spec ---------------------------------------------------------------------------


class _Text:
    """Prints as itself inside the ``repr`` of a spec."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def spec_text(
    solution: Solution, inputs: FakeInputs, mirror: Callable[[Callable[[int], Any]], Any]
) -> str:
    """Python that declares the solved form: dims, ``dynamic_shapes``, and ``assume`` if needed.

    Args:
        solution: the solved form.
        inputs: the inputs of the capture.
        mirror: makes the dict by argument name from a function of the leaf index.
    """
    by_leaf: dict[int, list[Place]] = {}
    used: list[Expr] = []
    for place in inputs.places:
        form = solution.form(place.size) if isinstance(place.size, Expr) else None
        if form is not None and not form.is_constant:
            by_leaf.setdefault(place.leaf, []).append(place)
            used += [form] if form.sort == "int" else []

    def entry(leaf: int) -> Any:
        places = by_leaf.get(leaf)
        if not places:
            return None
        texts = {p.dim: _Text(_dim_text(solution.form(p.size))) for p in places}
        return texts[None] if None in texts else texts

    shapes = {name: spec for name, spec in mirror(entry).items() if not _is_static(spec)}
    lines = solution.definitions(used)
    lines.append(f"dynamic_shapes = {shapes!r}")
    if solution.relations:
        lines.append(f"assume = {solution.assumptions()}")
    return "\n".join(lines)


def _dim_text(form: Expr) -> str:
    """Dims have integer forms; of a free float one can only say that it varies."""
    return to_python(form) if form.sort == "int" else "Dim.AUTO"


def _is_static(spec: Any) -> bool:
    if isinstance(spec, dict):
        return all(_is_static(s) for s in spec.values())
    if isinstance(spec, list):
        return all(_is_static(s) for s in spec)
    return spec is None


# -- ranges ---------------------------------------------------------------------------------------


def range_constraints(env: ShapeEnv, used: Iterable[Expr]) -> dict[Expr, Range]:
    """Range of every size expression of the inputs, of their symbols, and of unbacked symbols."""
    found: dict[Expr, Range] = {}
    for expr in used:
        found[expr] = env.facts.range_of(expr)
        for sym in sorted(expr.free_symbols, key=str):
            found.setdefault(sym, env.facts.range_of(sym))
    for sym, info in env.symbols.items():
        if info.policy == "unbacked" and sym.sort == "int":
            found[sym] = env.facts.range_of(sym)
    return found
