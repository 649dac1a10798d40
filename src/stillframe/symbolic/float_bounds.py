"""The range of a float expression under the facts, and of the integers that it is rounded to.

IEEE 754 rounding is monotone, so for sums, products, quotients and square roots the rounded results
at the corners bound all results. The functions of the C library are monotone only up to their last
bits: their bounds are moved outwards by a few units in the last place.

No range (None) means "unknown, or it may be NaN". What raises has no value and need not be in the
range: ``float(x)`` and ``x / y`` of integers are never infinite, ``math.log(x)`` has ``x > 0``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import FULL, INF, Bound, Range
from stillframe.symbolic.store import Store

FloatRange = tuple[float, float]

MAX = sys.float_info.max
_TINY = math.nextafter(0.0, 1.0)
_ULPS = 4


def rounded(store: Store, node: Expr, rounding: Callable[[float], int]) -> Range:
    """The range of the integer that the float ``node`` is rounded to."""
    bounds = float_range(store, node)
    if bounds is None:
        return FULL
    low, high = bounds
    return Range(
        low if abs(low) == INF else rounding(low), high if abs(high) == INF else rounding(high)
    )


def number_range(store: Store, node: Expr) -> FloatRange | None:
    """Bounds of an operand of a comparison: a float, or an integer that is compared exactly."""
    if node.sort == "int":
        bounds = range_of(store, node)
        return _outward(bounds.lower, -INF), _outward(bounds.upper, INF)
    return float_range(store, node)


def float_range(store: Store, node: Expr) -> FloatRange | None:
    """Bounds of a float ``node`` that is certainly not NaN, or None."""
    if node.is_constant:
        return None if node.value != node.value else (node.value, node.value)
    rule = _RULES.get(node.op)
    return None if rule is None else rule(store, node)


def _outward(bound: Bound, direction: float) -> float:
    """An integer bound as a float that is no tighter."""
    if abs(bound) <= 2**53:
        return float(bound)
    try:
        return math.nextafter(float(bound), direction)
    except OverflowError:
        return INF if bound > 0 else -INF


def _clipped(bound: float) -> float:
    return min(max(bound, -MAX), MAX)


# -- conversions and quotients of integers --------------------------------------------------------


def _converted(store: Store, node: Expr) -> FloatRange:
    bounds = range_of(store, node.args[0])
    return _clipped(_outward(bounds.lower, -INF)), _clipped(_outward(bounds.upper, INF))


def _quotient(store: Store, node: Expr) -> FloatRange | None:
    x, y = node.args
    if x.sort == "int":
        return _integer_quotient(range_of(store, x), range_of(store, y))
    top, bottom = float_range(store, x), float_range(store, y)
    if top is None or bottom is None or bottom[0] <= 0 <= bottom[1]:
        return None
    return _corners(top, bottom, lambda a, b: a / b)


def _integer_quotient(top: Range, bottom: Range) -> FloatRange | None:
    if 0 in bottom:
        return None
    corners = [q for x in top for y in bottom for q in _integer_corner(x, y)]
    return min(corners), max(corners)


def _integer_corner(x: Bound, y: Bound) -> tuple[float, ...]:
    """``x / y``, or its limits for infinite bounds; a result that does not fit raises."""
    far = MAX if (x > 0) == (y > 0) else -MAX
    if abs(y) == INF:
        return (0.0, far) if abs(x) == INF else (0.0,)
    if abs(x) == INF:
        return (far,)
    try:
        return (x / y,)
    except OverflowError:
        return (far,)


# -- operators ------------------------------------------------------------------------------------


def _corners(
    a: FloatRange, b: FloatRange, function: Callable[[float, float], float]
) -> FloatRange | None:
    results = [function(x, y) for x in a for y in b]
    if any(r != r for r in results):
        return None
    return min(results), max(results)


def _binary(
    image: Callable[[FloatRange, FloatRange], FloatRange | None],
) -> Callable[[Store, Expr], FloatRange | None]:
    """A rule from the image of the last two operands' ranges."""

    def rule(store: Store, node: Expr) -> FloatRange | None:
        a, b = (float_range(store, operand) for operand in node.args[-2:])
        return None if a is None or b is None else image(a, b)

    return rule


