"""Closed integer intervals, and the image of each operator on them.

Every function here is *sound*: the result holds the value of the operation for all operands in the
given intervals for which it has one (a division by zero has none). Bounds are ints or infinities,
never NaN: an infinite bound means "no bound", so ``inf * 0`` counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Bound: TypeAlias = int | float
INF = math.inf


class Range:
    """The integers from ``lower`` to ``upper``, both included; immutable.

    Args:
        lower: an int or ``-math.inf``.
        upper: an int or ``math.inf``.

    Raises:
        ValueError: the interval is empty, or a bound is neither an integer nor infinite.
    """

    __slots__ = ("lower", "upper")

    lower: Bound
    upper: Bound

    def __init__(self, lower: Bound = -INF, upper: Bound = INF) -> None:
        lower, upper = _bound(lower), _bound(upper)
        if lower > upper:
            raise ValueError(f"empty range: {lower} > {upper}")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Range is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Range, (self.lower, self.upper))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Range):
            return NotImplemented
        return self.lower == other.lower and self.upper == other.upper

    def __hash__(self) -> int:
        return hash((self.lower, self.upper))

    def __iter__(self) -> Iterator[Bound]:
        return iter((self.lower, self.upper))

    def __contains__(self, value: Bound) -> bool:
        return self.lower <= value <= self.upper

    def __repr__(self) -> str:
        return f"Range({self.lower}, {self.upper})"

    __str__ = __repr__

    @property
    def is_single(self) -> bool:
        """Whether it holds exactly one integer."""
        return self.lower == self.upper

    def intersect(self, other: Range) -> Range:
        """What both hold.

        Raises:
            ValueError: they hold nothing in common.
        """
        if self.lower >= other.lower and self.upper <= other.upper:
            return self
        return Range(max(self.lower, other.lower), min(self.upper, other.upper))

    def union(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.lower, other.lower), max(self.upper, other.upper))


def _bound(value: Bound) -> Bound:
    if value.__class__ is int or value in (INF, -INF):
        return value
    if value == value and int(value) == value:
        return int(value)
    raise ValueError(f"the bound of a range is an integer or infinite, not {value!r}")


_set_lower = Range.__dict__["lower"].__set__
_set_upper = Range.__dict__["upper"].__set__


def of_bounds(lower: Bound, upper: Bound) -> Range:
    """A range of bounds that are known to be well-formed; hot."""
    new = object.__new__(Range)
    _set_lower(new, lower)
    _set_upper(new, upper)
    return new


FULL = Range(-INF, INF)
NONNEGATIVE = Range(0, INF)


def _times(x: Bound, y: Bound) -> Bound:
    if x == 0 or y == 0:
        return 0
    if abs(x) == INF or abs(y) == INF:  # a huge int times a float would overflow
        return INF if (x > 0) == (y > 0) else -INF
    return x * y


def _plus(x: Bound, y: Bound) -> Bound:
    """Of lower bounds or of upper bounds, so never ``inf - inf``."""
    if abs(x) == INF:
        return x
    return y if abs(y) == INF else x + y


def _exact(function: Callable[[Bound, Bound], Bound]) -> Callable[[Range, Range], Range]:
    """An operator that is monotone in each operand has its extremes at the corners."""

    def image(a: Range, b: Range) -> Range:
        corners = [function(x, y) for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
        return of_bounds(min(corners), max(corners))

    return image


def add(a: Range, b: Range) -> Range:
    """``a + b``."""
    return of_bounds(_plus(a.lower, b.lower), _plus(a.upper, b.upper))


def scale(a: Range, k: int) -> Range:
    """``k * a``."""
    if k >= 0:
        return of_bounds(_times(a.lower, k), _times(a.upper, k))
    return of_bounds(_times(a.upper, k), _times(a.lower, k))


mul = _exact(_times)


def natural_power(a: Range, n: int) -> Range:
    """``a ** n`` for a constant ``n >= 0``; an even power has its minimum inside."""
    if n == 0:
        return of_bounds(1, 1)
    low, high = _power(a.lower, n), _power(a.upper, n)
    if n % 2:
        return of_bounds(low, high)
    if 0 in a:
        return of_bounds(0, max(low, high))
    return of_bounds(min(low, high), max(low, high))


# A bound with more bits than this is given up: exact big powers would cost more than they tell.
_MAX_BITS = 4096


def _power(x: Bound, n: Bound) -> Bound:
    """``x ** n`` with infinite operands as limits, ``n >= 0``."""
    if n == 0 or x == 1:
        return 1
    if x == 0:
        return 0
    if abs(x) == INF:
        return INF if x > 0 or (n != INF and n % 2 == 0) else -INF
    if n == INF or (abs(x) > 1 and int(x).bit_length() * n > _MAX_BITS):
        return INF if x > 0 or (n != INF and n % 2 == 0) else -INF
    return x ** int(n)


def power(a: Range, n: Range) -> Range:
    """``a ** n``; exponents below 0 have no integer value."""
    if n.upper < 0:
        return FULL
    n = of_bounds(max(n.lower, 0), n.upper)
    if n.is_single and n.upper != INF:
        exponent = int(n.lower)
        ends = [abs(b) for b in a if abs(b) != INF]
        if any(int(b).bit_length() * exponent > _MAX_BITS for b in ends):
            return NONNEGATIVE if exponent % 2 == 0 or a.lower >= 0 else FULL
        return natural_power(a, exponent)
    if a.lower >= 1:
        low, high = _power(a.lower, n.lower), _power(a.upper, n.upper)
        return of_bounds(low if low != INF else 1, high)
    if a.lower >= 0:  # 0 ** 0 = 1
        return of_bounds(0, max(1, _power(a.upper, n.upper)))
    biggest = _power(max(abs(a.lower), abs(a.upper)), n.upper)
    return of_bounds(-biggest, max(1, biggest))


def _floor_quotient(x: Bound, y: Bound) -> Bound:
    """``x // y`` for ``y != 0`` with infinite operands as limits of what is in between."""
    if abs(y) == INF:
        if abs(x) == INF:
            return 0 if (x > 0) == (y > 0) else -1
        return 0 if x == 0 or (x > 0) == (y > 0) else -1
    if abs(x) == INF:
        return x if y > 0 else -x
    return x // y


