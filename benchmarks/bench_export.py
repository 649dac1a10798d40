"""Export time, stillframe beside torch.export.export(strict=False), in one process.

    python benchmarks/bench_export.py [--check] [--json out.json] [--lib torch]

Per model: both libraries export it, the programs are checked against eager at sizes that were not
exported, and only then the exports are timed, in turn, with everything warm. "first" is the first
export of that model in the process (the library itself warm): what a build that exports once
sees. Growth: the same BERT with 12, 48 and 96 layers, and one program with 1 to 16 dynamic dims.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from common import (
    Library,
    Report,
    Target,
    check,
    geometric_mean,
    interleaved,
    libraries,
    one_thread,
    parser,
    print_table,
    timed,
)
from models import SUBJECTS, Model, bert, many_dims

MEAN_SPEEDUP = 10.0
LEAST_SPEEDUP = 5.0
DEPTHS = (12, 48, 96)
DEPTH_GROWTH = 9.0
DIMS = (1, 4, 16)

Row = dict[str, Any]


def measure(
    found: list[Library],
    model: Model,
    *,
    dynamic: bool,
    rounds: int,
    gc_enabled: bool,
    sample: Callable[[Callable[[], object]], float] = timed,
) -> Row:
    """Check and time one model; the row holds seconds per library and, with both, the ratios.

    A library that cannot export the model, or exports it wrongly, is named in ``row["errors"]``
    and not timed.
    """
    module, example = model.build(), model.example()
    runs = [example, *model.others()] if dynamic else [example]
    module(*example[0], **example[1])  # the model's own first-call work is nobody's export time
    row: Row = {"model": model.name, "dynamic": dynamic}
    calls: dict[str, Callable[[], object]] = {}
    for library in found:
        capture = partial(library.capture, module, model, example, dynamic=dynamic)
        try:
            first = sample(capture)
            check(capture(), module, runs, f"{library.name} on {model.name}")
        except Exception as error:  # whatever a library raises: report it, measure the rest
            problem = f"{library.name} on {model.name}: {type(error).__name__}: {error}"
            print(f"  FAILED {problem}", file=sys.stderr)
            row.setdefault("errors", []).append(problem)
            continue
        row[f"{library.name}_first_s"] = first
        calls[library.name] = capture
    samples = interleaved(calls, rounds, gc_enabled=gc_enabled, sample=sample)
    for name, values in samples.items():
        row[f"{name}_s"] = statistics.median(values)
    if len(samples) == 2:
        row["ratio"] = row["torch_s"] / row["stillframe_s"]
        row["ratio_first"] = row["torch_first_s"] / row["stillframe_first_s"]
        each = [t / s for t, s in zip(samples["torch"], samples["stillframe"], strict=True)]
        row["ratio_least"], row["ratio_most"] = min(each), max(each)
    return row


def show(title: str, found: list[Library], rows: list[Row]) -> None:
    """One line per row; the ratio columns only with both libraries."""
    names = [library.name for library in found]
    ratios = ("ratio", "ratio_least", "ratio_most", "ratio_first") if len(found) == 2 else ()
    header = ["model", *(f"{name} ms" for name in names)]
    header += ["ratio", "rounds from", "to", "first"] if ratios else ["first ms"]
    lines = []
    for row in rows:
        line = [row["model"], *(cell(row, f"{name}_s", 1e3) for name in names)]
        line += [cell(row, key, 1, "x") for key in ratios]
        if not ratios:
            line.append(cell(row, f"{names[0]}_first_s", 1e3))
        lines.append(line)
    print_table(title, header, lines)


def cell(row: Row, key: str, scale: float, unit: str = "") -> str:
    """A figure with one decimal, or a dash where it was not measured."""
    return f"{row[key] * scale:.1f}{unit}" if key in row else "-"


def growth(rows: list[Row], library: str) -> float | None:
    """The last row's time over the first's; None when that library was not measured."""
    key = f"{library}_s"
    if key not in rows[0] or key not in rows[-1]:
        return None
    return float(rows[-1][key] / rows[0][key])


def mean_of(rows: list[Row], key: str) -> float | None:
    """The geometric mean of a ratio, or None unless every row has it: a mean over the models that
    happen to work would flatter."""
    return geometric_mean([row[key] for row in rows]) if all(key in row for row in rows) else None


@dataclass
class Session:
    """The options of one run and what it has found so far."""

    found: list[Library]
    rounds: int
    gc_enabled: bool
    report: Report = field(default_factory=lambda: Report("export"))

    def run(
        self, kind: str, subjects: list[Model], by: list[Library], *, dynamic: bool = True
    ) -> list[Row]:
        """Measure every subject and keep the rows under ``kind``."""
        rows = [
            measure(by, model, dynamic=dynamic, rounds=self.rounds, gc_enabled=self.gc_enabled)
            for model in subjects
        ]
        self.report.rows += [{"kind": kind, **row} for row in rows]
        return rows

    def note(self, name: str, value: float | None) -> None:
        """Keep a ratio without a bound for the table of everything."""
        if value is not None:
            self.report.figures[name] = value

    def speed(self, subjects: list[Model]) -> None:
        """Dynamic shapes: the figures with targets."""
        rows = self.run("dynamic", subjects, self.found)
        show("export, dynamic shapes", self.found, rows)
        mean, prefix = mean_of(rows, "ratio"), "speed-up over torch.export"
        targets = self.report.targets
        targets.append(Target(f"{prefix}, geometric mean", mean, ">=", MEAN_SPEEDUP))
        for row in rows:
            name, ratio = f"{prefix}, {row['model']}", row.get("ratio")
            targets.append(Target(name, ratio, ">=", LEAST_SPEEDUP))
        self.note(f"{prefix}, first export of each model, mean", mean_of(rows, "ratio_first"))

    def static(self, subjects: list[Model]) -> None:
        """Fixed sizes."""
        rows = self.run("static", subjects, self.found, dynamic=False)
        show("export, static shapes", self.found, rows)
        self.note("speed-up over torch.export, static shapes, mean", mean_of(rows, "ratio"))

    def depth(self, *, with_torch: bool) -> None:
        """The same BERT, deeper."""
        by = [lib for lib in self.found if lib.name != "torch" or with_torch]
        if not by:
            return
        rows = self.run("depth", [bert(layers) for layers in DEPTHS], by)
        show("growth with depth (BERT layers)", by, rows)
        prefix = f"export time, {DEPTHS[-1]} layers over {DEPTHS[0]}"
        ours = growth(rows, "stillframe")
        self.report.targets.append(Target(f"{prefix}, stillframe", ours, "<=", DEPTH_GROWTH))
        self.note(f"{prefix}, torch", growth(rows, "torch"))

    def dims(self) -> None:
        """The same program with more of its sizes dynamic."""
        rows = self.run("dims", [many_dims(count) for count in DIMS], self.found)
        show("growth with the number of dynamic dims (of 16 inputs)", self.found, rows)
        for library in self.found:
            name = f"export time, {DIMS[-1]} dynamic dims over {DIMS[0]}, {library.name}"
            self.note(name, growth(rows, library.name))


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=7, help="timed exports of each, in turn")
    p.add_argument("--models", default="", help="only these, with commas")
    p.add_argument("--no-static", action="store_true", help="leave out the fixed-size exports")
    p.add_argument("--no-growth", action="store_true", help="leave out the growth curves")
    p.add_argument("--torch-growth", action="store_true", help="torch in the depth curve (slow)")
    p.add_argument("--gc", choices=("on", "off"), default="on", help="collector while timing")
    options = p.parse_args()
    one_thread()
    session = Session(libraries(options.lib), options.rounds, options.gc == "on")
    names = [name for name in options.models.split(",") if name] or list(SUBJECTS)
    subjects = [SUBJECTS[name]() for name in names]
    session.speed(subjects)
    if not options.no_static:
        session.static(subjects)
    if not options.no_growth:
        session.depth(with_torch=options.torch_growth)
        session.dims()
    for name, value in session.report.figures.items():
        print(f"  {name}: {value:.2f}x")
    return session.report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
