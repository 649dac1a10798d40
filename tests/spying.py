"""Notes that a captured function leaves for its test.

A list of the test's own would be a side effect of forward, which export refuses; it does not follow
functions of other files.
"""

from __future__ import annotations

from typing import Any

_notes: list[Any] = []


def note(value: Any) -> None:
    """Leave a note."""
    _notes.append(value)


def taken() -> list[Any]:
    """The notes since the last time."""
    found = _notes[:]
    _notes.clear()
    return found
