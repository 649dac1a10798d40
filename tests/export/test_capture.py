"""The torch-level capture: nodes for what the user called, equal to eager at other sizes."""

from __future__ import annotations

import copy
import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.export.capture_programs import PROGRAMS, Doubled, Program
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.fake.tensor import FakeTensor

BATCH = sf.Dim("n", min=2)


def _spec(program: Program) -> Any:
    args = program.inputs(5)
    return tuple({0: BATCH} for _ in args) if program.dynamic else None


def _captured(program: Program, **options: Any) -> torch.fx.GraphModule:
    args = program.inputs(5)
    return sf.capture(program.function, args, dynamic_shapes=_spec(program), **options)


def _sizes(program: Program) -> tuple[int, ...]:
    return (5, 3, 8) if program.dynamic else (5,)


def _check_equal(got: Any, want: Any) -> None:
    got_leaves, got_spec = pytree.tree_flatten(got)
    want_leaves, want_spec = pytree.tree_flatten(want)
    assert got_spec == want_spec
    for a, b in zip(got_leaves, want_leaves, strict=True):
        if isinstance(b, Tensor):
            assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
            assert a.requires_grad == b.requires_grad
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        else:
            assert type(a) is type(b) and a == b


def _check_calls(program: Program, function: Any) -> None:
    """The same results and the same changes of the inputs as eager, random numbers included."""
    for size in _sizes(program):
        args = program.inputs(size)
        others = copy.deepcopy(args)
        torch.manual_seed(1)
        want = program.function(*args)
        torch.manual_seed(1)
        _check_equal(function(*others), want)
        _check_equal(others, args)


def _targets(module: torch.fx.GraphModule) -> list[Any]:
    return [n.target for n in module.graph.nodes if n.op.startswith("call_")]


@pytest.mark.spec("2.14")
@pytest.mark.parametrize("level", ["torch", "aten"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_graphs_equal_eager(name: str, level: str) -> None:
    program = PROGRAMS[name]
    graph = _captured(program, level=level)
    _check_calls(program, graph)
    _check_calls(program, copy.deepcopy(graph))
    assert str(graph.graph) and graph.code


@pytest.mark.spec("2.33")
@pytest.mark.parametrize("name", PROGRAMS)
def test_strict_graphs_equal_eager(name: str) -> None:
    program = PROGRAMS[name]
    _check_calls(program, _captured(program, strict=True))


@pytest.mark.parametrize("name", [n for n, p in PROGRAMS.items() if not p.random])
def test_graphs_are_captured_again(name: str) -> None:
    program = PROGRAMS[name]
    graph = _captured(program)
    exported = sf.export(graph, program.inputs(5), dynamic_shapes=_spec(program)).module()
    again = sf.capture(graph, program.inputs(5), dynamic_shapes=_spec(program))
    traced = sf.make_fx(graph, tracing_mode="fake", allow_non_fake_inputs=True)
    assert len(traced(*program.inputs(5)).graph.nodes) > 1
    for size in _sizes(program):
        for function in (exported, again):
            args = program.inputs(size)
            others = copy.deepcopy(args)
            _check_equal(function(*others), program.function(*args))


# -- what the nodes are ----------------------------------------------------------------------------


def test_operators_of_python_are_told_from_methods() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        z = x.add(y) + y
        z = 1 - z.sub(y)
        z -= y
        return z.sub_(x) @ y.T.matmul(x) > 0

    graph = sf.capture(function, (torch.randn(3, 3), torch.randn(3, 3)))
    assert _targets(graph) == [
        "add", operator.add, "sub", operator.sub, operator.isub, "sub_", getattr, "matmul",
        operator.matmul, operator.gt,
    ]  # fmt: skip


def test_functions_of_torch_are_whole() -> None:
    def function(x: Tensor) -> Tensor:
        x = F.dropout(F.relu(F.layer_norm(x, (4,))), training=False)
        return torch.einsum("ij,kj->ik", x, torch.stack([x[0], x[1]]))

    graph = sf.capture(function, (torch.randn(3, 4),))
    assert _targets(graph) == [
        F.layer_norm, F.relu, F.dropout, operator.getitem, operator.getitem, torch.stack,
        torch.functional.einsum,
    ]  # fmt: skip


def test_sizes_are_methods_and_made_once() -> None:
    def function(x: Tensor) -> Tensor:
        return x.view(x.shape[0] * 2, 2) + torch.zeros(x.size(0) * 2, 1)

    graph = sf.capture(function, (torch.randn(3, 4),), dynamic_shapes=({0: BATCH},))
    assert _targets(graph).count("size") == 1
    (view,) = (n for n in graph.graph.nodes if n.target == "view")
    assert str(view.meta["val"].shape[0]) == "2*n" or "2" in str(view.meta["val"].shape[0])
    assert not sf.capture(lambda x: x.sum(), (torch.randn(3),)).graph.find_nodes(
        op="call_method", target="size"
    )


def test_level_aten_has_operators_only() -> None:
    graph = sf.capture(lambda x: F.relu(x + 1).T, (torch.randn(3, 4),), level="aten")
    aten = torch.ops.aten
    assert _targets(graph) == [aten.add.Tensor, aten.relu.default, aten.numpy_T.default]


def test_a_higher_order_operator_takes_subgraphs() -> None:
    graph = _captured(PROGRAMS["closing_cond"])
    (node,) = (n for n in graph.graph.nodes if n.target is torch.ops.higher_order.cond)
    assert [a.op for a in node.args[1:3]] == ["get_attr", "get_attr"]
    assert isinstance(graph.get_submodule(node.args[1].target), torch.fx.GraphModule)


def test_an_autograd_function_keeps_its_backward() -> None:
    graph = sf.capture(lambda x: Doubled.apply(x) + 1, (torch.randn(3),))
    assert len(_targets(graph)) == 2
    x = torch.randn(3, requires_grad=True)
    graph(x).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 3.0))


