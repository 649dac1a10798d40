"""Objects of the user's classes, and the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import BuiltinFunctionType, MemberDescriptorType
from typing import Any

import torch

from stillframe.frames.attributes import native_store
from stillframe.frames.frame import NULL
from stillframe.frames.lookup import type_lookup
from stillframe.variables.base import ExistingObject, MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.foreign import has_hidden_state, is_immutable
from stillframe.variables.paths import HEAP_TYPE, lasting_source
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator


class UserDefinedObjectVariable(VariableTracker):
    """An object; what is known of it is its class, and the attributes that were read."""

    is_plain_object = True

    def reconstruct(self, residue: Residue) -> None:
        """An object of the program's own: of the same class, with the attributes and slots it has.

        No code of its class is run. An exception comes without the traceback of the capture.
        """
        value = self.value
        residue.load_object(_maker(type(value)))
        residue.value(type(value))
        residue.call(1)
        residue.keep(value)
        store = residue.bind("store", native_store)
        for name, held in _state_in_c(value):
            residue.fill(f"{store}({{0}}, {name!r}, {{1}})", held)
        for name, held in getattr(value, "__dict__", {}).items():
            residue.fill(f"{{0}}.__dict__[{name!r}] = {{1}}", held)


def _maker(cls: type) -> Any:
    """The function of C that makes an empty object of a class, past any in Python.

    Raises:
        NotImplementedError: what C keeps in such an object is not known.
    """
    base = next(b for b in cls.__mro__ if type(vars(b).get("__new__")) is BuiltinFunctionType)
    known = issubclass(base, BaseException) or (base is object and not _keeps_more(cls))
    if not known:
        raise NotImplementedError(f"objects of {cls.__qualname__} are made by code of C")
    return base.__new__


def _keeps_more(cls: type) -> bool:
    """Whether an object of a class is larger than its slots and its ``__dict__`` make it."""
    slots = sum(
        type(e) is MemberDescriptorType for base in cls.__mro__ for e in vars(base).values()
    )
    extra = (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    size = object.__basicsize__ + _POINTER * (slots + extra)
    return bool(cls.__itemsize__) or cls.__basicsize__ > size


_POINTER = object.__basicsize__ // 2


def is_made_by_python(cls: type) -> bool:
    """Whether an object of a class is its attributes and slots, or an exception."""
    try:
        _maker(cls)
    except NotImplementedError:
        return False
    return True


#: Of an exception, beside what its own class has.
_OF_EXCEPTIONS = ("args", "__cause__", "__context__", "__suppress_context__")


def _state_in_c(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds beside its ``__dict__``: slots; what C keeps in an exception."""
    is_error = isinstance(value, BaseException)
    for base in type(value).__mro__:
        if base is BaseException or base is object:
            break
        for name, entry in vars(base).items():
            if type(entry) is MemberDescriptorType:
                held = _slot(entry, value)
                if held is not NULL and not (is_error and held is None):
                    yield name, held
    for name in _OF_EXCEPTIONS if is_error else ():
        yield name, getattr(value, name)


def _slot(slot: Any, value: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:
        return NULL


class UserDefinedClassVariable(VariableTracker):
    """A class."""

    def reconstruct(self, residue: Residue) -> None:
        if not class_lasts(self.value):
            raise NotImplementedError("the program made this class")
        residue.load_object(self.value)


def class_lasts(cls: type) -> bool:
    """Whether a class is one of C's, or is found in its module under its name."""
    is_static = not cls.__flags__ & HEAP_TYPE
    return is_static or lasting_source(cls) is not None


def has_ordinary_setattr(cls: type) -> bool:
    """Whether storing an attribute is that, or what ``nn.Module`` does."""
    found = type_lookup(cls, "__setattr__")
    return found is object.__setattr__ or found is torch.nn.Module.__setattr__


def wrap_user_object(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An object of which nothing else is known."""
    builder.install_guards("TYPE_MATCH")
    made = UserDefinedObjectVariable(value)
    if is_immutable(value):
        builder.install_guards("ID_MATCH")  # what it is cannot be compared, but does not change
    else:
        made.is_opaque = has_hidden_state(type(value))
    mutable = ExistingObject() if has_ordinary_setattr(type(value)) else None
    made.source, made.mutable = builder.source, mutable
    builder.tx.effects.track(value, made)
    return made


@wraps_if(93, "class", lambda value: isinstance(value, type))
def wrap_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    made = builder.track_object(value, UserDefinedClassVariable(value))
    builder.tx.behaviour.rely_on_class(value, builder.source)
    return made


@makes_if(60, "class", lambda value: isinstance(value, type))
def make_class(tx: Translator, value: Any) -> VariableTracker:
    """A class that lasts, or one that the program made."""
    return UserDefinedClassVariable(value)


_DEFAULT_FACTORY: Any = vars(dataclasses)["_HAS_DEFAULT_FACTORY"]


class _SentinelVariable(UserDefinedObjectVariable):
    """An object that stands for itself: there is one of it."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


@makes_if(10, "default factory of a dataclass", lambda value: value is _DEFAULT_FACTORY)
def make_default_factory(tx: Translator, value: Any) -> VariableTracker:
    """What a dataclass has in place of a default that is made anew."""
    return _SentinelVariable(value)


@makes_if(1000, "object", lambda value: is_made_by_python(type(value)))
def make_object(tx: Translator, value: Any) -> VariableTracker:
    """An object of the program's own."""
    return UserDefinedObjectVariable(value, mutable=MutableLocal())
