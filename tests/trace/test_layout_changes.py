"""Sizes, strides and memory that change in place: programs run on inputs that were not traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe import Dim

Function = Callable[..., Any]


def views(x: torch.Tensor) -> Any:
    y = x + 1
    before = y.view(-1)
    y.unsqueeze_(0)
    y.transpose_(1, 2)
    y.mul_(2)
    return y.sum(0), before, y.shape[2]


def swaps(x: torch.Tensor) -> Any:
    y = (x * 2).unsqueeze(1)
    y.swapaxes_(0, 1)
    y.squeeze_(0)
    y.t_()
    y.swapdims_(0, 1)
    return y + x


def strided(x: torch.Tensor) -> Any:
    y = x * 2
    y.as_strided_((x.shape[0], 2), (3, 1), 1)
    return y - 1


def parts(x: torch.Tensor) -> Any:
    first, second = (x - 1).split([1, 2], dim=1)
    first.squeeze_(1)
    return first, second


def smaller(x: torch.Tensor) -> Any:
    y = x * 2
    kept = y[0]
    y.resize_(x.shape[0], 2)
    y.add_(1)
    return y, kept


def as_another(x: torch.Tensor) -> Any:
    y = torch.zeros(7)
    y.resize_as_(x)
    y.fill_(3)
    return y * x


def shared(x: torch.Tensor) -> Any:
    y = torch.zeros(2)
    z = x * 2
    y.set_(z)
    y.add_(1)
    return y, z


def emptied(x: torch.Tensor) -> Any:
    y = x * 2
    y.set_()
    return y, x + 1


def in_a_branch(x: torch.Tensor) -> Any:
    def yes(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.unsqueeze_(0)
        return y * 2

    return torch.cond(x.sum() > 0, yes, lambda x: x.unsqueeze(0) - 1, (x,))


CHANGES = [views, swaps, strided, parts, smaller, as_another, shared, emptied]
VIEWS = [views, swaps, parts]


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    for a, b in zip(*map(torch.utils._pytree.tree_leaves, (got, expected)), strict=True):
        if isinstance(a, torch.Tensor):
            assert a.stride() == b.stride()


@pytest.mark.parametrize("f", [*CHANGES, in_a_branch], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_does_as_the_module(f: Function, dynamic: bool) -> None:
    dims = {"x": {0: Dim("b", min=2, max=50)}} if dynamic else None
    program = sf.export(f, (torch.randn(4, 3),), dynamic_shapes=dims)
    for rows in (2, 9) if dynamic else (4,):
        x = torch.randn(rows, 3)
        same(program.module()(x), f(x))


@pytest.mark.parametrize("f", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_a_trace_does_as_the_function(f: Function, mode: str, pre_dispatch: bool) -> None:
    graph = sf.make_fx(f, tracing_mode=mode, pre_dispatch=pre_dispatch)(torch.randn(4, 3))
    x = torch.randn(9 if mode == "symbolic" else 4, 3)
    if f is views:  # its number is the one of the trace
        same(graph(x)[:2], f(x)[:2])
    else:
        same(graph(x), f(x))


@pytest.mark.parametrize("f", VIEWS, ids=lambda f: f.__name__)
def test_the_functional_form_uses_the_view(f: Function) -> None:
    program = sf.export(f, (torch.randn(4, 3),), dynamic_shapes={"x": {0: Dim("b", min=2)}})
    functional = program.run_decompositions()
    assert not any("squeeze_" in n.name for n in functional.graph.nodes)
    x = torch.randn(7, 3)
    torch.testing.assert_close(functional.module()(x), f(x), rtol=0, atol=0)


@pytest.mark.parametrize("f", [smaller, shared], ids=lambda f: f.__name__)
def test_memory_has_no_functional_form(f: Function) -> None:
    program = sf.export(f, (torch.randn(4, 3),))
    with pytest.raises(sf.NotSupported, match="changes the sizes or the memory of a tensor"):
        program.run_decompositions()


@pytest.mark.spec("3.8")
def test_earlier_nodes_keep_their_metadata() -> None:
    program = sf.export(views, (torch.randn(4, 3),))
    shapes = {n.name: tuple(n.meta["val"].shape) for n in program.graph.nodes if n.op != "output"}
    assert shapes["add"] == (4, 3)
    assert shapes["unsqueeze_"] == (1, 4, 3)
    assert shapes["transpose_"] == shapes["mul_"] == (1, 3, 4)
    program = sf.export(parts, (torch.randn(4, 3),))
    split = next(n for n in program.graph.nodes if n.target is torch.ops.aten.split.sizes
                 or n.target is torch.ops.aten.split_with_sizes.default)  # fmt: skip
    assert tuple(split.meta["val"][0].shape) == (4, 1)


@pytest.mark.spec("3.8")
def test_earlier_nodes_keep_their_metadata_in_a_trace() -> None:
    graph = sf.make_fx(smaller, tracing_mode="fake")(torch.randn(4, 3)).graph
    shapes = {n.name: tuple(n.meta["val"].shape) for n in graph.nodes if n.op == "call_function"}
    assert shapes["mul"] == (4, 3) and shapes["resize_"] == (4, 2)


@pytest.mark.parametrize("second_name", ["to", "contiguous", "dropout", "reshape", "expand_as"])
def test_a_second_name_of_a_tensor_is_not_changed(second_name: str) -> None:
    names: dict[str, Function] = {
        "to": lambda y: y.to(y.dtype),
        "contiguous": lambda y: y.contiguous(),
        "dropout": lambda y: torch.dropout(y, 0.5, False),
        "reshape": lambda y: y.reshape(y.shape),
        "expand_as": lambda y: y.expand_as(y),
    }

    def f(x: torch.Tensor) -> Any:
        y = x + 1
        z = names[second_name](y)
        z.unsqueeze_(0)
        return y * 2, z

    for capture in (
        lambda: sf.export(f, (torch.randn(4, 3),)),
        lambda: sf.make_fx(f, tracing_mode="fake", pre_dispatch=True)(torch.randn(4, 3)),
    ):
        with pytest.raises(sf.NotSupported, match="may be the very tensor"):
            capture()


def test_a_second_name_below_dispatch_is_the_tensor_itself() -> None:
    def f(x: torch.Tensor) -> Any:
        y = x + 1
        z = y.to(y.dtype)
        z.unsqueeze_(0)
        return y * 2

    x = torch.randn(4, 3)
    same(sf.make_fx(f, tracing_mode="fake")(x)(x), f(x))


def test_a_written_input_is_still_an_input() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.relu_()
        y.unsqueeze_(0)
        return y

    with pytest.raises(sf.NotSupported, match="of an input or of the module's state"):
        sf.export(f, (torch.randn(4, 3),))


def test_buffers_are_refused() -> None:
    module = torch.nn.Module()
    module.register_buffer("b", torch.ones(2))
    module.forward = lambda x: module.b.unsqueeze_(0) + x  # type: ignore[method-assign]
    with pytest.raises(sf.NotSupported, match="of an input or of the module's state"):
        sf.export(module, (torch.randn(2),))


def test_a_known_number_is_not_read_in_the_old_layout() -> None:
    def f(x: torch.Tensor) -> Any:
        n = torch.tensor([3])
        n.unsqueeze_(0)
        return x + n[0, 0], n.shape[1]

    program = sf.export(f, (torch.ones(2),))
    same(program.module()(torch.ones(2)), f(torch.ones(2)))


def test_what_requires_grad_is_not_resized() -> None:
    weight = torch.nn.Linear(3, 3)

    def f(x: torch.Tensor) -> Any:
        return weight(x).resize_(2, 2)

    with pytest.raises(RuntimeError, match="cannot resize variables that require grad"):
        sf.export(f, (torch.randn(4, 3),))


def test_gradients_pass_through_a_change() -> None:
    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            y.unsqueeze_(0)
            return (y * y).sum()

    module = M()
    x = torch.randn(4, 3)
    program = sf.export(module, (x,))
    assert next(n for n in program.graph.nodes if n.name == "linear").meta["val"].requires_grad
    again = program.module()
    for m in (module, again):
        m(x).backward()
    grads = [dict(m.named_parameters())["linear.weight"].grad for m in (module, again)]
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)


def test_a_saved_program_has_the_changes(tmp_path: Any) -> None:
    program = sf.export(views, (torch.randn(4, 3),))
    sf.save(program, tmp_path / "p.still")
    x = torch.randn(4, 3)
    same(sf.load(tmp_path / "p.still").module()(x), views(x))
