"""make_fx: how values are known to a trace, and graphs that are traced again."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.trace.make_fx import get_innermost_proxy_mode
from stillframe.trace.real_tensors import RealTensors

aten = torch.ops.aten


def targets(graph: torch.fx.GraphModule) -> list[Any]:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


@pytest.mark.spec("3.1", "3.3")
def test_real_tensors_are_known_weakly_and_by_identity() -> None:
    graph, known = torch.fx.Graph(), RealTensors()
    first, equal = torch.ones(2), torch.ones(2)
    node = graph.placeholder("x")
    known.bind(first, node)
    assert known.node(first) is node and first in known
    assert known.node(equal) is None and equal not in known
    alias = first.view(2)
    assert known.node(alias) is None, "another object over the same memory"
    del first, alias
    gc.collect()
    assert len(known._slots) == 0


@pytest.mark.spec("3.1", "3.30")
def test_symbolic_values_are_known_by_what_they_are() -> None:
    """Two Python objects of one size are one node; a number stays a number."""
    nodes = []

    def f(x: torch.Tensor) -> torch.Tensor:
        mode = get_innermost_proxy_mode()
        assert mode is not None
        nodes.extend(mode.recorder.operand(n) for n in (x.shape[0], x.size(0), x.t().shape[1], 7))
        nodes.append(mode.recorder.operand(x))
        return x + 1

    sf.make_fx(f, tracing_mode="symbolic")(torch.ones(3, 4))
    assert nodes[0] is nodes[1] is nodes[2] and nodes[0].target is aten.sym_size.int
    assert nodes[3] == 7 and nodes[4].op == "placeholder"


@pytest.mark.spec("3.7")
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_sizes_as_a_container(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        return {"size": x.shape}, x + 1

    sizes, _ = sf.make_fx(f, tracing_mode=mode)(torch.ones(3, 4))(torch.ones(3, 4))
    assert tuple(sizes["size"]) == (3, 4)
    if mode == "symbolic":
        sizes, _ = sf.make_fx(f, tracing_mode=mode)(torch.ones(3, 4))(torch.ones(5, 6))
        assert tuple(sizes["size"]) == (5, 6)


@pytest.mark.spec("3.13")
def test_where_new_symbols_are_found() -> None:
    def f(x: torch.Tensor) -> Any:
        return x.nonzero(), x.sum().long().item(), torch.unique(x, return_counts=True)

    graph = sf.make_fx(f, tracing_mode="symbolic")(torch.ones(3))
    found = {
        n.name: list(n.meta["unbacked_bindings"].values())
        for n in graph.graph.nodes
        if "unbacked_bindings" in n.meta
    }
    assert found["nonzero"] == [("size", 0)]
    assert found["_local_scalar_dense"] == [("item",)]
    assert found["_unique2"] == [(0, "size", 0)]


@pytest.mark.spec("3.42")
def test_a_table_ends_with_its_trace() -> None:
    """Also where a trace inside of it fails, or has a table of its own."""
    inner: list[Any] = []
    y = torch.ones(2)

    def f(x: torch.Tensor) -> torch.Tensor:
        plain = sf.make_fx(torch.neg)(y)
        inner.append(targets(plain))
        with pytest.raises(sf.DataDependentError):
            sf.make_fx(lambda y: y.sum().item(), {aten.neg.default: torch.abs})(y)
        return x.neg()

    graph = sf.make_fx(f, {aten.neg.default: lambda x: x * -1})(torch.ones(2))
    assert inner == [[aten.neg.default]] and targets(graph) == [aten.mul.Tensor]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3))
        self.second = nn.Sequential(self.first[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.first[0], nn.Linear) and type(self.first).__name__ == "Sequential"
        return self.second(self.first(x)) + self.first[0].weight.sum()


@pytest.mark.spec("3.46", "3.49")
def test_modules_are_the_users_own_during_and_after_a_trace() -> None:
    module = Shared()
    before = {name: id(child) for name, child in module.named_modules(remove_duplicate=False)}
    graph = sf.make_fx(module, record_module_stack=True)(torch.ones(2, 3))
    after = {name: id(child) for name, child in module.named_modules(remove_duplicate=False)}
    assert after == before
    stacks = [
        n.meta.get("nn_module_stack") for n in graph.graph.nodes if n.target is aten.t.default
    ]
    paths = [list(s.values())[-1][0] for s in stacks if s]
    assert paths == ["first.0", "second.0"], "the way by which the program reached it"


@pytest.mark.spec("3.68")
def test_a_graph_is_traced_again_under_a_table() -> None:
    """Attributes stay attributes; the first graph and the caller's table are left alone."""
    constant = torch.tensor([1.0, 2.0])
    graph = sf.make_fx(lambda x: torch.nn.functional.silu(x) + constant)(torch.ones(2))
    table = {aten.silu.default: lambda x: x * torch.sigmoid(x)}
    again = sf.make_fx(graph, table)(torch.ones(2))
    assert targets(graph) == [aten.silu.default, aten.add.Tensor]
    assert targets(again) == [aten.sigmoid.default, aten.mul.Tensor, aten.add.Tensor]
    assert [n.op for n in again.graph.nodes].count("get_attr") == 1 and len(table) == 1
    x = torch.randn(2)
    torch.testing.assert_close(again(x), graph(x))
    assert targets(sf.make_fx(graph, None)(x)) == targets(graph)
