"""Small programs that write objects from outside, or would be wrong if objects were others.

A program is a function and the worlds in which it is called: each world makes the arguments anew.
Worlds after the first differ where a capture is easily wrong: one object at two places, a patched
class, another number.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import dataclasses
import functools
import heapq
import operator
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

World = Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class EffectProgram:
    """A function, and what it is called with, call after call.

    Attributes:
        refused: a capture must refuse it, with this in the message.
        carried: the arguments of the first call are given again and again.
    """

    name: str
    function: Callable[..., Any]
    worlds: tuple[World, ...]
    refused: str = ""
    carried: bool = True


PROGRAMS: list[EffectProgram] = []


def program(*worlds: World, refused: str = "", name: str = "") -> Callable[[Any], Any]:
    """Add the function below."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        shown = name or function.__name__.replace("_", " ")
        PROGRAMS.append(EffectProgram(shown, function, worlds, refused, len(worlds) == 1))
        return function

    return add


# -- what the programs are about ------------------------------------------------------------------

COUNT = 0
TABLE: list[Any] = [1]


class Box:
    def __init__(self, value: Any = 1, **others: Any) -> None:
        self.value = value
        vars(self).update(others)

    def __repr__(self) -> str:
        return "a box"


class Doubling:
    def __init__(self) -> None:
        self._kept = 1

    @property
    def kept(self) -> int:
        return self._kept

    @kept.setter
    def kept(self, value: int) -> None:
        self._kept = value * 2


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self) -> None:
        self.first = 1


class Shared:
    count = 0


class Logging:
    def __init__(self) -> None:
        object.__setattr__(self, "log", [])

    def __setattr__(self, name: str, value: Any) -> None:
        self.log.append(name)
        object.__setattr__(self, name, value)


@dataclasses.dataclass
class Record:
    size: int = 1
    parts: list[int] = dataclasses.field(default_factory=list)


class Falling:
    def __init__(self) -> None:
        self.table = {"depth": 3}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["table"][name]
        except KeyError:
            raise AttributeError(name) from None


def reset() -> None:
    """Put back what programs change in this module."""
    global COUNT
    COUNT = 0
    TABLE[:] = [1]
    Shared.count = 0
    counted.__defaults__[0].clear()  # type: ignore[index]
    vars(counted).clear()


def outside() -> Any:
    """What programs change in this module, for a comparison."""
    return COUNT, list(TABLE), Shared.count, list(counted.__defaults__[0]), dict(vars(counted))  # type: ignore[index]


def x(shift: float = 0) -> torch.Tensor:
    return torch.arange(3.0) + shift


def apart() -> tuple[Any, ...]:
    return Box(), Box(), x()


def one() -> tuple[Any, ...]:
    box = Box()
    return box, box, x()


def pair() -> tuple[Any, Any]:
    count = 1

    def increase() -> None:
        nonlocal count
        count += 1

    return increase, lambda: count


def of_two_pairs() -> tuple[Any, Any]:
    return pair()[0], pair()[1]


# -- two objects, or one --------------------------------------------------------------------------


@program(apart, one)
def written_here_and_read_there(a: Any, b: Any, t: Any) -> Any:
    a.value = 5
    return t * b.value


@program(one, apart)
def written_here_and_read_there_as_one(a: Any, b: Any, t: Any) -> Any:
    a.value = 5
    return t * b.value


@program(apart, one)
def both_written(a: Any, b: Any, t: Any) -> Any:
    a.value = 5
    b.value = 7
    a.value = 6
    return t


@program(lambda: ([1], [1], x()), lambda: ((both := [1]), both, x()))
def one_list_grows(a: Any, b: Any, t: Any) -> Any:
    a.append(5)
    return t * len(b)


@program(apart, one)
def asked_whether_one(a: Any, b: Any, t: Any) -> Any:
    return t * 2 if a is b else t * 3


@program(lambda: (Box(), [Box()], x()), lambda: ((box := Box()), [box], x()))
def asked_whether_inside(a: Any, b: Any, t: Any) -> Any:
    return t * 2 if a in b else t * 3


