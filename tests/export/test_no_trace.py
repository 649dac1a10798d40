"""A capture leaves no trace, also when forward raises."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import stillframe as sf


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scratch", torch.ones(4), persistent=False)
        self.table = torch.arange(4.0)
        self.settings = {"scale": 2}
        self.first.weight.requires_grad_(False)
        self.norm.eval()
        self.fail = False
        self.first.register_forward_hook(lambda m, a, out: out + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scratch.add_(1)
        with torch.no_grad():
            x = self.norm(self.first(x)) * self.settings["scale"]
        if self.fail:
            self.settings["scale"] = 7
            self.late = x
            raise ValueError("from forward")
        return self.tied(x) + self.table


def picture(module: nn.Module) -> dict[str, Any]:
    """Everything that a capture could have touched, by identity or value."""
    found: dict[str, Any] = {}
    for path, m in module.named_modules():
        for name, value in m.__dict__.items():
            if isinstance(value, dict):
                found[f"{path}.{name}"] = (id(value), [(k, id(v)) for k, v in value.items()])
            else:
                found[f"{path}.{name}"] = id(value)
    for name, p in [*module.named_parameters(), *module.named_buffers()]:
        found[f"value {name}"] = (p.detach().clone().tolist(), p.requires_grad, p._version, p.grad)
    return found


def process_state() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.compiler.is_compiling(),
        torch.compiler.is_exporting(),
        torch.is_autocast_cache_enabled(),
        nn.Module.__call__,
        torch._C._dispatch_tls_local_exclude_set(),
        torch.utils._python_dispatch._get_current_dispatch_mode(),
        torch.overrides._get_current_function_mode_stack(),
        torch.cond,
    ]


@pytest.mark.spec("2.20", "2.51", "2.6")
@pytest.mark.parametrize("fail", [False, True])
def test_nothing_is_left(fail: bool) -> None:
    module = Model().train()
    module.norm.eval()
    module.fail = fail
    x = torch.randn(3, 4)
    kept = copy.deepcopy(x)
    before, process = picture(module), process_state()
    if fail:
        with pytest.raises(ValueError, match="from forward"):
            sf.export(module, (x,))
    else:
        sf.export(module, (x,))
    assert picture(module) == before
    assert process_state()[:4] == process[:4]
    assert str(process_state()[4:]) == str(process[4:])
    assert torch.equal(x, kept) and x._version == 0
    assert module.training and not module.norm.training


@pytest.mark.spec("1.13", "2.29")
def test_ties_survive() -> None:
    module = Model().eval()
    program = sf.export(module, (torch.randn(3, 4),))
    assert program.state_dict["first.weight"] is program.state_dict["tied.weight"]
    run = program.module()
    parameters = dict(run.named_parameters(remove_duplicate=False))
    assert parameters["first.weight"] is parameters["tied.weight"]


@pytest.mark.spec("2.40")
def test_non_persistent_buffers_are_constants() -> None:
    module = Model().eval()
    program = sf.export(module, (torch.randn(3, 4),))
    assert "scratch" in program.constants
    assert "scratch" not in program.state_dict
    assert program.graph_signature.non_persistent_buffers == ("scratch",) or (
        list(program.graph_signature.non_persistent_buffers) == ["scratch"]
    )


@pytest.mark.spec("2.54")
def test_written_buffers_belong_to_the_program() -> None:
    """Running the program does not change the module that it was made from."""
    module = Model().eval()
    program = sf.export(module, (torch.randn(3, 4),))
    program.module()(torch.randn(3, 4))
    assert bool((module.scratch == 1).all())


def test_written_buffers_that_share_memory_stay_together() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", self.whole[:2])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.part.add_(1)
            self.whole.add_(1)
            return x + self.whole

    module = Shared()
    run = sf.export(module, (torch.zeros(4),)).module()
    for _ in range(2):
        assert torch.equal(run(torch.zeros(4)), module(torch.zeros(4)))
