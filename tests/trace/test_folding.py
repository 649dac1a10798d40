"""Scalars whose value is known although they sit in tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stillframe as sf


def test_scalars_made_from_constants() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        k = torch.tensor(3) + 1
        return x * 2 if k > 3 and k.item() == 4 else x

    program = sf.export(f, (torch.ones(2),))
    assert program.module()(torch.ones(2)).tolist() == [2.0, 2.0]


def test_in_place_on_a_constant_with_data_forgets_it() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        k = torch.tensor(3.0)
        k.add_(x.sum())
        return x * 2 if k > 3 else x

    with pytest.raises(sf.DataDependentError):
        sf.export(f, (torch.ones(2),))


def test_views_of_a_written_constant_are_forgotten_too() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        base = torch.tensor([3.0])
        view = base.view(())
        base.mul_(x.sum())
        return x * view.item() if view > 0 else x

    with pytest.raises(sf.DataDependentError):
        sf.export(f, (torch.ones(2),))


def test_scalars_made_from_sizes_stay_symbolic() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        chunks = torch.div(x.shape[0], 4, rounding_mode="trunc") - 1
        return x[: int(chunks)] if False else x.narrow(0, 0, chunks.item())

    dim = sf.Dim("n", min=8, max=64)
    program = sf.export(f, (torch.arange(12.0),), dynamic_shapes=({0: dim},))
    run = program.module()
    for n in (8, 13, 40):
        x = torch.arange(float(n))
        assert torch.equal(run(x), f(x))


class Strided(nn.Module):
    def __init__(self, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor(2), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:: self.stride.item()]


def test_integer_buffers_are_checked() -> None:
    program = sf.export(Strided(persistent=True), (torch.arange(6.0),))
    run = program.module()
    assert run(torch.arange(6.0)).tolist() == [0.0, 2.0, 4.0]
    run.load_state_dict({"stride": torch.tensor(3)})
    with pytest.raises(RuntimeError, match="made for the value 2"):
        run(torch.arange(6.0))


def test_a_buffer_that_forward_writes_is_not_known() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("step", torch.tensor(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.step.add_(1)
            return x * 2 if self.step > 1 else x

    with pytest.raises(sf.DataDependentError):
        sf.export(M(), (torch.ones(2),))
