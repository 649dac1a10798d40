"""Which wrapper makes the tracker of a value: tables by class and by identity, then a list.

The order is part of the behaviour: the first match wins. A key that two wrappers claim is an error
when the module that has the second is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from stillframe.errors import InternalError

if TYPE_CHECKING:
    from stillframe.variables.base import VariableTracker
    from stillframe.variables.builder import VariableBuilder

Wrapper = Callable[["VariableBuilder", Any], "VariableTracker"]
Test = Callable[[Any], bool]
W = TypeVar("W", bound=Wrapper)

_BY_TYPE: dict[type, Wrapper] = {}
_BY_IDENTITY: dict[int, tuple[Any, Wrapper]] = {}
_IN_ORDER: dict[float, tuple[str, Test, Wrapper]] = {}
_sorted: list[tuple[str, Test, Wrapper]] = []


def wraps_type(*classes: type) -> Callable[[W], W]:
    """Register the wrapper of values of exactly these classes."""

    def register(wrapper: W) -> W:
        for cls in classes:
            if cls in _BY_TYPE:
                raise InternalError(f"two wrappers for values of class {cls.__qualname__}")
            _BY_TYPE[cls] = wrapper
        return wrapper

    return register


def wraps_object(*values: Any) -> Callable[[W], W]:
    """Register the wrapper of these very objects."""

    def register(wrapper: W) -> W:
        for value in values:
            if id(value) in _BY_IDENTITY:
                raise InternalError(f"two wrappers for {value!r}")
            _BY_IDENTITY[id(value)] = value, wrapper
        return wrapper

    return register


def wraps_if(place: float, name: str, test: Test) -> Callable[[W], W]:
    """Register a wrapper in the list that is tried after the tables.

    Args:
        place: its place in the list; lower ones are asked first.
        name: what it wraps, for a reader of the list.
        test: whether it wraps a value. Sees every value that the tables do not know, so it must
            run no code of the user's: it looks at classes and identities.
    """

    def register(wrapper: W) -> W:
        if place in _IN_ORDER:
            raise InternalError(f"two wrappers at place {place}: {_IN_ORDER[place][0]} and {name}")
        _IN_ORDER[place] = name, test, wrapper
        _sorted.clear()
        return wrapper

    return register


def order() -> list[tuple[str, Test, Wrapper]]:
    """The list: ``(name, test, wrapper)``."""
    if not _sorted:
        _sorted.extend(_IN_ORDER[place] for place in sorted(_IN_ORDER))
    return _sorted


def wrapper_of(value: Any) -> Wrapper | None:
    """The wrapper of a value; None: it is an object like any other."""
    wrapper = _BY_TYPE.get(type(value))
    if wrapper is not None:
        return wrapper
    entry = _BY_IDENTITY.get(id(value))
    if entry is not None:
        return entry[1]
    return next((wrapper for _, test, wrapper in order() if test(value)), None)


def is_known_object(value: Any) -> bool:
    """Whether there is a wrapper for this very object."""
    return id(value) in _BY_IDENTITY
