"""What a capture changed outside of itself: noted with the old values, and undone at the end.

A change that the program takes back itself (a context variable, a flag around a call) is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from stillframe.errors import SideEffectError
from stillframe.export.holdings import read_dict, write_dict
from stillframe.frames import places
from stillframe.frames.attributes import own_value, set_own_value
from stillframe.frames.frame import NULL, Frame


@dataclass(frozen=True, eq=False)
class _Write:
    """The first write to one place: what it was, where the program did it, how to undo it."""

    text: str
    where: list[str]
    before: Any
    read: Callable[[], Any]
    restore: Callable[[Any], None]


class Journal:
    """The places outside of the program that were written during one capture."""

    def __init__(self) -> None:
        self._writes: dict[Hashable, _Write] = {}
        self._replayed: set[Hashable] = set()

    def _note(
        self,
        key: Hashable,
        text: str,
        frame: Frame | None,
        read: Callable[[], Any],
        restore: Callable[[Any], None],
    ) -> None:
        if key not in self._writes:
            self._writes[key] = _Write(text, places.describe(frame), read(), read, restore)

    def entry(self, table: dict[str, Any], name: str, text: str, frame: Frame | None) -> None:
        """``table[name]`` is about to change: a global."""

        def restore(before: Any) -> None:
            if before is NULL:
                table.pop(name, None)
            else:
                table[name] = before

        self._note((id(table), name), text, frame, lambda: table.get(name, NULL), restore)

    def attribute(self, target: Any, name: str, text: str, frame: Frame | None) -> None:
        """An attribute of ``target`` is about to change."""
        read = functools.partial(own_value, target, name)
        restore = functools.partial(set_own_value, target, name)
        self._note((id(target), name), text, frame, read, restore)

    def replay(self, target: Any, name: str, replayed: bool) -> None:
        """Whether the program itself does what was last written to an attribute."""
        (self._replayed.add if replayed else self._replayed.discard)((id(target), name))

    def wrote(self, target: Any, name: str) -> bool:
        """Whether an attribute was noted as written."""
        return (id(target), name) in self._writes

    def cell(self, cell: Any, text: str, frame: Frame | None) -> None:
        """A variable of an enclosing function is about to change."""

        def read() -> Any:
            try:
                return cell.cell_contents
            except ValueError:
                return NULL

        def restore(before: Any) -> None:
            if before is not NULL:
                cell.cell_contents = before

        self._note(id(cell), text, frame, read, restore)

    def container(self, owner: Any, text: str, frame: Frame | None) -> None:
        """A built-in container is about to change."""

        def read() -> Any:
            return _Items(read_dict(owner).items() if isinstance(owner, dict) else owner)

        def restore(before: Any) -> None:
            if _same(before, read()):
                return
            if isinstance(owner, dict):
                write_dict(owner, dict(before))
                return
            owner.clear()
            if isinstance(owner, set):
                owner.update(before)
            else:
                owner.extend(before)

        self._note(id(owner), text, frame, read, restore)

    def close(self) -> None:
        """Undo all writes.

        Raises:
            SideEffectError: for the first place that had another value at the end, if the program
                does not bring it there.
        """
        changed = [
            write
            for key, write in self._writes.items()
            if key not in self._replayed and not _same(write.before, write.read())
        ]
        for write in reversed(self._writes.values()):
            write.restore(write.before)
        self._writes.clear()
        if changed:
            raise refusal(changed[0].text, changed[0].where)


def refusal(text: str, where: list[str]) -> SideEffectError:
    """The error for a change of something outside of the program."""
    return SideEffectError(
        f"forward {text}, which was there before the capture.",
        why="the change would happen once, during the export, and not when the program runs",
        where=where,
        hints=["return the value instead, or keep it in a registered buffer"],
    )


class _Items(list[Any]):
    """What a container held."""


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if type(before) is not type(after):
        return False
    if isinstance(before, (_Items, tuple)):
        return len(before) == len(after) and all(map(_same, before, after))
    return isinstance(before, (bool, int, float, str, bytes)) and before == after
