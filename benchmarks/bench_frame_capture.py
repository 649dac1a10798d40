"""Capturing a frame with guards, beside ``torch.compile(backend="eager", fullgraph=True)``.

    python benchmarks/bench_frame_capture.py [--check] [--json out.json] [--lib torch]

Three costs, in one process: the first capture of a model (static sizes; for torch the first call
less a second one, its caches empty before), the check of all guards with what is around it (a call
less the eager call, on chains of small Linear), and the number of guards. Results are compared with
eager before anything is timed.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree
from common import (
    LIBRARY_NAMES,
    TOLERANCE,
    Report,
    Target,
    geometric_mean,
    interleaved,
    one_thread,
    parser,
    print_table,
    timed,
)
from models import SUBJECTS, Inputs, chain

from stillframe.variables import capture_frame

MEAN_SPEEDUP = 3.0
CHAINS = (1, 16)


def captured(module: Any, inputs: Inputs) -> Callable[..., Any]:
    """The module's frame, captured by stillframe."""
    return capture_frame(module, *inputs)


def compiled(module: Any, inputs: Inputs) -> Callable[..., Any]:
    """The module compiled by torch with a backend that does nothing, and called once."""
    import torch._dynamo

    torch._dynamo.reset()
    made = torch.compile(module, backend="eager", fullgraph=True, dynamic=False)
    made(*inputs[0], **inputs[1])
    return made


MAKERS = {"torch": compiled, "stillframe": captured}


def check(run: Callable[..., Any], module: Any, inputs: Inputs, label: str) -> None:
    """The first result equals eager's.

    Raises:
        AssertionError: it does not; names the library and the model.
    """
    args, kwargs = inputs
    ours, theirs = (pytree.tree_leaves(f(*args, **kwargs)) for f in (run, module))
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            got, want, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{label}: {text}"
        )


def first_captures(names: list[str], models: list[str], rounds: int) -> list[dict[str, Any]]:
    """Seconds of a capture by each library, medians, and torch's over ours."""
    rows = []
    for model in models:
        subject = SUBJECTS[model]()
        module, inputs = subject.build(), subject.example()
        row: dict[str, Any] = {"model": model}
        for name in names:
            run = MAKERS[name](module, inputs)
            check(run, module, inputs, f"{name} on {model}")
            if name == "stillframe":
                row["guards"] = len(run.guards)  # type: ignore[attr-defined]
        eager = statistics.median(timed(partial(module, *inputs[0], **inputs[1])) for _ in range(3))
        calls = {name: partial(MAKERS[name], module, inputs) for name in names}
        samples = interleaved(calls, rounds)
        for name, values in samples.items():
            run_too = eager if name == "torch" else 0.0  # torch captures in its first call
            row[name] = statistics.median(values) - run_too
        if len(names) == 2:
            row["ratio"] = row["torch"] / row["stillframe"]
        rows.append(row)
    return rows


def calls_of(names: list[str], length: int, rounds: int) -> dict[str, Any]:
    """Seconds that a call takes beyond the eager one, medians."""
    subject = chain(length)
    module, (args, kwargs) = subject.build(), subject.example()
    runs = {"eager": module} | {n: MAKERS[n](module, (args, kwargs)) for n in names}

    def many(run: Callable[..., Any]) -> None:
        for _ in range(50):
            run(*args, **kwargs)

    for run in runs.values():
        many(run)
    gc.collect()
    samples = interleaved({n: partial(many, r) for n, r in runs.items()}, rounds, gc_enabled=False)
    medians = {name: statistics.median(values) / 50 for name, values in samples.items()}
    row: dict[str, Any] = {"model": subject.name, "eager": medians["eager"]}
    return row | {name: medians[name] / medians["eager"] for name in names}


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5, help="timed captures of each, in turn")
    p.add_argument("--models", default="", help="only these, with commas")
    options = p.parse_args()
    one_thread()
    names = list(LIBRARY_NAMES if options.lib == "both" else (options.lib,))
    models = [name for name in options.models.split(",") if name] or list(SUBJECTS)
    with torch.no_grad():
        rows = first_captures(names, models, options.rounds)
        calls = [calls_of(names, length, 4 * options.rounds) for length in CHAINS]
    header = ["model", *(f"{n} ms" for n in names), "ratio", "guards"]
    lines = [
        [row["model"], *(f"{row[n] * 1e3:.1f}" for n in names)]
        + [f"{row['ratio']:.1f}x" if "ratio" in row else "-", str(row.get("guards", "-"))]
        for row in rows
    ]
    print_table("first capture of a frame, static sizes", header, lines)
    lines = [[row["model"], *(f"{row[n]:.2f}" for n in names)] for row in calls]
    print_table("a call over the eager call", ["model", *names], lines)
    report = Report("frame_capture", rows + calls)
    if len(names) == 2:
        mean = geometric_mean([row["ratio"] for row in rows])
        name = "frame capture, speed-up over torch.compile's, geometric mean"
        report.targets.append(Target(name, mean, ">=", MEAN_SPEEDUP))
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
