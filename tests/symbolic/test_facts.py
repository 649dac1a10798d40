"""Facts: ranges, assumptions, decisions and simplification, by example and against two oracles."""

from __future__ import annotations

import math

import pytest
from tests.symbolic import fuzz_decide

from stillframe.symbolic import (
    Contradiction,
    Expr,
    Facts,
    Range,
    ceil_,
    eq,
    floor_,
    ge,
    gt,
    ite,
    max_,
    min_,
    mod,
    ne,
    not_,
    or_,
    parse,
    symbol,
    to_float,
    trunc_,
)

s0, s1, s2, u0 = (symbol(n) for n in ("s0", "s1", "s2", "u0"))
zf = symbol("zf", "float")


@pytest.fixture
def facts() -> Facts:
    """Two declared sizes and an unbacked one."""
    facts = Facts()
    facts.set_range(s0, Range(2, 512))
    facts.set_range(s1, Range(1, math.inf))
    facts.set_range(u0, Range(0, math.inf))
    return facts


KNOWN = [
    ("s0*128 == 0", False),
    ("s0*s1*128 == 0", False),
    ("s0*s1 + 1 == 0", False),
    ("s0 >= 2", True),
    ("s0 == 1", False),
    ("s0 < 600", True),
    ("s0*s1 >= s0", True),
    ("s0*s1 > s1", True),
    ("s0*s1*u0 >= 0", True),
    ("u0*s0 >= u0", True),
    ("(s1 + 7)//8 >= 1", True),
    ("s0**2 >= 4", True),
    ("s0**2 - s0 >= 2", True),
    ("2*s0 + 1 == 2*s1", False),
    ("s0//2*2 <= s0", True),
    ("s0 - s0//2*2 <= 1", True),
    ("s0 % s1 < s1", True),
    ("s0 % s1 >= 0", True),
    ("s0//s1 <= s0", True),
    ("max(s0, s1) >= s1", True),
    ("min(s0, s1) <= s1", True),
    ("max(s0, u0) + 1 > u0", True),
    ("max(s0, s1) == 0", False),
    ("s0 + s1 - 2 >= 1", True),
    ("(s0*s1)//s1 == s0", True),
    ("(s0*128)//128 == s0", True),
    ("(s0*s1*128)//(s1*128) == s0", True),
    ("(s0*s1) % s1 == 0", True),
    ("(s0*s1 + u0) % s1 == u0 % s1", True),
    ("s0 % 513 == s0", True),
    ("s0//513 == 0", True),
    ("8*(u0//8) + u0 % 8 == u0", True),
    ("s1*(u0//s1) + u0 % s1 == u0", True),
    ("s0 >= 2 and s1 >= 1", True),
    ("s0 >= 3 and s1 >= 0", None),
    ("s0 == 4 or s1 >= 1", True),
    ("u0 == 0", None),
    ("s0 == s1", None),
    ("u0 <= s0", None),
    ("float(s0)*0.5 >= 1.0", True),
    ("float(s0) < 1.5", False),
    ("s0/2 > 0.25", True),
    ("math.sqrt(float(s0)) >= 1.0", True),
    ("math.floor(s0*0.5) == s0//2", True),
    ("math.ceil(s0/3) == (s0 + 2)//3", True),
    ("float(s0) == float(s0)", True),
]


@pytest.mark.parametrize(("text", "answer"), KNOWN, ids=[t for t, _ in KNOWN])
def test_decide(facts: Facts, text: str, answer: bool | None) -> None:
    assert facts.decide(parse(text)) is answer
    assert facts.decide(parse(text)) is answer  # and the remembered answer
    negated = None if answer is None else not answer
    assert facts.decide(not_(parse(text))) is negated


SIMPLER = [
    ("(s0*128)//128", "s0"),
    ("(s0*s1*128)//(s1*128)", "s0"),
    ("(s0*s1 + u0)//s1", "s0 + u0//s1"),
    ("s0 % 513", "s0"),
    ("s0 // 513", "0"),
    ("(s0 + 513) % 513", "s0"),
    ("max(1, s1)", "s1"),
    ("max(1, u0)", "max(1, u0)"),
    ("min(s0, 600)", "s0"),
    ("max(s0, s0*s1)", "s0*s1"),
    ("s0 % s0", "0"),
    ("s0//s0", "1"),
    ("u0//u0", "u0//u0"),
    ("u0 % (u0 + 1)", "u0"),
    ("0 if s0 == 0 else s0", "s0"),
    ("math.floor(s0*0.5)", "s0//2"),
    ("math.floor(s0/2)", "s0//2"),
    ("math.ceil(s0/3)", "(s0 + 2)//3"),
    ("math.trunc(s0*1.5)", "3*s0//2"),
    ("math.floor(s1*0.5)", "math.floor(float(s1)*0.5)"),  # beyond 2**53 it rounds
    ("math.floor(s0*0.1)", "math.floor(float(s0)*0.1)"),
    ("8*(u0//8) + u0 % 8 + 1", "u0 + 1"),
    ("s0 >= 1", "True"),
]


