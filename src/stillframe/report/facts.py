"""What there is to say about a program, as plain data: the tables and ``--json`` both read it."""

from __future__ import annotations

import collections
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe.export.listing import graph_lines, size_text, value_text
from stillframe.export.signature import InputKind

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram


@dataclass(frozen=True)
class DimFacts:
    """A dynamic dim: its name (or expression) and the sizes it may have; None means no limit."""

    name: str
    min: int | None
    max: int | None

    def __str__(self) -> str:
        low = "" if self.min is None else self.min
        return f"{self.name} {low}..{'' if self.max is None else self.max}"


@dataclass(frozen=True)
class StateFacts:
    """Tensors of one kind that the program carries."""

    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class ProgramFacts:
    """Everything that ``stillframe inspect`` shows.

    Attributes:
        root_class: the class of the module that was captured.
        inputs: (name, ``f32[batch, 8]``) of the user inputs, in order.
        outputs: the same for the results.
        dims: dynamic dims with their ranges, the named ones first.
        guards: conditions on sizes beyond the ranges.
        nodes: nodes of the graph, lifted state included.
        operators: calls by operator name, most frequent first.
        parameters, buffers, constants: what the program carries.
        notes: what the capture assumed that a reader should know.
        graph: the first lines of the listing, without the lifted state.
    """

    root_class: str
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    dims: list[DimFacts]
    guards: list[str]
    nodes: int
    operators: dict[str, int]
    parameters: StateFacts
    buffers: StateFacts
    constants: StateFacts
    notes: list[str]
    graph: list[str]

    def as_json(self) -> dict[str, Any]:
        """Only lists, dicts, strings and numbers."""
        data = asdict(self)
        data["inputs"] = [{"name": n, "type": t} for n, t in self.inputs]
        data["outputs"] = [{"name": n, "type": t} for n, t in self.outputs]
        return data

    @property
    def calls(self) -> int:
        """Nodes that call an operator."""
        return sum(self.operators.values())


def program_facts(program: ExportedProgram, *, graph_limit: int | None = 20) -> ProgramFacts:
    """Read the facts off ``program``; ``graph_limit`` cuts the listing (None: all lines)."""
    signature = program.graph_signature
    user = {s.arg.name for s in signature.input_specs if s.kind is InputKind.USER_INPUT}
    names = program.dim_names
    inputs = [
        (n.name, value_text(n.meta.get("val"), names))
        for n in program.graph.nodes
        if n.op == "placeholder" and n.name in user
    ]
    parameters = [program.state_dict[fqn] for fqn in signature.parameters]
    buffers = [_state(program, fqn) for fqn in signature.buffers]
    owned = {*signature.parameters, *signature.buffers}
    return ProgramFacts(
        root_class=program.root_class,
        inputs=inputs,
        outputs=_outputs(program),
        dims=dim_facts(program),
        guards=[size_text(g.expr, names) for g in program.guards],
        nodes=len(program.graph.nodes),
        operators=_operators(program),
        parameters=_state_facts(parameters),
        buffers=_state_facts(buffers),
        constants=_state_facts([v for k, v in program.constants.items() if k not in owned]),
        notes=list(program.notes),
        graph=_computation(program, graph_limit),
    )


def dim_facts(program: ExportedProgram) -> list[DimFacts]:
    """The dims with their ranges: the named symbols first, then what derives from them."""
    found = []
    for expr, bounds in program.range_constraints.items():
        low = None if bounds.lower == -math.inf else int(bounds.lower)
        high = None if bounds.upper == math.inf else int(bounds.upper)
        dim = DimFacts(size_text(expr, program.dim_names), low, high)
        found.append((str(expr) in program.dim_names, dim))
    found.sort(key=lambda row: not row[0])  # stable: otherwise in the order of the inputs
    return [dim for _, dim in found]


def _computation(program: ExportedProgram, limit: int | None) -> list[str]:
    """User inputs and calls: a listing that began with all weights would show nothing else."""
    lifted = {s.arg.name for s in program.graph_signature.input_specs if s.target is not None}
    lines = [line for line in graph_lines(program) if line.partition(":")[0] not in lifted]
    return lines if limit is None or len(lines) <= limit else [*lines[:limit], "..."]


def _outputs(program: ExportedProgram) -> list[tuple[str, str]]:
    results = next(n for n in reversed(program.graph.nodes) if n.op == "output").args[0]
    specs = program.graph_signature.output_specs
    found = []
    for spec, result in zip(specs, results, strict=True):
        value = result.meta.get("val") if isinstance(result, torch.fx.Node) else result
        name = spec.arg.name or "constant"
        kind = "" if spec.kind.name == "USER_OUTPUT" else f" ({spec.kind.name.lower()})"
        found.append((name + kind, value_text(value, program.dim_names)))
    return found


def _operators(program: ExportedProgram) -> dict[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for node in program.graph.nodes:
        if node.op == "call_function":
            target = node.target
            is_operator = isinstance(target, torch._ops.OpOverload)
            counts[str(target) if is_operator else getattr(target, "__name__", str(target))] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _state(program: ExportedProgram, fqn: str) -> Any:
    return program.state_dict[fqn] if fqn in program.state_dict else program.constants[fqn]


def _state_facts(tensors: list[Any]) -> StateFacts:
    """Tied tensors are counted once."""
    unique = {id(t): t for t in tensors if isinstance(t, torch.Tensor)}.values()
    return StateFacts(
        tensors=len(unique),
        elements=sum(t.numel() for t in unique),
        bytes=sum(t.numel() * t.element_size() for t in unique),
    )
