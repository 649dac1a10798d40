"""Operators without a rule: what cannot be answered is refused by name."""

from __future__ import annotations

import pytest
import torch

import stillframe as sf


def test_a_kernel_that_reads_plain_sizes() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.vander(x)

    x = torch.arange(3.0)
    assert torch.equal(sf.export(forward, (x,)).module()(x), forward(x))
    with pytest.raises(sf.NotSupported, match="reads sizes as plain numbers.*symbolic"):
        sf.export(forward, (x,), dynamic_shapes=({0: sf.Dim("n")},))
