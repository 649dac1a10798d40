"""Recorded disjunctions: questions and ranges by cases, and arms that become impossible."""

from __future__ import annotations

import math

import pytest

from stillframe.symbolic import Contradiction, Expr, Facts, Range, eq, or_, parse, symbol

s, t, u = symbol("s"), symbol("t"), symbol("u")


def told(*texts: str) -> Facts:
    """Facts with nonnegative ``s``, ``t`` and ``u`` and these assumptions."""
    facts = Facts()
    for x in (s, t, u):
        facts.set_range(x, Range(0, math.inf))
    for text in texts:
        facts.assume(parse(text))
    return facts


FEW = "s == 1 or s == 8 or s == 32"
EIGHTS = "s % 8 == 0 or s < 8"

DECIDED = [
    ([FEW], "s <= 32", True),
    ([FEW], "s >= 2", None),
    ([FEW], "s == 9", False),
    ([FEW], "s % 3 == 2 or s == 1", True),
    ([FEW], "s == 1 or s % 8 == 0", True),
    ([FEW], "32 % s == 0", True),
    ([FEW], "s*t != 5*t or t == 0", True),
    ([FEW], "s*t >= t", True),
    ([FEW, "s >= 2"], "s % 8 == 0", True),
    ([FEW, "s != 8"], "s == 1 or s == 32", True),
    ([EIGHTS], "s == 9", False),
    ([EIGHTS], "s == 5", None),
    ([EIGHTS], "s//8*8 == s or s <= 7", True),
    ([EIGHTS, "s >= 8"], "s % 4 == 0", True),
    ([EIGHTS, "s % 2 == 1"], "s <= 7", True),
    (["s == 2 or t == 2", "s >= 3"], "t == 2", True),
    (["s == 2 or s == 4", "t == 3 or t == 5"], "s + t <= 9", True),
    (["s == 2 or s == 4", "t == 3 or t == 5"], "(s + t) % 2 == 1", True),
    (["s == 2 or s == 4", "t == 3 or t == 5"], "s*t == 15", False),
    (["s == t or s == t + 1"], "s - t <= 1", True),
    (["s == t or s == t + 1"], "s < t", False),
    (["s == u or s == t", "u <= t"], "s <= t", True),
    (["s <= t or u <= t", "t <= 5"], "min(s, u) <= 5", True),
    (["(s == 2 and t == 3) or (s == 3 and t == 2)"], "s + t == 5", True),
    # a condition in the question makes cases too, and so do few values
    (["t >= 1"], "(s if s < 4 else t) >= 0", True),
    (["s <= t"], "(t if u == 3 else s) <= t", True),
    (["u <= 1"], "u*u == u", True),
    (["u <= 2", "t <= 1"], "(u + 1)*(t + 1) % 7 != 0", True),
    # of two comparisons one holds, or not both
    ([], "s <= t or t <= s", True),
    ([], "s < t and t < s", False),
    ([], "s <= t + 1 or t <= s", True),
    ([], "s == t or s < t or t < s", None),
]


@pytest.mark.parametrize(("given", "text", "answer"), DECIDED, ids=lambda v: str(v))
def test_decide(given: list[str], text: str, answer: bool | None) -> None:
    assert told(*given).decide(parse(text)) is answer


def test_sixteen_arms() -> None:
    facts = told(" or ".join(f"s == {2**k}" for k in range(16)))
    assert facts.range_of(s) == Range(1, 2**15)
    assert facts.decide(parse("s == 3")) is False
    assert facts.decide(parse("2**15 % s == 0")) is True


def test_range_is_the_hull_of_the_arms() -> None:
    facts = told(FEW)
    assert facts.range_of(s) == Range(1, 32)
    assert facts.range_of(s % 8) == Range(0, 1)
    assert facts.range_of(s % 7) == Range(1, 4)
    assert facts.range_of(32 // s) == Range(1, 32)
    assert facts.range_of(t) == Range(0, math.inf)


def test_the_last_arm_is_a_fact() -> None:
    facts = told(FEW, "s >= 2")
    assert "s == 1" not in str(facts) and "s == 8 or s == 32" in str(facts)
    facts.assume(s >= 9)
    assert facts.simplify(s * t) is 32 * t
    facts = told("s == 2 or t == 2", "u == s + 1")
    facts.assume(parse("u != 3"))
    assert facts.simplify(t).value == 2


def test_an_arm_that_turns_out_true_ends_the_disjunction() -> None:
    facts = told("s == 4 or t == 2", "t == 2")
    assert " or " not in str(facts)
    assert facts.decide(parse("s == 4 or t == 2")) is True
    assert facts.decide(eq(s, 4)) is None


def test_impossible_arms_are_a_contradiction() -> None:
    facts = told("t <= s")
    with pytest.raises(Contradiction):
        facts.assume(parse("(s == 3 and t == 4) or (s == 5 and t == 6)"))
    facts = told(FEW)
    with pytest.raises(Contradiction):
        facts.assume(parse("s % 8 == 3"))
    assert facts.decide(parse("s == 9")) is False  # and the facts are as they were


def test_widening_a_range_reopens_cases() -> None:
    """The stores of the arms hold other facts too; they must not outlive them."""
    facts = told("s == 1 or s == 2", "t <= 4")
    assert facts.decide(s + t <= 6) is True
    facts.set_range(t, Range(0, 9))
    assert facts.decide(s + t <= 6) is None
    assert facts.decide(s + t <= 11) is True


def test_many_disjunctions_stay_bounded() -> None:
    facts = Facts()
    symbols = [symbol(f"d{i}") for i in range(12)]
    for x, y in zip(symbols, symbols[1:], strict=False):
        facts.set_range(x, Range(0, 64))
        facts.assume(or_(eq(x, 1), eq(x, y), x >= y + 3))
    total: Expr = symbols[0]
    for x in symbols[1:]:
        total = total + x
    assert facts.decide(eq(total, 7)) in (None, False)
    assert facts.decide(symbols[0] <= 64) is True


def test_points_that_a_disjunction_excludes_do_not_count() -> None:
    """The length of ``x.narrow(0, u, 2)`` for six rows: ``u`` is anything but -1."""
    facts = Facts()
    facts.set_range(u, Range(-6, 4))
    end = "u + 6*(1 if u == -2 and u <= -1 else 0) + 2"
    last = f"(({end}) + 6 if {end} <= -1 else min(6, max(0, {end})))"
    question = parse(f"max(0, {last} - (u + 6 if u <= -1 else max(0, u))) == 2")
    assert facts.decide(question) is None
    facts.assume(parse("u >= 0 or u <= -2"))
    assert facts.decide(question) is True
