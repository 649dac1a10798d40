"""A sample of the sweep over torch's modules; all: ``python -m tests.trace.sweep_modules``."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
import torch
from tests.trace import sweep_modules as sweep
from torch import nn
from torch.testing._internal.common_modules import module_db

SECONDS = 20  # no task begins later; how many are done by then is not checked


def options(*arguments: str) -> list[sweep.Task]:
    return sweep.tasks(sweep.parser().parse_args(arguments))


@pytest.mark.parametrize("first", (0, 6))
def test_captures_agree_with_eager(first: int) -> None:
    """Every twelfth module, beginning with the ``first`` one, in all phases and modes."""
    start, outcomes = time.monotonic(), []
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            for task in options("--samples=2", "--every=12", f"--first={first}"):
                if time.monotonic() - start < SECONDS:
                    outcomes.append(sweep.run_one(task))
    finally:
        torch.set_num_threads(threads)
    assert outcomes and not sweep.surprises(outcomes)


def test_expectations_name_modules() -> None:
    names = {info.name for info in module_db}
    for module, phase, mode in sweep.read_expectations():
        assert module in names and phase in sweep.PHASES and mode in sweep.MODES


def test_expectations_need_reasons(tmp_path: Path) -> None:
    path = tmp_path / "expectations.txt"
    path.write_text("nn.ReLU * real refused\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"no reason given for nn\.ReLU"):
        sweep.read_expectations(path)
    path.write_text("nn.ReLU * real refused not yet  # because\n", encoding="utf-8")
    assert sweep.read_expectations(path) == {
        ("nn.ReLU", phase, "real"): ("refused", "not yet") for phase in sweep.PHASES
    }


def test_what_was_not_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ("nn.ReLU", "train", "real")
    monkeypatch.setattr(sweep, "read_expectations", lambda: {key: ("refused", "not yet")})

    def surprise(*found: tuple[str, str], complete: bool = True) -> list[str]:
        return sweep.surprises([sweep.Outcome(key, "stillframe", complete, list(found))])

    assert surprise(("ok", ""), ("refused", "f: not yet")) == []
    assert surprise(("ok", "")) == ["nn.ReLU train real is ok, expected refused"]
    assert surprise(("ok", ""), complete=False) == []
    other = ("refused", "f: never"), ("wrong", "f: not yet")
    assert surprise(*other) == ["nn.ReLU train real refused: f: never"]
    assert surprise(*other[1:]) == ["nn.ReLU train real wrong: f: not yet"]


class Doubled(nn.Module):
    """Doubles, in evaluation; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x * 2 if not self.training else x * 3


class Captured(sweep.Capture):
    """A capture that gives what it is told to give."""

    gradients = False

    def __init__(self, factor: float, count: float) -> None:
        self.factor = factor
        self.count = count

    def run(self, call: sweep.Call) -> sweep.Result:
        value = call.tensors[0] * self.factor
        return sweep.Result(value, {"count": torch.tensor(float(self.count))}, {})


@pytest.mark.parametrize(
    ("factor", "count", "says"),
    ((2, 1, ""), (3, 1, "result 0"), (2, 0, "buffers: count")),
)
def test_differences_are_found(factor: float, count: float, says: str) -> None:
    call = sweep.Call.of((torch.ones(3),), {})
    sample = sweep.Sample(Doubled().eval(), call, "eval", "")
    outcome = sweep.Outcome(("Doubled", "eval", "real"), "stillframe")
    problem = sweep.difference(outcome, Captured(factor, count), sample, call)
    assert says in problem and bool(problem) == bool(says)


def test_other_sizes() -> None:
    call = sweep.Call.of((torch.ones(2, 3), torch.arange(3)), {"n": 2})
    shapes = [[tuple(t.shape) for t in other.tensors] for other in call.other_sizes()]
    assert [(2, 4), (4,)] in shapes and [(3, 3), (3,)] in shapes and [(4, 5), (5,)] in shapes
    assert all(other.tensors[1].max() < 3 for other in call.other_sizes())
