"""Dicts: their keys are relied on, their values when they are read.

The order of the keys is relied on as soon as the program can see it: when it iterates, when C code
gets the dict, and when the dict is changed (what is left behind has an order, too).
"""

from __future__ import annotations

import collections
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch.utils._pytree

from stillframe.frames.lookup import python_special, type_lookup
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import (
    AttrSource,
    ConstDictKeySource,
    ContentSource,
    GetItemSource,
    Source,
    has_exact_form,
)
from stillframe.variables.base import LazyVariableTracker, MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.made import fill_attributes, make_empty
from stillframe.variables.kinds.sequences import guard_length, mutable_contents
from stillframe.variables.paths import CONSTANTS, instance_dict, is_library
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.side_effects import contents_of
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator

_DICTS = (dict, collections.OrderedDict)


class ConstDictVariable(VariableTracker):
    """A dict. It may hold itself, so it is made empty and filled."""

    def as_proxy(self) -> Any:
        return self.value

    # -- reading ------------------------------------------------------------------------------

    def place(self, key: Any) -> Source:
        """Where the item of a key is read."""
        assert self.source is not None
        if python_special(type(self.value), "__getitem__") is not None:
            position = next(i for i, (k, _) in enumerate(contents_of(self.value)) if k is key)
            return ContentSource(self.source, position)
        if has_exact_form(key):
            return GetItemSource(self.source, key)
        position = next(i for i, k in enumerate(dict.keys(self.value)) if k is key)
        return GetItemSource(self.source, ConstDictKeySource(self.source, position))

    def contents(self) -> Iterator[tuple[Any, Source]]:
        for key, item in contents_of(self.value):
            yield item, self.place(key)

    def load_item(self, tx: Translator, key: Any) -> Any:
        """The item of one key is read where it is; that a key is absent is known."""
        table = self.value
        if python_special(type(table), "__getitem__") is not None:
            return tx.here(tx.plain_item(table, key))
        tx.hash_key(table, key)
        if not dict.__contains__(table, key) or tx.effects.has_other_contents(table):
            return tx.here(tx.plain_item(table, key))
        held = next(k for k in dict.keys(table) if k is key or _equal(k, key))
        return tx.wrap(dict.__getitem__(table, key), self.place(held))

    def has(self, tx: Translator, value: Any) -> bool | None:
        if python_special(type(self.value), "__contains__") is not None:
            return None
        tx.hash_key(self.value, value)
        return dict.__contains__(self.value, value)

    def iterated(self, tx: Translator) -> Any:
        """The keys; the values stay where they are."""
        if type(self.value) not in _DICTS:
            return super().iterated(tx)
        self.rely_on_order(tx)
        return self.value

    def rely_on_order(self, tx: Translator) -> None:
        assert self.source is not None
        if not is_library(self.source):
            keys = functools.partial(guard_kind(_keys_kind(self.value)), ordered=True)
            install_guard(self.source.make_guard(keys))

    # -- making it again ----------------------------------------------------------------------

    def reconstruct(self, residue: Residue) -> None:
        self._make_empty(residue)
        residue.keep(self.value)
        for key, item in contents_of(self.value):
            residue.fill("{0}[{1}] = {2}", key, item)

    def _make_empty(self, residue: Residue) -> None:
        residue.load_object(type(self.value))
        residue.call(0)


