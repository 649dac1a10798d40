"""Attributes of tensors, as the user's Python reads and sets them: on the stand-ins."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.export.attribute_stores import AttributeStores
from stillframe.export.identity import Identities, is_placeholder
from stillframe.export.journal import Journal
from stillframe.export.tensor_attributes import is_custom
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import places
from stillframe.frames.frame import Frame

#: What symbolic numbers are for a program.
NUMBERS: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


class TensorAccess:
    """Reads and writes of the attributes of tensors in one run.

    Args:
        identities: knows the inputs.
        stores: what forward sets on them.
        journal: what it sets on other tensors from outside.
    """

    def __init__(self, identities: Identities, stores: AttributeStores, journal: Journal) -> None:
        self._identities = identities
        self._stores = stores
        self._journal = journal

    def load(self, tensor: torch.Tensor, name: str, frame: Frame | None) -> Any:
        """``tensor.name``.

        Raises:
            NotSupported: a caller may have set it.
        """
        if is_custom(name):
            tensor = self._identities.handed_back(tensor)
            self._check_read(tensor, name, frame)
        return self.class_of(tensor) if name == "__class__" else getattr(tensor, name)

    def _check_read(self, tensor: torch.Tensor, name: str, frame: Frame | None) -> None:
        """That nobody has set an attribute on an input is a condition; one that is set, refused."""
        if self._journal.wrote(tensor, name):
            return
        known = self._identities.name(tensor)
        if known is None:
            self._stores.refuse_read(tensor, name, frame)
            return
        if name != "__dict__" and not hasattr(tensor, name):
            self._identities.ask_attribute(tensor, name)
            return
        raise NotSupported(
            f"forward reads the attribute {name} of the input {known}.",
            why="what a caller has set on a tensor is no part of a call",
            where=places.describe(frame),
            hints=["pass the value as an input of its own"],
        )

    def class_of(self, value: Any) -> type:
        """The class that a tensor or a number has when the program runs."""
        if not isinstance(value, FakeTensor):
            return NUMBERS.get(type(value), type(value))
        self._identities.ask_class(value)
        return torch.nn.Parameter if isinstance(value, torch.nn.Parameter) else torch.Tensor

    def store(self, target: Any, name: str, value: Any, frame: Frame | None) -> None:
        """``target.name = value``."""
        target = self._identities.handed_back(target)
        self._note_write(target, name, frame)
        replayed = self._stores.store(target, name, value, frame)
        self._journal.replay(target, name, replayed)
        setattr(target, name, value)

    def delete(self, target: Any, name: str, frame: Frame | None) -> None:
        """``del target.name``."""
        target = self._identities.handed_back(target)
        self._note_write(target, name, frame)
        self._stores.delete(target, name)
        self._journal.replay(target, name, False)
        delattr(target, name)

    def _note_write(self, target: torch.Tensor, name: str, frame: Frame | None) -> None:
        """A store on a tensor that the program did not make."""
        if not is_custom(name) or (isinstance(target, FakeTensor) and not is_placeholder(target)):
            return
        known = self._identities.name(target)
        of = "a tensor" if known is None else f"the input {known}"
        self._journal.attribute(target, name, f"sets the attribute {name} of {of}", frame)
