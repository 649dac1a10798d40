"""Rewriting floats under facts, where the facts show that nothing is rounded or what is larger.

A float that is certainly a fraction of integers (``float(s) * 0.5`` for a size below ``2**53``)
is compared and rounded as integers are: ``math.floor(s * 0.5)`` is ``s // 2``.
"""

from __future__ import annotations

from stillframe.symbolic import arith
from stillframe.symbolic.arith import scaled_sum
from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.expr import ONE, Expr, const
from stillframe.symbolic.float_bounds import float_range, number_range
from stillframe.symbolic.operators import CONSTRUCTORS, floordiv, neg
from stillframe.symbolic.store import Store

_EXACT = 2**53


def fraction(store: Store, node: Expr) -> tuple[Expr, int] | None:
    """``(p, q)`` with the float ``node`` exactly ``p / q``, ``q`` a power of two; None if unknown.

    Exact at every step: a quotient of an integer of at most 53 bits and a power of two is a float.
    """
    if node.sort == "int":
        return node, 1
    if node.is_constant:
        value = node.value
        if value != value or abs(value) > _EXACT:
            return None
        p, q = value.as_integer_ratio()
        return (const(p), q) if q <= _EXACT else None
    if node.op == "float":
        return _fits(store, node.args[0], 1)
    if node.op == "truediv":
        x, y = node.args
        if y.is_constant and y.value > 0 and y.value == int(y.value):
            n = int(y.value)
            top = fraction(store, x)
            if n & (n - 1) == 0 and top is not None:
                return _fits(store, top[0], top[1] * n)
        return None
    if node.op in ("add", "mul"):
        left, right = (fraction(store, a) for a in node.args)
        if left is None or right is None:
            return None
        (a, p), (b, q) = left, right
        if node.op == "mul":
            return _fits(store, arith.mul_int(a, b), p * q)
        common = max(p, q)
        return _fits(store, scaled_sum(((common // p, a), (common // q, b))), common)
    return None


def _fits(store: Store, numerator: Expr, denominator: int) -> tuple[Expr, int] | None:
    bounds = range_of(store, numerator)
    if -_EXACT <= bounds.lower and bounds.upper <= _EXACT and denominator <= _EXACT:
        return numerator, denominator
    return None


def exact_rounding(store: Store, node: Expr) -> Expr | None:
    """``floor``, ``ceil``, ``trunc`` of an exact fraction, or of an integer quotient."""
    x = node.args[0]
    exact = fraction(store, x)
    if exact is None:
        divided = _integer_quotient(store, x)
        if divided is None:
            return None
        numerator, denominator = divided
    else:
        numerator, denominator = exact[0], const(exact[1])
        if denominator is ONE:
            return numerator
    op = node.op
    if op == "trunc":
        bounds = range_of(store, numerator)
        op = "floor" if bounds.lower >= 0 else "ceil" if bounds.upper <= 0 else op
    if op == "floor":
        return floordiv(numerator, denominator)
    if op == "ceil":
        return neg(floordiv(neg(numerator), denominator))
    return None


def _integer_quotient(store: Store, x: Expr) -> tuple[Expr, Expr] | None:
    """``(a, b)`` for the float ``a / b`` whose floor and ceiling are those of the true quotient.

    With ``b >= 1`` and ``|a| + b < 2**53`` a quotient that is no integer is at least ``1/b`` away
    from the next one, which is more than half a unit in the last place: rounding cannot reach it.
    """
    if x.op != "truediv" or x.args[0].sort != "int" or x.args[1].sort != "int":
        return None
    a, b = x.args
    top, bottom = range_of(store, a), range_of(store, b)
    if bottom.lower >= 1 and max(abs(top.lower), abs(top.upper)) + bottom.upper < _EXACT:
        return a, b
    return None


def exact_comparison(store: Store, node: Expr) -> Expr | None:
    """A comparison of exact fractions as one of integers."""
    if node.diff is not None:
        return None
    left = fraction(store, node.args[0])
    right = fraction(store, node.args[1]) if left is not None else None
    if left is None or right is None:
        return None
    (a, p), (b, q) = left, right
    return CONSTRUCTORS[node.op](scaled_sum(((q, a),)), scaled_sum(((p, b),)))


def same_float(store: Store, node: Expr) -> Expr | None:
    """``x == x`` and the like, for a float that is not NaN."""
    if node.diff is None and node.args[0] is node.args[1]:
        if node.op == "lt":
            return const(False)
        if number_range(store, node.args[0]) is not None:
            return const(node.op != "ne")
    return None


def dominated_float(store: Store, node: Expr) -> Expr | None:
    """The larger (smaller) of two floats that are not NaN; equal zeros may differ in sign."""
    first: Expr = node.args[0]
    second: Expr = node.args[1]
    a, b = float_range(store, first), float_range(store, second)
    if a is None or b is None:
        return None
    larger, smaller = (first, second) if node.op == "max" else (second, first)
    if a[0] > b[1] or (a[0] == b[1] != 0):
        return larger
    return smaller if b[0] > a[1] or (b[0] == a[1] != 0) else None