def test_gradients_are_those_of_eager() -> None:
    model = _Model()
    graph = sf.capture(model, (torch.randn(3, 4),), dynamic_shapes={"x": {0: BATCH}})
    x, y = (t.requires_grad_() for t in (torch.ones(2, 4), torch.ones(2, 4)))
    model(x)["y"].sum().backward()
    want = model.encoder.weight.grad
    model.encoder.weight.grad = None
    graph(y)["y"].sum().backward()
    assert torch.equal(x.grad, y.grad) and torch.equal(model.encoder.weight.grad, want)


def test_grad_mode_is_that_of_the_caller_after_a_region() -> None:
    graph = _captured(PROGRAMS["grad_switch"])
    with torch.no_grad():
        x = torch.randn(3, 4, requires_grad=True)
        assert not graph(x).requires_grad and not torch.is_grad_enabled()
    assert graph(x).requires_grad
    with torch.no_grad():
        captured_off = _captured(PROGRAMS["no_grad"])
    assert captured_off(x).requires_grad and torch.is_grad_enabled()


def test_autocast_regions_are_entered_and_left() -> None:
    graph = _captured(PROGRAMS["autocast"])
    names = [getattr(t, "__name__", t) for t in _targets(graph)]
    assert names.count("_enter_autocast") == names.count("_exit_autocast") == 2
    graph(torch.randn(3, 4))
    assert not torch.is_autocast_enabled("cpu")


# -- state, signature, metadata --------------------------------------------------------------------


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.encoder.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.scale = torch.full((4,), 2.0)

    def forward(self, x: Tensor, *, shift: Tensor | None = None, flag: bool = True) -> Any:
        self.count.add_(1)
        y = self.norm(self.encoder(x)) * self.scale + self.table
        y = self.tied(y) if flag else y
        return {"y": y if shift is None else y + shift, "sizes": (x.shape[0], None)}


@pytest.mark.spec("2.30")
def test_state_is_the_modules_own_by_its_names() -> None:
    model = _Model().eval()
    graph = sf.capture(model, (torch.randn(3, 4),))
    assert list(graph.state_dict()) == list(model.state_dict())
    assert graph.encoder.weight is model.encoder.weight is graph.tied.weight
    assert dict(graph.named_buffers())["table"] is model.table and not graph.training
    reads = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
    assert reads.count("encoder.weight") == 1 and {"scale", "table", "tied.bias"} <= set(reads)
    graph(torch.randn(3, 4))
    assert model.count == 1