@pytest.mark.parametrize(("text", "simpler"), SIMPLER, ids=[t for t, _ in SIMPLER])
def test_simplify(facts: Facts, text: str, simpler: str) -> None:
    assert str(facts.simplify(parse(text))) == simpler


def told(*texts: str) -> Facts:
    """Facts with nonnegative symbols and these assumptions."""
    facts = Facts()
    for s in (s0, s1, s2, u0):
        facts.set_range(s, Range(0, math.inf))
    for text in texts:
        facts.assume(parse(text))
    return facts


CONSEQUENCES = [
    (["s0 <= 9"], "s0 < 10", True),
    (["3*s0 <= 20"], "s0 <= 6", True),
    (["s0 != 0"], "s0 >= 1", True),
    (["s0 != 0", "s0 != 1"], "s0 >= 2", True),
    (["s0 != 5"], "s0 == 5", False),
    (["s0 != s1"], "s1 - s0 == 0", False),
    (["s0 == s1"], "s0 + 1 == s1 + 1", True),
    (["s0 == s1", "s1 >= 3"], "s0 >= 3", True),
    (["s0 >= 3", "s0 == s1"], "s1 >= 3", True),
    (["s1 == 2*s0"], "s1 % 2 == 0", True),
    (["s1 == 2*s0"], "s1 == 3", False),
    (["s1 == 2*s0", "s2 == s1 + 1"], "s2 % 2 == 1", True),
    (["s2 == s1", "s1 == s0"], "s2 == s0", True),
    (["s0 % 8 == 0"], "s0 % 4 == 0", True),
    (["s0 % 8 == 0"], "(s0//8)*8 == s0", True),
    (["s0 % 8 == 0"], "s0 == 12", False),
    (["s0 % 8 == 0", "s0 >= 1"], "s0 >= 8", True),
    (["s0 % 8 == 0"], "(s0//4) % 2 == 0", True),
    (["s0 % 8 == 0"], "(s0*s1) % 8 == 0", True),
    (["s0 % 8 == 0"], "(s0*s1) % 16 == 0", None),
    (["s0 % 4 == 0", "s1 % 2 == 0"], "(s0*s1) % 8 == 0", True),
    (["s0 % 8 == 3"], "s0 % 4 == 3", True),
    (["s0 % 4 == 1", "s0 % 6 == 3"], "s0 % 12 == 9", True),
    (["(s0 + s1) % 4 == 0"], "(s0 + s1)//4*4 == s0 + s1", True),
    (["s0//8 == 2"], "s0 <= 23", True),
    (["2*u0 <= s1 - 3"], "u0 < s1", True),
    (["2*u0 <= s1 - 3"], "u0 + 3 <= s1", True),
    (["2*u0 <= s1 - 3"], "s1 >= 3", True),
    (["u0 <= s1", "s1 <= s2"], "u0 <= s2", True),
    (["u0 <= s1", "s1 <= u0"], "u0 == s1", True),
    (["u0 < s1", "s1 < s2"], "u0 + 2 <= s2", True),
    (["u0 < s1", "s1 < s2"], "s2 <= u0", False),
    (["u0 <= s0*s1"], "u0 > s0*s1", False),
    (["s0*s1 <= 12", "s1 >= 3"], "s0 <= 4", True),
    (["s0*s1 != 0"], "s1 >= 1", True),
    (["s0**2 != 2"], "s0 == 0", None),
    (["s0*s1 == 12"], "s0*s1 > 11", True),
    (["max(s0, s1) <= 5"], "s1 <= 5", True),
    (["s0 >= 3 and s1 >= 4"], "s0 + s1 >= 7", True),
    (["s0 >= 3 or s1 >= 4"], "s0 >= 3 or s1 >= 4", True),
    (["s0 >= 3 or s1 >= 4", "s0 == 0"], "s0 >= 3", False),
    (["2*s0 == 3*s1"], "s0 % 3 == 0", True),
    (["2*s0 == 3*s1"], "s1 % 2 == 1", False),
    (["(s0 - s1) % 4 == 0", "s0 == s1"], "s0 + s1 == 0", None),
    (["s0 == 3"], "s0*s1 == 3*s1", True),
    (["s0 % 2 != 0"], "s0 % 2 == 1", True),
    (["s0 < s1"], "s0 == s1", False),
    (["s0 < s1"], "max(s0, s1) == s1", True),
    # an exclusion sharpens an inequality, whichever came first
    (["s0 <= s1", "s0 != s1"], "s0 < s1", True),
    (["s0 != s1", "s0 <= s1"], "s1 <= s0", False),
    # ranges follow from maxima, minima and powers
    (["min(s0, s1) >= 3"], "s0 >= 3", True),
    (["min(s0, 7) == 2"], "s0 == 2", True),
    (["max(s0, 7) == 9"], "s0 == 9", True),
    (["max(s0, s1) >= 5", "s1 <= 3"], "s0 >= 5", True),
    (["s0**2 <= 70"], "s0 <= 8", True),
    (["s0**3 <= 26"], "s0 >= 3", False),
    (["s0*s1 == 0", "s0 >= 1"], "s1 == 0", True),
    # factors that can be 0, divisions by symbols, integers between fractions
    ([], "s0 <= s0**2", True),
    ([], "s0*s1 <= s0**2*s1", True),
    (["s0 >= 2", "s1 >= 1"], "s1//s0 < s1", True),
    (["s0 >= 1"], "s0 != s0//4", True),
    (["u0 <= s0", "s0 >= 1"], "u0//s0 <= 1", True),
    (["s1 <= s0"], "s0*s1 <= s0**2", True),
    (["s0*s1 >= 5", "s0 <= 9"], "s0*s2*s1 <= 5*s0*s2", None),
    (["u0 <= 3*s0 + 2"], "u0//(s0 + 1) <= 2", True),
    (["s0*s1 <= u0", "s1 >= 1"], "s0 <= u0//s1", True),
    (["s0 >= 4"], "7//s0 < s0", True),
    ([], "u0 % s0 < s0", True),
    # remainders that undo each other
    ([], "(s0 + (-s0) % 8) % 8 == 0", True),
    ([], "8*((s0 + (-s0) % 8)//8) == s0 + (-s0) % 8", True),
    ([], "(s0 + (-s0) % 8)//4 == 2*((s0 + (-s0) % 8)//8)", True),
    # trying: what cannot be assumed is false
    (["s0 >= 1", "s0 != 5//s0"], "s0 == 2", False),
    (["(s0 + 1) % 7 <= 2", "s0 <= 12"], "s0 == 4", False),
    (["4*s1 + 7 <= 3*max(s1, u0)"], "s1 <= u0", True),
]


