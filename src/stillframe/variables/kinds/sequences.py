"""Tuples, lists, and what is like them: read item by item."""

from __future__ import annotations

import collections
import operator
from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from stillframe.frames.lookup import python_special
from stillframe.source import AttrSource, ContentSource, GetItemSource, Source
from stillframe.variables.base import (
    ExistingMutable,
    ExistingObject,
    MutableLocal,
    VariableTracker,
)
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.made import fill_attributes, make_empty, make_from_items
from stillframe.variables.kinds.user_objects import has_ordinary_setattr
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator


class BaseListVariable(VariableTracker):
    """A sequence."""

    #: class of the value -> kind
    kinds: ClassVar[dict[type, type[BaseListVariable]]] = {}
    #: the built-in class whose iteration and items are meant
    base: ClassVar[Any] = list

    @classmethod
    def of(cls, python_type: type) -> type[BaseListVariable]:
        """The kind for sequences of a class."""
        return cls.kinds[python_type]

    def __init_subclass__(cls, python_type: type | None = None) -> None:
        if python_type is not None:
            BaseListVariable.kinds[python_type] = cls

    def as_proxy(self) -> Any:
        return self.value

    def items(self) -> list[Any]:
        """The items, whatever a subclass makes of iteration."""
        return list(self.base.__iter__(self.value))

    def place(self, index: int) -> Source:
        """Where an item is read."""
        assert self.source is not None
        if python_special(type(self.value), "__getitem__") is not None:
            return ContentSource(self.source, index)
        return GetItemSource(self.source, index)

    def contents(self) -> Iterator[tuple[Any, Source]]:
        for index, item in enumerate(self.items()):
            yield item, self.place(index)

    def load_item(self, tx: Translator, key: Any) -> Any:
        """One item is read where it is; a slice sees all of them."""
        value = self.value
        if python_special(type(value), "__getitem__") is not None:
            return tx.here(tx.plain_item(value, key))
        if isinstance(key, slice):
            tx.expose(value, deep=False)
            return tx.here(tx.plain_item(value, key))
        found = tx.plain_item(value, key)
        if tx.effects.has_other_contents(value):
            return tx.here(found)
        index = operator.index(key)
        return tx.wrap(found, self.place(index + len(value) if index < 0 else index))

    def iterable(self, tx: Translator) -> Any:
        if type(self.value) in (tuple, list):
            return tx.each(self.value)
        return super().iterable(tx)


class TupleVariable(BaseListVariable, python_type=tuple):
    """A tuple."""

    base = tuple

    def reconstruct(self, residue: Residue) -> None:
        for item in self.value:
            residue.value(item)
        residue.build("({},)" if self.value else "()", len(self.value))


class ListVariable(BaseListVariable, python_type=list):
    """A list. It may hold itself, so it is made empty and filled."""

    def reconstruct(self, residue: Residue) -> None:
        residue.push("[]")
        residue.keep(self.value)
        for item in self.value:
            residue.fill("{0}.append({1})", item)


class SizeVariable(TupleVariable, python_type=torch.Size):
    """The sizes of a tensor."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(torch.Size)
        super().reconstruct(residue)
        residue.call(1)


class DequeVariable(BaseListVariable, python_type=collections.deque):
    """A deque; how many items it may hold is relied on, too."""

    base = collections.deque

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(collections.deque)
        residue.push("()")
        residue.load_constant(self.value.maxlen)
        residue.call(2)
        residue.keep(self.value)
        for item in self.value:
            residue.fill("{0}.append({1})", item)


class BytearrayVariable(VariableTracker):
    """A bytearray: a small table of numbers, relied on as a whole."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(bytearray)
        residue.load_constant(bytes(self.value))
        residue.call(1)


class RestrictedListSubclassVariable(ListVariable):
    """A list of a class of the user's: its items and its attributes."""

    def reconstruct(self, residue: Residue) -> None:
        make_empty(residue, self.value, list)
        residue.keep(self.value)
        append = residue.bind("append", list.append)
        for item in self.items():
            residue.fill(f"{append}({{0}}, {{1}})", item)
        fill_attributes(residue, self.value)


class TupleSubclassVariable(TupleVariable):
    """A tuple of a class of the user's."""

    def reconstruct(self, residue: Residue) -> None:
        make_from_items(residue, self.value, tuple, self.items())
        fill_attributes(residue, self.value)


class DequeSubclassVariable(DequeVariable):
    """A deque of a class of the user's."""

    def reconstruct(self, residue: Residue) -> None:
        raise NotImplementedError("how its class is made is not known")


# -- from outside ----------------------------------------------------------------------------------


