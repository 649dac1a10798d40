"""What goes with one value from outside, as it is when the program first reads it."""

from __future__ import annotations

from typing import Any

from tests.variables.checking import new_translator

from stillframe.context import TracingContext, tracing
from stillframe.source import LocalSource
from stillframe.variables import Options, SourcelessBuilder, VariableTracker


def _program() -> None:
    """Stands for a frame."""


def built(value: Any, options: Options | None = None) -> VariableTracker:
    """The tracker of a value that is read at a local."""
    tx = new_translator(_program, options)
    with tracing(TracingContext(tx.recorder.fake_mode)):
        return tx.build(value, LocalSource("value"))


def made(value: Any) -> VariableTracker:
    """The tracker of a value that the program made."""
    tx = new_translator(_program)
    with tracing(TracingContext(tx.recorder.fake_mode)):
        return SourcelessBuilder.create(tx, value)
