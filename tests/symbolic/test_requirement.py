"""What a guard on one symbol asks of it."""

from __future__ import annotations

import math
import random

import pytest
from tests.symbolic.generate import question

from stillframe.symbolic import Range, Requirement, evaluate, parse, requirement, symbol

s = symbol("s")

CASES: list[tuple[str, Requirement | None]] = [
    ("s >= 3", Requirement(s, range=Range(3, math.inf))),
    ("s < 10", Requirement(s, range=Range(-math.inf, 9))),
    ("3*s <= 20", Requirement(s, range=Range(-math.inf, 6))),
    ("2 <= s <= 9", Requirement(s, range=Range(2, 9))),
    ("5 <= s <= 5", Requirement(s, equals=5)),
    ("2*s + 1 == 11", Requirement(s, equals=5)),
    ("s//8 >= 2", Requirement(s, range=Range(16, math.inf))),
    ("(s + 1)//2 == 4", Requirement(s, range=Range(7, 8))),
    ("s % 8 == 0", Requirement(s, multiple_of=(8, 0))),
    ("(3*s + 1) % 8 == 0", Requirement(s, multiple_of=(8, 5))),
    ("6*s % 8 == 4", Requirement(s, multiple_of=(4, 2))),
    ("s % 2 != 0", Requirement(s, multiple_of=(2, 1))),
    ("s % 8 != 0", None),
    ("s != 3", None),
    ("s**2 >= 4", None),
    ("s == t", None),
    ("s >= 2 or s <= 0", None),
    ("max(s, 4) == 4", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[t for t, _ in CASES])
def test_requirement(text: str, expected: Requirement | None) -> None:
    assert requirement(parse(text)) == expected


def test_requirement_is_equivalent() -> None:
    rng = random.Random(7)
    understood = 0
    for _ in range(3000):
        guard = question(rng, (s,), 1)
        need = requirement(guard)
        if need is None:
            continue
        understood += 1
        for value in range(-40, 41):
            if need.equals is not None:
                admitted = value == need.equals
            elif need.range is not None:
                admitted = value in need.range
            else:
                assert need.multiple_of is not None
                k, r = need.multiple_of
                admitted = value % k == r
            assert evaluate(guard, {s: value}) is admitted, (guard, need, value)
    assert understood > 500
