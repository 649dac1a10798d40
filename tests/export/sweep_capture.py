"""Capture torch's own operator samples: ``python -m tests.export.sweep_capture``.

Every operator of ``op_db`` is captured on its samples at the level of torch functions (``torch``)
and of operators (``aten``), with static sizes, and with all sizes left open (``open``). The graph
is called beside eager, the open one also on every other sample that its checks let in.

Outcomes are those of ``tests.trace.sweep_make_fx``; ``capture_expectations.txt`` beside this file
lists what is not ``ok``, with reasons.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tests.trace.sweep_make_fx import (
    METADATA_ONLY,
    SEED,
    Outcome,
    Sample,
    attempt,
    compare,
    name_of,
    op_db,
    surprises,
    with_results,
)

import stillframe as sf

MODES = ("torch", "open", "aten")
EXPECTATIONS = Path(__file__).with_name("capture_expectations.txt")


def check_operator(info: Any, mode: str, dtype: torch.dtype, limit: int) -> Outcome:
    """Capture the samples of one operator and compare the graphs with eager."""
    outcome = Outcome(name_of(info), mode)
    for sample, samples, expected in with_results(outcome, info, dtype, limit):
        check_sample(outcome, sample, samples, expected)
    return outcome


def check_sample(outcome: Outcome, sample: Sample, samples: list[Sample], expected: Any) -> None:
    """Capture one sample; call the graph on it, and on others that it admits."""
    shown = sample.shown
    metadata_only = outcome.op.split(".")[0] in METADATA_ONLY
    graph = attempt(outcome, shown, lambda: captured(sample, outcome.mode))
    if graph is None:
        return
    others = [s for s in samples if s is not sample and s.key == sample.key]
    for run in (sample, *(others if outcome.mode == "open" else ())):
        try:
            torch.manual_seed(SEED)
            want = expected if run is sample else run.call(*run.copies())
        except Exception:
            continue
        try:
            torch.manual_seed(SEED)
            compare(graph(*run.copies()), want, metadata_only)
            outcome.reruns += run is not sample
        except sf.CallError as error:
            if run is sample:
                outcome.add("wrong", f"{shown}: {error.what}")
                return
        except Exception as error:
            at = "" if run is sample else f" at {[tuple(t.shape) for t in run.tensors]}"
            outcome.add("wrong", f"{shown}{at}: {type(error).__name__}: {error}"[:600])
            return
    outcome.add("ok")


@contextlib.contextmanager
def unseeded() -> Iterator[None]:
    """Torch's samples of random operators seed torch in each call, which no program can; not so
    inside: the calls are seeded outside of them."""
    tables = {id(t): t for info in op_db if (t := getattr(info.op, "__globals__", None))}
    seeding = [t for t in tables.values() if "wrapper_set_seed" in t]
    before = [t["wrapper_set_seed"] for t in seeding]
    try:
        for table in seeding:
            table["wrapper_set_seed"] = lambda op, *args, **kwargs: op(*args, **kwargs)
        yield
    finally:
        for table, function in zip(seeding, before, strict=True):
            table["wrapper_set_seed"] = function


def captured(sample: Sample, mode: str) -> torch.fx.GraphModule:
    """The graph of a sample."""
    tensors = sample.copies()
    spec = tuple(sf.Dim.AUTO for _ in tensors) if mode == "open" else None
    return sf.capture(
        lambda *inputs: sample.call(*inputs),
        tuple(tensors),
        dynamic_shapes=(spec,) if spec else None,
        level="aten" if mode == "aten" else "torch",
    )


def run_one(index: int, mode: str, dtype: str, limit: int) -> Outcome:
    """One operator in one mode, by position in ``op_db``."""
    info = op_db[index]
    try:
        with unseeded():
            return check_operator(info, mode, getattr(torch, dtype), limit)
    except Exception as error:
        outcome = Outcome(name_of(info), mode)
        outcome.add("error", f"the samples themselves: {type(error).__name__}: {error}"[:300])
        return outcome


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--ops", default="", help="only these names, with commas")
    p.add_argument("--modes", default=",".join(MODES))
    p.add_argument("--dtype", default="float32")
    p.add_argument("--samples", type=int, default=2, help="samples of each operator")
    p.add_argument("--every", type=int, default=1, help="only every n-th operator")
    options = p.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    wanted = [name for name in options.ops.split(",") if name]
    outcomes = []
    for index, info in list(enumerate(op_db))[:: options.every]:
        if (wanted and info.name not in wanted) or getattr(torch, options.dtype) not in info.dtypes:
            continue
        for mode in options.modes.split(","):
            outcome = run_one(index, mode, options.dtype, options.samples)
            outcomes.append(outcome)
            if outcome.worst != "ok":
                detail = " ".join(outcome.first[outcome.worst].split())
                print(f"{outcome.op} {mode} {outcome.worst}  # {detail}", flush=True)
    for mode in options.modes.split(","):
        here = [o for o in outcomes if o.mode == mode]
        counts = collections.Counter(o.worst for o in here)
        print(f"{mode}: {dict(counts)}, {sum(o.reruns for o in here)} calls at other sizes")
    unexpected = surprises(outcomes, options.dtype, EXPECTATIONS)
    print(f"\n{len(unexpected)} surprises" + "".join(f"\n  {line}" for line in unexpected))
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
