"""What C binds: descriptors of a class, and the methods of C that belong to an object.

Most of these objects are made anew at every access, so their identity tells nothing: a guard is on
what they are made of.
"""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType, MethodWrapperType
from typing import Any

from stillframe.source import AttrSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class BoundBuiltinVariable(VariableTracker):
    """A method of C, bound to its object: ``items.append``."""

    def reconstruct(self, residue: Residue) -> None:
        """Bound again, to the object that stands for its own."""
        residue.value(self.value.__self__)
        residue.load_attr(self.value.__name__)


class MethodWrapperVariable(BoundBuiltinVariable):
    """A special method of C, bound to its object: ``items.__len__``."""


class GetSetDescriptorVariable(VariableTracker):
    """An attribute that C computes, or a slot, as the class has it."""

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value.__objclass__)
        residue.load_attr("__dict__")
        residue.load_constant(self.value.__name__)
        residue.load_item()


def wrap_bound(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A method of C that somebody keeps: its name, and its object with that one's class."""
    return _wrap_bound(builder, value, BoundBuiltinVariable(value))


@wraps_type(MethodWrapperType)
def wrap_method_wrapper(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A special method of C that somebody keeps."""
    return _wrap_bound(builder, value, MethodWrapperVariable(value))


def _wrap_bound(builder: VariableBuilder, value: Any, made: VariableTracker) -> VariableTracker:
    builder.install_guards("TYPE_MATCH")
    builder.install_guards("NAME_MATCH")
    builder.at(AttrSource(builder.source, "__self__"))(value.__self__)
    made.source = builder.source
    builder.tx.effects.track(value, made)
    return made


@wraps_type(GetSetDescriptorType, MemberDescriptorType)
def wrap_descriptor(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A descriptor: its name, and the class that it is of."""
    builder.install_guards("TYPE_MATCH")
    builder.install_guards("NAME_MATCH")
    owner = builder.at(AttrSource(builder.source, "__objclass__"))
    owner.install_guards("FUNCTION_MATCH")
    made = GetSetDescriptorVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@makes_type(MethodWrapperType)
def make_method_wrapper(tx: Translator, value: Any) -> VariableTracker:
    """A special method of C, bound by the program."""
    return MethodWrapperVariable(value)


@makes_type(GetSetDescriptorType, MemberDescriptorType)
def make_descriptor(tx: Translator, value: Any) -> VariableTracker:
    """A descriptor that the program has read of a class."""
    return GetSetDescriptorVariable(value)
