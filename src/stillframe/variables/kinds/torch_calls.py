"""Functions of torch that mean something else to a captured frame than to the recorder."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import (
    has_torch_function,
    has_torch_function_unary,
    has_torch_function_variadic,
)

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.base import LastingVariable, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.registry import wraps_object
from stillframe.variables.translator import Translator


class TorchCallVariable(LastingVariable):
    """A function of torch whose calls are looked at."""

    handles_calls = True


class TensorLiteralVariable(TorchCallVariable):
    """``torch.tensor``. Made from numbers, a tensor is a constant of the graph."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and _is_numbers(tx, args[0]):
            with tx.fresh_constants():
                return tx.call_plainly(self.value, args, kwargs)
        return tx.call_plainly(self.value, args, kwargs)


def _is_numbers(tx: Translator, data: Any) -> bool:
    """Whether data is a number, or lists and tuples of numbers."""
    data = tx.here(data)
    if type(data) in (list, tuple):
        return all(_is_numbers(tx, item) for item in data)
    return is_literal(data)


@wraps_object(torch.tensor)
def wrap_tensor_literal(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The function that makes tensors of numbers."""
    return TensorLiteralVariable(value)


class OverrideQuestionVariable(TorchCallVariable):
    """Whether an argument overrides functions of torch. What stands for a plain tensor does not."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked = args if self.value is not has_torch_function else tuple(tx.elements(args[0]))
        values = [tx.here(value) for value in asked]
        if all(type(v) is FakeTensor or not hasattr(v, "__torch_function__") for v in values):
            return False
        return tx.call_plainly(self.value, args, kwargs)


@wraps_object(has_torch_function, has_torch_function_unary, has_torch_function_variadic)
def wrap_override_question(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that asks for overrides."""
    return OverrideQuestionVariable(value)


class RefusedCallVariable(TorchCallVariable):
    """A function that does what no graph can do."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        why, hint = _REFUSED[self.value]
        raise tx.graph_break(f"The frame calls {self.value.__qualname__}.", why, [hint])


_REFUSED: dict[Any, tuple[str, str]] = {
    **dict.fromkeys(
        (torch.Tensor.backward, torch.autograd.backward),
        (
            "it adds to the gradients of tensors outside, which no operator of a graph does",
            "capture the forward, and call backward on what the capture returns",
        ),
    ),
    **dict.fromkeys(
        (torch.Tensor.__deepcopy__, torch.nn.Parameter.__deepcopy__),
        (
            "a copy of the object with all its attributes is made by code that is not watched",
            "copy the values: tensor.clone()",
        ),
    ),
    torch.utils.hooks.BackwardHook: (
        "the module has backward hooks, and a graph of the forward has no place for what they do",
        "remove the hooks before the capture",
    ),
}


@wraps_object(*_REFUSED)
def wrap_refused(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that no frame may call."""
    return RefusedCallVariable(value)
