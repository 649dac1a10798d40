"""The rules that every program keeps: each broken rule is told with the node or the name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe import torch_private
from stillframe.export.signature import InputKind, OutputKind, TensorArgument

aten = torch.ops.aten
Graph = torch.fx.Graph


class M(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(4))
        self.register_buffer("left", torch.ones(4), persistent=False)
        self.plain = torch.ones(4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x) + self.kept + self.left + self.plain, 1


@pytest.fixture(scope="module")
def program() -> sf.ExportedProgram:
    return sf.export(M(), (torch.ones(3, 4),))


def copied(graph: Graph) -> Graph:
    """A graph with the same nodes and metadata."""
    new = Graph()
    output = new.output(new.graph_copy(graph, {}))
    output.meta = dict(next(reversed(graph.nodes)).meta)
    return new


def named(graph: Graph, name: str) -> torch.fx.Node:
    return next(n for n in graph.nodes if n.name == name)


# -- the graph ------------------------------------------------------------------------------------


def no_value(graph: Graph) -> None:
    del named(graph, "linear").meta["val"]


def a_method_call(graph: Graph) -> None:
    node = named(graph, "linear")
    with graph.inserting_after(node):
        graph.call_method("relu", (node,)).meta["val"] = node.meta["val"]


def a_module_call(graph: Graph) -> None:
    node = named(graph, "linear")
    with graph.inserting_after(node):
        graph.create_node("call_module", "linear", (node,)).meta["val"] = node.meta["val"]


def an_attribute(graph: Graph) -> None:
    with graph.inserting_before(named(graph, "linear")):
        graph.create_node("get_attr", "weight").meta["val"] = None


def a_python_function(graph: Graph) -> None:
    named(graph, "linear").target = operator.matmul


def a_late_placeholder(graph: Graph) -> None:
    node = named(graph, "linear")
    with graph.inserting_after(node):
        graph.placeholder("late").meta["val"] = None


def another_order(graph: Graph) -> None:
    named(graph, "p_linear_weight").prepend(named(graph, "x"))


def a_nested_output(graph: Graph) -> None:
    output = next(reversed(graph.nodes))
    output.args = (output.args[0][0],)


def another_output(graph: Graph) -> None:
    output = next(reversed(graph.nodes))
    output.args = ((named(graph, "x"), 1),)


def a_constant_for_a_tensor(graph: Graph) -> None:
    next(reversed(graph.nodes)).args = ((2, 1),)


def one_output_less(graph: Graph) -> None:
    output = next(reversed(graph.nodes))
    output.args = (output.args[0][:1],)


BROKEN: list[tuple[Callable[[Graph], None], str]] = [
    (no_value, "node linear has no metadata `val`"),
    (a_method_call, "node relu is a call_method"),
    (a_module_call, "is a call_module"),
    (an_attribute, "reads weight, which is no subgraph"),
    (a_python_function, "node linear calls .*matmul.*, which is no operator"),
    (a_late_placeholder, "placeholder late comes after other nodes"),
    (another_order, "placeholder 0 of the graph and of the signature differ: .*x.*p_linear_weight"),
    (a_nested_output, "an output of a flat tuple"),
    (another_output, "output 0 is x, the signature says add_2"),
    (a_constant_for_a_tensor, "output 0 is the constant 2"),
    (one_output_less, "1 outputs in the graph, 2 in the signature"),
]


@pytest.mark.spec("2.97")
@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[c.__name__ for c, _ in BROKEN])
def test_a_graph_that_breaks_a_rule(
    program: sf.ExportedProgram, change: Callable[[Graph], None], message: str
) -> None:
    graph_module = torch_private.lazy_graph_module(copied(program.graph))
    program._replaced(graph_module=graph_module)
    change(graph_module.graph)
    with pytest.raises(sf.SpecViolationError, match=message):
        program._replaced(graph_module=graph_module)


@pytest.mark.spec("2.97")
def test_the_training_dialect_admits_writes_and_grad_switches() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x.add_(1)
        return x * x.shape[0]

    program = sf.export(f, (torch.ones(3),), dynamic_shapes=({0: sf.Dim("b")},))
    found = {n.target for n in program.graph.nodes if n.op == "call_function"}
    assert {aten.add_.Tensor, torch_private.set_grad_enabled, aten.sym_size.int} <= found


# -- the signature --------------------------------------------------------------------------------


def renamed(program: sf.ExportedProgram, old: str, new: str) -> sf.ExportedProgram:
    """The program with one placeholder called ``new`` in graph and signature."""
    graph = copied(program.graph)
    node = named(graph, old)
    node.name = node.target = new
    signature = replace(
        program.graph_signature, input_specs=list(program.graph_signature.input_specs)
    )
    signature.replace_all_uses(old, new)
    return program._replaced(
        graph_module=torch_private.lazy_graph_module(graph), graph_signature=signature
    )


@pytest.mark.spec("2.94")
def test_lifted_placeholders_bear_the_prefix_of_their_kind(program: sf.ExportedProgram) -> None:
    for old, prefix in (
        ("p_linear_weight", "p_"), ("b_kept", "b_"), ("b_left", "b_"), ("c_plain", "c_"),
    ):  # fmt: skip
        renamed(program, old, f"{prefix}another")
        with pytest.raises(
            sf.SpecViolationError, match=f"placeholder other .* begin with '{prefix}'"
        ):
            renamed(program, old, "other")
    renamed(program, "x", "anything"), renamed(program, "x", "p_linear_x")


@pytest.mark.spec("2.97", "2.40")
def test_state_is_where_its_kind_says(program: sf.ExportedProgram) -> None:
    state, constants = dict(program.state_dict), dict(program.constants)
    assert sorted(state) == ["kept", "linear.bias", "linear.weight"]
    assert sorted(constants) == ["left", "plain"]
    for fqn, table, message in (
        ("linear.bias", state, "PARAMETER linear.bias is not in the state_dict"),
        ("kept", state, "BUFFER kept is not in the state_dict"),
        ("left", constants, "BUFFER left is not in the constants"),
        ("plain", constants, "CONSTANT_TENSOR plain is not in the constants"),
    ):
        name = "state_dict" if table is state else "constants"
        with pytest.raises(sf.SpecViolationError, match=message):
            program._replaced(**{name: {k: v for k, v in table.items() if k != fqn}})
    for fqn in ("left", "plain"):
        with pytest.raises(sf.SpecViolationError, match=f"{fqn} is in the state_dict too"):
            program._replaced(state_dict={**state, fqn: constants[fqn]})


@pytest.mark.spec("2.97", "2.87")
def test_one_spec_for_each_placeholder(program: sf.ExportedProgram) -> None:
    signature = program.graph_signature
    fewer = replace(signature, input_specs=signature.input_specs[:-1])
    with pytest.raises(sf.SpecViolationError, match="placeholder 5 of the graph"):
        program._replaced(graph_signature=fewer)
    extra = replace(signature.input_specs[-1], arg=TensorArgument("y"))
    with pytest.raises(sf.SpecViolationError, match="placeholder 6 of the graph"):
        program._replaced(
            graph_signature=replace(signature, input_specs=[*signature.input_specs, extra])
        )
    assert [s.kind for s in signature.output_specs] == [OutputKind.USER_OUTPUT] * 2
    assert signature.input_specs[-1].kind is InputKind.USER_INPUT
    vals = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    assert [v.requires_grad for v in vals.values()] == [True, True, False, False, False, False]
