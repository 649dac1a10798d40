"""Operators that call one function: regions, hints; and regions that leave no operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._higher_order_ops import InvokeQuant, strict_mode
from torch._higher_order_ops.foreach_map import foreach_map
from torch._higher_order_ops.invoke_subgraph import mark_compile_region
from torch._higher_order_ops.wrap import (
    wrap,
    wrap_with_autocast,
    wrap_with_set_grad_enabled,
)
from torch.utils.checkpoint import checkpoint

import stillframe as sf

higher_order = torch.ops.higher_order
MODES = ("real", "fake", "symbolic", "export")
X, OTHER = torch.randn(4, 3), torch.randn(7, 3)
WEIGHT = torch.randn(3, 3)


@mark_compile_region
def region(x: torch.Tensor, factor: int = 2) -> dict[str, torch.Tensor]:
    return {"a": (x @ WEIGHT).sin() * factor, "b": x.cos()}


def marked(x: torch.Tensor) -> Any:
    first = region(x)
    return first["b"], region(first["a"], factor=3)


def plain_marked(x: torch.Tensor) -> Any:
    a, b = (x @ WEIGHT).sin() * 2, x.cos()
    return b, {"a": (a @ WEIGHT).sin() * 3, "b": a.cos()}


def quantised(x: torch.Tensor) -> Any:
    return InvokeQuant()(lambda x, y: (x.sin() * y,), x, x, scheme="nf4")[0]


def hinted(x: torch.Tensor) -> Any:
    return higher_order.hints_wrapper(lambda x: (x.sin(), x.nonzero()), (x,), {}, {"level": 1})


def strict(x: torch.Tensor) -> Any:
    return strict_mode(lambda x, y: (x.sin(), y * 2), (x, x + 1))


def of_lists(x: torch.Tensor) -> Any:
    return foreach_map(lambda a, b, k: a * b.sin() + k, [x, x * 2], [x + 1, x], 3.0)


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "invoke_subgraph": (marked, plain_marked),
    "invoke_quant_packed": (quantised, lambda x: x.sin() * x),
    "hints_wrapper": (hinted, lambda x: (x.sin(), x.nonzero())),
    "strict_mode": (strict, lambda x: (x.sin(), (x + 1) * 2)),
    "foreach_map": (of_lists, lambda x: [x * (x + 1).sin() + 3.0, x * 2 * x.sin() + 3.0]),
}


def trace(f: Callable[..., Any], mode: str) -> Any:
    if mode == "export":
        return sf.export(f, (X,), dynamic_shapes=({0: sf.Dim.AUTO},))
    return sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)(X)


def runs(mode: str) -> tuple[torch.Tensor, ...]:
    return (X, OTHER) if mode in ("symbolic", "export") else (X,)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_region_is_an_operator(mode: str, name: str, tmp_path: Path) -> None:
    f, plain = PROGRAMS[name]
    graph = trace(f, mode)
    nodes = graph.graph.find_nodes(op="call_function", target=getattr(higher_order, name))
    # InvokeQuant is a plain call unless somebody compiles, and a trace of real tensors does not
    inlined = (f, mode) == (quantised, "real")
    assert len(nodes) == (2 if f is marked else 0 if inlined else 1)
    module = graph
    if mode == "export":
        sf.save(graph, tmp_path / "p.still")
        module = sf.load(tmp_path / "p.still").module()
    for x in runs(mode):
        torch.testing.assert_close(module(x), plain(x))


def test_options_stay_with_the_operator() -> None:
    def options(f: Callable[..., Any], op: Any) -> torch.fx.Node:
        (node,) = trace(f, "fake").graph.find_nodes(op="call_function", target=op)
        return node

    assert options(quantised, higher_order.invoke_quant_packed).kwargs == {"scheme": "nf4"}
    assert options(hinted, higher_order.hints_wrapper).args[3] == {"level": 1}


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_regions(mode: str, name: str) -> None:
    f, plain = PROGRAMS[name]

    def gradient(f: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: torch.Tensor) -> Any:
            x = x.detach().requires_grad_()
            leaves = [y for y in torch.utils._pytree.tree_leaves(f(x)) if y.requires_grad]
            return torch.autograd.grad(sum(y.sum() for y in leaves), x)

        return run

    graph = trace(gradient(f), mode)
    for x in runs(mode):
        torch.testing.assert_close(graph(x), gradient(plain)(x))


REFUSED: dict[str, Callable[[torch.Tensor], Any]] = {
    "changes a tensor from outside": lambda x: strict_mode(lambda x: x.add_(1), (x,)),
    "returns a tensor from outside": lambda x: strict_mode(lambda x: x.t(), (x,)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("message", REFUSED)
def test_regions_that_share_memory_are_refused(mode: str, message: str) -> None:
    with pytest.raises((sf.SideEffectError, sf.NotSupported), match=message):
        trace(REFUSED[message], mode)


# -- regions that leave their operators ---------------------------------------------------------


INLINED: dict[str, Callable[[torch.Tensor], Any]] = {
    "wrap": lambda x: wrap(lambda x: x.sin() + 1, x),
    "grad mode": lambda x: wrap_with_set_grad_enabled(False, lambda x: x.sin() + 1, x),
    "autocast": lambda x: wrap_with_autocast(
        "cpu", torch.bfloat16, True, None, lambda x: x @ x.t(), x
    ),
    "checkpoint": lambda x: checkpoint(lambda x: (x @ WEIGHT).sin(), x, use_reentrant=False),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INLINED)
def test_a_region_is_its_operators(mode: str, name: str) -> None:
    f = INLINED[name]
    graph = trace(f, mode)
    assert not any(isinstance(n.target, torch._ops.HigherOrderOperator) for n in graph.graph.nodes)
    module = graph.module() if mode == "export" else graph
    for x in runs(mode):
        torch.testing.assert_close(module(x), f(x))


SUMS = {
    "foreach_map": lambda x, y: foreach_map(torch.add, [x, y], [y, x]),
    "invoke_subgraph": mark_compile_region(lambda x, y: [x + y, y - x]),
}


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("name", SUMS)
def test_the_gradient_of_a_sum_is_a_copy_of_the_one_that_flows_in(name: str, mode: str) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        a, b = SUMS[name](x, y)
        return torch.autograd.grad((a.sin() * b).sum(), [x, y])

    def plain(x: torch.Tensor, y: torch.Tensor) -> Any:
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        a, b = x + y, y + x if name == "foreach_map" else y - x
        return torch.autograd.grad((a.sin() * b).sum(), [x, y])

    graph = sf.make_fx(f, tracing_mode=mode)(X, X + 1)
    again = sf.make_fx(graph, tracing_mode=mode)(X, X + 1)
    for traced in (graph, again):
        torch.testing.assert_close(traced(X * 2, X), plain(X * 2, X))
