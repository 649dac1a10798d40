"""Saving and loading, stillframe beside torch.export: a gigabyte of weights, and a long graph.

    python benchmarks/bench_artifact.py [--check] [--json out.json] [--gigabytes 1] [--rounds 3]

"weights" is a chain of large bfloat16 layers that comes to --gigabytes: save and load are then
about bytes. "graph" is a 12-layer BERT: about nodes. The libraries take turns; figures are ratios
of medians. "first use" is load and the whole way to a module whose weights are verified (ours) or
read (torch, where load has read them). Files are in a scratch folder that is removed.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Report, Target, interleaved, libraries, one_thread, parser, print_table, timed
from models import bert
from torch import nn

STEPS = ("save", "load", "first use")
WIDTH = 4096
SETTLE_SECONDS = 2.0


def weights_module(gigabytes: float) -> nn.Module:
    """Square bfloat16 layers that hold about that much."""
    layers = max(1, round(gigabytes * 2**30 / (WIDTH * WIDTH * 2)))
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    return module.to(torch.bfloat16).to_empty(device="cpu").apply(_fill).eval()


def _fill(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.normal_(parameter)


def programs(name: str, gigabytes: float, found: list[Any]) -> dict[str, Any]:
    """The exported program of each library."""
    if name == "weights":
        module = weights_module(gigabytes)
        example = (torch.ones(1, WIDTH, dtype=torch.bfloat16),)
        return {lib.name: lib.export(module, example, {}, None) for lib in found}
    model = bert()
    module = model.build()
    return {lib.name: lib.capture(module, model, model.example(), dynamic=True) for lib in found}


def _steps(library: str, program: Any, path: Path) -> dict[str, Callable[[], object]]:
    import torch.export

    import stillframe

    package: Any = stillframe if library == "stillframe" else torch.export
    return {
        "save": lambda: package.save(program, str(path)),
        "load": lambda: package.load(str(path)),
        "first use": lambda: package.load(str(path)).module(),
    }


def measure(name: str, options: Any, found: list[Any], scratch: Path) -> dict[str, Any]:
    """Median seconds of every step by library, for one subject."""
    medians: dict[str, dict[str, float]] = {}
    steps = {
        library: _steps(
            library, program, scratch / (name + (".still" if library == "stillframe" else ".pt2"))
        )
        for library, program in programs(name, options.gigabytes, found).items()
    }
    for step in STEPS:
        calls = {library: own[step] for library, own in steps.items()}
        for call in calls.values():
            call()
        gc.collect()
        sample = _on_a_quiet_disk if step == "save" else timed
        samples = interleaved(calls, options.rounds, sample=sample)
        medians[step] = {library: statistics.median(v) for library, v in samples.items()}
    return {"subject": name, "seconds": medians}


def _on_a_quiet_disk(call: Callable[[], object]) -> float:
    """Seconds of a call that starts when the disk is done with what the call before left to it."""
    os.sync()
    time.sleep(SETTLE_SECONDS)
    return timed(call)


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--gigabytes", type=float, default=1.0, help="size of the large module")
    p.add_argument("--rounds", type=int, default=5, help="samples of each step")
    options = p.parse_args()
    one_thread()
    found = libraries(options.lib)
    report, lines = Report("artifact"), []
    bounds = {("weights", "save"): 0.5, ("weights", "load"): 0.1}
    scratch = Path(tempfile.mkdtemp(prefix="stillframe-bench-"))
    try:
        for name in ("weights", "graph"):
            row = measure(name, options, found, scratch)
            report.rows.append(row)
            for step, seconds in row["seconds"].items():
                ours, theirs = seconds.get("stillframe"), seconds.get("torch")
                ratio = ours / theirs if ours is not None and theirs is not None else None
                label = f"{step} time, stillframe over torch, {name}"
                if (name, step) in bounds:
                    report.targets.append(Target(label, ratio, "<=", bounds[name, step]))
                elif ratio is not None:
                    report.figures[label] = ratio
                lines.append(
                    [f"{name}: {step}"]
                    + ["-" if v is None else f"{v * 1e3:.1f}" for v in (ours, theirs)]
                    + ["-" if ratio is None else f"{ratio:.3f}"]
                )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print_table("saving and loading, ms", ["step", "stillframe", "torch", "ratio"], lines)
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
