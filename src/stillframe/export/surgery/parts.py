"""Which nodes a part of a program has: those of one call of a module, and what goes in and out."""

from __future__ import annotations

import difflib
from operator import getitem
from typing import Any

import torch

from stillframe.errors import InvalidInput
from stillframe.export.decompose import outputs_of
from stillframe.export.program import ExportedProgram
from stillframe.export.signature import (
    InputSpec,
    OutputKind,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from stillframe.export.surgery.memory import written_tensor
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr

SYMBOLIC_ARGUMENTS: dict[str, Any] = {
    "int": SymIntArgument, "float": SymFloatArgument, "bool": SymBoolArgument,
}  # fmt: skip
_USER_KINDS = (
    OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION, OutputKind.USER_INPUT_ATTRIBUTE,
)  # fmt: skip


def nodes_of_call(program: ExportedProgram, path: str, call: int) -> list[torch.fx.Node]:
    """The nodes of a call, in order."""
    calls: dict[Any, list[torch.fx.Node]] = {}
    runs: dict[str, int] = {}
    is_open: set[str] = set()
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if not stack:
            continue
        keys = {key for key, (at, _) in stack.items() if at == path and path}
        for key in keys - is_open:
            runs[key] = runs.get(key, -1) + 1
        is_open = keys
        for key in keys:
            calls.setdefault((key, runs[key]), []).append(node)
    found = list(calls.values())
    if not found:
        raise _no_module(program, path)
    if not 0 <= call < len(found):
        times = "once" if len(found) == 1 else f"{len(found)} times"
        raise InvalidInput(f"The module {path!r} is called {times}, so there is no call {call}.")
    return found[call]


def _no_module(program: ExportedProgram, path: str) -> InvalidInput:
    called: dict[str, None] = {}
    for node in program.graph.nodes:
        for at, _ in (node.meta.get("nn_module_stack") or {}).values():
            called[at] = None
    called.pop("", None)
    if path in {entry.fqn for entry in program.module_call_graph} and path:
        what = f"The module {path!r} has no operators in the program."
    else:
        what = f"The program has no module {path!r}."
    near = difflib.get_close_matches(path, called, 3)
    hints = [f"did you mean {', '.join(near)}?"] if near else []
    return InvalidInput(what, hints=hints or [f"modules: {', '.join([*called][:8])}"])


def completed(part: list[torch.fx.Node], graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """The part, with the elements that others take of its results and the subgraphs it uses.

    Elements are taken, and sizes computed, where they are first used, which may be in another
    module than what they are of.
    """
    inside = set(part)
    for node in graph.nodes:
        if node.target is getitem:
            change = inside.add if node.args[0] in inside else inside.discard
            change(node)
        elif _is_size(node) and not any(n in inside for n in node.all_input_nodes):
            inside.discard(node)
        if node.op == "get_attr" and any(user in inside for user in node.users):
            inside.add(node)
    return [node for node in graph.nodes if node in inside]


def used_from_outside(part: list[torch.fx.Node], inside: set[torch.fx.Node]) -> list[torch.fx.Node]:
    """The operands of the part that are not in it, in order of first use."""
    found: dict[torch.fx.Node, None] = {}
    for node in part:
        for operand in node.all_input_nodes:
            if operand not in inside:
                found[operand] = None
    return list(found)


def returned(
    program: ExportedProgram, inside: set[torch.fx.Node], state: dict[torch.fx.Node, InputSpec]
) -> list[tuple[torch.fx.Node, OutputSpec]]:
    """What the part returns: values that are written back, then those that others use."""
    output = next(reversed(program.graph.nodes))
    written: list[tuple[torch.fx.Node, OutputSpec]] = []
    for value, spec in zip(outputs_of(output), program.graph_signature.output_specs, strict=True):
        if isinstance(value, torch.fx.Node) and value in inside and spec.kind not in _USER_KINDS:
            written.append((value, spec))
    copied_back = {node for node, _ in written}
    plain = _plain_outputs(program, output)
    found: list[tuple[torch.fx.Node, OutputSpec]] = []
    for node in program.graph.nodes:
        if node in inside and _is_result(node) and written_tensor(node) not in state:
            users = [u for u in node.users if u not in inside and u is not output]
            is_output = node in plain or (output in node.users and node not in copied_back)
            if users or is_output:
                found.append((node, OutputSpec(OutputKind.USER_OUTPUT, _argument(node), None)))
    return [*written, *found]


def _plain_outputs(program: ExportedProgram, output: torch.fx.Node) -> set[torch.fx.Node]:
    pairs = zip(outputs_of(output), program.graph_signature.output_specs, strict=True)
    return {v for v, s in pairs if isinstance(v, torch.fx.Node) and s.kind in _USER_KINDS}


def _is_result(node: torch.fx.Node) -> bool:
    """A tensor, or a number that was read from data: other numbers are sizes."""
    value = node.meta.get("val")
    if isinstance(value, FakeTensor):
        return True
    return isinstance(to_size(value), Expr) and bool(node.meta.get("unbacked_bindings"))


def _is_size(node: torch.fx.Node) -> bool:
    """A number that is not read from data."""
    value = to_size(node.meta.get("val"))
    return isinstance(value, Expr) and not node.meta.get("unbacked_bindings")


def _argument(node: torch.fx.Node) -> Any:
    size = to_size(node.meta["val"])
    kind = SYMBOLIC_ARGUMENTS[size.sort] if isinstance(size, Expr) else TensorArgument
    return kind(node.name)
