"""The call of export, the graph that comes out, its outputs, and the asserts in it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe import Dim
from stillframe.export.signature import (
    ConstantArgument,
    OutputKind,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr

X = torch.randn(3, 4)
ASSERT = torch.ops.aten._assert_scalar.default


def calls(program: sf.ExportedProgram) -> list[torch.fx.Node]:
    return [n for n in program.graph.nodes if n.op == "call_function"]


def targets(program: sf.ExportedProgram) -> list[str]:
    return [str(n.target) for n in calls(program)]


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.spec("2.1")
def test_only_the_module_and_args_are_needed() -> None:
    parameters = inspect.signature(sf.export).parameters
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["mod", "args", "kwargs"]
    assert [n for n in positional if parameters[n].default is inspect.Parameter.empty] == [
        "mod", "args",
    ]  # fmt: skip
    program = sf.export(nn.Conv1d(4, 2, 1), (X[:, :, None],))
    assert isinstance(program, sf.ExportedProgram)
    assert targets(program) == ["aten.conv1d.default"], "non-strict, and before dispatch"
    with pytest.raises(TypeError, match="unknown_option"):
        sf.export(nn.ReLU(), (X,), unknown_option=True)  # type: ignore[call-arg]


def variadic(x: Any, *rest: Any, k: Any, j: Any = 1, **more: Any) -> Any:
    return x + 10 * rest[0] + 100 * rest[1] + 1000 * k + 10000 * more["z"] + j


@pytest.mark.spec("2.7", "2.10", "2.31")
def test_names_of_arguments_and_the_order_of_keywords() -> None:
    program = sf.export(variadic, (X, X, X), {"z": X, "k": X})
    assert [given.path for given in program.call_spec.given] == [
        "x",
        "rest[0]",
        "rest[1]",
        "z",
        "k",
    ]
    assert list(program.graph_signature.user_inputs) == ["x", "rest_0", "rest_1", "z", "k"]
    values = [torch.full((3, 4), float(i)) for i in range(5)]
    run, expected = program.module(), variadic(*values[:3], k=values[3], z=values[4])
    assert torch.equal(run(*values[:3], k=values[3], z=values[4]), expected)
    assert torch.equal(run(*values[:3], z=values[4], k=values[3]), expected)

    def two(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b

    program = sf.export(two, (), {"b": X, "a": X})
    assert list(program.graph_signature.user_inputs) == ["b", "a"], "the order of the call"
    for args, kwargs in (((X, X + 1), {}), ((X,), {"b": X + 1}), ((), {"a": X, "b": X + 1})):
        assert torch.equal(program.module()(*args, **kwargs), X - (X + 1))


@pytest.mark.spec("2.21")
def test_the_backends_of_the_machine_do_not_show() -> None:
    module, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (torch.ones(1, 3, 8, 8),)
    texts = []
    for enabled in (True, False):
        before = torch.backends.mkldnn.is_available()
        with torch.backends.mkldnn.flags(enabled=enabled):
            texts.append(str(sf.export(module, x)))
            assert torch.backends.mkldnn.enabled is enabled  # type: ignore[attr-defined]
        assert torch.backends.mkldnn.is_available() is before
    assert texts[0] == texts[1] and "mkldnn" not in texts[0]


# -- the graph ------------------------------------------------------------------------------------


@pytest.mark.spec("2.13", "2.65")
def test_writes_stay_in_place_and_add_no_outputs() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(4))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.n.add_(1)
            y.mul_(2)
            return torch.relu_(x + y) + self.n

    program = sf.export(M(), (X, X.clone()))
    assert targets(program)[:2] == ["aten.add_.Tensor", "aten.mul_.Tensor"]
    assert "aten.relu_.default" in targets(program)
    assert [s.kind for s in program.graph_signature.output_specs] == [OutputKind.USER_OUTPUT]
    y = torch.ones(3, 4)
    program.module()(X, y)
    assert y.tolist() == [[2.0] * 4] * 3, "the caller's tensor is written, as by the module"


@pytest.mark.spec("2.56")
def test_no_operator_is_taken_apart() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(x).softmax(-1).reshape(3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(y, y, y)
            return torch.einsum("abc,dbc->ad", y, self.lstm(y)[0])

    found = targets(sf.export(M().eval(), (X,)))
    for name in ("batch_norm", "softmax.int", "scaled_dot_product_attention", "lstm", "einsum"):
        assert any(name in target for target in found), (name, found)


@pytest.mark.spec("2.52", "2.58", "2.72")
def test_changes_of_grad_mode_are_part_of_the_graph() -> None:
    """No region is refused for its mode, nested ones and those that change nothing included."""

    def f(x: torch.Tensor, w: torch.Tensor) -> Any:
        a = x * w
        with torch.no_grad():
            b = a * w
            with torch.enable_grad():
                c = b * w
            d = c * w
        with torch.enable_grad():
            e = d * w
        return a, b, c, d, e

    w = torch.full((4,), 2.0, requires_grad=True)
    want = [r.requires_grad for r in f(X, w)]
    assert want == [True, False, True, False, True]
    run = sf.export(f, (X, w)).module()
    assert [r.requires_grad for r in run(X, w)] == want
    with torch.no_grad():
        run_without = sf.export(f, (X, w)).module()
        assert [r.requires_grad for r in run_without(X, w)] == [
            r.requires_grad for r in f(X, w)
        ]  # fmt: skip
        assert not torch.is_grad_enabled()


def regions(x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.t()
        with torch.autocast("cpu", enabled=False):
            z = x @ x.t()
    return y, z, x @ x.t()


@torch.autocast("cpu", enabled=False)
def switched_off(x: torch.Tensor) -> Any:
    return (x @ x.t(),)


@pytest.mark.spec("2.72")
@pytest.mark.parametrize("f", [regions, switched_off])
def test_autocast_regions_are_casts_in_the_graph(f: Any, tmp_path: Path) -> None:
    before = torch.autocast.__enter__
    program = sf.export(f, (X,))
    assert torch.autocast.__enter__ is before
    sf.save(program, tmp_path / "m.still")
    for run in (program.module(), sf.load(tmp_path / "m.still").module()):
        for got, want in zip(run(X), f(X), strict=True):
            assert got.dtype == want.dtype and torch.equal(got, want)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with pytest.raises(sf.CallError, match="call it outside of torch.autocast"):
                run(X)


@pytest.mark.spec("2.72")
def test_autocast_of_the_caller() -> None:
    """Without regions of its own a program follows it; one around export is captured."""
    linear = nn.Linear(4, 4)
    program = sf.export(linear, (X,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(program.module()(X), linear(X))
        within = sf.export(nn.Sequential(linear), (X,))
        expected = linear(X)
    assert expected.dtype is torch.bfloat16 and torch.equal(within.module()(X), expected)


@pytest.mark.spec("2.73")
def test_inputs_and_outputs_come_from_no_line() -> None:
    program = sf.export(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (X,))
    for node in program.graph.nodes:
        at_the_edge = node.op in ("placeholder", "output")
        assert ("nn_module_stack" in node.meta) is not at_the_edge
        assert not at_the_edge or "stack_trace" not in node.meta


@pytest.mark.spec("2.60")
def test_a_graph_module_is_a_module() -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    traced.meta["owner"] = "somebody"
    program = sf.export(traced, (X,), dynamic_shapes=[{0: Dim("b")}])
    assert program.graph_module.meta["owner"] == "somebody"
    torch.testing.assert_close(program.module()(X[:2]), traced(X[:2]))


def origins(program: sf.ExportedProgram) -> list[tuple[str, Any, Any]]:
    return [
        (str(n.target), n.meta["nn_module_stack"], n.meta.get("stack_trace"))
        for n in calls(program)
    ]


@pytest.mark.spec("2.45")
def test_a_graph_captured_again_remembers_where_it_came_from() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.shape[0] + 1

    module = nn.Sequential(nn.Linear(4, 4), Inner())
    program = sf.export(module, (X,))
    flat = (*module.parameters(), X)
    again = sf.export(program.graph_module, flat)
    assert [o[0] for o in origins(again)] == [o[0] for o in origins(program)]
    assert origins(again) == origins(program)
    assert "return x * x.shape[0] + 1" in origins(again)[-1][2]
    torch.testing.assert_close(again.module()(*flat), (module(X),))
    program.graph_module.register_forward_hook(lambda m, a, out: (out[0] * 2,))
    doubled = sf.export(program.graph_module, flat).module()(*flat)
    torch.testing.assert_close(doubled, (module(X) * 2,))  # hooks run as ever


# -- outputs --------------------------------------------------------------------------------------


@pytest.mark.spec("2.12", "2.37", "2.49")
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.sum(),
        lambda x: (x.sum(),),
        lambda x: [x, x * 2],
        lambda x: {"b": x, "a": (x + 1, None)},
        lambda x: None,
        lambda x: torch.return_types.max((x, x.long())),
    ],
)
def test_results_have_the_form_of_the_module_s(f: Any) -> None:
    program = sf.export(f, (X,))
    output = next(reversed(program.graph.nodes))
    assert isinstance(output.args[0], tuple), "the graph returns a flat tuple"
    got, want = program.module()(X), f(X)
    assert pytree.tree_structure(got) == pytree.tree_structure(want) == program.out_spec
    for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.spec("2.61")
def test_what_outputs_are() -> None:
    def f(x: torch.Tensor) -> Any:
        n = x.shape[0]
        return x, n, n / 2, n > 7, 1, True, 2.5, None, "text"

    program = sf.export(f, (X,), dynamic_shapes=({0: Dim("b")},))
    arguments = [spec.arg for spec in program.graph_signature.output_specs]
    assert [type(a) for a in arguments[:4]] == [
        TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument,
    ]  # fmt: skip
    assert arguments[4:] == [ConstantArgument("", v) for v in (1, True, 2.5, None, "text")]
    assert type(arguments[5].value) is bool  # type: ignore[union-attr]
    assert program.module()(torch.ones(9, 4))[1:] == (9, 4.5, True, 1, True, 2.5, None, "text")
    with pytest.raises(sf.NotSupported, match=r"Output 1 of forward is of .*object"):
        sf.export(lambda x: (x, object()), (X,))


@pytest.mark.spec("2.64")
def test_an_output_may_be_an_input_or_appear_twice() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        y.add_(1)
        z = x * 2
        return x, y, z, z, x[0]

    program = sf.export(f, (X, X.clone()))
    names = [spec.arg.name for spec in program.graph_signature.output_specs]
    assert names == ["x", "add_", "mul", "mul", "select"]
    y = torch.zeros(3, 4)
    result = program.module()(X, y)
    assert result[0] is X and result[1] is y and result[2] is result[3]
    assert result[4].data_ptr() == X.data_ptr(), "a view stays a view"


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.spec("2.55")
@pytest.mark.parametrize("change", ["t_", "unsqueeze_", "resize_", "set_"])
def test_metadata_of_inputs_is_not_changed(change: str) -> None:
    arguments = {"unsqueeze_": (0,), "resize_": (2, 2), "set_": (torch.ones(2),)}

    def f(x: torch.Tensor) -> torch.Tensor:
        getattr(x, change)(*arguments.get(change, ()))
        return x + 1

    with pytest.raises(sf.NotSupported, match="changes the sizes or strides"):
        sf.export(f, (X.clone(),))


# -- asserts --------------------------------------------------------------------------------------


def checked(x: torch.Tensor, y: torch.Tensor) -> Any:
    n = x.nonzero().shape[0]
    m = y.nonzero().shape[0]
    torch._check(n + m >= 3, lambda: "three in all")
    torch._check(n >= 1)
    a = torch.zeros(n + m)
    torch._check(n + m <= 12)
    return a, x.sum()


@pytest.mark.spec("2.66", "2.68")
def test_asserts_stand_where_their_symbols_are_known_in_their_order() -> None:
    program = sf.export(checked, (torch.ones(10), torch.ones(10)))
    nodes = list(program.graph.nodes)
    asserts = [n for n in nodes if n.target is ASSERT]
    conditions = [to_size(n.args[0].meta["val"]) for n in asserts]  # type: ignore[union-attr]
    assert all(isinstance(c, Expr) for c in conditions) and len(conditions) == 3
    assert [str(c) for c in conditions] == ["u0 + u1 >= 3", "u0 >= 1", "u0 + u1 <= 12"]
    position = {n.name: i for i, n in enumerate(nodes)}
    assert position[asserts[1].name] < position["zeros"], "before what relies on it"
    sums = [n for n in nodes if "add" in n.name and n.op == "call_function"]
    assert len(sums) == 1, "a shared expression is computed once"
    run = program.module()
    two, none = torch.tensor([1.0, 1.0] + [0.0] * 8), torch.zeros(10)
    assert run(two, two)[0].numel() == 4
    for args, condition in (
        ((two, none), "u0 \\+ u1 >= 3|three in all"),
        ((none, two + 1), "u0 >= 1"),
    ):
        with pytest.raises(RuntimeError, match=condition):
            run(*args)


@pytest.mark.spec("2.66")
def test_asserts_of_the_inputs_alone_are_checks_of_the_call() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] > 2)
        return x * 2

    program = sf.export(f, (X,), dynamic_shapes=({0: Dim.AUTO},))
    assert ASSERT not in [n.target for n in calls(program)]
    with pytest.raises(sf.CallError, match="x: dim 0"):
        program.module()(X[:2])


@pytest.mark.spec("2.71")
def test_nodes_that_were_added_have_metadata_and_the_users_line() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = x.nonzero().shape[0]
            torch._check(n < 4)
            return torch.zeros(n)

    program = sf.export(nn.Sequential(nn.ReLU(), Inner()), (torch.ones(6),))
    (check,) = [n for n in calls(program) if n.target is ASSERT]
    (condition,) = check.all_input_nodes
    (size,) = condition.all_input_nodes
    for node in (check, condition, size):
        assert "val" in node.meta and len(node.meta["torch_fn"]) == 2
        assert list(node.meta["nn_module_stack"].values())[-1][0] == "1"
        assert "torch._check(n < 4)" in node.meta["stack_trace"]
    assert check.meta["val"] is None and str(to_size(condition.meta["val"])) == "u0 <= 3"
