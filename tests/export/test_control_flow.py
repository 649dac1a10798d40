"""Programs with subgraphs: equal to eager, printed, checked, saved; what arms may not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from tests.corpora.control_flow import EXAMPLE, PROGRAMS, eager, traced
from torch import nn
from torch._higher_order_ops import scan, while_loop

import stillframe as sf

aten = torch.ops.aten
higher_order = torch.ops.higher_order


def exported(name: str) -> sf.ExportedProgram:
    return sf.export(traced(name), (EXAMPLE,), dynamic_shapes=({0: sf.Dim.AUTO},))


def check(module: Callable[..., Any], name: str) -> None:
    for run in control_flow.SAME_SIZES + control_flow.OTHER_SIZES:
        if name in control_flow.UNROLLED and run.shape != EXAMPLE.shape:
            with pytest.raises(sf.CallError):
                module(run)
        else:
            torch.testing.assert_close(module(run), eager(name)(run))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_equals_eager(name: str, tmp_path: Path) -> None:
    program = exported(name)
    check(program.module(), name)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    check(loaded.module(), name)
    assert str(loaded) == str(program)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_exported_again(name: str) -> None:
    program = exported(name)
    again = sf.export(program.module(), (EXAMPLE,), dynamic_shapes=({0: sf.Dim.AUTO},))
    check(again.module(), name)
    assert _subgraphs(again.graph_module) == _subgraphs(program.graph_module)


def _subgraphs(module: torch.fx.GraphModule) -> int:
    inner = [m for m in module.children() if isinstance(m, torch.fx.GraphModule)]
    return len(inner) + sum(map(_subgraphs, inner))


def test_a_make_fx_graph_is_exported() -> None:
    graph = sf.make_fx(traced("nested"), tracing_mode="fake", allow_non_fake_inputs=True)(EXAMPLE)
    module = sf.export(graph, (EXAMPLE,)).module()
    for run in control_flow.SAME_SIZES:
        torch.testing.assert_close(module(run), eager("nested")(run))


# -- modules --------------------------------------------------------------------------------------


class Arms(nn.Module):
    """Parameters in both arms, one of them shared, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("shift", torch.arange(3.0))

    def arm(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(self.right(x)) + self.shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, self.arm, self.right, (x,))

    def plain(self, x: torch.Tensor) -> torch.Tensor:
        return self.arm(x) if x.sum() > 0 else self.right(x)  # type: ignore[no-any-return]


@pytest.mark.spec("2.86")
def test_placeholders_of_subgraphs_have_the_names_of_operands() -> None:
    def f(rows: torch.Tensor, first: torch.Tensor) -> Any:
        step = torch.tensor(0)
        carry, _ = scan(lambda c, row: (c + row, c * row), first, rows)
        return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + carry), (step, rows))

    module = sf.export(f, (EXAMPLE, EXAMPLE[0].clone())).graph_module
    for name, names in {
        "scan_combine_graph_0": ["first", "rows"],
        "while_loop_body_graph_0": ["detach_", "rows", "getitem"],
    }.items():
        inner = getattr(module, name).graph
        assert [n.name for n in inner.find_nodes(op="placeholder")] == names


@pytest.mark.spec("2.78")
def test_parameters_of_arms_are_state_of_the_program() -> None:
    module = Arms()
    program = sf.export(module, (EXAMPLE,))
    assert set(program.state_dict) == set(module.state_dict())
    (node,) = program.graph.find_nodes(op="call_function", target=higher_order.cond)
    assert {n.name for n in node.args[3]} == {
        "x", "p_left_weight", "p_left_bias", "p_right_weight", "p_right_bias", "b_shift",
    }  # fmt: skip
    inner = program.graph_module.true_graph_0.graph
    linear = inner.find_nodes(op="call_function", target=aten.linear.default)
    assert [list(n.meta["nn_module_stack"]) for n in linear] == [
        ["L__self__", "L__self__.right"],
        ["L__self__", "L__self__.left"],
    ]


def test_autograd_goes_through_the_arm_that_runs() -> None:
    module = Arms()
    program = sf.export(module, (EXAMPLE,)).module()
    for run in control_flow.SAME_SIZES:
        module.zero_grad()
        module.plain(run).pow(2).sum().backward()
        want = {n: p.grad for n, p in module.named_parameters()}
        program.zero_grad()
        program(run).pow(2).sum().backward()
        for name, parameter in program.named_parameters():
            torch.testing.assert_close(parameter.grad, want[name])


