"""What a frame read in some roundabout way has changed since: the call is refused."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import refuses

from stillframe.variables import FrameState, capture_frame

X = torch.arange(3.0)


class Thing:
    """Special methods that read an attribute."""

    constant = 1

    def __init__(self, v: int = 2) -> None:
        self.v = v
        self.items = [v]

    def method(self, x: Any) -> Any:
        return x + self.v

    @functools.cached_property
    def kept(self) -> int:
        return self.v + 1

    bound = functools.partialmethod(method, 3)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.v == other.v

    def __hash__(self) -> int:
        return self.v

    def __iter__(self) -> Iterator[int]:
        return iter([self.v, self.v])

    def __getitem__(self, key: int) -> int:
        return self.v + key

    def __contains__(self, key: int) -> bool:
        return key == self.v

    def __bool__(self) -> bool:
        return self.v > 2

    def __repr__(self) -> str:
        return f"Thing({self.v})"

    def __lt__(self, other: Thing) -> bool:
        return self.v < other.v

    def __enter__(self) -> int:
        return self.v

    def __exit__(self, *_: object) -> None:
        return None

    def __float__(self) -> float:
        return float(self.v)

    def __call__(self, x: Any) -> Any:
        return x * self.v


class Bare:
    def __init__(self, v: int = 2) -> None:
        self.v = v
        self.items = [v]
        self.inner: Any = None


@dataclasses.dataclass
class Data:
    v: int = 2


class Slots:
    __slots__ = ("v",)

    def __init__(self) -> None:
        self.v = 2


class Hooked:
    """Finds attributes in a table."""

    def __init__(self) -> None:
        object.__setattr__(self, "table", {"v": 2})

    def __getattr__(self, name: str) -> Any:
        return self.table.get(name, 0)

    def __setattr__(self, name: str, value: Any) -> None:
        self.table[name] = value


@contextlib.contextmanager
def opened(o: Any) -> Iterator[Any]:
    yield o.v


def entered(o: Any) -> Any:
    with o as v:
        return v


def entered_generator(o: Any) -> Any:
    with opened(o) as v:
        return v


def inner_read(o: Any) -> Any:
    class Reader:
        value = property(lambda self: o.v)

    return Reader().value


TEMPLATE = "{0.v}"

Read = Callable[[Any], Any]
READS: dict[str, tuple[Any, Read]] = {
    "partialmethod": (Thing, lambda o: o.bound()),
    "iter": (Thing, lambda o: sum(o)),
    "list": (Thing, lambda o: list(o)),
    "unpack": (Thing, lambda o: [*o]),
    "getitem": (Thing, lambda o: o[1]),
    "contains": (Thing, lambda o: 2 in o),
    "bool": (Thing, lambda o: 1 if o else 0),
    "not": (Thing, lambda o: not o),
    "repr": (Thing, lambda o: repr(o)),
    "f-string": (Thing, lambda o: f"{o}"),
    "format": (Thing, lambda o: TEMPLATE.format(o)),
    "hash": (Thing, lambda o: hash(o)),
    "float": (Thing, lambda o: float(o)),
    "eq": (Thing, lambda o: o == Thing()),
    "in list": (Thing, lambda o: o in [Thing()]),
    "sorted": (Thing, lambda o: sorted([o, Thing()])[0].v),
    "max by key": (Thing, lambda o: max([o, Thing()], key=lambda q: q.v).v),
    "map": (Thing, lambda o: list(map(o.method, [X]))),
    "map of an object": (Thing, lambda o: list(map(o, [X]))),
    "reduce": (Thing, lambda o: functools.reduce(lambda a, b: a + b.v, [o], 0)),
    "with": (Thing, entered),
    "contextmanager": (Thing, entered_generator),
    "partial of a method": (Thing, lambda o: functools.partial(o.method, X)()),
    "partial of an object": (Thing, lambda o: functools.partial(o)(X)),
    "partial of getattr": (Thing, lambda o: functools.partial(getattr, o)("v")),
    "attrgetter": (Thing, lambda o: operator.attrgetter("v")(o)),
    "methodcaller": (Thing, lambda o: operator.methodcaller("method", X)(o)),
    "a cache inside": (Thing, lambda o: functools.lru_cache(lambda q: o.v)(1)),
    "iter until": (Thing, lambda o: list(iter(lambda: o.v, 2))),
    "property of an inner class": (Thing, inner_read),
    "getattr": (Thing, lambda o: getattr(o, "v")),  # noqa: B009
    "vars": (Bare, lambda o: vars(o)["v"]),
    "items of __dict__": (Bare, lambda o: [v for k, v in o.__dict__.items() if k == "v"]),
    "copy": (Bare, lambda o: copy.copy(o).v),
    "deepcopy": (Bare, lambda o: copy.deepcopy(o).v),
    "dataclass eq": (Data, lambda o: o == Data()),
    "dataclass repr": (Data, lambda o: repr(o)),
    "asdict": (Data, lambda o: dataclasses.asdict(o)),
    "replace": (Data, lambda o: dataclasses.replace(o).v),
    "slot": (Slots, lambda o: o.v),
    "__getattr__": (Hooked, lambda o: o.v),
    "SimpleNamespace": (lambda: types.SimpleNamespace(v=2), lambda o: o.v),
}


@pytest.mark.parametrize("name", READS)
def test_an_attribute_that_was_read(name: str) -> None:
    make, read = READS[name]

    def step(o: Any, x: torch.Tensor) -> Any:
        return x * 2, read(o)

    o = make()
    capture = capture_frame(step, (o, X))
    ours, theirs = capture(o, X)[1], step(o, X)[1]
    torch.testing.assert_close(ours, theirs) if name in _OF_TENSORS else _assert_equal(ours, theirs)
    o.v = 9
    refuses(capture, o, X)


_OF_TENSORS = {"map", "map of an object", "partial of a method", "partial of an object",
               "methodcaller"}  # fmt: skip


def _assert_equal(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs) and ours == theirs


def test_a_cached_property_is_kept_on_the_object() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        return x + o.kept

    o = Thing()
    capture = capture_frame(step, (o, X))
    assert "kept" not in vars(o)
    torch.testing.assert_close(capture(o, X), X + 3)
    assert vars(o)["kept"] == 3
    refuses(capture, o, X)  # it is there now, and is not computed
    del o.kept
    o.v = 9
    refuses(capture, o, X)


def test_copies_of_what_an_object_holds() -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        other = copy.deepcopy(o)
        return x + other.items[0] + other.inner.v, other

    def make() -> Any:
        o = Bare()
        o.inner = Bare(3)
        return o

    capture = capture_frame(step, (make(), X))
    result, other = capture(make(), X)
    torch.testing.assert_close(result, X + 5)
    assert other.items == [2] and other.inner.v == 3
    first, second = make(), make()
    first.items[0] = 5
    second.inner.v = 5
    refuses(capture, first, X)
    refuses(capture, second, X)


HELD: dict[str, tuple[Callable[[int], Any], Read]] = {
    "concatenation": (lambda n: [n], lambda items: (items + [1])[0]),
    "copy": (lambda n: [n], lambda items: items.copy()[0]),
    "max": (lambda n: [n, 2], lambda items: max(items)),
    "get": (lambda n: {"a": n}, lambda table: table.get("a")),
    "deepcopy": (Bare, lambda o: copy.deepcopy(o).v),
    "attribute": (Bare, lambda o: o.v),
    "attrgetter": (Bare, lambda o: operator.attrgetter("v")(o)),
    "text": (Bare, lambda o: f"{o.v:3d} {o.v} {[o.v]}"),
    "partial": (lambda n: functools.partial(operator.add, n), lambda f: f(1)),
}


@pytest.mark.parametrize("name", HELD)
def test_a_number_that_varied_is_read_or_refused(name: str) -> None:
    """The second capture may let the number vary: what C code saw of it may not."""
    make, read = HELD[name]

    def step(held: Any, x: torch.Tensor) -> Any:
        return x * 2, read(held)

    state = FrameState()
    capture_frame(step, (make(3), X), frame_state=state)
    capture = capture_frame(step, (make(4), X), frame_state=state)
    assert capture(make(4), X)[1] == read(make(4))
    if capture.failure(make(5), X) is None:
        assert capture(make(5), X)[1] == read(make(5))