@program(lambda: ((box := Box()), [box], x()), lambda: (Box(), [Box()], x()))
def found_inside(a: Any, b: Any, t: Any) -> Any:
    return t * 2 if a in b else t * 3


@program(lambda: ([box := Box()], box, x()), lambda: ([Box()], Box(2), x()))
def copied_and_read(items: Any, box: Any, t: Any) -> Any:
    found = list(items)
    return found, t * box.value


@program(lambda: ([box := Box()], [box], x()), lambda: ([Box()], [Box(2)], x()))
def one_object_in_two_lists(a: Any, b: Any, t: Any) -> Any:
    return a + b, [*a, *b], (a[0], b[0])


@program(lambda: (Box(inner := Box()), Box(inner), x()), lambda: (Box(Box()), Box(Box()), x()))
def one_object_behind_two(a: Any, b: Any, t: Any) -> Any:
    a.value.value = 5
    return t * b.value.value


@program(lambda: (Box(Box()), Box(Box()), x()), lambda: (Box(inner := Box()), Box(inner), x()))
def two_objects_behind_two(a: Any, b: Any, t: Any) -> Any:
    a.value.value = 5
    return t * b.value.value


@program(
    lambda: ((box := Box()), vars(box), x()), lambda: (Box(), vars(Box()), x()), refused="__dict__"
)
def written_and_read_in_its_dict(box: Any, table: Any, t: Any) -> Any:
    box.value = 3
    return t * table["value"]


@program(lambda: (Box(), vars(Box()), x()), lambda: ((box := Box()), vars(box), x()))
def written_in_a_dict_and_read(box: Any, table: Any, t: Any) -> Any:
    table["value"] = 3
    return t * box.value


@program(lambda: (*pair(), x()), lambda: (*of_two_pairs(), x()), lambda: (*pair(), x()))
def one_variable_of_two_functions(increase: Any, get: Any, t: Any) -> Any:
    increase()
    return t * get()


@program(lambda: (*of_two_pairs(), x()), lambda: (*pair(), x()))
def two_variables_of_two_functions(increase: Any, get: Any, t: Any) -> Any:
    increase()
    return t * get()


@program(
    lambda: ({(k := Box()): 1, Box(): 2}, k, x()), lambda: ({Box(): 1, (k := Box()): 2}, k, x())
)
def objects_as_keys(table: Any, key: Any, t: Any) -> Any:
    return t * table[key]


@program(lambda: (x(), x(1)), lambda: ((t := x()), t))
def tensors_that_may_be_one(a: Any, b: Any) -> Any:
    a.add_(1)
    return b * 2, a is b


# -- places that the program itself has changed ---------------------------------------------------


@program(lambda: (Box(a=Box(1), b=Box(2)), x()))
def attributes_swapped(box: Any, t: Any) -> Any:
    box.a, box.b = box.b, box.a
    return t * box.a.value, box.b


@program(lambda: (Box(a=x(), b=x(1)),))
def tensors_swapped(box: Any) -> Any:
    box.a, box.b = box.b, box.a
    return box.a * 2


@program(lambda: ([x(), x(1)],))
def items_overwritten(items: Any) -> Any:
    items[0] = items[1]
    return items[0] * 2 + items[1]


@program(lambda: (Box([1, 2]), x()))
def list_replaced_and_both_written(box: Any, t: Any) -> Any:
    old = box.value
    box.value = [3]
    old.append(4)
    box.value.append(old)
    return t * len(box.value), old


@program(lambda: (Box([1, 2]), x()))
def list_replaced_by_an_equal_one(box: Any, t: Any) -> Any:
    old = box.value
    box.value = list(old)
    return t, old is box.value, old


@program(lambda: (Box(), x()))
def new_objects_that_refer_to_each_other(box: Any, t: Any) -> Any:
    first, second = Box(), Box(2)
    first.box, second.first, first.second = box, first, second
    box.first, box.value = first, second
    items = [box]
    items.append(items)
    box.items = items
    return t, items


@program(lambda: (Box(a=Box(b=Box(1))), x()))
def taken_off_and_put_back(box: Any, t: Any) -> Any:
    inner = box.a.b
    box.a.b = None
    inner.value = 2
    box.a.b = inner
    return t * box.a.b.value