def floordiv(a: Range, b: Range) -> Range:
    """``a // b``, ``b`` without 0: its negative and positive parts apart."""
    parts = []
    if b.upper >= 1:
        parts.append(_quotients(a, of_bounds(max(b.lower, 1), b.upper)))
    if b.lower <= -1:
        parts.append(_quotients(a, of_bounds(b.lower, min(b.upper, -1))))
    if not parts:
        return FULL
    return parts[0] if len(parts) == 1 else parts[0].union(parts[1])


_quotients = _exact(_floor_quotient)


def mod(a: Range, b: Range) -> Range:
    """``a % b``: between 0 and ``b``, and ``a`` itself where it lies there already."""
    parts = []
    if b.upper >= 1:
        parts.append(_positive_mod(a, max(b.lower, 1), b.upper))
    if b.lower <= -1:  # a % -d = -(-a % d)
        flipped = _positive_mod(scale(a, -1), max(-b.upper, 1), -b.lower)
        parts.append(scale(flipped, -1))
    if not parts:
        return FULL
    return parts[0] if len(parts) == 1 else parts[0].union(parts[1])


def _positive_mod(a: Range, low: Bound, high: Bound) -> Range:
    if a.lower >= 0 and a.upper < low:
        return a
    if low == high and a.lower // low == a.upper // low and abs(a.lower) != INF != abs(a.upper):
        return of_bounds(a.lower % low, a.upper % low)  # within one period
    top = high - 1
    return of_bounds(0, min(top, a.upper) if a.lower >= 0 else top)


def maximum(*ranges: Range) -> Range:
    """``max(...)``."""
    return of_bounds(max(r.lower for r in ranges), max(r.upper for r in ranges))


def minimum(*ranges: Range) -> Range:
    """``min(...)``."""
    return of_bounds(min(r.lower for r in ranges), min(r.upper for r in ranges))


# Integer operator name -> image of ranges of its operands ("add", "mul", "ite" and the roundings of
# floats are walked by facts.py).
IMAGES: dict[str, Callable[..., Range]] = {
    "floordiv": floordiv,
    "mod": mod,
    "pow": power,
    "max": maximum,
    "min": minimum,
}
