"""Guards as data: identity, order, text, what is noted on them."""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from typing import Any

import pytest

from stillframe.errors import InternalError
from stillframe.source import (
    AttrSource,
    ConstantSource,
    DuplicateInputs,
    FSDPNNModuleSource,
    GlobalSource,
    GlobalStateSource,
    Guard,
    GuardBuilderBase,
    GuardEnvExpr,
    GuardSource,
    LocalSource,
    NNModuleSource,
    ShapeGuard,
)
from stillframe.source.guard import shown_reference
from stillframe.symbolic import symbol

X = LocalSource("x")


def FIRST(builder: Any, guard: Guard, **parameters: Any) -> Any:
    return builder, guard, parameters


def SECOND(builder: Any, guard: Guard, **parameters: Any) -> Any:
    raise RuntimeError("cannot check this")


def DUPLICATE_INPUT(builder: Any, guard: Guard, source_b: Any = None) -> None:
    """Named as the kind that goes last."""


class Thing:
    """Weakly referable."""


@pytest.mark.spec("4.3")
def test_guard_sources_are_numbered() -> None:
    names = (
        "LOCAL GLOBAL LOCAL_NN_MODULE GLOBAL_NN_MODULE CONSTANT RANDOM_VALUE SHAPE_ENV "
        "LOCAL_FSDP_MODULE GLOBAL_FSDP_MODULE BACKWARD_STATE EPHEMERAL SYNTHETIC_LOCAL"
    )
    assert [(s.name, s.value) for s in GuardSource] == [
        (name, i) for i, name in enumerate(names.split())
    ]


@pytest.mark.spec("4.4")
def test_guard_source_predicates() -> None:
    def those(ask: Any) -> set[str]:
        return {s.name for s in GuardSource if ask(s)}

    fsdp = {"LOCAL_FSDP_MODULE", "GLOBAL_FSDP_MODULE"}
    assert those(GuardSource.is_fsdp_module) == fsdp
    assert those(GuardSource.is_nn_module) == fsdp | {"LOCAL_NN_MODULE", "GLOBAL_NN_MODULE"}
    assert those(GuardSource.is_local) == {"LOCAL", "LOCAL_NN_MODULE", "LOCAL_FSDP_MODULE"}


@pytest.mark.spec("4.5", "4.14")
def test_a_guard_takes_name_and_begin_from_its_source() -> None:
    guard = Guard(AttrSource(NNModuleSource(X), "weight"), FIRST)
    assert guard.name == "L['x'].weight" and guard.source is GuardSource.LOCAL_NN_MODULE
    assert guard.is_nn_module() and guard.is_local() and not guard.is_fsdp_module()
    managed = Guard(FSDPNNModuleSource(GlobalSource("g")), FIRST)
    assert managed.is_fsdp_module() and managed.is_nn_module() and not managed.is_local()
    assert Guard(GlobalStateSource(), FIRST).name == ""


@pytest.mark.spec("4.5", "4.6", "4.11")
def test_creating_calls_the_create_function() -> None:
    builder = GuardBuilderBase()
    guard = Guard(X, functools.partial(FIRST, a=1))
    assert guard.create(builder) == (builder, guard, {"a": 1})
    assert [n for n in vars(GuardBuilderBase) if not n.startswith("__")] == []


@pytest.mark.spec("4.7")
def test_identity_leaves_notes_out() -> None:
    a, b = Guard(X, FIRST), Guard(LocalSource("x"), FIRST)
    b.stack, b.user_stack = (), None
    b.set_export_info("FIRST", Thing, ["code"], None)
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert a != Guard(X, SECOND) and a != Guard(GlobalSource("x"), FIRST)
    assert a != Guard(LocalSource("y"), FIRST) and a != "a guard"


@pytest.mark.spec("4.7")
def test_places_of_one_name_begin_differently() -> None:
    assert NNModuleSource(X).name() == X.name()
    assert Guard(NNModuleSource(X), FIRST) != Guard(X, FIRST)


@pytest.mark.spec("4.7")
def test_partials_are_equal_by_their_arguments() -> None:
    def made(*args: Any, **kwargs: Any) -> Guard:
        return Guard(X, functools.partial(FIRST, *args, **kwargs))

    thing = Thing()
    equal = [
        (made(a=1), made(a=1)),
        (made(a=float("nan")), made(a=float("nan"))),
        (made(source_b=LocalSource("y")), made(source_b=LocalSource("y"))),
        (made(a=thing), made(a=thing)),
        (made(a=weakref.ref(thing)), made(a=weakref.ref(thing, print))),
        (made(a=(1, "b")), made(a=(1, "b"))),
    ]
    for a, b in equal:
        assert a == b and hash(a) == hash(b)
    different = [
        made(), made(a=1), made(a=True), made(a=1.0), made(b=1), made(1), made(a=0.0),
        made(a=-0.0), made(a=Thing()), made(a=Thing()), made(source_b=LocalSource("y")),
        made(source_b=LocalSource("z")), Guard(X, FIRST), Guard(X, functools.partial(SECOND)),
    ]  # fmt: skip
    for a, b in itertools.combinations(different, 2):
        assert a != b
    dead = weakref.ref(Thing())
    assert made(a=dead) != made(a=weakref.ref(Thing()))  # both dead: not known to be one object


