"""Pictures of objects: every kind is compared, and put back."""

from __future__ import annotations

import array
import collections
import contextvars
import functools
import io
import queue
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stillframe.export.holdings import Holdings

LEVEL: contextvars.ContextVar[int] = contextvars.ContextVar("LEVEL")


class Box:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0


def queue_of(*items: int) -> queue.SimpleQueue[int]:
    made: queue.SimpleQueue[int] = queue.SimpleQueue()
    for item in items:
        made.put(item)
    return made


def drained(waiting: Any) -> list[Any]:
    items = [waiting.get() for _ in range(waiting.qsize())]
    for item in items:
        waiting.put(item)
    return items


def text_of(value: Any) -> Any:
    return value.getvalue(), value.tell()


def moved(value: Any) -> None:
    value.move_to_end("a")


def set_level(value: Any) -> None:
    LEVEL.set(5)


Row = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]
KINDS: dict[str, Row] = {
    "list": (lambda: [1], lambda v: v.append(2), list),
    "dict": (lambda: {"a": 1}, lambda v: v.update(b=2), dict),
    "order of a dict": (lambda: {"a": 1, "b": 2}, lambda v: v.update(a=v.pop("a")), list),
    "ordered dict": (lambda: collections.OrderedDict(a=1, b=2), moved, list),
    "set": (lambda: {1}, lambda v: v.add(2), set),
    "deque": (lambda: collections.deque([1]), lambda v: v.append(2), list),
    "bytearray": (lambda: bytearray(b"ab"), lambda v: v.extend(b"c"), bytes),
    "array": (lambda: array.array("d", [1.0]), lambda v: v.append(2.0), list),
    "numpy": (lambda: np.zeros((2, 3)), lambda v: v.fill(1), lambda v: v.tolist()),
    "text": (
        lambda: io.StringIO("abc"),
        lambda v: v.write("xy"),
        lambda v: (v.getvalue(), v.tell()),
    ),
    "lock": (threading.Lock, lambda v: v.acquire(), lambda v: v.locked()),
    "queue": (lambda: queue_of(1, 2), lambda v: v.get(), drained),
    "context variable": (lambda: LEVEL.set(1) and LEVEL, set_level, lambda v: v.get()),
    "exception": (lambda: ValueError(1), lambda v: v.add_note("n"), lambda v: vars(v)),
    "namespace": (lambda: types.SimpleNamespace(n=1), lambda v: setattr(v, "n", 2), vars),
    "slots": (Box, lambda v: setattr(v, "n", 2), lambda v: v.n),
    "tensor": (lambda: torch.ones(2), lambda v: setattr(v, "n", 2), vars),
    "chain of maps": (lambda: collections.ChainMap({"n": 1}), lambda v: v.update(n=2), dict),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_change_is_seen_and_put_back(name: str) -> None:
    make, change, look = KINDS[name]
    value = make()
    before = repr(look(value))
    held = Holdings()
    held.hold("there", value)
    assert not list(held.changed())
    change(value)
    assert [path.startswith("there") for path, _ in held.changed()] == [True]
    held.restore()
    assert repr(look(value)) == before
    assert not list(held.changed())


def test_a_function() -> None:
    def function(x: int, y: int = 1, *, z: int = 2) -> int:
        return x + y + z

    held = Holdings()
    held.hold_function("f", function)
    function.__defaults__, function.__kwdefaults__ = (5,), {"z": 6}
    function.__code__ = (lambda x, y, *, z: 0).__code__
    function.calls = 1  # type: ignore[attr-defined]
    paths = [path for path, _ in held.changed()]
    assert paths == ["f.__code__", "f.__defaults__", "f.__kwdefaults__", "f.calls"]
    held.restore()
    assert function(1) == 4
    assert not vars(function)


def test_a_cache_may_learn_numbers_but_not_tensors() -> None:
    @functools.lru_cache
    def cached(n: int) -> Any:
        return n if n < 10 else torch.ones(n)

    held = Holdings()
    held.hold("the cache", cached)
    cached(1)
    assert not list(held.changed())
    cached(10)
    assert [path for path, _ in held.changed()] == ["the cache"]
    held.restore()
    assert cached.cache_info().currsize == 0


def test_the_classes_of_objects_are_told() -> None:
    held = Holdings()
    held.hold("there", [Box()])
    assert list(held.classes) == [Box]
