"""Questions about floats that the ranges of integers answer."""

from __future__ import annotations

import math
import random

import pytest
from tests.symbolic.generate import small_float

from stillframe.symbolic import Expr, Facts, Range, evaluate, floor_, parse, symbol, to_float

s, t, u, zf = symbol("s"), symbol("t"), symbol("u"), symbol("zf", "float")


@pytest.fixture
def facts() -> Facts:
    """An open size ``s``, a declared size ``t`` and a signed number ``u``."""
    facts = Facts()
    facts.set_range(s, Range(2, math.inf))
    facts.set_range(t, Range(1, 512))
    facts.set_range(u, Range(-5, math.inf))
    return facts


ANSWERS = [
    ("s**0.5 > 1", True),
    ("math.sqrt(s) >= 1.4", True),
    ("math.sqrt(t) <= 23", True),
    ("math.sqrt(t) > 23", False),
    ("s**-0.5 > 0", True),
    ("s**-0.5 < 0.8", True),
    ("s*0.125 >= 0.25", True),
    ("s*0.125 >= 1", None),
    ("t*0.125 >= 65", False),
    ("math.log2(s) >= 0.9", True),
    ("math.log2(t) >= 0", True),
    ("math.log2(t) <= 9.1", True),
    ("math.log2(t) <= 8.9", None),
    ("math.log(s) > 0", True),
    ("math.exp(-t) < 1", True),
    ("math.exp(u) >= 0", True),
    ("math.tanh(t) > 0", True),
    ("math.sin(s) <= 1.5", True),
    ("abs(float(u)) >= 0", True),
    ("abs(-3.0*u) >= 0", True),
    ("s/t > 0", True),
    ("t/s <= 256", True),
    ("t/s > 256", False),
    ("1/s <= 0.5", True),
    ("float(s)/float(t) > 0", True),
    ("t % 2.5 >= 0", True),
    ("math.ceil(s*0.5) >= 1", True),
    ("math.ceil(t*0.5) == (t + 1)//2", True),
    ("int(t/2) == t//2", True),
    ("int(s/2) >= 1", True),
    ("round(t/2) <= 256", True),
    ("int(math.sqrt(t)) <= 22", True),
    ("math.floor(math.log2(t)) <= 9", True),
    # a maximum or minimum with a float
    ("max(s, 2.5) >= 2.5", True),
    ("max(t, 0.5) == t", True),
    ("min(t, 600.5) == t", True),
    ("min(s, 2.5) <= 2.5", True),
    ("max(t, 2.5) == t", None),
    ("max(u, 2.5) >= u", None),  # float(u) may be rounded down
    # beyond 2**53 a float is not the integer
    ("s*2.0 == 2*s", None),
    ("math.floor(s*0.5) == s//2", None),
    ("t*2.0 == 2*t", True),
]


@pytest.mark.parametrize(("text", "answer"), ANSWERS, ids=[t for t, _ in ANSWERS])
def test_decide(facts: Facts, text: str, answer: bool | None) -> None:
    assert facts.decide(parse(text)) is answer


BOOLEANS = [
    ("(s < t) == (t > s)", True),
    ("(s < t) == (t <= s)", False),
    ("(s >= 2) == True", True),
    ("(s < 2) == False", True),
    ("(s < 2) != (t >= 1)", True),
    ("(s < t) == (t < 100)", None),
]


@pytest.mark.parametrize(("text", "answer"), BOOLEANS, ids=[t for t, _ in BOOLEANS])
def test_booleans_compare(facts: Facts, text: str, answer: bool | None) -> None:
    assert facts.decide(parse(text)) is answer


ABSOLUTE = [
    ("abs(u) >= 0", True),
    ("abs(u) >= u", True),
    ("abs(u) >= -u", True),
    ("abs(u) < 0", False),
    ("abs(s) == s", True),
    ("abs(u) == 0", None),
    ("abs(s - t) >= s - t", True),
    ("abs(u - s) >= 0", True),
    ("min(u, -u) <= 0", True),
    ("max(u, 7 - u) >= 4", True),
]


@pytest.mark.parametrize(("text", "answer"), ABSOLUTE, ids=[t for t, _ in ABSOLUTE])
def test_absolute_values(facts: Facts, text: str, answer: bool | None) -> None:
    assert facts.decide(parse(text)) is answer


def test_not_a_number_is_never_ruled_out_by_guessing(facts: Facts) -> None:
    for text in ("zf == zf", "zf*0.0 == 0", "max(zf, 1.0) >= 1.0", "zf < 1.0 or zf >= 1.0"):
        assert facts.decide(parse(text, {"zf": zf})) is None, text
    assert facts.range_of(floor_(zf)) == Range(-math.inf, math.inf)
    infinite = to_float(s) * 1e300 * 1e300
    assert facts.decide(infinite - infinite <= 0.0) is None  # inf - inf


@pytest.mark.parametrize("seed", range(40))
def test_bounds_hold_for_values(seed: int) -> None:
    """Comparisons with the value at a point can never be decided the other way."""
    rng = random.Random(seed)
    facts = Facts()
    spans: dict[Expr, int] = {}
    for x in (s, t):
        spans[x] = low = rng.choice((-4, 0, 1, 2))
        facts.set_range(x, Range(low, rng.choice((low + 9, math.inf))))
    for _ in range(25):
        try:
            node = small_float(rng, (s, t), 3)
        except (ArithmeticError, ValueError):
            continue
        far = rng.choice((9, 10**6, 2**60))
        point = {x: low + rng.randint(0, 9) * (far // 9) for x, low in spans.items()}
        point = {x: v if v in facts.range_of(x) else spans[x] for x, v in point.items()}
        try:
            value = evaluate(node, point)
        except (ArithmeticError, ValueError):
            continue
        if value == value and math.isfinite(value):
            assert facts.decide(node < value) is not True, (str(node), point, value)
            assert facts.decide(node <= value) is not False, (str(node), point, value)
            assert facts.decide(node > value) is not True, (str(node), point, value)
            assert facts.decide(node >= value) is not False, (str(node), point, value)