@pytest.mark.parametrize(
    ("given", "text", "answer"), CONSEQUENCES, ids=[f"{g} -> {t}" for g, t, _ in CONSEQUENCES]
)
def test_consequence(given: list[str], text: str, answer: bool | None) -> None:
    assert told(*given).decide(parse(text)) is answer


CONTRADICTIONS = [
    ["s0 <= 3", "s0 >= 4"],
    ["s0 < 0"],
    ["s0 == 3", "s0 == 4"],
    ["s0 == s1", "s0 != s1"],
    ["s0 < s1", "s1 < s0"],
    ["s0 == s1 + 1", "s0 <= s1"],
    ["s0 % 8 == 1", "s0 % 4 == 0"],
    ["s0 % 8 == 0", "s0 >= 1", "s0 <= 7"],
    ["s1 == 2*s0", "s1 == 5"],
    ["s0 != 0", "s0 <= 0"],
]


@pytest.mark.parametrize("given", CONTRADICTIONS, ids=str)
def test_contradiction(given: list[str]) -> None:
    facts = told(*given[:-1])
    before = facts.describe()
    with pytest.raises(Contradiction, match="contradict|cannot|would have|exclude|is not"):
        facts.assume(parse(given[-1]))
    assert facts.describe() == before


# -- the store -------------------------------------------------------------------------------------


