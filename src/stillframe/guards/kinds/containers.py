"""Kinds about containers: how many, which keys, in which order. No torch."""

from __future__ import annotations

import collections
import operator
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from stillframe.errors import InternalError
from stillframe.guards.kinds.identity import Reference
from stillframe.guards.kinds.registry import Bind, Kind, class_name, describe, register
from stillframe.source.base import shown
from stillframe.source.exact import exact_form, has_exact_form

# -- how many --------------------------------------------------------------------------------------


def _is_sized(variable: str, memory: tuple[type, int], bind: Bind) -> list[str]:
    cls, length = memory
    return [f"type({variable}) is {bind(cls.__name__, cls)}", f"len({variable}) == {length}"]


def _sees_length(value: Any, memory: Any) -> str:
    length = f" of length {len(value)}" if hasattr(type(value), "__len__") else ""
    return f"{class_name(type(value))}{length}"


SEQUENCE_LENGTH = register(
    Kind(
        "SEQUENCE_LENGTH",
        lambda value: (type(value), len(value)),
        _is_sized,
        lambda memory: f"is a {class_name(memory[0])} of length {memory[1]}",
        _sees_length,
    )
)

_TUPLE_ITERATOR: type = type(iter(()))


def _items_left(iterator: Any) -> int:
    if type(iterator) is not _TUPLE_ITERATOR:
        raise InternalError(f"not the iterator of a tuple: {describe(iterator)}")
    return operator.length_hint(iterator)


def _has_left(variable: str, left: int, bind: Bind) -> list[str]:
    cls = bind("tuple_iterator", _TUPLE_ITERATOR)
    return [f"type({variable}) is {cls}", f"{variable}.__length_hint__() == {left}"]


TUPLE_ITERATOR_LEN = register(
    Kind(
        "TUPLE_ITERATOR_LEN",
        _items_left,
        _has_left,
        lambda left: f"is the iterator of a tuple with {left} items left",
    )
)

# -- which keys ------------------------------------------------------------------------------------


def keys_of(table: Any) -> list[Any]:
    """The keys in the order of iteration, whatever a subclass makes of it.

    An ``OrderedDict`` keeps an order of its own, which ``move_to_end`` changes.
    """
    if isinstance(table, collections.OrderedDict):
        return list(collections.OrderedDict.keys(table))
    return list(dict.keys(table))


class Keys:
    """The keys of a dictionary, to be met again: constants by value, other objects by identity.

    Attributes:
        cls: the exact class of the dictionary.
        ordered: the program depends on the order.
        text: the keys as text.
    """

    def __init__(self, table: Any, *, ordered: bool, only_constants: bool) -> None:
        if not isinstance(table, dict):
            raise InternalError(f"not a dictionary: {describe(table)}")
        self.cls, self.ordered = type(table), ordered
        keys = keys_of(table)
        self.text = f"[{', '.join(shown(key) for key in keys)}]"
        self._constants = [key for key in keys if has_exact_form(key)]
        others = [key for key in keys if not has_exact_form(key)]
        if only_constants and others:
            raise InternalError(f"a key is not a constant: {describe(others[0])}")
        self._others = [Reference.to(key) for key in others]
        self._tokens = [_token(key) for key in keys]
        self._ids = [*map(id, keys)]  # the constants among them are kept alive above

    def are_of(self, table: Any) -> bool:
        """Whether a dictionary of the class has these keys."""
        if not all(_is_alive(reference) for reference in self._others):
            return False  # the address of a dead key may be that of another object by now
        keys = keys_of(table)
        if [*map(id, keys)] == self._ids:
            return True
        if len(keys) != len(self._ids):
            return False
        tokens = [_token(key) for key in keys]
        return tokens == self._tokens if self.ordered else set(tokens) == set(self._tokens)


def _is_alive(reference: Reference) -> bool:
    return not reference.is_weak or reference.target() is not None


def _token(key: Any) -> Hashable:
    """What of a key counts."""
    return exact_form(key) if has_exact_form(key) else id(key)


def _all_keys(table: Any, ordered: bool = False) -> Keys:
    return Keys(table, ordered=ordered, only_constants=False)


def _constant_keys(table: Any, ordered: bool = False) -> Keys:
    return Keys(table, ordered=ordered, only_constants=True)


def _has_keys(variable: str, memory: Keys, bind: Bind) -> list[str]:
    cls = bind(memory.cls.__name__, memory.cls)
    return [f"type({variable}) is {cls}", f"{bind('same_keys', memory.are_of)}({variable})"]


