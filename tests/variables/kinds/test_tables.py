"""Dicts, sets, views, enums and registries: from outside, changed, and made again."""

from __future__ import annotations

import collections
import dataclasses
import enum
import itertools
import sys
import types
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from tests.variables.building import built, made
from tests.variables.checking import agrees, guards_of, refuses

import stillframe as sf
from stillframe.variables import ExistingMutable, ExistingObject, FrameState, capture_frame


def ones(size: int = 2) -> torch.Tensor:
    return torch.arange(float(size)) + 1


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Missing(dict):  # type: ignore[type-arg]
    def __missing__(self, key: Any) -> int:
        return 7


class Lower(dict):  # type: ignore[type-arg]
    def __getitem__(self, key: str) -> Any:
        return dict.__getitem__(self, key.lower())


class Colour(enum.Enum):
    RED = 1
    BLUE = [1, 2]


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 2
    kind: Any = dataclasses.field(default="point", init=False)


@dataclasses.dataclass
class Output(collections.OrderedDict):  # type: ignore[type-arg]
    """As the model outputs of libraries are."""

    first: Any = None
    second: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self[field.name] = getattr(self, field.name)


# -- dicts -----------------------------------------------------------------------------------------


@pytest.mark.spec("5.43")
@pytest.mark.parametrize("cls", [dict, collections.OrderedDict])
def test_keys_are_guarded_and_their_order_only_where_it_is_seen(cls: type) -> None:
    def read(table: Any, x: torch.Tensor) -> torch.Tensor:
        return x * table["a"] + len(table) + table.get("zz", 1) * ("b" in table)

    def walk(table: Any, x: torch.Tensor) -> Any:
        return list(table), x

    capture = agrees(
        read,
        lambda: (cls(a=1, b=2), ones()),
        lambda: (cls(b=object, a=1), ones()),
    )
    found = guards_of(capture)
    assert "SEQUENCE_LENGTH L['table']" in found
    assert "DICT_CONST_KEYS L['table']" in found
    assert not any("['b']" in guard for guard in found)
    refuses(capture, cls(a=2, b=2), ones())
    refuses(capture, cls(a=1, zz=2), ones())
    refuses(capture, cls(a=1, b=2, zz=3), ones())
    refuses(capture, (dict if cls is not dict else collections.OrderedDict)(a=1, b=2), ones())
    refuses(agrees(walk, lambda: (cls(a=1, b=2), ones())), cls(b=2, a=1), ones())


@pytest.mark.spec("5.43")
@pytest.mark.parametrize(
    "read",
    [
        lambda table, x: x * sum(table.values()),
        lambda table, x: [x * value for _, value in table.items()],
        lambda table, x: x if table == {"a": 1, "b": 2} else -x,
        lambda table, x: (dict(table), {**table}, table | {"z": x}, table.copy()),
        lambda table, x: (repr(table), x),
        lambda table, x: (lambda **named: named)(**table),
        lambda table, x: (sorted(table.items()), x),
        lambda table, x: (tuple(zip(table, table.values(), strict=True)), x),
        lambda table, x: (list(map(table.__getitem__, table)), x),
    ],
)
def test_what_c_code_sees_of_a_dict_is_guarded(read: Any) -> None:
    capture = agrees(read, lambda: ({"a": 1, "b": 2}, ones()))
    refuses(capture, {"a": 1, "b": 3}, ones())
    refuses(capture, {"a": 1, "c": 2}, ones())


@pytest.mark.spec("5.43")
def test_a_dict_is_changed_in_place_and_keeps_the_order_of_its_keys() -> None:
    def change(table: dict[str, Any], x: torch.Tensor) -> Any:
        table["a"] = x
        table |= {"q": 5}
        del table["b"]
        table.setdefault("z", []).append(x)
        table.update(last=table.pop("c"))
        return table.get("q"), table.pop("none", 3), table.popitem()

    capture = agrees(change, lambda: ({"a": 1, "b": 2, "c": 3}, ones()))
    refuses(capture, {"b": 2, "a": 1, "c": 3}, ones())


