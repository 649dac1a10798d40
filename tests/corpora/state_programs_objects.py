"""State in objects, classes and modules: attributes, descriptors, caches, hooks, swapped parts."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from typing import Any, NamedTuple

import torch
from tests.corpora.state_programs import Made, net, program
from torch import nn

# -- attributes of modules ------------------------------------------------------------------------


@program()
def attribute_counter() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.n += 1
        return x * self.n

    return net(forward, n=0)


@program()
def attribute_by_its_dict() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        vars(self)["n"] += 1
        return x * self.n

    return net(forward, n=0)


@program()
def attribute_by_computed_name() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        name = "call" + "_" + str(sum(k.startswith("call_") for k in vars(self)))
        setattr(self, name, 1)
        return x * sum(k.startswith("call_") for k in vars(self))

    return net(forward)


@program()
def attribute_past_the_hook_of_torch() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        object.__setattr__(self, "n", self.n + 1)
        return x * self.n

    return net(forward, n=0)


@program()
def attribute_deleted() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        if hasattr(self, "first"):
            del self.first
            return x * 2
        return x * 3

    return net(forward, first=1)


@program()
def early_return_on_a_flag() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        if self.ready:
            return x * 2
        self.ready = True
        return x

    return net(forward, ready=False)


@program()
def flag_set_and_put_back() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        old, self.deep = self.deep, True
        try:
            return self.lin(x) * (2 if self.deep else 3)
        finally:
            self.deep = old

    return net(forward, deep=False)


@program()
def tensor_of_the_last_call() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        old, self.last = self.last, x
        return x if old is None else x + old

    return net(forward, last=lambda: None)


@program()
def tensor_appended_to_a_cache() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.kept.append(x * 1)
        return sum(self.kept)

    return net(forward, kept=list)


@program()
def mode_switched() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = x * 2 if self.training else x * 3
        self.eval()
        return y

    return net(forward)


# -- parts of modules -----------------------------------------------------------------------------


@program()
def submodules_swapped() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.a, self.b = self.b, self.a
        return self.a(x)

    return net(forward, a=lambda: nn.Linear(4, 4), b=lambda: nn.Linear(4, 4))


@program()
def submodule_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.act(x)
        self.act = nn.Tanh()
        return y

    return net(forward, act=lambda: nn.ReLU())


@program()
def submodule_deleted() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        if hasattr(self, "warm"):
            x = self.warm(x)
            del self.warm
        return x

    return net(forward, warm=lambda: nn.ReLU())


@program()
def layer_appended() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.layers.append(nn.ReLU())
        return x * len(self.layers)

    return net(forward, layers=nn.ModuleList)


@program()
def layers_reordered() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.layers[0], self.layers[1] = self.layers[1], self.layers[0]
        return self.layers[0](x)

    return net(forward, layers=lambda: nn.ModuleList([nn.ReLU(), nn.Tanh()]))


@program()
def module_added() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        if not hasattr(self, "late"):
            self.add_module("late", nn.Identity())
            return x
        return x * 2

    return net(forward)


@program()
def buffer_registered() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", x.mean())
        return x - self.mean

    return net(forward)


@program()
def buffer_counter() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.n += 1
        return x * self.n

    return net(forward, b_n=torch.tensor(0))


@program()
def buffer_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = x - self.mean
        self.mean = self.mean * 0.5 + x.mean() * 0.5
        return y

    return net(forward, b_mean=torch.tensor(0.0))


@program()
def parameter_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.lin(x)
        self.lin.weight = nn.Parameter(self.lin.weight.detach() * 2)
        return y

    return net(forward)


@program()
def parameter_given_other_data() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.lin(x)
        self.lin.weight.data = self.lin.weight.data * 2
        return y

    return net(forward)


@program()
def parameter_frozen() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.lin(x) * (2 if self.lin.weight.requires_grad else 3)
        self.lin.weight.requires_grad_(False)
        return y

    return net(forward)


# -- methods replaced, hooks ----------------------------------------------------------------------


@program()
def forward_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.forward = lambda x: x * 3
        return x * 2

    return net(forward)


@program()
def forward_of_a_part_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.lin(x)
        self.lin.forward = lambda x: x * 3
        return y

    return net(forward)


@program()
def method_of_the_class_replaced() -> Made:
    class Net(nn.Module):
        def factor(self) -> int:
            return 2

        def forward(self, x: Any) -> Any:
            n = self.factor()
            type(self).factor = lambda self: n + 1  # type: ignore[method-assign]
            return x * n

    mod = Net()
    return Made(mod, lambda: mod.factor())


@program()
def class_of_the_module_replaced() -> Made:
    class Second(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 3

    class First(nn.Module):
        def forward(self, x: Any) -> Any:
            self.__class__ = Second  # type: ignore[assignment]
            return x * 2

    mod = First()
    return Made(mod, lambda: type(mod).__name__)


@program()
def hook_that_counts() -> Made:
    calls: list[int] = []

    def hook(mod: Any, args: Any, result: Any) -> Any:
        calls.append(1)
        return result * len(calls)

    mod = net(lambda self, x: self.lin(x))
    mod.lin.register_forward_hook(hook)  # type: ignore[union-attr]
    return Made(mod, lambda: calls)


@program()
def hook_before_that_counts() -> Made:
    seen = types.SimpleNamespace(n=0)

    def hook(mod: Any, args: Any) -> Any:
        seen.n += 1
        return (args[0] * seen.n,)

    mod = net(lambda self, x: self.lin(x))
    mod.register_forward_pre_hook(hook)
    return Made(mod, lambda: seen.n)


@program()
def hook_registered() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        y = self.lin(x)
        self.lin.register_forward_hook(lambda mod, args, result: result * 2)
        return y

    return net(forward)


@program()
def hook_that_removes_itself() -> nn.Module:
    mod = net(lambda self, x: self.lin(x))

    def hook(mod: Any, args: Any, result: Any) -> Any:
        handle.remove()
        return result * 2

    handle = mod.lin.register_forward_hook(hook)  # type: ignore[union-attr]
    return mod


# -- objects --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Config:
    """What a module is configured with."""

    step: int = 0
    seen: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A configuration that may not change."""

    step: int = 0


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


