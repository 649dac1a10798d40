"""Python state that forward may not change, wherever it is, and that is as before afterwards."""

from __future__ import annotations

import collections
import itertools
import random
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

COUNT = 0
TABLE: dict[str, list[int]] = {"seen": [1]}
X = (torch.ones(2, 3),)


class Slotted:
    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = 0


class Kept:
    total = 0

    def __init__(self) -> None:
        self.inner: dict[str, Any] = {"list": [1, (2, [3])]}


class Base(nn.Module):
    kind = "base"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.change()
        return x * 2

    def change(self) -> None:
        raise NotImplementedError


def bump() -> None:
    global COUNT
    COUNT += 1


CHANGES: dict[str, tuple[Callable[[Any], None], Callable[[Any], Any]]] = {
    "the global COUNT": (lambda self: bump(), lambda self: COUNT),
    "the global TABLE": (lambda self: TABLE["seen"].append(2), lambda self: len(TABLE["seen"])),
    "the attribute total of class Kept": (
        lambda self: setattr(Kept, "total", Kept.total + 1),
        lambda self: Kept.total,
    ),
    "the attribute kind of class Base": (
        lambda self: setattr(Base, "kind", "changed"),
        lambda self: Base.kind,
    ),
    "the attribute self.kept.inner['list'][1][1]": (
        lambda self: self.kept.inner["list"][1][1].append(4),
        lambda self: self.kept.inner["list"][1][1][:],
    ),
    "the attribute self.kept.new": (
        lambda self: setattr(self.kept, "new", 1),
        lambda self: vars(self.kept).keys(),
    ),
    "the attribute self.slotted.steps": (
        lambda self: setattr(self.slotted, "steps", 1),
        lambda self: self.slotted.steps,
    ),
    "the attribute self.queue": (lambda self: self.queue.append(1), lambda self: list(self.queue)),
    "the attribute self.names": (lambda self: self.names.add("b"), lambda self: set(self.names)),
    "the attribute self.space.more.deep.n": (
        lambda self: setattr(self.space.more.deep, "n", 2),
        lambda self: self.space.more.deep.n,
    ),
    "the attribute self.rng": (lambda self: self.rng.random(), lambda self: self.rng.getstate()),
    "the attribute self.generator": (
        lambda self: torch.empty(0, device="meta") is None or self.generator.manual_seed(3),
        lambda self: self.generator.initial_seed(),
    ),
    "the attribute self.hidden[0].count": (
        lambda self: setattr(self.hidden[0], "count", 1),
        lambda self: "count" in vars(self.hidden[0]),
    ),
}


def make(change: Callable[[Any], None]) -> nn.Module:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.kept = Kept()
            self.slotted = Slotted()
            self.queue: collections.deque[int] = collections.deque([0])
            self.names = {"a"}
            self.space = types.SimpleNamespace(more=types.SimpleNamespace(deep=Kept()))
            self.space.more.deep.n = 1
            self.rng = random.Random(0)
            self.generator = torch.Generator()
            self.counter = itertools.count()
            self.hidden = [nn.Identity()]

        def change(self) -> None:
            change(self)

    return Net()


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_is_refused_by_name_and_taken_back(path: str) -> None:
    change, read = CHANGES[path]
    mod = make(change)
    before = read(mod)
    with pytest.raises(sf.SideEffectError) as caught:
        sf.export(mod, X)
    assert path in caught.value.what
    assert read(mod) == before


@pytest.mark.parametrize(
    "iterator",
    [
        itertools.count(),
        iter([1, 2, 3]),
        iter({1: 2}),
        (i for i in range(3)),
        itertools.cycle("ab"),
    ],
    ids=["count", "list", "dict", "generator", "cycle"],
)
def test_an_iterator_that_forward_advances(iterator: Any) -> None:
    mod = make(lambda self: next(iterator))
    with pytest.raises(sf.SideEffectError, match="the variable iterator around"):
        sf.export(mod, X)


def test_a_mutable_default_argument() -> None:
    def f(x: torch.Tensor, seen: list[int] = []) -> torch.Tensor:  # noqa: B006
        seen.append(1)
        return x * len(seen)

    with pytest.raises(sf.SideEffectError, match="a default argument of .*f"):
        sf.export(f, X)
    assert f.__defaults__ == ([],)


def test_a_variable_of_an_enclosing_function() -> None:
    calls = 0

    def f(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x * calls

    with pytest.raises(sf.SideEffectError, match="the variable calls around"):
        sf.export(f, X)
    assert calls == 0


def test_what_comes_out_the_same_is_no_change() -> None:
    """Scratch space that is left as it was, and a list replaced by an equal one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack: list[int] = []
            self.sizes = [1, 2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.stack.append(3)
            self.sizes = [1, self.stack.pop() - 1]
            return x * self.sizes[1]

    assert sf.export(Net(), X).module()(*X).equal(X[0] * 2)


def test_asking_makes_nothing() -> None:
    """Contents are read past what a subclass of dict or list does when it is asked."""

    class Eager(collections.OrderedDict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise AssertionError("asked for an item")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = Eager(a=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    assert sf.export(Net(), X).module()(*X).equal(X[0] + 1)