@pytest.mark.spec("5.43")
def test_the_order_of_an_ordered_dict_is_changed_and_put_back() -> None:
    def move(table: Any, x: torch.Tensor) -> Any:
        table.move_to_end("a")
        table.move_to_end("c", last=False)
        return x * table["a"], list(table), list(table.values())

    def make() -> tuple[Any, ...]:
        return collections.OrderedDict(a=1, b=2, c=3), ones()

    capture = agrees(move, make)
    table, x = make()
    capture(table, x)
    assert list(table) == ["c", "b", "a"]
    assert list(reversed(table)) == ["a", "b", "c"]
    refuses(capture, table, x)


@pytest.mark.spec("5.43")
def test_keys_that_are_objects_are_known_by_their_identity() -> None:
    key, other = Holder(x=3), Holder(x=3)

    def walk(table: Any, x: torch.Tensor) -> Any:
        return [(held, x * value * held.x) for held, value in table.items()]

    def search(table: Any, held: Any, x: torch.Tensor) -> Any:
        return x * table[held] if held in table else -x

    capture = agrees(walk, lambda: ({key: 2}, ones()))
    found = guards_of(capture)
    assert "DICT_KEYS L['table']" in found
    assert "ID_MATCH list(dict.keys(L['table']))[0]" in found
    refuses(capture, {other: 2}, ones())
    key.x = 4
    refuses(capture, {key: 2}, ones())
    capture = agrees(search, lambda: ({key: 2}, key, ones()))
    refuses(capture, {key: 2}, other, ones())
    capture = agrees(search, lambda: ({key: 2}, other, ones()))
    refuses(capture, {key: 2}, key, ones())


@pytest.mark.spec("5.43")
def test_a_key_and_an_argument_that_are_one_tuple_are_not_mixed_up() -> None:
    shared = (1, 2)

    def use(table: Any, pair: Any, x: torch.Tensor) -> Any:
        return list(table), pair[0], x

    for function in (use, lambda table, pair, x: (pair[0], list(table), x)):
        capture = agrees(function, lambda: ({shared: 3}, shared, ones()))
        refuses(capture, {(1, 2): 3}, (1, 5), ones())


@pytest.mark.spec("5.43")
@pytest.mark.parametrize("key", [1, True, 1.0])
def test_keys_are_told_apart_by_class(key: Any) -> None:
    capture = agrees(lambda table, x: (x * table[1], list(table)), lambda: ({key: 2}, ones()))
    for other in (1, True, 1.0):
        if type(other) is not type(key):
            refuses(capture, {other: 2}, ones())


