"""What a call costs: eager beside ``ep.module()``, on a 12-layer BERT and chains of Linear.

    python benchmarks/bench_call.py [--check] [--json out.json] [--lib torch]

Under ``torch.no_grad()``, one thread, the collector off (as timeit does, for all alike). Each
sample is a run of calls of some milliseconds; the callables take turns; a ratio is the median over
rounds of (callable / eager) within the round. "eager again" is the eager module measured a second
time: its distance from 1 is the noise of the machine. "first of two" and "second of two" are calls
of a program of two graphs that fit the first or the second. ``torch.compile(backend="eager")``
stands beside the chains as the mark to aim at.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import (
    Library,
    Report,
    Target,
    check,
    interleaved,
    libraries,
    one_thread,
    parser,
    print_table,
)
from models import Model, bert, chain

import stillframe

BOUND = 1.0
CHAINS = (1, 16, 64)
SAMPLE_SECONDS = 0.02


def calls_per_sample(call: Callable[[], object]) -> int:
    """How many calls fill a sample (best of five single calls, so one hiccup decides nothing)."""
    best = min(_per_call(call, 1) for _ in range(5))
    return max(1, round(SAMPLE_SECONDS / best))


def _per_call(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def of_two(
    library: Library, program: Any, module: Any, model: Model
) -> dict[str, Callable[..., object]]:
    """The program combined with one of another size, so that calls fit the first or the second."""
    other = library.capture(module, model, model.others()[0], dynamic=False)
    combined = {"first of two": (program, other), "second of two": (other, program)}
    return {name: stillframe.combine(*pair).module() for name, pair in combined.items()}


def measure(found: list[Library], model: Model, rounds: int, compiled: bool) -> dict[str, Any]:
    """Seconds per call of every contender (medians) and ratios to eager, by contender name."""
    module, example = model.build(), model.example()
    args, kwargs = example
    runners: dict[str, Callable[..., object]] = {"eager": module, "eager again": module}
    for library in found:
        try:
            program = library.capture(module, model, example, dynamic=True)
            check(program, module, [example, *model.others()], f"{library.name} on {model.name}")
            runners[library.name] = program.module()
            if library.name == "stillframe":
                runners |= of_two(library, program, module, model)
        except Exception as error:  # whatever a library raises: report it, measure the rest
            print(f"  FAILED {library.name} on {model.name}: {error}", file=sys.stderr)
    if compiled:
        runners["compile"] = torch.compile(module, backend="eager")
    calls = {name: partial(run, *args, **kwargs) for name, run in runners.items()}
    for call in calls.values():
        _per_call(call, 20)
    sample = partial(_per_call, count=calls_per_sample(calls["eager"]))
    gc.collect()
    samples = interleaved(calls, rounds, gc_enabled=False, sample=sample)
    eager = samples["eager"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, eager, strict=True))
        for name, values in samples.items()
    }
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {"model": model.name, "seconds": medians, "ratios": ratios}


def main() -> int:
    """Run, print, judge."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=60, help="samples of each callable")
    p.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = p.parse_args()
    one_thread()
    found = libraries(options.lib)
    report, lines = Report("call"), []
    ours = ["first of two", "second of two"] if "stillframe" in {f.name for f in found} else []
    names = ["eager again", *(library.name for library in found), *ours, "compile"]
    with torch.no_grad():
        for model in [bert(), *map(chain, CHAINS)]:
            compiled = model.name.startswith("linear") and not options.no_compile
            row = measure(found, model, options.rounds, compiled)
            report.rows.append(row)
            ratios: dict[str, float] = row["ratios"]
            seconds: dict[str, float] = row["seconds"]
            lines.append(
                [model.name, f"{seconds['eager'] * 1e6:.1f}"]
                + [f"{ratios[name]:.3f}" if name in ratios else "-" for name in names]
            )
            for name in (n for n in ratios if n not in ("eager", "stillframe")):
                report.figures[f"call time, {name} over eager, {model.name}"] = ratios[name]
            ratio = ratios.get("stillframe")
            label = f"call time, stillframe over eager, {model.name}"
            report.targets.append(Target(label, ratio, "<=", BOUND))
    print_table("time of a call over eager's", ["model", "eager us", *names], lines)
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
