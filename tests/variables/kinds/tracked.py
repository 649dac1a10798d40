"""Which kinds of variables a capture gives to the values that it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from stillframe.variables import VariableBuilder, VariableTracker, capture_frame


def kinds_of(function: Callable[..., Any], args: tuple[Any, ...], **options: Any) -> dict[str, str]:
    """The name of a source -> the kind of what was read there."""
    found: dict[str, str] = {}
    call = VariableBuilder.__call__

    def watched(self: VariableBuilder, value: Any) -> VariableTracker:
        made = call(self, value)
        found[self.source.name()] = type(made).__name__
        return made

    with mock.patch.object(VariableBuilder, "__call__", watched):
        capture_frame(function, args, **options)
    return found
