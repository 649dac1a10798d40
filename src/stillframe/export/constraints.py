"""After the run: do the guards agree with what the user declared?

Every declared dim is a symbol with its declared range, so a guard was recorded only where that
range does not imply it. Each such guard on a declared dim narrows what the user asked for, and is a
violation; all are reported in one error, with the user's lines and a spec to paste. Guards on
``Dim.AUTO`` dims narrow the program's range instead and are checked when the program is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from stillframe.errors import ConstraintViolationError
from stillframe.shapes.env import Guard, ShapeEnv, SymbolInfo
from stillframe.symbolic import Expr, Range, requirement, substitute, symbol, to_python


def check_guards(env: ShapeEnv) -> list[Guard]:
    """The guards that the program must check when called: those on AUTO and DYNAMIC dims.

    Raises:
        ConstraintViolationError: a guard narrows a declared dim, or makes a DYNAMIC one constant;
            lists all of them.
    """
    violations = [guard for guard in env.guards if _violates(env, guard)]
    if violations:
        raise _violation(env, violations)
    return list(env.guards)


def _violates(env: ShapeEnv, guard: Guard) -> bool:
    policies = {env.symbols[s].policy for s in guard.expr.free_symbols}
    if "auto" in policies:
        return False
    if "dynamic" in policies:
        need = requirement(guard.expr)
        return need is not None and need.equals is not None
    return True


def static_dims(env: ShapeEnv) -> list[str]:
    """A sentence for each AUTO dim that became a constant: which, and the user's line."""
    found = []
    for guard in env.guards:
        need = requirement(guard.expr)
        if need is not None and need.equals is not None and len(guard.expr.free_symbols) == 1:
            (sym,) = guard.expr.free_symbols
            at = guard.where[-1] if guard.where else "a library function"
            found.append(f"{env.symbols[sym].source} is static ({need.equals}) because of {at}")
    return found


def _violation(env: ShapeEnv, guards: list[Guard]) -> ConstraintViolationError:
    lines = []
    where: list[str] = []
    for guard in guards:
        text = named(env, guard.expr)
        at = guard.where[-1] if guard.where else "a library function"
        lines.append(f"{text}   because of {at}")
        where.extend(w for w in guard.where[-1:] if w not in where)
    names = sorted({env.symbols[s].dim_name for g in guards for s in g.expr.free_symbols})
    return ConstraintViolationError(
        f"The program does not work for all declared sizes of {', '.join(names)}. It requires:"
        + "".join(f"\n    {line}" for line in dict.fromkeys(lines)),
        why="the example's sizes decided each condition, and the declared ranges do not imply it",
        where=where,
        hints=_fixes(env, guards),
    )


def named(env: ShapeEnv, expr: Expr) -> str:
    """``expr`` in the user's names of the dims."""
    renamed = {s: symbol(env.symbols[s].dim_name, s.sort) for s in expr.free_symbols}
    return to_python(substitute(expr, renamed))


def _fixes(env: ShapeEnv, guards: list[Guard]) -> list[str]:
    """For each dim, a spec that the program admits, where one condition tells it."""
    fixes: dict[str, str] = {}
    for guard in guards:
        if len(guard.expr.free_symbols) != 1:
            fixes.setdefault(
                f"relation {guard.expr}",
                f"declare the dims so that {named(env, guard.expr)} always holds (one Dim for "
                "equal sizes, k*dim for multiples), or leave one of them static",
            )
            continue
        (sym,) = guard.expr.free_symbols
        info = env.symbols[sym]
        fixes[info.dim_name] = _fix(info, [g for g in guards if g.expr.free_symbols == {sym}])
    return list(fixes.values())


def _fix(info: SymbolInfo, guards: Iterable[Guard]) -> str:
    lower, upper = info.declared.lower, info.declared.upper
    multiple = 1
    for guard in guards:
        need = requirement(guard.expr)
        if need is None:
            return f"leave {info.dim_name} static: {info.hint} for {info.source}"
        if need.equals is not None:
            return (
                f"{info.source} must be {need.equals}: leave it static "
                f"(remove {info.dim_name} from dynamic_shapes)"
            )
        if need.range is not None:
            lower, upper = max(lower, need.range.lower), min(upper, need.range.upper)
        if need.multiple_of is not None:
            factor, rest = need.multiple_of
            if rest != 0:
                return f"leave {info.dim_name} static: {info.hint} for {info.source}"
            multiple = math.lcm(multiple, factor)
    if multiple == 1:
        return f"{info.dim_name} = Dim({_spec(info.dim_name, lower, upper)})"
    root = f"_{info.dim_name}"
    low, high = -(-lower // multiple), upper if upper == math.inf else upper // multiple
    return f"{info.dim_name} = {multiple} * Dim({_spec(root, low, high)})"


def _spec(name: str, lower: float, upper: float) -> str:
    parts = [repr(name)]
    if lower > 0:
        parts.append(f"min={int(lower)}")
    if upper != math.inf:
        parts.append(f"max={int(upper)}")
    return ", ".join(parts)


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
