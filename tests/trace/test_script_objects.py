"""Script objects in traces by dispatch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests import script_classes

import stillframe as sf
from stillframe.fake.script_objects import FakeScriptObject

CLASSES = script_classes.load()
OPS = torch.ops._TorchScriptTesting
CLOSED_OVER = CLASSES._Foo(10, 20)


def adds(x: torch.Tensor, foo: Any) -> Any:
    y = x + CLOSED_OVER.add_tensor(x) + OPS.takes_foo(CLOSED_OVER, x)
    return foo.add_tensor(y), OPS.takes_foo_list_return(foo, y)


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.spec("3.1")
@pytest.mark.spec("3.17")
@pytest.mark.spec("3.60")
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_traces(mode: str, pre_dispatch: bool) -> None:
    args = (torch.randn(3, 2), CLASSES._Foo(1, 2))
    graph = sf.make_fx(adds, tracing_mode=mode, pre_dispatch=pre_dispatch)(*args)
    other = (torch.randn(5 if mode == "symbolic" else 3, 2), CLASSES._Foo(3, 4))
    same(graph(*other), adds(*other))
    attributes = graph.graph.find_nodes(op="get_attr")
    assert [n.target for n in attributes] == ["_torchbind_obj0"], "one node for one object"
    assert isinstance(graph._torchbind_obj0, torch.ScriptObject)
    methods = [n for n in graph.graph.nodes if "call_torchbind" in n.name]
    assert [n.args[1] for n in methods] == ["add_tensor", "add_tensor"]
    assert methods[1].args[0].name == "foo_1"


@pytest.mark.spec("3.8")
@pytest.mark.spec("3.11")
def test_val_of_an_object_is_the_object_itself() -> None:
    foo = CLASSES._Foo(1, 2)
    for mode, kind in (("real", torch.ScriptObject), ("fake", FakeScriptObject)):
        graph = sf.make_fx(adds, tracing_mode=mode)(torch.randn(2), foo)
        placeholder = graph.graph.find_nodes(op="placeholder")[1]
        assert isinstance(placeholder.meta["val"], kind)
        method = next(n for n in graph.graph.nodes if "call_torchbind" in n.name)
        assert tuple(method.meta["val"].shape) == (2,)


@pytest.mark.spec("3.30")
def test_an_object_that_is_returned_is_its_node() -> None:
    graph = sf.make_fx(lambda x, foo: (foo, x + 1), tracing_mode="fake")(
        torch.ones(2), CLASSES._Foo(1, 2)
    )
    output = graph.graph.find_nodes(op="output")[0]
    assert output.args[0][0] is graph.graph.find_nodes(op="placeholder")[1]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_calls_keep_their_order(mode: str) -> None:
    def f(x: torch.Tensor, queue: Any) -> Any:
        queue.push(x)
        OPS.queue_push(queue, x.sin())
        queue.pop()
        return OPS.queue_pop(queue)

    def empty() -> Any:
        return CLASSES._TensorQueue(torch.zeros(1))

    queue = empty()
    graph = sf.make_fx(f, tracing_mode=mode)(torch.ones(2), queue)
    if mode != "real":
        assert queue.size() == 0
    x = torch.randn(2)
    same(graph(x, empty()), f(x, empty()))


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_as_it_was(fails: bool) -> None:
    before = torch.ScriptMethod.__call__

    def f(x: torch.Tensor) -> torch.Tensor:
        assert torch.ScriptMethod.__call__ is not before
        if fails:
            raise ValueError("no")
        return x + 1

    try:
        sf.make_fx(f, tracing_mode="fake")(torch.ones(2))
    except ValueError:
        assert fails
    assert torch.ScriptMethod.__call__ is before


def test_what_is_refused() -> None:
    foo = CLASSES._Foo(1, 2)
    with pytest.raises(sf.NotSupported, match="requires grad below autograd"):
        sf.make_fx(lambda x, foo: foo.add_tensor(x), tracing_mode="fake")(
            torch.ones(2, requires_grad=True), foo
        )
    trace = sf.make_fx(lambda x, foo: x, tracing_mode="fake")
    graph = trace(torch.ones(2), foo)
    stand_in = graph.graph.find_nodes(op="placeholder")[1].meta["val"]
    with pytest.raises(sf.InvalidInput, match="is a stand-in"):
        trace(torch.ones(2), stand_in)
    with pytest.raises(sf.NotSupported, match="The input s_1 is a script object"):
        sf.make_fx(lambda s: torch.ones(2), tracing_mode="fake")(CLASSES._StackString(["a"]))
