"""Comparisons, logic and choice in normal form.

A comparison of integers is one of ``d == 0``, ``d != 0``, ``d <= 0`` for a difference ``d`` whose
coefficients have no common divisor; ``==`` and ``!=`` make the first coefficient positive, and
``<=`` rounds the constant to the tightest integer. So ``128*s == 0`` and ``s == 0`` are one
expression, and ``2*a <= 2*b + 1`` is ``a <= b``. For people (and graphs) the two operands are set
out with positive coefficients on both sides; ``diff`` of the node is ``d``.

Floats: NaN makes ``not (a < b)`` something other than ``b <= a``, so there a negation stays.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from stillframe.symbolic import arith
from stillframe.symbolic.arith import Terms, from_linear, from_sorted, linear, sorted_terms
from stillframe.symbolic.expr import (
    FALSE,
    ONE,
    TRUE,
    Expr,
    Operand,
    as_bool,
    const,
    intern,
    order_key,
)
from stillframe.symbolic.floats import number, to_float

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
}


# -- integers -------------------------------------------------------------------------------------


def equals_zero(d: Expr) -> Expr:
    """``d == 0`` for an integer ``d``."""
    return _zero_test("eq", d)


def differs_from_zero(d: Expr) -> Expr:
    """``d != 0`` for an integer ``d``."""
    return _zero_test("ne", d)


def _zero_test(op: str, d: Expr) -> Expr:
    terms, constant = linear(d)
    if not terms:
        return const((constant == 0) == (op == "eq"))
    g = math.gcd(*terms.values())
    if constant % g:
        return const(op == "ne")
    if len(terms) == 1:
        rewritten = _remainder_test(d, terms, constant)
        if rewritten is not d:
            return _zero_test(op, rewritten)
    elif (multiple := _multiple_test(terms, constant)) is not None:
        return _zero_test(op, multiple)
    elif (bounds := _extremum_test(terms, constant)) is not None:
        return bounds if op == "eq" else _not(bounds)
    ordered = sorted_terms(terms)
    if ordered[0][1] < 0:
        g = -g
    if g != 1:
        ordered, constant = [(m, c // g) for m, c in ordered], constant // g
        d = from_sorted(ordered, constant)
    node = intern(op, _two_sides(ordered, 0, -constant), "bool")
    node.diff = d
    return node


def _two_sides(ordered: list[tuple[Expr, int]], left: int, right: int) -> tuple[Expr, Expr]:
    """The positive terms plus ``left``, and the others with the opposite sign plus ``right``."""
    return (
        from_sorted([term for term in ordered if term[1] > 0], left),
        from_sorted([(m, -c) for m, c in ordered if c < 0], right),
    )


def _remainder_test(d: Expr, terms: Terms, constant: int) -> Expr:
    """``(k - x) % n == r`` as ``x % n == (k - r) % n``, ``x`` positive and without constant.

    A remainder that is out of reach gives a constant that is not 0.
    """
    ((mono, c),) = terms.items()
    if mono.op != "mod" or not mono.args[1].is_constant:
        return d
    x, n, r = mono.args[0], mono.args[1].value, -constant // c
    x_terms, k = linear(x)
    if not 0 <= r < n:
        return ONE
    sign = 1 if x_terms[min(x_terms, key=arith.term_key)] > 0 else -1
    if sign > 0 and k == 0:
        return d
    form = from_linear({m: sign * a for m, a in x_terms.items()}, 0)
    reduced = arith.mod_int(form, mono.args[1])
    return arith.scaled_sum(((1, reduced),), -((r - k) * sign % n))


def _multiple_test(terms: Terms, constant: int) -> Expr | None:
    """``x == k*((x + c)//k)`` as ``(x + c) % k == c``: a difference to test, or None."""
    for mono, a in terms.items():
        if mono.op == "floordiv" and mono.args[1].is_constant and a % mono.args[1].value == 0:
            dividend, k = mono.args
            factor = -a // k.value
            rest = from_linear({m: c for m, c in terms.items() if m is not mono}, constant)
            left = arith.scaled_sum(((1, rest), (-factor, dividend)), 0)
            if left.is_constant:
                return arith.scaled_sum(((factor, arith.mod_int(dividend, k)),), left.value)
    return None


def _extremum_test(terms: Terms, constant: int) -> Expr | None:
    """``x == min(x, y)`` as ``x <= y``, and so for ``max`` and several ``y``; or None."""
    for extremum, sign in terms.items():
        if extremum.op in ("min", "max") and abs(sign) == 1:
            rest = {m: -sign * c for m, c in terms.items() if m is not extremum}
            x = from_linear(rest, -sign * constant)
            if any(a is x for a in extremum.args):
                others = [a for a in extremum.args if a is not x]
                return and_(*[le(x, a) if extremum.op == "min" else le(a, x) for a in others])
    return None


def at_most_zero(d: Expr) -> Expr:
    """``d <= 0`` for an integer ``d``."""
    terms, constant = linear(d)
    if not terms:
        return const(constant <= 0)
    unfolded = _without_floor(terms, constant)
    if unfolded is not None:
        return at_most_zero(unfolded)
    g = math.gcd(*terms.values())
    ordered = sorted_terms(terms)
    if g != 1:  # g*x + k <= 0  is  x + ceil(k/g) <= 0
        ordered, constant = [(m, c // g) for m, c in ordered], -(-constant // g)
        unfolded = _without_floor(dict(ordered), constant)
        if unfolded is not None:
            return at_most_zero(unfolded)
        d = from_sorted(ordered, constant)
    positives = sum(c > 0 for _, c in ordered)
    both = 0 < positives < len(ordered)
    op, left_constant, right_constant = "le", 0, 0
    if both and constant == 1:
        op = "lt"
    elif not positives or (both and constant > 0):
        left_constant = constant
    else:
        right_constant = -constant
    node = intern(op, _two_sides(ordered, left_constant, right_constant), "bool")
    node.diff = d
    return node


def _without_floor(terms: Terms, constant: int) -> Expr | None:
    """The same condition without its only floor-division by a constant, or None.

    ``x // k + r <= 0`` is ``x + k*r - k + 1 <= 0``, and ``-(x // k) + r <= 0`` is
    ``k*r - x <= 0``, for integers ``r`` and ``k > 0``.
    """
    found: Expr | None = None
    for mono in terms:
        if mono.op == "floordiv" and mono.args[1].is_constant:
            if found is not None:
                return None
            found = mono
    if found is None or abs(terms[found]) != 1:
        return None
    sign = terms[found]
    inner, k = found.args[0], found.args[1].value
    rest = from_linear({m: c for m, c in terms.items() if m is not found}, constant)
    return arith.scaled_sum(((sign, inner), (k, rest)), 1 - k if sign > 0 else 0)


# -- any sort -------------------------------------------------------------------------------------


def eq(a: Operand, b: Operand) -> Expr:
    """``a == b``."""
    left, right = const(a), const(b)
    if left.sort == "bool" and right.sort == "bool":
        return or_(and_(left, right), and_(not_(left), not_(right)))
    left, right = number(left), number(right)
    if left.sort == "int" and right.sort == "int":
        return TRUE if left is right else equals_zero(arith.sub_int(left, right))
    return _float_test("eq", left, right)


def ne(a: Operand, b: Operand) -> Expr:
    """``a != b``."""
    return not_(eq(a, b))


def lt(a: Operand, b: Operand) -> Expr:
    """``a < b``; of integers, ``a + 1 <= b``."""
    left, right = number(a), number(b)
    if left.sort == "int" and right.sort == "int":
        return at_most_zero(arith.scaled_sum(((1, left), (-1, right)), 1))
    return _float_test("lt", left, right)


def le(a: Operand, b: Operand) -> Expr:
    """``a <= b``."""
    left, right = number(a), number(b)
    if left.sort == "int" and right.sort == "int":
        return at_most_zero(arith.sub_int(left, right))
    return _float_test("le", left, right)


def _float_test(op: str, left: Expr, right: Expr) -> Expr:
    """Python compares an int with a float exactly, so nothing is converted but exact constants."""
    left, right = _exact_float(left), _exact_float(right)
    if left.is_constant and right.is_constant:
        return const(COMPARISONS[op](left.value, right.value))
    if op == "eq" and order_key(left) < order_key(right):
        left, right = right, left  # constants go to the right
    return intern(op, (left, right), "bool")


def _exact_float(node: Expr) -> Expr:
    if node.is_constant and node.sort == "int" and abs(node.value) <= 2**53:
        return const(float(node.value))
    return node


# -- logic ----------------------------------------------------------------------------------------


def not_(a: Operand) -> Expr:
    """``not a``, pushed inwards where that is exact."""
    node = as_bool(a)
    result = node._complement
    if result is None:
        result = node._complement = _not(node)
        if result._complement is None:
            result._complement = node
    return result


def _not(node: Expr) -> Expr:
    if node.is_constant:
        return FALSE if node.value else TRUE
    if node.op == "not":
        inner: Expr = node.args[0]
        return inner
    if node.diff is not None:
        if node.op == "eq":
            return differs_from_zero(node.diff)
        if node.op == "ne":
            return equals_zero(node.diff)
        return at_most_zero(arith.scaled_sum(((-1, node.diff),), 1))  # not d <= 0 is -d + 1 <= 0
    if node.op == "eq":
        return intern("ne", node.args, "bool")
    if node.op == "ne":
        return intern("eq", node.args, "bool")
    if node.op == "and":
        return or_(*map(not_, node.args))
    if node.op == "or":
        return and_(*map(not_, node.args))
    return intern("not", (node,), "bool")


def and_(*args: Operand) -> Expr:
    """The conjunction of ``args``; True for none."""
    return _connective("and", TRUE, FALSE, args)


def or_(*args: Operand) -> Expr:
    """The disjunction of ``args``; False for none."""
    return _connective("or", FALSE, TRUE, args)


def _connective(op: str, neutral: Expr, absorbing: Expr, args: Iterable[Operand]) -> Expr:
    kept: dict[Expr, None] = {}
    for arg in args:
        node = as_bool(arg)
        parts: tuple[Expr, ...] = node.args if node.op == op else (node,)
        for part in parts:
            if part is absorbing:
                return absorbing
            if part is not neutral:
                kept[part] = None
    for part in kept:
        if not_(part) in kept:
            return absorbing
    if len(kept) < 2:
        return next(iter(kept), neutral)
    return intern(op, tuple(sorted(kept, key=order_key)), "bool")


def ite(condition: Operand, then: Operand, other: Operand) -> Expr:
    """``then if condition else other``."""
    test, a, b = as_bool(condition), const(then), const(other)
    if a.sort == "bool" and b.sort == "bool":
        return or_(and_(test, a), and_(not_(test), b))
    a, b = number(a), number(b)
    if a.sort != b.sort:
        a, b = to_float(a), to_float(b)
    if test.is_constant:
        chosen: Expr = a if test.value else b
        return chosen
    if a is b:
        return a
    if test.op == "ne":
        test, a, b = not_(test), b, a
    if test.diff is not None and test.op in ("le", "lt") and a.sort == "int":
        smaller = _is_choice_of_smaller(test.diff, a, b)
        if smaller is not None:
            return arith.extremum_int("min" if smaller else "max", (a, b))
    return intern("ite", (test, a, b), a.sort)


def _is_choice_of_smaller(d: Expr, a: Expr, b: Expr) -> bool | None:
    """Whether ``a if d <= 0 else b`` is ``min(a, b)``, or (False) ``max(a, b)``; None for neither.

    It is the smaller if ``d`` is ``a - b`` (``a <= b``) or ``a - b + 1`` (``a < b``), and the
    larger if it is ``b - a`` or ``b - a + 1``.
    """
    for smaller, difference in ((True, arith.sub_int(a, b)), (False, arith.sub_int(b, a))):
        if d is difference or d is arith.add_int(difference, ONE):
            return smaller
    return None
