"""Peak memory of an export over the model's own, stillframe beside torch.export.

    python benchmarks/bench_memory.py [--check] [--json out.json] [--lib torch]

Each figure comes from a process of its own: it imports one library, exports a small warm-up module
with dynamic and with fixed shapes (so that lazy imports and tables filled once count for neither
library), builds the model, runs it once, and collects garbage. Resident memory at that point is
the baseline; the peak of resident memory during the export, minus the baseline, is the figure. It
includes the exported program.

Memory that imports and the warm-up freed but the process kept would hide a part of the export's,
and more of it for the library that left more behind. So Python's objects go through malloc
(PYTHONMALLOC=malloc, both libraries), freed heap is given back at the baseline (malloc_trim), and
the kernel's high-water mark is reset there (/proc/self/clear_refs). Where the system has none of
this, ru_maxrss before and after stands in. tracemalloc is not used: it would be the peak.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import (
    LIBRARY_NAMES,
    Report,
    Target,
    geometric_mean,
    libraries,
    one_thread,
    parser,
    print_table,
)
from models import SUBJECTS

SHARE = 1 / 3
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


# --- in the measured process ---------------------------------------------------------------------


def _status_kib(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def _maxrss_kib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes there, KiB elsewhere


def _trim() -> None:
    """Give freed heap back to the system, so that what the export reuses of it is counted."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def start_peak() -> Callable[[], int]:
    """Begin a measurement; the result, when called, gives KiB of peak growth since then."""
    try:
        _CLEAR.write_text("5")  # proc(5): resets the resident high-water mark
        baseline = _status_kib("VmRSS")
    except (OSError, KeyError):
        baseline = _maxrss_kib()
        return lambda: _maxrss_kib() - baseline
    return lambda: _status_kib("VmHWM") - baseline


def measure_here(library_name: str, model_name: str) -> dict[str, int]:
    """Export once in this process and report KiB; the process is good for nothing afterwards."""
    one_thread()
    (library,) = libraries(library_name)
    model = SUBJECTS[model_name]()
    module, (args, kwargs) = model.build(), model.example()
    module(*args, **kwargs)
    own = sum(t.nbytes for t in module.state_dict().values())
    gc.collect()
    _trim()
    peak = start_peak()
    program = library.capture(module, model, (args, kwargs), dynamic=True)
    grown = peak()
    del program
    return {"peak_kib": grown, "model_kib": own // 1024}


# --- in the parent -------------------------------------------------------------------------------


def measure(library: str, model: str, repeats: int) -> dict[str, float]:
    """The median of ``repeats`` fresh processes.

    Raises:
        RuntimeError: the process failed; the text is the end of what it said.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--one", library, model]
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    figures = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
        figures.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(f[key] for f in figures) for key in figures[0]}


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--repeats", type=int, default=3, help="processes per figure")
    p.add_argument("--models", default="", help="only these, with commas")
    p.add_argument("--one", nargs=2, metavar=("LIB", "MODEL"), help="measure in this process")
    options = p.parse_args()
    if options.one:
        print(json.dumps(measure_here(*options.one)))
        return 0
    names = LIBRARY_NAMES if options.lib == "both" else (options.lib,)
    report, lines = Report("memory"), []
    for model in [m for m in options.models.split(",") if m] or list(SUBJECTS):
        row: dict[str, Any] = {"model": model}
        peaks: dict[str, float] = {}
        for library in names:
            try:
                figures = measure(library, model, options.repeats)
            except RuntimeError as error:
                row[f"{library}_error"] = str(error)
                print(f"  {library} on {model}: {error}", file=sys.stderr)
                continue
            peaks[library] = max(figures["peak_kib"], 1.0)
            row |= {f"{library}_peak_kib": peaks[library], "model_kib": figures["model_kib"]}
        ratio = peaks["stillframe"] / peaks["torch"] if len(peaks) == 2 else None
        row["ratio"] = ratio
        report.rows.append(row)
        report.targets.append(
            Target(f"peak memory, stillframe over torch.export, {model}", ratio, "<=", SHARE)
        )
        cells = [f"{peaks[n] / 1024:.1f}" if n in peaks else "failed" for n in names]
        lines.append([model, *cells, "-" if ratio is None else f"{ratio:.2f}"])
    print_table(
        "peak memory of an export over the model's own, MiB",
        ["model", *names, "ratio"],
        lines,
    )
    ratios = [row["ratio"] for row in report.rows if row["ratio"] is not None]
    if ratios:
        mean = geometric_mean(ratios)
        report.figures["peak memory, stillframe over torch.export, mean"] = mean
        print(f"  geometric mean of the ratios: {mean:.2f}")
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