def test_a_buffer_that_is_assigned_is_written() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.total = self.total + x
            return self.total * 2

    model = Counter()
    graph = sf.capture(model, (torch.ones(4),))
    assert torch.equal(graph(torch.ones(4)), torch.full((4,), 2.0))
    assert torch.equal(graph(torch.ones(4)), torch.full((4,), 4.0))
    assert torch.equal(graph.total, torch.full((4,), 2.0))


@pytest.mark.spec("2.10")
def test_the_signature_is_the_original_one() -> None:
    model = _Model().eval()
    x = torch.randn(3, 4)
    plain = sf.capture(model, (x,))
    assert plain.meta["forward_arg_names"] == ["x"]
    _check_equal(plain(x=x), model(x))
    _check_equal(plain(x, flag=True), model(x))
    with pytest.raises(sf.CallError, match="flag"):
        plain(x, flag=False)
    shifted = sf.capture(model, (x,), {"shift": torch.ones(4)})
    assert shifted.meta["forward_arg_names"] == ["x", "shift"]
    _check_equal(shifted(x, shift=torch.ones(4)), model(x, shift=torch.ones(4)))


def test_containers_go_in_and_out() -> None:
    def function(pair: Any, *rest: Tensor, table: dict[str, Tensor]) -> Any:
        return [pair[0] + table["b"], {"k": (pair[1][0] * rest[1], rest[0])}]

    def arguments(n: int) -> Any:
        x = torch.arange(n * 2.0).view(n, 2)
        return ((x, [x + 1]), x + 2, x + 3), {"table": {"b": x + 4}}

    args, kwargs = arguments(3)
    sizes = {"pair": ({0: BATCH}, [{0: BATCH}]), "rest": ({0: BATCH},) * 2}
    spec = {**sizes, "table": {"b": {0: BATCH}}}
    graph = sf.capture(function, args, kwargs, dynamic_shapes=spec)
    args, kwargs = arguments(5)
    _check_equal(graph(*args, **kwargs), function(*args, **kwargs))


@pytest.mark.spec("3.50")
def test_nodes_know_where_they_come_from() -> None:
    graph = sf.capture(_Model().eval(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: BATCH}})
    calls = [n for n in graph.graph.nodes if n.op.startswith("call_")]
    stacks = {str(n.target): list(n.meta["nn_module_stack"].values())[-1][0] for n in calls}
    assert "encoder" in {list(n.meta["nn_module_stack"].values())[-1][0] for n in calls}, stacks
    assert all("val" in n.meta for n in graph.graph.nodes if n.op != "output")
    linear = next(n for n in calls if n.target is F.linear)
    assert "self.norm(self.encoder(x))" in linear.meta["stack_trace"]
    assert linear.meta["torch_fn"] == ("linear_1", "builtin_function_or_method.linear")
    assert isinstance(linear.meta["val"], FakeTensor)
    assert isinstance(linear.meta["val"].shape[0], torch.SymInt)


@pytest.mark.spec("2.88")
def test_call_specs_of_preserved_submodules() -> None:
    model = _Model().eval()
    graph = sf.capture(model, (torch.randn(3, 4),), preserve_module_call_signature=("encoder",))
    (spec,) = graph.meta["module_call_specs"].values()
    assert list(graph.meta["module_call_specs"]) == ["encoder"]
    assert spec["out_spec"].is_leaf() and spec["in_spec"].num_leaves == 1


def test_ranges_are_in_the_metadata() -> None:
    graph = _captured(PROGRAMS["item"])
    assert len(graph.meta["inline_constraints"]) == 1
    assert len(graph.meta["range_constraints"]) == 2


def test_passes_may_rewrite_the_graph() -> None:
    graph = sf.capture(lambda x: F.relu(x) + 1, (torch.randn(3, 4),))
    for node in graph.graph.nodes:
        if node.target is F.relu:
            node.target = F.gelu
            node.kwargs = {}
    graph.recompile()
    x = torch.randn(3, 4)
    assert torch.equal(graph(x), F.gelu(x) + 1)
    again = torch.fx.symbolic_trace(graph)
    assert torch.equal(again(x), F.gelu(x) + 1)
    assert torch.equal(torch.fx.Interpreter(graph).run(x), F.gelu(x) + 1)