@program(lambda: (Box(), x()), lambda: (Falling(), x()))
def attribute_deleted(box: Any, t: Any) -> Any:
    try:
        del box.value
    except AttributeError:
        return t * 5
    return t * 2 if hasattr(box, "value") else t * 3


@program(lambda: (Box(), x()), refused="__dict__")
def attributes_all_deleted(box: Any, t: Any) -> Any:
    for name in list(vars(box)):
        delattr(box, name)
    return t * len(vars(box))


@program(lambda: (Doubling(), x()))
def property_with_a_setter(box: Any, t: Any) -> Any:
    box.kept = box.kept + 3
    return t * box.kept


@program(lambda: (Slotted(), x()))
def slots(box: Any, t: Any) -> Any:
    box.second = box.first + 1
    return t * box.second


@program(lambda: (Box(), x()))
def written_by_its_dict(box: Any, t: Any) -> Any:
    vars(box)["more"] = 7
    box.__dict__["value"] += 1
    return t * box.more * box.value


@program(lambda: (Box(), x()), refused="__dict__")
def read_by_its_dict(box: Any, t: Any) -> Any:
    box.more = 7
    return t * vars(box)["more"], list(vars(box))


@program(lambda: (Box(), x()))
def by_computed_names(box: Any, t: Any) -> Any:
    setattr(box, "a" + "b", t + 1)
    return box.ab * 2, getattr(box, "none", None), hasattr(box, "ab")


@program(lambda: (Shared(), x()), lambda: (Shared(), x()))
def counter_of_the_class(box: Any, t: Any) -> Any:
    type(box).count += 1
    return t * Shared.count * box.count


@program(lambda: (Shared(), x()))
def counter_that_hides_the_class(box: Any, t: Any) -> Any:
    box.count += 1
    return t * box.count


@program(lambda: (x(),))
def globals_written(t: Any) -> Any:
    global COUNT
    COUNT += 1
    TABLE.append(COUNT)
    return t * COUNT * len(TABLE)


@program(lambda: (x(),))
def global_written_through_its_module(t: Any) -> Any:
    sys.modules[__name__].COUNT = 5  # type: ignore[attr-defined]
    return t * COUNT


def counted(t: Any, seen: Any = []) -> Any:  # noqa: B006
    seen.append(1)
    counted.calls = getattr(counted, "calls", 0) + 1  # type: ignore[attr-defined]
    return t * len(seen)


@program(lambda: (x(),))
def default_and_attribute_of_a_function(t: Any) -> Any:
    return counted(t) * counted.calls  # type: ignore[attr-defined]


# -- containers, and C code that writes them ------------------------------------------------------


@program(lambda: (x(),))
def sorted_and_pushed_by_c(t: Any) -> Any:
    TABLE.sort(key=lambda item: -item)
    heapq.heappush(TABLE, 0)
    bisect.insort(TABLE, 3)
    operator.setitem(TABLE, 0, 8)
    return t * TABLE[0], list(TABLE)


@program(lambda: ([3, 1, 2], x()), lambda: ([3, 1, 4], x()))
def list_changed_in_every_way(items: Any, t: Any) -> Any:
    first, *rest = items
    items += rest
    del items[0]
    items[1:2] = [9, 9]
    items *= 2
    items.reverse()
    return t * sum(items), first


@program(lambda: ({"a": 1, "b": 2}, x()), lambda: ({"a": 1, "b": 3}, x()))
def dict_changed_in_every_way(table: Any, t: Any) -> Any:
    table["c"] = table.pop("a")
    table.update(e=5)
    table |= {"f": 6}
    table.setdefault("g", []).append(1)
    del table["c"]
    return t * table["b"], list(table.items())


@program(lambda: ({"a": {"b": {"c": 1}}}, x()), lambda: ({"a": {"b": {"c": 2}}}, x()))
def nested_dicts(table: Any, t: Any) -> Any:
    table["a"]["b"]["d"] = table["a"]
    return t * table["a"]["b"]["c"]


