"""Messages that forward logs. They are no part of a program: one is logged when it is exported.

Where only the library's own handlers listen, ``logging`` is called as it is, and not run by the
machine, which would refuse the clock in it. A handler of the user's may keep what it hears for
forward to read, so there the machine runs all of it.
"""

from __future__ import annotations

import logging
from types import FunctionType, MethodType
from typing import Any

_NAMES = frozenset("critical debug error exception fatal info log warn warning".split())


def is_plain_log_call(function: Any) -> bool:
    """Whether calling this logs a message, which nobody but the standard library gets to see."""
    if type(function) is FunctionType and function.__module__ == logging.__name__:
        is_own = function is getattr(logging, function.__name__, None)
        return is_own and function.__name__ in _NAMES and _is_plain(logging.root)
    if type(function) is MethodType and type(function.__self__) in _LOGGERS:
        is_own = function.__func__ is getattr(logging.Logger, function.__name__, None)
        return is_own and function.__name__ in _NAMES and _is_plain(function.__self__)
    return False


_LOGGERS = (logging.Logger, logging.RootLogger)


def _is_plain(logger: Any) -> bool:
    """Whether a logger and those above it run no code of anybody else."""
    parts: list[Any] = []
    while logger is not None:
        parts += [*logger.filters, *logger.handlers]
        for handler in logger.handlers:
            parts += [*handler.filters, handler.formatter]
        logger = logger.parent if logger.propagate else None
    kinds = [logging.getLogRecordFactory(), *(type(part) for part in parts if part is not None)]
    return all(kind.__module__.partition(".")[0] == logging.__name__ for kind in kinds)
