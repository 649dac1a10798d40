"""Iteration over values whose ``__iter__`` or ``__next__`` may be Python code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stillframe.frames.attributes import call_special
from stillframe.frames.lookup import MISSING, python_special, type_lookup

if TYPE_CHECKING:
    from stillframe.frames.policy import Policy


def iterate(policy: Policy, value: Any) -> Any:
    """``iter(value)``."""
    kind = type(value)
    iterator = call_special(policy, value, "__iter__")
    if iterator is not MISSING:
        if type_lookup(type(iterator), "__next__") is MISSING:
            raise TypeError(f"iter() returned non-iterator of type '{type(iterator).__name__}'")
        return iterator
    if python_special(kind, "__getitem__") and type_lookup(kind, "__iter__") is MISSING:
        return _by_index(policy, value)
    return iter(value)


def _by_index(policy: Policy, value: Any) -> Iterator[Any]:
    """The old protocol: ``value[0]``, ``value[1]``, ... until an IndexError."""
    index = 0
    while True:
        try:
            item = policy.load_item(value, index)
        except (IndexError, StopIteration):
            return
        yield item
        index += 1


def next_(policy: Policy, iterator: Any) -> Any:
    """``next(iterator)``."""
    value = call_special(policy, iterator, "__next__")
    return next(iterator) if value is MISSING else value


def advance(policy: Policy, iterator: Any, default: Any) -> Any:
    """``next(iterator, default)``."""
    if python_special(type(iterator), "__next__") is None:
        return next(iterator, default)
    try:
        return call_special(policy, iterator, "__next__")
    except StopIteration:
        return default


def is_iterable(value: Any) -> bool:
    """Whether ``iter(value)`` would find something to call."""
    found = type_lookup(type(value), "__iter__")
    if found is None:
        return False
    return found is not MISSING or type_lookup(type(value), "__getitem__") is not MISSING
