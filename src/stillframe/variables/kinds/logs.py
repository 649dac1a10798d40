"""Printing, warning and logging: put off until the graph has run, or refused."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.texts import must_stay
from stillframe.variables.translator import Translator

#: Functions of ``logging`` that write to the root logger.
LOGGING_FUNCTIONS = (
    logging.debug, logging.info, logging.warning, logging.error, logging.critical, logging.log,
)  # fmt: skip


class DebuggingVariable(VariableTracker):
    """A function that tells a person something. It is called when the graph has run, in order."""

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.value not in tx.options.reorderable_logging_functions:
            raise tx.graph_break(
                f"The frame calls {self.value.__qualname__}.",
                why="it is not among the functions that may be called later than they are",
                hints=["Options(reorderable_logging_functions=...)"],
            )
        if tx.recorder.subgraph is not None:
            raise tx.graph_break(
                f"A function that an operator runs calls {self.value.__qualname__}.",
                why="it may run never, or many times, when the graph runs",
            )
        if self.value is warnings.warn:
            tx.effects.call(_warn, _warning(tx, *args, **kwargs), {})
            return
        shown = _as_printed if self.value is print else _snapshot
        named = {name: _snapshot(tx, value) for name, value in kwargs.items() if name != "file"}
        if kwargs.get("file") is not None:
            named["file"] = _lasting_file(tx, kwargs["file"])
        tx.effects.call(self.value, tuple(shown(tx, value) for value in args), named)


def _as_printed(tx: Translator, value: Any) -> Any:
    """An argument of ``print``: of an object of the user's, its text."""
    value = tx.here(value)
    return _snapshot(tx, value) if _is_shown_later(value) else tx.call(str, (value,), {})


def _is_shown_later(value: Any) -> bool:
    if type(value) in (list, tuple, dict):
        items = [*value, *value.values()] if type(value) is dict else value
        return any(map(_is_shown_later, items))
    return isinstance(value, FakeTensor | torch.Tensor | _NUMBERS)


_NUMBERS = torch.SymInt | torch.SymFloat | torch.SymBool


def _snapshot(tx: Translator, value: Any) -> Any:
    """A value of which a later call says what is said of it now.

    Raises:
        FrameError: it may change until then.
    """
    value = tx.here(value)
    if isinstance(value, FakeTensor):
        must_stay(tx, value)
        return value
    if is_literal(value) or isinstance(value, _NUMBERS):
        return value
    if type(value) in (list, tuple):
        return type(value)(_snapshot(tx, item) for item in tx.elements(value))
    if type(value) is dict:
        return {_snapshot(tx, key): _snapshot(tx, tx.load_item(value, key)) for key in value}
    raise tx.graph_break(
        f"The frame prints or logs an object of class {type(value).__qualname__}.",
        why="that is put off until the graph has run, and the object may have changed by then",
        hints=["pass str(...) of it"],
    )


def _warning(
    tx: Translator,
    message: Any,
    category: type[Warning] | None = None,
    stacklevel: int = 1,
    source: Any = None,
    **options: Any,
) -> tuple[str, int, str, str, type[Warning]]:
    """The arguments of the warning that is given later: it blames the line of the program."""
    if options or source is not None:
        raise tx.graph_break("A warning with options beside the category and the stack level.")
    if warnings.filters != tx.warning_filters:
        raise tx.graph_break(
            "The frame warns while it has other filters for warnings.",
            why="the warning is put off until the graph has run, when they are gone",
        )
    if isinstance(message, Warning):
        category = type(message)
    frame = tx.machine.current
    for _ in range(stacklevel - 1):
        frame = frame.back if frame is not None and frame.back is not None else frame
    assert frame is not None
    module = frame.globals.get("__name__", "<string>")
    file, line = frame.decoded.code.co_filename, frame.decoded.line(frame.pc)
    return file, line, module, tx.call(str, (message,), {}), category or UserWarning


def _lasting_file(tx: Translator, file: Any) -> Any:
    if file is sys.stdout or file is sys.stderr or tx.source(file) is not None:
        return file
    raise tx.graph_break("The frame prints to a file of its own.")


def _warn(file: str, line: int, module: str, message: str, category: type[Warning]) -> None:
    names = vars(sys.modules[module]) if module in sys.modules else {}
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, file, line, module, registry)


@wraps_object(print, warnings.warn, *LOGGING_FUNCTIONS)
def wrap_debugging(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that prints, warns or logs."""
    builder.install_guards("BUILTIN_MATCH")
    return DebuggingVariable(value, source=builder.source)


class LoggingLoggerVariable(VariableTracker):
    """A logger. What it writes, and where, depends on all that it is connected with."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        found = getattr(self.value, name)
        if not callable(found):
            return super().var_getattr(tx, name)
        if getattr(found, "__func__", found) in tx.options.ignored_logger_methods:
            return ignored
        raise tx.graph_break(
            f"The frame calls the method {name} of the logger {self.value.name}.",
            why="what it writes would be written while the frame is captured, and not later",
            hints=["Options(ignored_logger_methods=...) leaves such calls out"],
        )


def ignored(*args: Any, **kwargs: Any) -> None:
    """In place of a method whose calls are left out."""


@wraps_if(51, "logger", lambda value: issubclass(type(value), logging.Logger))
def wrap_logger(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A logger, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, LoggingLoggerVariable(value))
