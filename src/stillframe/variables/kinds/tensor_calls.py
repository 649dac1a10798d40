"""Functions and classes of torch that make or show tensors in ways of their own."""

from __future__ import annotations

from typing import Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.torch_calls import TorchCallVariable
from stillframe.variables.registry import wraps_object
from stillframe.variables.translator import Translator


class ParameterClassVariable(TorchCallVariable):
    """``torch.nn.Parameter``: a parameter that the program makes is one in the graph, too."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        data, wanted = _parameter_arguments(*map(tx.here, args), **kwargs)
        if type(data) is not FakeTensor:
            raise tx.graph_break(
                "The frame makes a parameter of what is no plain tensor.",
                why="torch makes it of the class of its data",
            )
        recorder = tx.recorder
        node = recorder.create(self.value, (recorder.operand(data), bool(wanted)), {})
        made = data.snapshot()
        made._is_param = True
        with torch_private.no_torch_function():
            made.requires_grad_(bool(wanted))
        node.meta["val"] = made
        recorder.track(made, node)
        tx.tensors.note_leaf(made)
        return made


def _parameter_arguments(data: Any = None, requires_grad: Any = True) -> tuple[Any, Any]:
    return data, requires_grad


@wraps_object(torch.nn.Parameter)
def wrap_parameter_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The class of parameters."""
    builder.install_guards("FUNCTION_MATCH")
    return ParameterClassVariable(value)


class RefusedTensorCall(TorchCallVariable):
    """A function that asks for what a captured tensor has not."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(value)
        self.why = why

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        what = f"The frame calls {self.value.__qualname__}."
        if self.value in _TEXTS:
            what = "The frame makes a text of a tensor."
        raise tx.graph_break(what, why=self.why)


_TEXTS = (FakeTensor.__repr__, torch.Tensor.__repr__, torch.Tensor.__format__)
_WHY: dict[Any, str] = {
    **dict.fromkeys(_TEXTS, "its numbers are not known while it is captured"),
    torch.nn.Buffer: "it sets attributes of the tensor itself, unseen",
}


@wraps_object(*_WHY)
def wrap_refused(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that is refused when it is called."""
    builder.install_guards("FUNCTION_MATCH")
    return RefusedTensorCall(value, _WHY[value])