@wraps_type(tuple)
def wrap_tuple(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A tuple: its length is relied on, its elements when they are used."""
    builder.install_guards("SEQUENCE_LENGTH")
    return builder.set_source_and_track(value, TupleVariable(value))


@wraps_type(list)
def wrap_list(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A list; what holds itself has no end that guards could reach."""
    _refuse_cycle(builder, value)
    builder.install_guards("SEQUENCE_LENGTH")
    return builder.set_source_and_track_mutable(value, ListVariable(value))


def _refuse_cycle(builder: VariableBuilder, value: Any) -> None:
    if any(item is value for item in list.__iter__(value)):
        raise builder.tx.graph_break(
            f"The list {builder.source.name()} holds itself.",
            why="its contents have no end",
        )


@wraps_type(torch.Size)
def wrap_size(builder: VariableBuilder, value: torch.Size) -> VariableTracker:
    """Sizes: a constant where every integer is, else a tuple."""
    if builder.tx.options.specialize_int:
        builder.install_guards("CONSTANT_MATCH")
        return ConstantVariable(value)
    builder.install_guards("SEQUENCE_LENGTH")
    return builder.set_source_and_track(value, SizeVariable(value))


@wraps_type(collections.deque)
def wrap_deque(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A deque."""
    builder.install_guards("SEQUENCE_LENGTH")
    builder.at(AttrSource(builder.source, "maxlen")).install_guards("CONSTANT_MATCH")
    return builder.set_source_and_track_mutable(value, DequeVariable(value))


@wraps_type(bytearray)
def wrap_bytearray(builder: VariableBuilder, value: bytearray) -> VariableTracker:
    """A bytearray."""
    builder.install_guards("EQUALS_MATCH")
    return builder.set_source_and_track_mutable(value, BytearrayVariable(value))


@makes_type(bytearray)
def make_bytearray(tx: Translator, value: bytearray) -> VariableTracker:
    """A bytearray of the program's own."""
    return BytearrayVariable(value, mutable=MutableLocal())


@wraps_if(94, "list of the user's class", lambda value: isinstance(value, list))
def wrap_list_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A list of the user's class. Its methods in Python are run by the machine."""
    _refuse_cycle(builder, value)
    guard_length(builder, value)
    made = builder.set_source_and_track_mutable(
        value, RestrictedListSubclassVariable(value), mutable_contents(value)
    )
    builder.at(AttrSource(builder.source, "__class__"))(type(value))
    return made


@wraps_if(94.2, "tuple of the user's class", lambda value: isinstance(value, tuple))
def wrap_tuple_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A tuple of the user's class."""
    guard_length(builder, value)
    return builder.set_source_and_track_mutable(
        value, TupleSubclassVariable(value), mutable_contents(value)
    )


@wraps_if(94.4, "deque of the user's class", lambda value: isinstance(value, collections.deque))
def wrap_deque_subclass(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A deque of the user's class."""
    guard_length(builder, value)
    builder.at(AttrSource(builder.source, "maxlen")).install_guards("CONSTANT_MATCH")
    return builder.set_source_and_track_mutable(
        value, DequeSubclassVariable(value), mutable_contents(value)
    )


def guard_length(builder: VariableBuilder, value: Any) -> None:
    """Rely on the length of a container of the user's class, which may answer in its own way.

    Raises:
        FrameError: its class says how long it is.
    """
    if python_special(type(value), "__len__") is not None:
        raise builder.tx.graph_break(
            f"{builder.source.name()} is of class {type(value).__qualname__}, which says how long"
            " it is.",
            why="a guard on its length would run code of the user's",
        )
    builder.install_guards("SEQUENCE_LENGTH")


def mutable_contents(value: Any) -> MutableLocal:
    """How a container of the user's class may change: its items, and its attributes."""
    return ExistingObject() if has_ordinary_setattr(type(value)) else ExistingMutable()


# -- of the program's own --------------------------------------------------------------------------


@makes_type(tuple, list, torch.Size, collections.deque)
def make_sequence(tx: Translator, value: Any) -> VariableTracker:
    """A sequence of the program's own."""
    mutable = MutableLocal() if isinstance(value, list | collections.deque) else None
    return BaseListVariable.of(type(value))(value, mutable=mutable)


@makes_if(94, "list of the user's class", lambda value: isinstance(value, list))
def make_list_subclass(tx: Translator, value: Any) -> VariableTracker:
    """A list of the user's class, which the program made."""
    return RestrictedListSubclassVariable(value, mutable=MutableLocal())


@makes_if(94.2, "tuple of the user's class", lambda value: isinstance(value, tuple))
def make_tuple_subclass(tx: Translator, value: Any) -> VariableTracker:
    """A tuple of the user's class, which the program made."""
    return TupleSubclassVariable(value)


@makes_if(94.4, "deque of the user's class", lambda value: isinstance(value, collections.deque))
def make_deque_subclass(tx: Translator, value: Any) -> VariableTracker:
    """A deque of the user's class, which the program made."""
    return DequeSubclassVariable(value, mutable=MutableLocal())
