"""Sizes that a program admits, drawn at random: for trying it out at shapes of all kinds."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch.utils import _pytree as pytree

from stillframe.export.door import Door
from stillframe.symbolic import Contradiction, Expr, Facts, const, eq, evaluate

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

Sizes = dict[Expr, Any]

_RESTARTS = 20
_TRIES = 8


def example_sizes(program: ExportedProgram) -> Sizes:
    """The values of the inputs' symbols in the example inputs."""
    door = Door.of(program)
    leaves = pytree.tree_leaves(program.example_inputs, is_leaf=lambda v: v is None)
    sizes: Sizes = {}
    for symbol, (leaf, dim) in door.bare.items():
        sizes[symbol] = leaves[leaf] if dim < 0 else int(leaves[leaf].shape[dim])
    for (leaf, dim), solution in door.solved.items():
        if solution.symbol not in sizes:
            size = int(leaves[leaf].shape[dim])
            sizes[solution.symbol] = (size - solution.offset) // solution.scale
    return sizes


def draw_sizes(program: ExportedProgram, rng: random.Random, seen: list[Sizes]) -> Sizes | None:
    """Sizes inside the ranges that keep all guards, near the example; None if none is found.

    Args:
        program: a program with example inputs.
        rng: where the choices come from.
        seen: sizes that are not wanted again; the first is the example.
    """
    example = seen[0]
    if not example:
        return None
    facts = _facts(program)
    for _ in range(_RESTARTS):
        sizes = _drawn(facts.copy(), example, rng, _special_values(program))
        if sizes is None or sizes in seen:
            continue
        if all(evaluate(g.expr, sizes) for g in program.guards):
            return sizes
    return None


def _facts(program: ExportedProgram) -> Facts:
    facts = Facts()
    for expr, bounds in program.range_constraints.items():
        if expr.op == "symbol" and expr.sort == "int":
            facts.set_range(expr, bounds)
    for guard in program.guards:
        facts.assume(guard.expr)
    return facts


def _special_values(program: ExportedProgram) -> list[int]:
    """Constants of the guards: members of sets, ends of ranges."""
    found: set[int] = set()
    pending: list[Expr] = [g.expr for g in program.guards]
    while pending:
        expr = pending.pop()
        if expr.is_constant and expr.sort == "int":
            found.add(expr.value)
        pending += [a for a in expr.args if isinstance(a, Expr)]
    return sorted(found)


def _drawn(facts: Facts, example: Sizes, rng: random.Random, special: list[int]) -> Sizes | None:
    """One value after the other, each consistent with those before."""
    sizes: Sizes = {}
    symbols = list(example)
    rng.shuffle(symbols)
    for symbol in symbols:
        hint = example[symbol]
        if isinstance(hint, float):
            sizes[symbol] = hint * rng.uniform(0.5, 1.5)
            continue
        value = _value(facts, symbol, hint, rng, special)
        if value is None:
            return None
        sizes[symbol] = value
    return {symbol: sizes[symbol] for symbol in example}


def _value(
    facts: Facts, symbol: Expr, hint: int, rng: random.Random, special: list[int]
) -> int | None:
    known = facts.simplify(symbol)
    if known.is_constant:
        return int(known.value)
    for value in _candidates(facts, symbol, hint, rng, special):
        try:
            facts.assume(eq(symbol, const(value)))
        except Contradiction:
            continue
        return value
    return None


def _candidates(
    facts: Facts, symbol: Expr, hint: int, rng: random.Random, special: list[int]
) -> Iterable[int]:
    """Values in the range: random ones near the example, then those of the guards."""
    bounds = facts.range_of(symbol)
    low = hint // 4 if bounds.lower == -math.inf else max(int(bounds.lower), hint // 4)
    high = 2 * abs(hint) + 8 if bounds.upper == math.inf else int(bounds.upper)
    high = max(low, min(high, 2 * abs(hint) + 8))
    step, rest = facts.congruence_of(symbol) or (1, 0)
    for _ in range(_TRIES):
        value = rng.randint(low, high)
        yield value - (value - rest) % step
    yield from rng.sample(special, len(special))
    yield hint