def _remainder(a: FloatRange, b: FloatRange) -> FloatRange | None:
    """``x % y`` for ``y > 0``: from 0 to ``y``, which rounding can reach."""
    if b[0] <= 0 or b[1] == INF or INF in (abs(a[0]), abs(a[1])):
        return None
    return 0.0, b[1]


def _power(a: FloatRange, b: FloatRange) -> FloatRange | None:
    """``x ** y`` for ``x > 0`` (or 0, if ``y >= 0``); monotone in each operand."""
    if a[0] < 0 or (a[0] == 0 and b[0] < 0):
        return None
    corners: list[float] = []
    for x in a:
        for y in b:
            try:
                corners.append(x**y)
            except OverflowError:
                corners.append(MAX)
    if any(c != c for c in corners):
        return None
    return max(_wider(min(corners), -INF), 0.0), _wider(max(corners), INF)


def _wider(bound: float, direction: float) -> float:
    for _ in range(_ULPS):
        bound = math.nextafter(bound, direction)
    return bound


# -- functions ------------------------------------------------------------------------------------


def _call(store: Store, node: Expr) -> FloatRange | None:
    name, *operands = node.args
    inner = float_range(store, operands[0])
    if inner is None or name in _IMAGES:
        return None if inner is None else _IMAGES[name]
    if name == "fabs":
        low, high = inner
        least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return least, max(abs(low), abs(high))
    rule = _INCREASING.get(name)
    return None if rule is None else _increasing(inner, *rule)


def _increasing(
    inner: FloatRange, function: Callable[[float], float], start: float, exact: bool
) -> FloatRange | None:
    """The image of an increasing function that raises below ``start``."""
    low, high = max(inner[0], start), inner[1]
    if high < start:
        return None
    bounds = []
    for bound in (low, high):
        try:
            bounds.append(function(bound))
        except OverflowError:
            bounds.append(MAX if bound > 0 else -MAX)
    if exact:
        return bounds[0], bounds[1]
    low, high = _wider(bounds[0], -INF), _wider(bounds[1], INF)
    # an error of a few units in the last place does not change a sign
    return 0.0 if low < 0 <= bounds[0] else low, 0.0 if bounds[1] <= 0 < high else high


# name -> function, the least argument that has a value, whether it is correctly rounded
_INCREASING: dict[str, tuple[Callable[[float], float], float, bool]] = {
    "sqrt": (math.sqrt, 0.0, True),
    "exp": (math.exp, -INF, False),
    "expm1": (math.expm1, -INF, False),
    "log": (math.log, _TINY, False),
    "log2": (math.log2, _TINY, False),
    "log10": (math.log10, _TINY, False),
    "log1p": (math.log1p, math.nextafter(-1.0, 0.0), False),
    "sinh": (math.sinh, -INF, False),
    "asinh": (math.asinh, -INF, False),
    "tanh": (math.tanh, -INF, False),
    "atan": (math.atan, -INF, False),
    "erf": (math.erf, -INF, False),
}
_UNIT = (_wider(-1.0, -INF), _wider(1.0, INF))
_IMAGES: dict[str, FloatRange] = {"sin": _UNIT, "cos": _UNIT}

_RULES: dict[str, Callable[[Store, Expr], FloatRange | None]] = {
    "float": _converted,
    "truediv": _quotient,
    "call": _call,
    "add": _binary(lambda a, b: _corners(a, b, lambda x, y: x + y)),
    "mul": _binary(lambda a, b: _corners(a, b, lambda x, y: x * y)),
    "mod": _binary(_remainder),
    "pow": _binary(_power),
    "max": _binary(lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))),
    "min": _binary(lambda a, b: (min(a[0], b[0]), min(a[1], b[1]))),
    "ite": _binary(lambda a, b: (min(a[0], b[0]), max(a[1], b[1]))),
}