def test_ranges(facts: Facts) -> None:
    assert facts.range_of(s0) == Range(2, 512)
    assert facts.range_of(2 * s0 - 1) == Range(3, 1023)
    assert facts.range_of(s0 // 8) == Range(0, 64)
    assert facts.range_of(s0 % 8) == Range(0, 7)
    assert facts.range_of(s0 * s1) == Range(2, math.inf)
    assert facts.range_of(max_(s0, 4)) == Range(4, 512)
    assert facts.range_of(min_(s0, 4)) == Range(2, 4)
    assert facts.range_of(ite(s0 < s1, 1, s0)) == Range(1, 512)
    assert facts.range_of(s0 // symbol("free")) == Range(-512, 512)
    assert facts.range_of(symbol("free")) == Range(-math.inf, math.inf)
    assert facts.range_of(ceil_(to_float(s0) * 1.5)) == Range(3, 768)
    assert facts.range_of(floor_(zf)) == Range(-math.inf, math.inf)
    assert facts.range_of(7) == Range(7, 7)
    with pytest.raises(TypeError, match="only integers have a range"):
        facts.range_of(zf)


def test_representatives_are_substituted() -> None:
    facts = told("s1 == 2*s0", "u0 == s1 + 1")
    assert facts.simplify(u0 + s1) is 4 * s0 + 1
    assert facts.range_of(u0).lower == 1
    facts.assume(s0 <= 4)
    assert facts.range_of(u0) == Range(1, 9)


def test_a_range_set_later_reaches_the_representative() -> None:
    facts = told("s1 == 2*s0")
    facts.set_range(s1, Range(6, 20))
    assert facts.range_of(s0) == Range(3, 10)


def test_copies_are_independent(facts: Facts) -> None:
    twin = facts.copy()
    twin.assume(s0 >= 100)
    assert twin.decide(s0 > 50) is True and facts.decide(s0 > 50) is None


def test_implied_assumptions_change_nothing(facts: Facts) -> None:
    generation = facts.generation
    facts.assume(s0 >= 1)
    facts.assume(ge(s0 * s1, s0))
    facts.assume(True)
    assert facts.generation == generation


def test_describe_reads_back(facts: Facts) -> None:
    facts.assume(eq(mod(s0, 8), 0))
    facts.assume(2 * u0 <= s1 - 3)
    facts.assume(ne(s0, s1))
    facts.assume(or_(eq(s1, 9), eq(u0, 2)))
    again = Facts()
    for line in str(facts).splitlines():
        again.assume(parse(line))
    assert str(again) == str(facts)
    assert "s0 % 8 == 0" in str(facts).splitlines()
    assert str(Facts()) == "(nothing is known)"


def test_float_literals() -> None:
    facts = Facts()
    facts.assume(zf > 0.0)
    assert facts.decide(zf > 0.0) is True
    assert facts.decide(not_(zf > 0.0)) is False
    assert facts.decide(zf <= 0.0) is None  # NaN is told apart from "greater"
    assert facts.decide(eq(zf, zf)) is None


def test_sorts_are_checked(facts: Facts) -> None:
    with pytest.raises(TypeError, match="only a boolean"):
        facts.decide(s0)
    with pytest.raises(TypeError, match="belongs to an integer symbol"):
        facts.set_range(s0 + 1, Range(0, 1))
    assert facts.decide(True) is True


def test_trunc_needs_the_sign(facts: Facts) -> None:
    free = symbol("free")
    facts.set_range(free, Range(-10, 10))
    assert facts.simplify(trunc_(free / 2)).op == "trunc"
    facts.assume(free <= 0)
    assert str(facts.simplify(trunc_(free / 2))) == "(free + 1)//2"


def test_many_facts_stay_bounded() -> None:
    facts = Facts()
    symbols = [symbol(f"s{i}") for i in range(30)]
    for s in symbols:
        facts.set_range(s, Range(0, math.inf))
    for left, right in zip(symbols, symbols[1:], strict=False):
        facts.assume(left + 1 <= right)
    assert facts.range_of(symbols[-1]).lower >= 4
    assert facts.decide(gt(symbols[3], symbols[2])) is True
    assert facts.decide(gt(symbols[0], symbols[29])) in (False, None)


def test_what_is_too_deep_is_unknown() -> None:
    facts, node = Facts(), s0
    facts.set_range(s0, Range(0, 9))
    for i in range(1500):
        node = max_(node // 2 + i, node % 7)
    assert facts.decide(node >= 0) in (True, None)
    assert facts.range_of(node).upper >= 0
    assert facts.simplify(node) is not None


# -- oracles ---------------------------------------------------------------------------------------


def test_agrees_with_all_assignments() -> None:
    tally = fuzz_decide.Tally()
    seed = 0
    while tally.asked < 5000:
        fuzz_decide.check_by_force(seed, tally)
        seed += 1
    assert tally.answered > 0.8 * tally.decidable


def test_agrees_with_z3() -> None:
    pytest.importorskip("z3")
    from tests.symbolic.oracle_z3 import check_with_z3

    tally = fuzz_decide.Tally()
    seed = 50_000
    while tally.asked < 1500:
        check_with_z3(seed, tally)
        seed += 1
    assert tally.answered > 500


def test_simplification_agrees_with_sympy() -> None:
    pytest.importorskip("sympy")
    from tests.symbolic.oracle_sympy import check_simplified

    for seed in range(200):
        check_simplified(seed)


def test_expr_is_what_simplify_returns(facts: Facts) -> None:
    assert isinstance(facts.simplify(3), Expr)
