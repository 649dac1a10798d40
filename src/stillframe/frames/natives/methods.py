"""Methods of C types that iterate over an argument or call one."""

from __future__ import annotations

import collections
import functools
import re
import string
from typing import TYPE_CHECKING, Any

from stillframe.frames.lookup import python_special
from stillframe.frames.natives.conversions import _Shown, to_str
from stillframe.frames.natives.registry import native

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine


def _register(method: Any) -> None:
    """A method all whose arguments are iterables."""

    def handler(machine: Machine, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        ready = [
            value if value is target else machine.policy.native_iterable(value) for value in args
        ]
        return method(target, *ready, **kwargs)

    native(method)(handler)


for _method in (
    list.extend, str.join, bytes.join, set.update, set.union, set.intersection, set.difference,
    set.symmetric_difference, set.intersection_update, set.difference_update,
    set.symmetric_difference_update, set.issubset, set.issuperset, set.isdisjoint,
    frozenset.union, frozenset.intersection, frozenset.difference,
    frozenset.symmetric_difference, frozenset.issubset, frozenset.issuperset,
    frozenset.isdisjoint, collections.deque.extend, collections.deque.extendleft,
    list.__init__, set.__init__, collections.deque.__init__,
):  # fmt: skip
    _register(_method)


@native(dict.update, dict.__init__)
def _dict_update(machine: Machine, target: Any, /, *args: Any, **kwargs: Any) -> None:
    from stillframe.frames.natives.iterables import _mapping_arguments

    dict.update(target, *_mapping_arguments(machine, args), **kwargs)


@native(dict.__dict__["fromkeys"])
def _fromkeys(machine: Machine, cls: Any, keys: Any, value: Any = None, /) -> Any:
    keys = machine.policy.native_iterable(keys)
    if cls in (dict, collections.OrderedDict):
        return cls.fromkeys(keys, value)
    made = machine.policy.call(cls, (), {})
    for key in keys:
        machine.policy.store_item(made, key, value)
    return made


@native(dict.__getitem__)
def _dict_getitem(machine: Machine, table: Any, key: Any, /) -> Any:
    missing = python_special(type(table), "__missing__")
    if missing is not None and not dict.__contains__(table, key):
        return machine.policy.call(machine.policy.special(table, "__missing__"), (key,), {})
    return dict.__getitem__(table, key)


# -- text -------------------------------------------------------------------------------------


class _Field:
    """A value inside of ``str.format``: attributes, items and text come from the machine."""

    __slots__ = ("machine", "value")

    def __init__(self, machine: Machine, value: Any) -> None:
        self.machine, self.value = machine, value

    def __getattr__(self, name: str) -> Any:
        return _Field(self.machine, self.machine.policy.load_attr(self.value, name))

    def __getitem__(self, key: Any) -> Any:
        return _Field(self.machine, self.machine.policy.load_item(self.value, key))

    def __format__(self, spec: str) -> str:
        return self.machine.policy.call(format, (self.value, spec), {})  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self.machine.policy.call(repr, (self.value,), {})  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return to_str(self.machine, self.value)


def _field(machine: Machine, value: Any) -> Any:
    return value if type(value) in (int, str, float, bool) else _Field(machine, value)


@native(str.format)
def _str_format(machine: Machine, text: str, /, *args: Any, **kwargs: Any) -> str:
    ready = [_field(machine, value) for value in args]
    return str.format(text, *ready, **{k: _field(machine, v) for k, v in kwargs.items()})


@native(str.format_map)
def _str_format_map(machine: Machine, text: str, table: Any, /) -> str:
    names = [name for _, name, _, _ in string.Formatter().parse(text) if name]
    heads = {re.split(r"[.\[]", name)[0] for name in names}
    return str.format(
        text, **{head: _field(machine, machine.policy.load_item(table, head)) for head in heads}
    )


@native(str.__mod__)
def _str_mod(machine: Machine, text: Any, values: Any, /) -> Any:
    """``%``: text of Python objects is made on the machine first."""
    if isinstance(values, tuple):
        values = tuple(_shown(machine, value) for value in values)
    elif not isinstance(values, dict):
        values = _shown(machine, values)
    return str.__mod__(text, values)


class _Texts(_Shown):
    """Has given texts for ``str`` and ``repr``, made when they are asked for."""

    def __init__(self, machine: Machine, value: Any) -> None:
        self.machine, self.value = machine, value

    def __repr__(self) -> str:
        return self.machine.policy.call(repr, (self.value,), {})  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return to_str(self.machine, self.value)


def _shown(machine: Machine, value: Any) -> Any:
    kind = type(value)
    numeric = any(python_special(kind, n) for n in ("__int__", "__float__", "__index__"))
    if numeric or not (
        python_special(kind, "__repr__") or python_special(kind, "__str__")
        or kind in (list, tuple, set)
    ):  # fmt: skip
        return value
    return _Texts(machine, value)


# -- regular expressions ----------------------------------------------------------------------


def _register_substitution(method: Any) -> None:
    def handler(machine: Machine, pattern: Any, repl: Any, /, *args: Any, **kwargs: Any) -> Any:
        return method(pattern, machine.callback(repl), *args, **kwargs)

    native(method)(handler)


_register_substitution(re.Pattern.sub)
_register_substitution(re.Pattern.subn)


# -- caches -----------------------------------------------------------------------------------

_Cached: Any = type(functools.lru_cache(maxsize=None)(len))


@native(_Cached)
def _lru_cache(machine: Machine, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A cache that is made by the program fills itself on the machine."""
    return _Cached(machine.callback(function), *args, **kwargs)


@native(functools.cmp_to_key)
def _cmp_to_key(machine: Machine, compare: Any) -> Any:
    return functools.cmp_to_key(machine.callback(compare))
