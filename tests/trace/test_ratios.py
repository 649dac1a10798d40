"""Quotients of sizes in float scalars, and what is made of them."""

from __future__ import annotations

import random
from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.trace import ratios

both_modes = pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])


class Padded(nn.Module):
    """Pads on the right to whole strides, with the sums in tensors, as audio codecs do."""

    def __init__(self, kernel: int, stride: int, mode: str = "constant") -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, stride)
        self.register_buffer("kernel", torch.tensor(kernel))
        self.register_buffer("stride", torch.tensor(stride))
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[-1]
        total = self.kernel - self.stride
        frames = torch.ceil((length - self.kernel + total) / self.stride + 1).to(torch.int64) - 1
        extra = frames * self.stride + self.kernel - total - length
        if max(total, extra) >= length:
            return x
        return self.conv(nn.functional.pad(x, (total, extra), self.mode))


def _export(module: nn.Module, strict: bool, **limits: int) -> sf.ExportedProgram:
    spec = {"x": {2: sf.Dim("length", **limits)}}
    return sf.export(module, (torch.rand(1, 1, 24),), dynamic_shapes=spec, strict=strict)


@both_modes
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (5, 3), (7, 1), (10, 5), (3, 7)])
def test_padding_to_whole_strides(kernel: int, stride: int, strict: bool) -> None:
    module = Padded(kernel, stride)
    run = _export(module, strict, min=12, max=400).module()
    for length in [*range(12, 60), 399, 400]:
        x = torch.rand(1, 1, length)
        torch.testing.assert_close(run(x), module(x))


@both_modes
def test_the_module_may_not_change_its_integers(strict: bool) -> None:
    run = _export(Padded(4, 2), strict, min=12, max=400).module()
    with torch.no_grad():
        run.stride.fill_(3)
    with pytest.raises(RuntimeError, match="made for the value 2"):
        run(torch.rand(1, 1, 24))


@both_modes
def test_of_large_numbers_the_ceiling_is_not_known(strict: bool) -> None:
    with pytest.raises(sf.DataDependentError):
        _export(Padded(5, 3), strict, min=12, max=2**24)


def test_what_was_made_of_an_integer_that_was_written_since_is_not_known() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("step", torch.tensor(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            following = self.step + 1
            self.step.add_(1)
            return x * 2 if following > 1 else x

    with pytest.raises(sf.DataDependentError):
        sf.export(M(), (torch.ones(2),))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bool])
def test_a_dtype_that_may_not_hold_the_number(dtype: torch.dtype) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        size = torch.scalar_tensor(x.shape[0], dtype=torch.int64).to(dtype).to(torch.int64)
        return x + 1 if size == 3 else x

    with pytest.raises(sf.DataDependentError):
        sf.export(f, (torch.ones(4),), dynamic_shapes={"x": {0: sf.Dim("n", max=5000)}})


def test_a_dtype_that_holds_the_number() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        size = torch.scalar_tensor(x.shape[0], dtype=torch.int64).to(torch.int16)
        return x + 1 if size <= 5000 else x

    program = sf.export(f, (torch.ones(4),), dynamic_shapes={"x": {0: sf.Dim("n", max=5000)}})
    assert program.module()(torch.ones(7)).tolist() == [2.0] * 7


def test_a_product_is_not_followed() -> None:
    """``n / 3 * 3`` may be a little less than ``n``."""

    def f(x: torch.Tensor) -> torch.Tensor:
        n = torch.scalar_tensor(x.shape[0], dtype=torch.int64)
        whole = torch.floor(n / 3 * 3).to(torch.int64)
        return x + 1 if whole == n else x

    with pytest.raises(sf.DataDependentError):
        sf.export(f, (torch.ones(4),), dynamic_shapes={"x": {0: sf.Dim("n", max=500)}})


def test_comparisons_of_sizes_in_tensors() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        n = torch.scalar_tensor(x.shape[0], dtype=torch.int64)
        return x + 1 if (n > 1) and (n <= 50) and bool(3 - n != 2) else x

    program = sf.export(f, (torch.ones(4),), dynamic_shapes={"x": {0: sf.Dim("n", min=2, max=50)}})
    assert program.module()(torch.ones(7)).tolist() == [2.0] * 7
    with pytest.raises(sf.ConstraintViolationError):
        sf.export(f, (torch.ones(4),), dynamic_shapes={"x": {0: sf.Dim("n", min=2, max=60)}})


def test_the_error_of_floats_stays_between_integers() -> None:
    """The claim of the module, on the largest numbers that it makes it for."""
    numbers = random.Random(0)
    largest = ratios._LARGEST
    for _ in range(4000):
        below = numbers.choice([3, 5, 7, 49, 1000, largest - 1, numbers.randint(1, largest)])
        above = numbers.choice([largest, largest - 1, 1 - largest, numbers.randint(1, largest)])
        exact, value = Fraction(above, below), torch.tensor(above) / torch.tensor(below)
        for _ in range(ratios._STEPS - 1):
            addend = numbers.randint(-3, 3) * (largest // below // 4)
            if abs(exact + addend) * below <= largest:
                exact, value = exact + addend, value + addend
        assert torch.floor(value).item() == floor(exact)
        assert torch.ceil(value).item() == ceil(exact)


@both_modes
def test_an_integer_that_every_call_changes(strict: bool) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("step", torch.tensor(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2 if self.step > 1 else x
            self.step = self.step + 1
            return y

    with pytest.raises(sf.NotSupported, match=r"integer in self\.step"):
        sf.export(M(), (torch.ones(2),), strict=strict)
