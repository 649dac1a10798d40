"""``self.buffer = new``: where a copy into the buffer is the same, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

Forward = Callable[[Any, torch.Tensor], Any]


class State(nn.Module):
    """Two buffers, zeros and ones, and a forward to try."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(4))
        self.register_buffer("k", torch.ones(4))
        self.step = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.step(self, x)


def trail(call: Callable[[torch.Tensor], torch.Tensor]) -> list[list[float]]:
    """Inputs and results of three calls, looked at when all are done."""
    kept = []
    for i in range(3):
        x = torch.full((4,), float(i))
        kept += [x, call(x)]
    return [value.tolist() for value in kept]


def swap(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n, self.k = self.k, self.n
    return x + self.n


def shift(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n = self.k
    self.k = self.k + 1
    return x + self.n


def both_new(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n = self.k = x * 2
    return x + self.n


def swap_flipped(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n, self.k = self.k[:2].repeat(2), self.n + x
    return x + self.n


def written_and_replaced(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n.add_(1)
    out = x + self.n
    self.n = x * 3
    return out


@pytest.mark.spec("2.54")
@pytest.mark.parametrize("forward", [swap, shift, both_new, swap_flipped, written_and_replaced])
def test_a_copy_is_the_same(forward: Forward) -> None:
    module = State(forward)
    run = sf.export(module, (torch.zeros(4),)).module()
    assert trail(run) == trail(module)
    assert dict(run.named_buffers())["n"].tolist() == module.n.tolist()


def test_a_shared_module_has_one_buffer_under_two_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = State(shift)
            self.b = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    module = Shared()
    assert trail(sf.export(module, (torch.zeros(4),)).module()) == trail(module)


def written_then_shared(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n.add_(1)
    self.n = self.k[:]
    return x + self.k


def written_then_equal(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.k.add_(1)
    self.n = self.k = x * 2
    return x + self.n


def written_then_the_input(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n.add_(1)
    self.n = x
    return x + 1


def written_then_returned(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.n.add_(1)
    self.n = x + 1
    return self.n


@pytest.mark.parametrize(
    ("forward", "other"),
    [
        (written_then_shared, r"self\.k"),
        (written_then_equal, r"self\.k"),
        (written_then_the_input, "x"),
        (written_then_returned, "a result"),
    ],
)
def test_memory_that_a_later_call_would_write(forward: Forward, other: str) -> None:
    message = rf"self\.n a tensor that shares memory with {other}, and writes one of them"
    with pytest.raises(sf.NotSupported, match=message):
        sf.export(State(forward), (torch.zeros(4),))


def test_the_old_value_is_not_returned() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        old = self.n
        self.n = x + 1
        return old[:2]

    with pytest.raises(sf.NotSupported, match=r"self\.n and returns a view of its old value"):
        sf.export(State(forward), (torch.zeros(4),))


@pytest.mark.parametrize("part", [4, 2], ids=["tied", "a view"])
def test_a_buffer_that_shares_memory_is_not_assigned(part: int) -> None:
    module = State(lambda self, x: shift(self, x) + self.m.sum())
    module.register_buffer("m", module.n if part == 4 else module.n[:part])
    with pytest.raises(sf.NotSupported, match=r"assigns self\.n, which shares memory with self\.m"):
        sf.export(module, (torch.zeros(4),))


@pytest.mark.parametrize("part", [4, 1], ids=["the same memory", "a view"])
def test_a_constant_that_shares_memory_with_a_written_buffer(part: int) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.n.add_(1)
        return x + self.m

    module = State(forward)
    module.m = module.n.detach()[:part]
    run = sf.export(module, (torch.zeros(4),)).module()
    assert trail(run) == trail(module)

    def assigns(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.n = x * 2
        return x + self.m

    module = State(assigns)
    module.m = module.n.detach()[:part]
    with pytest.raises(sf.NotSupported, match=r"self\.n, which shares memory with self\.m"):
        sf.export(module, (torch.zeros(4),))


def test_a_written_constant_belongs_to_the_program() -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.m.add_(1)
        return x + self.v.sum()

    module = State(forward)
    module.m = torch.zeros(4)
    module.v = module.m[:2]
    run = sf.export(module, (torch.zeros(4),)).module()
    found = trail(run)
    assert module.m.tolist() == [0.0] * 4, "running the program leaves the module alone"
    assert found == trail(module)


@pytest.mark.parametrize("shared", ["buffer", "constant"])
def test_a_written_parameter_shares_memory_with_nothing_else(shared: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.w.add_(1)
        return x + self.m

    module = State(forward)
    module.w = nn.Parameter(torch.zeros(4))
    if shared == "buffer":
        module.register_buffer("m", module.w.detach())
    else:
        module.m = module.w.detach()
    with pytest.raises(sf.NotSupported, match=r"writes self\.w, and the parameter w shares.* m"):
        sf.export(module, (torch.zeros(4),))


@pytest.mark.parametrize("how", ["assigned", "registered"])
def test_a_buffer_that_forward_makes(how: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if how == "assigned":
            self.late = x * 2
        else:
            self.register_buffer("late", x * 2)
        return x + self.late

    module = State(forward)
    if how == "assigned":
        module.register_buffer("late", None)
    with pytest.raises(sf.SideEffectError, match=r"self\.late, which held no tensor") as caught:
        sf.export(module, (torch.zeros(4),))
    assert "self.register_buffer('late', initial_value)" in str(caught.value)
    assert getattr(module, "late", None) is None, "the module is as it was"


@pytest.mark.spec("2.55")
def test_a_leaf_that_requires_grad_is_not_written() -> None:
    """As torch itself refuses it when the module runs."""

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.w.add_(1)
            return x * self.w

    x = torch.ones(4)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        M()(x)
    with pytest.raises(sf.SideEffectError, match=r"writes the parameter self\.w in place"):
        sf.export(M(), (x,))
    with pytest.raises(sf.SideEffectError, match=r"writes the input x in place \(aten\.mul_"):
        sf.export(lambda x: x.mul_(2), (x.clone().requires_grad_(),))
    with torch.no_grad():
        program = sf.export(M(), (x,))
        assert program.module()(x).tolist() == [2.0] * 4

    def under_no_grad(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x.mul_(2)
        return x + 1

    run = sf.export(under_no_grad, (x.clone().requires_grad_(),)).module()
    assert run(x.clone().requires_grad_()).tolist() == [3.0] * 4
