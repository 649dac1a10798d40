"""Attributes that Python code has set on tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

X = torch.ones(3, 4)


class Net(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.weight.scale = 3  # type: ignore[attr-defined]
        self.run = run

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


@pytest.mark.parametrize("strict", [False, True])
def test_those_of_parameters_are_read(strict: bool) -> None:
    net = Net(lambda self, x: x * self.weight.scale)
    assert sf.export(net, (X,), strict=strict).module()(X).equal(X * 3)


def sets(self: Any, x: Any) -> Any:
    self.weight.scale += 1
    return x * self.weight.scale


def sets_on_input(self: Any, x: Any) -> Any:
    x.flag = [1]
    return x * 2


@pytest.mark.parametrize(
    ("run", "name", "where"),
    [(sets, "scale", r"self\.weight"), (sets_on_input, "flag", "the input x")],
)
def test_changes_are_refused(run: Any, name: str, where: str) -> None:
    net = Net(run)
    with pytest.raises(sf.SideEffectError, match=f"changes the attribute {name} of {where}"):
        sf.export(net, (X,))
    with pytest.raises(sf.SideEffectError, match=f"sets the attribute {name} of") as caught:
        sf.export(net, (X,), strict=True)
    assert f"in {run.__name__}" in caught.value.where[0] + caught.value.where[-3]
    assert net.weight.scale == 3
    assert not hasattr(X, "flag")


def marked() -> torch.Tensor:
    x = torch.ones(3, 4)
    x.flag = 3  # type: ignore[attr-defined]
    return x


def test_a_read_of_what_the_caller_has_set_is_refused_strictly() -> None:
    net = Net(lambda self, x: x * getattr(x, "flag", 2))
    with pytest.raises(sf.NotSupported, match="reads the attribute flag of the input x"):
        sf.export(net, (marked(),), strict=True)


def test_that_the_caller_has_set_nothing_is_a_condition_strictly(tmp_path: Path) -> None:
    net = Net(lambda self, x: x * 2 if hasattr(x, "flag") else x * 3)
    program = sf.export(net, (X,), strict=True)
    sf.save(program, tmp_path / "p.still")
    for module in (program.module(), sf.load(tmp_path / "p.still").module()):
        assert module(X).equal(X * 3)
        with pytest.raises(sf.CallError, match="x: having the attribute flag is True"):
            module(marked())


def test_the_name_of_a_field_of_fakes() -> None:
    x = torch.ones(3, 4)
    x.env = 1  # type: ignore[attr-defined]
    with pytest.raises(sf.NotSupported, match="has an attribute env"):
        sf.export(Net(lambda self, x: x * 2), (x,))
