"""How a capture grows with the number of symbols.

    python benchmarks/bench_shapes.py [--check] [--json out.json] [--limit SECONDS]

Two families. *Declared*: a list of tensors, each with a dynamic dim of its own, and operators that
compare and join their sizes; 1 to 200 dims. *Unbacked*: sizes read from data with ``item()``,
checked, summed and floor-divided into the sizes of new tensors; 10 and 100 symbols. Times are
medians of exports after a first one; torch's run in a process of its own that is stopped after
``--limit`` seconds, because some of them do not come back.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

import torch
from common import Library, Report, Target, libraries, parser, print_table, timed
from torch import nn

DIMS = (1, 10, 50, 100, 200)
UNBACKED = (10, 100)
REPEATS = 3


class Declared(nn.Module):
    """A size of its own for each tensor, and one size that is the sum of all."""

    def forward(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [*((x * 2).relu().view(-1) for x in xs), torch.cat([x.flatten() for x in xs])]


class Unbacked(nn.Module):
    """Sizes that only the data tells, in sums and quotients."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes = [v.item() for v in x]
        for size in sizes:
            torch._check(size >= 0)
        total = sum(sizes)
        a = torch.zeros(total // 3 + 1)
        b = torch.zeros((total + 5) // 7 + total // 3)
        for size in sizes[:10]:
            torch._check(size <= total)
            b = b + torch.ones((total + 5) // 7 + total // 3)
        return a, b


def export(library: Library, family: str, count: int) -> Any:
    """One export of the family with ``count`` symbols."""
    if family == "unbacked":
        return library.export(Unbacked(), (torch.arange(count),), {}, None)
    xs = [torch.randn(2 + i % 5, 3) for i in range(count)]
    spec = {"xs": [{0: library.Dim(f"d{i}")} for i in range(count)]}
    return library.export(Declared(), (xs,), {}, spec)


def measure(library: Library, family: str, count: int) -> float:
    """Seconds of one export, the median."""
    export(library, family, 2)
    return statistics.median(timed(lambda: export(library, family, count)) for _ in range(REPEATS))


def measure_apart(library: Library, family: str, count: int, limit: float) -> float | None:
    """The same in a process of its own; None if it was stopped or failed."""
    command = [sys.executable, __file__, "--one", f"{library.name}:{family}:{count}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    try:
        return float(run.stdout.split()[-1])
    except (ValueError, IndexError):
        return None


def main() -> int:
    """Measure, print, judge."""
    p = parser(__doc__)
    p.add_argument("--limit", type=float, default=60.0, metavar="SECONDS")
    p.add_argument("--one", metavar="LIBRARY:FAMILY:COUNT", help="measure this and print it")
    options = p.parse_args()
    if options.one:
        name, family, count = options.one.split(":")
        (library,) = libraries(name)
        print(measure(library, family, int(count)))
        return 0

    report = Report("bench_shapes")
    times: dict[tuple[str, str, int], float | None] = {}
    for library in libraries(options.lib):
        for family, counts in (("declared", DIMS), ("unbacked", UNBACKED)):
            for count in counts:
                if library.name == "stillframe":
                    seconds: float | None = measure(library, family, count)
                else:
                    seconds = measure_apart(library, family, count, options.limit)
                times[library.name, family, count] = seconds
                report.rows.append(
                    {"library": library.name, "family": family, "count": count, "seconds": seconds}
                )
    names = list(dict.fromkeys(name for name, _, _ in times))
    print_table(
        "seconds of one export",
        ("symbols", *names),
        [
            (f"{family} {count}", *(_text(times.get((n, family, count)), options) for n in names))
            for family, counts in (("declared", DIMS), ("unbacked", UNBACKED))
            for count in counts
        ],
    )
    ours = {key[1:]: seconds for key, seconds in times.items() if key[0] == "stillframe"}
    if ours:
        report.targets = [
            Target(
                "200 declared dims over 50, relative to 4",
                (ours["declared", 200] or 0) / (ours["declared", 50] or 1) / 4,
                "<=",
                1.5,
            ),
            Target("seconds with 100 unbacked symbols", ours["unbacked", 100], "<=", 1.0),
        ]
    theirs = times.get(("torch", "declared", 50))
    if ours and theirs:
        report.figures["50 declared dims: torch over stillframe"] = theirs / (
            ours["declared", 50] or 1
        )
    return report.finish(options)


def _text(seconds: float | None, options: Any) -> str:
    return f"stopped after {options.limit:g}" if seconds is None else f"{seconds:.3f}"


if __name__ == "__main__":
    sys.exit(main())
