"""Objects of the standard library: patterns, weak references, signatures, getters."""

from __future__ import annotations

import functools
import inspect
import operator
import re
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.watching import X, kept, kinds_in, x

import stillframe as sf
from stillframe.variables import (
    capture_frame,
)


@pytest.fixture
def globals_() -> Iterator[dict[str, Any]]:
    with kept(globals()) as table:
        yield table


class Node:
    def __init__(self, weight: int = 2) -> None:
        self.weight = weight


KEPT = Node()


def plain(a: Any, b: Any = 1) -> Any:
    return a + b


PATTERN = re.compile("a+")


@pytest.mark.spec("5.15")
def test_a_pattern_is_known_by_identity(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        return x + len(PATTERN.findall("aabaa")), PATTERN, re.compile("b")

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is PATTERN
    assert "ID_MATCH G['PATTERN']" in guards_of(capture)
    globals_["PATTERN"] = re.compile("b+")
    assert "PATTERN" in refuses(capture, x())


REFERENCE: Any = weakref.ref(KEPT)


@pytest.mark.spec("5.16")
def test_a_weak_reference_leads_to_what_is_guarded(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        found = REFERENCE()
        return (x * found.weight, found, REFERENCE) if found is not None else (x, None, None)

    capture = agrees(step, lambda: (x(),))
    _, found, reference = capture(x())
    assert found is KEPT and reference is REFERENCE
    assert "TYPE_MATCH G['REFERENCE']" in guards_of(capture)
    KEPT.weight = 3
    assert "G['REFERENCE']().weight equals 2" in refuses(capture, x())
    KEPT.weight = 2
    dead = weakref.ref(Node())
    globals_["REFERENCE"] = dead
    assert "REFERENCE" in refuses(capture, x())
    gone = agrees(step, lambda: (x(),))
    globals_["REFERENCE"] = weakref.ref(KEPT)
    assert "is None" in refuses(gone, x())


@pytest.mark.spec("5.16")
def test_weak_references_made_inside_and_proxies(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        node = Node()
        return node, weakref.ref(node), weakref.ref(node)().weight + x

    node, reference, _ = capture_frame(step, (x(),))(x())
    assert reference() is node
    globals_["REFERENCE"] = weakref.proxy(KEPT)
    with pytest.raises(sf.FrameError, match="weak reference"):
        capture_frame(lambda x: x + REFERENCE.weight, (x(),))


def signed(a: Any, b: Any = 2, *, c: list[int] = [3]) -> int:  # noqa: B006
    return int(a)


@pytest.mark.spec("5.20")
def test_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        def mine(p: int, q: Any = x) -> None: ...

        signature = inspect.signature(signed)
        names = list(signature.parameters)
        bound = signature.bind(1, b=3).arguments
        default = signature.parameters["c"].default
        return x + len(names), names, dict(bound), default, str(inspect.signature(mine).parameters)

    def plain(x: torch.Tensor) -> Any:
        signature = inspect.signature(signed)
        default = signature.parameters["c"].default
        return x + len(signature.parameters), list(signature.parameters), default, signature

    capture = capture_frame(plain, (x(),))
    ours, theirs = capture(x()), plain(x())
    assert ours[1:3] == theirs[1:3] and ours[2] is signed.__kwdefaults__["c"]
    assert ours[3] == theirs[3]
    assert "FUNCTION_MATCH G['signed']" in guards_of(capture)
    assert {"LambdaVariable", "InspectSignatureVariable"} <= kinds_in(plain, x())
    monkeypatch.setattr(signed, "__defaults__", (5,))
    assert "code and defaults" in refuses(capture, x())
    monkeypatch.undo()
    monkeypatch.setitem(signed.__annotations__, "b", int)
    assert "__annotations__" in refuses(capture, x())
    monkeypatch.undo()
    monkeypatch.setattr(signed, "__signature__", inspect.signature(len), raising=False)
    assert "__signature__" in refuses(capture, x())
    monkeypatch.undo()
    with pytest.raises(sf.FrameError, match="text of a tensor"):
        capture_frame(step, (x(),))


@pytest.mark.spec("5.20")
def test_a_signature_of_a_class_is_found_by_running_inspect() -> None:
    def step(x: torch.Tensor) -> Any:
        return x, [*inspect.signature(Node).parameters], [*inspect.signature(KEPT_CALL).parameters]

    agrees(step, lambda: (x(),))


KEPT_CALL = functools.partial(signed, 1)


@pytest.mark.spec("5.23")
def test_the_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        y = x + 1 if torch.__version__ >= "2.0" else x
        return y, torch.__version__, torch.__version__.split(".")[0]

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is torch.__version__
    assert not any("version" in guard for guard in guards_of(capture))
    assert "TorchVersionVariable" in kinds_in(step, x())


def test_getters_read_what_is_guarded(globals_: dict[str, Any]) -> None:
    globals_["GETTER"] = operator.attrgetter("weight")

    def step(o: Any, x: torch.Tensor) -> Any:
        first = GETTER(o)  # type: ignore[name-defined]  # noqa: F821
        second = operator.itemgetter(0, 1)([x, first])
        return second, operator.methodcaller("add", first, alpha=2)(x)

    capture = agrees(step, lambda: (Node(), x()))
    assert "weight" in refuses(capture, Node(4), X)
    globals_["GETTER"] = operator.attrgetter("other")
    refuses(capture, Node(), X)
