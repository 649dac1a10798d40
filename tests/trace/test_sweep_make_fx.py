"""A sample of torch's operators through make_fx; the whole table is tests.trace.sweep_make_fx."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.trace import sweep_make_fx as sweep

#: Prime, so that neighbouring variants of one operator are rarely both in the sample.
STEP = 23
SECONDS = 25.0


def test_sampled_operators() -> None:
    """As many operators of the sample as there is time for, each in the three modes."""
    start, outcomes = time.monotonic(), []
    for index in range(5, len(sweep.op_db), STEP):
        if time.monotonic() - start > SECONDS:
            break
        if sweep.torch.float32 in sweep.op_db[index].dtypes:
            for mode in sweep.MODES:
                outcomes.append(sweep.run_one((index, mode, "float32", 2, "stillframe")))
    assert len(outcomes) > 3
    assert sweep.surprises(outcomes, "float32") == []


@pytest.mark.parametrize("mode", sweep.MODES)
@pytest.mark.parametrize("name", ["equal", "item"])
def test_data_dependent_operators(name: str, mode: str) -> None:
    index = next(i for i, info in enumerate(sweep.op_db) if info.name == name)
    outcome = sweep.run_one((index, mode, "float32", 2, "stillframe"))
    assert outcome.worst == ("ok" if name == "item" and mode != "real" else "data")
    assert sweep.surprises([outcome], "float32") == []


def test_expectations_name_real_operators() -> None:
    names = {sweep.name_of(info) for info in sweep.op_db}
    for op, mode, dtype in sweep.read_expectations():
        assert op in names and mode in sweep.MODES, (op, mode)
        assert not dtype or hasattr(sweep.torch, dtype)


def test_an_entry_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "expectations.txt"
    path.write_text("equal real data\n")
    with pytest.raises(ValueError, match="no reason given for equal real"):
        sweep.read_expectations(path)


def test_an_entry_that_passes_is_a_surprise() -> None:
    outcome = sweep.Outcome("equal", "real")
    outcome.add("ok")
    assert "expected data" in sweep.surprises([outcome], "float32")[0]
