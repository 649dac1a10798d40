"""Objects of the user's classes, and the classes."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.frames.lookup import type_lookup
from stillframe.variables.base import ExistingObject, MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator


class UserDefinedObjectVariable(VariableTracker):
    """An object; what is known of it is its class, and the attributes that were read."""

    def reconstruct(self, residue: Residue) -> None:
        """An object of the program's own: of the same class, with the attributes it has."""
        value = self.value
        cls = type(value)
        if type_lookup(cls, "__new__") is not object.__new__ or _has_slots(cls):
            raise NotImplementedError(f"objects of {cls.__qualname__} are made by its own code")
        residue.load_object(object.__new__)
        residue.value(cls)
        residue.call(1)
        residue.keep(value)
        for name, held in vars(value).items():
            residue.fill(f"{{0}}.__dict__[{name!r}] = {{1}}", held)


def _has_slots(cls: type) -> bool:
    return any("__slots__" in vars(base) for base in cls.__mro__ if base is not object)


class UserDefinedClassVariable(VariableTracker):
    """A class."""

    def reconstruct(self, residue: Residue) -> None:
        if "<locals>" in self.value.__qualname__:
            raise NotImplementedError("the program made this class")
        residue.load_object(self.value)


def has_ordinary_setattr(cls: type) -> bool:
    """Whether storing an attribute is that, or what ``nn.Module`` does."""
    found = type_lookup(cls, "__setattr__")
    return found is object.__setattr__ or found is torch.nn.Module.__setattr__


def wrap_user_object(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An object of which nothing else is known."""
    builder.install_guards("TYPE_MATCH")
    made = UserDefinedObjectVariable(value)
    mutable = ExistingObject() if has_ordinary_setattr(type(value)) else None
    made.source, made.mutable = builder.source, mutable
    builder.tx.effects.track(value, made)
    return made


@wraps_if(93, "class", lambda value: isinstance(value, type))
def wrap_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, UserDefinedClassVariable(value))


@makes_if(60, "class", lambda value: isinstance(value, type))
def make_class(tx: Translator, value: Any) -> VariableTracker:
    """A class that lasts, or one that the program made."""
    return UserDefinedClassVariable(value)


@makes_if(1000, "object", lambda value: True)
def make_object(tx: Translator, value: Any) -> VariableTracker:
    """An object of the program's own."""
    return UserDefinedObjectVariable(value, mutable=MutableLocal())
