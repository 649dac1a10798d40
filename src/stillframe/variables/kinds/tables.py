"""Dicts and sets."""

from __future__ import annotations

import collections
from typing import Any

from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

_DICTS = (dict, collections.OrderedDict)


class ConstDictVariable(VariableTracker):
    """A dict. It may hold itself, so it is made empty and filled."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(type(self.value))
        residue.call(0)
        residue.keep(self.value)
        for key, item in dict.items(self.value):
            residue.dup()
            residue.value(key)
            residue.value(item)
            residue.do("{0}[{1}] = {2}", 3)


class SetVariable(VariableTracker):
    """A set."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(set)
        for item in self.value:
            residue.value(item)
        residue.build("[{}]", len(self.value))
        residue.call(1)


@wraps_if(43, "dict", lambda value: type(value) in _DICTS)
def wrap_dict(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dict: its keys and their order are relied on, its values when they are used."""
    builder.install_guards("SEQUENCE_LENGTH")
    builder.install_guards("DICT_CONST_KEYS", ordered=True)
    return builder.set_source_and_track_mutable(value, ConstDictVariable(value))


@makes_type(*_DICTS)
def make_dict(tx: Translator, value: Any) -> VariableTracker:
    """A dict of the program's own."""
    return ConstDictVariable(value, mutable=MutableLocal())


@makes_type(set)
def make_set(tx: Translator, value: Any) -> VariableTracker:
    """A set of the program's own."""
    return SetVariable(value, mutable=MutableLocal())
