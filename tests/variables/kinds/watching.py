"""Which kinds of variables a capture makes; and globals that are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from stillframe.variables import VariableTracker, capture_frame

X = torch.arange(3.0)


def x() -> torch.Tensor:
    """A small tensor, anew."""
    return X.clone()


def kinds_in(function: Any, *args: Any) -> set[str]:
    """The kinds of variables that a capture makes, by name, with those that they derive from."""
    seen: set[str] = set()
    plain = VariableTracker.__init__

    def noting(self: Any, *given: Any, **named: Any) -> None:
        plain(self, *given, **named)
        seen.update(cls.__name__ for cls in type(self).__mro__)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VariableTracker, "__init__", noting)
        capture_frame(function, args)
    return seen


@contextmanager
def kept(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Globals that a test changes, and that are as they were afterwards."""
    before = dict(table)
    try:
        yield table
    finally:
        table.clear()
        table.update(before)
