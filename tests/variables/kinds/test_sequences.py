"""Lists, tuples and their kin: from outside, changed, and made again."""

from __future__ import annotations

import collections
import time
from typing import Any, NamedTuple

import pytest
import torch
from tests.variables.building import built, made
from tests.variables.checking import agrees, guards_of, refuses

import stillframe as sf
from stillframe.variables import (
    ExistingMutable,
    FrameState,
    MutableLocal,
    Options,
    VariableTrackerMeta,
    capture_frame,
)
from stillframe.variables.kinds.sequences import BaseListVariable


def ones(size: int = 2) -> torch.Tensor:
    return torch.arange(float(size)) + 1


class Pair(NamedTuple):
    first: Any
    second: Any = 3


class NamedPair(Pair):
    def both(self) -> Any:
        return self.first + self.second


class Stack(list):  # type: ignore[type-arg]
    def twice(self) -> list[Any]:
        return [item * 2 for item in self]

    def append(self, item: Any) -> None:
        super().append(item)
        self.last = item


class Odd(list):  # type: ignore[type-arg]
    """Answers everything in its own way."""

    def __getitem__(self, index: Any) -> Any:
        return 5

    def __iter__(self) -> Any:
        return iter([9])


# -- lists, tuples -------------------------------------------------------------------------------


@pytest.mark.spec("5.10")
@pytest.mark.parametrize("cls", [tuple, list])
def test_the_length_is_guarded_and_the_items_when_they_are_read(cls: type) -> None:
    def scale(values: Any, x: torch.Tensor) -> torch.Tensor:
        return x * values[-2]

    capture = agrees(scale, lambda: (cls([2, 3, "unused"]), ones()))
    assert sorted(guards_of(capture)) == [
        "CONSTANT_MATCH L['values'][1]",
        "SEQUENCE_LENGTH L['values']",
        "TENSOR_MATCH L['x']",
    ]
    assert capture.failure(cls([None, 3, object()]), ones()) is None
    assert "L['values'][1]" in refuses(capture, cls([2, 4, "unused"]), ones())
    assert "length" in refuses(capture, cls([2, 3]), ones())
    assert "length" in refuses(capture, (list if cls is tuple else tuple)([2, 3, 4]), ones())


@pytest.mark.spec("5.10")
@pytest.mark.parametrize(
    "read",
    [
        lambda values, x: x * (values + type(values)([1]))[0],
        lambda values, x: x * sum(values),
        lambda values, x: x * values[1:][0],
        lambda values, x: x if 7 in values else -x,
        lambda values, x: x if values == type(values)([2, 3]) else -x,
        lambda values, x: x * [*values][1] + len(str(values)),
        lambda values, x: x * max(values) + sorted(values)[0],
        lambda values, x: x * values.index(3) + values.count(3),
        lambda values, x: x * [v for v in values if v][1],
        lambda values, x: x * (values * 2)[3],
        lambda values, x: x * dict(enumerate(values))[1],
        lambda values, x: x * list(zip(values, reversed(values), strict=True))[0][1],
    ],
)
@pytest.mark.parametrize("cls", [tuple, list])
def test_what_c_code_sees_of_a_sequence_is_guarded(cls: type, read: Any) -> None:
    capture = agrees(read, lambda: (cls([2, 3]), ones()))
    refuses(capture, cls([2, 7]), ones())
    refuses(capture, cls([2, 3.0]), ones())


@pytest.mark.spec("5.10")
def test_a_list_is_changed_in_place_and_what_is_left_is_the_same() -> None:
    def change(values: list[Any], x: torch.Tensor) -> Any:
        values[0:2] = [x, 5]
        del values[-1]
        values += [1]
        values *= 2
        values.reverse()
        values.insert(0, values)
        values.pop()
        values.append([x])
        return values

    capture = agrees(change, lambda: ([1, 2, 3], ones()))
    refuses(capture, [1, 2, 4], ones())
    assert type(built([1]).mutable) is ExistingMutable
    assert built((1,)).mutable is None


