"""Tuples, lists, and what is like them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class BaseListVariable(VariableTracker):
    """A sequence."""

    #: class of the value -> kind
    kinds: ClassVar[dict[type, type[BaseListVariable]]] = {}
    form = "({})"

    @classmethod
    def of(cls, python_type: type) -> type[BaseListVariable]:
        """The kind for sequences of a class."""
        return cls.kinds[python_type]

    def __init_subclass__(cls, python_type: type | None = None) -> None:
        if python_type is not None:
            BaseListVariable.kinds[python_type] = cls

    def is_python_constant(self) -> bool:
        return False

    def as_proxy(self) -> Any:
        return self.value

    def reconstruct(self, residue: Residue) -> None:
        for item in self.value:
            residue.value(item)
        residue.build(self.form, len(self.value))


class TupleVariable(BaseListVariable, python_type=tuple):
    """A tuple."""

    def reconstruct(self, residue: Residue) -> None:
        for item in self.value:
            residue.value(item)
        residue.build("({},)" if self.value else "()", len(self.value))


class ListVariable(BaseListVariable, python_type=list):
    """A list. It may hold itself, so it is made empty and filled."""

    def reconstruct(self, residue: Residue) -> None:
        residue.push("[]")
        residue.keep(self.value)
        for item in self.value:
            residue.dup()
            residue.value(item)
            residue.do("{0}.append({1})", 2)


class SizeVariable(TupleVariable, python_type=torch.Size):
    """The sizes of a tensor."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(torch.Size)
        super().reconstruct(residue)
        residue.call(1)


@wraps_type(tuple, list, torch.Size)
def wrap_sequence(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A sequence: its length is relied on, its elements when they are used."""
    builder.install_guards("SEQUENCE_LENGTH")
    made = BaseListVariable.of(type(value))(value)
    return builder.set_source_and_track_mutable(value, made)


@makes_type(tuple, list, torch.Size)
def make_sequence(tx: Translator, value: Any) -> VariableTracker:
    """A sequence of the program's own."""
    mutable = MutableLocal() if type(value) is list else None
    return BaseListVariable.of(type(value))(value, mutable=mutable)
