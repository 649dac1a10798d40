"""Guards as one function: order, reads, failures in words, what cannot be checked."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.guards.holding import X, checks_of, failure, guard_on, holds

from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.guards import GuardsContext, install_guard, make_dupe_guard
from stillframe.guards.checks import GuardBuilder, compile_checks
from stillframe.guards.kinds.ambient import ambient_guards
from stillframe.guards.kinds.identity import TYPE_MATCH
from stillframe.guards.kinds.registry import kind
from stillframe.source import (
    AttrSource,
    CallMethodItemSource,
    ConstDictKeySource,
    ContentSource,
    DefaultsSource,
    DuplicateInputs,
    FloatTensorSource,
    GetItemSource,
    GlobalSource,
    GradSource,
    GuardBuilderBase,
    GuardEnvExpr,
    LocalSource,
    NNModuleSource,
    NumpyTensorSource,
    OptimizerSource,
    RandomValueSource,
    SyntheticLocalSource,
    TupleIteratorGetItemSource,
    ViewedDictSource,
    WeakRefCallSource,
)

Y = LocalSource("y")


@pytest.mark.spec("4.6")
def test_the_builder_fills_the_role() -> None:
    assert issubclass(GuardBuilder, GuardBuilderBase)


@pytest.mark.spec("4.8")
def test_a_path_is_checked_before_what_hangs_off_it() -> None:
    inner = AttrSource(AttrSource(X, "a"), "b")
    guards = [
        guard_on(inner, "EQUALS_MATCH"),
        guard_on(Y, "DUPLICATE_INPUT", source_b=X),
        guard_on(AttrSource(X, "a"), "TYPE_MATCH"),
        guard_on(X, "TYPE_MATCH"),
    ]
    value = SimpleNamespace(a=SimpleNamespace(b=3))
    checks = compile_checks(guards, {"x": value, "y": value}, {})
    texts = ("type(L_x)", "type(L_x_a)", "type(L_x_a_b)", "L_y is L_x")
    order = [checks.text.index(text) for text in texts]
    assert order == sorted(order)
    # each place is read once
    assert checks.text.count("L['x']") == 1 and checks.text.count(".a") == 1

    other = SimpleNamespace(a=7)
    found = failure(checks, x=other, y=None)  # all four fail: the shortest path is named
    assert found.name == "L['x'].a" and found.guard is not None and found.guard.kind == "TYPE_MATCH"


@pytest.mark.spec("4.5", "4.10")
def test_a_failure_names_the_users_line() -> None:
    with tracing(TracingContext(None)) as context:
        assert context is not None
        TracingContext.set_current_loc("model.py", 12, "forward")
        install_guard(guard_on(AttrSource(X, "scale"), "EQUALS_MATCH"))
        guards = context.part(GuardsContext).dynamo_guards
    checks = compile_checks(guards, {"x": SimpleNamespace(scale=2)}, {})
    found = failure(checks, x=SimpleNamespace(scale=3))
    assert str(found) == (
        "L['x'].scale equals 2 [EQUALS_MATCH]; found: 3\n  relied on at model.py:12 in forward"
    )
    assert found.where == "model.py:12 in forward"


def test_a_place_that_cannot_be_read_fails() -> None:
    class Moody:
        @property
        def a(self) -> int:
            raise RuntimeError("not today")

    checks = compile_checks(
        [guard_on(AttrSource(X, "a"), "EQUALS_MATCH")], {"x": SimpleNamespace(a=1)}, {}
    )
    for other, said in [(3, "AttributeError"), (Moody(), "RuntimeError: not today")]:
        found = failure(checks, x=other)
        assert "can be read" in str(found) and said in str(found)
    assert "KeyError" in str(failure(checks, y=3))
    item = compile_checks([guard_on(GetItemSource(X, 1), "EQUALS_MATCH")], {"x": [0, 1]}, {})
    assert "IndexError" in str(failure(item, x=[0]))


def test_a_value_without_words_still_fails_in_words() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    assert "Mute at 0x" in str(failure(checks_of(3, "EQUALS_MATCH"), x=Mute()))


@pytest.mark.spec("4.85", "4.87")
@pytest.mark.parametrize("source", [RandomValueSource(0), SyntheticLocalSource("tmp")])
def test_places_that_no_check_can_read(source: Any) -> None:
    with pytest.raises(InternalError, match="no check can read"):
        compile_checks([source.make_guard(TYPE_MATCH)], {}, {})


def test_a_guard_must_hold_where_it_is_made() -> None:
    with pytest.raises(InternalError, match="a guard does not hold where it was made: L"):
        compile_checks([guard_on(AttrSource(X, "part"), "ID_MATCH")], {"x": Shifty()}, {})
    with pytest.raises(InternalError, match="cannot be read"):
        compile_checks([guard_on(AttrSource(X, "absent"), "TYPE_MATCH")], {"x": Shifty()}, {})


class Shifty:
    """Its attribute is made anew at every access."""

    @property
    def part(self) -> object:
        return object()


@pytest.mark.spec("4.16")
def test_conditions_of_later_stages() -> None:
    @dataclass(frozen=True)
    class Unknown(GuardEnvExpr):
        """Nobody has heard of it."""

    value = [1]
    checks = compile_checks([], {"x": value, "y": value}, {}, [DuplicateInputs(X, Y)])
    assert holds(checks, x=value, y=value)
    found = failure(checks, x=[1], y=[1])
    assert "L['x'] is the same object as L['y']" in str(found) and found.guard is None
    with pytest.raises(InternalError, match="no check is known for a Unknown"):
        compile_checks([], {}, {}, [Unknown()])


@pytest.mark.spec("4.40")
def test_duplicate_guards_are_checked() -> None:
    made = make_dupe_guard(X, Y)
    assert made is not None
    value = [1]
    checks = compile_checks([X.make_guard(made)], {"x": value, "y": value}, {})
    assert holds(checks, x=value, y=value) and not holds(checks, x=[1], y=[1])


@pytest.mark.spec("4.12")
def test_what_was_checked_is_noted() -> None:
    guard = guard_on(X, "SEQUENCE_LENGTH")
    value = {1, 2}
    compile_checks([guard], {"x": value}, {})
    assert guard.guard_types == ["SEQUENCE_LENGTH"]
    assert guard.code_list == ["type(L_x) is _set", "len(L_x) == 2"]
    assert guard.guarded_class_weakref is set and guard.obj_weakref() is value


def test_no_value_is_kept_alive() -> None:
    class Thing:
        a = 1

    thing, tensor = Thing(), torch.ones(2)
    refs = [weakref.ref(thing), weakref.ref(tensor)]
    guards = [
        guard_on(X, "ID_MATCH"), guard_on(Y, "TENSOR_MATCH"),
        guard_on(AttrSource(X, "a"), "EQUALS_MATCH"),
    ]  # fmt: skip
    checks = compile_checks([*guards, *ambient_guards()], {"x": thing, "y": tensor}, {})
    assert holds(checks, x=thing, y=tensor)
    del thing, tensor
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    assert not holds(checks, x=None, y=torch.ones(2))


@pytest.mark.parametrize(
    ("source", "value", "other"),
    [
        (AttrSource(X, "a b"), {"a b": 1}, {"a b": 2}),
        (AttrSource(X, "class"), {"class": 1}, {"class": 2}),
        (AttrSource(NNModuleSource(OptimizerSource(X)), "n"), {"n": 1}, {"n": 2}),
        (GradSource(X), {"grad": None}, {"grad": 3}),
    ],
)
def test_attributes_are_read(source: Any, value: dict[str, Any], other: dict[str, Any]) -> None:
    def having(attributes: dict[str, Any]) -> Any:
        thing = SimpleNamespace()
        vars(thing).update(attributes)
        return thing

    checks = compile_checks([guard_on(source, "CONSTANT_MATCH")], {"x": having(value)}, {})
    assert holds(checks, x=having(value)) and not holds(checks, x=having(other))


KEY = object()


def second(value: Any) -> Any:
    iterator = iter((0, value))
    return iterator


def with_default(value: Any) -> Any:
    def function(a: Any = value, *, b: Any = value) -> None:
        """Something with defaults."""

    return function


@pytest.mark.parametrize(
    ("source", "made"),
    [
        (GetItemSource(X, KEY), lambda v: {KEY: v}),  # a key without text
        (GetItemSource(X, 2.5), lambda v: {2.5: v}),
        (GetItemSource(GetItemSource(X, slice(1, None)), 0), lambda v: [0, v]),
        (GetItemSource(X, ConstDictKeySource(X, 0)), lambda v: {object(): v}),
        (ConstDictKeySource(X, 0), lambda v: {v: 0}),
        (TupleIteratorGetItemSource(X, 1), second),
        (ContentSource(X, 0), lambda v: {v}),
        (ContentSource(X, 1), lambda v: {"a": 0, "b": v}),
        (ContentSource(X, 1), lambda v: [0, v]),
        (GetItemSource(ViewedDictSource(X), "a"), lambda v: {"a": v}.items()),
        (DefaultsSource(X, 0), with_default),
        (DefaultsSource(X, "b", is_kw=True), with_default),
        (WeakRefCallSource(GetItemSource(X, 0)), lambda v: [lambda: v]),
        (CallMethodItemSource(X), torch.tensor),
        (CallMethodItemSource(FloatTensorSource(X)), lambda v: v),
    ],
    ids=lambda p: type(p).__name__,
)
def test_places_are_read(source: Any, made: Any) -> None:
    checks = compile_checks([guard_on(source, "EQUALS_MATCH")], {"x": made(3)}, {})
    assert holds(checks, x=made(3)) and not holds(checks, x=made(4))
    assert not holds(checks, x=None)


def test_arrays_as_tensors() -> None:
    import numpy as np

    checks = compile_checks(
        [guard_on(NumpyTensorSource(X), "TENSOR_MATCH")], {"x": np.ones((2, 3))}, {}
    )
    assert holds(checks, x=np.zeros((2, 3)))
    assert not holds(checks, x=np.ones((3, 2))) and not holds(checks, x=np.ones((2, 3), "f4"))


def test_globals_and_names_that_look_like_ours() -> None:
    names = [
        "type",
        "L",
        "G",
        "True",
        "math",
        "_int",
        "__builtins__",
        "not a name",
        "a.b",
        "\u00e4",
    ]
    guards = [guard_on(LocalSource(n), "EQUALS_MATCH") for n in names]
    guards += [guard_on(GlobalSource(n), "EQUALS_MATCH") for n in names]
    f_locals = {n: i for i, n in enumerate(names)}
    f_globals = {n: -1 - i for i, n in enumerate(names)}
    checks = compile_checks(guards, f_locals, f_globals)
    assert checks(f_locals, f_globals)
    for table in (f_locals, f_globals):
        for name in names:
            kept = table[name]
            table[name] = 99
            assert not checks(f_locals, f_globals), name
            table[name] = kept


def test_checks_of_two_threads() -> None:
    checks = compile_checks([guard_on(X, "EQUALS_MATCH"), *ambient_guards()], {"x": 1}, {})
    answers: dict[str, set[bool]] = {}

    def ask(name: str, value: int, grad: bool) -> None:
        with torch.set_grad_enabled(grad):
            answers[name] = {checks({"x": value}, {}) for _ in range(500)}

    threads = [
        threading.Thread(target=ask, args=args)
        for args in (("fits", 1, True), ("value", 2, True), ("mode", 1, False))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"fits": {True}, "value": {False}, "mode": {False}}


@pytest.mark.spec("4.11")
def test_a_guard_that_cannot_be_made_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    guard = X.make_guard(functools.partial(kind("HASATTR"), wrong=1))
    with pytest.raises(TypeError):
        compile_checks([guard], {"x": 1}, {})
    assert "no check could be made of this guard" in caplog.text and "HASATTR" in caplog.text


def test_objects_that_were_different_are_different_in_every_call() -> None:
    places = tuple(GetItemSource(X, index) for index in range(3))
    distinct = functools.partial(kind("DISTINCT"), sources=places)
    a, b, c = [1], [1], [1]
    checks = compile_checks([places[0].make_guard(distinct)], {"x": [a, b, c]}, {})
    assert holds(checks, x=[[2], [2], [2]])
    assert not holds(checks, x=[a, b, a])
    failure = checks.failure({"x": [a, a, b]}, {})
    assert "two of them are one object" in str(failure)
    with pytest.raises(InternalError, match="two places hold one object"):
        compile_checks([places[0].make_guard(distinct)], {"x": [a, a, b]}, {})
