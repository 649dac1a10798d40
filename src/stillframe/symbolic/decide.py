"""Deciding a boolean by the facts: True, False, or None for "they do not tell".

An answer says: for every assignment that satisfies the facts and for which the boolean has a value,
that is its value.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

from stillframe.symbolic.arith import linear
from stillframe.symbolic.bounds import range_of, view_bounds
from stillframe.symbolic.compare import and_, equals_zero, not_, or_
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.float_bounds import number_range
from stillframe.symbolic.prove import View, common_factor, nonpositive, nonpositive_by_steps
from stillframe.symbolic.residues import moduli, residue_parts
from stillframe.symbolic.simplify import simplify
from stillframe.symbolic.store import Store

# Arms of a connective are compared in pairs, if there are no more than this.
_MAX_PAIRED = 4


def decide(store: Store, node: Expr) -> bool | None:
    """What the facts say of the boolean ``node``; remembered until they change."""
    memo = store.decided
    if node in memo:
        return memo[node]
    if node.is_constant:
        return bool(node.value)
    answer = _decide(store, node)
    store.remember(memo, node, answer)
    return answer


def _decide(store: Store, node: Expr) -> bool | None:
    if store.literals:
        known = _literal(store, node)
        if known is not None:
            return known
    if node.diff is not None:
        quick = _by_range(store, node)
        if quick is not None:
            return quick
    if node.op in ("and", "or"):
        return _connective(store, node)
    if node.op == "not":
        inner = decide(store, node.args[0])
        return None if inner is None else not inner
    simple = simplify(store, node)
    if simple is not node:
        return decide(store, simple)
    if node.diff is not None:
        return _INTEGER[node.op](store, node.diff)
    if node.op in _FLOAT:
        left, right = (number_range(store, a) for a in node.args)
        if left is not None and right is not None:
            return _FLOAT[node.op](left, right)
    return None


def _literal(store: Store, node: Expr) -> bool | None:
    known = store.literals.get(node)
    if known is None:
        opposite = store.literals.get(not_(node))
        return None if opposite is None else not opposite
    return known


def _by_range(store: Store, node: Expr) -> bool | None:
    d = node.diff
    if d is None:
        return None
    bounds = range_of(store, d)
    if node.op in ("le", "lt"):
        return True if bounds.upper <= 0 else False if bounds.lower > 0 else None
    if bounds.lower > 0 or bounds.upper < 0:
        return node.op == "ne"
    if bounds.is_single:
        return node.op == "eq"
    return None


def _connective(store: Store, node: Expr) -> bool | None:
    deciding = node.op == "or"
    open_ones = []
    for arg in node.args:
        answer = decide(store, arg)
        if answer is deciding:
            return deciding
        if answer is None:
            open_ones.append(arg)
    if not open_ones:
        return not deciding
    if 1 < len(open_ones) <= _MAX_PAIRED:
        open_ones = [simplify(store, arg) for arg in open_ones]
        whole = or_(*open_ones) if deciding else and_(*open_ones)
        if whole.is_constant:
            return bool(whole.value)
        # `a or b` is certain if `not a and not b` is impossible
        both = map(not_, open_ones) if deciding else open_ones
        if _exclusive(store, [_bounds_of(store, arg) for arg in both]):
            return deciding
    return None


def _bounds_of(store: Store, node: Expr) -> list[View]:
    """Views that are at most 0 where ``node`` holds, if it is a comparison of integers."""
    if node.diff is None or node.op == "ne":
        return []
    view = linear(node.diff)
    return [view, _negated(view)] if node.op == "eq" else [view]


def _exclusive(store: Store, conjuncts: list[list[View]]) -> bool:
    """Whether two of ``conjuncts`` exclude each other: ``x <= 0``, ``y <= 0``, ``x + y >= 1``."""
    for first, second in combinations(conjuncts, 2):
        for (x, k), (y, c) in product(first, second):
            total = {m: -x.get(m, 0) - y.get(m, 0) for m in {**x, **y}}
            view = {m: n for m, n in total.items() if n}, 1 - k - c
            if nonpositive(store, view):
                return True
    return False


# -- integers -------------------------------------------------------------------------------------


def _negated(view: View) -> View:
    return {m: -c for m, c in view[0].items()}, -view[1]


def _zero(store: Store, d: Expr) -> bool | None:
    """``d == 0``; its range holds 0 and something else."""
    if d in store.nonzero or _no_multiple(store, d):
        return False
    view = linear(d)
    split = common_factor(d)
    if split is not None and (len(view[0]) > 1 or d.op == "mul"):
        by_factors = _zero_product(store, *split)
        if by_factors is not None:
            return by_factors
    terms, constant = view
    if nonpositive_by_steps(store, view):
        if nonpositive(store, (view[0], view[1] + 1)):
            return False
        return True if nonpositive_by_steps(store, _negated(view)) else None
    terms, constant = opposite = _negated(view)
    if nonpositive_by_steps(store, opposite) and nonpositive(store, (terms, constant + 1)):
        return False
    return None


def _no_multiple(store: Store, d: Expr) -> bool:
    """Whether ``d`` is not 0 modulo some number.

    So it is if the terms that are not known modulo ``m``, plus the remainder of the others, lie
    strictly between two multiples (``8*x + y % 4 + 1`` is no multiple of 8).
    """
    for m in moduli(store, d):
        known, rest, constant = residue_parts(store, *linear(d), m)
        low, high = view_bounds(store, rest, (known + constant) % m)
        if low > 0 and high < m:
            return True
    return False


def _zero_product(store: Store, g: Expr, rest: Expr) -> bool | None:
    """``g * rest == 0``: one factor is, or none is."""
    parts = [*(g.args if g.op == "mul" else (g,)), rest]
    answers = [decide(store, equals_zero(p)) for p in dict.fromkeys(parts)]
    if any(a is True for a in answers):
        return True
    return False if all(a is False for a in answers) else None


def _nonzero(store: Store, d: Expr) -> bool | None:
    answer = _zero(store, d)
    return None if answer is None else not answer


def _at_most_zero(store: Store, d: Expr) -> bool | None:
    """``d <= 0``; its range does not tell."""
    view = linear(d)
    if nonpositive_by_steps(store, view):
        return True
    terms, constant = _negated(view)
    return False if nonpositive_by_steps(store, (terms, constant + 1)) else None


_INTEGER: dict[str, Callable[[Store, Expr], bool | None]] = {
    "eq": _zero,
    "ne": _nonzero,
    "le": _at_most_zero,
    "lt": _at_most_zero,
}

# -- floats ---------------------------------------------------------------------------------------

_Bounds = tuple[float, float]


def _float_lt(a: _Bounds, b: _Bounds) -> bool | None:
    return True if a[1] < b[0] else False if a[0] >= b[1] else None


def _float_le(a: _Bounds, b: _Bounds) -> bool | None:
    return True if a[1] <= b[0] else False if a[0] > b[1] else None


def _float_eq(a: _Bounds, b: _Bounds) -> bool | None:
    if a[1] < b[0] or a[0] > b[1]:
        return False
    return True if a[0] == a[1] == b[0] == b[1] else None


def _float_ne(a: _Bounds, b: _Bounds) -> bool | None:
    answer = _float_eq(a, b)
    return None if answer is None else not answer


_FLOAT: dict[str, Callable[[_Bounds, _Bounds], bool | None]] = {
    "lt": _float_lt,
    "le": _float_le,
    "eq": _float_eq,
    "ne": _float_ne,
}
