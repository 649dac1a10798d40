"""What the library was used for: a hook for those who run it. Nothing listens by default.

    import stillframe.usage as usage

    with usage.listening(print):
        stillframe.export(module, (x,))

    with usage.writing("exports.jsonl"):
        ...

Each export tells listeners of this process that it begins (``export.enter``) and how it ended:
``export.time`` with its duration and what is in the graph, or ``export.error`` with the error,
which is raised as always. Nothing leaves the machine, and without a listener nothing is computed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Listener = Callable[["Event"], Any]
F = TypeVar("F", bound=Callable[..., Any])

_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        name: ``"export.enter"``, ``"export.time"`` or ``"export.error"``.
        flags: how the call was made: ``"strict"`` or ``"non_strict"``, ``"pre_dispatch"``.
        seconds: wall time since the call began; None for ``enter``.
        operators: qualified name -> how many nodes call it, subgraphs included; for ``time``.
        error: qualified class of the exception; for ``error``.
        message: its text; for ``error``.
    """

    name: str
    flags: tuple[str, ...]
    seconds: float | None = None
    operators: dict[str, int] = field(default_factory=dict)
    error: str = ""
    message: str = ""

    @property
    def op_count(self) -> int:
        """The number of ``call_function`` nodes."""
        return sum(self.operators.values())

    @property
    def op_set(self) -> frozenset[str]:
        """The functions that they call."""
        return frozenset(self.operators)


def add_listener(listener: Listener) -> None:
    """From now on ``listener`` is called with every :class:`Event`, in the thread of the call."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)


def remove_listener(listener: Listener) -> None:
    """Undo one :func:`add_listener`.

    Raises:
        ValueError: it was not added.
    """
    global _listeners
    with _lock:
        left = list(_listeners)
        left.remove(listener)
        _listeners = tuple(left)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """``listener`` is called inside."""
    add_listener(listener)
    try:
        yield
    finally:
        remove_listener(listener)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Events inside are appended to a file, a JSON object in a line each."""
    target = Path(path)

    def write(event: Event) -> None:
        row = {k: v for k, v in vars(event).items() if v not in (None, "", {})}
        with target.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    with listening(write):
        yield


def reported(
    name: str,
    flags: Callable[..., tuple[str, ...]],
    operators: Callable[[Any], dict[str, int]],
) -> Callable[[F], F]:
    """A decorator: calls of the function are events ``<name>.enter``, ``.time`` and ``.error``.

    Args:
        name: of the events.
        flags: gives an event's flags from the keyword arguments of the call.
        operators: gives the counts from the result.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not _listeners:
                return function(*args, **kwargs)
            given = flags(**kwargs)
            start = time.perf_counter()
            _tell(Event(f"{name}.enter", given))
            try:
                result = function(*args, **kwargs)
            except Exception as e:
                seconds = time.perf_counter() - start
                kind = f"{type(e).__module__}.{type(e).__qualname__}"
                _tell(Event(f"{name}.error", given, seconds, error=kind, message=str(e)))
                raise
            seconds = time.perf_counter() - start
            _tell(Event(f"{name}.time", given, seconds, operators(result)))
            return result

        return call  # type: ignore[return-value]

    return decorate


def _tell(event: Event) -> None:
    for listener in _listeners:
        listener(event)
