"""Equality that can be trusted: by type and by bits, elements included.

``==`` takes ``1``, ``1.0`` and ``True`` for one value, ``0.0`` for ``-0.0``, and a NaN for
another value than itself; and a class of the user's may answer anything. The exact form of a value
is a hashable key that is equal for exactly the values that no program can tell apart by value.
Only classes of the table have one.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Hashable
from typing import Any

from stillframe.errors import InternalError


class NoExactForm(InternalError):
    """A value whose equality is not known to be trustworthy; the message names its class."""


def _itself(value: Any) -> Hashable:
    found: Hashable = value
    return found


def _bits(value: float) -> Hashable:
    return struct.pack("<d", value)


def _items(value: Any) -> Hashable:
    return tuple(exact_form(v) for v in value)


def _members(value: Any) -> Hashable:
    return frozenset(exact_form(v) for v in value)


def _bounds(value: Any) -> Hashable:
    return _items((value.start, value.stop, value.step))


# Exact class -> what of a value counts, hashable.
_FORMS: dict[type, Callable[[Any], Hashable]] = {
    type(None): _itself,
    bool: _itself,
    int: _itself,
    str: _itself,
    bytes: _itself,
    bytearray: bytes,
    type(Ellipsis): _itself,
    float: _bits,
    complex: lambda value: (_bits(value.real), _bits(value.imag)),
    tuple: _items,
    list: _items,
    set: _members,
    frozenset: _members,
    slice: _bounds,
    range: _bounds,
}

# Asked for classes that are not in the table; they may belong to libraries that are not loaded.
_lookups: list[Callable[[type], Callable[[Any], Hashable] | None]] = []


def register_exact(cls: type, form: Callable[[Any], Hashable]) -> None:
    """Values of exactly ``cls`` are equal if their ``form`` is.

    Raises:
        InternalError: the class has one already.
    """
    if cls in _FORMS:
        raise InternalError(f"{cls.__name__} has an exact form already")
    _FORMS[cls] = form


def register_exact_lookup(find: Callable[[type], Callable[[Any], Hashable] | None]) -> None:
    """``find(cls)`` gives the form of classes that nobody registered, or None."""
    _lookups.append(find)


def exact_form(value: Any) -> tuple[type, Hashable]:
    """The key that is equal for equal values of the same type.

    Raises:
        NoExactForm: the class, or that of an element, is not known.
    """
    cls = type(value)
    form = _FORMS.get(cls)
    if form is None:
        form = _found(cls)
    return cls, form(value)


def has_exact_form(value: Any) -> bool:
    """Whether :func:`exact_form` knows the value."""
    try:
        exact_form(value)
    except NoExactForm:
        return False
    return True


def _found(cls: type) -> Callable[[Any], Hashable]:
    if issubclass(cls, enum.Enum):
        return id  # members are made once and kept by their class
    for find in _lookups:
        form = find(cls)
        if form is not None:
            return form
    raise NoExactForm(f"values of {cls.__module__}.{cls.__qualname__} have no equality to rely on")
