"""Views of dicts: what they show is read in the dict."""

from __future__ import annotations

import collections
from types import MappingProxyType
from typing import Any

from stillframe.guards.helpers import viewed_dict
from stillframe.source import Source, ViewedDictSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.sequences import BaseListVariable, ListVariable
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

_ORDERED = collections.OrderedDict[Any, Any]()
ORDERED_VALUES: type = type(_ORDERED.values())
_METHODS: dict[type, str] = {
    type({}.keys()): "keys",
    type({}.values()): "values",
    type({}.items()): "items",
    type(_ORDERED.keys()): "keys",
    type(_ORDERED.items()): "items",
    ORDERED_VALUES: "values",
}


class DictViewVariable(VariableTracker):
    """A view of keys, values or items."""

    def rely_on_order(self, tx: Translator) -> None:
        """Who sees the view sees the dict."""
        tx.expose(viewed_dict(self.value), deep=False)

    def has(self, tx: Translator, value: Any) -> bool | None:
        table = viewed_dict(self.value)
        tx.expose(table)
        tx.settle(table, value)
        return value in self.value

    def reconstruct(self, residue: Residue) -> None:
        residue.value(viewed_dict(self.value))
        residue.load_attr(_METHODS[type(self.value)])
        residue.call(0)


class OrderedValuesVariable(DictViewVariable, ListVariable, python_type=ORDERED_VALUES):
    """A view of an ordered dict's values: a list that cannot be changed through it."""

    def contents(self) -> Any:
        return iter(())

    def load_item(self, tx: Translator, key: Any) -> Any:
        return tx.plain_item(self.value, key)

    def place(self, index: int) -> Source:
        raise NotImplementedError("a view has no items: they are the dict's")


class MappingProxyVariable(VariableTracker):
    """A dict that may only be read."""

    def load_item(self, tx: Translator, key: Any) -> Any:
        return tx.load_item(viewed_dict(self.value), key)

    def has(self, tx: Translator, value: Any) -> bool | None:
        return tx.contains(viewed_dict(self.value), value)

    def rely_on_order(self, tx: Translator) -> None:
        tx.expose(viewed_dict(self.value))

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(MappingProxyType)
        residue.value(viewed_dict(self.value))
        residue.call(1)


@wraps_type(*(cls for cls in _METHODS if cls is not ORDERED_VALUES))
def wrap_view(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A view that was made before."""
    builder.install_guards("TYPE_MATCH")
    return _with_dict(builder, value, DictViewVariable(value))


@wraps_type(ORDERED_VALUES)
def wrap_ordered_values(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The values of an ordered dict: how many there are is relied on, the rest when it is used."""
    builder.install_guards("SEQUENCE_LENGTH")
    return _with_dict(builder, value, BaseListVariable.of(ORDERED_VALUES)(value))


@wraps_type(MappingProxyType)
def wrap_mapping_proxy(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dict that may only be read; it may be anything else that maps keys to values."""
    builder.install_guards("TYPE_MATCH")
    return _with_dict(builder, value, MappingProxyVariable(value))


def _with_dict(builder: VariableBuilder, value: Any, made: VariableTracker) -> VariableTracker:
    builder.set_source_and_track(value, made)
    builder.at(ViewedDictSource(builder.source))(viewed_dict(value))
    return made


@makes_type(*_METHODS)
def make_view(tx: Translator, value: Any) -> VariableTracker:
    """A view that the program took."""
    return DictViewVariable(value)


@makes_type(MappingProxyType)
def make_mapping_proxy(tx: Translator, value: Any) -> VariableTracker:
    """A read-only dict that the program made, or that a class gives."""
    return MappingProxyVariable(value)
