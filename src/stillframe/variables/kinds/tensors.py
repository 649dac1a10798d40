"""Tensors: inputs of the graph, or what it computes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import FrameError, InternalError, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.shapes.env import Size
from stillframe.source import GradSource, is_constant_source, is_from_optimizer_source
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.proxies import wrap_fx_proxy, wraps_result
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.side_effects import DELETED
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


@dataclass(frozen=True)
class TensorProperties:
    """What is known of a tensor, from the fake that stands for it.

    Attributes:
        size: the sizes, None if one of them varies.
        stride: the strides, None if one of them varies, or the layout has none.
        class_type: the class that the program sees.
    """

    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    ndim: int
    size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    requires_grad: bool
    class_type: type

    @staticmethod
    def of(fake: FakeTensor, subclass_type: type | None = None) -> TensorProperties:
        """Those of a fake; ``subclass_type`` is its class, if it is no plain tensor's."""
        is_parameter = isinstance(fake, torch.nn.Parameter)
        return TensorProperties(
            fake.dtype,
            fake.device,
            fake.layout if fake.sparse is None else fake.sparse.layout,
            len(fake.sizes),
            _static(fake.sizes),
            None if fake.sparse is not None else _static(fake.strides),
            fake.requires_grad,
            subclass_type or (torch.nn.Parameter if is_parameter else torch.Tensor),
        )


def _static(numbers: tuple[Size, ...]) -> tuple[int, ...] | None:
    found = tuple(n for n in numbers if type(n) is int)
    return found if len(found) == len(numbers) else None


class TensorVariable(VariableTracker):
    """A tensor; its value is the fake that stands for it.

    Attributes:
        real: the tensor itself, if it was there before.
        properties: what is known of it.
        attributes: what the program has set on it, for one of the program's own.
    """

    real: torch.Tensor | None = None

    def __init__(self, value: FakeTensor, **options: Any) -> None:
        subclass_type = options.pop("subclass_type", None)
        super().__init__(value, **options)
        self.properties = TensorProperties.of(value, subclass_type)
        self.attributes: dict[str, Any] = {}

    def as_proxy(self) -> Any:
        return self.value.fx_node

    def python_type(self) -> type:
        return self.properties.class_type

    def var_getattr(self, tx: Translator, name: str) -> Any:
        return tx.tensors.load(self.value, name)

    def reconstruct(self, residue: Residue) -> None:
        """A result of the graph, with what the program has set on it."""
        residue.graph_output(self.value)
        self.reconstruct_attributes(residue)

    def reconstruct_attributes(self, residue: Residue) -> None:
        """The tensor is on top: give it what the program has set on it."""
        residue.keep(self.value)
        for name, value in self.attributes.items():
            if value is not DELETED:
                residue.dup()
                residue.load_constant(name)
                residue.value(value)
                residue.do("setattr({0}, {1}, {2})", 3)


# -- results ---------------------------------------------------------------------------------------


@wraps_result(101, "tensor", lambda node, value: isinstance(value, FakeTensor))
def wrap_tensor_result(
    tx: Translator, node: torch.fx.Node, value: FakeTensor, **options: Any
) -> TensorVariable:
    """A tensor of the graph; of a subclass, if that is asked for or marked."""
    from stillframe.variables.kinds.tensor_subclasses import TensorWithTFOverrideVariable

    marked = tx.tensors.subclass_of(value)
    if marked is not None:
        options.setdefault("subclass_type", marked)
    kind = TensorWithTFOverrideVariable if options.get("subclass_type") else TensorVariable
    made = kind(value, **options)
    made.attributes = tx.tensors.written(value)
    return made


@makes_type(FakeTensor)
def make_tensor(tx: Translator, value: Any) -> VariableTracker:
    """A tensor that the graph computes: one of its results, if it is given away."""
    known = tx.results.get(id(value))
    if known is None:
        node = tx.recorder.operand(value)
        if node.meta.get("val") is value and "example_value" not in node.meta:
            known = wrap_fx_proxy(tx, node)
        else:  # written in place: the node of the last write gives it again
            known = wrap_tensor_result(tx, node, value)
        tx.results[id(value)] = known
    return known