@pytest.mark.spec("5.10")
def test_an_equal_copy_in_place_of_a_list_is_another_list() -> None:
    def replace(values: list[Any], x: torch.Tensor) -> Any:
        values[0] = values[0][:]
        return values[0], x

    inner = [1, 2]
    capture = agrees(replace, lambda: ([[1, 2]], ones()))
    outer = [inner]
    capture(outer, ones())
    assert outer[0] == inner
    assert outer[0] is not inner


@pytest.mark.spec("5.10")
def test_a_list_that_holds_itself_is_refused() -> None:
    values: list[Any] = [1]
    values.append(values)
    with pytest.raises(sf.FrameError, match=r"The list L\['values'\] holds itself"):
        capture_frame(lambda values, x: x * values[0], (values, ones()))


@pytest.mark.spec("5.10")
def test_sizes_are_a_tuple_or_one_constant() -> None:
    def scale(size: torch.Size, x: torch.Tensor) -> Any:
        return x * size[1], size, torch.Size([4, x.shape[0]])

    capture = agrees(scale, lambda: (torch.Size([2, 3]), ones()))
    assert type(built(torch.Size([2]))).__name__ == "SizeVariable"
    assert capture.failure(torch.Size([9, 3]), ones()) is None
    refuses(capture, torch.Size([2, 4]), ones())
    fixed = Options(specialize_int=True)
    assert type(built(torch.Size([2]), fixed)).__name__ == "ConstantVariable"
    capture = agrees(scale, lambda: (torch.Size([2, 3]), ones()), options=fixed)
    assert "CONSTANT_MATCH L['size']" in guards_of(capture)
    refuses(capture, torch.Size([9, 3]), ones())


@pytest.mark.spec("5.10")
def test_integers_in_lists_vary_like_others_and_are_fixed_where_c_code_sees_them() -> None:
    def scale(values: list[int], x: torch.Tensor) -> torch.Tensor:
        return x * values[0]

    def compare(values: list[int], x: torch.Tensor) -> torch.Tensor:
        return x if values == [5] else -x

    state = FrameState()
    agrees(scale, lambda: ([4], ones()), frame_state=state)
    capture = agrees(scale, lambda: ([5], ones()), lambda: ([9], ones()), frame_state=state)
    assert "TYPE_MATCH L['values'][0]" in guards_of(capture)
    state = FrameState()
    agrees(compare, lambda: ([4], ones()), frame_state=state)
    capture = agrees(compare, lambda: ([5], ones()), frame_state=state)
    refuses(capture, [6], ones())


@pytest.mark.spec("5.10")
def test_tensors_in_containers_go_to_functions_of_torch() -> None:
    def join(held: list[torch.Tensor], table: dict[str, torch.Tensor]) -> Any:
        held.append(held[0] * 2)
        named = torch.sub(input=table["b"], other=table["a"])
        return torch.stack(held), torch.cat([*table.values()]), named, torch.add(*held[:2])

    state = FrameState()
    agrees(join, lambda: ([ones(), ones()], {"a": ones(), "b": ones() * 3}), frame_state=state)
    agrees(
        join,
        lambda: ([ones(3), ones(3)], {"a": ones(3), "b": ones(3) * 3}),
        lambda: ([ones(5), ones(5)], {"a": ones(5), "b": ones(5) * 3}),
        frame_state=state,
    )


