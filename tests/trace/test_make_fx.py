"""make_fx: the graph, its metadata, the modes, and what is restored afterwards."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx.traceback
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.make_fx import (
    disable_proxy_modes_tracing,
    flat_call,
    get_innermost_proxy_mode,
    get_isolated_graphmodule,
)

aten = torch.ops.aten
MODES = ("real", "fake", "symbolic")
every_mode = pytest.mark.parametrize("mode", MODES)


def targets(graph: torch.fx.GraphModule) -> list[Any]:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


def node(graph: torch.fx.GraphModule, name: str) -> torch.fx.Node:
    return next(n for n in graph.graph.nodes if n.name == name)


def check(
    f: Callable[..., Any], mode: str, args: tuple[Any, ...], *others: Any, **options: Any
) -> Any:
    """Trace on ``args``; the graph equals eager there, and in symbolic mode on ``others``."""
    graph = sf.make_fx(f, tracing_mode=mode, **options)(*clone(args))
    for run in (args, *(others if mode == "symbolic" else ())):
        torch.testing.assert_close(graph(*clone(run)), f(*clone(run)))
    return graph


def clone(value: Any) -> Any:
    return pytree.tree_map_only(
        torch.Tensor, lambda t: t.detach().clone().requires_grad_(t.requires_grad), value
    )


# -- the graph -------------------------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.21", "3.28", "3.54")
def test_a_plain_graph(mode: str) -> None:
    graph = check(lambda x, y: (x + y).relu(), mode, (torch.randn(3, 4), torch.randn(3, 4)),
                  (torch.randn(5, 7), torch.randn(5, 7)))  # fmt: skip
    assert type(graph.graph) is torch.fx.Graph
    assert targets(graph) == [aten.add.Tensor, aten.relu.default]
    assert [n.name for n in graph.graph.nodes] == ["x_1", "y_1", "add", "relu", "output"]


@every_mode
@pytest.mark.spec("3.31")
def test_containers(mode: str) -> None:
    def f(d: dict[str, Any], pair: list[torch.Tensor], n: int) -> dict[str, Any]:
        return {"sum": d["a"] + pair[1], "rest": [pair[0] * n, (None, d["b"], "text")]}

    def inputs(size: int, n: int) -> tuple[Any, ...]:
        return {"a": torch.randn(size), "b": 2.5}, [torch.randn(size), torch.randn(size)], n

    graph = sf.make_fx(f, tracing_mode=mode)(*inputs(4, 3))
    runs = [inputs(4, 3)] + ([inputs(6, 7)] if mode == "symbolic" else [])
    for run in runs:
        got, want = graph(*run), f(*run)
        assert got["rest"][1] == want["rest"][1]
        torch.testing.assert_close((got["sum"], got["rest"][0]), (want["sum"], want["rest"][0]))
    names = [n.name for n in graph.graph.nodes if n.op == "placeholder"]
    assert names == ["d_1", "d_2", "pair_1", "pair_2", "n_1"]


@pytest.mark.spec("3.61")
def test_names_of_placeholders() -> None:
    x = torch.ones(2)

    def names(f: Callable[..., Any]) -> list[str]:
        graph = sf.make_fx(f)(x, x)
        return [n.name for n in graph.graph.nodes if n.op == "placeholder"]

    assert names(lambda a, b: a + b) == ["a_1", "b_1"]
    assert names(lambda *a: a[0] + a[1]) == ["arg0_1", "arg1_1"]
    assert names(torch.add) == ["arg0_1", "arg1_1"]


@pytest.mark.spec("3.66")
def test_keyword_arguments() -> None:
    def f(x: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
        return x * scale

    x = torch.randn(3)
    call, flat = flat_call(f, (x,), {"scale": x + 1})
    graph = sf.make_fx(call)(*flat)
    torch.testing.assert_close(graph(*flat), f(x, scale=x + 1))


@every_mode
@pytest.mark.spec("3.11")
def test_every_element_of_a_tuple_has_a_node(mode: str) -> None:
    graph = check(lambda x: torch.split(x, 2)[1] + 1, mode, (torch.randn(5),))
    items = [n for n in graph.graph.nodes if n.target is operator.getitem]
    assert [n.args[1] for n in items] == [0, 1, 2]
    assert [tuple(n.meta["val"].shape) for n in items][:2] == [(2,), (2,)]
    split = node(graph, "split")
    assert isinstance(split.meta["val"], list) and len(split.meta["val"]) == 3


@every_mode
@pytest.mark.spec("3.2", "3.22")
def test_in_place_operators_and_views(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        row = x[0]
        row.mul_(2)
        x.t().sub_(3)
        return x + row.sum()

    graph = check(f, mode, (torch.randn(3, 4),), (torch.randn(5, 6),))
    add = node(graph, "add_")
    assert add.args[0] is node(graph, "x_1")
    assert node(graph, "select").args[0] is add, "the node of x is now that of x.add_"


@every_mode
def test_sizes_change_in_place(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.unsqueeze_(0).transpose_(0, 2)
        return y.squeeze_(-1).t_() * x.shape[0] + y.shape[1]

    check(f, mode, (torch.randn(3, 4),), (torch.randn(5, 6),))


def test_a_size_is_read_before_it_changes_in_place() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        x.t_()
        return x * rows

    check(f, "symbolic", (torch.randn(3, 4),), (torch.randn(5, 6),))


@every_mode
@pytest.mark.spec("3.29", "3.31")
def test_tensors_from_outside_are_attributes(mode: str) -> None:
    weight, buffer = nn.Parameter(torch.randn(4)), torch.randn(4)

    def f(x: torch.Tensor) -> Any:
        return x * weight + buffer * buffer, buffer

    with torch.no_grad():
        graph = check(f, mode, (torch.randn(4),), allow_non_fake_inputs=True)
    attributes = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
    assert attributes == ["_param_constant0", "_tensor_constant0"]
    assert graph._param_constant0 is weight and graph._tensor_constant0 is buffer


def test_outputs_that_are_inputs() -> None:
    x = torch.randn(3)
    graph = sf.make_fx(lambda x, y: (x, x, y, 7))(x, "text")
    out = graph(x, "other")
    assert out[0] is x and out[1] is x and out[2] == "text" and out[3] == 7


@every_mode
def test_one_tensor_twice(mode: str) -> None:
    """Inside, both arguments are one tensor, as in the call."""
    x = torch.randn(3, requires_grad=True)

    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.autograd.grad((x * y).sum(), x)

    graph = sf.make_fx(f, tracing_mode=mode)(x, x)
    torch.testing.assert_close(graph(x, x), f(x, x))


# -- metadata --------------------------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.8", "3.9", "3.59")
def test_val_and_tensor_meta(mode: str) -> None:
    graph = sf.make_fx(lambda x: x.t().to(torch.float64), tracing_mode=mode)(torch.randn(3, 4))
    t = node(graph, "t")
    val, meta = t.meta["val"], t.meta["tensor_meta"]
    assert isinstance(val, FakeTensor) and val.dtype is torch.float32
    assert (meta.dtype, meta.requires_grad, meta.is_quantized) == (torch.float32, False, False)
    assert tuple(meta.shape) == tuple(val.shape) and tuple(meta.stride) == tuple(val.stride())
    assert meta.memory_format is None
    if mode != "symbolic":
        assert tuple(val.shape) == (4, 3) and val.stride() == (1, 4)
    else:
        assert [repr(s) for s in val.shape] == ["s1", "s0"]
    assert node(graph, "_to_copy").meta["val"].dtype is torch.float64
    contiguous = node(graph, "x_1").meta["tensor_meta"].memory_format
    assert contiguous is torch.contiguous_format


@pytest.mark.spec("3.8")
def test_val_is_a_snapshot() -> None:
    graph = sf.make_fx(lambda x: x.clone().unsqueeze_(0).squeeze_(0) + 1, tracing_mode="fake")(
        torch.randn(3)
    )
    shapes = [tuple(n.meta["val"].shape) for n in graph.graph.nodes if "val" in n.meta]
    assert shapes == [(3,), (3,), (1, 3), (3,), (3,)]
    assert not any(n.meta["val"].requires_grad for n in graph.graph.nodes if "val" in n.meta)


@pytest.mark.spec("3.8")
def test_val_of_what_no_fake_stands_for() -> None:
    graph = sf.make_fx(lambda x: x.to_sparse())(torch.eye(3))
    assert graph.graph.find_nodes(op="call_function", target=aten._to_sparse.default)
    sparse = next(n for n in graph.graph.nodes if n.target is aten._to_sparse.default)
    assert sparse.meta["val"] is None and "tensor_meta" not in sparse.meta


@pytest.mark.spec("3.33", "3.51")
def test_torch_fn_counts_calls() -> None:
    graph = sf.make_fx(lambda x: torch.relu(torch.relu(x) + 1))(torch.randn(3))
    found = [n.meta["torch_fn"][0] for n in graph.graph.nodes if n.op == "call_function"]
    assert found == ["relu_1", "add_1", "relu_2"]


@pytest.mark.spec("3.52")
def test_stack_traces_show_the_users_lines() -> None:
    def helper(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    graph = sf.make_fx(lambda x: helper(x))(torch.randn(3))
    trace = node(graph, "sin").meta["stack_trace"]
    assert "in helper" in trace and "return x.sin()" in trace and "stillframe" not in trace


@pytest.mark.spec("3.27")
def test_original_aten_is_the_outermost_operator() -> None:
    table = {aten.silu.default: lambda x: x * aten.sigmoid(x)}
    trace = sf.make_fx(lambda x: torch.nn.functional.silu(x) + 1, table)
    with torch.fx.traceback.preserve_node_meta():
        graph = trace(torch.randn(3))
    assert node(graph, "sigmoid").meta["original_aten"] is aten.silu.default
    assert node(graph, "mul").meta["original_aten"] is aten.silu.default
    assert node(graph, "add").meta["original_aten"] is aten.add.Tensor
    assert "original_aten" not in node(trace(torch.randn(3)), "mul").meta


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = Inner()
        self.b = nn.Sequential(Inner(), nn.ReLU())
        self.shared = self.a  # the same module under a second path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


@pytest.mark.spec("3.44", "3.47", "3.50", "3.63")
def test_module_stack() -> None:
    module = Outer().eval()

    def f(x: torch.Tensor) -> torch.Tensor:
        return module(x)

    f._orig_mod = module  # type: ignore[attr-defined]
    with torch.no_grad():
        graph = sf.make_fx(f, record_module_stack=True)(torch.randn(2, 3))
        plain = sf.make_fx(f)(torch.randn(2, 3))
    paths = [[p for p, _ in n.meta["nn_module_stack"].values()]
             for n in graph.graph.nodes if n.target is aten.addmm.default]  # fmt: skip
    assert paths == [["", "a", "a.linear"], ["", "b", "b.0", "b.0.linear"]]
    classes = [c for _, c in node(graph, "addmm").meta["nn_module_stack"].values()]
    assert classes[-1] == "torch.nn.modules.linear.Linear"
    assert not any("nn_module_stack" in n.meta for n in plain.graph.nodes)
    attributes = {n.target for n in graph.graph.nodes if n.op == "get_attr"}
    assert attributes == {f"{p}.linear.{w}" for p in ("a", "b.0") for w in ("weight", "bias")}
    placeholder, output = node(graph, "x_1"), node(graph, "output")
    assert "nn_module_stack" not in placeholder.meta and "nn_module_stack" not in output.meta


@pytest.mark.spec("3.45", "3.48")
def test_the_path_by_which_a_module_was_reached() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(2, 2))
            self.second = nn.Sequential(self.first[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            unregistered = nn.ReLU()
            return unregistered(self.second(x))

    root = Root()
    with torch.no_grad():
        graph = sf.make_fx(root, record_module_stack=True)(torch.randn(1, 2))
    stack = [p for p, _ in node(graph, "addmm").meta["nn_module_stack"].values()]
    assert stack == ["", "second", "second.0"]
    relu = [p for p, _ in node(graph, "relu").meta["nn_module_stack"].values()]
    assert relu == [""], "a module that is not registered leaves the stack as it is"


# -- decompositions --------------------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.16")
def test_composite_operators_take_themselves_apart(mode: str) -> None:
    args = (torch.randn(2, 3), torch.randn(4, 3))
    with torch.no_grad():
        graph = check(torch.nn.functional.linear, mode, args)
        whole = check(torch.nn.functional.linear, mode, args, pre_dispatch=True)
    assert aten.linear.default not in targets(graph) and aten.mm.default in targets(graph)
    assert targets(whole) == [aten.linear.default]


@every_mode
@pytest.mark.spec("3.15", "3.55")
def test_a_table_may_recurse_and_decline(mode: str) -> None:
    asked: list[Any] = []

    def silu(x: torch.Tensor) -> Any:
        return aten.mul(x, aten.sigmoid(x))

    def sigmoid(x: torch.Tensor) -> Any:
        return 1 / (1 + torch.exp(-x))

    def mul(*args: Any) -> Any:
        asked.append(args)
        return NotImplemented

    table = {aten.silu.default: silu, aten.sigmoid.default: sigmoid, aten.mul.Tensor: mul}
    before = dict(table)
    graph = check(torch.nn.functional.silu, mode, (torch.randn(3),), decomposition_table=table)
    assert table == before, "the caller's table is not changed"
    assert asked and aten.mul.Tensor in targets(graph)
    assert aten.silu.default not in targets(graph) and aten.exp.default in targets(graph)


def test_a_composite_inside_a_decomposition_is_taken_apart() -> None:
    table = {aten.addmm.default: lambda b, x, y: b + x.matmul(y)}
    x = torch.randn(3, 3)
    graph = check(torch.addmm, "symbolic", (x, x, x), decomposition_table=table)
    assert targets(graph) == [aten.mm.default, aten.add.Tensor]


@every_mode
@pytest.mark.spec("3.34")
def test_grad_mode_before_dispatch(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x * 2
        return y + x

    switch = torch_private.set_grad_enabled
    graph = check(f, mode, (torch.randn(3),), pre_dispatch=True)
    assert targets(graph) == [switch, aten.mul.Tensor, switch, aten.add.Tensor]
    assert node(graph, "_set_grad_enabled").meta["val"] is None
    assert targets(check(f, mode, (torch.randn(3),))) == [aten.mul.Tensor, aten.add.Tensor]


# -- modes -----------------------------------------------------------------------------------------


def test_the_mode_is_checked_at_once() -> None:
    with pytest.raises(sf.InvalidInput, match="real, fake, symbolic"):
        sf.make_fx(lambda x: x, tracing_mode="dreamed")


@pytest.mark.spec("3.56")
def test_fake_mode_is_static_and_runs_nothing() -> None:
    big = torch.empty(1).expand(1 << 40)  # no kernel could run on this
    graph = sf.make_fx(lambda x: x.sin(), tracing_mode="fake")(big)
    assert tuple(node(graph, "sin").meta["val"].shape) == (1 << 40,)
    assert not graph.shape_env.symbols


@pytest.mark.spec("3.57", "3.60")
def test_symbols_of_inputs() -> None:
    def f(x: torch.Tensor, y: torch.Tensor, n: int, m: int, flag: bool) -> Any:
        return x.sum() + y.sum() + n + m + flag

    graph = sf.make_fx(f, tracing_mode="symbolic")(torch.ones(3, 1), torch.ones(5, 3), 5, -2, True)
    vals = {n.name: n.meta.get("val") for n in graph.graph.nodes if n.op == "placeholder"}
    assert [repr(s) for s in vals["x_1"].shape] == ["s0", "1"], "0 and 1 stay numbers"
    assert [repr(s) for s in vals["y_1"].shape] == ["s1", "s0"], "equal sizes share a symbol"
    assert repr(vals["n_1"]) == "s1" and repr(vals["m_1"]) == "s2"
    assert vals["flag_1"] is None
    assert float(graph(torch.ones(4, 1), torch.ones(6, 4), 6, -7, True)) == 4 + 24 + 6 - 7 + 1


@pytest.mark.spec("3.5", "3.10", "3.38", "3.39")
def test_symbolic_nodes_are_made_when_used() -> None:
    def unused(x: torch.Tensor) -> torch.Tensor:
        _ = x.shape[0] * 2 + x.numel()
        return x + 1

    assert targets(sf.make_fx(unused, tracing_mode="symbolic")(torch.ones(3, 4))) == [
        aten.add.Tensor
    ]

    def used(x: torch.Tensor) -> Any:
        n = x.numel()
        return torch.ones(n), torch.zeros(x.shape[1] * x.shape[0]), x.stride(0), x.size(0) * 1

    graph = check(used, "symbolic", (torch.ones(3, 4),), (torch.ones(5, 6),))
    assert targets(graph).count(operator.mul) == 1, "one node for one expression"
    assert node(graph, "mul").meta["val"] is not None


@pytest.mark.spec("3.10", "3.17")
def test_strides_and_offsets_of_inputs() -> None:
    def f(x: torch.Tensor) -> Any:
        return x.as_strided((2, 2), (x.stride(0), x.stride(1)), x.storage_offset())

    def sample(rows: int) -> torch.Tensor:
        return torch.arange(1000.0)[: rows * 18].view(rows, 18)[2:, 3::3]

    graph = sf.make_fx(f, tracing_mode="symbolic")(sample(7))
    assert {aten.sym_stride.int, aten.sym_storage_offset.default} <= set(targets(graph))
    torch.testing.assert_close(graph(sample(7)), f(sample(7)))
    wide = torch.arange(2000.0).view(10, 200)[4:, 5::5]
    torch.testing.assert_close(graph(wide), f(wide))


@pytest.mark.spec("3.6")
def test_val_of_a_symbolic_node() -> None:
    graph = sf.make_fx(lambda x: torch.ones(x.shape[0]), tracing_mode="symbolic")(torch.ones(3))
    assert isinstance(node(graph, "sym_size_int").meta["val"], torch.SymInt)


@pytest.mark.spec("3.57")
def test_guards_of_a_trace() -> None:
    graph = sf.make_fx(lambda x: x + 1 if x.shape[0] > 5 else x - 1, tracing_mode="symbolic")(
        torch.ones(3)
    )
    assert [str(g.expr) for g in graph.shape_env.guards] == ["s0 <= 5"]


@pytest.mark.spec("3.12")
@pytest.mark.parametrize("mode", ("fake", "symbolic"))
def test_unbacked_symbols(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        found = x.nonzero()
        return torch.zeros(found.shape[0]), x * x.sum().item()

    graph = check(f, mode, (torch.eye(3),), (torch.ones(4, 4),))
    bindings = node(graph, "nonzero").meta["unbacked_bindings"]
    assert list(bindings.values()) == [("size", 0)]
    assert node(graph, "_local_scalar_dense").meta["unbacked_bindings"]


# -- traces around traces --------------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.37", "3.64")
def test_a_trace_inside_a_trace(mode: str) -> None:
    inner: list[torch.fx.GraphModule] = []

    def f(x: torch.Tensor) -> torch.Tensor:
        scaled = x * 2
        inner.append(sf.make_fx(lambda y: y.sin() + scaled)(x))
        return inner[-1](x).cos()

    x = torch.randn(3)
    graph = sf.make_fx(f, tracing_mode=mode)(x)
    want = (x.sin() + x * 2).cos()
    torch.testing.assert_close(graph(x), want)
    assert targets(inner[0]) == [aten.sin.default, aten.add.Tensor]
    assert targets(graph) == [
        aten.mul.Tensor, aten.sin.default, aten.add.Tensor, aten.cos.default,
    ]  # fmt: skip
    if mode == "symbolic":
        y = torch.randn(5)
        torch.testing.assert_close(graph(y), (y.sin() + y * 2).cos())


@every_mode
@pytest.mark.spec("3.67")
def test_an_isolated_trace(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        graph = get_isolated_graphmodule(lambda y, *, k: y.sin() * k, (x,), {"k": x})
        assert targets(graph) == [aten.sin.default, aten.mul.Tensor]
        return x.cos()

    assert targets(check(f, mode, (torch.randn(3),))) == [aten.cos.default]


@every_mode
@pytest.mark.spec("3.41")
def test_tracing_switched_off(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        current = get_innermost_proxy_mode()
        assert current is not None
        with disable_proxy_modes_tracing() as off:
            assert off is current and get_innermost_proxy_mode() is None
            x.shape, x.detach()
        assert get_innermost_proxy_mode() is current
        return x.cos()

    assert targets(check_graph_only(f, mode)) == [aten.cos.default]
    assert get_innermost_proxy_mode() is None


def check_graph_only(f: Callable[..., Any], mode: str) -> torch.fx.GraphModule:
    return sf.make_fx(f, tracing_mode=mode)(torch.randn(3))


@pytest.mark.spec("3.26", "3.36", "3.40")
def test_a_recorder_that_does_not_trace() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        recorder = get_innermost_proxy_mode().recorder  # type: ignore[union-attr]
        recorder.trace_state["seen"] = True
        recorder.enable_tracing = False
        x.exp()
        recorder.enable_tracing = True
        assert recorder.trace_state == {"seen": True}
        return x.cos()

    assert targets(check_graph_only(f, "real")) == [aten.cos.default]


@pytest.mark.spec("3.64")
@every_mode
def test_everything_is_restored_after_an_error(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        raise ZeroDivisionError

    cond, cache = torch.cond, torch.is_autocast_cache_enabled()
    trace = sf.make_fx(f, tracing_mode=mode)
    for _ in range(2):  # one object can trace again
        with pytest.raises(ZeroDivisionError):
            trace(torch.randn(3))
        assert torch.is_grad_enabled() and not torch.compiler.is_compiling()
        assert torch.cond is cond and torch.is_autocast_cache_enabled() == cache
        assert get_innermost_proxy_mode() is None and not torch_private.dispatch_modes()


@pytest.mark.spec("3.35")
def test_modes_keep_their_order_while_some_are_off() -> None:
    from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

    class A(TorchFunctionMode):
        pass

    class B(TorchFunctionMode):
        pass

    with A() as a, B() as b, A() as c:
        with pytest.raises(KeyError):
            with torch_private.modes_taken_off(lambda m: isinstance(m, B)) as off:
                assert off == [b] and _get_current_function_mode_stack() == [a, c]
                raise KeyError
        assert _get_current_function_mode_stack() == [a, b, c]
        with torch_private.modes_taken_off(lambda m: False) as off:
            assert off == [] and _get_current_function_mode_stack() == [a, b, c]


@pytest.mark.spec("3.43")
def test_autocast() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x

    for mode in MODES:
        graph = check(f, mode, (torch.randn(3, 3),))
        assert aten._to_copy.default in targets(graph)


@pytest.mark.spec("3.53")
def test_public_name() -> None:
    assert "make_fx" in sf.__all__ and sf.make_fx.__module__ == "stillframe.trace.make_fx"