@program(lambda: (([1], [2]), x()))
def lists_in_a_tuple(pair_: Any, t: Any) -> Any:
    pair_[0].append(pair_[1])
    pair_[1].append(5)
    return t * len(pair_)


@program(lambda: ([Box(1), Box(2)], x()))
def items_of_a_loop_written(items: Any, t: Any) -> Any:
    for index, item in enumerate(items):
        item.value = index + 10
    for item, other in zip(items, reversed(items), strict=True):
        item.other = other
    return t * items[0].value


@program(lambda: ([1, 2, 3], x()))
def list_that_grows_in_its_loop(items: Any, t: Any) -> Any:
    for item in items:
        if item < 3 and len(items) < 6:
            items.append(item + 5)
    return t * len(items)


@program(lambda: ([2], x()), lambda: ([3], x()), lambda: ([True], x()), lambda: ([2.0], x()))
def an_item(items: Any, t: Any) -> Any:
    return t * items[0], items[0], items == [2]


@program(lambda: (Box((1, 2)), x()), lambda: (Box((1, 3)), x()), lambda: (Box((1, 2)), x()))
def tuple_extended(box: Any, t: Any) -> Any:
    box.value = (*box.value, 3) + box.value
    return t * sum(box.value)


@program(lambda: (x(), [2, 5]), lambda: (x(), [3, 5]), lambda: (x(), [4, 5]))
def numbers_that_vary_are_stored(t: Any, items: Any) -> Any:
    items.append(items[0])
    items.insert(0, items[0] + 1)
    return t * items[0], sorted(items)


@program(*[lambda n=n: (torch.arange(float(n)),) for n in (3, 5, 12)])
def text_of_sizes_that_vary(t: Any) -> Any:
    size = t.shape[0]
    return f"{size}", "%d" % size, f"{t.shape}", [size], t * len(str(size))


# -- functions, generators, exceptions ------------------------------------------------------------


@program(lambda: (Box(), x()))
def inner_functions_write(box: Any, t: Any) -> Any:
    def write(value: int) -> None:
        box.value = value

    for value in range(3):
        write(value)
    box.get = lambda: box.value
    return t * box.value


@program(lambda: (Box(), x()))
def generator_writes(box: Any, t: Any) -> Any:
    def steps() -> Iterator[int]:
        yield box.value
        box.value = 7
        yield box.value

    return t * sum(steps())


@program(lambda: (Box(), x()))
def context_manager_writes(box: Any, t: Any) -> Any:
    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        old, box.value = box.value, 9
        try:
            yield
        finally:
            box.value = old

    with changed():
        t = t * box.value
    return t * box.value


@program(lambda: (Box([1]), x()))
def exception_in_the_middle(box: Any, t: Any) -> Any:
    try:
        box.value.append(2)
        box.other = 1
        raise ValueError
    except ValueError:
        box.third = 3
    return t * len(box.value)


@program(lambda: (Box(), x()))
def output_is_written_by_the_call(box: Any, t: Any) -> Any:
    print("value", box.value)
    return t


# -- tensors, modules -----------------------------------------------------------------------------


@program(lambda: (Box(x()),))
def tensor_changed_and_replaced(box: Any) -> Any:
    old = box.value
    box.value = box.value + 1
    old.mul_(2)
    return old, box.value


@program(lambda: (Box(None), x()))
def tensor_kept_for_the_next_call(box: Any, t: Any) -> Any:
    box.value = t if box.value is None else box.value + t
    return box.value


def net() -> Any:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    module.calls = 0  # type: ignore[assignment]
    module.cache = {}  # type: ignore[assignment]
    return module


@program(lambda: (net(), x()))
def module_that_counts_and_keeps(module: Any, t: Any) -> Any:
    module.calls += 1
    t = module(t)
    module.cache[module.calls] = t
    return t * len(module.cache)


@program(lambda: (net(), x()))
def layers_swapped(module: Any, t: Any) -> Any:
    layers = module._modules
    layers["0"], layers["1"] = layers["1"], layers["0"]
    return module(t)


@program(lambda: (net(), x()))
def training_switched(module: Any, t: Any) -> Any:
    module.train(not module.training)
    return module(t), module.training


# -- classes that somebody patches ----------------------------------------------------------------