def test_one_tensor_at_two_places_is_one_input() -> None:
    def write(held: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return held[0] * 2

    def shared() -> tuple[Any, ...]:
        x = ones()
        return [x], x

    apart = agrees(write, lambda: ([ones()], ones()))
    refuses(apart, *shared())
    together = agrees(write, shared)
    refuses(together, [ones()], ones())


def test_two_paths_to_one_list_are_one_list_in_every_call() -> None:
    def write(values: list[int], table: dict[str, Any], x: torch.Tensor) -> Any:
        values.append(2)
        return table["k"], x * len(table["k"])

    def shared() -> tuple[Any, ...]:
        values = [1]
        return values, {"k": values}, ones()

    together = agrees(write, shared)
    assert "is the same object" in refuses(together, [1], {"k": [1]}, ones())
    apart = agrees(write, lambda: ([1], {"k": [1]}, ones()))
    assert "different objects" in refuses(apart, *shared())


def test_a_constant_of_the_code_is_not_taken_for_an_argument() -> None:
    def constant() -> tuple[int, int]:
        return 1, 2

    def both(value: tuple[int, int], x: torch.Tensor) -> Any:
        return value, constant(), x

    capture = agrees(both, lambda: (constant(), ones()))
    refuses(capture, (3, 4), ones())
    agrees(both, lambda: ((3, 4), ones()), lambda: (constant(), ones()))


@pytest.mark.parametrize("value", [1, True, 1.0])
def test_true_one_and_one_point_zero_are_three_values(value: Any) -> None:
    def scale(values: list[Any], x: torch.Tensor) -> Any:
        return x * values[0], values[0], 1 in values

    capture = agrees(scale, lambda: ([value], ones()))
    for other in (1, True, 1.0):
        if type(other) is not type(value):
            refuses(capture, [other], ones())


class Equal:
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.number == other.number

    def __hash__(self) -> int:
        return self.number


def test_comparisons_in_c_that_would_run_python_are_refused() -> None:
    def search(values: list[Any], value: Any, x: torch.Tensor) -> torch.Tensor:
        return x if value in values else -x

    capture = agrees(search, lambda: ([Equal(1)], Equal(1), ones()))
    refuses(capture, [Equal(1)], Equal(2), ones())
    for function in (
        lambda values, value, x: x if values == [value] else -x,
        lambda values, value, x: x * len({value, values[0]}),
        lambda values, value, x: x * values.index(value),
    ):
        with pytest.raises(sf.FrameError, match="compares or hashes a value of class|gets L"):
            capture_frame(function, ([Equal(1)], Equal(1), ones()))


# -- deques --------------------------------------------------------------------------------------


@pytest.mark.spec("5.10")
def test_a_deque_with_its_bound_is_read_changed_and_made_again() -> None:
    def turn(values: Any, x: torch.Tensor) -> Any:
        values.append(x)
        values.rotate(1)
        values.appendleft(4)
        own = collections.deque([x], maxlen=2)
        own.extend([own, 1])
        return values[1], own, x * sum(v for v in values if isinstance(v, int))

    capture = agrees(turn, lambda: (collections.deque([1, 2], 3), ones()))
    assert type(built(collections.deque())).__name__ == "DequeVariable"
    assert "SEQUENCE_LENGTH L['values']" in guards_of(capture)
    assert "maxlen" in refuses(capture, collections.deque([1, 2], 2), ones())
    refuses(capture, collections.deque([1, 3], 3), ones())

    def first(values: Any, x: torch.Tensor) -> torch.Tensor:
        return x * values[0]

    capture = agrees(first, lambda: (collections.deque([1, 2]), ones()))
    assert capture.failure(collections.deque([1, 9]), ones()) is None


# -- named tuples ----------------------------------------------------------------------------------


@pytest.mark.spec("5.39")
def test_a_named_tuple_is_read_by_name_and_by_index() -> None:
    def use(pair: Pair, x: torch.Tensor) -> Any:
        return x * pair.second, pair

    capture = agrees(use, lambda: (Pair(1, 2), ones()))
    assert type(built(Pair(1))).__name__ == "NamedTupleVariable"
    found = guards_of(capture)
    assert "SEQUENCE_LENGTH L['pair']" in found
    assert "CONSTANT_MATCH L['pair'][1]" in found
    assert capture.failure(Pair(object(), 2), ones()) is None
    refuses(capture, Pair(1, 3), ones())
    refuses(capture, NamedPair(1, 2), ones())
    refuses(capture, (1, 2), ones())


@pytest.mark.spec("5.39")
def test_named_tuples_are_made_again_with_their_class_and_attributes() -> None:
    def use(pair: NamedPair, x: torch.Tensor) -> Any:
        tagged = NamedPair(x, 1)
        tagged.tag = [x]  # type: ignore[attr-defined]
        return Pair(x, pair.both()), tagged, pair._replace(first=4), pair._asdict(), pair + (1,)

    capture = agrees(use, lambda: (NamedPair(1, 2), ones()))
    refuses(capture, NamedPair(1, 3), ones())


@pytest.mark.spec("5.39")
def test_struct_sequences_of_c_are_named_tuples() -> None:
    def use(when: time.struct_time, x: torch.Tensor) -> Any:
        return x * when.tm_mon, when[0], when

    capture = agrees(use, lambda: (time.struct_time(range(9)), ones()))
    assert type(built(time.struct_time(range(9)))).__name__ == "NamedTupleVariable"
    refuses(capture, time.struct_time(range(1, 10)), ones())

    def largest(found: Any, x: torch.Tensor) -> Any:
        return found.values + found[1] * x

    capture = agrees(largest, lambda: (torch.return_types.max((ones(), ones())), ones()))
    refuses(capture, torch.return_types.min((ones(), ones())), ones())


# -- classes of the user's -------------------------------------------------------------------------


@pytest.mark.spec("5.94")
def test_a_list_of_the_users_class_has_items_attributes_and_methods() -> None:
    def use(values: Any, x: torch.Tensor) -> Any:
        doubled = values.twice()
        values.append(x)
        values.tag = "new"
        return doubled, values.last, values[0]

    capture = agrees(use, lambda: (Stack([1, 2]), ones()))
    assert type(built(Stack())).__name__ == "RestrictedListSubclassVariable"
    found = guards_of(capture)
    assert "SEQUENCE_LENGTH L['values']" in found
    assert "FUNCTION_MATCH L['values'].__class__" in found
    refuses(capture, Stack([1, 3]), ones())
    refuses(capture, [1, 2], ones())

    def first(values: Any, x: torch.Tensor) -> torch.Tensor:
        return x * values[0]

    assert agrees(first, lambda: (Stack([1, 2]), ones())).failure(Stack([1, 9]), ones()) is None


@pytest.mark.spec("5.94")
def test_a_list_that_answers_in_its_own_way_is_read_past_it() -> None:
    def use(values: Any, x: torch.Tensor) -> Any:
        return list(values), values[0], sum(values), list.__getitem__(values, 0), x

    capture = agrees(use, lambda: (Odd([1]), ones()))
    refuses(capture, Odd([2]), ones())

    class Long(list):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 7

    with pytest.raises(sf.FrameError, match="says how long"):
        capture_frame(lambda values, x: x * len(values), (Long(), ones()))


@pytest.mark.spec("5.94", "5.138")
def test_sequences_of_the_users_classes_are_made_again() -> None:
    class Slotted(list):  # type: ignore[type-arg]
        __slots__ = ("mark",)

    class Row(tuple):  # type: ignore[type-arg]
        pass

    def make(x: torch.Tensor) -> Any:
        own = Stack([x])
        own.owner = own  # type: ignore[attr-defined]
        own.append(own)
        slotted = Slotted([own])
        slotted.mark = own
        row = Row((slotted, x))
        row.tag = row  # type: ignore[attr-defined]
        return row, own

    agrees(make, lambda: (ones(),))


# -- the table, and what the program makes -------------------------------------------------------


@pytest.mark.spec("5.146", "5.10")
def test_the_kind_of_a_sequence_is_found_by_its_class() -> None:
    values = collections.OrderedDict(a=1).values()
    assert BaseListVariable.of(tuple).__name__ == "TupleVariable"
    assert BaseListVariable.of(torch.Size).__name__ == "SizeVariable"
    assert BaseListVariable.of(list).__name__ == "ListVariable"
    assert issubclass(BaseListVariable.of(type(values)), BaseListVariable.of(list))
    assert VariableTrackerMeta.all_kinds["BaseListVariable"] is BaseListVariable
    with pytest.raises(KeyError):
        BaseListVariable.of(int)


@pytest.mark.spec("5.137")
def test_the_programs_own_containers_have_kinds_and_no_guards() -> None:
    expected = {
        "ListVariable": [1],
        "TupleVariable": (1,),
        "SizeVariable": torch.Size([1]),
        "ConstDictVariable": collections.OrderedDict(a=1),
        "SetVariable": {1},
    }
    for name, value in expected.items():
        variable = made(value)
        assert type(variable).__name__ == name
        assert variable.source is None
        assert isinstance(variable.mutable, MutableLocal) is (not isinstance(value, tuple))
        assert variable.value is value

    def make(x: torch.Tensor) -> Any:
        held: list[Any] = [1, (x, [2]), {"k": {3}}, torch.Size([4])]
        return held, collections.OrderedDict(b=x, a=held), {held[0], (1, 2)}, {"z": held}

    found = guards_of(agrees(make, lambda: (ones(),)))
    assert [guard for guard in found if "L[" in guard] == ["TENSOR_MATCH L['x']"]


@pytest.mark.spec("5.137")
def test_cycles_and_aliases_are_made_again_as_they_are() -> None:
    def make(x: torch.Tensor) -> Any:
        a: list[Any] = [x]
        b: dict[str, Any] = {"a": a}
        a.append(b)
        t = (a, b)
        a.append(collections.deque([t, t], 4))
        b["self"] = b
        return t, a, [t]

    agrees(make, lambda: (ones(),))


# -- results of the graph ------------------------------------------------------------------------


@pytest.mark.spec("5.104", "5.105", "5.106")
def test_results_of_operators_are_containers_of_their_classes() -> None:
    def split(x: torch.Tensor) -> Any:
        square = x.reshape(2, 2)
        named = torch.max(square, 0)
        values, indices = named
        parts = x.split(2)
        listed = torch.ops.aten.split(x, 2)
        return named, named.values + values, indices, parts, listed, square.shape, square.unbind()

    capture = agrees(split, lambda: (ones(4),))
    named, _, _, parts, listed, shape, unbound = capture(ones(4))
    assert type(named) is torch.return_types.max
    assert (type(parts), type(listed), type(shape)) == (tuple, list, torch.Size)
    assert type(unbound) is tuple
    assert [type(size) for size in shape] == [int, int]
    targets = {str(node.target) for node in capture.graph_module.graph.nodes}
    assert any("getitem" in target for target in targets)


@pytest.mark.spec("5.105")
def test_a_missing_result_of_an_operator_is_none() -> None:
    def backward(x: torch.Tensor) -> Any:
        mean, rstd = torch.zeros(2, 1), torch.ones(2, 1)
        return torch.ops.aten.native_layer_norm_backward(
            x, x, [2], mean, rstd, None, None, [True, False, False]
        )

    def make() -> tuple[Any, ...]:
        return (ones(4).reshape(2, 2),)

    capture = agrees(backward, make)
    assert capture(*make())[1:] == (None, None)


@pytest.mark.spec("5.104", "5.106")
def test_kinds_of_the_results_of_operators() -> None:
    pair = torch.return_types.max((ones(), ones()))
    assert type(made(pair)).__name__ == "NamedTupleVariable"
    assert type(made([ones(0).shape])).__name__ == "ListVariable"
    assert isinstance(made([1]).mutable, MutableLocal)
    assert type(made(torch.Size([2, 3]))).__name__ == "SizeVariable"

    def symbolic(x: torch.Tensor) -> Any:
        return x.shape, x.reshape(-1).shape[0]

    state = FrameState()
    agrees(symbolic, lambda: (torch.ones(4, 2),), frame_state=state)
    capture = agrees(
        symbolic, lambda: (torch.ones(6, 2),), lambda: (torch.ones(9, 2),), frame_state=state
    )
    assert type(capture(torch.ones(7, 2))[0]) is torch.Size


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda number, x: (x, f"{number:03d} {x.shape}", str([number]), repr({"a": (number,)})),
        lambda number, x: (x, "%s %d" % (number, x.shape[0]), f"{x.shape[0]}"),
        lambda number, x: (x, "-".join(map(str, x.shape)), "%(a)s" % {"a": number}),
    ],
)
def test_text_of_numbers_that_vary_fixes_them(write: Any) -> None:
    state = FrameState()
    capture_frame(write, (3, ones(3)), frame_state=state)
    capture = agrees(write, lambda: (4, ones(4)), frame_state=state)
    refuses(capture, 4, ones(5))


@pytest.mark.parametrize("write", [lambda x: f"{x}", lambda x: str([x]), lambda x: "%s" % (x,)])
def test_text_of_a_tensor_is_refused(write: Any) -> None:
    with pytest.raises(sf.FrameError, match="makes text of a tensor"):
        capture_frame(lambda x: (write(x), x), (ones(),))