def _says_keys(memory: Keys) -> str:
    order = "in this order" if memory.ordered else "in any order"
    return f"is a {class_name(memory.cls)} with the keys {memory.text} {order}"


def _sees_keys(value: Any, memory: Any) -> str:
    if not isinstance(value, dict):
        return describe(value)
    keys = ", ".join(shown(key) for key in keys_of(value))
    return f"a {class_name(type(value))} with the keys [{keys}]"


DICT_KEYS = register(Kind("DICT_KEYS", _all_keys, _has_keys, _says_keys, _sees_keys))
DICT_CONST_KEYS = register(
    Kind("DICT_CONST_KEYS", _constant_keys, _has_keys, _says_keys, _sees_keys)
)


# -- which elements --------------------------------------------------------------------------------


class Elements:
    """The elements of a set, to be met again: constants by value, other objects by identity.

    Attributes:
        cls: the exact class of the set.
        text: the elements as text.
    """

    def __init__(self, values: Any, *, ordered: bool) -> None:
        self.cls, self._ordered = type(values), ordered
        held = elements_of(values)
        self.text = f"[{', '.join(shown(value) for value in held)}]"
        self._tokens = [_token(value) for value in held]
        self._others = [Reference.to(value) for value in held if not has_exact_form(value)]

    def are_of(self, values: Any) -> bool:
        """Whether a set of the class has these elements."""
        if len(values) != len(self._tokens) or not all(map(_is_alive, self._others)):
            return False
        tokens = [_token(value) for value in elements_of(values)]
        return tokens == self._tokens if self._ordered else set(tokens) == set(self._tokens)


def elements_of(values: Any) -> list[Any]:
    """The elements of a set in the order of iteration, whatever a subclass makes of it."""
    base = set if isinstance(values, set) else frozenset
    return list(base.__iter__(values))


def _elements(values: Any, ordered: bool = False) -> Elements:
    return Elements(values, ordered=ordered)


def _has_elements(variable: str, memory: Elements, bind: Bind) -> list[str]:
    cls = bind(memory.cls.__name__, memory.cls)
    return [f"type({variable}) is {cls}", f"{bind('same_elements', memory.are_of)}({variable})"]


SET_ELEMENTS = register(
    Kind(
        "SET_ELEMENTS",
        _elements,
        _has_elements,
        lambda memory: f"is a {class_name(memory.cls)} of {memory.text}",
        lambda value, memory: f"a {class_name(type(value))} of {shown(value)}",
    )
)


class Untouched:
    """A dictionary that nobody has written to, as far as its keys, their order and values tell.

    CPython shows no version of a dictionary.
    """

    def __init__(self, table: Any) -> None:
        self.keys = Keys(table, ordered=True, only_constants=False)
        self._values = [Reference.to(dict.__getitem__(table, k)) for k in keys_of(table)]

    def holds(self, table: Any) -> bool:
        """Whether the same keys have the very same values, in the same order."""
        if not self.keys.are_of(table):
            return False
        values = [dict.__getitem__(table, key) for key in keys_of(table)]
        return all(map(_is, self._values, values))


def _is(reference: Reference, value: Any) -> bool:
    if not reference.is_weak:
        return reference.target is value
    return value is not None and reference.target() is value


def _is_untouched(variable: str, memory: Untouched, bind: Bind) -> list[str]:
    cls = bind(memory.keys.cls.__name__, memory.keys.cls)
    return [f"type({variable}) is {cls}", f"{bind('untouched', memory.holds)}({variable})"]


DICT_VERSION = register(
    Kind(
        "DICT_VERSION",
        Untouched,
        _is_untouched,
        lambda memory: (
            f"has not been written to: the keys {memory.keys.text} in this order, and their values"
        ),
        _sees_keys,
    )
)


@dataclass(frozen=True)
class Presence:
    """Whether a key is in a container."""

    key: Any
    present: bool


def _presence(table: Any, key: Any) -> Presence:
    return Presence(key, key in table)


def _same_membership(variable: str, memory: Presence, bind: Bind) -> list[str]:
    plain = type(memory.key) in (str, int)
    key = repr(memory.key) if plain else bind("key", memory.key)
    return [f"{key} {'in' if memory.present else 'not in'} {variable}"]


DICT_CONTAINS = register(
    Kind(
        "DICT_CONTAINS",
        _presence,
        _same_membership,
        lambda memory: f"has {'the' if memory.present else 'no'} key {shown(memory.key)}",
        _sees_keys,
    )
)
