"""Speed of the frame machine on plain Python: microseconds per bytecode, and beside CPython.

    python benchmarks/bench_frames.py [--json FILE] [--check]

A bytecode is one instruction that the machine runs (those that do nothing are dropped when code is
decoded). Every program is decoded before the clock starts. The last column is the time per bytecode
of a run eight times as long over that of the short run: 1 means that the cost is linear.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src"
if str(SOURCE) not in sys.path:  # a checkout works without being installed
    sys.path.insert(0, str(SOURCE))

import stillframe.frames.decode as decode  # noqa: E402
from stillframe.frames import interpret  # noqa: E402

ROUNDS = 7


def count_up(n: int) -> int:
    total, i = 0, 0
    while i < n:
        total += i * 2
        i += 1
    return total


def for_loop(n: int) -> list[int]:
    out = []
    for i in range(n):
        if i % 3 == 0:
            out.append(i)
    return out


def calls(n: int) -> int:
    def add(a: int, b: int = 1) -> int:
        return a + b

    x = 0
    for _ in range(n):
        x = add(x)
    return x


class Counter:
    """A class with methods and attributes."""

    def __init__(self) -> None:
        self.n = 0

    def step(self, by: int) -> None:
        self.n += by


def methods(n: int) -> int:
    c = Counter()
    for i in range(n):
        c.step(i)
    return c.n


def comprehensions(n: int) -> int:
    return sum([x * x for x in range(n) if x & 1]) + len({x: x + 1 for x in range(n)})


def generators(n: int) -> int:
    def squares() -> Iterator[int]:
        for i in range(n):
            yield i * i

    return sum(x for x in squares())


def containers(n: int) -> int:
    table: dict[int, list[int]] = {}
    for i in range(n):
        table.setdefault(i % 7, []).append(i)
        table[i % 7][0] = i
    return len(table)


def exceptions(n: int) -> int:
    caught = 0
    for i in range(n):
        try:
            if i % 10 == 0:
                raise ValueError(i)
        except ValueError:
            caught += 1
    return caught


def texts(n: int) -> int:
    return len("".join(f"{i:>3}-{i % 2}" for i in range(n)))


PROGRAMS: list[Callable[[int], Any]] = [
    count_up, for_loop, calls, methods, comprehensions, generators, containers, exceptions, texts,
]  # fmt: skip


class Figures(NamedTuple):
    """What was measured of one program."""

    name: str
    bytecodes: int
    micros: float
    factor: float
    growth: float


@contextmanager
def counting(counter: list[int]) -> Iterator[None]:
    """Count the instructions that decoded code runs."""

    def counted(handler: Any) -> Any:
        def run(frame: Any, argument: Any) -> Any:
            counter[0] += 1
            return handler(frame, argument)

        return run

    known = list(decode._cache.values())
    saved = [list(decoded.instructions) for decoded in known]
    for decoded in known:
        decoded.instructions[:] = [(counted(h), a) for h, a in decoded.instructions]
    try:
        yield
    finally:
        for decoded, instructions in zip(known, saved, strict=True):
            decoded.instructions[:] = instructions


def seconds(call: Callable[[], object]) -> float:
    """Processor time of a call, the best of some: what else the computer does only adds."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def measure(program: Callable[[int], Any], n: int) -> Figures:
    """Run one program on both, the machine at two lengths."""
    run = interpret(program)
    assert run(n) == program(n)
    micros = []
    for length in (n, 8 * n):
        counter = [0]
        with counting(counter):
            run(length)
        micros.append(seconds(lambda length=length: run(length)) / counter[0] * 1e6)
    factor = micros[1] * counter[0] / (seconds(lambda: program(8 * n)) * 1e6)
    return Figures(program.__name__, counter[0], micros[1], factor, micros[1] / micros[0])


def main() -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--json", metavar="FILE", type=Path, help="also write the figures there")
    p.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = p.parse_args()
    rows = [measure(program, 1000) for program in PROGRAMS]
    print(f"{'program':<16}{'bytecodes':>10}{'us each':>10}{'x CPython':>11}{'8n / n':>8}")
    for row in rows:
        print(
            f"{row.name:<16}{row.bytecodes:>10}{row.micros:>10.3f}{row.factor:>11.0f}"
            f"{row.growth:>8.2f}"
        )
    middle = median(row.micros for row in rows)
    growth = geometric_mean(row.growth for row in rows)
    print(f"\nmedian {middle:.3f} us per bytecode; {geometric_mean(r.factor for r in rows):.0f} x "
          "CPython (geometric mean)")  # fmt: skip
    targets = [
        {"name": "frames: us per bytecode (median)", "value": middle, "relation": "<=",
         "bound": 3.0, "met": middle <= 3.0},
        {"name": "frames: cost per bytecode, 8n over n", "value": growth, "relation": "<=",
         "bound": 1.3, "met": growth <= 1.3},
    ]  # fmt: skip
    if options.json:
        data = {"script": "bench_frames", "targets": targets}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 1 if options.check and not all(t["met"] for t in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
