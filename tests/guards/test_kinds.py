"""Each kind of guard on plain Python values: what keeps it, and what breaks it."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import gc
import math
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.guards.holding import X, checks_of, failure, guard_on, holds

from stillframe.errors import InternalError
from stillframe.guards.checks import compile_checks
from stillframe.guards.kinds.registry import KINDS, Kind, kind, register
from stillframe.source import LocalSource, NoExactForm


class Thing:
    pass


class Derived(Thing):
    pass


class Liar:
    """Says that it is a Thing."""

    __class__ = Thing  # type: ignore[assignment]


class IntChild(int):
    pass


class StrChild(str):
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = 2


Pair = collections.namedtuple("Pair", ["a", "b"])


def with_attr(**attributes: Any) -> Thing:
    thing = Thing()
    vars(thing).update(attributes)
    return thing


def moved_to_end(table: dict[Any, Any], key: Any) -> Any:
    ordered = collections.OrderedDict(table)
    ordered.move_to_end(key)
    return ordered


def advanced(iterator: Any, by: int) -> Any:
    for _ in range(by):
        next(iterator)
    return iterator


KEY = Thing()
THING = Thing()
A, B = Thing(), Thing()

# kind, parameters, the value, values for which it still holds, and for which not
TABLE: list[tuple[str, str, dict[str, Any], Any, list[Any], list[Any]]] = [
    ("4.17", "TYPE_MATCH", {}, THING, [Thing()], [Derived(), Liar(), 1, None, Thing]),
    ("4.17", "TYPE_MATCH", {}, 1, [2, 10**9], [True, 1.0, IntChild(1)]),
    ("4.18", "ID_MATCH", {}, THING, [THING], [Thing(), None, 1]),
    ("4.18", "ID_MATCH", {}, None, [None], [False, 0, Thing()]),
    ("4.18", "ID_MATCH", {}, Color.RED, [Color.RED, Color(1)], [Color.BLUE, 1]),
    ("4.19", "EQUALS_MATCH", {}, 3, [3], [True, 3.0, 4, IntChild(3), "3"]),
    ("4.19", "EQUALS_MATCH", {}, 1, [1], [True, 1.0]),
    ("4.19", "EQUALS_MATCH", {}, True, [True], [1, 1.0, False]),
    ("4.19", "EQUALS_MATCH", {}, 2.5, [2.5], [2.5000001, math.nan, IntChild(2)]),
    ("4.19", "EQUALS_MATCH", {}, 0.0, [0.0], [-0.0, 0, False]),
    ("4.19", "EQUALS_MATCH", {}, math.nan, [float("nan")], [0.0, math.inf]),
    ("4.19", "EQUALS_MATCH", {}, math.inf, [float("inf")], [-math.inf]),
    ("4.19", "EQUALS_MATCH", {}, 0j, [0j], [complex(-0.0, 0), 0, 0.0]),
    ("4.19", "EQUALS_MATCH", {}, "ab", ["ab", "".join("ab")], [StrChild("ab"), b"ab", "abc"]),
    ("4.19", "EQUALS_MATCH", {}, b"ab", [b"ab"], ["ab", bytearray(b"ab")]),
    ("4.19", "EQUALS_MATCH", {}, Color.RED, [Color(1)], [Color.BLUE, 1]),
    ("4.19", "EQUALS_MATCH", {}, (1, "a"), [(1, "a")], [(True, "a"), [1, "a"], (1,), Pair(1, "a")]),
    ("4.19", "EQUALS_MATCH", {}, [0.0], [[0.0]], [[-0.0], [0], [], (0.0,), [Thing()]]),
    ("4.19", "EQUALS_MATCH", {}, {1, 2}, [{2, 1}], [{1.0, 2}, {1}, frozenset({1, 2})]),
    ("4.19", "EQUALS_MATCH", {}, slice(1, 2), [slice(1, 2)], [slice(1, 2, 1), slice(True, 2)]),
    ("4.19", "EQUALS_MATCH", {}, range(3), [range(3)], [range(4), range(0, 3, 2)]),
    ("4.20", "CONSTANT_MATCH", {}, True, [True], [1, False, None]),
    ("4.20", "CONSTANT_MATCH", {}, None, [None], [False, 0]),
    ("4.20", "CONSTANT_MATCH", {}, 1, [1], [True]),
    ("4.20", "CONSTANT_MATCH", {}, checks_of.__code__, [checks_of.__code__],
     [checks_of.__code__.replace(), None]),
    ("4.21", "BOOL_FALSE", {}, {}, [{}, [], None, 0], [{1: 2}, [0], Thing()]),
    ("4.22", "NONE_MATCH", {}, None, [None], [0, False, Thing()]),
    ("4.22", "NOT_NONE_MATCH", {}, 0, [0, False, Thing()], [None]),
    ("4.23", "NAME_MATCH", {}, math.sin, [math.sin, types.SimpleNamespace(__name__="sin")],
     [math.cos, Thing(), None]),
    ("4.24", "HASATTR", {"attr": "a"}, with_attr(a=1), [with_attr(a=None)], [Thing(), None]),
    ("4.24", "HASATTR", {"attr": "a"}, Thing(), [Thing(), None], [with_attr(a=None)]),
    ("4.25", "FUNCTION_MATCH", {}, checks_of, [checks_of], [holds, None]),
    ("4.25", "FUNCTION_MATCH", {}, math, [math], [types]),
    ("4.25", "BUILTIN_MATCH", {}, len, [len], [sum, None]),
    ("4.27", "SEQUENCE_LENGTH", {}, [1, 2], [[3, 4]], [[1], (1, 2), {1: 2, 2: 3}, 5, None]),
    ("4.27", "SEQUENCE_LENGTH", {}, {1: 2}, [{"a": 0}], [{}, collections.OrderedDict({1: 2})]),
    ("4.27", "SEQUENCE_LENGTH", {}, collections.deque([1]), [collections.deque([2])], [[1]]),
    ("4.27", "SEQUENCE_LENGTH", {}, Pair(1, 2), [Pair(3, 4)], [(1, 2)]),
    ("4.28", "TUPLE_ITERATOR_LEN", {}, iter((1, 2)), [iter((3, 4)), advanced(iter((1, 2, 3)), 1)],
     [iter((1,)), iter([1, 2]), advanced(iter((1, 2)), 2), (1, 2)]),
    ("4.29", "DICT_KEYS", {}, {"a": 1, KEY: 2}, [{KEY: 0, "a": 0}],
     [{"a": 1, Thing(): 2}, {"a": 1}, {"a": 1, KEY: 2, 3: 4}, collections.OrderedDict(a=1), None]),
    ("4.29", "DICT_KEYS", {}, {1: 0}, [{1: 5}], [{True: 0}, {1.0: 0}, {IntChild(1): 0}]),
    ("4.29", "DICT_KEYS", {}, {0.0: 0}, [{0.0: 5}], [{-0.0: 0}]),
    ("4.29", "DICT_KEYS", {}, {"a": 0}, [{"a": 5}], [{StrChild("a"): 0}]),
    ("4.29", "DICT_KEYS", {"ordered": True}, {"a": 1, "b": 2}, [{"a": 0, "b": 0}],
     [{"b": 2, "a": 1}]),
    ("4.29", "DICT_KEYS", {"ordered": True}, collections.OrderedDict(a=1, b=2),
     [collections.OrderedDict(a=0, b=0)], [moved_to_end({"a": 1, "b": 2}, "a")]),
    ("4.29", "DICT_CONST_KEYS", {}, {"a": 1, 2: 3}, [{2: 0, "a": 0}], [{"a": 1}, {"a": 1, 3: 3}]),
    ("4.29", "DICT_CONST_KEYS", {"ordered": True}, {"a": 1, 2: 3}, [{"a": 0, 2: 0}],
     [{2: 0, "a": 0}]),
    ("4.30", "DICT_VERSION", {}, {"a": A, "b": B}, [{"a": A, "b": B}],
     [{"b": B, "a": A}, {"a": A}, {"a": A, "b": A}, {"a": A, "b": None}, {"a": A, "b": B, "c": A}]),
    ("4.31", "DICT_CONTAINS", {"key": "a"}, {"a": 1}, [{"a": 2, "b": 3}], [{}, {"b": 1}, None]),
    ("4.31", "DICT_CONTAINS", {"key": "a"}, {}, [{"b": 3}], [{"a": None}, None]),
    ("4.31", "DICT_CONTAINS", {"key": KEY}, {KEY: 1}, [{KEY: 2}], [{Thing(): 1}]),
    ("4.36", "EMPTY_NN_MODULE_HOOKS_DICT", {}, collections.OrderedDict(),
     [collections.OrderedDict()], [collections.OrderedDict({1: len})]),
]  # fmt: skip


@pytest.mark.spec(
    "4.17", "4.18", "4.19", "4.20", "4.21", "4.22", "4.23", "4.24", "4.25", "4.27", "4.28", "4.29",
    "4.30", "4.31", "4.36",
)  # fmt: skip
@pytest.mark.parametrize(
    ("row", "name", "parameters", "value", "keeps", "breaks"),
    TABLE,
    ids=[f"{row[0]}-{row[1]}-{i}" for i, row in enumerate(TABLE)],
)
def test_what_keeps_a_guard_and_what_breaks_it(
    row: str, name: str, parameters: dict[str, Any], value: Any, keeps: list[Any], breaks: list[Any]
) -> None:
    checks = checks_of(value, name, **parameters)
    assert holds(checks, x=value)
    for other in keeps:
        assert holds(checks, x=other), (row, other)
    for other in breaks:
        found = failure(checks, x=other)
        assert found.guard is not None and found.guard.kind == name, (row, other)
        assert found.name == "L['x']" and str(found).startswith("L['x'] "), (row, other)


@pytest.mark.spec("4.18", "4.25", "4.20")
@pytest.mark.parametrize("name", ["ID_MATCH", "FUNCTION_MATCH", "BUILTIN_MATCH"])
def test_a_dead_reference_fails(name: str) -> None:
    class Callable_(Thing):
        def __call__(self) -> None:
            """Nothing."""

    thing = Callable_()
    ref = weakref.ref(thing)
    checks = checks_of(thing, name)
    del thing
    gc.collect()
    assert ref() is None  # the guard did not keep it alive
    for other in (None, Callable_(), Thing()):  # None is what a dead reference gives
        assert not holds(checks, x=other)


@pytest.mark.spec("4.18")
def test_what_cannot_be_referred_to_weakly_is_kept() -> None:
    value = tuple(range(2))
    checks = checks_of(value, "ID_MATCH")
    address = id(value)
    del value
    others = [tuple(range(2)) for _ in range(100)]
    assert address not in map(id, others)
    assert not any(holds(checks, x=other) for other in others)


@pytest.mark.spec("4.19")
@pytest.mark.parametrize("value", [Thing(), {1: 2}, IntChild(1), (1, Thing()), Pair(1, 2)])
def test_equality_of_other_classes_is_refused(value: Any) -> None:
    with pytest.raises(NoExactForm, match="no equality to rely on"):
        checks_of(value, "EQUALS_MATCH")


@pytest.mark.spec("4.21", "4.22", "4.31", "4.37")
@pytest.mark.parametrize(
    ("name", "value"),
    [("NONE_MATCH", 1), ("NOT_NONE_MATCH", None), ("BOOL_FALSE", 1), ("WEAKREF_ALIVE", None)],
)
def test_a_guard_that_does_not_hold_cannot_be_made(name: str, value: Any) -> None:
    if name == "WEAKREF_ALIVE":
        value = weakref.ref(Thing())
    with pytest.raises(InternalError, match=f"{name} does not hold where it is made"):
        checks_of(value, name)


@pytest.mark.spec("4.25")
@pytest.mark.parametrize("fleeting", [THING.__repr__, THING.__init__, [].append, "a".join])
def test_callables_that_are_made_anew_are_refused(fleeting: Any) -> None:
    with pytest.raises(InternalError, match="made anew at every access"):
        checks_of(fleeting, "FUNCTION_MATCH")


@pytest.mark.spec("4.25")
def test_functions_of_torch_are_stable() -> None:
    checks = checks_of(torch.add, "FUNCTION_MATCH")
    assert holds(checks, x=torch.add) and not holds(checks, x=torch.sub)


def make_local(offset: int) -> Callable[[int], int]:
    def local(x: int) -> int:
        return x + offset

    return local


@pytest.mark.spec("4.26")
def test_closures_are_matched_by_code() -> None:
    checks = checks_of(make_local(1), "CLOSURE_MATCH")
    assert holds(checks, x=make_local(2))  # what is in the cells has guards of its own
    assert not holds(checks, x=lambda x: x)
    assert not holds(checks, x=functools.partial(make_local(1))) and not holds(checks, x=None)
    elsewhere = make_local(1)
    moved = types.FunctionType(
        elsewhere.__code__,
        {},
        "local",
        None,
        elsewhere.__closure__,  # type: ignore[attr-defined]
    )
    assert not holds(checks, x=moved)  # the same code reads other globals


@pytest.mark.spec("4.26")
def test_other_functions_are_matched_by_identity() -> None:
    checks = checks_of(make_local, "CLOSURE_MATCH")
    copy = types.FunctionType(make_local.__code__, make_local.__globals__)
    assert holds(checks, x=make_local) and not holds(checks, x=copy)
    assert holds(checks_of(len, "CLOSURE_MATCH"), x=len)


@pytest.mark.spec("4.27")
def test_length_failures_say_both() -> None:
    found = failure(checks_of([1, 2], "SEQUENCE_LENGTH"), x=(1, 2, 3))
    assert str(found).startswith(
        "L['x'] is a list of length 2 [SEQUENCE_LENGTH]; found: tuple of length 3"
    )


@pytest.mark.spec("4.28")
def test_only_iterators_of_tuples() -> None:
    with pytest.raises(InternalError, match="not the iterator of a tuple"):
        checks_of(iter([1]), "TUPLE_ITERATOR_LEN")


def test_the_elements_of_a_set_are_met_again() -> None:
    held = Thing()
    checks = checks_of({1, "a", held}, "SET_ELEMENTS")
    assert holds(checks, x={held, "a", 1})
    for other in ({1, "a", Thing()}, {True, "a", held}, {1, "a"}, frozenset([1, "a", held]), [1]):
        assert not holds(checks, x=other)
    checks = checks_of(frozenset([8, 16]), "SET_ELEMENTS", ordered=True)
    assert holds(checks, x=frozenset([8, 16]))
    assert not holds(checks, x=frozenset([16, 8])), "these two collide in a table of eight"


def test_an_element_that_died_fails() -> None:
    values = {Thing()}
    checks = checks_of(values, "SET_ELEMENTS")
    values.clear()
    gc.collect()
    for _ in range(50):  # one of these may get the address of the dead element
        assert not holds(checks, x={Thing()})


@pytest.mark.spec("4.29")
def test_an_object_key_that_died_fails() -> None:
    key = Thing()
    checks = checks_of({key: 1}, "DICT_KEYS")
    assert holds(checks, x={key: 2})
    del key
    gc.collect()
    for _ in range(50):  # one of these may get the address of the dead key
        assert not holds(checks, x={Thing(): 1})


@pytest.mark.spec("4.29")
def test_constant_keys_only() -> None:
    with pytest.raises(InternalError, match="not a constant"):
        checks_of({KEY: 1}, "DICT_CONST_KEYS")
    with pytest.raises(InternalError, match="not a dictionary"):
        checks_of([1], "DICT_KEYS")


@pytest.mark.spec("4.29", "4.30")
def test_keys_are_read_past_a_subclass() -> None:
    class Table(dict):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise RuntimeError("not to be asked")

        keys = __iter__  # type: ignore[assignment]

    for name in ("DICT_KEYS", "DICT_VERSION"):
        checks = checks_of(Table(a=A), name)
        assert holds(checks, x=Table(a=A))
        assert not holds(checks, x=Table(b=A)) and not holds(checks, x={"a": A})


@pytest.mark.spec("4.30")
def test_a_dict_that_is_written_to() -> None:
    table = {"a": A, "b": B}
    checks = checks_of(table, "DICT_VERSION")
    assert holds(checks, x=table)
    table["a"] = B
    assert not holds(checks, x=table)
    table["a"] = A
    assert holds(checks, x=table)
    table["b"] = table.pop("b")
    assert holds(checks, x=table)
    table["a"] = table.pop("a")
    assert not holds(checks, x=table)  # the order


@pytest.mark.spec("4.34")
def test_duplicate_input() -> None:
    y = LocalSource("y")
    value = Thing()
    checks = compile_checks(
        [guard_on(X, "DUPLICATE_INPUT", source_b=y)], {"x": value, "y": value}, {}
    )
    assert holds(checks, x=THING, y=THING)
    found = failure(checks, x=Thing(), y=Thing())
    assert "is the same object as L['y'] [DUPLICATE_INPUT]" in str(found)
    with pytest.raises(InternalError, match="are two objects"):
        compile_checks([guard_on(X, "DUPLICATE_INPUT", source_b=y)], {"x": 1, "y": Thing()}, {})


@pytest.mark.spec("4.35")
def test_nn_module() -> None:
    module = torch.nn.Linear(2, 2)
    checks = checks_of(module, "NN_MODULE")
    assert holds(checks, x=module)
    module.eval()
    found = failure(checks, x=module)
    assert "in training mode" in str(found) and "training=False" in str(found)
    module.train()
    assert holds(checks, x=module) and not holds(checks, x=torch.nn.Linear(2, 2))
    del module
    gc.collect()
    assert not holds(checks, x=None)


@pytest.mark.spec("4.37")
def test_weakref_alive() -> None:
    thing = Thing()
    ref = weakref.ref(thing)
    checks = checks_of(ref, "WEAKREF_ALIVE")
    assert holds(checks, x=ref)
    del thing
    gc.collect()
    assert "alive" in str(failure(checks, x=ref))


@pytest.mark.spec("4.19")
def test_equality_of_torch_values() -> None:
    values: list[Any] = [
        torch.float32, torch.float64, torch.device("cpu"), torch.device("meta"), torch.strided,
        torch.sparse_coo, torch.Size([2, 3]), torch.Size([3, 2]), torch.contiguous_format,
        torch.channels_last, (2, 3),
    ]  # fmt: skip
    for value in values:
        checks = checks_of(value, "EQUALS_MATCH")
        assert [other for other in values if holds(checks, x=other)] == [value]
    assert holds(checks_of(torch.device("cpu"), "EQUALS_MATCH"), x=torch.device("cpu"))
    assert not holds(checks_of(torch.device("cpu"), "EQUALS_MATCH"), x=torch.device("cpu", 0))


@pytest.mark.spec("4.19")
def test_equality_of_library_values() -> None:
    import numpy as np
    from torch.distributed.tensor.placement_types import Replicate, Shard

    checks = checks_of(Shard(0), "EQUALS_MATCH")
    assert holds(checks, x=Shard(0))
    assert not holds(checks, x=Shard(1)) and not holds(checks, x=Replicate())
    checks = checks_of(np.float32(0.0), "EQUALS_MATCH")
    assert holds(checks, x=np.float32(0.0))
    for other in (np.float32(-0.0), np.float64(0.0), 0.0):
        assert not holds(checks, x=other)


@pytest.mark.spec("4.19")
def test_equality_of_device_meshes() -> None:
    from torch.distributed.device_mesh import DeviceMesh

    def mesh(*ranks: int) -> Any:
        return DeviceMesh("cpu", list(ranks), _init_backend=False, _rank=0)

    checks = checks_of(mesh(0, 1), "EQUALS_MATCH")
    assert holds(checks, x=mesh(0, 1))
    assert not holds(checks, x=mesh(1, 0)) and not holds(checks, x=mesh(0, 1, 2))


ROWS_4C = (
    "TYPE_MATCH ID_MATCH EQUALS_MATCH CONSTANT_MATCH BOOL_FALSE NOT_NONE_MATCH NONE_MATCH "
    "NAME_MATCH HASATTR FUNCTION_MATCH BUILTIN_MATCH CLOSURE_MATCH SEQUENCE_LENGTH "
    "TUPLE_ITERATOR_LEN DICT_KEYS DICT_CONST_KEYS DICT_VERSION DICT_CONTAINS TENSOR_MATCH "
    "DATA_PTR_MATCH DUPLICATE_INPUT NN_MODULE EMPTY_NN_MODULE_HOOKS_DICT WEAKREF_ALIVE SHAPE_ENV "
    "GRAD_MODE DETERMINISTIC_ALGORITHMS TORCH_FUNCTION_STATE DEFAULT_DEVICE AUTOCAST "
    "FSDP_TRAINING_STATE BACKEND"
).split()


def test_the_registry_is_complete_and_refuses_twins() -> None:
    for name in ROWS_4C:
        assert kind(name).__name__ == name
    own = {"DEFAULT_DTYPE", "CURRENT_STREAM", "BEHAVIOUR", "DISTINCT", "SET_ELEMENTS"}
    assert set(KINDS) - set(ROWS_4C) == own
    with pytest.raises(InternalError, match="there is a guard kind TYPE_MATCH already"):
        register(Kind("TYPE_MATCH", type, lambda *_: [], str))
    with pytest.raises(InternalError, match="no guard kind 'TYPO'"):
        kind("TYPO")


def test_dataclasses_are_not_told_apart_by_equality() -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        size: int

    with pytest.raises(NoExactForm):
        checks_of(Config(1), "CONSTANT_MATCH")
