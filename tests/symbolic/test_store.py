"""The store: what a change makes it forget, and what unrelated facts cost."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
from tests.symbolic.generate import assumption, question, small_int

from stillframe.symbolic import (
    Contradiction,
    Expr,
    Facts,
    Range,
    add,
    eq,
    symbol,
)

SYMBOLS = tuple(symbol(n) for n in ("s0", "s1", "s2", "u0"))


@pytest.mark.parametrize("seed", range(60))
def test_a_warm_store_answers_like_a_cold_one(seed: int) -> None:
    """Questions between the assumptions fill the memos; none of them may outlive a change."""
    rng = random.Random(seed)
    warm, cold = Facts(), Facts()
    for s in SYMBOLS:
        for facts in (warm, cold):
            facts.set_range(s, Range(rng.choice((0, 1, 2)) if facts is warm else 0, 40))
    for s in SYMBOLS:
        cold.set_range(s, warm.range_of(s))
    questions = [question(rng, SYMBOLS, 1) for _ in range(12)]
    integers = [small_int(rng, SYMBOLS, 2) for _ in range(6)]
    for _ in range(3):
        for asked in questions:
            warm.decide(asked)
        for node in integers:
            warm.simplify(node)
            warm.range_of(node)
        fact = assumption(rng, SYMBOLS)
        if _assume(warm, fact) != _assume(cold, fact):
            return  # only one of them saw the contradiction: the facts are impossible
    reopened = rng.choice(SYMBOLS)
    if not _set_range(warm, reopened, Range(0, 60)) or not _set_range(cold, reopened, Range(0, 60)):
        return
    for asked in questions:
        first, second = warm.decide(asked), cold.decide(asked)
        assert first is second, f"{cold}\ndecide({str(asked)!r}): warm {first}, cold {second}"
    for node in integers:
        assert warm.range_of(node) == cold.range_of(node), f"{cold}\nrange_of({str(node)!r})"


def _assume(facts: Facts, fact: Expr) -> bool:
    try:
        facts.assume(fact)
    except Contradiction:
        return False
    return True


def _set_range(facts: Facts, s: Expr, bounds: Range) -> bool:
    try:
        facts.set_range(s, bounds)
    except Contradiction:
        return False
    return True


def test_unrelated_facts_leave_answers_remembered() -> None:
    a, b, c, d = SYMBOLS
    facts = Facts()
    for s in SYMBOLS:
        facts.set_range(s, Range(0, math.inf))
    facts.assume(a + 1 <= b)
    asked = a < b + c
    assert facts.decide(asked) is True
    facts.assume(d >= 4)
    assert facts.is_remembered(asked)
    facts.assume(c <= 9)  # c is in the question
    assert not facts.is_remembered(asked)
    facts.decide(asked)
    facts.assume(d <= b)  # d and b are connected from here on, and so is a
    assert not facts.is_remembered(asked)
    facts.decide(asked)
    facts.assume(d <= 30)
    assert not facts.is_remembered(asked)


def test_a_refused_assumption_leaves_no_trace() -> None:
    a, b, c, _ = SYMBOLS
    facts = Facts()
    for s in (a, b, c):
        facts.set_range(s, Range(0, 20))
    facts.assume(a <= b)
    facts.assume(eq(c % 4, 1))
    before = str(facts)
    with pytest.raises(Contradiction):
        facts.assume((a >= 5) & (b <= 4))
    assert str(facts) == before
    assert facts.decide(a >= 5) is None
    assert facts.range_of(b) == Range(0, 20)
    with pytest.raises(Contradiction):
        facts.set_range(c, Range(2, 4))
    assert str(facts) == before and facts.range_of(c) == Range(1, 17)


# -- scale ----------------------------------------------------------------------------------------


def calls(work: Callable[[], object]) -> int:
    """How many Python calls ``work`` makes: a cost that no busy machine changes."""
    count = 0

    def tick(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def interleaved(count: int) -> None:
    """Declare symbols, relate one in four to its neighbour, ask about each, as a capture does."""
    facts = Facts()
    symbols = [symbol(f"u{i}") for i in range(count)]
    for i, s in enumerate(symbols):
        facts.set_range(s, Range(0, math.inf))
        if i % 4 == 3:
            facts.assume(symbols[i - 1] + 1 <= 2 * s)
        assert facts.decide(s >= 0) is True
        assert facts.decide(symbols[i - 1] * s + 1 >= 1) is (True if i else None)
        assert facts.decide(eq(s // 8 * 8, s)) is None
        assert facts.decide(symbols[0] <= s) is (None if i else True)


def long_sums(count: int) -> None:
    """Sums of many unbacked symbols, floor-divided again and again, and compared."""
    facts = Facts()
    symbols = [symbol(f"v{i}") for i in range(count)]
    for s in symbols:
        facts.assume(s >= 0)
    total = reduce(add, symbols)
    sums = [total]
    for k in range(3, 11):
        sums.append(sums[-1] // k + total)
    for left, right in zip(sums, sums[1:], strict=False):
        assert facts.decide(right >= total) is True
        facts.decide(left <= right)
        facts.decide(eq(left, right))
        facts.assume(left <= right + 5)
    facts.assume(total <= 1000)
    assert facts.decide(total // 3 <= 333) is True
    assert facts.decide(symbols[0] > 1000) is False


@pytest.mark.parametrize("work", [interleaved, long_sums])
def test_the_cost_is_linear_in_the_number_of_symbols(work: Callable[[int], None]) -> None:
    work(10)  # what is built once per process
    small, large = calls(lambda: work(20)), calls(lambda: work(200))
    assert large < 15 * small, f"{large / small:.1f} times the cost for 10 times the symbols"


def test_a_fact_costs_the_same_among_many() -> None:
    def last(count: int) -> Callable[[], None]:
        facts = Facts()
        symbols = [symbol(f"w{i}") for i in range(count)]
        for s in symbols:
            facts.set_range(s, Range(0, 512))
        for left, right in zip(symbols[0::2], symbols[1::2], strict=True):
            facts.assume(left + 1 <= right)
            facts.decide(left * right >= left)
        x, y = symbol("x"), symbol("y")

        def work() -> None:
            facts.set_range(x, Range(0, 512))
            facts.set_range(y, Range(0, 512))
            facts.assume(x + 1 <= y)
            facts.decide(x < y + symbols[0])
            facts.assume(eq(y % 8, 0))

        return work

    last(2)()
    few, many = calls(last(20)), calls(last(400))
    assert many < 1.5 * few
