"""What only torch's Python functions show: assignments to ``tensor.data``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

both_modes = pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])


class Converting(nn.Module):
    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))
        self.run = run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def to_the_same_dtype(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.part = self.part.to(torch.float32)
    return self.part(x)  # type: ignore[no-any-return]


def to_the_same_device(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.to("cpu").part(x) * self.scale  # type: ignore[no-any-return]


def its_own_data(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.part.weight.data = self.part.weight.detach()
    y = x * 2
    y.data = y.data
    return self.part(y)  # type: ignore[no-any-return]


def to_another_dtype(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.part = self.part.to(torch.float64)
    return self.part(x.double())  # type: ignore[no-any-return]


def a_copy(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.part.weight.data = self.part.weight.detach().clone()
    return self.part(x)  # type: ignore[no-any-return]


def a_view(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.part.weight.data = self.part.weight.detach().t()
    return self.part(x)  # type: ignore[no-any-return]


def of_an_input(self: Any, x: torch.Tensor) -> torch.Tensor:
    x.data = x.data * 2
    return self.part(x)  # type: ignore[no-any-return]


def of_a_result(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    seen = y.view(-1)
    y.data = x + 1
    return self.part(y) + seen.sum()  # type: ignore[no-any-return]


@both_modes
@pytest.mark.parametrize("run", [to_the_same_dtype, to_the_same_device, its_own_data])
def test_memory_that_stays_what_it_is(run: Any, strict: bool) -> None:
    module = Converting(run)
    program = sf.export(module, (torch.ones(3, 2),), strict=strict)
    x = torch.rand(3, 2)
    torch.testing.assert_close(program.module()(x), module(x))


@both_modes
@pytest.mark.parametrize("run", [to_another_dtype, a_copy, a_view, of_an_input, of_a_result])
def test_other_memory_is_refused(run: Any, strict: bool) -> None:
    module = Converting(run)
    with pytest.raises(sf.NotSupported, match=r"tensor\.data"):
        sf.export(module, (torch.ones(3, 2),), strict=strict)
    assert module.part.weight.dtype is torch.float32