def _equal(key: Any, other: Any) -> bool:
    """Whether a dict takes two objects for one key. Of a tensor there is no other."""
    if isinstance(key, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    return hash(key) == hash(other) and bool(key == other)


class DefaultDictVariable(ConstDictVariable):
    """A dict that makes the values it has not: its factory is relied on, too."""

    def _make_empty(self, residue: Residue) -> None:
        residue.load_object(collections.defaultdict)
        residue.value(self.value.default_factory)
        residue.call(1)


class CustomizedDictVariable(ConstDictVariable):
    """A dict of a class of the user's, or of a library's model outputs: items and attributes."""

    def reconstruct(self, residue: Residue) -> None:
        value = self.value
        base = next(
            c for c in (collections.OrderedDict, collections.defaultdict, dict)
            if isinstance(value, c)
        )  # fmt: skip
        make_empty(residue, value, base)
        residue.keep(value)
        store = residue.bind("setitem", base.__setitem__)
        for key, item in contents_of(value):
            residue.fill(f"{store}({{0}}, {{1}}, {{2}})", key, item)
        if isinstance(value, collections.defaultdict):
            residue.fill("{0}.default_factory = {1}", value.default_factory)
        fill_attributes(residue, value)


class PythonSysModulesVariable(ConstDictVariable):
    """The table of imported modules: whether one is there, and which it is, is relied on."""

    def load_item(self, tx: Translator, key: Any) -> Any:
        self.has(tx, key)
        found = tx.plain_item(self.value, key)
        assert self.source is not None
        place = GetItemSource(self.source, key)
        install_guard(place.make_guard(guard_kind("ID_MATCH")))
        return tx.wrap(found, place)

    def has(self, tx: Translator, value: Any) -> bool:
        assert self.source is not None
        if type(value) is str:
            contains = functools.partial(guard_kind("DICT_CONTAINS"), key=value)
            install_guard(self.source.make_guard(contains))
        return value in self.value

    def rely_on_order(self, tx: Translator) -> None:
        raise tx.graph_break(
            "The frame goes through sys.modules, or changes it.",
            why="any import would change what it finds",
            hints=["ask for one module by its name"],
        )

    def iterated(self, tx: Translator) -> Any:
        self.rely_on_order(tx)
        return self.value


# -- from outside ----------------------------------------------------------------------------------


def _keys_kind(table: Any) -> str:
    constant = all(map(has_exact_form, dict.keys(table)))
    return "DICT_CONST_KEYS" if constant else "DICT_KEYS"


def _guard_keys(builder: VariableBuilder, table: Any, *, ordered: bool) -> None:
    builder.install_guards("SEQUENCE_LENGTH")
    builder.install_guards(_keys_kind(table), ordered=ordered)
    _know_keys(builder, table)


def _know_keys(builder: VariableBuilder, table: Any) -> None:
    """The program may get the keys themselves. Objects are known where they are; a constant that
    it also gets elsewhere is that very object."""
    tx = builder.tx
    for position, key in enumerate(dict.keys(table)):
        if type(key) in CONSTANTS:
            continue
        if has_exact_form(key):
            tx.note_constants((key,))
            continue
        place = builder.at(ConstDictKeySource(builder.source, position))
        place.install_guards("ID_MATCH")
        known = tx.effects.tracker(key)
        if known is None:
            tx.effects.track(key, LazyVariableTracker(key, place.source))
        else:
            place.same_object(key, known)


@wraps_if(43, "dict", lambda value: type(value) in _DICTS)
def wrap_dict(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dict: its keys are relied on. An empty one of a module is checked in the cheapest way."""
    if any(instance_dict(owner) is value for owner in builder.tx.effects.with_attributes()):
        raise builder.tx.graph_break(
            f"The frame reads {builder.source.name()}, the __dict__ of an object that it changes.",
            why="each shows what is written to the other",
        )
    if not value and _holds_hooks(builder.source):
        builder.install_guards("EMPTY_NN_MODULE_HOOKS_DICT")
    elif type(value) is dict and not value and builder.source.is_nn_module():
        builder.install_guards("TYPE_MATCH", "BOOL_FALSE")
    else:
        _guard_keys(builder, value, ordered=False)
    return builder.set_source_and_track_mutable(value, ConstDictVariable(value))


_HOOKS = frozenset("_forward_hooks _forward_pre_hooks _backward_hooks _backward_pre_hooks".split())


def _holds_hooks(source: Source) -> bool:
    """Whether a place is a table of hooks of a module, of which every call has four."""
    return isinstance(source, AttrSource) and source.member in _HOOKS and source.is_nn_module()


@wraps_if(44, "defaultdict", lambda value: type(value) is collections.defaultdict)
def wrap_defaultdict(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dict with a factory for missing values."""
    _guard_keys(builder, value, ordered=False)
    made = builder.set_source_and_track_mutable(value, DefaultDictVariable(value))
    builder.at(AttrSource(builder.source, "default_factory"))(value.default_factory)
    return made


def is_customized_dict(value: Any) -> bool:
    """Whether a value is a dict that looks like a dataclass, or a model's output."""
    cls = type(value)
    if not issubclass(cls, collections.OrderedDict) or cls is collections.OrderedDict:
        return False
    return type_lookup(cls, "__dataclass_fields__") is not None and any(
        base.__name__ in ("ModelOutput", "BaseOutput") or "__dataclass_fields__" in vars(base)
        for base in cls.__mro__
    )


@wraps_if(42, "dataclass-like dict", is_customized_dict)
def wrap_customized_dict(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A model's output: a dict whose items are attributes, too."""
    return _wrap_dict_subclass(builder, value)


@wraps_if(94.1, "dict of the user's class", lambda value: isinstance(value, dict))
def wrap_dict_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dict of the user's class. Its methods in Python are run by the machine."""
    return _wrap_dict_subclass(builder, value)


def _wrap_dict_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    builder.install_guards("TYPE_MATCH")
    guard_length(builder, value)
    _guard_keys(builder, value, ordered=True)
    made = builder.set_source_and_track_mutable(
        value, CustomizedDictVariable(value), mutable_contents(value)
    )
    if isinstance(value, collections.defaultdict):
        builder.at(AttrSource(builder.source, "default_factory"))(value.default_factory)
    return made


@wraps_object(sys.modules)
def wrap_sys_modules(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The table of imported modules."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.set_source_and_track_mutable(value, PythonSysModulesVariable(value))


@wraps_object(torch.utils._pytree.SUPPORTED_NODES)
def wrap_pytree_registry(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The classes that are trees: whoever registers one changes what the program does."""
    install_guard(builder.source.make_guard(guard_kind("DICT_VERSION")))
    return builder.set_source_and_track_mutable(value, ConstDictVariable(value))


# -- of the program's own --------------------------------------------------------------------------


@makes_type(*_DICTS, torch.fx.immutable_collections.immutable_dict)
def make_dict(tx: Translator, value: Any) -> VariableTracker:
    """A dict of the program's own."""
    return ConstDictVariable(value, mutable=MutableLocal())


@makes_type(collections.defaultdict)
def make_defaultdict(tx: Translator, value: Any) -> VariableTracker:
    """A dict with a factory, of the program's own."""
    return DefaultDictVariable(value, mutable=MutableLocal())


@makes_if(94.1, "dict of the user's class", lambda value: isinstance(value, dict))
def make_dict_subclass(tx: Translator, value: Any) -> VariableTracker:
    """A dict of the user's class, which the program made."""
    return CustomizedDictVariable(value, mutable=MutableLocal())
