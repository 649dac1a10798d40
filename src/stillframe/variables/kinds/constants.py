"""Constants: values that are known now, and checked at every call."""

from __future__ import annotations

import enum
from types import CodeType
from typing import Any

import torch

from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator

#: Classes whose values are constants by themselves; a container of constants is one, too.
ATOMS = (
    int, float, complex, bool, str, bytes, type(None), type(...), CodeType, torch.device,
    torch.dtype, torch.memory_format, torch.layout,
)  # fmt: skip

_CONTAINERS = (tuple, frozenset)


def is_literal(value: Any) -> bool:
    """Whether a value is a constant: an atom, or a tuple or frozenset of constants."""
    if type(value) in ATOMS:
        return True
    return type(value) in _CONTAINERS and all(map(is_literal, value))


class ConstantVariable(VariableTracker):
    """A literal."""

    def is_python_constant(self) -> bool:
        return True


class EnumVariable(VariableTracker):
    """A member of an enum: there is one object for it, so it lasts."""

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


#: Numbers on which sizes specialise, too.
COMMON = (0, 1)


@wraps_type(*(cls for cls in ATOMS if cls not in (int, float)))
def wrap_atom(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A constant of any class but a number's."""
    builder.install_guards("CONSTANT_MATCH")
    return ConstantVariable(value)


@wraps_if(46, "literal", is_literal)
def wrap_literal(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A frozenset of constants, and the like: equal, but maybe another object."""
    builder.install_guards("CONSTANT_MATCH")
    return builder.set_source_and_track(value, ConstantVariable(value))


@wraps_if(49, "enum", lambda value: isinstance(value, enum.Enum))
def wrap_enum(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A member of an enum. What its value holds may change, so that has a source."""
    builder.install_guards("ID_MATCH")
    return builder.set_source_and_track(value, EnumVariable(value))


@makes_type(*ATOMS)
def make_atom(tx: Translator, value: Any) -> VariableTracker:
    """A constant."""
    return ConstantVariable(value)


@makes_if(50, "enum", lambda value: isinstance(value, enum.Enum))
def make_enum(tx: Translator, value: Any) -> VariableTracker:
    """A member of an enum."""
    return EnumVariable(value)