class Patched:
    level = 2

    @property
    def computed(self) -> int:
        return 2

    def method(self) -> int:
        return 2

    @staticmethod
    def static() -> int:
        return 2

    @classmethod
    def of_class(cls) -> int:
        return cls.level

    def __len__(self) -> int:
        return 2

    def __call__(self) -> int:
        return 2


_ORIGINAL = dict(vars(Patched))
_PATCHES: dict[str, tuple[Any, Callable[[Any], int]]] = {
    "level": (5, lambda box: box.level),
    "computed": (property(lambda self: 5), lambda box: box.computed),
    "method": (lambda self: 5, lambda box: box.method()),
    "static": (staticmethod(lambda: 5), lambda box: box.static()),
    "of_class": (classmethod(lambda cls: 5), lambda box: box.of_class()),
    "__len__": (lambda self: 5, len),
    "__call__": (lambda self: 5, lambda box: box()),
}


def _patched(name: str, value: Any) -> World:
    def make() -> tuple[Any, ...]:
        for known in _PATCHES:
            setattr(Patched, known, _ORIGINAL[known])
        setattr(Patched, name, value)
        return Patched(), x()

    return make


def _add_patches() -> None:
    for name, (value, use) in _PATCHES.items():
        worlds = _patched(name, _ORIGINAL[name]), _patched(name, value)
        program(*worlds, name=f"class patched: {name}")(
            lambda box, t, use=use: t * use(box)  # type: ignore[misc]
        )
        program(*worlds, name=f"class of a new object patched: {name}")(
            lambda box, t, use=use: t * use(Patched())  # type: ignore[misc]
        )


_add_patches()


def _with_own(name: str, value: Any) -> World:
    def make() -> tuple[Any, ...]:
        box, t = _patched(name, _ORIGINAL[name])()
        setattr(box, name, value)
        return box, t

    return make


@program(_patched("method", _ORIGINAL["method"]), _with_own("method", lambda: 5))
def method_of_an_object_replaced(box: Any, t: Any) -> Any:
    return t * box.method()


@program(lambda: (Falling(), x()), lambda: (Box(depth=4), x()))
def attribute_that_falls_back(box: Any, t: Any) -> Any:
    return t * box.depth


# -- refused --------------------------------------------------------------------------------------


@program(lambda: (operator.attrgetter("value"), Box(4), x()), refused="attrgetter gets L['box']")
def read_by_c_code(get: Any, box: Any, t: Any) -> Any:
    return t * get(box)


@program(lambda: (Box(4), x()), refused="__reduce_ex__ gets L['box']")
def copied_by_c_code(box: Any, t: Any) -> Any:
    return t * copy.copy(box).value


@program(lambda: (Box(), x()), refused="The frame sets L['box'].__dict__")
def dict_replaced(box: Any, t: Any) -> Any:
    box.__dict__ = {"value": 5}
    return t * box.value


@program(lambda: (Logging(), x()), refused="has its own way of setting attributes")
def setattr_in_python(box: Any, t: Any) -> Any:
    box.value = 3
    return t


@program(lambda: (iter([1, 2]), x()), refused="list_iterator")
def iterator_from_outside(items: Any, t: Any) -> Any:
    return t * next(items)


@program(lambda: ((n for n in range(3)), x()), refused="generator")
def generator_from_outside(items: Any, t: Any) -> Any:
    return t * next(items)


@program(lambda: (Record(), Record(), x()), refused="calls their __eq__ or __hash__")
def objects_compared_by_c(a: Any, b: Any, t: Any) -> Any:
    return t * 2 if [a] == [b] else t


@program(lambda: (x(),), refused="the text, the hash or the id() of a tensor")
def text_of_a_tensor(t: Any) -> Any:
    return t * len(str(t))


@program(lambda: ({Box(), Box()}, x()), refused="set")
def order_of_a_set(items: Any, t: Any) -> Any:
    return list(items), t


@program(
    lambda: (types.SimpleNamespace(function=functools.partial(max, 2)), x()), refused="partial"
)
def partial_from_outside(box: Any, t: Any) -> Any:
    return t * box.function(3)
