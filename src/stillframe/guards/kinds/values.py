"""Kinds about plain values: equal, of one type, by bits. No torch."""

from __future__ import annotations

import math
import types
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from stillframe.guards.kinds.identity import ID_MATCH, Reference
from stillframe.guards.kinds.registry import Bind, Kind, register
from stillframe.source.base import shown
from stillframe.source.exact import exact_form

# Of these, ``==`` tells all there is, given the class.
_PLAIN = (int, str, bytes)


@dataclass(frozen=True)
class Equal:
    """A value to be met again: its exact form, and its text as it was then."""

    value: Any
    form: tuple[type, Hashable]
    text: str


def _equal(value: Any) -> Equal:
    return Equal(value, exact_form(value), shown(value))


def _is_equal(variable: str, memory: Equal, bind: Bind) -> list[str]:
    value, cls = memory.value, type(memory.value)
    if value is None or value is Ellipsis or cls is bool:
        return [f"{variable} is {value}"]
    is_cls = f"type({variable}) is {bind(cls.__name__, cls)}"
    if cls in _PLAIN or (cls is float and math.isfinite(value) and value != 0.0):
        return [is_cls, f"{variable} == {value!r}"]
    form, exact = bind("form", memory.form), bind("exact_form", exact_form)
    return [is_cls, f"{exact}({variable}) == {form}"]


EQUALS_MATCH = register(
    Kind(
        "EQUALS_MATCH",
        _equal,
        _is_equal,
        lambda m: f"equals {m.text}",
        lambda value, m: shown(value),
    )
)


def _constant(value: Any) -> Equal | Reference:
    if value is None or type(value) in (bool, types.CodeType):
        return Reference.to(value)
    return _equal(value)


def _is_constant(variable: str, memory: Equal | Reference, bind: Bind) -> list[str]:
    if isinstance(memory, Reference):
        return ID_MATCH.conditions(variable, memory, bind)
    return _is_equal(variable, memory, bind)


def _says_constant(memory: Equal | Reference) -> str:
    if not isinstance(memory, Reference):
        return f"equals {memory.text}"
    return f"is {memory.text}" if not memory.is_weak else ID_MATCH.says(memory)


CONSTANT_MATCH = register(Kind("CONSTANT_MATCH", _constant, _is_constant, _says_constant))
