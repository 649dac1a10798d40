"""The registry of opcode handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillframe.errors import InternalError

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

HandlerFunction = Callable[["Frame", Any], "int | None"]

HANDLERS: dict[str, HandlerFunction] = {}

#: Returned by a handler: the frame returns or yields what is on top of its stack.
LEAVE = -1


def opcode(name: str) -> Callable[[HandlerFunction], HandlerFunction]:
    """Register the handler of ``name``; the names are those of ``versions.py``."""

    def register(handler: HandlerFunction) -> HandlerFunction:
        if name in HANDLERS:
            raise InternalError(f"opcode {name} has two handlers")
        HANDLERS[name] = handler
        return handler

    return register


#: Exact types whose operators run no Python code of the user, as far as their elements do not.
PLAIN: frozenset[type] = frozenset(
    {
        int, float, complex, bool, str, bytes, bytearray, type(None), list, tuple, dict, set,
        frozenset, range, slice, type(...), type(NotImplemented),
    }
)  # fmt: skip