# -- refusals --------------------------------------------------------------------------------------


def test_a_guard_that_narrows_is_an_error() -> None:
    with pytest.raises(sf.ConstraintViolationError, match="n"):
        sf.capture(
            lambda x: x + 1 if x.shape[0] > 3 else x,
            (torch.randn(5, 2),),
            dynamic_shapes=({0: BATCH},),
        )


@pytest.mark.parametrize(
    "arguments",
    [(torch.randn(3, 5),), (torch.randn(1, 4),), (torch.randn(3, 4, dtype=torch.float64),)],
)
def test_calls_that_the_capture_excludes_are_refused(arguments: Any) -> None:
    graph = _captured(PROGRAMS["expand"])
    with pytest.raises(sf.CallError, match="x"):
        graph(*arguments)


@pytest.mark.parametrize("strict", [False, True])
def test_answers_of_questions_are_conditions_of_calls(strict: bool) -> None:
    graph = sf.capture(
        lambda x: x * 2 if x.requires_grad else x - 1, (torch.randn(3),), strict=strict
    )
    with pytest.raises(sf.CallError, match="requires_grad"):
        graph(torch.randn(3, requires_grad=True))
    modes = sf.capture(
        lambda x: x * 2 if torch.is_grad_enabled() else x, (torch.randn(3),), strict=strict
    )
    with pytest.raises(sf.CallError), torch.no_grad():
        modes(torch.randn(3))


class _Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("steps", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2 if self.weight.requires_grad else x
        return x * self.weight * self.steps.item()


def test_what_the_run_asked_of_state_is_checked() -> None:
    model = _Frozen()
    graph = sf.capture(model, (torch.ones(3),))
    assert torch.equal(graph(torch.ones(3)), torch.full((3,), 4.0))
    model.steps.fill_(3)
    with pytest.raises(RuntimeError, match="the value 2 of steps"):
        graph(torch.ones(3))
    model.steps.fill_(2)
    model.weight.requires_grad_(False)
    with pytest.raises(sf.CallError, match="self.weight: requires_grad"):
        graph(torch.ones(3))


def test_prints_are_in_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    def function(x: Tensor) -> Tensor:
        torch.ops.higher_order.print("sum {total}", total=x.sum())
        return x + 1

    graph = sf.capture(function, (torch.ones(3),))
    capsys.readouterr()
    graph(torch.ones(3))
    assert "sum" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: x + 1 if x.sum() > 0 else x, sf.DataDependentError),
        (lambda x: x + torch.from_numpy(x.numpy()), sf.NotSupported),
        (lambda x: x + x.data_ptr(), sf.NotSupported),
        (lambda x: torch.autograd.grad(x.sum(), x)[0], sf.NotSupported),
    ],
)
def test_what_escapes_is_refused(function: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        sf.capture(function, (torch.randn(3, 4),))


def test_changes_of_python_state_are_refused() -> None:
    seen: list[int] = []

    def function(x: Tensor) -> Tensor:
        seen.append(1)
        return x + 1

    with pytest.raises(sf.SideEffectError, match="seen"):
        sf.capture(function, (torch.randn(3),))


def test_checks_of_data_stay() -> None:
    graph = _captured(PROGRAMS["item"])
    with pytest.raises(RuntimeError, match="u0"):
        graph(-torch.ones(3, 4))


def test_an_active_autocast_is_refused() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(sf.NotSupported, match="autocast"):
            sf.capture(lambda x: x @ x, (torch.randn(3, 3),))


def test_arguments_are_checked() -> None:
    with pytest.raises(sf.InvalidInput, match="level is one of torch, aten; got 'fx'"):
        sf.capture(lambda x: x, (torch.randn(3),), level="fx")
    with pytest.raises(sf.InvalidInput, match="tuple"):
        sf.capture(lambda x: x, torch.randn(3))  # type: ignore[arg-type]


def test_an_error_of_the_function_is_its_own() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sf.capture(function, (torch.randn(3),))
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
