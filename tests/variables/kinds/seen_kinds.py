"""Which kinds a capture gives to the values that it meets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from stillframe.variables import SourcelessBuilder, VariableBuilder, VariableTracker


class Seen:
    """The trackers of captures.

    Attributes:
        outside: by the name of the source.
        made: of values of the program's own, in order.
    """

    def __init__(self) -> None:
        self.outside: dict[str, VariableTracker] = {}
        self.made: list[VariableTracker] = []

    def kind(self, name: str) -> str:
        """The kind of what was read at a place."""
        return type(self.outside[name]).__name__

    def made_kinds(self) -> set[str]:
        """The kinds of the program's own values that the frame gave away."""
        return {type(variable).__name__ for variable in self.made}


@contextlib.contextmanager
def watched() -> Iterator[Seen]:
    """The trackers that are made inside."""
    seen = Seen()
    wrap, create = VariableBuilder._wrap, SourcelessBuilder.create

    def wrapped(builder: VariableBuilder, value: Any) -> VariableTracker:
        made = seen.outside[builder.source.name()] = wrap(builder, value)
        return made

    def created(tx: Any, value: Any) -> VariableTracker:
        made = create(tx, value)
        seen.made.append(made)
        return made

    with (
        mock.patch.object(VariableBuilder, "_wrap", wrapped),
        mock.patch.object(SourcelessBuilder, "create", staticmethod(created)),
    ):
        yield seen
