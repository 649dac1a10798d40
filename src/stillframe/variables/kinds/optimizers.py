"""Optimizers of ``torch.optim``: objects whose Python the machine runs, state and all."""

from __future__ import annotations

import contextlib
from types import MethodType
from typing import Any

import torch

from stillframe import torch_private
from stillframe.source import AttrSource, OptimizerSource, Source
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.tables import ConstDictVariable
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.translator import Translator


class OptimizerVariable(UserDefinedObjectVariable):
    """An optimizer. What hangs off it is read through an optimizer's source."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name == "state" and self.source is not None:
            _track_state(tx, self.value.state, AttrSource(self.source, "state"))
        found = super().var_getattr(tx, name)
        return _unwrapped(found) if type(found) is MethodType else found


def _unwrapped(method: MethodType) -> MethodType:
    """A method without the wrappers of torch that keep it out of what is compiled: they would call
    it as it is, on values that stand for others."""
    function: Any = method.__func__
    while _is_kept_from_compilers(function):
        function = function.__wrapped__
    return MethodType(function, method.__self__)


def _is_kept_from_compilers(function: Any) -> bool:
    names = getattr(function, "__dict__", {})
    if "__wrapped__" not in names:
        return False
    in_wrapper = getattr(function, "__module__", "").startswith("torch.")
    kept = names.get("_torchdynamo_disable") is True
    return in_wrapper and (kept or function.__code__.co_filename == torch._compile.__file__)


class OptimizerStateVariable(ConstDictVariable):
    """What an optimizer keeps for each parameter: a table by the parameters themselves."""


def _track_state(tx: Translator, state: Any, source: Source) -> None:
    """Which parameters have a state is relied on at once, the state of one when it is read."""
    if not isinstance(state, dict) or tx.effects.tracker(state) is not None:
        return
    builder = VariableBuilder(tx, source)
    builder.install_guards("DICT_KEYS", ordered=True)
    builder.set_source_and_track_mutable(state, OptimizerStateVariable(state))


@wraps_if(77, "optimizer", lambda value: isinstance(value, torch.optim.Optimizer))
def wrap_optimizer(builder: VariableBuilder, value: torch.optim.Optimizer) -> VariableTracker:
    """An optimizer, known by its identity."""
    builder.install_guards("ID_MATCH")
    made = builder.track_object(value, OptimizerVariable(value))
    made.source = OptimizerSource(builder.source)
    return made


class _NotRecorded(contextlib.ContextDecorator):
    """Stands for a label of the profiler: what is captured has no such labels."""

    def __enter__(self) -> _NotRecorded:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class ProfilerLabelVariable(VariableTracker):
    """``record_function``, the class."""

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _NotRecorded()


@wraps_object(torch.autograd.profiler.record_function)
def wrap_profiler_label(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A label of the profiler."""
    return ProfilerLabelVariable(value)


class StepNumberVariable(VariableTracker):
    """How optimizers read the number of steps.

    For compilers they compute with it in tensors of single precision. Here it is a number, as in
    eager mode, of double precision.
    """

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = tx.here(args[0])
        if self.value is _OF_NUMBERS or not isinstance(value, torch.Tensor):
            return value
        return value.item()


_OF_NUMBER, _OF_NUMBERS = torch_private.optimizer_numbers()


@wraps_object(_OF_NUMBER, _OF_NUMBERS)
def wrap_step_number(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that reads the number of steps, or passes on what was computed from several."""
    return StepNumberVariable(value)
