"""Construction, decision and simplification times of the symbolic floor, in microseconds.

    python benchmarks/bench_symbolic.py [--no-others] [--json FILE] [--check]

"seen" is a question that was asked before, "new" one that was not (in the first table the
expression is made before the clock starts). The second table is about scale: the same work among
20 and among 200 symbols. The third puts the same questions to torch's ``ShapeEnv`` and to sympy,
in this process, and gives ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent / "src"
if str(SOURCE) not in sys.path:  # a checkout works without being installed
    sys.path.insert(0, str(SOURCE))

from stillframe.symbolic import (  # noqa: E402
    Expr,
    Facts,
    Range,
    add,
    ceil_,
    eq,
    floordiv,
    max_,
    mod,
    symbol,
)

ROUNDS = 7


def per_call(function: Callable[[], object], calls: int) -> float:
    """Median microseconds of one of ``calls`` calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return median(times)


def per_item(function: Callable[[Expr], object], items: Callable[[], Iterator[Expr]]) -> float:
    """Median microseconds over items that are new to the function."""
    made = list(items())
    times = []
    for item in made:
        start = time.perf_counter()
        function(item)
        times.append((time.perf_counter() - start) * 1e6)
    return median(times)


def facts_for(*symbols: Expr) -> Facts:
    """Declared sizes as an export has them."""
    facts = Facts()
    for s in symbols:
        facts.set_range(s, Range(2, 512))
    return facts


