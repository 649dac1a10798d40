"""Objects, classes, modules, descriptors: what is relied on, and how they are made again."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
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


class Slotted:
    __slots__ = ("a", "__hidden", "never")

    def __init__(self, a: Any) -> None:
        self.a, self.__hidden = a, 3

    def hidden(self) -> int:
        return self.__hidden


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    a: Any
    b: int = 3


class Counted:
    made = 0

    def __new__(cls, *args: Any) -> Any:
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any) -> None:
        self.more = args


class Guarded:
    """Has its own way of setting attributes."""

    def __init__(self) -> None:
        object.__setattr__(self, "n", 1)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value * 2)


class Failure(ValueError):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@pytest.mark.spec("5.32", "5.96")
def test_an_object_is_its_class_and_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(node: Any, x: torch.Tensor) -> Any:
        node.seen = x.shape[0]
        return x * node.weight, node

    capture = agrees(step, lambda: (Node(), x()))
    assert "TYPE_MATCH L['node']" in guards_of(capture)
    more = Node()
    more.other = 1  # type: ignore[attr-defined]
    assert capture.failure(more, X) is None
    assert "weight" in refuses(capture, Node(3), X)
    assert "is of class" in refuses(capture, type("Sub", (Node,), {})(), X)
    assert "UserDefinedObjectVariable" in kinds_in(step, Node(), x())


@pytest.mark.spec("5.32")
def test_an_object_with_its_own_way_of_setting_is_read_only() -> None:
    def read(o: Any, x: torch.Tensor) -> Any:
        return x + o.n

    def write(o: Any, x: torch.Tensor) -> Any:
        o.n = 3
        return x

    agrees(read, lambda: (Guarded(), x()))
    o = Guarded()
    with pytest.raises(sf.FrameError, match="sets the attribute n"):
        capture_frame(write, (o, x()))
    assert o.n == 1


@pytest.mark.spec("5.96", "5.138")
def test_objects_of_the_programs_own_are_made_again() -> None:
    def step(x: torch.Tensor) -> Any:
        slotted, frozen = Slotted(x * 2), Frozen(x + 1)
        frozen.b.append(3)
        try:
            raise Failure("text", 5) from KeyError("why")
        except Failure as e:
            error = e
        error.add_note("noted")
        stop = StopIteration(x)
        return slotted, frozen, Counted(x, frozen), error, stop, FrozenSlots(x)

    capture = capture_frame(step, (x(),))
    (ours, theirs) = capture(x()), step(x())
    for one, other in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
    assert ours[0].hidden() == 3 and not hasattr(ours[0], "never")
    torch.testing.assert_close(ours[0].a, X * 2)
    assert dataclasses.fields(ours[1]) == dataclasses.fields(theirs[1]) and ours[1].b == [3]
    assert ours[2].args[1] is ours[1] and ours[2].more[0] is ours[2].args[0]
    error = ours[3]
    assert (error.args, error.code, error.__notes__) == (("text",), 5, ["noted"])
    assert isinstance(error.__cause__, KeyError) and error.__suppress_context__
    torch.testing.assert_close(ours[4].value, X)
    assert ours[5].b == 3
    assert capture(x())[0] is not ours[0]


@pytest.mark.spec("5.138")
def test_what_cannot_be_made_again_is_named() -> None:
    def opaque(x: torch.Tensor) -> Any:
        return torch.Generator()

    with pytest.raises(sf.FrameError, match=r"torch\._C\.Generator"):
        capture_frame(opaque, (x(),))

    def own_class(x: torch.Tensor) -> Any:
        class Local:
            pass

        return Local

    def named(x: torch.Tensor) -> Any:
        return type("Node", (), {})

    for function in (own_class, named, lambda x: own_class(x)()):
        with pytest.raises(sf.FrameError, match="program made this class"):
            capture_frame(function, (x(),))


class LoudModule(types.ModuleType):
    pass


@pytest.mark.spec("5.89")
def test_modules_of_python(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    module = LoudModule("made_for_this_test")
    module.factor = 3  # type: ignore[attr-defined]
    globals_["MODULE"] = module

    def step(x: torch.Tensor) -> Any:
        return x * MODULE.factor, MODULE  # type: ignore[name-defined]  # noqa: F821

    capture = agrees(step, lambda: (x(),))
    assert "FUNCTION_MATCH G['MODULE']" in guards_of(capture)
    assert "PythonModuleVariable" in kinds_in(step, x())
    module.factor = 4  # type: ignore[attr-defined]
    assert "factor" in refuses(capture, x())
    monkeypatch.setitem(sys.modules, "made_for_this_test", module)
    capture = agrees(step, lambda: (x(),))
    module.factor = 5  # type: ignore[attr-defined]
    assert "factor" in refuses(capture, x())
    globals_["MODULE"] = LoudModule("other")
    refuses(capture, x())


@pytest.mark.spec("5.89")
def test_what_stands_for_a_module_in_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    class DummyModule:
        def __init__(self, name: str) -> None:
            self.__name__ = name
            self.factor = 3

    record = types.ModuleType("torch._dynamo.replay_record")
    record.DummyModule = DummyModule  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch._dynamo.replay_record", record)
    module = DummyModule("numpy")

    def step(module: Any, x: torch.Tensor) -> Any:
        return x * module.factor

    capture = agrees(step, lambda: (module, x()))
    assert "FUNCTION_MATCH L['module']" in guards_of(capture)
    refuses(capture, DummyModule("numpy"), X)
    module.factor = 4
    assert "factor" in refuses(capture, module, X)


@pytest.mark.spec("5.90", "5.146")
def test_methods_that_somebody_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    spec = torch.utils._pytree.tree_flatten([1, (2, 3)])[1]

    def step(method: Any, x: torch.Tensor) -> Any:
        return method(x), method

    capture = agrees(step, lambda: (layer.forward, x()))
    guards = guards_of(capture)
    assert "FUNCTION_MATCH L['method'].__func__" in guards
    assert "TYPE_MATCH L['method'].__self__" in guards
    result, method = capture(other.forward, X)
    torch.testing.assert_close(result, other(X))
    assert method == other.forward
    assert "__func__" in refuses(capture, layer.extra_repr, X)
    assert "UserMethodVariable" in kinds_in(step, layer.forward, x())
    monkeypatch.undo()

    def unflatten(method: Any, x: torch.Tensor) -> Any:
        return method([x, x, x])

    capture = agrees(unflatten, lambda: (spec.unflatten, x()))
    shorter = torch.utils._pytree.tree_flatten([1, 2, 3])[1]
    refuses(capture, shorter.unflatten, X)


@pytest.mark.spec("5.90")
def test_a_method_of_an_object_of_the_users() -> None:
    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        def scale(self, x: Any) -> Any:
            return x * self.by

    def step(methods: Any, x: torch.Tensor) -> Any:
        return methods["m"](x)

    capture = agrees(step, lambda: ({"m": Scale(3).scale}, x()))
    assert "by equals 3" in refuses(capture, {"m": Scale(4).scale}, X)


@pytest.mark.spec("5.91", "5.92")
def test_descriptors_and_method_wrappers(
    monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]
) -> None:
    globals_["GETSET"], globals_["WRAPPER"] = vars(type)["__dict__"], [1].__len__
    globals_["SLOT"] = vars(Slotted)["a"]

    def step(x: torch.Tensor) -> Any:
        return (
            x + WRAPPER(), WRAPPER, GETSET, SLOT.__get__(Slotted(3)), [x, x].__len__,  # noqa: F821
        )  # fmt: skip

    capture = capture_frame(step, (x(),))
    result, wrapper, getset, three, own = capture(x())
    torch.testing.assert_close(result, X + 1)
    assert wrapper is globals_["WRAPPER"] and getset is globals_["GETSET"] and three == 3
    assert own() == 2
    kinds = kinds_in(step, x())
    assert {"GetSetDescriptorVariable", "MethodWrapperVariable"} <= kinds
    # their identity is not relied on
    guards = guards_of(capture)
    assert not {"ID_MATCH G['WRAPPER']", "ID_MATCH G['GETSET']"} & set(guards)
    globals_["WRAPPER"] = [1].__len__
    assert capture.failure(x()) is None
    globals_["WRAPPER"] = [1, 2].__len__
    assert "length 1" in refuses(capture, x())
    globals_["WRAPPER"] = [1].__hash__
    refuses(capture, x())
    globals_["WRAPPER"], globals_["GETSET"] = [1].__len__, vars(type)["__mro__"]
    refuses(capture, x())


@pytest.mark.spec("5.93")
def test_classes(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    class Meta(type):
        pass

    class Made(metaclass=Meta):
        factor = 3

    globals_["CLASS"] = Made

    def step(x: torch.Tensor) -> Any:
        return x * CLASS.factor, CLASS, int, CLASS()  # type: ignore[name-defined]  # noqa: F821

    capture = agrees(step, lambda: (x(),))
    assert "FUNCTION_MATCH G['CLASS']" in guards_of(capture)
    assert "UserDefinedClassVariable" in kinds_in(step, x())
    globals_["CLASS"] = type("Made", (Made,), {})
    assert "CLASS" in refuses(capture, x())


@pytest.mark.spec("5.67")
def test_a_pretrained_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("transformers.configuration_utils")

    class PretrainedConfig:
        attribute_map: typing.ClassVar[dict[str, str]] = {"width": "hidden_size"}

        def __init__(self) -> None:
            self.hidden_size = 4
            self.depth = 2

        def __getattribute__(self, name: str) -> Any:
            names = object.__getattribute__(self, "attribute_map")
            return object.__getattribute__(self, names.get(name, name))

        @property
        def area(self) -> int:
            return self.width * self.depth  # type: ignore[attr-defined, no-any-return]

    stand_in.PretrainedConfig = PretrainedConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.configuration_utils", stand_in)

    def step(config: Any, x: torch.Tensor) -> Any:
        return x * config.width

    def area(config: Any, x: torch.Tensor) -> Any:
        return x * config.area

    capture = agrees(step, lambda: (PretrainedConfig(), x()))
    assert guards_of(capture) == [
        "TYPE_MATCH L['config']", "CONSTANT_MATCH L['config'].hidden_size", "TENSOR_MATCH L['x']",
    ] or set(guards_of(capture)) >= {
        "TYPE_MATCH L['config']", "CONSTANT_MATCH L['config'].hidden_size",
    }  # fmt: skip
    other = PretrainedConfig()
    other.depth = 9
    assert capture.failure(other, X) is None
    assert "depth" in refuses(agrees(area, lambda: (PretrainedConfig(), x())), other, X)
    other.hidden_size = 5
    assert "hidden_size" in refuses(capture, other, X)
    assert "HFPretrainedConfigVariable" in kinds_in(step, PretrainedConfig(), x())
