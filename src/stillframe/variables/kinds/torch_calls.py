"""Functions of torch that mean something else to a captured frame than to the recorder."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.registry import wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator


class TorchCallVariable(VariableTracker):
    """A function of torch whose calls are looked at."""

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


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


class BackwardVariable(TorchCallVariable):
    """What accumulates gradients in tensors. A graph has results, and no place for these."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise tx.graph_break(
            f"The frame calls {self.value.__qualname__}.",
            why="it adds to the gradients of tensors outside, which no operator of a graph does",
            hints=["capture the forward, and call backward on what the capture returns"],
        )


@wraps_object(torch.Tensor.backward, torch.autograd.backward)
def wrap_backward(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that computes gradients into ``grad``."""
    return BackwardVariable(value)
