"""Objects of the standard library and of other packages that have a way of their own."""

from __future__ import annotations

import re
import sys
import types
import weakref
from typing import Any

import torch

from stillframe.frames.lookup import type_lookup
from stillframe.source import AttrSource, WeakRefCallSource
from stillframe.variables.base import LastingVariable, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.getters import GETTERS
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable, class_lasts
from stillframe.variables.kinds.wrappers import LambdaVariable
from stillframe.variables.registry import wraps_if, wraps_object, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator

# -- regular expressions ---------------------------------------------------------------------------


class RegexPatternVariable(LastingVariable):
    """A compiled regular expression."""


@wraps_type(re.Pattern)
def wrap_pattern(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A pattern, known by its identity."""
    builder.install_guards("ID_MATCH")
    return RegexPatternVariable(value, source=builder.source)


@makes_type(re.Pattern)
def make_pattern(tx: Translator, value: Any) -> VariableTracker:
    """A pattern that the program has compiled; ``re`` keeps them."""
    return RegexPatternVariable(value)


# -- weak references -------------------------------------------------------------------------------


class WeakRefVariable(VariableTracker):
    """A weak reference. Calling it reads what it refers to."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = self.value(*args, **kwargs)
        if self.source is None:
            return tx.here(found)
        return tx.wrap(found, WeakRefCallSource(self.source))

    def reconstruct(self, residue: Residue) -> None:
        """A reference to what stands for its object; a dead one refers to nothing again."""
        if self.value() is None or self.value.__callback__ is not None:
            raise NotImplementedError("what it refers to is gone, or it calls back")
        residue.load_object(weakref.ref)
        residue.value(self.value())
        residue.call(1)


@wraps_object(weakref.finalize)
def wrap_finalize(builder: VariableBuilder, value: Any) -> VariableTracker:
    """What calls back when an object dies."""
    return LambdaVariable(value, _refuse_finalize, source=builder.source)


def _refuse_finalize(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise tx.graph_break(
        "The frame asks to be called back when an object dies.",
        why="nobody knows when that is",
    )


@wraps_type(weakref.ref)
def wrap_weak_reference(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A weak reference."""
    builder.install_guards("TYPE_MATCH")
    made = WeakRefVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@makes_type(weakref.ref)
def make_weak_reference(tx: Translator, value: Any) -> VariableTracker:
    """A weak reference that the program has made."""
    return WeakRefVariable(value)


_WEAK = (weakref.ref, weakref.ProxyType, weakref.CallableProxyType)


@wraps_if(38.5, "other weak reference", lambda value: issubclass(type(value), _WEAK))
def refuse_weak_reference(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A proxy, or a subclass of ``weakref.ref``: what it leads to has no place that is read."""
    raise builder.tx.graph_break(
        f"The frame uses the weak reference {builder.source.name()}, "
        f"of class {type(value).__qualname__}.",
        why="what it leads to cannot be guarded",
        hints=["use weakref.ref"],
    )


# -- types as objects ------------------------------------------------------------------------------


class TypingVariable(LastingVariable):
    """What annotations are made of: ``Optional[int]``, ``list[int]``, a type variable."""


def _is_typing(value: Any) -> bool:
    cls = type(value)
    if cls in (types.GenericAlias, types.UnionType):
        return True
    return cls.__module__ == "typing" and not isinstance(value, type)


@wraps_if(55, "typing object", lambda value: _is_typing(value))
def wrap_typing(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An object of ``typing``, known by its identity."""
    builder.install_guards("ID_MATCH")
    return TypingVariable(value, source=builder.source)


@makes_if(55, "typing object", lambda value: _is_typing(value))
def make_typing(tx: Translator, value: Any) -> VariableTracker:
    """An object of ``typing`` that the program has made, of classes that last."""
    arguments = getattr(value, "__args__", ())
    if not all(map(_lasts, arguments)):
        raise tx.graph_break(f"A type made of something else than types that last: {value!r}.")
    return TypingVariable(value)


def _lasts(argument: Any) -> bool:
    if isinstance(argument, type) and not _is_typing(argument):
        return class_lasts(argument)
    return is_literal(argument) or _is_typing(argument)


# -- the version of torch --------------------------------------------------------------------------


class TorchVersionVariable(LastingVariable):
    """``torch.__version__``: it does not change while a program runs."""


@wraps_object(torch.__version__)
def wrap_version(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The version; nothing is checked."""
    return TorchVersionVariable(value, source=builder.source)


@makes_type(type(torch.__version__))
def make_version(tx: Translator, value: Any) -> VariableTracker:
    """The version, or a part of it that the program has made."""
    return TorchVersionVariable(value)


# -- configurations of models ----------------------------------------------------------------------


class HFPretrainedConfigVariable(UserDefinedObjectVariable):
    """The configuration of a model of ``transformers``: an object that looks attributes up under
    other names."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        """An attribute that the object keeps, under whatever name, is read and guarded."""
        if self.source is None or name == "attribute_map" or name.startswith("__"):
            return super().var_getattr(tx, name)
        names = super().var_getattr(tx, "attribute_map")
        other = tx.load_item(names, name) if name in names else name
        if not self._is_kept(other) or tx.effects.is_written(self.value):
            return super().var_getattr(tx, name)
        return tx.wrap(vars(self.value)[other], AttrSource(self.source, other))

    def _is_kept(self, name: str) -> bool:
        """Whether the object itself holds an attribute, and its class leaves that alone."""
        cls = type(self.value)
        looks_up = type_lookup(cls, "__getattribute__")
        return (
            name in vars(self.value)
            and any(looks_up is vars(known).get("__getattribute__") for known in _classes())
            and not hasattr(type(type_lookup(cls, name)), "__set__")
        )


def _classes() -> tuple[type, ...]:
    module = sys.modules.get("transformers.configuration_utils")
    names = ("PretrainedConfig", "PreTrainedConfig")
    return tuple(c for n in names if isinstance(c := getattr(module, n, None), type))


def _is_configuration(value: Any) -> bool:
    return issubclass(type(value), _classes())


@wraps_if(67, "pretrained configuration", _is_configuration)
def wrap_configuration(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A configuration; its attributes are guarded when they are read."""
    builder.install_guards("TYPE_MATCH")
    return builder.track_object(value, HFPretrainedConfigVariable(value))


# -- getters ---------------------------------------------------------------------------------------


class GetterVariable(LastingVariable):
    """An ``attrgetter``, ``itemgetter`` or ``methodcaller``: it never changes."""


@wraps_type(*GETTERS)
def wrap_getter(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A getter, known by its identity: what it reads is inside of it."""
    builder.install_guards("ID_MATCH")
    made = GetterVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made
