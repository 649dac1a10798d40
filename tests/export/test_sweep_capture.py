"""A sample of torch's operators through capture; the whole table is tests.export.sweep_capture."""

from __future__ import annotations

import time

import torch
from tests.export import sweep_capture as sweep
from tests.trace.sweep_make_fx import name_of, read_expectations, surprises

#: Prime, so that neighbouring variants of one operator are rarely both in the sample.
STEP = 29
SECONDS = 20.0


def test_sampled_operators() -> None:
    """As many operators of the sample as there is time for, in all modes."""
    start, outcomes = time.monotonic(), []
    for index in range(3, len(sweep.op_db), STEP):
        if time.monotonic() - start > SECONDS:
            break
        if torch.float32 in sweep.op_db[index].dtypes:
            outcomes += [sweep.run_one(index, mode, "float32", 2) for mode in sweep.MODES]
    assert len(outcomes) > 3
    assert surprises(outcomes, "float32", sweep.EXPECTATIONS) == []


def test_expected_refusals() -> None:
    for name in ("narrow", "cross"):
        index = next(i for i, info in enumerate(sweep.op_db) if info.name == name)
        outcome = sweep.run_one(index, "open", "float32", 2)
        assert outcome.worst == "refused"
        assert surprises([outcome], "float32", sweep.EXPECTATIONS) == []


def test_random_operators_draw_what_eager_draws() -> None:
    names = ("bernoulli", "normal", "nn.functional.dropout", "rand_like")
    for index, info in enumerate(sweep.op_db):
        if info.name in names:
            assert sweep.run_one(index, "torch", "float32", 2).worst == "ok", info.name


def test_expectations_name_real_operators() -> None:
    names = {name_of(info) for info in sweep.op_db}
    for op, mode, _ in read_expectations(sweep.EXPECTATIONS):
        assert op in names and mode in sweep.MODES, (op, mode)
