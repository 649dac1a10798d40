"""The rules that every program keeps, checked whenever one is made or loaded.

Graph: placeholders first and equal to the signature by name and order; every node has ``val``;
targets are registered operators or the symbolic arithmetic of the allow-list; outputs match the
signature by position. State: parameters and persistent buffers are in ``state_dict``,
non-persistent buffers and constants in ``constants``.

What more holds depends on the program's dialect: *training* admits operators that write in place;
in *functional* programs none writes, and the values that are written back lead the outputs; *core*
programs are functional, and their operators are core or cannot be taken apart further.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.errors import SpecViolationError
from stillframe.export.module_calls import named_nodes
from stillframe.export.naming import PREFIXES
from stillframe.export.signature import ConstantArgument, InputKind, OutputKind
from stillframe.export.subgraphs import nodes_of
from stillframe.export.tensor_attributes import is_custom, is_reserved
from stillframe.trace.decompositions import default_table, is_core
from stillframe.trace.operators import writes
from stillframe.trace.reads import OF_MODES, SAME, is_question

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

SYMBOLIC_TARGETS: frozenset[Any] = frozenset(
    {
        operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv,
        operator.mod, operator.pow, operator.truediv, operator.eq, operator.ne, operator.lt,
        operator.le, operator.and_, operator.or_, operator.neg,
        math.floor, math.ceil, math.trunc, round,
        torch.sym_max, torch.sym_min, torch.sym_float, torch.sym_int, torch.sym_not, torch.sym_ite,
        torch_private.set_grad_enabled, torch.is_grad_enabled,
    }
    | {f for n in dir(torch) if n.startswith("_sym_") and callable(f := getattr(torch, n))}
    | {getattr(math, n) for n in ("sqrt", "exp", "log", "sin", "cos", "tan", "log2", "pow")}
)  # fmt: skip


HIGHER_ORDER_TARGETS: frozenset[Any] = frozenset(torch_private.higher_order_operators().values())

TARGETS = (
    SYMBOLIC_TARGETS
    | HIGHER_ORDER_TARGETS
    | {
        torch_private.call_torchbind(),
        torch_private.with_effects(),
    }
)


def check(program: ExportedProgram) -> None:
    """Raise :class:`SpecViolationError` for the first rule that is broken, naming the node."""
    dialect = DIALECTS.get(program.dialect)
    if dialect is None:
        raise SpecViolationError(
            f"{program.dialect!r} is no dialect; there are {', '.join(sorted(DIALECTS))}."
        )
    _check_graph(program.graph, program.graph_module)
    _check_inputs(program)
    _check_outputs(program)
    _check_assumptions(program)
    _check_module_calls(program)
    for rule in dialect:
        for node in nodes_of(program.graph_module):
            if node.op == "call_function":
                rule(node)


def _check_functional(node: torch.fx.Node) -> None:
    if torch_private.has_ordered_effect(node.target):
        raise SpecViolationError(
            f"node {node.name} calls {node.target}, which has a side effect; in a functional "
            "program it takes a token: with_effects(token, operator, ...)."
        )
    if writes(node):
        raise SpecViolationError(
            f"node {node.name} calls {node.target}, which writes in place; in a functional program "
            "no operator does. Use the functional operator, and return the new value as an output."
        )


def _check_core(node: torch.fx.Node) -> None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    if not is_core(target) and default_table().get(target) is not None:
        raise SpecViolationError(
            f"node {node.name} calls {target}, which is no core operator. Take it apart: "
            "program.run_decompositions()."
        )


DIALECTS: dict[str, tuple[Callable[[torch.fx.Node], None], ...]] = {
    "training": (),
    "functional": (_check_functional,),
    "core": (_check_functional, _check_core),
}

_WRITTEN_BACK = (
    OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION,
)  # fmt: skip


_EFFECTS = (*_WRITTEN_BACK, OutputKind.TOKEN, OutputKind.USER_INPUT_ATTRIBUTE)


def _check_assumptions(program: ExportedProgram) -> None:
    placeholders = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    for assumption in program.assumptions:
        about, what = assumption.about, assumption.what
        if what == SAME and about:
            _check_identity(assumption.value, placeholders)
        elif not (is_question(what) if about else what in OF_MODES):
            raise SpecViolationError(f"an assumption asks for {what!r}, which is no question.")
        if about and not isinstance(placeholders.get(about), torch.Tensor):
            raise SpecViolationError(f"an assumption is about {about!r}, which is no tensor input.")


def _check_identity(value: Any, placeholders: dict[str, Any]) -> None:
    """``(another placeholder, whether it is the same tensor)``."""
    well_formed = isinstance(value, tuple) and len(value) == 2 and type(value[1]) is bool
    if not well_formed or not isinstance(placeholders.get(value[0]), torch.Tensor):
        raise SpecViolationError(
            f"an assumption compares with {value!r}, which is no tensor input."
        )


def _check_module_calls(program: ExportedProgram) -> None:
    """Call signatures of submodules speak of nodes of the graph, and fit their structures."""
    names = {n.name for n in program.graph.nodes}
    for entry in program.module_call_graph:
        signature = entry.signature
        if signature is None or not entry.fqn:
            continue
        leaves = (signature.in_spec.num_leaves, signature.out_spec.num_leaves)
        if leaves != (len(signature.inputs), len(signature.outputs)):
            raise SpecViolationError(
                f"the call signature of {entry.fqn} does not fit its structures."
            )
        for name in named_nodes(signature):
            if name not in names:
                raise SpecViolationError(
                    f"the call signature of {entry.fqn} names {name}, which is no node."
                )


def _check_graph(graph: torch.fx.Graph, owner: torch.nn.Module) -> None:
    past_placeholders = False
    for node in graph.nodes:
        if node.op == "placeholder":
            if past_placeholders:
                raise SpecViolationError(f"placeholder {node.name} comes after other nodes.")
        elif node.op == "call_function":
            past_placeholders = True
            target = node.target
            if not isinstance(target, torch._ops.OpOverload) and target not in TARGETS:
                raise SpecViolationError(f"node {node.name} calls {target}, which is no operator.")
        elif node.op == "get_attr":
            past_placeholders = True
            _check_subgraph(node, owner)
        elif node.op != "output":
            raise SpecViolationError(
                f"node {node.name} is a {node.op}; only operators are allowed."
            )
        if "val" not in node.meta:
            raise SpecViolationError(f"node {node.name} has no metadata `val`.")


def _check_subgraph(node: torch.fx.Node, owner: torch.nn.Module) -> None:
    """An attribute is a subgraph, keeps the rules itself, and goes to higher-order operators."""
    module = getattr(owner, str(node.target), None)
    if not isinstance(module, torch.fx.GraphModule):
        raise SpecViolationError(f"node {node.name} reads {node.target}, which is no subgraph.")
    for user in node.users:
        if user.target not in HIGHER_ORDER_TARGETS:
            raise SpecViolationError(f"node {user.name} uses the subgraph {node.name} as a value.")
    _check_graph(module.graph, module)
    last = next(reversed(module.graph.nodes))
    if last.op != "output":
        raise SpecViolationError(
            f"the subgraph {node.name} must end in an output, and ends in {last.format_node()}."
        )


def _check_inputs(program: ExportedProgram) -> None:
    names = [n.name for n in program.graph.nodes if n.op == "placeholder"]
    specs = program.graph_signature.input_specs
    stated = [s.arg.name for s in specs]
    if names != stated:
        shorter = min(len(names), len(stated))
        at = next((i for i in range(shorter) if names[i] != stated[i]), shorter)
        raise SpecViolationError(
            f"placeholder {at} of the graph and of the signature differ: "
            f"{names[at : at + 1]} and {stated[at : at + 1]}."
        )
    for spec in specs:
        if not spec.arg.name.startswith(PREFIXES[spec.kind]):
            raise SpecViolationError(
                f"placeholder {spec.arg.name} of kind {spec.kind.name} must begin with "
                f"{PREFIXES[spec.kind]!r}."
            )
        _check_state(program, spec)


def _check_state(program: ExportedProgram, spec: Any) -> None:
    in_state = spec.kind is InputKind.PARAMETER or (
        spec.kind is InputKind.BUFFER and spec.persistent
    )
    in_constants = spec.kind in (InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ) or (
        spec.kind is InputKind.BUFFER and not spec.persistent
    )
    if in_state and spec.target not in program.state_dict:
        raise SpecViolationError(f"{spec.kind.name} {spec.target} is not in the state_dict.")
    if in_constants and spec.target not in program.constants:
        raise SpecViolationError(f"{spec.kind.name} {spec.target} is not in the constants.")
    if in_constants and spec.target in program.state_dict:
        raise SpecViolationError(f"{spec.kind.name} {spec.target} is in the state_dict too.")


def _check_outputs(program: ExportedProgram) -> None:
    output = next(reversed(program.graph.nodes))
    if output.op != "output" or not isinstance(output.args[0], (tuple, list)):
        raise SpecViolationError("the graph must end in an output of a flat tuple.")
    values = output.args[0]
    specs = program.graph_signature.output_specs
    if len(values) != len(specs):
        raise SpecViolationError(
            f"{len(values)} outputs in the graph, {len(specs)} in the signature."
        )
    _check_written_back(program)
    for i, (value, spec) in enumerate(zip(values, specs, strict=True)):
        if isinstance(value, torch.fx.Node):
            if spec.arg.name != value.name:
                raise SpecViolationError(
                    f"output {i} is {value.name}, the signature says {spec.arg.name}."
                )
        elif not isinstance(spec.arg, ConstantArgument):
            raise SpecViolationError(
                f"output {i} is the constant {value!r}, the signature says {spec.arg}."
            )


def _check_written_back(program: ExportedProgram) -> None:
    """The values that change something come first, and what they change exists."""
    specs = program.graph_signature.output_specs
    count = sum(1 for s in specs if s.kind in _EFFECTS)
    tensors = {
        n.name for n in program.graph.nodes
        if n.op == "placeholder" and isinstance(n.meta["val"], torch.Tensor)
    } & set(program.graph_signature.user_inputs)  # fmt: skip
    targets = {
        s.arg.name if s.kind is InputKind.USER_INPUT else s.target
        for s in program.graph_signature.input_specs
    }
    for i, spec in enumerate(specs):
        if spec.kind in _EFFECTS and i >= count:
            raise SpecViolationError(
                f"output {i} ({spec.kind.name}) must come before the outputs of the user."
            )
        if spec.kind in _WRITTEN_BACK and spec.target not in targets:
            raise SpecViolationError(
                f"output {i} is copied back to {spec.target}, which is no input of the program."
            )
        if spec.attribute is not None and (spec.target not in tensors or not _free(spec.attribute)):
            raise SpecViolationError(
                f"output {i} is set as {spec.target}.{spec.attribute}, which is no attribute that "
                "a tensor input can be given."
            )


def _free(attribute: str) -> bool:
    """Whether tensors have nothing of their own under this name."""
    return is_custom(attribute) and not is_reserved(attribute) and attribute != "__dict__"