@program()
def field_of_a_dataclass() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.config.step += 1
        self.config.seen.append(1)
        return x * self.config.step + len(self.config.seen)

    return net(forward, config=Config)


@program()
def dataclass_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.config = dataclasses.replace(self.config, step=self.config.step + 1)
        return x * self.config.step

    return net(forward, config=Config)


@program()
def frozen_dataclass_set_by_force() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        object.__setattr__(self.config, "step", self.config.step + 1)
        return x * self.config.step

    return net(forward, config=Frozen)


@program(runs=True)
def dataclass_of_the_call() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        config = Config(2)
        config.seen.append(3)
        config = dataclasses.replace(config, step=config.step + 1)
        return x * config.step + len(config.seen)

    return net(forward)


@program()
def named_tuple_replaced() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.point = self.point._replace(x=self.point.x + 1)
        return x * self.point.x

    return net(forward, point=lambda: Point(1, 2))


@program(runs=True)
def named_tuple_of_the_call() -> nn.Module:
    return net(lambda self, x: x * Point(1, 2)._replace(x=3).x)


@program()
def object_with_slots() -> Made:
    class Box:
        __slots__ = ("n",)

        def __init__(self) -> None:
            self.n = 0

    box = Box()

    def forward(self: Any, x: Any) -> Any:
        box.n += 1
        return x * box.n

    return Made(net(forward), lambda: box.n)


@program()
def descriptor_that_counts() -> Made:
    class Counted:
        n = 0

        def __get__(self, owner: Any, cls: Any) -> int:
            self.n += 1
            return self.n

    class Holder:
        value = Counted()

    holder = Holder()
    counted = vars(Holder)["value"]
    return Made(net(lambda self, x: x * holder.value), lambda: counted.n)


@program()
def descriptor_with_a_table() -> Made:
    class Stored:
        def __init__(self) -> None:
            self.table: dict[int, int] = {}

        def __get__(self, owner: Any, cls: Any) -> int:
            return self.table.get(id(owner), 0)

        def __set__(self, owner: Any, value: int) -> None:
            self.table[id(owner)] = value

    class Holder:
        value = Stored()

    holder = Holder()

    def forward(self: Any, x: Any) -> Any:
        holder.value += 1
        return x * holder.value

    return Made(net(forward), lambda: holder.value)


@program()
def property_that_counts() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reads = 0

        @property
        def factor(self) -> int:
            self.reads += 1
            return self.reads

        def forward(self, x: Any) -> Any:
            return x * self.factor

    return Net()


@program()
def cached_property_of_an_object() -> Made:
    calls: list[int] = []

    class Holder:
        @functools.cached_property
        def factor(self) -> int:
            calls.append(1)
            return 2 + len(calls)

    holder = Holder()
    return Made(net(lambda self, x: x * holder.factor), lambda: (calls, list(vars(holder))))


@program()
def attributes_made_when_asked_for() -> Made:
    class Lazy:
        def __getattr__(self, name: str) -> int:
            if name.startswith("__"):
                raise AttributeError(name)
            vars(self)[name] = len(vars(self)) + 1
            return 0

    lazy = Lazy()
    return Made(net(lambda self, x: x * lazy.factor + lazy.factor), lambda: dict(vars(lazy)))


@program()
def reads_counted() -> Made:
    reads = collections.Counter()  # type: ignore[var-annotated]

    class Watched:
        factor = 2

        def __getattribute__(self, name: str) -> Any:
            reads[name] += 1
            return object.__getattribute__(self, name)

    watched = Watched()
    return Made(net(lambda self, x: x * watched.factor * reads["factor"]), lambda: reads["factor"])


