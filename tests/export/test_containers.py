"""Structures as plain data and back; records for classes that the process does not know."""

from __future__ import annotations

import collections
import copy
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from torch.utils import _pytree as pytree

from stillframe.errors import ArtifactError
from stillframe.export.containers import (
    Record,
    StructureNode,
    decode_context,
    describe_spec,
    encode_context,
    rebuild_spec,
    same_float,
)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Box:
    inside: Any
    lid: Any = None


class Odd:
    """A container whose context is no plain data."""

    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.fixture
def registered() -> Iterator[None]:
    pytree.register_dataclass(Box)
    pytree.register_pytree_node(Odd, lambda o: ([o.value], object()), lambda v, _: Odd(*v))
    yield
    for cls in (Box, Odd):
        forget(cls)


def forget(cls: type) -> None:
    """Undo a registration, as if this were a process that never made it."""
    pytree.SUPPORTED_NODES.pop(cls, None)
    entry = pytree.SUPPORTED_SERIALIZED_TYPES.pop(cls, None)
    if entry is not None:
        pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.pop(entry.serialized_type_name, None)
    pytree.CONSTANT_NODES.discard(cls)


def through_json(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    text = msgspec.json.encode(describe_spec(spec))
    return rebuild_spec(msgspec.json.decode(text, type=StructureNode))


@pytest.mark.parametrize(
    "value",
    [
        1,
        None,
        (1, (2, ())),
        [1, [], {}],
        {"a": 1, 3: [2, None], True: 4, None: 5, 2.5: 6, ("t", 1): 7},
        collections.OrderedDict(z=1, a=2),
        collections.defaultdict(list, {"q": 1}),
        collections.deque([1, 2], maxlen=3),
        Pair(1, {"x": Pair(2, 3)}),
        torch.Size([3, 4]),
        torch.ones(2, 2).max(0),
    ],
    ids=lambda v: type(v).__name__,
)
def test_builtin_containers(value: Any) -> None:
    spec = pytree.tree_structure(value)
    again = through_json(spec)
    assert again == spec
    leaves = list(range(spec.num_leaves))
    assert str(pytree.tree_unflatten(leaves, again)) == str(pytree.tree_unflatten(leaves, spec))


def test_registered_classes(registered: None) -> None:
    spec = pytree.tree_structure([Box(1), Box(2, 3)])
    assert through_json(spec) == spec


def test_unknown_class_becomes_a_record(registered: None) -> None:
    node = describe_spec(pytree.tree_structure(Box(1)))
    forget(Box)
    spec = rebuild_spec(node)
    record = pytree.tree_unflatten(["value"], spec)
    assert isinstance(record, Record)
    assert record.type_name.endswith("Box")
    assert record.inside == record["inside"] == record[0] == "value"
    assert record.lid is None and "lid" not in record
    assert record.to_tuple() == ("value",) and list(record) == ["inside"] and len(record) == 1
    assert dict(record) == {"inside": "value"}
    assert "Box(inside='value')" in repr(record)
    # saving it again describes the original class
    assert describe_spec(spec) == node
    # it is a container itself
    assert pytree.tree_map(lambda v: v * 2, record).inside == "valuevalue"
    assert pytree.tree_structure(record) == spec
    assert copy.copy(record).inside == "value"


def test_a_record_is_read_only_and_says_what_it_has(registered: None) -> None:
    node = describe_spec(pytree.tree_structure(Box(1)))
    forget(Box)
    record = pytree.tree_unflatten([1], rebuild_spec(node))
    with pytest.raises(AttributeError, match="read-only"):
        record.inside = 2
    with pytest.raises(AttributeError, match="has inside, not 'outside'"):
        _ = record.outside
    with pytest.raises(KeyError):
        record["outside"]
    with pytest.raises(IndexError):
        record[1]


def test_namedtuple_of_an_unloaded_module() -> None:
    node = describe_spec(pytree.tree_structure(Pair(1, 2)))
    away = dataclasses.replace(node, name="not_a_module_of_ours.Pair")
    record = pytree.tree_unflatten([1, 2], rebuild_spec(away))
    assert isinstance(record, Record) and record.first == 1 and record.second == 2


def test_nothing_is_imported() -> None:
    unloaded = "this"  # prints a poem when imported
    assert unloaded not in sys.modules
    for kind in ("namedtuple", "registered", "return_type"):
        rebuild_spec(StructureNode(kind, f"{unloaded}.Zen", ["a"], (StructureNode("leaf"),)))
    assert unloaded not in sys.modules


def test_a_loaded_function_is_not_taken_for_a_class() -> None:
    spec = rebuild_spec(StructureNode("namedtuple", "os.system", ["a"], (StructureNode("leaf"),)))
    assert spec.type is Record


def test_context_that_is_no_data_is_refused_by_path(registered: None) -> None:
    with pytest.raises(ArtifactError, match=r"the result\['a'\]\[1\].*Odd") as caught:
        describe_spec(pytree.tree_structure({"a": [1, Odd(2)]}))
    assert "to_dumpable_context" in str(caught.value)


def test_context_with_functions_of_its_own() -> None:
    class Tagged:
        def __init__(self, value: Any, tag: complex) -> None:
            self.value, self.tag = value, tag

    pytree.register_pytree_node(
        Tagged,
        lambda t: ([t.value], t.tag),
        lambda v, tag: Tagged(*v, tag),
        serialized_type_name="tests.Tagged",
        to_dumpable_context=str,
        from_dumpable_context=complex,
    )
    try:
        spec = pytree.tree_structure(Tagged(1, 2j))
        assert through_json(spec) == spec
    finally:
        forget(Tagged)


def test_unknown_factory_is_refused() -> None:
    value = collections.defaultdict(lambda: 1, {"a": 1})
    with pytest.raises(ArtifactError, match="defaultdict"):
        describe_spec(pytree.tree_structure(value))


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 2**70, -1.5, float("inf"), "text", [1, (2, [3])], {"a": {1: (2,)}}, torch.int8],
    ids=repr,
)
def test_contexts_come_back(value: Any) -> None:
    encoded = msgspec.json.decode(msgspec.json.encode(encode_context(value, "x")))
    again = decode_context(encoded)
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize(
    "context",
    [
        {"float": "x"},
        {"a": 1, "b": 2},
        {"dict": [1]},
        {"tuple": 3},
        {"eval": "1"},
        {"dtype": "load"},
    ],
)
def test_damaged_contexts(context: Any) -> None:
    with pytest.raises(ArtifactError):
        decode_context(context)


@pytest.mark.parametrize(
    "node",
    [
        StructureNode("module"),
        StructureNode("dict", "", ["a", "b"], (StructureNode("leaf"),)),
        StructureNode("dict", "", None, ()),
        StructureNode("default_dict", "", ["os.system", []], ()),
    ],
    ids=lambda n: n.type,
)
def test_damaged_structures(node: StructureNode) -> None:
    with pytest.raises(ArtifactError):
        rebuild_spec(node)


def test_same_float() -> None:
    assert same_float(float("nan"), float("nan")) and not same_float(0.0, -0.0)
