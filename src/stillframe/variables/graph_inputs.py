"""The inputs of a captured frame's graph: where each is read, and the fake that stood for it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe.errors import InternalError
from stillframe.fake.tensor import FakeTensor
from stillframe.source import Source
from stillframe.variables.residue import Residue


class GraphArg:
    """One input of the graph.

    Args:
        source: where its value is read.
        example: the value of the capture; a tensor is kept by a weak reference only.
        fake: what stood for it: a fake tensor, or a symbolic number.
        pass_arg_as_tensor: it is a number of Python's, made a tensor just before the call.
        is_tensor: whether shape guards may look at sizes and strides of it.
        keep: keep the example alive: nobody else does.

    Raises:
        InternalError: a real tensor without a fake.
    """

    def __init__(
        self,
        source: Source | None,
        example: Any,
        fake: Any,
        *,
        pass_arg_as_tensor: bool = False,
        is_tensor: bool = True,
        keep: bool = False,
    ) -> None:
        real = isinstance(example, torch.Tensor) and not isinstance(example, FakeTensor)
        if real and is_tensor and not isinstance(fake, FakeTensor):
            raise InternalError(f"a graph input without a fake: {source}")
        self.source = source
        self.fake = fake
        self.pass_arg_as_tensor = pass_arg_as_tensor
        #: Its class has a ``__torch_function__``, which must not see the operators of the graph.
        self.made_plain = False
        self.is_tensor = is_tensor
        self._strong = example if keep or not real else None
        self._weak = weakref.ref(example) if real else None

    @property
    def example(self) -> Any:
        """The value of the capture.

        Raises:
            InternalError: it is gone.
        """
        if self._strong is not None or self._weak is None:
            return self._strong
        found = self._weak()
        if found is None:
            raise InternalError(f"the example of {self!r} is gone")
        return found

    def reconstruct(self, residue: Residue) -> None:
        """Push the value with which the graph is called."""
        assert self.source is not None
        if self.made_plain:
            residue.load_object(_made_plain)
            residue.load(self.source)
            residue.call(1)
        elif self.pass_arg_as_tensor:
            residue.load_helper("number_as_tensor")
            residue.load(self.source)
            residue.call(1)
        else:
            residue.load(self.source)

    def erase(self) -> None:
        """Drop the values: the capture is over."""
        self._strong = self._weak = self.fake = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GraphArg):
            return NotImplemented
        if self.source is None or other.source is None:
            return self is other
        return self.source.name() == other.source.name()

    def __hash__(self) -> int:
        return hash(None if self.source is None else self.source.name())

    def __repr__(self) -> str:
        return f"GraphArg({'' if self.source is None else self.source.name()})"


def _made_plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(torch.Tensor)


class BackwardStateGraphArg(GraphArg):
    """The input through which a forward hands state to its backward: made anew for each call, and
    kept in the variable that the graph reserves for it.

    Args:
        variable: the name of that variable.
        make: makes a new state.
    """

    def __init__(self, variable: str, make: Any) -> None:
        super().__init__(None, None, None, is_tensor=False)
        self.variable = variable
        self.make = make

    def reconstruct(self, residue: Residue) -> None:
        """Push a new state, and keep it in the variable.

        Raises:
            InternalError: no variable is reserved.
        """
        if not self.variable:
            raise InternalError("no variable is reserved for the state of the backward")
        residue.load_object(self.make)
        residue.call(0)
        residue.dup()
        residue.do(f"{self.variable} = {{0}}", 1)


@dataclass(frozen=True, eq=False)
class TrackedFake:
    """A fake whose sizes, or a symbolic number whose value, the guards speak of.

    Attributes:
        fake: the fake tensor or symbolic number.
        source: where the value is read.
        symbolic_context: how its sizes were made symbols; None for a number.
    """

    fake: Any
    source: Source
    symbolic_context: Any = field(default=None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrackedFake):
            return NotImplemented
        return self.fake is other.fake and self.source.name() == other.source.name()

    def __hash__(self) -> int:
        return hash((id(self.fake), self.source.name()))
