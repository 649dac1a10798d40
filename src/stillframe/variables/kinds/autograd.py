"""``torch.autograd.Function``, its context, and torch's autograd engine."""

from __future__ import annotations

import contextlib
import functools
import sys
from types import MethodType
from typing import Any

import torch
from torch.autograd.function import FunctionCtx

from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource, GetItemSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.callbacks import Callback
from stillframe.variables.kinds.user_objects import (
    UserDefinedClassVariable,
    UserDefinedObjectVariable,
)
from stillframe.variables.kinds.wrappers import GetAttrVariable, LambdaVariable
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator

#: What a user's class may define; code of torch calls these.
_METHODS = ("forward", "backward", "vjp", "jvp", "setup_context")


def is_function_class(value: Any) -> bool:
    """Whether a value is a class of a user's own derivative."""
    return isinstance(value, type) and issubclass(value, torch.autograd.Function)


class AutogradFunctionVariable(UserDefinedClassVariable):
    """A class with a forward and a backward of its own. ``apply`` is one node of the graph."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name == "apply":
            return GetAttrVariable.of(tx, self, self.value.apply, name)
        return super().var_getattr(tx, name)

    def call_method(
        self, tx: Translator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if name != "apply":
            return super().call_method(tx, name, args, kwargs)
        return apply(tx, self.value, args, kwargs)


def apply(tx: Translator, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``cls.apply(...)``: forward and backward are traced on the machine.

    Raises:
        FrameError: its backward cannot be captured, and a gradient would be lost.
    """
    recorder = tx.recorder
    notes = len(recorder.notes)
    given = tuple(tx.here(value) for value in args)
    result = _watched(tx, cls).apply(*given, **{k: tx.here(v) for k, v in kwargs.items()})
    needs = any(isinstance(value, torch.Tensor) and value.requires_grad for value in given)
    if needs and len(recorder.notes) > notes:
        raise tx.graph_break(
            f"{cls.__qualname__} is a torch.autograd.Function whose backward cannot be captured.",
            why=recorder.notes[-1],
        )
    return result


def _watched(tx: Translator, cls: Any) -> Any:
    """The class with its functions run by the machine."""
    names = {
        name: staticmethod(Callback(tx, getattr(cls, name)))
        for name in _METHODS
        if getattr(cls, name) is not getattr(torch.autograd.Function, name)
    }
    return type(cls)(cls.__name__, (cls,), {**names, "__module__": cls.__module__})


@wraps_if(61, "autograd function", is_function_class)
def wrap_autograd_function(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The class, known by its identity, and the functions that are found on it."""
    builder.install_guards("FUNCTION_MATCH")
    made = builder.track_object(value, AutogradFunctionVariable(value))
    for name in _METHODS:
        found = getattr(value, name)
        if found is not getattr(torch.autograd.Function, name):
            builder.at(AttrSource(builder.source, name))(found)
    return made


def _is_apply(value: Any) -> bool:
    if type(value) is not MethodType or not is_function_class(value.__self__):
        return False
    return getattr(value.__func__, "__name__", "") == "apply"


@wraps_if(63, "apply of an autograd function", _is_apply)
def wrap_apply(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``SomeFunction.apply`` that somebody keeps: made anew at each access, so its parts count."""
    builder.install_guards("TYPE_MATCH")
    function = AttrSource(builder.source, "__func__")
    install_guard(function.make_guard(guard_kind("FUNCTION_MATCH")))
    owner = builder.at(AttrSource(builder.source, "__self__"))(value.__self__)
    made = GetAttrVariable(value, owner, "apply", source=builder.source)
    builder.tx.effects.track(value, made)
    return made


# -- the context -----------------------------------------------------------------------------------


class SavedTensorBox:
    """What a context has saved, as the program sees it.

    Attributes:
        tensors: the saved tensors; None where torch has freed them.
    """

    def __init__(self, tensors: tuple[Any, ...] | None) -> None:
        self.tensors = tensors


class AutogradFunctionContextVariable(UserDefinedObjectVariable):
    """The ``ctx`` of a forward or a backward, which the frame is given.

    Args:
        saved: what was saved in it before.
    """

    def __init__(self, value: Any, saved: SavedTensorBox) -> None:
        super().__init__(value)
        self.saved = saved

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name in ("saved_tensors", "saved_variables"):
            if self.saved.tensors is None:
                return getattr(self.value, name)  # torch's own error
            return tuple(tx.here(tensor) for tensor in self.saved.tensors)
        if name == "needs_input_grad" and self.source is not None:
            return tx.wrap(self.value.needs_input_grad, AttrSource(self.source, name))
        return super().var_getattr(tx, name)


@wraps_if(62, "autograd context", lambda value: isinstance(value, FunctionCtx))
def wrap_autograd_context(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A context, and the tensors that are saved in it. They may have been freed."""
    builder.install_guards("TYPE_MATCH")
    saved = SavedTensorBox(None)
    made = builder.track_object(value, AutogradFunctionContextVariable(value, saved))
    with contextlib.suppress(RuntimeError):
        saved.tensors = getattr(value, "saved_tensors", ())
    if saved.tensors is None or not hasattr(value, "saved_tensors"):
        return made
    place = AttrSource(builder.source, "saved_tensors")
    builder.at(place).install_guards("SEQUENCE_LENGTH")
    for index, tensor in enumerate(saved.tensors):
        builder.at(GetItemSource(place, index))(tensor)
    return made


# -- the engine ------------------------------------------------------------------------------------


class AutogradEngineVariable(VariableTracker):
    """torch's autograd engine. What it does belongs to a backward, not to a frame."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        raise tx.graph_break(
            f"The frame uses .{name} of torch's autograd engine.",
            why="its callbacks and passes belong to a backward pass that runs around the frame",
            hints=["do it outside of the captured function"],
        )

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


_ENGINE = type(torch.autograd.Variable._execution_engine)


@wraps_if(64, "autograd engine", lambda value: isinstance(value, _ENGINE))
def wrap_engine(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The engine: there is one."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, AutogradEngineVariable(value))


@functools.cache
def _stub_place() -> tuple[str, str]:
    """Where torch's compiled autograd keeps the function that stands for the final callbacks."""
    return "torch._dynamo.external_utils", "FakeCompiledAutogradEngine"


def _is_stub(value: Any) -> bool:
    module, owner = _stub_place()
    holder = getattr(sys.modules.get(module), owner, None)
    return holder is not None and getattr(holder, "_exec_final_callbacks_stub", None) is value


def _no_callbacks(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """There are none: a captured frame cannot queue them, see :class:`AutogradEngineVariable`."""


@wraps_if(65, "final callbacks", _is_stub)
def wrap_final_callbacks(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The stub in whose place a backward runs what was queued for its end."""
    builder.install_guards("FUNCTION_MATCH")
    return LambdaVariable(value, _no_callbacks, source=builder.source)
