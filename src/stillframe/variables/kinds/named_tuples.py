"""Tuples whose items have names: named tuples, and the struct sequences of C and of torch."""

from __future__ import annotations

import collections
from typing import Any

from stillframe.frames.lookup import python_special, type_lookup
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.made import fill_attributes, make_from_items
from stillframe.variables.kinds.sequences import TupleVariable, guard_length, mutable_contents
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator

_Point = collections.namedtuple("_Point", "x")
_FIELD = type(vars(_Point)["x"])


def is_struct_sequence(cls: type) -> bool:
    """Whether a class is a tuple of C with names for its items."""
    return cls.__bases__ == (tuple,) and type(getattr(cls, "n_sequence_fields", None)) is int


def is_named_tuple(value: Any) -> bool:
    """Whether a value is a tuple whose items have names."""
    cls = type(value)
    if not issubclass(cls, tuple) or cls is tuple:
        return False
    return is_struct_sequence(cls) or type(getattr(cls, "_fields", None)) is tuple


class NamedTupleVariable(TupleVariable):
    """A tuple whose items have names; a name is another way to an item."""

    def _index(self, name: str) -> int | None:
        cls = type(self.value)
        if is_struct_sequence(cls):
            names = cls.__match_args__[: cls.n_sequence_fields]
        else:
            names = cls._fields
            if type(type_lookup(cls, name)) is not _FIELD:
                return None  # a subclass means something else by it
        return names.index(name) if name in names else None

    def var_getattr(self, tx: Translator, name: str) -> Any:
        index = self._index(name)
        if index is None or self.source is None:
            return tx.read_attribute(self, name)
        if tx.effects.wrote(self.value, name):
            return tx.read_attribute(self, name)
        return tx.wrap(self.items()[index], self.place(index))

    def reconstruct(self, residue: Residue) -> None:
        cls = type(self.value)
        if is_struct_sequence(cls):
            residue.load_object(cls)
            for item in self.items():
                residue.value(item)
            residue.build("[{}]", len(self.value))
            residue.call(1)
            return
        make_from_items(residue, self.value, tuple, self.items())
        fill_attributes(residue, self.value)


@wraps_if(39, "named tuple", is_named_tuple)
def wrap_named_tuple(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A named tuple: its class and length are relied on, its items when they are used."""
    guard_length(builder, value)
    if python_special(type(value), "__getattribute__") is not None:
        raise builder.tx.graph_break(
            f"{builder.source.name()} is a named tuple with a __getattribute__ of its own."
        )
    return builder.set_source_and_track_mutable(
        value, NamedTupleVariable(value), mutable_contents(value)
    )


@makes_if(39, "named tuple", is_named_tuple)
def make_named_tuple(tx: Translator, value: Any) -> VariableTracker:
    """A named tuple that the program made, or a result of torch with names."""
    return NamedTupleVariable(value, mutable=MutableLocal())
