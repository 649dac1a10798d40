"""z3 as the oracle of ``Facts.decide``, over unbounded integers."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import z3
from tests.symbolic.generate import assumption, question

from stillframe import symbolic as sym
from stillframe.symbolic import Expr, Range

if TYPE_CHECKING:
    from tests.symbolic.fuzz_decide import Case, Tally

TIMEOUT_MS = 200


class NotInZ3(Exception):
    """A float, a power with a symbolic exponent, or something else that has no z3 term here."""


class Translation:
    """Expressions as z3 terms; ``defined`` collects "no divisor is zero"."""

    def __init__(self) -> None:
        self.defined: list[Any] = []
        self._done: dict[Expr, Any] = {}

    def __call__(self, node: Expr) -> Any:
        if node not in self._done:
            self._done[node] = self._translate(node)
        return self._done[node]

    def _translate(self, node: Expr) -> Any:
        if node.sort == "float" or (node.args and node.op not in _KNOWN):
            raise NotInZ3(str(node))
        if node.op == "const":
            return z3.BoolVal(node.value) if node.sort == "bool" else z3.IntVal(node.value)
        if node.op == "symbol":
            return z3.Int(str(node))
        args = [self(a) for a in node.args]
        if node.op in ("floordiv", "mod"):
            return self._division(node.op, *args)
        return _TERMS[node.op](*args)

    def _division(self, op: str, x: Any, y: Any) -> Any:
        """z3's quotient leaves a remainder of 0 or more; Python's has the sign of the divisor."""
        self.defined.append(y != 0)
        if op == "floordiv":
            return z3.If(y > 0, x / y, (-x) / (-y))
        return z3.If(y > 0, x % y, -((-x) % (-y)))


def _fold(choose: Any) -> Any:
    def folded(first: Any, *rest: Any) -> Any:
        for other in rest:
            first = z3.If(choose(first, other), first, other)
        return first

    return folded


_TERMS: dict[str, Any] = {
    "add": lambda *args: z3.Sum(*args),
    "mul": lambda *args: z3.Product(*args),
    "max": _fold(lambda x, y: x >= y),
    "min": _fold(lambda x, y: x <= y),
    "ite": z3.If,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "and": z3.And,
    "or": z3.Or,
    "not": z3.Not,
}
_KNOWN = {*_TERMS, "floordiv", "mod"}


def unbounded_case(seed: int) -> Case:
    """A case whose ranges have no upper bound more often than not."""
    from tests.symbolic.fuzz_decide import Case

    rng = random.Random(seed)
    symbols = tuple(sym.symbol(n) for n in ("s0", "s1", "u0")[: rng.choice((1, 2, 2, 3))])
    ranges = {}
    for s in symbols:
        low = rng.choice((-math.inf, 0, 0, 1, 2, 2))
        ranges[s] = Range(low, rng.choice((math.inf, math.inf, 64, 1024)))
    assumptions = [assumption(rng, symbols, floats=False) for _ in range(rng.randint(0, 3))]
    asked = [question(rng, symbols, rng.choice((0, 1, 1, 2)), floats=False) for _ in range(8)]
    return Case(seed, ranges, assumptions, asked, [])


def check_with_z3(seed: int, tally: Tally) -> None:
    """Compare every answer for the unbounded case of ``seed`` with z3."""
    from tests.symbolic.fuzz_decide import facts_of

    case = unbounded_case(seed)
    facts = facts_of(case)
    translate = Translation()
    given = [translate(a) for a in case.assumptions]
    for s, bounds in case.ranges.items():
        if bounds.lower != -math.inf:
            given.append(z3.Int(str(s)) >= int(bounds.lower))
        if bounds.upper != math.inf:
            given.append(z3.Int(str(s)) <= int(bounds.upper))
    if facts is None:
        tally.contradictions += 1
        tally.asked += 1
        _expect_unsat(f"{case}\n# raised Contradiction", [*given, *translate.defined])
        return
    for asked in case.questions:
        answer = facts.decide(asked)
        tally.asked += 1
        if answer is None:
            continue
        tally.answered += 1
        term = translate(asked)
        claim = z3.Not(term) if answer else term
        text = f"{case}\nfacts.decide(parse({str(asked)!r}))  # {answer}"
        _expect_unsat(text, [*given, *translate.defined, claim])


def answer_of_z3(statements: list[Expr], asked: Expr, milliseconds: int) -> bool | None | str:
    """What z3 makes of ``asked``: True, False, None, or ``"floats"`` if it has no say."""
    translate = Translation()
    try:
        given = [translate(s) for s in statements]
        term = translate(asked)
    except NotInZ3:
        return "floats"
    for answer, claim in ((True, z3.Not(term)), (False, term)):
        solver = z3.Solver()
        solver.set("timeout", milliseconds)
        solver.add(*given, *translate.defined, claim)
        if solver.check() == z3.unsat:
            return answer
    return None


def _expect_unsat(text: str, constraints: list[Any]) -> None:
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT_MS)
    solver.add(*constraints)
    if solver.check() == z3.sat:
        raise AssertionError(f"{text}, but z3 has {solver.model()}")
