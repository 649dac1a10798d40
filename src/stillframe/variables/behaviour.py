"""What the program runs of classes and functions from outside: it must stay, and has sources.

A class is known by a guard on somebody's type or on its own identity. Its methods are found there
by Python and by C, and a method that is patched is another program. So each class of the user's
that the capture has met is compared as a whole (the guard BEHAVIOUR), and what it holds can be
reached: the cells of a method, a descriptor in Python, a table that all objects share.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

from stillframe.frames.lookup import C_KINDS, MISSING, type_lookup
from stillframe.guards import install_guard
from stillframe.guards.kinds.behaviour import is_behaviour
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import (
    AttrSource,
    ClassEntrySource,
    GetItemSource,
    GlobalStateSource,
    InstanceDictSource,
    Source,
    TypeSource,
)
from stillframe.variables.base import LazyVariableTracker
from stillframe.variables.paths import (
    HEAP_TYPE,
    instance_dict,
    is_library_name,
    is_plain,
    lasting_source,
    lasts,
)

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

#: What a C object in a class keeps of the user's: the attributes that read it.
_PARTS: dict[type, tuple[str, ...]] = {
    property: ("fget", "fset", "fdel"),
    classmethod: ("__func__",),
    staticmethod: ("__func__",),
}


def is_library_class(cls: type) -> bool:
    """Whether a class belongs to C, or to a module that nobody changes.

    A class that a function of such a module made, for an object of the user's, does not.
    """
    if not cls.__flags__ & HEAP_TYPE:
        return True
    module = cls.__module__
    if type(module) is not str or not is_library_name(module):
        return False
    return "<locals>" in cls.__qualname__ or lasting_source(cls) is not None


def is_method(source: Source, value: Any) -> bool:
    """Whether a value is what a class does: the guard on the class tells which object it is."""
    if isinstance(source, ClassEntrySource):
        return is_behaviour(source.entry, value)
    if not isinstance(source, AttrSource) or not isinstance(source.base, ClassEntrySource):
        return False
    return any(source.member in parts for parts in _PARTS.values())


class Behaviour:
    """The classes and functions of one capture.

    Args:
        tx: whose program runs them.
    """

    def __init__(self, tx: Translator) -> None:
        self._tx = tx
        self._classes: dict[type, Source] = {}
        self._seen: set[type] = set()
        self._exact: set[type] = set()
        self._absent: dict[type, dict[str, None]] = {}
        self._subclasses: dict[tuple[type, type], bool] = {}
        self._functions: dict[int, FunctionType] = {}

    def rely_on_class(self, cls: type, source: Source) -> None:
        """A class has been met, which other guards pin.

        Args:
            source: where it is read.
        """
        if cls in self._seen:
            return
        self._seen.add(cls)
        for index, base in enumerate(cls.__mro__):
            if is_library_class(base) or base in self._classes:
                continue
            place = source if index == 0 else GetItemSource(AttrSource(source, "__mro__"), index)
            self._classes[base] = place
            for name, entry in vars(base).items():
                self._hold(entry, ClassEntrySource(place, name))
        if not is_library_class(type(cls)):
            self.rely_on_class(type(cls), TypeSource(source))

    def _hold(self, value: Any, source: Source) -> None:
        """A value can be reached at a source; nothing is relied on until somebody uses it."""
        effects = self._tx.effects
        if type(value) in C_KINDS or is_plain(value) or effects.tracker(value) is not None:
            return
        effects.track(value, LazyVariableTracker(value, source))
        for part in _PARTS.get(type(value), ()):
            self._hold(getattr(value, part), AttrSource(source, part))

    def entry(self, value: Any, name: str, found: Any) -> Source | None:
        """Where a constant is that was found as an attribute; None: in no class that is known."""
        if not isinstance(value, type) and name in instance_dict(value):
            return None
        for base in self._classes_of(value):
            if name in vars(base):
                place = self._classes.get(base)
                is_it = place is not None and vars(base)[name] is found
                return ClassEntrySource(place, name) if is_it and place is not None else None
        return None

    def rely_on_absence(self, value: Any, name: str, source: Source) -> None:
        """An attribute was found in the class, or was computed by it: the object itself has none,
        and neither has any class that Python would have asked before."""
        if isinstance(value, type):
            if type_lookup(value, name) is MISSING:
                self._rely_on_no_entry(value, name)
            return
        entry = type_lookup(type(value), name)
        if entry is MISSING:
            self._rely_on_no_entry(type(value), name)
        elif hasattr(type(entry), "__set__"):
            return
        has_dict = type_lookup(type(value), "__dict__") is not MISSING
        if has_dict and name not in instance_dict(value):
            absent = functools.partial(guard_kind("DICT_CONTAINS"), key=name)
            install_guard(InstanceDictSource(source).make_guard(absent))

    def _rely_on_no_entry(self, cls: type, name: str) -> None:
        for base in cls.__mro__:
            if base in self._classes:
                self._absent.setdefault(base, {})[name] = None

    def read_past_hooks(self, function: Any, args: tuple[Any, ...], value: Any, name: str) -> Any:
        """``object.__getattribute__(value, name)`` for an object from outside.

        Args:
            function, args: the call, as the program makes it.
        """
        tx = self._tx
        source = tx.source(value)
        assert source is not None
        try:
            found = tx.call_c(function, *args)
        except AttributeError:
            self.rely_on_absence(value, name, source)
            raise
        names = instance_dict(value)
        if tx.effects.wrote(value, name) or tx.effects.is_written(names):
            return found
        if name in names and names[name] is found:
            return tx.wrap(found, GetItemSource(InstanceDictSource(source), name))
        if lasts(value, name, found) and self.entry(value, name, found) is None:
            return tx.wrap(found, AttrSource(source, name))
        self.rely_on_absence(value, name, source)
        entry = self.entry(value, name, found) if is_plain(found) else None
        return found if entry is None else tx.wrap(found, entry)

    def _classes_of(self, value: Any) -> Iterator[type]:
        """Where an attribute of a value is looked for, beside the value itself."""
        proxy: Any = value if type(value) is super else None
        if proxy is not None:
            order = proxy.__self_class__.__mro__ if proxy.__self_class__ is not None else ()
            start = proxy.__thisclass__
            return iter(order[order.index(start) + 1 :] if start in order else ())
        own: tuple[type, ...] = value.__mro__ if isinstance(value, type) else ()
        return iter((*own, *type(value).__mro__))

    def expose(self, cls: type) -> None:
        """The program looks at all that a class has by itself."""
        place = self._classes.get(cls)
        if place is None or cls in self._exact:
            return
        self._exact.add(cls)
        for name, entry in vars(cls).items():
            if is_plain(entry):
                self._tx.build(entry, ClassEntrySource(place, name))

    def rely_on_subclass(self, cls: type, abstract: type, answer: bool) -> None:
        """An abstract class has said whether another is one of its subclasses."""
        if not (is_library_class(cls) and is_library_class(abstract)):
            self._subclasses[cls, abstract] = answer

    def rely_on_function(self, function: FunctionType, source: Source | None) -> None:
        """A function from outside is run.

        Where its identity is known, so are its code and its default arguments as one tuple. Of one
        that is made anew for each call only the code is known, and the defaults are read there.
        """
        is_known = "<locals>" not in function.__qualname__
        if is_known or source is None or is_method(source, function):
            self._functions[id(function)] = function
        elif function.__defaults__ is None:
            self._guard(AttrSource(source, "__defaults__"), "NONE_MATCH")
        else:
            self._guard(AttrSource(source, "__defaults__"), "SEQUENCE_LENGTH")
        if source is not None and function.__kwdefaults__ is not None:
            self._guard(AttrSource(source, "__kwdefaults__"), "DICT_CONST_KEYS")
        elif source is not None and id(function) not in self._functions:
            self._guard(AttrSource(source, "__kwdefaults__"), "NONE_MATCH")

    def knows_defaults(self, function: FunctionType) -> bool:
        """Whether the defaults by position are relied on as a whole."""
        return id(function) in self._functions

    def _guard(self, source: Source, kind: str) -> None:
        install_guard(source.make_guard(guard_kind(kind)))

    def install(self) -> None:
        """Add the guard."""
        if not (self._classes or self._functions or self._subclasses):
            return
        behaviour = functools.partial(
            guard_kind("BEHAVIOUR"),
            classes=[(cls, cls in self._exact, self._absent.get(cls, ())) for cls in self._classes],
            functions=list(self._functions.values()),
            subclasses=[(*pair, answer) for pair, answer in self._subclasses.items()],
        )
        install_guard(GlobalStateSource().make_guard(behaviour))


def is_library_function(function: FunctionType) -> bool:
    """Whether a function belongs to a module that nobody changes."""
    module = function.__globals__.get("__name__")
    return isinstance(module, str) and module in sys.modules and is_library_name(module)