def times() -> list[tuple[str, float]]:
    """Microseconds of what a capture does most."""
    a, b, u = symbol("s0"), symbol("s1"), symbol("u0")
    rows: list[tuple[str, float]] = []
    for text, build in {
        "a + 1": lambda: a + 1,
        "2*a*b": lambda: 2 * a * b,
        "a // 8": lambda: a // 8,
        "a*128 == 0": lambda: eq(a * 128, 0),
        "a <= b": lambda: a <= b,
    }.items():
        rows.append((f"build seen  {text}", per_call(build, 20_000)))
    counter = iter(range(10**9))
    for text, make in {
        "a + k": lambda: a + next(counter),
        "k*a*b": lambda: a * next(counter) * b,
        "(a + k) // 8": lambda: (a + next(counter)) // 8,
        "a + k <= b": lambda: a + next(counter) <= b,
    }.items():
        rows.append((f"build new   {text}", per_call(make, 2_000)))

    facts = facts_for(a, b)
    facts.decide(eq(a * b * 128, 0))
    zero = eq(a * b * 128, 0)
    rows.append(("decide seen a*b*128 == 0", per_call(lambda: facts.decide(zero), 20_000)))
    rows.append(
        ("build and decide seen    ", per_call(lambda: facts.decide(eq(a * b * 128, 0)), 20_000))
    )
    questions: dict[str, Callable[[int], Expr]] = {
        "a*b + k == 0": lambda k: eq(a * b + k, 0),
        "a < k (known)": lambda k: a < 600 + k,
        "a*b >= a": lambda k: a * b + k >= a,
        "(a + 1)//k == (b + 1)//k (unknown)": lambda k: eq((a + 1) // (k + 3), (b + 1) // (k + 3)),
        "a == b + k (unknown)": lambda k: eq(a, b + k),
        "(a*b + k*b)//b == a + k": lambda k: eq(floordiv(a * b + b * k, b), a + k),
        "a % (512 + k) == a": lambda k: eq(mod(a, 513 + k), a),
        "max(a, k - 300) == a": lambda k: eq(max_(a, k - 300), a),
        "ceil((a + k)/2) >= 1": lambda k: ceil_((a + k) / 2) >= 1,
    }
    for text, ask in questions.items():
        rows.append(
            (f"decide new  {text}", per_item(facts.decide, lambda ask=ask: map(ask, range(200))))
        )

    told = facts_for(a, b)
    told.assume(u >= 0)
    told.assume(2 * u <= b - 3)
    told.assume(eq(a % 8, 0))
    rows.append(
        (
            "decide new  u + k < b + k, inequality",
            per_item(told.decide, lambda: (u < b + k for k in range(200))),
        )
    )
    rows.append(
        (
            "decide new  unknown, inequality",
            per_item(told.decide, lambda: (u + k < a for k in range(2, 200))),
        )
    )
    rows.append(
        (
            "simplify new (a//8)*8 + k",
            per_item(told.simplify, lambda: (a // 8 * 8 + k for k in range(200))),
        )
    )
    assumptions = [a <= 511 - k for k in range(200)]
    rows.append(("assume new  a <= k", per_item(told.assume, lambda: iter(assumptions))))
    rows.append(("copy", per_call(told.copy, 2_000)))
    return rows


# --- scale ---------------------------------------------------------------------------------------


def many_symbols(count: int) -> float:
    """Milliseconds to declare ``count`` symbols, relate some of them, and ask about all."""
    facts = Facts()
    symbols = [symbol(f"u{i}") for i in range(count)]
    start = time.perf_counter()
    for i, s in enumerate(symbols):
        facts.set_range(s, Range(0, math.inf))
        if i % 4 == 3:
            facts.assume(symbols[i - 1] + 1 <= 2 * s)
        facts.decide(s >= 0)
        facts.decide(symbols[i - 1] * s >= s)
        facts.decide(eq(s // 8 * 8, s))
    return (time.perf_counter() - start) * 1e3


def long_sums(count: int) -> float:
    """Milliseconds for sums of ``count`` unbacked symbols, floor-divided and compared."""
    facts = Facts()
    symbols = [symbol(f"v{i}") for i in range(count)]
    start = time.perf_counter()
    for s in symbols:
        facts.assume(s >= 0)
    total = reduce(add, symbols)
    sums = [total]
    for k in range(3, 13):
        sums.append(sums[-1] // k + total)
    for left, right in zip(sums, sums[1:], strict=False):
        for question in (left >= 0, left <= right, eq(left, right), right >= total):
            facts.decide(question)
        facts.assume(left <= right + 5)
    return (time.perf_counter() - start) * 1e3


def scale() -> list[tuple[str, float]]:
    """Milliseconds by number of symbols."""
    works = {"declare, relate, ask about each": many_symbols, "sums of all of them": long_sums}
    return [
        (f"{text}, {count} symbols", median(work(count) for _ in range(3)))
        for text, work in works.items()
        for count in (20, 100, 200)
    ]


# --- beside torch and sympy ----------------------------------------------------------------------

# Each question is written once, in terms of an algebra: sizes a and b, a number k that makes it
# new, and the functions that the three systems call differently.
Question = Callable[[Any, int], Any]
QUESTIONS: dict[str, Question] = {
    "a*b + k == 0": lambda o, k: o.eq(o.a * o.b + k, 0),
    "a*b + k >= a": lambda o, k: o.a * o.b + k >= o.a,
    "a < k (unknown)": lambda o, k: o.a < k,
    "a == b + k (unknown)": lambda o, k: o.eq(o.a, o.b + k),
    "(a + k)//8 >= 1": lambda o, k: o.floordiv(o.a + k, 8) >= 1,
    "(a + 1)//k == (b + 1)//k (unknown)": lambda o, k: o.eq(
        o.floordiv(o.a + 1, k), o.floordiv(o.b + 1, k)
    ),
    "(a*b + k*b)//b == a + k": lambda o, k: o.eq(o.floordiv(o.a * o.b + k * o.b, o.b), o.a + k),
    "a % (k + 600) == a": lambda o, k: o.eq(o.mod(o.a, k + 600), o.a),
    "max(a, -k) == a": lambda o, k: o.eq(o.max(o.a, -k), o.a),
}


class Ours:
    """The fact store."""

    name = "ours"
    eq, floordiv, mod, max = map(staticmethod, (eq, floordiv, mod, max_))

    def __init__(self) -> None:
        self.a, self.b = symbol("x0"), symbol("x1")
        self.facts = facts_for(self.a, self.b)

    def ask(self, question: Any) -> Any:
        """True, False or None."""
        return self.facts.decide(question)


class Torch:
    """torch's own ShapeEnv: two backed sizes with a range, static evaluation."""

    name = "torch"

    def __init__(self) -> None:
        import sympy
        from torch._dynamo.source import ConstantSource
        from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
        from torch.utils._sympy.functions import FloorDiv, Max, Mod
        from torch.utils._sympy.value_ranges import ValueRanges

        self.eq, self.floordiv, self.mod, self.max = sympy.Eq, FloorDiv, Mod, Max
        self.env = ShapeEnv()
        self.a, self.b = (
            self.env.create_symbol(hint, ConstantSource(name), DimDynamic.DYNAMIC)
            for name, hint in (("a", 7), ("b", 5))
        )
        for s in (self.a, self.b):
            self.env._update_var_to_range(s, ValueRanges(2, 512))

    def ask(self, question: Any) -> Any:
        """True, False or None; sympy has folded some questions already."""
        if question in (True, False):
            return bool(question)
        return self.env._maybe_evaluate_static(question)


class Sympy:
    """Plain sympy: ``a`` is ``2 + x`` for an integer ``x >= 0``; relations are simplified."""

    name = "sympy"

    def __init__(self) -> None:
        import sympy

        self.eq, self.mod, self.max = sympy.Eq, sympy.Mod, sympy.Max
        self.floordiv = lambda x, y: sympy.floor(x / sympy.sympify(y))
        names = sympy.symbols("x y", integer=True, nonnegative=True)
        self.a, self.b = (2 + name for name in names)

    def ask(self, question: Any) -> Any:
        """True, False or what is left."""
        return question if question in (True, False) else question.simplify()


def per_question(system: Any, ask: Question, numbers: range) -> tuple[float, float, Any]:
    """Median microseconds to build and answer a new question, to answer it again; an answer."""
    new, seen = [], []
    answer = None
    for k in numbers:
        start = time.perf_counter()
        question = ask(system, k)
        answer = system.ask(question)
        middle = time.perf_counter()
        system.ask(question)
        end = time.perf_counter()
        new.append((middle - start) * 1e6)
        seen.append((end - middle) * 1e6)
    return median(new), median(seen), answer


def beside_others(rounds: int = 12) -> dict[str, dict[str, tuple[float, float, Any]]]:
    """For every question and system: new, seen, answer. Each system is warmed up first."""
    systems = [Ours(), Torch(), Sympy()]
    for system in systems:
        for ask in QUESTIONS.values():
            per_question(system, ask, range(900, 902))
    return {
        text: {s.name: per_question(s, ask, range(3, 3 + rounds)) for s in systems}
        for text, ask in QUESTIONS.items()
    }


# --- all of it -----------------------------------------------------------------------------------


def show_others(found: dict[str, dict[str, tuple[float, float, Any]]]) -> None:
    """The table: microseconds and, in brackets, how many times ours."""
    width = max(map(len, found))
    print(f"\n{'build and decide, us':<{width}}  {'ours':>7} {'torch':>16} {'sympy':>16}   seen")
    for text, row in found.items():
        ours, torch, sympy = row["ours"], row["torch"], row["sympy"]
        print(
            f"{text:<{width}}  {ours[0]:7.1f} {torch[0]:9.0f} ({torch[0] / ours[0]:4.0f}x)"
            f" {sympy[0]:9.0f} ({sympy[0] / ours[0]:4.0f}x)"
            f"   {ours[1]:.2f} torch {torch[1]:.2f}    answers {ours[2]}, {torch[2]}"
        )


def main() -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--no-others", action="store_true", help="without torch and sympy")
    p.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    p.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = p.parse_args()
    rows, scales = times(), scale()
    width = max(len(name) for name, _ in (*rows, *scales))
    for name, micros in rows:
        print(f"{name:<{width}}  {micros:8.2f} us")
    print()
    for name, millis in scales:
        print(f"{name:<{width}}  {millis:8.2f} ms")
    targets: list[dict[str, Any]] = []
    if not options.no_others:
        found = beside_others()
        show_others(found)
        for other in ("torch", "sympy"):
            ratio = geometric_mean(r[other][0] / r["ours"][0] for r in found.values())
            name = f"symbolic: {other} / ours, a new question"
            targets.append(
                {"name": name, "value": ratio, "relation": ">=", "bound": 10.0, "met": ratio >= 10}
            )
            print(f"{name}: {ratio:.0f}x (geometric mean)")
    if options.json:
        data = {"script": "bench_symbolic", "targets": targets}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 1 if options.check and not all(t["met"] for t in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
