"""Sets and frozensets: which elements they have, and in which order where that is seen."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from stillframe.errors import FrameError
from stillframe.frames.lookup import python_special
from stillframe.guards import install_guard
from stillframe.guards.kinds.containers import elements_of
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import ContentSource, Source, has_exact_form
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.made import fill_attributes, make_empty, make_from_items
from stillframe.variables.kinds.sequences import mutable_contents
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.paths import CONSTANTS, is_library
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator


class _Elements(VariableTracker):
    """What sets and frozensets have in common."""

    def contents(self) -> Iterator[tuple[Any, Source]]:
        assert self.source is not None
        for index, item in enumerate(elements_of(self.value)):
            if type(item) not in CONSTANTS:
                yield item, ContentSource(self.source, index)

    def has(self, tx: Translator, value: Any) -> bool | None:
        if python_special(type(self.value), "__contains__") is not None:
            return None
        tx.hash_key(self.value, value)
        base: Any = set if isinstance(self.value, set) else frozenset
        return bool(base.__contains__(self.value, value))

    _order_is_seen = False

    def rely_on_order(self, tx: Translator) -> None:
        """The elements are read at their places, and C code may see their order."""
        assert self.source is not None
        if tx.effects.has_other_contents(self.value) and len(self.value) > 1:
            raise self._refuse_order(tx)
        self._order_is_seen = True
        if not is_library(self.source):
            elements = functools.partial(guard_kind("SET_ELEMENTS"), ordered=True)
            install_guard(self.source.make_guard(elements))

    def before_change(self, tx: Translator) -> None:
        """What is put back has its own order, so nobody may have seen the order."""
        places_count = not all(type(item) in CONSTANTS for item in elements_of(self.value))
        if len(self.value) > 1 and (self._order_is_seen or places_count):
            raise self._refuse_order(tx)

    def iterable(self, tx: Translator) -> Any:
        self.rely_on_order(tx)
        return super().iterable(tx)

    def _refuse_order(self, tx: Translator) -> FrameError:
        return tx.graph_break(
            "The frame changes a set from outside of which it sees or uses the order.",
            why="in which order a set that was changed has its elements is not known",
            hints=["use a dict, or make a new set"],
        )


class SetVariable(_Elements):
    """A set of constants."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(set)
        residue.call(0)
        residue.keep(self.value)
        for item in self.value:
            residue.fill("{0}.add({1})", item)


class FrozensetVariable(_Elements, ConstantVariable):
    """A frozenset that is this very object; its elements may be any objects."""


class OwnFrozensetVariable(VariableTracker):
    """A frozenset of the program's own."""

    def reconstruct(self, residue: Residue) -> None:
        make_from_items(residue, self.value, frozenset, elements_of(self.value))
        fill_attributes(residue, self.value)


class UserDefinedSetVariable(_Elements, UserDefinedObjectVariable):
    """A set that holds objects, or of a class of the user's."""

    def reconstruct(self, residue: Residue) -> None:
        make_empty(residue, self.value, set)
        residue.keep(self.value)
        add = residue.bind("add", set.add)
        for item in elements_of(self.value):
            residue.fill(f"{add}({{0}}, {{1}})", item)
        fill_attributes(residue, self.value)


@wraps_if(47, "frozenset", lambda value: isinstance(value, frozenset))
def wrap_frozenset(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A frozenset of any objects: known by its identity."""
    builder.install_guards("ID_MATCH")
    return builder.set_source_and_track(value, FrozensetVariable(value))


@wraps_if(48, "set", lambda value: isinstance(value, set))
def wrap_set(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A set: its elements are relied on, constants by value and objects by identity."""
    builder.install_guards("SEQUENCE_LENGTH" if type(value) is set else "TYPE_MATCH")
    builder.install_guards("SET_ELEMENTS")
    builder.tx.note_constants(elements_of(value))
    if type(value) is set and all(map(has_exact_form, value)):
        return builder.set_source_and_track_mutable(value, SetVariable(value))
    return builder.set_source_and_track_mutable(
        value, UserDefinedSetVariable(value), mutable_contents(value)
    )


@makes_type(set)
def make_set(tx: Translator, value: Any) -> VariableTracker:
    """A set of the program's own."""
    return SetVariable(value, mutable=MutableLocal())


@makes_if(47, "frozenset", lambda value: isinstance(value, frozenset))
def make_frozenset(tx: Translator, value: Any) -> VariableTracker:
    """A frozenset of the program's own."""
    return OwnFrozensetVariable(value)


@makes_if(94.3, "set of the user's class", lambda value: isinstance(value, set))
def make_set_subclass(tx: Translator, value: Any) -> VariableTracker:
    """A set of the user's class, which the program made."""
    return UserDefinedSetVariable(value, mutable=MutableLocal())
