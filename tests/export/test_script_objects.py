"""Script objects in programs: as attributes, as inputs, in operators and by their methods."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests import script_classes

import stillframe as sf
from stillframe import CustomObjArgument, Dim, InputKind
from stillframe.fake.script_objects import FakeScriptObject

CLASSES = script_classes.load()
OPS = torch.ops._TorchScriptTesting
FOO = "__torch__.torch.classes._TorchScriptTesting._Foo"


class Adds(torch.nn.Module):
    """A script object as an attribute, under two names, and one as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.attr = CLASSES._Foo(10, 20)
        self.inner = torch.nn.Module()
        self.inner.same = self.attr

    def forward(self, x: torch.Tensor, foo: Any) -> Any:
        y = x + self.attr.add_tensor(x) + OPS.takes_foo(self.inner.same, x)
        first, second = OPS.takes_foo_tuple_return(foo, y)
        return foo.add_tensor(y), first - second


class Queues(torch.nn.Module):
    """Calls that only make sense in order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = CLASSES._TensorQueue(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        self.queue.push(x.cos())
        OPS.queue_push(self.queue, x.sin())
        self.queue.push(x)
        first = self.queue.pop()
        OPS.queue_pop(self.queue)  # nobody uses it, and it must stay
        return first - OPS.queue_pop(self.queue), self.queue.size()


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def captured(**options: Any) -> tuple[Adds, Any]:
    module = Adds()
    dims = {"x": {0: Dim("b")}, "foo": None}
    args = (torch.randn(3, 2), CLASSES._Foo(1, 2))
    return module, sf.export(module, args, dynamic_shapes=dims, **options)


@pytest.mark.spec("1.55")
@pytest.mark.spec("1.57")
@pytest.mark.spec("1.60")
@pytest.mark.parametrize("strict", [False, True])
def test_a_program_does_as_the_module(strict: bool) -> None:
    module, program = captured(strict=strict)
    for rows in (1, 7):
        x, foo = torch.randn(rows, 2), CLASSES._Foo(3, 5)
        same(program.module()(x, foo), module(x, foo))
    objects = [n for n in program.graph.nodes if n.op == "placeholder" and n.name != "x"]
    assert [n.name for n in objects] == ["obj_attr", "foo"], "one for each object"


@pytest.mark.spec("2.48")
@pytest.mark.spec("2.61")
@pytest.mark.spec("2.74")
def test_the_signature_and_the_constants() -> None:
    module, program = captured()
    assert program.constants == {"attr": module.attr, "inner.same": module.attr}
    assert program.graph_signature.lifted_custom_objs == ("attr",)
    assert program.graph_signature.inputs_to_lifted_custom_objs == {"obj_attr": "attr"}
    attr, _, foo = program.graph_signature.input_specs
    assert attr.kind is InputKind.CUSTOM_OBJ and attr.target == "attr"
    assert foo.kind is InputKind.USER_INPUT
    for spec, node in ((attr, "obj_attr"), (foo, "foo")):
        assert isinstance(spec.arg, CustomObjArgument)
        assert (spec.arg.name, spec.arg.class_fqn) == (node, FOO)
        assert isinstance(spec.arg.fake_val, FakeScriptObject)
    vals = {n.name: n.meta["val"] for n in program.graph.nodes}
    assert vals["obj_attr"] == attr.arg and vals["foo"] == foo.arg
    assert "obj_attr: object of classes._TorchScriptTesting._Foo" in str(program)


@pytest.mark.spec("1.58")
@pytest.mark.spec("1.59")
def test_attributes_are_put_back() -> None:
    class Fails(Adds):
        def forward(self, x: torch.Tensor, foo: Any) -> Any:
            raise ValueError(f"it fails with {type(self.attr).__name__}")

    args = (torch.ones(2), CLASSES._Foo(1, 2))
    module = Fails()
    objects = module.attr, module.inner.same
    with pytest.raises(ValueError, match="it fails with FakeScriptObject"):
        sf.export(module, args)
    assert (module.attr, module.inner.same) == objects
    assert isinstance(module.__dict__["attr"], torch.ScriptObject)
    module.inner.unknown = CLASSES._StackString(["a"])  # fails half-way
    with pytest.raises(sf.NotSupported):
        sf.export(module, args)
    assert isinstance(module.__dict__["attr"], torch.ScriptObject)
    assert isinstance(module.inner.__dict__["same"], torch.ScriptObject)


@pytest.mark.spec("1.61")
def test_no_fake_class_is_an_error_that_says_how() -> None:
    module = torch.nn.Module()
    module.strings = CLASSES._StackString(["a"])
    module.forward = lambda x: x + 1  # type: ignore[method-assign]
    with pytest.raises(sf.NotSupported) as e:
        sf.export(module, (torch.ones(2),))
    assert "self.strings is a script object of the class _TorchScriptTesting::_StackString" in str(
        e.value
    )
    assert 'register_fake_class("_TorchScriptTesting::_StackString")' in str(e.value)
    with pytest.raises(sf.NotSupported, match="The input s is a script object"):
        sf.export(lambda s, x: x, (CLASSES._StackString(["a"]), torch.ones(2)))


@pytest.mark.spec("1.56")
def test_stand_ins_are_refused() -> None:
    _, program = captured()
    stand_in = program.graph_signature.input_specs[0].arg.fake_val
    with pytest.raises(sf.InvalidInput, match="the input 1 is a stand-in"):
        sf.export(Adds(), (torch.ones(2), stand_in))
    module = Adds()
    module.inner.other = stand_in
    with pytest.raises(sf.InvalidInput, match="self.inner.other is a stand-in"):
        sf.export(module, (torch.ones(2), CLASSES._Foo(1, 2)))


@pytest.mark.spec("1.60")
def test_an_object_that_comes_by_two_ways_is_refused() -> None:
    """It has one fake, and the program could not tell two objects apart there."""
    module = Adds()
    with pytest.raises(sf.NotSupported, match="foo is a script object that is also self.attr"):
        sf.export(module, (torch.randn(2), module.attr))
    foo = CLASSES._Foo(1, 1)
    with pytest.raises(sf.NotSupported, match="b is a script object that is also the input a"):
        sf.export(lambda x, a, b: a.add_tensor(x) + b.add_tensor(x), (torch.ones(2), foo, foo))


@pytest.mark.parametrize("strict", [False, True])
def test_calls_stay_in_order_and_leave_the_module_alone(strict: bool) -> None:
    module = Queues()
    program = sf.export(module, (torch.randn(3, 2),), strict=strict)
    assert module.queue.size() == 0, "the capture works on a stand-in"
    x = torch.randn(3, 2)
    same(program.module()(x), module(x))
    assert [n.target.name() for n in program.graph.nodes if "queue_pop" in n.name] == [
        "_TorchScriptTesting::queue_pop"
    ] * 2
    same(copy.deepcopy(program).module()(x), module(x))
    program.verify(module)
    assert any("share it" in note for note in program.notes)


def test_another_state_is_never_a_wrong_number() -> None:
    module = Queues()
    program = sf.export(module, (torch.randn(3, 2),))
    module.queue.push(torch.ones(3, 2))
    with pytest.raises(sf.CustomOperatorError, match="size returned 1"):
        program.module()(torch.randn(3, 2))
    other = Queues()
    program = sf.export(other, (torch.randn(3, 2),))
    other.queue.push(torch.ones(4))
    with pytest.raises(sf.CustomOperatorError, match=r"pop returned float32\[4\]"):
        program.module()(torch.randn(3, 2))


def test_what_was_pushed_need_not_be_what_is_popped() -> None:
    def f(x: torch.Tensor, queue: Any) -> Any:
        y = x + 1
        queue.push(y)
        return y - OPS.queue_pop(queue), y - queue.pop()

    def full(*values: float) -> Any:
        queue = CLASSES._TensorQueue(torch.zeros(1))
        for value in values:
            queue.push(torch.full((2,), value))
        return queue

    program = sf.export(f, (torch.ones(2), full(1.0)))
    same(program.module()(torch.ones(2), full(4.0, 7.0)), f(torch.ones(2), full(4.0, 7.0)))


def test_the_door_takes_objects_of_the_class_only() -> None:
    _, program = captured()
    for wrong in (3, CLASSES._TensorQueue(torch.zeros(1))):
        with pytest.raises(sf.CallError, match="foo: .*the program takes a script object of the"):
            program.module()(torch.ones(3, 2), wrong)


@pytest.mark.spec("2.75")
def test_objects_from_anywhere_are_constants() -> None:
    foo = CLASSES._Foo(1, 1)
    holder = [CLASSES._Foo(2, 3)]

    def f(x: torch.Tensor) -> Any:
        return foo.add_tensor(x) + OPS.takes_foo(holder[0], x)

    program = sf.export(f, (torch.ones(2),))
    assert set(program.constants) == {"lifted_custom_0", "lifted_custom_1"}
    same(program.module()(torch.ones(2) * 3), f(torch.ones(2) * 3))


def test_a_program_is_captured_again() -> None:
    module, program = captured()
    args = (torch.randn(3, 2), CLASSES._Foo(4, 4))
    again = sf.export(program.module(), args)
    same(again.module()(*args), module(*args))


def test_gradients_go_through_methods() -> None:
    module, program = captured()
    foo = CLASSES._Foo(1, 2)
    grads = []
    for function in (module, program.module()):
        x = torch.ones(3, 2, requires_grad=True)
        function(x, foo)[0].sum().backward()
        grads.append(x.grad)
    same(grads[0], grads[1])


def test_what_is_refused(tmp_path: Any) -> None:
    _, program = captured()
    with pytest.raises(sf.ArtifactError, match="obj_attr is a script object"):
        sf.save(program, tmp_path / "p.still")
    x, foo = torch.ones(2), CLASSES._Foo(1, 2)
    with pytest.raises(sf.NotSupported, match="of type .*FakeScriptObject|Output 0 of forward"):
        sf.export(lambda x, foo: foo, (x, foo))
    with pytest.raises(sf.NotSupported, match="has no method"):
        sf.export(lambda x, foo: foo.increment(3), (x, foo))
    with pytest.raises(sf.NotSupported, match="has no fake"):
        sf.export(lambda x, foo: OPS.takes_foo_cia(foo, x), (x, foo))
    with pytest.raises(AttributeError, match="has methods only"):
        sf.export(lambda x, foo: x + foo.secret, (x, foo))
    with pytest.raises(sf.NotSupported, match="inside of a subgraph"):
        sf.export(
            lambda x, foo: torch.cond(
                x.sum() > 0, lambda x: foo.add_tensor(x), lambda x: x + 1, (x,)
            ),
            (x, foo),
        )
    with pytest.raises(sf.NotSupported, match="may be the very tensor"):
        sf.export(lambda x, q: q.pop().unsqueeze_(0) + x, (x, CLASSES._TensorQueue(torch.zeros(1))))
