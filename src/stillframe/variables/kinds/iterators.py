"""Iterators: that of a tuple from outside may be used, others from outside are refused.

An iterator of the program's own lives as long as the frame. One that escapes is made again only if
it says where it stands.
"""

from __future__ import annotations

import operator
from types import GeneratorType
from typing import Any

from stillframe.guards.helpers import tuple_iterator_item
from stillframe.source import TupleIteratorGetItemSource
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.paths import HEAP_TYPE, TUPLE_ITERATOR
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator

_SEQUENCE_ITERATORS: tuple[type, ...] = (type(iter([])), TUPLE_ITERATOR, type(iter(range(0))))


class TupleIteratorVariable(VariableTracker):
    """The iterator of a tuple. The program uses a stand-in; what it takes is taken later."""

    def iterable(self, tx: Translator) -> Any:
        return self.value

    def reconstruct(self, residue: Residue) -> None:
        _make_again(residue, self.value)


class SequenceIteratorVariable(VariableTracker):
    """The iterator of a list or a range, of the program's own."""

    def reconstruct(self, residue: Residue) -> None:
        _make_again(residue, self.value)


class IteratorVariable(VariableTracker):
    """An iterator that does not say where it stands."""

    def reconstruct(self, residue: Residue) -> None:
        raise NotImplementedError("an iterator cannot be made again where it stands")


class ItertoolsVariable(VariableTracker):
    """A class of ``itertools``. What it makes is an iterator of the program's own."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


def _make_again(residue: Residue, iterator: Any) -> None:
    _, (values,), *position = iterator.__reduce__()
    residue.load_object(iter)
    residue.value(values)
    residue.call(1)
    if position and position[0]:
        residue.dup()
        residue.load_constant(position[0])
        residue.do("{0}.__setstate__({1})", 2)


@wraps_type(TUPLE_ITERATOR)
def wrap_tuple_iterator(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The iterator of a tuple: how many items are left, and each of them."""
    builder.install_guards("TUPLE_ITERATOR_LEN")
    tx, source = builder.tx, builder.source
    items = [
        tx.wrap(tuple_iterator_item(value, index), TupleIteratorGetItemSource(source, index))
        for index in range(operator.length_hint(value))
    ]
    stand_in = iter(tuple(items))
    made = builder.set_source_and_track(value, TupleIteratorVariable(stand_in))
    made.mutable = MutableLocal()
    tx.effects.iterator(stand_in, source)
    return made


@wraps_if(
    83,
    "class of itertools",
    lambda value: isinstance(value, type) and value.__module__ == "itertools",
)
def wrap_itertools(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class of ``itertools``."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, ItertoolsVariable(value))


@makes_type(*_SEQUENCE_ITERATORS)
def make_sequence_iterator(tx: Translator, value: Any) -> VariableTracker:
    """An iterator over a sequence of the program's own."""
    return SequenceIteratorVariable(value, mutable=MutableLocal())


def is_opaque_iterator(value: Any) -> bool:
    """Whether a value is an iterator of C, or a generator."""
    cls = type(value)
    return cls is GeneratorType or (not cls.__flags__ & HEAP_TYPE and hasattr(cls, "__next__"))


@makes_if(83, "iterator", is_opaque_iterator)
def make_iterator(tx: Translator, value: Any) -> VariableTracker:
    """An iterator of the program's own that is used up in the frame."""
    return IteratorVariable(value, mutable=MutableLocal())