class Cached(torch.nn.Module):
    def __init__(self, cache: Any) -> None:
        super().__init__()
        self.cache = cache
        self.held = [torch.ones(2), torch.ones(2) * 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cache is not None and "k" in self.cache:
            return x * 3
        return torch.stack(self.held).sum(0) + x


@pytest.mark.spec("5.43")
def test_an_empty_dict_of_a_module_is_checked_cheaply() -> None:
    model = Cached({})
    capture = capture_frame(model, (ones(),))
    assert "BOOL_FALSE L['self'].cache" in guards_of(capture)
    assert not any(guard == "DICT_CONST_KEYS L['self'].cache" for guard in guards_of(capture))
    torch.testing.assert_close(capture(ones()), model(ones()))
    for other in ({"k": 1}, None, (), collections.OrderedDict()):
        model.cache = other
        refuses(capture, ones())


def test_a_module_keeps_tensors_in_containers_that_it_changes() -> None:
    def step(model: Cached, x: torch.Tensor) -> Any:
        model.cache["k"] = x
        model.held.append(x)
        return model(x)

    agrees(step, lambda: (Cached({}), ones()))


@pytest.mark.spec("5.44")
def test_a_default_dict_makes_values_by_its_factory() -> None:
    def count(table: Any, x: torch.Tensor) -> Any:
        table["new"].append(x)
        own = collections.defaultdict(list, {1: [x]})
        own[2].append(own)
        return table["a"], own

    capture = agrees(count, lambda: (collections.defaultdict(list, a=[1]), ones()))
    assert type(built(collections.defaultdict(list))).__name__ == "DefaultDictVariable"
    assert "FUNCTION_MATCH L['table'].default_factory" in guards_of(capture)
    refuses(capture, collections.defaultdict(set, a=[1]), ones())
    refuses(capture, collections.defaultdict(list, new=[1]), ones())
    refuses(capture, {"a": [1]}, ones())

    def read(table: Any, x: torch.Tensor) -> torch.Tensor:
        return x * table["a"]

    capture = agrees(read, lambda: (collections.defaultdict(None, a=1, b=2), ones()))
    assert capture.failure(collections.defaultdict(None, b=3, a=1), ones()) is None


@pytest.mark.spec("5.42")
def test_a_model_output_is_a_dict_with_attributes() -> None:
    def use(output: Output, x: torch.Tensor) -> Any:
        output.second = x
        output["third"] = x * 2
        made_here = Output(x, 4)
        return output.first * x, output["first"], list(output), made_here

    capture = agrees(use, lambda: (Output(ones()), ones()))
    variable = built(Output(1))
    assert type(variable).__name__ == "CustomizedDictVariable"
    assert type(variable.mutable) is ExistingObject
    assert "TYPE_MATCH L['output']" in guards_of(capture)
    refuses(capture, collections.OrderedDict(first=ones(), second=None), ones())
    longer = Output(ones())
    longer["more"] = 1
    refuses(capture, longer, ones())


@pytest.mark.spec("5.42")
def test_the_model_outputs_of_transformers() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")

    def use(output: Any, x: torch.Tensor) -> Any:
        hidden = output.last_hidden_state + x
        made_here = outputs.BaseModelOutput(last_hidden_state=hidden)
        return hidden, output["last_hidden_state"], output[0], output.to_tuple(), made_here

    capture = agrees(use, lambda: (outputs.BaseModelOutput(last_hidden_state=ones()), ones()))
    assert type(built(outputs.BaseModelOutput())).__name__ == "CustomizedDictVariable"
    refuses(
        capture,
        outputs.BaseModelOutput(last_hidden_state=ones(), hidden_states=(ones(),)),
        ones(),
    )


def test_dicts_of_the_users_classes() -> None:
    def use(missing: Any, lower: Any, counter: Any, x: torch.Tensor) -> Any:
        missing["new"] = x
        counter["z"] += 1
        counter.update("q")
        own = Missing(u=x)
        own.owner = own  # type: ignore[attr-defined]
        return missing["a"] * missing["zz"], lower["A"] * x, counter["none"], own, counter

    def make(a: int, b: int, text: str) -> tuple[Any, ...]:
        return Missing(a=a), Lower(a=b), collections.Counter(text), ones()

    capture = agrees(use, lambda: make(1, 2, "aab"))
    for changed in ((3, 2, "aab"), (1, 3, "aab"), (1, 2, "ab"), (1, 2, "aabb")):
        refuses(capture, *make(*changed))


# -- views, read-only dicts ------------------------------------------------------------------------


@pytest.mark.spec("5.10")
def test_the_values_of_an_ordered_dict_are_a_list() -> None:
    def scale(values: Any, x: torch.Tensor) -> Any:
        for value in values:
            x = x * value
        return x, len(values)

    def make(**items: Any) -> tuple[Any, ...]:
        return collections.OrderedDict(items).values(), ones()

    variable = built(make(a=1)[0])
    assert any(cls.__name__ == "ListVariable" for cls in type(variable).__mro__)
    capture = agrees(scale, lambda: make(a=1, b=2))
    assert "SEQUENCE_LENGTH L['values']" in guards_of(capture)
    refuses(capture, *make(a=1, b=3))
    refuses(capture, *make(a=1))
    short = agrees(lambda values, x: x * len(values), lambda: make(a=1, b=2))
    assert short.failure(*make(a=5, b=6)) is None


def test_views_show_what_is_in_the_dict() -> None:
    def show(view: Any, table: Any, x: torch.Tensor) -> Any:
        table["new"] = x
        own = {"a": x}
        keys = own.keys()
        own["b"] = x * 2
        return [key for key, _ in view], keys, own, "new" in table.keys(), ("a", 1) in view

    def make() -> tuple[Any, ...]:
        table = {"a": 1}
        return table.items(), table, ones()

    capture = agrees(show, make)
    refuses(capture, {"a": 1}.items(), {"a": 1}, ones())
    other = {"a": 2}
    refuses(capture, other.items(), other, ones())


def test_a_read_only_dict_is_read_in_the_dict() -> None:
    def read(table: Any, x: torch.Tensor) -> Any:
        return table["a"] * x, table.get("a"), len(table), "q" in table

    capture = agrees(read, lambda: (types.MappingProxyType({"a": 1}), ones()))
    refuses(capture, types.MappingProxyType({"a": 2}), ones())
    refuses(capture, types.MappingProxyType({"a": 1, "q": 2}), ones())


# -- constants, sets -------------------------------------------------------------------------------


@pytest.mark.spec("5.46")
def test_a_frozenset_of_constants_is_a_constant() -> None:
    def use(values: Any, x: torch.Tensor) -> Any:
        return x * sum(values), 2 in values, values, frozenset([x.shape[0]])

    capture = agrees(use, lambda: (frozenset([1, 2]), ones()))
    assert type(built(frozenset([1, (2, "a")]))).__name__ == "ConstantVariable"
    assert "CONSTANT_MATCH L['values']" in guards_of(capture)
    for other in ([1, 3], [1.0, 2], [True, 2], [1]):
        refuses(capture, frozenset(other), ones())


@pytest.mark.spec("5.47")
def test_a_frozenset_of_objects_is_known_by_its_identity() -> None:
    member = Holder(x=2)
    values = frozenset([member])

    def use(values: Any, x: torch.Tensor) -> Any:
        return [(x * held.x, held) for held in values], len(values)

    capture = agrees(use, lambda: (values, ones()))
    variable = built(values)
    assert any(cls.__name__ == "ConstantVariable" for cls in type(variable).__mro__)
    assert "ID_MATCH L['values']" in guards_of(capture)
    assert "TYPE_MATCH content(L['values'], 0)" in guards_of(capture)
    refuses(capture, frozenset([member]), ones())
    member.x = 3
    refuses(capture, values, ones())


@pytest.mark.spec("5.48")
def test_the_elements_of_a_set_are_guarded() -> None:
    def use(values: Any, x: torch.Tensor) -> Any:
        return x if 2 in values and not values.isdisjoint([2]) else -x

    capture = agrees(use, lambda: ({1, 2}, ones()))
    variable = built({1, 2})
    assert type(variable).__name__ == "SetVariable"
    assert type(variable.mutable) is ExistingMutable
    assert "SEQUENCE_LENGTH L['values']" in guards_of(capture)
    for other in ({1, 3}, {1}, {1, 2.0}, {True, 2}, frozenset([1, 2])):
        refuses(capture, other, ones())


@pytest.mark.spec("5.48")
def test_sets_that_are_iterated_have_the_same_order() -> None:
    def walk(values: Any, x: torch.Tensor) -> Any:
        return [x * value for value in values]

    capture = agrees(walk, lambda: ({8, 16}, ones()))
    forward, backward = {8, 16}, {16, 8}
    assert list(forward) != list(backward), "these two collide in a table of eight"
    refuses(capture, backward, ones())


@pytest.mark.spec("5.48")
def test_a_set_is_changed_unless_its_order_is_seen() -> None:
    def change(values: Any, x: torch.Tensor) -> Any:
        values.add(7)
        values.discard(1)
        values |= {"q"}
        values.remove("q")
        return values, {x.shape[0], 9}, len(values), 7 in values

    capture = agrees(change, lambda: ({1, 2}, ones()))
    refuses(capture, {1, 7}, ones())

    def both(values: Any, x: torch.Tensor) -> Any:
        values.add(7)
        return [x * value for value in values]

    with pytest.raises(sf.FrameError, match="changes a set from outside"):
        capture_frame(both, ({1, 2}, ones()))


@pytest.mark.spec("5.48")
def test_a_set_of_objects_is_an_object_with_known_elements() -> None:
    member = Holder(x=2)

    def use(values: Any, held: Any, x: torch.Tensor) -> Any:
        return x * held.x if held in values else -x

    capture = agrees(use, lambda: ({member}, member, ones()))
    variable = built({member})
    assert any(cls.__name__ == "UserDefinedObjectVariable" for cls in type(variable).__mro__)
    refuses(capture, {Holder(x=2)}, member, ones())
    refuses(capture, {member}, Holder(x=2), ones())


# -- enums, itertools, registries ------------------------------------------------------------------


@pytest.mark.spec("5.49", "5.138")
def test_members_of_enums_are_known_by_their_identity() -> None:
    def use(colour: Colour, x: torch.Tensor) -> Any:
        return x if colour is Colour.RED else -x, colour, colour.name, {Colour.BLUE: x}

    capture = agrees(use, lambda: (Colour.RED, ones()))
    assert type(built(Colour.RED)).__name__ == "EnumVariable"
    assert type(made(Colour.RED)).__name__ == "EnumVariable"
    assert "ID_MATCH L['colour']" in guards_of(capture)
    refuses(capture, Colour.BLUE, ones())


@pytest.mark.spec("5.49")
def test_the_value_of_a_member_may_change() -> None:
    def use(colour: Colour, x: torch.Tensor) -> Any:
        return x * colour.value[0]

    capture = agrees(use, lambda: (Colour.BLUE, ones()))
    Colour.BLUE.value[0] = 5
    try:
        refuses(capture, Colour.BLUE, ones())
    finally:
        Colour.BLUE.value[0] = 1


@pytest.mark.spec("5.83")
def test_classes_of_itertools_are_called_on_items_that_are_read() -> None:
    def use(join: Any, values: list[int], x: torch.Tensor) -> Any:
        for first, second in itertools.pairwise(values):
            x = x * first + second
        pairs = [x * a + b for a, b in join(values, [1])]
        return pairs, list(itertools.islice(itertools.count(), 2)), join

    capture = agrees(use, lambda: (itertools.product, [1, 2, 3], ones()))
    assert type(built(itertools.product)).__name__ == "ItertoolsVariable"
    assert "FUNCTION_MATCH L['join']" in guards_of(capture)
    refuses(capture, itertools.chain, [1, 2, 3], ones())
    refuses(capture, itertools.product, [1, 2, 4], ones())


@pytest.mark.spec("5.83")
@pytest.mark.parametrize(
    "make", [itertools.count, lambda: zip([1], [2], strict=True), lambda: (i for i in [1])]
)
def test_iterators_that_escape_or_come_from_outside_are_refused(make: Any) -> None:
    with pytest.raises(sf.FrameError, match="cannot be made again"):
        capture_frame(lambda x: (make(), x), (ones(),))
    with pytest.raises(sf.FrameError, match=r"takes items from the iterator L\['values'\]"):
        capture_frame(lambda values, x: next(values), (make(), ones()))


def test_the_iterator_of_a_list_is_made_again_where_it_stands() -> None:
    def begin(x: torch.Tensor) -> Any:
        values = [1, x, 3]
        iterator = iter(values)
        next(iterator)
        return iterator, values

    capture = agrees(begin, lambda: (ones(),))
    iterator, values = capture(ones())
    values.append(4)
    assert list(iterator)[1:] == [3, 4]


@pytest.mark.spec("5.11")
def test_the_iterator_of_a_tuple_gives_what_is_left_and_stands_where_it_would() -> None:
    def take(iterator: Any, x: torch.Tensor) -> Any:
        return next(iterator) * next(iterator) + x, iterator

    def make(*items: Any) -> tuple[Any, ...]:
        iterator = iter((9, *items))
        next(iterator)
        return iterator, ones()

    capture = agrees(take, lambda: make(2, ones(), 3), lambda: (iter((2, ones(), 3)), ones()))
    assert type(built(iter(()))).__name__ == "TupleIteratorVariable"
    found = guards_of(capture)
    assert "TUPLE_ITERATOR_LEN L['iterator']" in found
    assert "CONSTANT_MATCH tuple_iterator_item(L['iterator'], 0)" in found
    assert "CONSTANT_MATCH tuple_iterator_item(L['iterator'], 2)" in found, "all, not lazily"
    iterator, x = make(2, ones(), 3)
    capture(iterator, x)
    assert list(iterator) == [3]
    refuses(capture, *make(2, ones()))
    refuses(capture, *make(4, ones(), 3))
    refuses(capture, iter([2, ones(), 3]), ones())
    agrees(lambda it, x: [x * value for value in it], lambda: make(2, 3))


@pytest.mark.spec("5.12")
def test_a_slice_has_parts_that_vary() -> None:
    def cut(part: slice, x: torch.Tensor) -> Any:
        return x[part], x[(part,)], slice(1, x.shape[0]), part.stop, part

    capture = agrees(cut, lambda: (slice(0, 2), ones(4)))
    assert type(built(slice(1))).__name__ == "SliceVariable"
    found = guards_of(capture)
    assert "TYPE_MATCH L['part']" in found
    assert "CONSTANT_MATCH L['part'].stop" in found
    refuses(capture, slice(0, 3), ones(4))
    refuses(capture, slice(0, 2, 1), ones(4))
    state = FrameState()
    agrees(lambda part, x: x * part.stop, lambda: (slice(3), ones()), frame_state=state)
    capture = agrees(
        lambda part, x: x * part.stop,
        lambda: (slice(4), ones()),
        lambda: (slice(9), ones()),
        frame_state=state,
    )


@pytest.mark.spec("5.13")
def test_a_range_is_fixed() -> None:
    def walk(numbers: range, x: torch.Tensor) -> Any:
        for number in numbers:
            x = x + number
        return x, len(numbers), numbers[1], range(x.shape[0]), 1 in numbers

    state = FrameState()
    agrees(walk, lambda: (range(3), ones()), frame_state=state)
    capture = agrees(walk, lambda: (range(4), ones()), frame_state=state)
    assert type(built(range(1))).__name__ == "RangeVariable"
    assert "TYPE_MATCH L['numbers']" in guards_of(capture)
    assert "CONSTANT_MATCH L['numbers'].stop" in guards_of(capture)
    refuses(capture, range(5), ones())
    refuses(capture, range(1, 4), ones())


class Node:
    def __init__(self, held: Any) -> None:
        self.held = held


@pytest.mark.spec("5.40")
def test_the_registry_of_tree_nodes_is_watched() -> None:
    def use(nodes: Any, x: torch.Tensor) -> Any:
        return x * (list in nodes), list(nodes)[:2]

    nodes = pytree.SUPPORTED_NODES
    capture = agrees(use, lambda: (nodes, ones()))
    assert type(built(nodes)).__name__ == "ConstDictVariable"
    assert "DICT_VERSION L['nodes']" in guards_of(capture)
    pytree.register_pytree_node(
        Node, lambda node: ([node.held], None), lambda items, _: Node(items)
    )
    try:
        refuses(capture, nodes, ones())
    finally:
        pytree._deregister_pytree_node(Node)
    assert capture.failure(nodes, ones()) is None


@pytest.mark.spec("5.41")
def test_the_table_of_modules_is_asked_for_one_name() -> None:
    name = "a_module_that_nobody_has"

    def use(x: torch.Tensor) -> Any:
        return x if name in sys.modules else -x, sys.modules["math"]

    capture = agrees(use, lambda: (ones(),))
    assert type(built(sys.modules)).__name__ == "PythonSysModulesVariable"
    sys.modules[name] = types.ModuleType(name)
    try:
        assert name in refuses(capture, ones())
    finally:
        del sys.modules[name]
    capture = agrees(lambda modules, x: (modules["math"], x), lambda: (sys.modules, ones()))
    assert "FUNCTION_MATCH L['modules']" in guards_of(capture)
    refuses(capture, dict(sys.modules), ones())
    with pytest.raises(sf.FrameError, match=r"goes through sys\.modules"):
        capture_frame(lambda x: x * len([*sys.modules]), (ones(),))


# -- dataclasses -----------------------------------------------------------------------------------


@pytest.mark.spec("5.22", "5.31")
def test_the_fields_of_a_dataclass_have_sources() -> None:
    def use(point: Point, x: torch.Tensor) -> Any:
        fields = dataclasses.fields(point)
        return [getattr(point, field.name) for field in fields], [f.name for f in fields], x

    capture = agrees(use, lambda: (Point(1, [ones()]), ones()))
    place = "L['point'].__dataclass_fields__['x']"
    assert f"TYPE_MATCH {place}" in guards_of(capture)
    assert f"CONSTANT_MATCH {place}.name" in guards_of(capture)
    refuses(capture, Point(2, [ones()]), ones())
    refuses(capture, Holder(), ones())

    def passed(fields: Any, point: Point, x: torch.Tensor) -> Any:
        return len(fields(point)), x

    capture = agrees(passed, lambda: (dataclasses.fields, Point(1), ones()))
    assert "FUNCTION_MATCH L['fields']" in guards_of(capture)
    refuses(capture, dataclasses.astuple, Point(1), ones())


@pytest.mark.spec("5.31")
def test_fields_of_model_outputs_of_own_objects_and_of_nothing() -> None:
    def use(output: Output, x: torch.Tensor) -> Any:
        own = Point(x)
        return [f.name for f in (*dataclasses.fields(output), *dataclasses.fields(own))]

    capture = agrees(use, lambda: (Output(ones()), ones()))
    assert "TYPE_MATCH L['output'].__dataclass_fields__['first']" in guards_of(capture)
    with pytest.raises(TypeError, match="must be called with a dataclass type or instance"):
        capture_frame(lambda x: dataclasses.fields(3), (ones(),))


@pytest.mark.spec("5.138")
def test_other_values_of_the_programs_own_are_made_again() -> None:
    expected = {
        "DequeVariable": collections.deque(),
        "DefaultDictVariable": collections.defaultdict(list),
        "NamedTupleVariable": torch.return_types.max((ones(), ones())),
        "CustomizedDictVariable": Missing(),
        "OwnFrozensetVariable": frozenset([Holder()]),
        "SliceVariable": slice(1),
        "DictViewVariable": {}.keys(),
        "IteratorVariable": itertools.count(),
    }
    for name, value in expected.items():
        assert type(made(value)).__name__ == name

    def make(x: torch.Tensor) -> Any:
        held = Holder(a=1)
        return (
            frozenset([held]), held, slice(x.shape[0]), range(4), bytearray(b"x"), Point(x),
            types.MappingProxyType({"a": x}), collections.Counter([1, 1]), Colour.RED, {3},
            dataclasses.replace(Point(1), y=x), collections.OrderedDict(b=x, a=1),
        )  # fmt: skip

    agrees(make, lambda: (ones(),))
