"""C functions that iterate over an argument or call one: the callbacks run on the machine."""

from __future__ import annotations

import collections
import functools
import itertools
from typing import TYPE_CHECKING, Any

from stillframe.frames.arithmetic import default_item
from stillframe.frames.frame import NULL
from stillframe.frames.lookup import MISSING, python_special
from stillframe.frames.natives.registry import CONTAINER_ARGUMENTS, native
from stillframe.frames.versions import BINARY, COMPARE

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine

_function: Any
_NUMBERS = frozenset({int, float, complex, bool})
_ADD, _LESS, _GREATER = BINARY[0], COMPARE["<"], COMPARE[">"]


@native(iter)
def _iter(machine: Machine, value: Any, sentinel: Any = MISSING, /) -> Any:
    if sentinel is not MISSING:
        return iter(machine.callback(value), sentinel)
    return machine.policy.iterate(value)


@native(next)
def _next(machine: Machine, iterator: Any, default: Any = MISSING, /) -> Any:
    if default is MISSING:
        return machine.policy.next(iterator)
    return machine.policy.advance(iterator, default)


@native(reversed)
def _reversed(machine: Machine, value: Any, /) -> Any:
    kind = type(value)
    method = python_special(kind, "__reversed__")
    if method is not None:
        return machine.policy.call(machine.policy.special(value, "__reversed__"), (), {})
    if python_special(kind, "__getitem__") and not isinstance(value, list | tuple | str):
        return _backwards(machine, value)
    return reversed(value)


def _backwards(machine: Machine, value: Any) -> Any:
    for index in range(machine.policy.call(len, (value,), {}) - 1, -1, -1):
        yield machine.policy.load_item(value, index)


def _register(function: Any, *, calls: tuple[int, ...] = (), keeps: tuple[int, ...] = ()) -> None:
    """A function whose positional arguments are iterables, but for those it calls or keeps."""

    def handler(machine: Machine, *args: Any, **kwargs: Any) -> Any:
        policy = machine.policy
        ready = [
            machine.callback(bool if value is None and function is filter else value)
            if index in calls
            else value if index in keeps
            else policy.native_iterable(value)
            for index, value in enumerate(args)
        ]  # fmt: skip
        return function(*ready, **{k: machine.callback(v) for k, v in kwargs.items()})

    native(function)(handler)


for _function in (list, tuple, set, frozenset, zip, enumerate, bytearray):
    _register(_function, keeps=(1, 2) if _function in (enumerate, bytearray) else ())
for _function in (
    itertools.chain, itertools.cycle, itertools.product, itertools.zip_longest, itertools.pairwise,
):  # fmt: skip
    _register(_function)
for _function in (
    itertools.islice, itertools.combinations, itertools.combinations_with_replacement,
    itertools.permutations, itertools.tee, collections.deque,
):  # fmt: skip
    _register(_function, keeps=(1, 2, 3))
if hasattr(itertools, "batched"):
    _register(itertools.batched, keeps=(1,))
_register(itertools.compress)
_register(itertools.accumulate, calls=(1,))
_register(itertools.groupby, calls=(1,))
for _function in (
    map, filter, itertools.starmap, itertools.takewhile, itertools.dropwhile,
    itertools.filterfalse,
):  # fmt: skip
    _register(_function, calls=(0,))


@native(itertools.chain.__dict__["from_iterable"])
def _chain_from_iterable(machine: Machine, cls: Any, values: Any, /) -> Any:
    policy = machine.policy
    return itertools.chain.from_iterable(
        policy.native_iterable(inner) for inner in policy.native_iterable(values)
    )


@native(dict)
def _dict(machine: Machine, *args: Any, **kwargs: Any) -> Any:
    return dict(*_mapping_arguments(machine, args), **kwargs)


def _mapping_arguments(machine: Machine, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) != 1:
        return args
    policy, value = machine.policy, args[0]
    if python_special(type(value), "keys"):
        return (policy.native_mapping(value),)
    return (policy.native_iterable(value),)


