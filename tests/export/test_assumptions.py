"""What forward asks of its inputs, its state and torch's modes is checked at every call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

X = torch.arange(12.0).view(3, 4)


class Net(nn.Module):
    def __init__(self, ask: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.ask = ask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * (2 if self.ask(self, x) else 3)


Row = tuple[Callable[[Any, torch.Tensor], Any], torch.Tensor, str]
ASKED: dict[str, Row] = {
    "requires_grad": (lambda m, x: x.requires_grad, X.clone().requires_grad_(), "x: requires_grad"),
    "grad_fn": (lambda m, x: x.grad_fn, X.clone().requires_grad_() * 1, "x: requires_grad"),
    "is_leaf": (lambda m, x: x.is_leaf, X.clone().requires_grad_() * 1, "x: is_leaf"),
    "stride": (lambda m, x: x.stride(1) == 1, X.view(4, 3).t(), "x: stride() is (1, 3)"),
    "dim_order": (lambda m, x: x.dim_order() == (0, 1), X.view(4, 3).t(), "x: stride()"),
    "storage_offset": (
        lambda m, x: x.storage_offset() == 0,
        torch.zeros(5, 4)[2:],
        "x: storage_offset() is 8",
    ),
    "is_contiguous": (lambda m, x: x.is_contiguous(), X.view(4, 3).t(), "x: is_contiguous()"),
    "a result's layout": (lambda m, x: (x * 2).is_contiguous(), X.view(4, 3).t(), "x: stride()"),
    "a result's gradient": (
        lambda m, x: (x * 2).requires_grad,
        X.clone().requires_grad_(),
        "x: requires_grad",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_another_answer_is_refused(name: str) -> None:
    ask, other, message = ASKED[name]
    module = sf.export(Net(ask), (X,)).module()
    module(X + 1)
    with pytest.raises(sf.CallError) as caught:
        module(other)
    assert caught.value.what.startswith(message)
    assert __file__ in caught.value.where[-1]


@pytest.mark.parametrize("name", ASKED)
def test_what_nobody_asks_is_free(name: str) -> None:
    mod = Net(lambda m, x: True)
    program = sf.export(mod, (X,))
    assert program.assumptions == ()
    other = ASKED[name][1]
    assert program.module()(other).equal(mod(other))


def test_libraries_of_torch_may_ask() -> None:
    """nn.MultiheadAttention asks much, to choose among kernels that agree."""
    mod = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    assert sf.export(mod, (x, x, x)).assumptions == ()


def test_strides_follow_the_sizes() -> None:
    dims = ({0: sf.Dim("b", min=2), 1: sf.Dim("n", min=2)},)
    program = sf.export(lambda x: x * x.stride(1), (X,), dynamic_shapes=dims)
    assert program.module()(torch.ones(5, 7)).equal(torch.ones(5, 7))
    with pytest.raises(sf.CallError, match=r"x: stride\(\) is \(1, 5\), .* with \(7, 1\)"):
        program.module()(torch.ones(7, 5).t())


def test_a_frozen_parameter() -> None:
    program = sf.export(Net(lambda m, x: m.linear.weight.requires_grad), (X,))
    module = program.module()
    module(X)
    module.linear.weight.requires_grad_(False)
    with pytest.raises(sf.CallError, match=r"self.linear.weight: requires_grad is False"):
        module(X)


MODES: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "grad mode": (lambda: torch.is_grad_enabled(), torch.no_grad, "torch: grad mode is False"),
    "inference mode": (
        lambda: torch.is_inference_mode_enabled(),
        torch.inference_mode,
        "torch: inference mode is True",
    ),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "torch: autocast is True",
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_a_mode_of_torch(name: str) -> None:
    ask, mode, message = MODES[name]
    module = sf.export(Net(lambda m, x: ask()), (X,)).module()
    module(X)
    with mode(), pytest.raises(sf.CallError, match=message):
        module(X)


def test_the_default_dtype_of_literals() -> None:
    module = sf.export(lambda x: x * 2 + torch.tensor(0.5), (X,)).module()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(sf.CallError, match="default dtype is torch.float64"):
            module(X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert module(X).equal(X * 2 + 0.5)


def test_dtypes_of_results_and_autocast() -> None:
    """Autocast would give another dtype than the one that forward saw; outside nothing does."""

    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return torch.ones(3, 4).to(y.dtype) + y

    program = sf.export(Casting(), (X,))
    assert [a.what for a in program.assumptions] == ["autocast"]
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(sf.CallError, match="autocast"):
        program.module()(X)


def test_an_autocast_around_export_becomes_part_of_the_program() -> None:
    mod = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = mod(X)
        program = sf.export(mod, (X,))
    assert program.module()(X).equal(expected)


def test_they_are_kept_in_files_and_explained(tmp_path: Path) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * (2 if x.is_contiguous() and torch.is_grad_enabled() else x.stride(0))

    program = sf.export(f, (X,), dynamic_shapes=({1: sf.Dim("n")},))
    text = str(program.explain())
    assert "x: is_contiguous() is True" in text and "grad mode is True" in text
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert loaded.assumptions == program.assumptions
    with pytest.raises(sf.CallError, match="is_contiguous"):
        loaded.module()(X.view(4, 3).t())


@pytest.mark.parametrize(
    "use",
    [
        lambda x: torch.autograd.grad((x * 2).sum(), x),
        lambda x: (x * 2).sum().backward(),
        lambda x: (x * 2).register_hook(lambda g: g),
        lambda x: x.requires_grad_(),
        lambda x: setattr(x, "requires_grad", True),
        lambda x: x.grad,
    ],
    ids=["grad", "backward", "hook", "requires_grad_", "requires_grad", ".grad"],
)
def test_autograd_in_forward_is_refused(use: Callable[[torch.Tensor], Any]) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        use(x)
        return x * 2

    with pytest.raises(sf.NotSupported, match="forward uses autograd itself"):
        sf.export(f, (X,))


def test_saying_again_what_is_so_is_no_use_of_autograd() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x.requires_grad = False
        return x.requires_grad_(False) * 2

    assert sf.export(f, (X,)).module()(X).equal(X * 2)


def test_a_forged_question_is_refused(tmp_path: Path) -> None:
    program = sf.export(lambda x: x * 2, (X,))
    from stillframe.export.assumptions import Assumption

    for assumption in (Assumption("", "os.getcwd", 1), Assumption("y", "is_leaf", True)):
        with pytest.raises(sf.SpecViolationError, match="an assumption"):
            program._replaced(assumptions=[assumption])
