"""Subclasses of tensors: made of other tensors, or with functions of their own.

A *wrapper subclass* says what it is made of: its inner tensors become the inputs of the graph, and
its ``__torch_dispatch__`` is run by the machine for each operator. A subclass with a
``__torch_function__`` stays one tensor: its fake has a mark, and the function is run by the machine
for each torch function that meets the mark; where classes are to be treated so is listed in the
options.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.source import AttrSource, SubclassAttrListSource, SubclassContextSource
from stillframe.symbolic import Expr
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.dynamism import (
    SubclassSymbolicContext,
    is_wrapper_subclass,
    symbolic_context,
)
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.kinds.tensors import (
    TensorVariable,
    guard_tensor,
    refuse_kinds,
    wrap_plainly,
)
from stillframe.variables.kinds.torch_calls import TorchCallVariable
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator

# -- wrapper subclasses ----------------------------------------------------------------------------


class WrapperSubclassVariable(VariableTracker):
    """A tensor that is made of others; its value is one of the same class around their fakes.

    Attributes:
        real: the tensor itself, if it was there before.
    """

    real: torch.Tensor | None = None

    def var_getattr(self, tx: Translator, name: str) -> Any:
        """What the class has made is there; what else was set on the tensor is read from it."""
        names = {} if self.real is None else vars(self.real)
        if name in names and name not in vars(self.value) and self.source is not None:
            return tx.wrap(names[name], AttrSource(self.source, name))
        return super().var_getattr(tx, name)

    def reconstruct(self, residue: Residue) -> None:
        """One of the program's own: made of its inner tensors as its class does it."""
        names, context = self.value.__tensor_flatten__()
        inner = [getattr(self.value, name) for name in names]
        if not is_literal(context):
            raise NotImplementedError("what its class keeps beside the inner tensors is no literal")
        if any(tensor.requires_grad for tensor in inner):
            raise NotImplementedError("its inner tensors have histories, and it would have none")
        residue.load_object(_rebuild)
        residue.load_object(type(self.value))
        for part in (tuple(names), tuple(inner), context, self.value.shape, self.value.stride()):
            residue.value(part)
        residue.call(6)


def _rebuild(cls: Any, names: Any, inner: Any, context: Any, sizes: Any, strides: Any) -> Any:
    tensors = dict(zip(names, inner, strict=True))
    return cls.__tensor_unflatten__(tensors, context, sizes, strides)


