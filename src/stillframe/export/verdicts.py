"""What became of every size of the inputs, and why: what ``program.explain()`` shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stillframe.export.inputs import FakeInputs, Place
from stillframe.export.listing import range_text
from stillframe.shapes.dims import DerivedDim, DimSpec
from stillframe.shapes.env import Guard, ShapeEnv
from stillframe.shapes.solve import Solution
from stillframe.symbolic import Expr, substitute, symbol, to_python


@dataclass(frozen=True)
class Reason:
    """A condition that the capture relied on, in the user's names, and where it was asked."""

    condition: str
    where: tuple[str, ...] = ()
    kind: str = "backed"

    def __str__(self) -> str:
        if self.kind == "assumed":
            return f"{self.condition}   as assumed"
        if self.kind == "declared":
            return f"{self.condition}   as declared"
        at = self.where[-1] if self.where else "a library function"
        return f"{self.condition}   because of {at}"


@dataclass(frozen=True)
class Verdict:
    """What became of one size, or one varying number, of the inputs.

    Attributes:
        place: ``x.size(0)``, or the name of a number.
        declared: what the user wrote; empty for a size that was not declared.
        outcome: ``"as declared"``, ``"narrowed"`` (a smaller range, or a multiple), ``"equal"``
            (to another dim), ``"derived"`` (from another dim), ``"related"`` (free in its range,
            but tied to others by a condition) or ``"static"``.
        result: the size, as a spec would declare it.
        range: the sizes it may have.
        reasons: the conditions that led there.
    """

    place: str
    declared: str
    outcome: str
    result: str
    range: str
    reasons: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        if self.outcome == "static":
            return f"{self.place}: static, {self.result}"
        return f"{self.place}: {self.result}, {self.range}"


def named(env: ShapeEnv, expr: Expr) -> str:
    """``expr`` in the user's names of the dims."""
    renamed = {s: symbol(env.symbols[s].dim_name, s.sort) for s in expr.free_symbols}
    return to_python(substitute(expr, renamed))


def verdicts(
    env: ShapeEnv, inputs: FakeInputs, declared: Solution, solution: Solution
) -> list[Verdict]:
    """One verdict for each place, in order.

    Args:
        env: after the run.
        inputs: the inputs of the capture.
        declared: the solved form of what was declared.
        solution: the solved form after the run.
    """
    reasons = _reasons(env, (*env.supposed, *env.guards))
    related: set[Expr] = set()
    for guard in env.guards:
        if len(guard.expr.free_symbols) > 1:
            related |= guard.expr.free_symbols
    return [_verdict(place, env, declared, solution, reasons, related) for place in inputs.places]


def _reasons(env: ShapeEnv, guards: Iterable[Guard]) -> dict[Expr, list[Reason]]:
    found: dict[Expr, list[Reason]] = {}
    for guard in guards:
        reason = Reason(named(env, guard.expr), guard.where, guard.kind)
        for sym in guard.expr.free_symbols:
            found.setdefault(sym, []).append(reason)
    return found


def _verdict(
    place: Place,
    env: ShapeEnv,
    before: Solution,
    solution: Solution,
    reasons: dict[Expr, list[Reason]],
    related: set[Expr],
) -> Verdict:
    size = place.size
    declared = "" if place.declared is None else repr_of(place.declared)
    if not isinstance(size, Expr):
        return Verdict(str(place), declared, "static", str(size), str(size))
    symbols = sorted(size.free_symbols, key=str)
    why = tuple(dict.fromkeys(r for s in symbols for r in reasons.get(s, ())))
    if size.sort != "int":
        outcome = "as declared" if not why else "narrowed"
        return Verdict(str(place), declared, outcome, named(env, size), "any", why)
    form = solution.form(size)
    bounds = env.facts.range_of(size)
    outcome = "static" if form.is_constant else _outcome(size, env, before, solution)
    if outcome == "as declared" and not related.isdisjoint(size.free_symbols):
        outcome = "related"
    return Verdict(str(place), declared, outcome, to_python(form), range_text(bounds), why)


def _outcome(size: Expr, env: ShapeEnv, before: Solution, after: Solution) -> str:
    """How the solved form of a size differs from what was declared."""
    (sym,) = size.free_symbols
    form = after.forms[sym]
    names = {str(s) for s in form.free_symbols}
    if form is before.forms[sym] and all(before.roots[n] == after.roots[n] for n in names):
        return "as declared"
    name = env.symbols[sym].dim_name
    if names <= {name, f"_{name}"}:
        return "narrowed"
    return "equal" if form.op == "symbol" else "derived"


def static_dims(found: Iterable[Verdict]) -> list[str]:
    """A sentence for each hinted size that became a constant: which, and because of which line."""
    return [
        f"{v.place} is static ({v.result})" + "".join(f"; {reason}" for reason in v.reasons[:1])
        for v in found
        if v.outcome == "static" and v.declared in ("Dim.AUTO", "Dim.DYNAMIC")
    ]


def repr_of(declared: DimSpec) -> str:
    """A declaration as the user may have written it."""
    if isinstance(declared, DerivedDim):
        return f"{declared!s} with {declared.root!r}"
    return repr(declared)
