"""Strict export time, stillframe beside torch.export.export(strict=True), in one process.

    python benchmarks/bench_strict.py [--check] [--json out.json] [--lib torch]

Both run the module's Python instruction by instruction. Programs are checked against eager at sizes
that were not exported before anything is timed, with dynamic shapes throughout; torch starts each
export with an empty cache of its own. The last column is the cost of stillframe's strict mode over
its non-strict one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench_export import Row, cell, mean_of, measure
from common import (
    Library,
    Report,
    Target,
    geometric_mean,
    libraries,
    one_thread,
    parser,
    print_table,
    timed,
)
from models import SUBJECTS, Model

MEAN_SPEEDUP = 8.0


def strict(library: Library) -> Library:
    """The same library, exporting strictly."""
    export = _torch if library.name == "torch" else _stillframe
    return replace(library, export=export)


def _torch(module: Any, args: Any, kwargs: Any, shapes: Any) -> Any:
    import torch.export

    return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=True)


def _stillframe(module: Any, args: Any, kwargs: Any, shapes: Any) -> Any:
    import stillframe

    return stillframe.export(module, args, kwargs, dynamic_shapes=shapes, strict=True)


def timed_afresh(call: Callable[[], object]) -> float:
    """Seconds of a call, torch's caches of captured code empty before the clock starts."""
    import torch._dynamo

    torch._dynamo.reset()
    return timed(call)


def row_of(found: list[Library], model: Model, *, rounds: int, gc_enabled: bool) -> Row:
    """Both libraries strictly, then stillframe without: ``row["strictness"]`` is the ratio."""
    by = [strict(library) for library in found]
    row = measure(
        by, model, dynamic=True, rounds=rounds, gc_enabled=gc_enabled, sample=timed_afresh
    )
    ours = [library for library in found if library.name == "stillframe"]
    if ours and "stillframe_s" in row:
        plain = measure(ours, model, dynamic=True, rounds=rounds, gc_enabled=gc_enabled)
        row["strictness"] = row["stillframe_s"] / plain["stillframe_s"]
    return row


def show(found: list[Library], rows: list[Row]) -> None:
    """One line per model."""
    names = [library.name for library in found]
    ratios = ("ratio", "ratio_least", "ratio_most", "ratio_first", "strictness")
    header = ["model", *(f"{n} ms" for n in names)]
    header += ["ratio", "rounds from", "to", "first", "over non-strict"]
    lines = [
        [row["model"], *(cell(row, f"{n}_s", 1e3) for n in names)]
        + [cell(row, key, 1, "x") for key in ratios]
        for row in rows
    ]
    print_table("strict export, dynamic shapes", header, lines)


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5, help="timed exports of each, in turn")
    p.add_argument("--models", default="", help="only these, with commas")
    p.add_argument("--gc", choices=("on", "off"), default="on", help="collector while timing")
    options = p.parse_args()
    one_thread()
    found = libraries(options.lib)
    names = [name for name in options.models.split(",") if name] or list(SUBJECTS)
    rows = [
        row_of(found, SUBJECTS[name](), rounds=options.rounds, gc_enabled=options.gc == "on")
        for name in names
    ]
    show(found, rows)
    name = "strict export, speed-up over torch.export, geometric mean"
    report = Report("strict", rows)
    report.targets.append(Target(name, mean_of(rows, "ratio"), ">=", MEAN_SPEEDUP))
    if all("strictness" in row for row in rows):
        cost = geometric_mean([row["strictness"] for row in rows])
        report.figures["strict export over non-strict, stillframe"] = cost
        print(f"  strict over non-strict: {cost:.2f}x")
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