def _is_wrapper(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and is_wrapper_subclass(value)


@wraps_if(38, "wrapper subclass", _is_wrapper)
def wrap_wrapper_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A wrapper subclass from outside: each inner tensor is an input."""
    tx, source = builder.tx, builder.source
    refuse_kinds(builder, value)
    names, context = value.__tensor_flatten__()
    if value.requires_grad or not is_literal(context):
        raise tx.graph_break(
            f"The tensor {source.name()} is a {type(value).__qualname__} that requires a gradient, "
            "or keeps more than literals beside its inner tensors.",
            why="the graph computes with the inner tensors, which have no such gradient",
        )
    builder.install_guards("TYPE_MATCH")
    builder.at(SubclassAttrListSource(source)).install_guards("EQUALS_MATCH")
    builder.at(SubclassContextSource(source)).install_guards("EQUALS_MATCH")
    inner = _wrap_inner(builder, value, names)
    stand_in = _stand_in(builder, value, inner, context)
    made = WrapperSubclassVariable(stand_in, source=source)
    made.real = value
    for one in (value, stand_in):
        tx.effects.track(one, made)
    tx.wrap(type(value), AttrSource(source, "__class__"))
    guard_tensor(builder, value, *_layout(stand_in))
    tx.inputs.note_sizes(source, stand_in)
    return made


def _wrap_inner(builder: VariableBuilder, value: Any, names: Any) -> dict[str, Any]:
    """The inner tensors; how their sizes are made symbols is said by the outer one's context."""
    tx, source = builder.tx, builder.source
    context = symbolic_context(
        value, source, tx.frame_state, tx.options, source.is_nn_module(), tx.inputs.dim_names
    )
    assert isinstance(context, SubclassSymbolicContext)
    inner = {}
    for name in names:
        place = AttrSource(source, name)
        tx.inputs.give_context(place, context.inner_contexts[name])
        inner[name] = tx.wrap(getattr(value, name), place)
    return inner


def _stand_in(builder: VariableBuilder, value: Any, inner: dict[str, Any], context: Any) -> Any:
    """The same class around fakes. Sizes that vary are those of an inner tensor of its shape."""
    sizes, strides = tuple(value.shape), value.stride()
    like = [n for n in inner if getattr(value, n).shape == value.shape
            and getattr(value, n).stride() == strides]  # fmt: skip
    varies = [n for n, one in inner.items() if not all(type(s) is int for s in one.shape)]
    if like:
        sizes, strides = inner[like[0]].shape, inner[like[0]].stride()
    elif varies:
        raise builder.tx.graph_break(
            f"The sizes of {builder.source.name()} vary, and are not those of an inner tensor."
        )
    with builder.tx.recorder.fake_mode.unrecorded():
        return type(value).__tensor_unflatten__(inner, context, sizes, strides)


def _layout(stand_in: torch.Tensor) -> tuple[list[int | None], list[int | None]]:
    return _numbers(stand_in.shape), _numbers(stand_in.stride())


def _numbers(found: Any) -> list[int | None]:
    return [None if isinstance(to_size(n), Expr) else int(n) for n in found]


@makes_if(38, "wrapper subclass", _is_wrapper)
def make_wrapper_subclass(tx: Translator, value: Any) -> VariableTracker:
    """One that the program has made."""
    return WrapperSubclassVariable(value)


# -- subclasses with functions of their own --------------------------------------------------------


class TensorWithTFOverrideVariable(TensorVariable):
    """A tensor of a subclass; torch functions on it go to its ``__torch_function__``."""

    def reconstruct(self, residue: Residue) -> None:
        """A result of the graph, which is a plain tensor, as one of the class."""
        residue.load_object(as_subclass)
        residue.graph_output(self.value)
        residue.load_object(self.properties.class_type)
        residue.call(2)
        self.reconstruct_attributes(residue)


def as_subclass(tensor: torch.Tensor, cls: type[torch.Tensor]) -> torch.Tensor:
    """The tensor as one of a class, over the same memory."""
    return tensor.as_subclass(cls)


def _is_plain_subclass(value: Any) -> bool:
    cls = type(value)
    return isinstance(value, torch.Tensor) and cls.__torch_dispatch__ in (
        torch.Tensor.__torch_dispatch__, FakeTensor.__torch_dispatch__,
    )  # fmt: skip


@wraps_if(38.1, "tensor subclass", lambda value: isinstance(value, torch.Tensor))
def wrap_tensor_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A tensor of a subclass that is one tensor."""
    tx, cls = builder.tx, type(value)
    overrides = not torch_private.ignores_torch_function(cls)
    if not _is_plain_subclass(value) or (
        overrides and cls not in tx.options.traceable_tensor_subclasses
    ):
        raise tx.graph_break(
            f"The tensor {builder.source.name()} is of the subclass {cls.__qualname__}.",
            why="what it does with torch's functions would not be in the graph",
            hints=[f"Options(traceable_tensor_subclasses=frozenset({{{cls.__name__}}}))"],
        )
    builder.install_guards("TYPE_MATCH")
    made = wrap_plainly(builder, value, cls)
    tx.tensors.mark_subclass(made.value, cls, overrides)
    tx.wrap(cls, AttrSource(builder.source, "__class__"))
    return made


class TensorSubclassVariable(TorchCallVariable):
    """A listed subclass itself. Called with a tensor it gives that as one of the class."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        data = tx.here(args[0]) if len(args) == 1 and not kwargs else None
        own = any("__new__" in vars(c) or "__init__" in vars(c) for c in _own_classes(self.value))
        if type(data) is not FakeTensor or own:
            raise tx.graph_break(
                f"The frame makes a {self.value.__qualname__}.",
                why="only one made of a tensor, by torch's own code, is followed",
            )
        return tx.tensors.as_subclass(data, self.value)


def _own_classes(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base not in torch.Tensor.__mro__]


def _is_subclass_itself(value: Any) -> bool:
    known = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor)
    return isinstance(value, type) and issubclass(value, torch.Tensor) and value not in known


@wraps_if(73, "tensor subclass itself", _is_subclass_itself)
def wrap_subclass_itself(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class of tensors: a listed one, or a class like any other."""
    if value not in builder.tx.options.traceable_tensor_subclasses:
        from stillframe.variables.kinds.user_objects import wrap_class

        return wrap_class(builder, value)
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, TensorSubclassVariable(value))