# -- inputs ----------------------------------------------------------------------------------------


@wraps_type(torch.Tensor, torch.nn.Parameter, FakeTensor)
def wrap_tensor(builder: VariableBuilder, value: torch.Tensor) -> VariableTracker:
    """A tensor from outside: an input of the graph."""
    if isinstance(value, FakeTensor) and value.env is builder.tx.env:
        raise InternalError(f"a fake of this trace is read from outside: {builder.source.name()}")
    return wrap_plainly(builder, value)


def wrap_plainly(
    builder: VariableBuilder, value: torch.Tensor, subclass_type: type | None = None
) -> TensorVariable:
    """A tensor that is one input; ``subclass_type``: its class, if that is no plain tensor's."""
    tx, source = builder.tx, builder.source
    refuse_kinds(builder, value)
    constant = is_constant_source(source)
    try:
        with torch_private.no_torch_function():
            node = tx.inputs.attribute(source, value) if constant else tx.inputs.placeholder(source)
            made = wrap_fx_proxy(
                tx, node, example_value=value, subclass_type=subclass_type, source=source
            )
    except NotSupported as e:
        if isinstance(e, FrameError):
            raise
        raise tx.graph_break(
            f"The tensor {source.name()} cannot be an input.", why=f"{e.what} {e.why}".strip()
        ) from e
    assert isinstance(made, TensorVariable)
    made.real = value
    tx.effects.track(value, made)
    tx.effects.track(made.value, made)
    if not constant:
        numbers = made.value.sizes, made.value.strides
        guard_tensor(builder, value, *([n if type(n) is int else None for n in ns]
                                       for ns in numbers))  # fmt: skip
    return made


def guard_tensor(
    builder: VariableBuilder,
    value: torch.Tensor,
    sizes: list[int | None],
    strides: list[int | None],
) -> None:
    """Rely on the metadata of a tensor; None for sizes and strides that are symbols."""
    if isinstance(builder.source, GradSource) and is_from_optimizer_source(builder.source):
        builder.install_guards("NOT_NONE_MATCH")
    match = functools.partial(guard_kind("TENSOR_MATCH"), sizes=sizes, strides=strides)
    builder.rely(match)
    if getattr(value, "_dynamo_static_input_type", None) == "guarded":
        builder.install_guards("ID_MATCH")


def refuse_kinds(builder: VariableBuilder, value: torch.Tensor) -> None:
    """Tensors of which a fake would not say all that the program can see."""
    with torch_private.no_torch_function():
        kind = _refused_kind(value)
    if kind is not None:
        raise builder.tx.graph_break(
            f"The tensor {builder.source.name()} is {kind}.",
            why="captured frames take no such tensors",
            hints=["convert it before the call"],
        )


def _refused_kind(value: torch.Tensor) -> str | None:
    if value.is_nested and value.layout is torch.strided:
        return "nested, with rows of any size (strided layout)"
    if value.is_nested:
        return "nested"
    if value.layout is not torch.strided:
        return f"of layout {str(value.layout).removeprefix('torch.')}"
    if torch_private.is_functorch_wrapper(value):
        return "inside of a transform of torch.func"
    if value.is_conj() or value.is_neg():
        return "a view that conjugates or negates what it shows"
    if any(name is not None for name in getattr(value, "names", ())):
        return "one with named dims"
    if value.is_leaf and value.grad is not None and value.grad.dtype is not value.dtype:
        return "one whose gradient has another dtype"
    return None


def _is_foreign(value: Any) -> bool:
    cls = type(value)
    known = {
        "torch._subclasses.fake_tensor": "FakeTensor",
        "torch._subclasses.functional_tensor": "FunctionalTensor",
    }
    return any(known.get(base.__module__) == base.__name__ for base in cls.__mro__)


@wraps_if(37.9, "tensor of another capture", _is_foreign)
def wrap_foreign(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A tensor that stands for another in a trace of torch's own."""
    raise builder.tx.graph_break(
        f"{builder.source.name()} is a {type(value).__name__} of another trace.",
        why="what it stands for is known there only",
    )
