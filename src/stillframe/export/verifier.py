"""The rules that every program keeps, checked whenever one is made or loaded.

Graph: placeholders first and equal to the signature by name and order; every node has ``val``;
targets are registered operators or the symbolic arithmetic of the allow-list; outputs match the
signature by position. State: parameters and persistent buffers are in ``state_dict``,
non-persistent buffers and constants in ``constants``.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.errors import SpecViolationError
from stillframe.export.naming import PREFIXES
from stillframe.export.signature import ConstantArgument, InputKind

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

SYMBOLIC_TARGETS: frozenset[Any] = frozenset(
    {
        operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv,
        operator.mod, operator.pow, operator.truediv, operator.eq, operator.ne, operator.lt,
        operator.le, operator.and_, operator.or_, operator.neg,
        math.floor, math.ceil, math.trunc, round,
        torch.sym_max, torch.sym_min, torch.sym_float, torch.sym_int, torch.sym_not, torch.sym_ite,
        torch_private.set_grad_enabled, torch_private.any_autocast_enabled,
        torch.is_grad_enabled,
    }
    | {f for n in dir(torch) if n.startswith("_sym_") and callable(f := getattr(torch, n))}
    | {getattr(math, n) for n in ("sqrt", "exp", "log", "sin", "cos", "tan", "log2", "pow")}
)  # fmt: skip


def check(program: ExportedProgram) -> None:
    """Raise :class:`SpecViolationError` for the first rule that is broken, naming the node."""
    _check_graph(program.graph)
    _check_inputs(program)
    _check_outputs(program)


def _check_graph(graph: torch.fx.Graph) -> None:
    past_placeholders = False
    for node in graph.nodes:
        if node.op == "placeholder":
            if past_placeholders:
                raise SpecViolationError(f"placeholder {node.name} comes after other nodes.")
        elif node.op == "call_function":
            past_placeholders = True
            target = node.target
            if not isinstance(target, torch._ops.OpOverload) and target not in SYMBOLIC_TARGETS:
                raise SpecViolationError(f"node {node.name} calls {target}, which is no operator.")
        elif node.op != "output":
            raise SpecViolationError(
                f"node {node.name} is a {node.op}; only operators are allowed."
            )
        if "val" not in node.meta:
            raise SpecViolationError(f"node {node.name} has no metadata `val`.")


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
    in_constants = spec.kind is InputKind.CONSTANT_TENSOR or (
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
