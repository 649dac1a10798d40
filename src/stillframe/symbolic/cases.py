"""Questions that the facts answer case by case.

A recorded disjunction (``s == 1 or s == 8 or s == 32``) makes one store for each arm that can
hold. What all of them answer alike is the answer; what lies in one of their ranges is the range.
The condition of a choice in the question makes two such stores. A question over a few small finite
ranges is settled by looking at all values.
"""

from __future__ import annotations

import itertools
import math

from stillframe.symbolic import decide as base
from stillframe.symbolic.assume import (
    MAX_ARMS,
    Impossible,
    assume,
    both_ways,
    possible_arms,
    rewrite_statements,
)
from stillframe.symbolic.bounds import meet, range_of
from stillframe.symbolic.compare import not_
from stillframe.symbolic.evaluate import evaluate
from stillframe.symbolic.expr import Expr, order_key
from stillframe.symbolic.interval import INF, Range
from stillframe.symbolic.simplify import simplify
from stillframe.symbolic.store import Store

# How deep cases are split again, and how many arms one question may look at in all.
_DEPTH = 2
_ARMS = 64
_POINTS = 24
_CONDITIONS = 2
_REFUTED = 12  # symbols that are connected with the question, when its opposite is tried


class _Budget:
    def __init__(self) -> None:
        self.left = _ARMS


def decide(store: Store, node: Expr) -> bool | None:
    """What the cases say of a boolean that ``decide.py`` left open."""
    answer = _by_values(store, node)
    if answer is None and store.splits:
        answer = _by_splits(store, node, _Budget(), _DEPTH)
    if answer is None:
        answer = _by_conditions(store, node)
    return _by_refutation(store, node) if answer is None else answer


def narrowed(store: Store, node: Expr, bounds: Range) -> Range:
    """``bounds`` of an integer, narrowed by the cases."""
    for split in _relevant(store, node):
        worlds = possible_arms(store, split)
        if not worlds:
            continue
        hull = range_of(worlds[0], node)
        for world in worlds[1:]:
            hull = hull.union(range_of(world, node))
        bounds = meet(bounds, hull)
    return bounds


def _relevant(store: Store, node: Expr) -> list[Expr]:
    """Disjunctions that a chain of shared symbols connects with ``node``; nearest first."""
    groups = {store.group(s) for s in node.free_symbols}
    found = [
        split
        for split in store.splits
        if len(split.args) <= MAX_ARMS and any(store.group(s) in groups for s in split.free_symbols)
    ]
    found.sort(
        key=lambda split: (split.free_symbols.isdisjoint(node.free_symbols), len(split.args))
    )
    return found


def _by_splits(store: Store, node: Expr, budget: _Budget, depth: int) -> bool | None:
    for split in _relevant(store, node):
        worlds = possible_arms(store, split)
        if not worlds:  # contradictory facts: any answer holds
            continue
        answer = _agreed(worlds, node, budget, depth)
        if answer is not None:
            return answer
    return None


def _agreed(worlds: tuple[Store, ...], node: Expr, budget: _Budget, depth: int) -> bool | None:
    """The answer that all ``worlds`` give."""
    agreed: bool | None = None
    for world in worlds:
        if budget.left <= 0:
            return None
        budget.left -= 1
        answer = base.decide(world, node)
        if answer is None and depth > 1:
            answer = _by_splits(world, node, budget, depth - 1)
        if answer is None or (agreed is not None and answer is not agreed):
            return None
        agreed = answer
    return agreed


def _by_conditions(store: Store, node: Expr) -> bool | None:
    """The answer for a condition in the question itself (``x if c else y``) and its negation."""
    for test in _conditions(node):
        answer = _agreed(both_ways(store, test), node, _Budget(), 1)
        if answer is not None:
            return answer
    return None


def _conditions(node: Expr) -> list[Expr]:
    """The tests of the choices in ``node``, without repetition, a few at most."""
    found: dict[Expr, None] = {}
    seen: set[Expr] = set()
    stack = [node]
    while stack and len(found) < _CONDITIONS:
        part = stack.pop()
        if part in seen:
            continue
        seen.add(part)
        if part.op == "ite":
            found[part.args[0]] = None
        stack.extend(a for a in part.args if a.__class__ is Expr and a.args)
    return list(found)


# -- trying it ------------------------------------------------------------------------------------


def _by_refutation(store: Store, node: Expr) -> bool | None:
    """The answer whose opposite cannot be assumed.

    Only tried where a statement hides a symbol of the question inside something else than a sum:
    with ``s != 5 // s`` known, ``s == 2`` is impossible. Bounds and sums have told all they can.
    """
    if store.opaque.isdisjoint(node.free_symbols):
        return None
    if any(len(store.group(s).symbols) > _REFUTED for s in node.free_symbols):
        return None
    for arm, answer in ((node, False), (not_(node), True)):
        world = store.related(node.free_symbols)
        try:
            assume(world, arm)
            rewrite_statements(world, node.free_symbols)
        except Impossible:
            return answer
    return None


# -- all values -----------------------------------------------------------------------------------


def _by_values(store: Store, node: Expr) -> bool | None:
    """The answer at every point that the disjunctions allow, if the question has few points."""
    node = simplify(store, node)
    if node.is_constant:
        return bool(node.value)
    symbols = sorted(node.free_symbols, key=order_key)
    spans = []
    points = 1
    for s in symbols:
        if s.sort != "int":
            return None
        bounds = range_of(store, s)
        if bounds.lower == -INF or bounds.upper - bounds.lower >= _POINTS:
            return None
        spans.append(range(int(bounds.lower), int(bounds.upper) + 1))
        points = math.prod(map(len, spans))
        if points > _POINTS:
            return None
    splits = [split for split in store.splits if split.free_symbols <= node.free_symbols]
    found: set[bool] = set()
    for numbers in itertools.product(*spans):
        point = dict(zip(symbols, numbers, strict=True))
        try:
            if all(evaluate(split, point) for split in splits):
                found.add(bool(evaluate(node, point)))
        except (ArithmeticError, ValueError):  # it has no value there
            continue
        if len(found) > 1:
            return None
    return found.pop() if found else None
