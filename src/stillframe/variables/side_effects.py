"""What a program changes outside of itself: found out while it runs, undone, and done again later.

The program writes to the real objects, so what it reads back is what it wrote. Before the first
write to a place the old value is put down; at the end all places are put back, and what is left is
a list of :class:`Effect`: which place gets which value. The captured frame does these when it runs.

The table of trackers is here, too: an object that was there before the capture is known by its
identity, and everything that is not in the table was made by the program.
"""

from __future__ import annotations

import collections
import functools
import operator
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from types import CellType
from typing import Any

from stillframe.errors import InternalError
from stillframe.frames.attributes import own_value, set_own_value
from stillframe.frames.frame import NULL
from stillframe.source import Source
from stillframe.variables.base import VariableTracker


class _Deleted:
    """Stands for an attribute that was deleted, where the value is put down before."""

    def __repr__(self) -> str:
        return "DELETED"


DELETED = _Deleted()

#: Containers whose contents are kept and put back as a whole.
CONTAINERS = (list, dict, set, bytearray, collections.deque)


@dataclass(frozen=True, eq=False)
class Effect:
    """A change that the captured frame makes when it has run.

    Attributes:
        kind: ``"attribute"``, ``"contents"``, ``"iterator"``, ``"cell"``, ``"global"`` or
            ``"call"``.
        target: where the changed object is read; for a call, None.
        name: of the attribute or the global.
        value: the new value, ``NULL`` for a deletion; the contents of a container as a list, of a
            dict as a list of pairs; of an iterator, how many items are left; for a call
            ``(function, args, kwargs)``.
    """

    kind: str
    target: Source | None
    name: str
    value: Any


@dataclass(frozen=True, eq=False)
class _Place:
    """A place that was written."""

    kind: str
    target: Source | None
    name: str
    before: Any
    read: Callable[[], Any]
    write: Callable[[Any], None]
    target_object: Any = None