def _iterable_arguments(machine: Machine, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (machine.policy.native_iterable(args[0]), *args[1:]) if args else args


for _container in (list, tuple, set, frozenset, collections.deque):
    CONTAINER_ARGUMENTS[_container] = _iterable_arguments
CONTAINER_ARGUMENTS[dict] = _mapping_arguments


@native(collections.defaultdict)
def _defaultdict(machine: Machine, factory: Any = None, *args: Any, **kwargs: Any) -> Any:
    made: Any = collections.defaultdict(None, *_mapping_arguments(machine, args), **kwargs)
    made.default_factory = factory
    return made


@native(collections.defaultdict.__missing__)
def _missing(machine: Machine, table: Any, key: Any, /) -> Any:
    return default_item(machine.policy, table, key)


@native(any)
def _any(machine: Machine, values: Any, /) -> bool:
    return _decide(machine, values, True)


@native(all)
def _all(machine: Machine, values: Any, /) -> bool:
    return not _decide(machine, values, False)


def _decide(machine: Machine, values: Any, wanted: bool) -> bool:
    policy = machine.policy
    iterator = policy.iterate(values)
    while (value := policy.advance(iterator, NULL)) is not NULL:
        if policy.truth(value) is wanted:
            return True
    return False


@native(sum)
def _sum(machine: Machine, values: Any, /, start: Any = 0) -> Any:
    """Built-in numbers are left to C, which adds floats with a correction since 3.12."""
    policy = machine.policy
    if isinstance(start, str | bytes | bytearray):
        return sum(policy.native_iterable(values), start)
    iterator = policy.iterate(values)
    plain: list[Any] = []
    item: Any = NULL
    if type(start) in _NUMBERS:
        while (item := policy.advance(iterator, NULL)) is not NULL and type(item) in _NUMBERS:
            plain.append(item)
        start = sum(plain, start)
        if item is NULL:
            return start
        start = policy.binary(_ADD, start, item)
    while (item := policy.advance(iterator, NULL)) is not NULL:
        start = policy.binary(_ADD, start, item)
    return start


@native(functools.reduce)
def _reduce(machine: Machine, function: Any, values: Any, initial: Any = MISSING, /) -> Any:
    policy = machine.policy
    iterator = policy.iterate(values)
    total = initial
    if total is MISSING:
        total = policy.advance(iterator, MISSING)
        if total is MISSING:
            raise TypeError("reduce() of empty iterable with no initial value")
    while (item := policy.advance(iterator, NULL)) is not NULL:
        total = policy.call(function, (total, item), {})
    return total


# -- order ------------------------------------------------------------------------------------


class Ordered:
    """A key whose comparison runs on the machine."""

    __slots__ = ("machine", "value")

    def __init__(self, machine: Machine, value: Any) -> None:
        self.machine, self.value = machine, value

    def __lt__(self, other: Ordered) -> bool:
        policy = self.machine.policy
        return policy.truth(policy.compare(_LESS, self.value, other.value))


def sort_items(machine: Machine, items: list[Any], key: Any, reverse: Any) -> list[Any]:
    """``sorted``: keys are computed first, all of them, as C does."""
    policy = machine.policy
    keys = items if key is None else [policy.call(key, (item,), {}) for item in items]
    kinds = set(map(type, keys))
    if not kinds <= policy.open_operands or any(python_special(k, "__lt__") for k in kinds):
        keys = [Ordered(machine, k) for k in keys]
    elif key is None:
        return sorted(items, reverse=reverse)
    paired = list(zip(keys, items, strict=True))
    return [item for _, item in sorted(paired, key=_first, reverse=reverse)]


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


@native(sorted)
def _sorted(machine: Machine, values: Any, /, *, key: Any = None, reverse: Any = False) -> Any:
    items = list(machine.policy.native_iterable(values))
    return sort_items(machine, items, key, reverse)


@native(list.sort)
def _list_sort(machine: Machine, target: Any, /, *, key: Any = None, reverse: Any = False) -> None:
    items = list(target)
    list.clear(target)  # as C does, so that nobody sees it half sorted
    result = items
    try:
        result = sort_items(machine, items, key, reverse)
    finally:
        list.extend(target, result)


@native(min)
def _min(machine: Machine, *args: Any, **kwargs: Any) -> Any:
    return _extreme(machine, min, _LESS, args, **kwargs)


@native(max)
def _max(machine: Machine, *args: Any, **kwargs: Any) -> Any:
    return _extreme(machine, max, _GREATER, args, **kwargs)


def _extreme(
    machine: Machine, function: Any, op: Any, args: Any, *, key: Any = None, **kwargs: Any
) -> Any:
    policy = machine.policy
    if not args:
        return function(**kwargs)
    if len(args) > 1 and kwargs:
        return function(*args, **kwargs)
    iterator = policy.iterate(args if len(args) > 1 else args[0])
    best = best_key = NULL
    while (item := policy.advance(iterator, NULL)) is not NULL:
        item_key = item if key is None else policy.call(key, (item,), {})
        if best is NULL or policy.truth(policy.compare(op, item_key, best_key)):
            best, best_key = item, item_key
    return function([], **kwargs) if best is NULL else best
