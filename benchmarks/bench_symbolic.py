"""Construction, decision and simplification times of the symbolic floor, in microseconds.

"seen" is a question that was asked before, "new" one that was not (the expression is made before
the clock starts). Run ``python benchmarks/bench_symbolic.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

from stillframe.symbolic import Expr, Facts, Range, ceil_, eq, floordiv, max_, mod, symbol

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


def main() -> None:
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
    width = max(len(name) for name, _ in rows)
    for name, micros in rows:
        print(f"{name:<{width}}  {micros:8.2f} us")


if __name__ == "__main__":
    main()
