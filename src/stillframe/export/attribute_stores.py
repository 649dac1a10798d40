"""Attributes that forward sets on its inputs: ``x.scale = y``. The program sets them, too.

Each is an output of the graph that no caller sees: what is stored, and on which input. Under strict
capture the machine meets the stores and the reads around them. A call with one tensor as two inputs
could read on one what was set on the other, so such calls are refused where forward sets anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported, SideEffectError
from stillframe.export.identity import Identities, is_placeholder
from stillframe.export.journal import refusal
from stillframe.export.tensor_attributes import is_custom, is_reserved
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import places
from stillframe.frames.frame import Frame

_CONSTANTS = (bool, int, float, str, type(None))
_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class AttributeStore:
    """One attribute as the call leaves it.

    Attributes:
        tensor: the input that has it.
        name: the attribute.
        value: a tensor, a number, a string or None.
        text: what forward does, for a person.
        where: the user's line.
    """

    tensor: FakeTensor
    name: str
    value: Any
    text: str
    where: list[str]

    def refusal(self, how: str = "") -> SideEffectError:
        """The error for a store that cannot be part of what is made."""
        return refusal(f"{self.text}{how}", self.where)


class AttributeStores:
    """The stores of one run.

    Args:
        identities: knows the inputs.
        unconditional: whether what runs now is run by every call: it is in no subgraph.
    """

    def __init__(self, identities: Identities, unconditional: Callable[[], bool]) -> None:
        self._identities = identities
        self._unconditional = unconditional
        self._found: dict[tuple[int, str], AttributeStore] = {}

    def store(self, tensor: Any, name: str, value: Any, frame: Frame | None) -> bool:
        """Take down a store.

        Returns:
            Whether the program can do it; if not, it is a side effect like any other.

        Raises:
            NotSupported: the name is one of torch's own, or of the stand-in for the input.
        """
        known = self._identities.name(tensor)
        if known is None or not is_custom(name):
            return False
        if is_reserved(name):
            raise NotSupported(
                f"forward sets the attribute {name} of the input {known}; rename it.",
                why="tensors have one of that name of their own while they are captured",
                where=places.describe(frame),
            )
        self._found.pop((id(tensor), name), None)
        if not self._unconditional() or not _can_be_kept(value):
            return False
        self._identities.ask_all(tensor)
        text = f"sets the attribute {name} of the input {known}"
        store = AttributeStore(tensor, name, value, text, places.describe(frame))
        self._found[id(tensor), name] = store  # the last one last
        return True

    def delete(self, tensor: Any, name: str) -> None:
        """A deletion leaves nothing where the caller had set nothing, which becomes a condition."""
        if self._found.pop((id(tensor), name), None) is not None:
            self._identities.ask_attribute(tensor, name)

    def refuse_read(self, tensor: torch.Tensor, name: str, frame: Frame | None) -> None:
        """A tensor that is no input is asked for an attribute that may have been set on an input.

        Raises:
            NotSupported: a caller may give that very tensor.
        """
        if is_placeholder(tensor) and any(name == known for _, known in self._found):
            raise NotSupported(
                f"forward sets the attribute {name} of an input, and reads it of another tensor.",
                why="a call may give that tensor as the input",
                where=places.describe(frame),
                hints=["read it before it is set, or use another name"],
            )

    def finish(self) -> list[AttributeStore]:
        """What every call leaves, in order.

        Raises:
            SideEffectError: an attribute was changed afterwards in a way that nobody saw.
        """
        for store in self._found.values():
            if vars(store.tensor).get(store.name, self) is not store.value:
                raise store.refusal(" by other means than an assignment")
        return list(self._found.values())


def _can_be_kept(value: Any) -> bool:
    """Whether a graph can return it."""
    if isinstance(value, torch.Tensor):
        return not torch_private.is_functorch_wrapper(value)
    return type(value) in _CONSTANTS or isinstance(value, _NUMBERS)
