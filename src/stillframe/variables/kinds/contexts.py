"""Context managers of torch: switches that a graph can hold, and those that it cannot.

The regions themselves are recorded where they are entered and left (``trace/grad_regions.py``,
``trace/autocast.py``). Here is what is relied on in an object that was there before, and which
classes of torch may be called at all.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch

from stillframe.source import AttrSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.user_objects import (
    UserDefinedClassVariable,
    UserDefinedObjectVariable,
)
from stillframe.variables.kinds.wrappers import LambdaVariable
from stillframe.variables.registry import wraps_if, wraps_object, wraps_type
from stillframe.variables.translator import Translator

_AUTOCAST_FIELDS = ("device", "fast_dtype", "_enabled", "_cache_enabled")


class ContextVariable(UserDefinedObjectVariable):
    """A context manager of torch, made before the capture."""


class NullContextVariable(ContextVariable):
    """A context manager that does nothing, and gives nothing."""


class AutocastModeVariable(ContextVariable):
    """A region of autocast; what it is for is read off its fields."""

    @property
    def fields(self) -> tuple[Any, ...]:
        """The device, the dtype, whether casts are made, and whether they are cached."""
        return tuple(getattr(self.value, name) for name in _AUTOCAST_FIELDS)


class GradModeVariable(ContextVariable):
    """A region of grad mode or inference mode."""


def _is_null(value: Any) -> bool:
    return type(value) is contextlib.nullcontext and value.enter_result is None


@wraps_if(74, "null context", _is_null)
def wrap_null_context(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``nullcontext()``: with a result it would be an object like any other."""
    builder.install_guards("TYPE_MATCH")
    builder.at(AttrSource(builder.source, "enter_result"))(None)
    return builder.track_object(value, NullContextVariable(value))


@wraps_if(86, "autocast", lambda value: isinstance(value, torch.autocast))
def wrap_autocast(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An autocast region: the very object, and that nobody changed its fields."""
    builder.install_guards("ID_MATCH")
    made = builder.track_object(value, AutocastModeVariable(value))
    _read(builder, value, _AUTOCAST_FIELDS)
    # torch keeps in the object what to go back to
    for name in ("prev", "prev_cache_enabled", "prev_fastdtype"):
        builder.tx.effects.attribute(value, name, builder.source)
    return made


@wraps_type(torch.no_grad, torch.enable_grad)
def wrap_grad_mode(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A grad-mode region: the class says which."""
    builder.install_guards("TYPE_MATCH")
    builder.tx.effects.attribute(value, "prev", builder.source)
    return builder.track_object(value, GradModeVariable(value))


@wraps_type(torch.set_grad_enabled, torch.inference_mode)
def wrap_switched_mode(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A region whose object says whether it switches on or off."""
    builder.install_guards("TYPE_MATCH")
    made = builder.track_object(value, GradModeVariable(value))
    _read(builder, value, ("mode",))
    return made


def _read(builder: VariableBuilder, value: Any, names: tuple[str, ...]) -> None:
    for name in names:
        builder.at(AttrSource(builder.source, name))(getattr(value, name))


# -- the version counter ---------------------------------------------------------------------------

_preserve_versions: Any = getattr(torch.autograd, "_unsafe_preserve_version_counter", None)


class PreserveVersionContextVariable(VariableTracker):
    """A region after which the version counters of tensors are as before."""


class _KeptVersions:
    """Writes the region into the graph: the counters are read when it is made, and set at its
    end."""

    def __init__(self, tx: Translator, tensors: Any) -> None:
        self._recorder = tx.recorder
        given = (tensors,) if isinstance(tensors, torch.Tensor) else tensors
        if not isinstance(given, tuple):
            raise AssertionError("Expected tensors to be a tuple")
        self._nodes = [self._recorder.operand(tx.here(tensor)) for tensor in given]
        self._versions = [self._node(getattr, node, "_version") for node in self._nodes]

    def _node(self, target: Any, *args: Any) -> torch.fx.Node:
        node = self._recorder.create(target, args, {})
        node.meta["val"] = None
        return node

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._node(
            torch._C._autograd._unsafe_set_version_counter,
            tuple(self._nodes), tuple(self._versions),
        )  # fmt: skip


def _answer_versions(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    region = _KeptVersions(tx, *args, **kwargs)
    tx.effects.track(region, PreserveVersionContextVariable(region))
    return region


if _preserve_versions is not None:

    @wraps_object(_preserve_versions)
    def wrap_preserve_versions(builder: VariableBuilder, value: Any) -> VariableTracker:
        """The function that makes such a region."""
        builder.install_guards("FUNCTION_MATCH")
        return LambdaVariable(value, _answer_versions, source=builder.source)


# -- the classes -----------------------------------------------------------------------------------

#: Whose regions a graph holds, or that change nothing that it computes.
_HELD = (
    torch.no_grad,
    torch.enable_grad,
    torch.set_grad_enabled,
    torch.inference_mode,
    torch.autocast,
)

#: Classes with ``__enter__`` whose objects are more than context managers.
_MORE = (
    torch.nn.Module, torch.Tensor, torch.device, torch.Stream, torch.Event,
    torch.utils.hooks.RemovableHandle,
)  # fmt: skip


class TorchCtxManagerClassVariable(UserDefinedClassVariable):
    """A class of torch whose objects are context managers."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not issubclass(self.value, _HELD) and not tx.inline(self.value.__enter__):
            name = f"{self.value.__module__}.{self.value.__qualname__}"
            raise tx.graph_break(
                f"A context manager of class {name}.",
                why="what it switches is no part of a graph",
                hints=["enter it around the call of the captured function"],
            )
        return tx.call_plainly(self.value, args, kwargs)


@functools.cache
def _makes_contexts(cls: type) -> bool:
    if not cls.__module__.partition(".")[0] == "torch" or issubclass(cls, _MORE):
        return False
    return hasattr(cls, "__enter__") and hasattr(cls, "__exit__")


@wraps_if(87, "context class", lambda value: isinstance(value, type) and _makes_contexts(value))
def wrap_context_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class of context managers, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, TorchCtxManagerClassVariable(value))
