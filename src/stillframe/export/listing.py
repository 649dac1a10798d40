"""A program as text: signature, dims with ranges, and the graph with shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from stillframe.export.signature import (
    ConstantArgument,
    CustomObjArgument,
    OutputKind,
    OutputSpec,
)
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr, Range, substitute, symbol, to_python

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

_SHORT = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8",
    torch.uint8: "u8", torch.bool: "b8", torch.complex64: "c64", torch.complex128: "c128",
}  # fmt: skip


# How a listing says what an output is for, apart from the user's.
_ROLES = {
    OutputKind.BUFFER_MUTATION: "becomes",
    OutputKind.PARAMETER_MUTATION: "becomes",
    OutputKind.USER_INPUT_MUTATION: "becomes",
    OutputKind.USER_INPUT_ATTRIBUTE: "becomes",
    OutputKind.GRADIENT_TO_PARAMETER: "has the gradient",
    OutputKind.GRADIENT_TO_USER_INPUT: "has the gradient",
}


def size_text(size: Any, dim_names: dict[str, str]) -> str:
    """A size in the user's names of the dims."""
    if not isinstance(size, Expr):
        return str(size)
    names = {s: symbol(dim_names.get(str(s), str(s)), s.sort) for s in size.free_symbols}
    return to_python(substitute(size, names))


def range_text(bounds: Range) -> str:
    """``2..512``, ``2..`` where there is no upper bound."""
    upper = "" if bounds.upper == math.inf else int(bounds.upper)
    lower = "" if bounds.lower == -math.inf else int(bounds.lower)
    return f"{lower}..{upper}"


def value_text(value: Any, dim_names: dict[str, str]) -> str:
    """``f32[batch, 128]`` for a fake tensor; numbers as themselves."""
    if isinstance(value, FakeTensor):
        sizes = ", ".join(size_text(s, dim_names) for s in value.sizes)
        kind = "" if value.sparse is None else f"{str(value.sparse.layout).removeprefix('torch.')} "
        dtype = _SHORT.get(value.dtype, str(value.dtype).removeprefix("torch."))
        return f"{kind}{dtype}[{sizes}]"
    if isinstance(value, CustomObjArgument):
        return f"object of {value.class_fqn.removeprefix('__torch__.torch.')}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(value_text(v, dim_names) for v in value)})"
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return size_text(value.node.expr, dim_names)
    return repr(value)


def program_text(program: ExportedProgram) -> str:
    """The whole listing."""
    form = "" if program.dialect == "training" else f" ({program.dialect} dialect)"
    lines = [f"ExportedProgram of {program.root_class}{form}"]
    dims = [
        f"{size_text(e, program.dim_names)}: {range_text(r)}"
        for e, r in program.range_constraints.items()
    ]
    if dims:
        lines.append(f"  dims: {', '.join(dims)}")
    if program.guards:
        lines.append("  guards:")
        lines.extend(f"    {size_text(g.expr, program.dim_names)}" for g in program.guards)
    if not program.runtime_asserts:
        lines.append("  run-time asserts: left out, see the notes")
    state = sum(1 for s in program.graph_signature.input_specs if s.target is not None)
    lines.append(f"  lifted state: {state} tensors")
    lines.append("  graph:")
    lines.extend(f"    {line}" for line in graph_lines(program))
    return "\n".join(lines)


def graph_lines(program: ExportedProgram, limit: int | None = None) -> list[str]:
    """One line a node: name, shape, target and operands. Unused lifted state is left out."""
    unused = {s.arg.name for s in program.graph_signature.input_specs if s.target is not None} - {
        n.name for n in program.graph.nodes if n.op == "placeholder" and n.users
    }
    lines = _lines(program.graph_module, program.dim_names, unused)
    lines[-1:-1] = [
        _role_text(spec) for spec in program.graph_signature.output_specs if spec.kind in _ROLES
    ]
    return lines if limit is None or len(lines) <= limit else [*lines[:limit], "..."]


def _role_text(spec: OutputSpec) -> str:
    """``x becomes add_1``, ``x.scale becomes 2.0``."""
    target = spec.target if spec.attribute is None else f"{spec.target}.{spec.attribute}"
    arg = spec.arg
    value = repr(arg.value) if isinstance(arg, ConstantArgument) else arg.name
    return f"{target} {_ROLES[spec.kind]} {value}"


def _lines(
    module: torch.fx.GraphModule, dim_names: dict[str, str], left_out: set[str]
) -> list[str]:
    """The lines of a graph; those of a subgraph stand, indented, where it is read."""
    lines: list[str] = []
    for node in module.graph.nodes:
        shape = value_text(node.meta.get("val"), dim_names)
        if node.op == "placeholder":
            if node.name not in left_out:
                lines.append(f"{node.name}: {shape}")
        elif node.op == "output":
            lines.append(f"return {_operands(node.args[0])}")
        elif node.op == "get_attr":
            lines.append(f"{node.name} = graph:")
            inner = _lines(getattr(module, str(node.target)), dim_names, set())
            lines += [f"  {line}" for line in inner]
        else:
            target = node.target
            name = str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__
            operands = [_operands(a) for a in node.args]
            operands += [f"{k}={_operands(v)}" for k, v in node.kwargs.items()]
            lines.append(f"{node.name}: {shape} = {name}({', '.join(operands)})")
    return lines


def _operands(value: Any) -> str:
    if isinstance(value, torch.fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_operands(v) for v in value)}]"
    if isinstance(value, torch._ops.OpOverload):
        return str(value)
    return value.name() if isinstance(value, torch._ops.HigherOrderOperator) else repr(value)
