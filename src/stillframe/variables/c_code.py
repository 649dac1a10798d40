"""What code in C does with containers: which functions look into them, compare, keep, change.

The translator asks these tables before a call of C code: what such code sees of a container from
outside is relied on.
"""

from __future__ import annotations

import collections
import enum
import functools
import itertools
import operator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

from stillframe.frames.lookup import C_KINDS, python_special, type_lookup
from stillframe.variables.paths import CONSTANTS, HEAP_TYPE
from stillframe.variables.side_effects import CONTAINERS, contents_of

#: Methods that change their container.
MUTATORS = frozenset(
    """append extend insert pop remove clear sort reverse update setdefault popitem add discard
    appendleft extendleft popleft rotate move_to_end difference_update intersection_update
    symmetric_difference_update __setitem__ __delitem__ __iadd__ __ior__""".split()
)

#: Methods that only keep what they are given, or give what is held.
KEEPING = frozenset(
    """append appendleft insert pop popleft popitem clear copy keys values items reverse rotate
    setdefault move_to_end add discard __len__ __iter__ __reversed__ __setitem__ __delitem__
    remove index count extend extendleft update""".split()
)

#: Methods that compare or hash what they are given.
COMPARING = frozenset(
    """index count remove add discard setdefault pop update union intersection difference
    symmetric_difference issubset issuperset isdisjoint difference_update intersection_update
    symmetric_difference_update move_to_end __contains__ __eq__ __ne__ __setitem__ __delitem__
    fromkeys""".split()
)

#: Methods of C that hand out all that an object holds, to make another of it.
COPIES_STATE = frozenset({"__reduce_ex__", "__reduce__", "__getstate__"})

#: Methods that look for an item.
SEARCHING = frozenset({"index", "count", "remove"})

#: Functions of C that do not look into a container, or ask the policy for each item.
LOOKS_AWAY = frozenset(
    {
        len, bool, iter, next, list, tuple, set, frozenset, dict, zip, map, filter, enumerate,
        reversed, any, all, sum, min, max, sorted, isinstance, issubclass, id, callable, hasattr,
        getattr, setattr, delattr, operator.getitem, operator.setitem, operator.delitem,
        operator.contains, functools.reduce, collections.deque, *(
            value for value in vars(itertools).values() if isinstance(value, type)
        ),
    }
)  # fmt: skip

#: Functions and methods that make text of values.
TEXT = (str, repr, format, ascii, str.__mod__)
FORMATTING = frozenset({"format", "format_map", "__mod__", "__rmod__"})

#: Operators that join containers, and do not look into their items.
JOINING = frozenset({"+", "+=", "*", "*=", "|", "|="})

DICTS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)

#: What C code compares item by item.
COMPARED = (list, tuple, dict, set, frozenset, collections.deque)

#: What C code takes all items of.
HOLDERS = (*CONTAINERS, tuple, frozenset)

#: Classes of values that never change and are compared by C code.
_VALUES = frozenset(
    {
        range, slice, torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format,
        type, bytearray, type({}.keys()), type({}.items()), FunctionType, MethodType, ModuleType,
        *C_KINDS - {type(None)},
    }
)  # fmt: skip


def owner_of(function: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The object whose method is called, None for a function, and the other arguments."""
    owner = getattr(function, "__self__", None)
    if owner is None or type(owner) is ModuleType:
        if hasattr(function, "__objclass__") and args:
            return args[0], args[1:]
        return None, args
    return owner, args


def is_of_c(function: Any) -> bool:
    return not isinstance(function, type) and type(function) in C_KINDS


def raw_items(container: Any) -> list[Any]:
    """What a container holds, keys of a dict included, whatever a subclass makes of iteration."""
    if isinstance(container, dict):
        return [item for pair in dict.items(container) for item in pair]
    if isinstance(container, tuple | frozenset):
        base: Any = tuple if isinstance(container, tuple) else frozenset
        return list(base.__iter__(container))
    return contents_of(container)


def hashed_items(container: Any) -> list[Any]:
    """What a set, or the keys of a dict, are compared by; nothing for what is no such thing."""
    if isinstance(container, dict):
        return list(dict.keys(container))
    if isinstance(container, (set, frozenset, list, tuple, collections.deque)):
        return raw_items(container)
    return []


def with_items(container: Any, items: list[Any]) -> Any:
    """A container of the same class with other items."""
    if isinstance(container, dict):
        made = container.copy() if type(container) in DICTS else dict(container)
        for key, item in zip(list(made), items, strict=True):
            made[key] = item
        return made
    if isinstance(container, tuple):
        if type(container).__flags__ & HEAP_TYPE or type(container) is tuple:
            return tuple.__new__(type(container), items)
        return type(container)(items)  # a result of torch with names
    return list(items)


#: C modules with functions that change a container they are given.
CHANGE_ARGUMENTS = frozenset({"_heapq", "_bisect", "_random", "_struct", "_collections"})


def is_compared_by_c(cls: type) -> bool:
    """Whether objects of a class are equal if they are one object, or by their contents."""
    if issubclass(cls, enum.Enum | torch.Tensor):
        return True
    if python_special(cls, "__eq__") or python_special(cls, "__hash__"):
        return False
    if issubclass(cls, HOLDERS):
        return True
    if type_lookup(cls, "__eq__") is object.__eq__:
        return True
    owner = next(base for base in cls.__mro__ if "__eq__" in vars(base))
    return owner in _VALUES or owner in CONSTANTS
