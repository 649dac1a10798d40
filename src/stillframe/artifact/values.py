"""Values in a graph and in signatures: Python objects to rows of the schema, and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from stillframe.artifact import schema
from stillframe.artifact.ops import resolve_target, target_name
from stillframe.artifact.schema import (
    DictValue,
    ListValue,
    NodeRef,
    NumberValue,
    OpaqueValue,
    OperatorValue,
    SliceValue,
    TensorValue,
    TorchValue,
    TupleValue,
    Value,
)
from stillframe.errors import ArtifactError
from stillframe.export import signature
from stillframe.export.call_spec import OPAQUE_DEFAULT

_INT64 = 2**63
_MAX_DEPTH = 100

# Where the named constants of torch are looked up, by the kind that files say.
_TORCH_KINDS: dict[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}
_ARGUMENTS: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        signature.TensorArgument,
        signature.SymIntArgument,
        signature.SymFloatArgument,
        signature.SymBoolArgument,
        signature.TokenArgument,
    )
}


class Encoder:
    """Python values to rows.

    Args:
        node_index: position of a node in the graph.
    """

    def __init__(self, node_index: Callable[[torch.fx.Node], int] | None = None) -> None:
        self._node_index = node_index

    def value(self, value: Any, what: str) -> Value:
        """The row of ``value``.

        Args:
            what: what the value is of, for errors.

        Raises:
            ArtifactError: a kind of value that a file cannot hold.
        """
        if value is None or isinstance(value, (bool, str)):
            return value
        if type(value) is int:
            return value if -_INT64 <= value < _INT64 else NumberValue("int", str(value))
        if type(value) is float:
            return value if math.isfinite(value) else NumberValue("float", repr(value))
        if isinstance(value, torch.fx.Node) and self._node_index is not None:
            return NodeRef(self._node_index(value))
        if type(value) is tuple or type(value) is torch.Size:
            return TupleValue([self.value(v, what) for v in value])
        if isinstance(value, (list, tuple)):  # fx's own list and tuple classes too
            return ListValue([self.value(v, what) for v in value])
        if isinstance(value, dict):
            pairs = value.items()
            return DictValue([(self.value(k, what), self.value(v, what)) for k, v in pairs])
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return SliceValue(*(self.value(v, what) for v in parts))
        if isinstance(value, complex):
            return NumberValue("complex", repr(value))
        if isinstance(value, torch.device):
            return TorchValue("device", str(value))
        if isinstance(value, torch._ops.OpOverload):
            return OperatorValue(target_name(value))
        for kind, cls in _TORCH_KINDS.items():
            if isinstance(value, cls):
                return TorchValue(kind, str(value).removeprefix("torch."))
        cls = type(value)
        raise ArtifactError(
            f"{what} is a {cls.__module__}.{cls.__qualname__}, which a file cannot hold."
        )

    def default(self, value: Any) -> Value:
        """A default of forward: anything that a file cannot hold becomes opaque."""
        try:
            return OpaqueValue() if value is OPAQUE_DEFAULT else self.value(value, "")
        except ArtifactError:
            return OpaqueValue()

    def argument(self, arg: Any) -> schema.Argument:
        """An argument spec."""
        if isinstance(arg, signature.ConstantArgument):
            return schema.Argument("ConstantArgument", arg.name, self.value(arg.value, arg.name))
        if isinstance(arg, signature.CustomObjArgument):
            raise ArtifactError(
                f"{arg.name} is a script object ({arg.class_fqn}), which a file cannot hold."
            )
        return schema.Argument(type(arg).__name__, arg.name)


class Decoder:
    """Rows to Python values.

    Args:
        node: the node at a position.
        tensor: the tensor of a number.

    Raises:
        ArtifactError: (all methods) a row that makes no sense.
    """

    def __init__(
        self,
        node: Callable[[int], torch.fx.Node] | None = None,
        tensor: Callable[[int], torch.Tensor] | None = None,
    ) -> None:
        self._node = node
        self._tensor = tensor

    def value(self, row: Value, depth: int = 0) -> Any:
        """The value that ``row`` describes."""
        if row is None or isinstance(row, (bool, int, float, str)):
            return row
        if depth > _MAX_DEPTH:
            raise ArtifactError("a value in the file is nested too deeply.")
        if isinstance(row, NodeRef) and self._node is not None:
            return self._node(row.index)
        if isinstance(row, ListValue):
            return [self.value(v, depth + 1) for v in row.items]
        if isinstance(row, TupleValue):
            return tuple(self.value(v, depth + 1) for v in row.items)
        if isinstance(row, DictValue):
            return {self.value(k, depth + 1): self.value(v, depth + 1) for k, v in row.items}
        if isinstance(row, SliceValue):
            return slice(*(self.value(v, depth + 1) for v in (row.start, row.stop, row.step)))
        if isinstance(row, NumberValue):
            return _number(row)
        if isinstance(row, TorchValue):
            return torch_constant(row.type, row.name)
        if isinstance(row, OperatorValue):
            return resolve_target(row.name)
        if isinstance(row, OpaqueValue):
            return OPAQUE_DEFAULT
        if isinstance(row, TensorValue) and self._tensor is not None:
            return self._tensor(row.object)
        raise ArtifactError(f"a {type(row).__name__} stands in the file where none can be.")

    def argument(self, row: schema.Argument) -> Any:
        """An argument spec."""
        if row.type == "ConstantArgument":
            return signature.ConstantArgument(row.name, self.value(row.value))
        cls = _ARGUMENTS.get(row.type)
        if cls is None:
            raise ArtifactError(f"the file has an argument of unknown kind {row.type!r}.")
        return cls(row.name)


def _number(row: NumberValue) -> Any:
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "complex": complex}
    try:
        return kinds[row.type](row.text[:4000])
    except (KeyError, ValueError):
        raise ArtifactError(f"the file has {row.text[:40]!r} where a number should be.") from None


def torch_constant(kind: str, name: str) -> Any:
    """The dtype, device, layout or memory format of that name.

    Raises:
        ArtifactError: there is none.
    """
    if kind == "device":
        try:
            return torch.device(name)
        except RuntimeError:
            raise ArtifactError(
                f"the file names the device {name[:40]!r}, which torch does not know."
            ) from None
    found = vars(torch).get(name)
    if kind not in _TORCH_KINDS or not isinstance(found, _TORCH_KINDS[kind]):
        raise ArtifactError(f"the file names the {kind} {name[:40]!r}, which torch does not know.")
    return found
