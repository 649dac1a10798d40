"""Seeded fuzzing of ``Facts``: against all small assignments, and against z3.

A case is a set of ranges and assumptions, and questions. Whatever ``decide`` answers must hold for
every assignment that satisfies the facts and for which the question has a value; ``simplify`` must
not change a value; a ``Contradiction`` must mean that no assignment is left.

Run ``python -m tests.symbolic.fuzz_decide --pairs 200000 --seed 1`` for a long one.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.symbolic.generate import assumption, question, small_int

from stillframe import symbolic as sym
from stillframe.symbolic import Contradiction, Expr, Facts, Range


@dataclass
class Case:
    """Ranges, assumptions and what is asked under them."""

    seed: int
    ranges: dict[Expr, Range]
    assumptions: list[Expr]
    questions: list[Expr]
    integers: list[Expr]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}", "facts = Facts()"]
        lines += [f"facts.set_range(symbol({str(s)!r}), {r})" for s, r in self.ranges.items()]
        lines += [f"facts.assume(parse({str(a)!r}))" for a in self.assumptions]
        return "\n".join(lines)


@dataclass
class Tally:
    """How many questions were asked and how many were answered."""

    asked: int = 0
    answered: int = 0
    decidable: int = 0
    contradictions: int = 0
    missed: list[str] = field(default_factory=list)


def make_case(seed: int, questions: int = 8) -> Case:
    """The case of a seed: two or three symbols, up to three assumptions."""
    rng = random.Random(seed)
    symbols = tuple(sym.symbol(n) for n in ("s0", "s1", "u0")[: rng.choice((2, 2, 3))])
    ranges = {}
    for s in symbols:
        low = rng.choice((-5, -1, 0, 0, 1, 1, 2, 2))
        ranges[s] = Range(low, low + rng.choice((3, 6, 9, 13 if len(symbols) == 2 else 7)))
    assumptions = [assumption(rng, symbols) for _ in range(rng.randint(0, 3))]
    asked = [question(rng, symbols, rng.choice((0, 1, 1, 2))) for _ in range(questions)]
    integers = [small_int(rng, symbols, 2) for _ in range(3)]
    return Case(seed, ranges, assumptions, asked, integers)


def value(expr: Expr, assignment: dict[Expr, int]) -> Any:
    """The value, or None where a division by zero (or the like) leaves none."""
    try:
        return sym.evaluate(expr, assignment)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None


def assignments(case: Case) -> Iterator[dict[Expr, int]]:
    """All assignments that satisfy the case's facts."""
    symbols = list(case.ranges)
    spans = [range(int(case.ranges[s].lower), int(case.ranges[s].upper) + 1) for s in symbols]
    for numbers in itertools.product(*spans):
        assignment = dict(zip(symbols, numbers, strict=True))
        if all(value(a, assignment) is True for a in case.assumptions):
            yield assignment


def facts_of(case: Case) -> Facts | None:
    """The facts of a case; None if they contradict each other."""
    facts = Facts()
    for s, bounds in case.ranges.items():
        facts.set_range(s, bounds)
    for fact in case.assumptions:
        try:
            facts.assume(fact)
        except Contradiction:
            return None
    return facts


def check_by_force(seed: int, tally: Tally) -> None:
    """Compare every answer for the case of ``seed`` with all assignments."""
    case = make_case(seed)
    admitted = list(assignments(case))
    facts = facts_of(case)
    if facts is None:
        tally.contradictions += 1
        assert not admitted, f"{case}\n# raised Contradiction, but {admitted[0]} satisfies all"
        return
    for asked in case.questions:
        found = {v for v in (value(asked, a) for a in admitted) if v is not None}
        answer = facts.decide(asked)
        tally.asked += 1
        tally.answered += answer is not None
        tally.decidable += len(found) == 1
        if len(found) == 1 and answer is None:
            tally.missed.append(f"{case}\nfacts.decide(parse({str(asked)!r}))  # {found}")
        assert answer is None or found <= {answer}, (
            f"{case}\nfacts.decide(parse({str(asked)!r}))  # {answer}, but all values are {found}"
        )
    for node in (*case.questions, *case.integers):
        simple = facts.simplify(node)
        for a in admitted:
            before = value(node, a)
            if before is not None:
                after = value(simple, a)
                assert after == before or (after != after and before != before), (
                    f"{case}\nfacts.simplify(parse({str(node)!r}))"
                    f"  # {simple}: {after} for {a}, not {before}"
                )
    for node in (*case.integers, *case.ranges):
        bounds = facts.range_of(node)
        for a in admitted:
            v = value(node, a)
            assert v is None or v in bounds, (
                f"{case}\nfacts.range_of(parse({str(node)!r}))  # {bounds}, but {v} for {a}"
            )


def main() -> None:
    """Command line: ``--pairs`` questions from ``--seed`` on; ``--z3`` asks z3 as well."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--z3", action="store_true", help="unbounded ranges, z3 as the oracle")
    parser.add_argument("--missed", type=int, default=0, help="print that many undecided questions")
    options = parser.parse_args()
    tally = Tally()
    seed = options.seed
    if options.z3:
        from tests.symbolic.oracle_z3 import check_with_z3
    while tally.asked < options.pairs:
        (check_with_z3 if options.z3 else check_by_force)(seed, tally)
        seed += 1
    for text in tally.missed[: options.missed]:
        print(text, end="\n\n")
    print(
        f"seeds {options.seed}..{seed - 1}: {tally.asked} questions, {tally.answered} answered, "
        f"{tally.decidable} decidable, {tally.contradictions} contradictory cases"
    )


if __name__ == "__main__":
    main()
