"""The registry of handlers for C functions, by identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stillframe.errors import InternalError
from stillframe.frames.lookup import ClassMethodDescriptor, MethodDescriptor, WrapperDescriptor

Handler = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)

_HANDLERS: dict[int, tuple[Any, Handler]] = {}

#: Names of methods that have a handler: a cheap question to ask before a search.
METHOD_NAMES: set[str] = set()

#: By C container: makes the arguments of its constructor ready for C code.
CONTAINER_ARGUMENTS: dict[type, Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]] = {}


def find(function: Any) -> Handler | None:
    """The handler of a C function, method or class, or None."""
    entry = _HANDLERS.get(id(function))
    return None if entry is None else entry[1]


def native(*functions: Any) -> Callable[[_H], _H]:
    """Register the handler of C functions; it is called with the machine before the arguments."""

    def register(handler: _H) -> _H:
        for function in functions:
            if id(function) in _HANDLERS:
                raise InternalError(f"{function!r} has two handlers")
            _HANDLERS[id(function)] = (function, handler)
            if type(function) in (MethodDescriptor, WrapperDescriptor, ClassMethodDescriptor):
                METHOD_NAMES.add(function.__name__)
        return handler

    return register
