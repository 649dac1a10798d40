"""The recorder of a frame: a tensor from outside is an input once it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.trace.recorder import Recorder
from stillframe.variables.tensor_functions import TrackedFunctions, TrackedMode, requires_grad

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator


class TrackedRecorder(Recorder):
    """A recorder that makes an input of a tensor from outside when an operator first uses it."""

    realize: Any
    functions: TrackedFunctions

    def __init__(self, tx: Translator) -> None:
        super().__init__(tx.env, tx.scope, tx.refuse_constant)
        self.realize = tx.realize_tensor
        self.functions = TrackedFunctions(self)
        self.functions.tx = tx
        self.mode = TrackedMode(tx, self)

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        if fake.fx_node is None:
            self.realize(fake if real is None else real)
        return super()._node_of(fake, real)

    def _apply_function(self, cls: Any, args: tuple[Any, ...], run: Any) -> Any:
        """A function whose backward is not in the graph would lose gradients in silence."""
        noted = len(self.notes)
        result = super()._apply_function(cls, args, run)
        if len(self.notes) > noted and result is not NotImplemented and requires_grad(args):
            raise self.functions.tx.graph_break(
                f"The backward of {cls.__qualname__} cannot be captured.",
                why=self.notes[-1],
                hints=["compute without gradients, or pass the tensors that forward reads"],
            )
        return result
