"""Which tensor is it: conditions of every call under strict capture, or refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.export.assumptions import Assumption
from stillframe.trace.reads import SAME

X = torch.arange(12.0).view(3, 4)
Y = X + 1


def asks(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * 5 if x is y else x + y


def strictly(function: Any, *args: Any) -> sf.ExportedProgram:
    return sf.export(function, args, strict=True)


def test_one_tensor_twice_is_refused_after_two() -> None:
    module = strictly(asks, X, Y).module()
    assert module(X, Y).equal(X + Y)
    assert module(X, X.clone()).equal(X + X)
    with pytest.raises(sf.CallError, match="x and y are one tensor, and are two tensors") as caught:
        module(X, X)
    assert "x is y" in caught.value.where[-1]


def test_two_tensors_are_refused_after_one_twice() -> None:
    module = strictly(asks, X, X).module()
    assert module(X, X).equal(X * 5)
    with pytest.raises(sf.CallError, match="x and y are two tensors, and are one tensor"):
        module(X, Y)


def test_what_nobody_asks_is_free() -> None:
    program = strictly(lambda x, y: x + y, X, Y)
    assert program.assumptions == ()
    assert program.module()(X, X).equal(X + X)


def test_tensors_as_keys() -> None:
    def counts(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * len({x: 1, y: 2})

    module = strictly(counts, X, Y).module()
    assert module(X, Y).equal(X * 2)
    with pytest.raises(sf.CallError, match="x and y are one tensor"):
        module(X, X)
    with pytest.raises(sf.NotSupported, match="whether the input x is the input y"):
        strictly(counts, X, X)


def test_an_operator_that_hands_its_input_back() -> None:
    module = strictly(lambda x: x * 2 if x.contiguous() is x else x * 3, X).module()
    assert module(X).equal(X * 2)
    with pytest.raises(sf.CallError, match=r"x: stride\(\) is"):
        module(X.view(4, 3).t())


def test_an_input_and_state() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(Y)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x is self.weight else x * 3

    with pytest.raises(sf.NotSupported, match="whether the input x is a parameter"):
        strictly(Net(), X)


def test_the_condition_lasts(tmp_path: Path) -> None:
    program = strictly(asks, X, Y)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert loaded.assumptions == program.assumptions
    for each in (loaded, program.run_decompositions()):
        with pytest.raises(sf.CallError, match="are one tensor"):
            each.module()(X, X)


def test_a_set_of_programs_chooses_by_it() -> None:
    both = sf.combine(strictly(asks, X, Y), strictly(asks, X, X)).module()
    assert both(X, Y).equal(X + Y)
    assert both(X, X).equal(X * 5)


def test_it_is_explained() -> None:
    assert "x is not y" in str(strictly(asks, X, Y).explain())


@pytest.mark.parametrize("value", [("nobody", True), ("y", 1), True])
def test_a_malformed_condition_is_refused(value: Any) -> None:
    program = strictly(asks, X, Y)
    with pytest.raises(sf.SpecViolationError, match="an assumption compares with"):
        program._replaced(assumptions=[Assumption("x", SAME, value)])