def test_a_listing_shows_subgraphs_where_they_are_read() -> None:
    text = str(sf.export(Arms(), (EXAMPLE,)))
    assert "true_graph_0 = graph:\n      x: f32[4, 3]\n      p_right_weight: f32[3, 3]" in text
    assert "cond(gt, true_graph_0, false_graph_0, [x, p_right_weight" in text


def test_unused_operators_of_arms_are_removed() -> None:
    def arm(x: torch.Tensor) -> torch.Tensor:
        x.exp()
        return x.sin()

    program = sf.export(lambda x: torch.cond(x.sum() > 0, arm, lambda x: x * 2, (x,)), (EXAMPLE,))
    inner = program.graph_module.true_graph_0.graph
    assert [n.target for n in inner.nodes if n.op == "call_function"] == [aten.sin.default]


# -- what is around arms --------------------------------------------------------------------------


@torch.library.custom_op("hop_tests::positive_rows", mutates_args=())
def positive_rows(x: torch.Tensor) -> torch.Tensor:
    return x[x.sum(1) > 0].clone()


@positive_rows.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((torch.library.get_ctx().new_dynamic_size(), x.shape[1]))


Surrounded = Callable[[Any, torch.Tensor, int, Any], Any]
SURROUNDINGS: dict[str, Surrounded] = {}


def surrounding(f: Surrounded) -> Surrounded:
    SURROUNDINGS[f.__name__] = f
    return f


@surrounding
def an_input_is_written(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    x.add_(1)
    y = cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))
    x.mul_(3)
    return y + x