class SideEffects:
    """The objects that were there before, and what was done to them.

    Attributes:
        calls: calls that wait for the end of the graph, such as ``print``, in order.
    """

    def __init__(self) -> None:
        self._trackers: dict[int, tuple[Any, VariableTracker]] = {}
        self._places: dict[Hashable, _Place] = {}
        self._writes = 0
        self._kept: dict[int, Any] = {}  # written objects: their identities stay theirs
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    # -- the table ----------------------------------------------------------------------------

    def track(self, value: Any, variable: VariableTracker) -> None:
        """Remember an object from before by its identity; it is kept alive."""
        self._trackers[id(value)] = value, variable

    def tracker(self, value: Any) -> VariableTracker | None:
        """What goes with an object from before; None for a value that the program made."""
        entry = self._trackers.get(id(value))
        return None if entry is None else entry[1]

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._trackers

    def __iter__(self) -> Iterator[tuple[Any, VariableTracker]]:
        return iter(list(self._trackers.values()))

    # -- before a write -----------------------------------------------------------------------

    def attribute(self, target: Any, name: str, source: Source) -> None:
        """An attribute is about to be set or deleted."""
        read = functools.partial(own_value, target, name)
        write = functools.partial(set_own_value, target, name)
        self._note(
            (id(target), name), target, _Place("attribute", source, name, read(), read, write)
        )

    def buffered(self, target: Any, name: str, source: Source, buffer: dict[str, Any]) -> None:
        """An attribute is about to be set or deleted (:data:`DELETED`) in a buffer beside it."""

        def read() -> Any:
            return buffer.get(name, NULL)

        def write(value: Any) -> None:
            if value is NULL:
                buffer.pop(name, None)
            else:
                buffer[name] = value

        self._note(
            (id(target), name), target, _Place("attribute", source, name, read(), read, write)
        )

    def contents(self, target: Any, source: Source) -> None:
        """A built-in container is about to change."""
        if not isinstance(target, CONTAINERS):
            raise InternalError(f"not a container: {type(target).__name__}")

        def read() -> Any:
            return contents_of(target)

        def write(items: Any) -> None:
            fill(target, items)

        self._note(id(target), target, _Place("contents", source, "", read(), read, write, target))

    def iterator(self, stand_in: Any, source: Source) -> None:
        """Items may be taken from the stand-in of a tuple's iterator.

        One that is exhausted stays so; it is dropped when the capture ends.
        """
        total = operator.length_hint(stand_in)

        def read() -> Any:
            return operator.length_hint(stand_in)

        def write(left: Any) -> None:
            stand_in.__setstate__(total - left)

        self._note(id(stand_in), stand_in, _Place("iterator", source, "", total, read, write))

    def cell(self, cell: CellType, source: Source) -> None:
        """A variable of an enclosing function is about to change."""

        def read() -> Any:
            try:
                return cell.cell_contents
            except ValueError:
                return NULL

        def write(value: Any) -> None:
            if value is NULL:
                del cell.cell_contents
            else:
                cell.cell_contents = value

        self._note(id(cell), cell, _Place("cell", source, "", read(), read, write))

    def entry(self, table: dict[str, Any], name: str, source: Source) -> None:
        """A global is about to change; ``source`` is the module's table."""

        def write(value: Any) -> None:
            if value is NULL:
                table.pop(name, None)
            else:
                table[name] = value

        def read() -> Any:
            return table.get(name, NULL)

        self._note((id(table), name), table, _Place("global", source, name, read(), read, write))

    def _note(self, key: Hashable, target: Any, place: _Place) -> None:
        self._writes += 1
        if key not in self._places:
            self._places[key] = place
            self._kept[id(target)] = target

    def has_other_contents(self, container: Any) -> bool:
        """Whether the contents of a container were written."""
        return id(container) in self._places

    def is_written(self, target: Any) -> bool:
        """Whether the contents or an attribute of an object were written."""
        return id(target) in self._kept

    @property
    def count(self) -> int:
        """How often something was written, or a call put off, so far."""
        return self._writes + len(self.calls)

    def has_attributes_of(self, target: Any) -> bool:
        """Whether attributes of an object were written."""
        return any(
            place.kind == "attribute" and key[0] == id(target)
            for key, place in self._places.items()
            if isinstance(key, tuple)
        )

    def with_attributes(self) -> list[Any]:
        """The objects of which attributes were written."""
        owners = {key[0]: place for key, place in self._places.items() if isinstance(key, tuple)}
        return [
            self._kept[owner] for owner, place in owners.items()
            if place.kind == "attribute" and owner in self._kept
        ]  # fmt: skip

    def wrote(self, target: Any, name: str) -> bool:
        """Whether an attribute of an object, or a name of a table, was written."""
        return (id(target), name) in self._places

    def written(self) -> list[Any]:
        """The objects that were written."""
        return list(self._kept.values())

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call is put off until the graph has run."""
        self.calls.append((function, args, kwargs))

    # -- going back ---------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The table and all written places as they are now."""
        return Checkpoint(
            dict(self._trackers),
            dict(self._places),
            {key: place.read() for key, place in self._places.items()},
            list(self.calls),
        )

    def restore(self, state: Checkpoint) -> None:
        """Everything as it was at a checkpoint, which may be restored again."""
        for key, place in reversed(self._places.items()):
            place.write(state.values.get(key, place.before))
        self._trackers = dict(state.trackers)
        self._places = dict(state.places)
        self.calls = list(state.calls)

    # -- the end ------------------------------------------------------------------------------

    def undo(self) -> list[Effect]:
        """Put everything back, and say what is to be done when the frame runs, in order."""
        found = [
            Effect(place.kind, place.target, place.name, after)
            for place in self._places.values()
            if not _same(place, after := place.read())
        ]
        for place in reversed(self._places.values()):
            place.write(place.before)
        self._places.clear()
        found += [Effect("call", None, "", call) for call in self.calls]
        self.calls.clear()
        return found


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The side effects of a program at some moment."""

    trackers: dict[int, tuple[Any, VariableTracker]]
    places: dict[Hashable, _Place]
    values: dict[Hashable, Any]
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]


def contents_of(container: Any) -> list[Any]:
    """The items of a container, pairs of a dict, whatever a subclass makes of iteration."""
    if isinstance(container, collections.OrderedDict):
        return list(collections.OrderedDict.items(container))
    if isinstance(container, dict):
        return list(dict.items(container))
    base = next(cls for cls in CONTAINERS if isinstance(container, cls))
    return list(base.__iter__(container))


def leave(iterator: Any, left: int) -> None:
    """Take items from the iterator of a tuple until so many are left."""
    while operator.length_hint(iterator) > left:
        next(iterator)


def fill(container: Any, items: Any) -> None:
    """Give a container other contents: items, or pairs for a dict."""
    if isinstance(container, dict):
        ordered = isinstance(container, collections.OrderedDict)
        base: Any = collections.OrderedDict if ordered else dict
        base.clear(container)
        for key, value in items:
            base.__setitem__(container, key, value)
    elif isinstance(container, set):
        set.clear(container)
        set.update(container, items)
    elif isinstance(container, collections.deque):
        collections.deque.clear(container)
        collections.deque.extend(container, items)
    else:
        base = list if isinstance(container, list) else bytearray
        base.__setitem__(container, slice(None), items)


def _same(place: _Place, after: Any) -> bool:
    """Whether a place holds what it did, by identity: an equal copy is another object."""
    before = place.before
    if place.kind != "contents" or len(before) != len(after):
        return before is after
    if isinstance(place.target_object, dict):
        return all(
            old_key is key and old is new
            for (old_key, old), (key, new) in zip(before, after, strict=True)
        )
    return all(map(operator.is_, before, after))
