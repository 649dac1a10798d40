"""Functions of torch that a captured frame treats in its own way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from torch import nn

import stillframe as sf
from stillframe.variables import capture_frame

FACTORS = [2.0, 3.0]


def ones() -> tuple[torch.Tensor]:
    return (torch.ones(2, 2),)


def test_a_tensor_of_numbers_is_a_constant_that_nobody_changes() -> None:
    def grow(x: torch.Tensor) -> Any:
        step = torch.tensor([1.0, 2.0])
        step += x[0]
        return step, torch.tensor(FACTORS) * x, torch.tensor(3)

    capture = agrees(grow, ones, ones)
    assert "CONSTANT_MATCH G['FACTORS'][1]" in guards_of(capture)
    FACTORS[1] = 4.0
    try:
        assert "FACTORS" in refuses(capture, *ones())
    finally:
        FACTORS[1] = 3.0


def test_a_tensor_over_an_array_is_that_of_each_call() -> None:
    kept = torch.ones(2).numpy()

    def over(x: torch.Tensor) -> Any:
        return x + torch.as_tensor(kept)

    capture = capture_frame(over, ones())
    kept[0] = 5
    assert capture(*ones()).tolist() == over(*ones()).tolist()


def test_a_parameter_made_in_a_frame_is_one_and_learns() -> None:
    def make(x: torch.Tensor) -> Any:
        weight = nn.Parameter(x * 2)
        fixed = nn.Parameter(x, requires_grad=False)
        with torch.no_grad():
            nn.init.constant_(weight, 3.0)
        return weight, weight * fixed, isinstance(weight, nn.Parameter)

    capture = agrees(make, ones)
    weight, result, _ = capture(*ones())
    result.sum().backward()
    assert type(weight) is nn.Parameter
    torch.testing.assert_close(weight.grad, torch.ones(2, 2))


def test_calls_that_no_graph_holds_are_refused() -> None:
    with pytest.raises(sf.FrameError, match="attribute backward of a tensor"):
        capture_frame(lambda x: x.sum().backward(), ones())
    with pytest.raises(sf.FrameError, match="calls backward"):
        capture_frame(lambda x: torch.autograd.backward(x.sum()), ones())
    with pytest.raises(sf.FrameError, match="id of a tensor"):
        capture_frame(lambda x: copy.deepcopy(x), ones())