@program()
def stores_counted() -> Made:
    stores: list[str] = []

    class Watched:
        def __setattr__(self, name: str, value: Any) -> None:
            stores.append(name)

    watched = Watched()

    def forward(self: Any, x: Any) -> Any:
        watched.anything = 1
        return x * len(stores)

    return Made(net(forward), lambda: stores)


@program()
def truth_that_alternates() -> Made:
    class Switch:
        on = False

        def __bool__(self) -> bool:
            self.on = not self.on
            return self.on

    switch = Switch()
    return Made(net(lambda self, x: x * 2 if switch else x * 3), lambda: switch.on)


@program()
def comparison_that_counts() -> Made:
    class Key:
        asked = 0

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            Key.asked += 1
            return True

    table = {Key(): 2}
    return Made(net(lambda self, x: x * table[Key()] * Key.asked), lambda: Key.asked)


# -- classes --------------------------------------------------------------------------------------


@program()
def counter_on_the_class() -> Made:
    class Net(nn.Module):
        count = 0

        def forward(self, x: Any) -> Any:
            type(self).count += 1
            return x * self.count

    return Made(Net(), lambda: Net.count)


@program()
def list_on_the_class() -> Made:
    class Net(nn.Module):
        seen: list[int] = []

        def forward(self, x: Any) -> Any:
            self.seen.append(1)
            return x * len(self.seen)

    return Made(Net(), lambda: Net.seen)


@program()
def counter_by_classmethod() -> Made:
    class Counter:
        n = 0

        @classmethod
        def next(cls) -> int:
            cls.n += 1
            return cls.n

    return Made(net(lambda self, x: x * Counter.next()), lambda: Counter.n)


@program()
def registry_of_subclasses() -> Made:
    registry: list[str] = []

    class Base:
        def __init_subclass__(cls) -> None:
            registry.append(cls.__name__)

    def forward(self: Any, x: Any) -> Any:
        class Found(Base):
            pass

        return x * len(registry)

    return Made(net(forward), lambda: registry)


@program()
def registry_in_a_metaclass() -> Made:
    registry: dict[str, int] = {}

    class Meta(type):
        def __new__(mcs, name: str, bases: Any, names: Any) -> Any:
            registry[name] = registry.get(name, 0) + 1
            return super().__new__(mcs, name, bases, names)

    def forward(self: Any, x: Any) -> Any:
        class Found(metaclass=Meta):
            pass

        return x * registry["Found"]

    return Made(net(forward), lambda: registry)


@program()
def instances_counted() -> Made:
    class Token:
        made = 0

        def __init__(self) -> None:
            Token.made += 1
            self.number = Token.made

    return Made(net(lambda self, x: x * Token().number), lambda: Token.made)


@program()
def one_instance_only() -> Made:
    class Single:
        found: Any = None

        def __new__(cls) -> Any:
            if cls.found is None:
                cls.found = super().__new__(cls)
                cls.found.uses = 0
            cls.found.uses += 1
            return cls.found

    return Made(net(lambda self, x: x * Single().uses), lambda: Single.found is None)


@program(unseen="an attribute of a class in another namespace is read as a number", frozen="factor")
def class_attribute_changed_outside() -> Made:
    class Settings:
        factor = 2

    def change(call: int) -> None:
        Settings.factor += 1

    return Made(net(lambda self, x: x * Settings.factor), between=change)


@program(unseen="an attribute of an object is read as a number", frozen="depth")
def field_of_a_captured_object_changed_outside() -> Made:
    settings = types.SimpleNamespace(depth=2)

    def change(call: int) -> None:
        settings.depth += 1

    return Made(net(lambda self, x: x * settings.depth), between=change)


# -- exceptions -----------------------------------------------------------------------------------


@program()
def exception_of_the_first_call() -> Made:
    table: dict[str, int] = {}

    def forward(self: Any, x: Any) -> Any:
        try:
            return x * table["factor"]
        except KeyError:
            table["factor"] = 3
            return x

    return Made(net(forward), lambda: table)


@program(runs=True)
def exceptions_for_flow() -> nn.Module:
    class Found(Exception):
        pass

    def search(n: int) -> None:
        for i in range(10):
            if i * i > n:
                raise Found(i)

    def forward(self: Any, x: Any) -> Any:
        try:
            search(20)
        except Found as e:
            return x * e.args[0]
        finally:
            x = x + 1
        return x

    return net(forward)


@program()
def exception_that_is_kept() -> Made:
    error = ValueError(0)

    def forward(self: Any, x: Any) -> Any:
        try:
            raise error
        except ValueError as e:
            e.args = (e.args[0] + 1,)
            return x * e.args[0]

    return Made(net(forward), lambda: error.args)


@program()
def notes_of_an_exception() -> Made:
    error = ValueError(0)

    def forward(self: Any, x: Any) -> Any:
        error.add_note("called")
        return x * len(error.__notes__)

    return Made(net(forward), lambda: list(getattr(error, "__notes__", [])))