@surrounding
def a_buffer_is_written(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    m.total.add_(1)
    y = cond(x.sum() > 0, lambda x: x * m.total, lambda x: x - m.total, (x,))
    m.total.mul_(2)
    return y


@surrounding
def a_buffer_is_rebound(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    m.total = cond(x.sum() > 0, lambda: m.total + 1, lambda: m.total * 2)
    return x + m.total


@surrounding
def a_result_is_written(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    y = cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))
    y.add_(1)
    y[0] = 0
    return y + 1


@surrounding
def a_view_of_what_is_written_later(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    y = x.clone()
    row = y[0]
    z = cond(x.sum() > 0, lambda: row * 2, lambda: row - 1)
    y.add_(10)
    return z + row


@surrounding
def an_integer_among_the_inputs(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    y = cond(n > 3, lambda x: x * n, lambda x: x - n, (x,))
    return cond(x.sum() > 0, lambda: (y * n).sum(), lambda: y[:n].sum())


@surrounding
def floats_and_truth_values(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    top, many = x.max().item(), (x > 0).sum().item() > 6

    def arm(x: torch.Tensor) -> Any:
        return cond(many, lambda: x * top, lambda: x - 1)

    return cond(x.sum() > 0, arm, lambda x: x - top * 2, (x,))


@surrounding
def slices_by_numbers(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    k = (x > 0).sum().item() % 3 + 1
    return cond(x.sum() > 0, lambda x: x[:k].sum(), lambda x: x[k:].sum(), (x,))


@surrounding
def custom_operators(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    return cond(x.sum() > 0, lambda: positive_rows(x), lambda: positive_rows(-x) * 2)


@surrounding
def a_module_in_a_loop(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    if cond is control_flow.PLAIN.cond:
        return m.linear(m.linear(m.linear(x)))
    step = torch.tensor(0)
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, m.linear(y)), (step, x))[1]


@surrounding
def random_numbers(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    return cond(x.sum() > 0, lambda x: m.dropout(x), lambda x: x - torch.rand(3), (x,))


@surrounding
def both_arms_are_one_module(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    return cond(x.sum() > 0, m.linear, m.linear, (x,))


@surrounding
def a_result_that_nobody_uses(m: Any, x: torch.Tensor, n: int, cond: Any) -> Any:
    cond(x.sum() > 0, lambda: x * 1, lambda: x * 2)
    return x + 1


class Around(nn.Module):
    def __init__(self, f: Surrounded, cond: Any) -> None:
        super().__init__()
        self.f, self.cond = f, cond
        torch.manual_seed(0)
        self.linear, self.dropout = nn.Linear(3, 3), nn.Dropout(0.5)
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor, n: int) -> Any:
        return self.f(self, x, n, self.cond or torch.cond)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_is_around_arms(name: str) -> None:
    spec = ({0: sf.Dim.AUTO}, sf.Dim.AUTO)
    program = sf.export(Around(SURROUNDINGS[name], None), (EXAMPLE.clone(), 4), dynamic_shapes=spec)
    compare_around(name, program)


def compare_around(name: str, program: sf.ExportedProgram) -> None:
    """Results, random numbers, and what is written are those of the eager module."""
    module, plain = program.module(), Around(SURROUNDINGS[name], control_flow.PLAIN.cond)
    runs = control_flow.SAME_SIZES + control_flow.OTHER_SIZES
    for run, n in zip(runs, (4, 2, 5, 4, 2, 3), strict=True):
        ours, theirs = run.clone(), run.clone()
        torch.manual_seed(7)
        got = module(ours, n)
        torch.manual_seed(7)
        torch.testing.assert_close(got, plain(theirs, n))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(module.get_buffer("total"), plain.total)


# -- what holds for the whole program is checked in the whole program -----------------------------


def test_autocast_in_an_arm_refuses_an_autocast_outside() -> None:
    def arm(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ x.t()).float()

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, arm, lambda x: x @ x.t(), (x,))

    module = sf.export(f, (EXAMPLE,)).module()
    for run in control_flow.SAME_SIZES:
        want = arm(run) if run.sum() > 0 else run @ run.t()
        torch.testing.assert_close(module(run), want)
        with torch.autocast("cpu"), pytest.raises(sf.CallError, match="autocast is True"):
            module(run)


def test_the_value_of_a_buffer_that_an_arm_relies_on() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.cond(x.sum() > 0, lambda: x[: int(self.count)].sum(), lambda: x.max())
            return y * int(self.count)

    module = sf.export(M(), (EXAMPLE,)).module()
    torch.testing.assert_close(module(EXAMPLE), EXAMPLE[:2].sum() * 2)
    torch.testing.assert_close(module(-EXAMPLE), (-EXAMPLE).max() * 2)
    module.get_buffer("count").fill_(3)
    for run in (EXAMPLE, -EXAMPLE):
        with pytest.raises(RuntimeError, match="was made for the value 2"):
            module(run)


# -- refusals --------------------------------------------------------------------------------------


class Stateful(nn.Module):
    def __init__(self, change: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.change = change
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("total", torch.zeros(3))
        self.calls, self.kept = 0, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def arm(x: torch.Tensor) -> torch.Tensor:
            self.change(self, x)
            return x + 1

        return torch.cond(x.sum() > 0, arm, lambda x: x - 1, (x,))


def rebind(module: Any, x: torch.Tensor) -> None:
    module.total = module.total + x.sum(0)


def count(module: Any, x: torch.Tensor) -> None:
    module.calls += 1


EFFECTS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "changes a tensor from outside in place .*add_": lambda m, x: m.total.add_(x.sum(0)),
    "A tensor that a function of a higher-order operator made is used outside": rebind,
    "changes the attribute self.calls": count,
    "changes the attribute self.kept": lambda m, x: m.kept.append(x.sum()),
    "changes a tensor from outside in place": lambda m, x: m.norm(x),
}


@pytest.mark.parametrize("message", EFFECTS)
def test_effects_of_arms_are_refused_by_name(message: str) -> None:
    with pytest.raises(sf.SideEffectError, match=message):
        sf.export(Stateful(EFFECTS[message]), (EXAMPLE,))


# -- the verifier looks into subgraphs ------------------------------------------------------------


def a_method_call(inner: torch.fx.Graph, outer: torch.fx.Graph) -> None:
    with inner.inserting_before(next(reversed(inner.nodes))):
        inner.call_method("sin", (next(iter(inner.nodes)),)).meta["val"] = None


def a_node_without_metadata(inner: torch.fx.Graph, outer: torch.fx.Graph) -> None:
    del next(iter(inner.find_nodes(op="call_function", target=aten.linear.default))).meta["val"]


def no_output(inner: torch.fx.Graph, outer: torch.fx.Graph) -> None:
    inner.erase_node(next(reversed(inner.nodes)))


def a_subgraph_as_a_value(inner: torch.fx.Graph, outer: torch.fx.Graph) -> None:
    (reader, _) = outer.find_nodes(op="get_attr")
    with outer.inserting_after(reader):
        outer.call_function(aten.sin.default, (reader,)).meta["val"] = None


BROKEN = {
    "sin is a call_method": a_method_call,
    "has no metadata": a_node_without_metadata,
    "must end in an output": no_output,
    "uses the subgraph true_graph_0 as a value": a_subgraph_as_a_value,
}


@pytest.mark.parametrize("message", BROKEN)
@pytest.mark.spec("2.97")
def test_a_subgraph_that_breaks_a_rule(message: str) -> None:
    program = sf.export(Arms(), (EXAMPLE,))
    BROKEN[message](program.graph_module.true_graph_0.graph, program.graph)
    with pytest.raises(sf.SpecViolationError, match=message):
        program._replaced(graph_module=program.graph_module)
