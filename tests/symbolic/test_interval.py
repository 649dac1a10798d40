"""Interval images: sound for all members, exact where that is easy; infinite bounds."""

from __future__ import annotations

import itertools
import math
import operator
import pickle

import pytest

from stillframe.symbolic import Range, interval

SMALL = [Range(a, b) for a in range(-4, 5) for b in range(a, 5)]
OPERATORS = {
    "add": (interval.add, operator.add),
    "mul": (interval.mul, operator.mul),
    "floordiv": (interval.floordiv, operator.floordiv),
    "mod": (interval.mod, operator.mod),
    "maximum": (interval.maximum, max),
    "minimum": (interval.minimum, min),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_holds_every_value_and_is_tight(name: str) -> None:
    image, function = OPERATORS[name]
    for a, b in itertools.product(SMALL, SMALL):
        values = [
            function(x, y)
            for x in range(int(a.lower), int(a.upper) + 1)
            for y in range(int(b.lower), int(b.upper) + 1)
            if y != 0 or name not in ("floordiv", "mod")
        ]
        if not values:
            continue
        found = image(a, b)
        assert found.lower <= min(values) and max(values) <= found.upper, (a, b)
        if name != "mod":
            assert (found.lower, found.upper) == (min(values), max(values)), (a, b)


def test_powers_look_inside() -> None:
    for a in SMALL:
        for n in range(5):
            values = [x**n for x in range(int(a.lower), int(a.upper) + 1)]
            assert interval.power(a, Range(n, n)) == Range(min(values), max(values)), (a, n)
        for low, high in itertools.combinations_with_replacement(range(4), 2):
            found = interval.power(a, Range(low, high))
            for x in range(int(a.lower), int(a.upper) + 1):
                assert all(x**n in found for n in range(low, high + 1)), (a, low, high)


def test_infinite_bounds() -> None:
    inf = math.inf
    everything, natural = Range(-inf, inf), Range(0, inf)
    assert interval.mul(Range(0, 0), everything) == Range(0, 0)
    assert interval.mul(natural, Range(-1, 2)) == everything
    assert interval.add(natural, Range(-inf, 3)) == everything
    assert interval.floordiv(natural, Range(1, inf)) == natural
    assert interval.floordiv(Range(5, 5), natural) == Range(0, 5)
    assert interval.floordiv(everything, Range(0, 0)) == everything
    assert interval.mod(everything, Range(8, 8)) == Range(0, 7)
    assert interval.mod(everything, Range(-8, -8)) == Range(-7, 0)
    assert interval.mod(Range(0, 3), Range(4, inf)) == Range(0, 3)
    assert interval.power(Range(-inf, 2), Range(2, 2)) == natural
    assert interval.power(Range(2, inf), natural) == Range(1, inf)
    huge = Range(10**400, 10**400)
    assert interval.mul(huge, natural) == natural
    assert interval.add(huge, natural).upper == inf
    assert interval.power(huge, Range(10**6, 10**6)).lower == 0


def test_construction() -> None:
    assert Range() == Range(-math.inf, math.inf)
    assert Range(1, 3.0).upper == 3 and type(Range(1, 3.0).upper) is int
    with pytest.raises(ValueError, match="empty range: 3 > 2"):
        Range(3, 2)
    for bad in (0.5, math.nan):
        with pytest.raises(ValueError, match="integer or infinite"):
            Range(bad, 9)
    with pytest.raises(AttributeError, match="immutable"):
        Range(0, 1).lower = 5
    assert pickle.loads(pickle.dumps(Range(0, 4))) == Range(0, 4)
    assert 3 in Range(0, 4) and 5 not in Range(0, 4)
    assert {Range(0, 4), Range(0, 4)} == {Range(0, 4)}
    assert Range(0, 4).intersect(Range(2, 9)) == Range(2, 4)
    assert Range(0, 4).union(Range(8, 9)) == Range(0, 9)
