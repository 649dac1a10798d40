"""Tensors: inputs of the graph, or what it computes."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class TensorVariable(VariableTracker):
    """A tensor; its value is the fake that stands for it.

    Attributes:
        real: the tensor itself, if it was there before.
    """

    real: torch.Tensor | None = None

    def as_proxy(self) -> Any:
        return self.value.fx_node

    def python_type(self) -> type:
        return torch.nn.Parameter if isinstance(self.value, torch.nn.Parameter) else torch.Tensor

    def reconstruct(self, residue: Residue) -> None:
        residue.graph_output(self.value)


@wraps_type(torch.Tensor, torch.nn.Parameter)
def wrap_tensor(builder: VariableBuilder, value: torch.Tensor) -> VariableTracker:
    """A tensor from outside: an input of the graph."""
    fake = builder.tx.inputs.tensor(builder.source, value)
    made = TensorVariable(fake, source=builder.source)
    made.real = value
    builder.tx.effects.track(value, made)
    builder.tx.effects.track(fake, made)
    return made


@makes_type(FakeTensor)
def make_tensor(tx: Translator, value: Any) -> VariableTracker:
    """A tensor that the graph computes: one of its results, if it is given away."""
    return TensorVariable(value)