@pytest.mark.spec("4.7")
def test_the_hash_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counted(LocalSource):
        def name(self) -> str:
            asked.append(self)
            return super().name()

    guard = Guard(Counted("x"), FIRST)
    assert hash(guard) == hash(guard) and guard in {guard}
    assert len(asked) == 1


@pytest.mark.spec("4.8")
def test_order_of_guards() -> None:
    duplicate = Guard(X, functools.partial(DUPLICATE_INPUT, source_b=LocalSource("b")))
    in_order = [
        Guard(LocalSource("b"), FIRST),
        Guard(LocalSource("b"), SECOND),  # one place: by the line of the create function
        Guard(X, functools.partial(functools.partial(FIRST, a=1), b=2)),
        Guard(AttrSource(LocalSource("b"), "a"), FIRST),  # longer, though before x by the alphabet
        Guard(GlobalSource("a"), FIRST),
        Guard(NNModuleSource(LocalSource("a")), FIRST),
        Guard(ConstantSource("c"), FIRST),
        duplicate,
    ]
    for shuffled in (in_order[::-1], in_order[3:] + in_order[:3]):
        assert sorted(shuffled) == in_order
    assert duplicate.sort_key()[0] is True


@pytest.mark.spec("4.9")
def test_partials_are_unwrapped() -> None:
    guard = Guard(X, functools.partial(functools.partial(FIRST, a=1), b=2))
    assert guard.inner_create_fn() is FIRST and guard.kind == "FIRST"
    assert guard.sort_key()[-1] == FIRST.__code__.co_firstlineno


@pytest.mark.spec("4.10")
def test_stacks_are_optional() -> None:
    guard = Guard(X, FIRST)
    assert guard.stack is None and guard.user_stack is None


@pytest.mark.spec("4.11")
def test_a_failing_create_function_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from stillframe import stack

    def one() -> stack.RawStack:
        return two()

    def two() -> stack.RawStack:
        return three()

    def three() -> stack.RawStack:
        return four()

    def four() -> stack.RawStack:
        return five()

    def five() -> stack.RawStack:
        return stack.whole_stack()

    guard = Guard(X, SECOND)
    guard.stack = one()
    with caplog.at_level(logging.ERROR), pytest.raises(RuntimeError, match="cannot check"):
        guard.create(GuardBuilderBase())
    assert "Name: L['x']" in caplog.text and "Create Function: SECOND" in caplog.text
    told = [name for name in ("one", "two", "three", "four") if f" in {name}" in caplog.text]
    assert told == ["one", "two", "three", "four"]  # the last four: five's caller outwards
    assert "test_a_failing" not in caplog.text


@pytest.mark.spec("4.12")
def test_export_info() -> None:
    guard, thing = Guard(X, FIRST), Thing()
    guard.set_export_info("A", Thing, ["a"], weakref.ref(thing))
    guard.set_export_info("B", Thing, ["b", "c"], weakref.ref(thing, print))
    assert guard.guard_types == ["A", "B"] and guard.code_list == ["a", "b", "c"]
    with pytest.raises(InternalError, match="two classes"):
        guard.set_export_info("C", int, [], weakref.ref(thing))
    with pytest.raises(InternalError, match="two objects"):
        guard.set_export_info("C", Thing, [], weakref.ref(Thing()))
    del thing
    fresh = Thing()
    guard.set_export_info("C", Thing, [], weakref.ref(fresh))  # the earlier one has died
    assert guard.obj_weakref() is fresh


@pytest.mark.spec("4.13")
def test_printing() -> None:
    class Rude:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("asked for an attribute")

        def __repr__(self) -> str:
            raise RuntimeError("asked for text")

    rude = Rude()
    guard = Guard(X, functools.partial(FIRST, a=1))
    guard.set_export_info("FIRST", Rude, ["x is y"], weakref.ref(rude))
    for text in (repr(guard), str(guard)):
        assert f"Rude at {id(rude):#x}" in text and "L['x']" in text
        assert "local" in text and "FIRST" in text and "x is y" in text
    assert "Create Function: FIRST" in str(guard).splitlines()
    assert len(repr(guard).splitlines()) == 5
    del rude
    assert "dead" in repr(guard) and "Object Weakref: dead" in str(guard)
    assert shown_reference(None) == "None"


@pytest.mark.spec("4.15")
def test_shape_guard() -> None:
    expr = symbol("s0")
    guard = ShapeGuard(expr, ())
    assert guard.expr is expr and guard.stack == () and guard == ShapeGuard(expr)


@pytest.mark.spec("4.16")
def test_duplicate_inputs_are_two_places() -> None:
    pair = DuplicateInputs(X, LocalSource("y"))
    assert isinstance(pair, GuardEnvExpr) and pair.input_source_b.name() == "L['y']"
    with pytest.raises(InternalError, match="one place twice"):
        DuplicateInputs(X, LocalSource("x"))
