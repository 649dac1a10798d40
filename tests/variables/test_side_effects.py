"""Writes to objects from outside, and what a capture relies on to be right about them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables import effect_programs
from tests.variables.checking import agrees, assert_same, guards_of, new_translator, refuses
from tests.variables.effect_programs import PROGRAMS, Box, EffectProgram, x
from tests.variables.recapturing import Recapturing

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.frames.frame import NULL
from stillframe.guards import GuardsContext
from stillframe.source import AttrSource, ConstantSource, GetItemSource, LocalSource, ModuleSource
from stillframe.variables import (
    ExistingMutable,
    ExistingObject,
    LazyVariableTracker,
    SideEffects,
    Translator,
    VariableBuilder,
    VariableTracker,
    capture_frame,
    realize_all,
)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    effect_programs.reset()
    yield
    effect_programs.reset()


def calls(item: EffectProgram, callee: Callable[..., Any]) -> Iterator[Any]:
    """All that can be seen of two rounds of calls, each as it was right after the call."""
    effect_programs.reset()
    carried = item.worlds[0]() if item.carried else None
    for make in (*item.worlds, *item.worlds):
        args = make() if carried is None else carried
        with torch.no_grad():  # results can be copied
            result = callee(*args)
        yield copy.deepcopy((args, result, effect_programs.outside()))


@pytest.mark.parametrize("item", PROGRAMS, ids=lambda item: item.name)
def test_a_program_is_right_in_all_calls_or_refused(
    item: EffectProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    captured = Recapturing(item.function, effect_programs.outside)
    try:
        found = list(calls(item, captured))
    except sf.FrameError as error:
        assert item.refused, f"refused: {error}"
        assert item.function.__name__ in str(error)  # the user's line
        return
    output = capsys.readouterr().out
    expected = list(calls(item, item.function))
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    assert capsys.readouterr().out == output


# -- the builder ----------------------------------------------------------------------------------


@pytest.fixture
def tx() -> Iterator[Translator]:
    made = new_translator(x)
    with tracing(TracingContext(made.recorder.fake_mode)):
        yield made


def installed() -> list[str]:
    found = TracingContext.get().part(GuardsContext).dynamo_guards
    return [f"{guard.kind} {guard.name}" for guard in found]


@pytest.mark.spec("5.2")
def test_a_known_object_is_its_tracker_and_two_paths_to_it_are_guarded(tx: Translator) -> None:
    box = Box()
    first = VariableBuilder(tx, LocalSource("a"))(box)
    assert VariableBuilder(tx, LocalSource("a"))(box) is first
    assert not any(guard.startswith("DUPLICATE_INPUT") for guard in installed())
    assert VariableBuilder(tx, LocalSource("b"))(box) is first
    assert "DUPLICATE_INPUT L['b']" in installed()
    # no check of one scope sees a local and an attribute of a module: each is this very object
    assert VariableBuilder(tx, AttrSource(ModuleSource("os"), "box"))(box) is first
    assert {"ID_MATCH L['a']", "ID_MATCH imported('os').box"} <= set(installed())


@pytest.mark.spec("5.2")
def test_one_object_at_two_places_is_one_in_every_call() -> None:
    def write(a: Any, b: Any, t: torch.Tensor) -> Any:
        a.value = 5
        return t * b.value

    capture = agrees(write, effect_programs.one)
    assert "DUPLICATE_INPUT L['b']" in guards_of(capture)
    assert "is the same object as" in refuses(capture, *effect_programs.apart())


@pytest.mark.spec("5.3")
def test_the_cache_is_by_value_and_source(tx: Translator) -> None:
    source = LocalSource("depth")
    first = VariableBuilder(tx, source)(7)
    assert VariableBuilder(tx, source)(7) is first
    assert tx.wrapped[id(7), source] == (7, first)
    assert VariableBuilder(tx, LocalSource("width"))(7) is not first
    assert installed() == ["CONSTANT_MATCH L['depth']", "CONSTANT_MATCH L['width']"]


@pytest.mark.spec("5.4")
def test_wrapping_sets_the_source_and_registers_objects_and_tensors(tx: Translator) -> None:
    class Own(Box):
        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

    for name, value, mutable in (
        ("box", Box(), True), ("own", Own(), False), ("t", torch.ones(2), False),
    ):  # fmt: skip
        made = VariableBuilder(tx, LocalSource(name))(value)
        assert made.source == LocalSource(name)
        assert value in tx.effects and tx.effects.tracker(value) is made
        assert isinstance(made.mutable, ExistingObject) is mutable
        assert tx.wrapped[id(value), LocalSource(name)][1] is made
    assert 5 not in tx.effects


@pytest.mark.spec("5.5")
def test_guards_are_on_the_source_and_a_constant_has_none(tx: Translator) -> None:
    for source, expected in (
        (LocalSource("a"), ["TYPE_MATCH L['a']", "NOT_NONE_MATCH L['a']"]),
        (ConstantSource("fixed"), []),
    ):
        before = len(installed())
        options = VariableBuilder(tx, source).install_guards("TYPE_MATCH", "NOT_NONE_MATCH")
        assert installed()[before:] == expected
        assert VariableTracker(3, **options).source == source


@pytest.mark.spec("5.6")
def test_containers_are_tracked_for_their_changes(tx: Translator) -> None:
    items = [1]
    builder = VariableBuilder(tx, LocalSource("items"))
    made = VariableTracker(items)
    assert builder.set_source_and_track_mutable(items, made) is made
    assert made.source == LocalSource("items") and isinstance(made.mutable, ExistingMutable)
    assert tx.variable(items) is made
    tx.store_item(items, 0, 2)
    assert [effect.kind for effect in tx.effects.undo()] == ["contents"] and items == [1]


@pytest.mark.spec("5.8")
def test_what_nobody_uses_is_not_guarded() -> None:
    def first(items: list[Any], table: dict[str, Any], unused: Any) -> Any:
        return items[0] * 2, items, table

    world = lambda: ([x(), 3, Box()], {"a": 1, "b": Box()}, 5)  # noqa: E731
    capture = agrees(first, world)
    assert not any(
        place in guard for guard in guards_of(capture) for place in ("[1]", "[2]", "'a'", "unused")
    )
    others = [x(), "another", None], {"a": None, "b": 3}, None
    assert capture.failure(*others) is None
    _, items, table = capture(*others)
    assert items is others[0] and table is others[1]
    assert "of length 3" in refuses(capture, [x()], {}, 5)


@pytest.mark.spec("5.8")
def test_a_lazy_tracker_is_realised_once_and_peeking_does_not(tx: Translator) -> None:
    lazy = LazyVariableTracker([1], LocalSource("items"))
    assert lazy.peek_type() is list and not lazy.is_realized and installed() == []
    assert isinstance(lazy, VariableTracker) and not lazy.is_realized
    made = lazy.realize(tx)
    assert lazy.realize(tx) is made and lazy.is_realized
    assert installed() == ["SEQUENCE_LENGTH L['items']"]
    tree = {"a": [LazyVariableTracker(3, LocalSource("n"))], "b": (made,)}
    realized = realize_all(tx, tree)
    assert realized["a"][0].value == 3 and realized["b"] == (made,)
    assert installed()[1:] == ["CONSTANT_MATCH L['n']"]


# -- the table of effects -------------------------------------------------------------------------


@pytest.mark.spec("5.140")
def test_the_table_is_by_identity_and_keeps_objects_alive(tx: Translator) -> None:
    effects = SideEffects()
    equal = [1], [1]
    made = VariableTracker(equal[0])
    effects.track(equal[0], made)
    assert equal[0] in effects and equal[1] not in effects
    assert effects.tracker(equal[0]) is made and effects.tracker(equal[1]) is None
    assert [value for value, _ in effects] == [equal[0]]
    # contents, attributes, and what the program makes itself, which is in no table
    assert isinstance(tx.build([1], LocalSource("l")).mutable, ExistingMutable)
    assert isinstance(tx.build(Box(), LocalSource("b")).mutable, ExistingObject)
    new = Box()
    assert tx.variable(new) is None and tx.tracker(new).source is None


@pytest.mark.spec("5.141")
def test_each_kind_of_effect_happens_once_and_with_the_last_value() -> None:
    def change(box: Any, items: Any, increase: Any, layer: Any, t: Any) -> Any:
        box.value, box.more = 2, 3
        box.value = 4
        del box.more
        items.append(1)
        items[0] = t
        increase()
        effect_programs.COUNT = 6
        layer.register_forward_hook(lambda module, args, result: result * 2)
        return layer(t)

    def world() -> tuple[Any, ...]:
        torch.manual_seed(0)
        return Box(more=1), [5], effect_programs.pair()[0], torch.nn.Linear(3, 3), x()

    effect_programs.COUNT = 1
    capture = capture_frame(change, world())
    assert effect_programs.COUNT == 1
    (box, items, increase, layer, t), eager = world(), world()
    assert_same(capture(box, items, increase, layer, t), change(*eager))
    assert vars(box) == {"value": 4} and effect_programs.COUNT == 6
    assert items[0] is t and items[1:] == [1]
    assert increase.__closure__[0].cell_contents == 2
    assert len(layer._forward_hooks) == 1
    torch.testing.assert_close(layer(t), eager[3](t))


@pytest.mark.spec("5.141")
def test_a_variable_around_the_captured_function_is_not_written() -> None:
    count = 0

    def step(t: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return t * count

    with pytest.raises(sf.FrameError, match="sets the variable count of an enclosing function"):
        capture_frame(step, (x(),))
    assert count == 0


@pytest.mark.spec("5.142")
def test_attributes_are_written_where_setting_them_is_ordinary() -> None:
    class Base:
        level = 1

    class Slotted(Base):
        __slots__ = ("kept",)

    class OwnWay(Base):
        def __setattr__(self, name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

    def write(target: Any, t: torch.Tensor) -> Any:
        target.kept = 3
        return t * target.kept * target.level

    for make in (Base, Slotted):
        agrees(write, lambda make=make: (make(), x()))
    module = torch.nn.ReLU()
    module.level = 2  # type: ignore[assignment]
    capture = capture_frame(write, (module, x()))
    assert not hasattr(module, "kept")
    capture(module, x())
    assert module.kept == 3
    own = OwnWay()
    with pytest.raises(sf.FrameError, match="sets the attribute kept of") as error:
        capture_frame(write, (own, x()))
    assert "OwnWay has its own way of setting attributes" in str(error.value)
    assert vars(own) == {}
    read = agrees(lambda target, t: t * target.level, lambda: (OwnWay(), x()))
    assert "CONSTANT_MATCH L['target'].level" in guards_of(read)


@pytest.mark.spec("5.143")
def test_new_objects_are_made_if_they_escape_and_writes_come_last() -> None:
    def make(box: Any, t: torch.Tensor) -> Any:
        unused, old = Box("not wanted"), box.value
        unused.other = old
        box.value = Box(t * 2)
        box.value.back = box
        return box.value.value + 1, old

    capture = agrees(make, lambda: (Box(Box(7)), x()))
    lines = [line.strip() for line in capture.text.splitlines()]
    assert "not wanted" not in capture.text and capture.text.count("__new__") == 1
    graph = next(i for i, line in enumerate(lines) if "graph(" in line)
    writes = [i for i, line in enumerate(lines) if line.startswith("_setattr")]
    assert graph < writes[0] and writes == [len(lines) - 2]


@pytest.mark.spec("5.143")
def test_values_are_read_before_anything_is_written() -> None:
    def turn(box: Any, t: torch.Tensor) -> Any:
        box.a, box.b, box.c = box.b, box.c, box.a
        return [box.a, box.b, box.c, t]

    world = lambda: (Box(a=Box(1), b=[2], c=x(3)), x())  # noqa: E731
    capture = agrees(turn, world)
    box, t = world()
    parts = box.a, box.b, box.c
    capture(box, t)
    assert box.a is parts[1] and box.b is parts[2] and box.c is parts[0]


@pytest.mark.spec("5.144")
def test_a_function_given_to_an_operator_writes_nothing_outside() -> None:
    def choose(box: Any, t: torch.Tensor) -> Any:
        def doubled(v: torch.Tensor) -> torch.Tensor:
            box.value = 5
            return v * 2

        return torch.cond(t.sum() > 0, doubled, lambda v: v * 3, (t,))

    box = Box()
    with pytest.raises(sf.FrameError, match="changes a Box outside of it") as error:
        capture_frame(choose, (box, x()))
    assert "box.value = 5" in str(error.value) and box.value == 1


@pytest.mark.spec("5.144")
def test_what_such_a_function_reads_is_guarded() -> None:
    def choose(box: Any, t: torch.Tensor) -> Any:
        return torch.cond(t.sum() > 0, lambda v: v * box.value, lambda v: v - 1, (t,))

    capture = capture_frame(choose, (Box(2), x()))
    assert capture(Box(2), x()).tolist() == (x() * 2).tolist()
    assert capture(Box(2), x(-3)).tolist() == (x(-3) - 1).tolist()
    assert "L['box'].value" in refuses(capture, Box(3), x())


@pytest.mark.spec("5.145")
def test_a_failed_branch_is_undone() -> None:
    effects, box, items = SideEffects(), Box(), [1]
    table: dict[str, Any] = {}

    def write(value: int) -> None:
        effects.attribute(box, "value", LocalSource("box"))
        box.value = value
        effects.contents(items, LocalSource("items"))
        items.append(value)
        effects.track(value, VariableTracker(value))

    write(2)
    early = effects.checkpoint()
    write(3)
    effects.entry(table, "name", LocalSource("table"))
    table["name"] = 1
    effects.call(print, (), {})
    late = effects.checkpoint()
    for _ in range(2):  # a snapshot may be restored again
        effects.restore(early)
        assert (box.value, items, table, effects.calls) == (2, [1, 2], {}, [])
        assert 2 in effects and 3 not in effects
        write(4)
    assert late.values and len(late.calls) == 1
    effects.restore(early)
    found = effects.undo()
    assert [(e.kind, e.value) for e in found] == [("attribute", 2), ("contents", [1, 2])]
    assert (box.value, items) == (1, [1])


# -- a capture leaves the world as it was ---------------------------------------------------------


def test_a_capture_that_fails_has_changed_nothing() -> None:
    def fail(box: Any, items: Any, increase: Any, table: Any, how: int, t: Any) -> Any:
        box.value = 5
        del box.more
        items.sort()
        table.update(b=2)
        table.pop("a")
        increase()
        effect_programs.COUNT = 9
        effect_programs.TABLE.clear()
        type(box).made = 1
        with torch.no_grad(), torch.autocast("cpu"), torch.inference_mode():
            t = t * 2
            if how == 0:
                raise KeyError("of the user")
            return t * len(str(t))

    box, items, table = Box(more=[1]), [2, 1], {"a": 1}
    increase = effect_programs.pair()[0]
    before = copy.deepcopy((vars(box), items, table)), effect_programs.outside()
    modes = torch.is_grad_enabled, torch.is_inference_mode_enabled, torch.is_autocast_cache_enabled
    told = [mode() for mode in modes]
    for how, expected in ((0, KeyError), (1, sf.FrameError)):
        with pytest.raises(expected):
            capture_frame(fail, (box, items, increase, table, how, x()))
        assert ((vars(box), items, table), effect_programs.outside()) == before
        assert list(table) == ["a"] and not hasattr(Box, "made")
        assert increase.__closure__[0].cell_contents == 1
        assert [mode() for mode in modes] == told and not torch.is_autocast_enabled("cpu")


def test_captures_in_other_threads_keep_to_their_own_objects() -> None:
    found: dict[int, Any] = {}

    def step(box: Any, t: torch.Tensor) -> Any:
        box.value += 1
        return t * box.value

    def work(number: int) -> None:
        box = Box(number)
        found[number] = Recapturing(step)(box, x()).tolist(), box.value

    for number in (3, 8):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        thread.join()
    assert found == {n: ((x() * (n + 1)).tolist(), n + 1) for n in (3, 8)}


# -- places ---------------------------------------------------------------------------------------


def test_deleted_and_missing_places_are_put_back() -> None:
    effects, box = SideEffects(), Box()
    effects.attribute(box, "more", LocalSource("box"))
    box.more = 1
    effects.attribute(box, "value", LocalSource("box"))
    del box.value
    found = effects.undo()
    assert [(effect.name, effect.value) for effect in found] == [("more", 1), ("value", NULL)]
    assert vars(box) == {"value": 1}
    with pytest.raises(InternalError, match="not a container"):
        effects.contents(box, LocalSource("box"))


def test_distinct_objects_are_one_check_for_all_of_a_class() -> None:
    def write(boxes: list[Any], t: torch.Tensor) -> Any:
        boxes[0].value = 5
        boxes[1].value = 6
        return t * sum(box.value for box in boxes)

    world = lambda: ([Box(n) for n in range(20)], x())  # noqa: E731
    capture = agrees(write, world)
    kinds = [guard.partition(" ")[0] for guard in guards_of(capture)]
    assert kinds.count("DISTINCT") == 1
    boxes, t = world()
    boxes[7] = boxes[1]
    boxes[7].value = 7
    boxes[1] = boxes[7]
    assert capture.failure(boxes, t) is not None
    boxes, t = world()
    boxes[0] = boxes[19]
    boxes[0].value = 0
    assert capture.failure(boxes, t) is not None


def test_a_constant_key_of_a_dict_keeps_its_place(tx: Translator) -> None:
    table = {"a": [1], "b": [2]}
    tx.build(table, LocalSource("table"))
    found = tx.load_item(table, "b")
    assert tx.source(found) == GetItemSource(LocalSource("table"), "b")
