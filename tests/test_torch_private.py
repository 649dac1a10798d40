"""Each private name of torch that the package leans on still does what it is used for."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import torch
from tests import script_classes

from stillframe import stack, torch_private


def test_wrapper_subclass_takes_symbolic_free_sizes() -> None:
    class Sub(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    t = torch_private.make_wrapper_subclass(
        Sub, [2, 3], strides=[3, 1], dtype=torch.float32, device="cpu", storage_size=0
    )
    assert tuple(t.shape) == (2, 3) and t.untyped_storage().nbytes() == 0


def test_below_autograd_keeps_composites_whole() -> None:
    seen = []

    class Spy(torch_private.PlainDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with torch_private.below_autograd(), Spy():
        torch.nn.functional.linear(torch.randn(2, 3), torch.randn(4, 3))
    assert seen[-1] is torch.ops.aten.linear.default


def test_a_handler_can_ask_for_the_modes_of_its_caller() -> None:
    seen = []

    class Spy(torch_private.PlainDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            here = torch_private.any_autocast_enabled()
            with torch_private.modes_of_caller():
                seen.append((here, torch_private.any_autocast_enabled()))
            return func(*args, **(kwargs or {}))

    x = torch.randn(2, 2)
    with Spy():
        x.sin()
        with torch.autocast("cpu", torch.bfloat16):
            x.sin()
    assert seen == [(False, False), (False, True)]


def test_what_autocast_lists() -> None:
    aten = torch.ops.aten
    assert torch_private.is_cast_itself(aten.mm.default, "cpu")
    assert not torch_private.is_cast_itself(aten.einsum.default, "cpu")
    assert torch_private.is_cast_itself(aten.layer_norm.default, "cuda")
    assert not torch_private.is_cast_itself(aten.mm.default, "meta")


def test_plain_mode_is_not_wrapped() -> None:
    class Plain(torch_private.PlainDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return func(*args, **(kwargs or {}))

    assert Plain.__torch_dispatch__.__code__.co_filename == __file__


def test_tables_hold_shape_functions() -> None:
    metas, decompositions = torch_private.python_meta_tables()
    assert torch.ops.aten.mm.default in metas
    assert torch.ops.aten.gelu.default in decompositions


def test_composite_implicit() -> None:
    assert torch_private.is_composite_implicit(torch.ops.aten.linear.default)
    assert not torch_private.is_composite_implicit(torch.ops.aten.mm.default)


def test_registered_fake() -> None:
    @torch.library.custom_op("stillframe_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @twice.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    kernel = torch_private.registered_fake(torch.ops.stillframe_test.twice.default)
    assert kernel is not None
    assert torch_private.registered_fake(torch.ops.aten.mm.default) is None


def test_compiling_flags() -> None:
    with torch_private.compiling_flags():
        assert torch.compiler.is_compiling() and torch.compiler.is_exporting()
    assert not torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def test_lazy_graph_module_generates_code_late() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.placeholder("x"))
    module = torch_private.lazy_graph_module(graph)
    assert module(3) == 3
    assert "def forward" in module.code


def test_control_flow_is_put_back() -> None:
    from torch._higher_order_ops import utils
    from torch._higher_order_ops.base_hop import BaseHOP

    def places() -> list[Any]:
        operator = torch._ops.HigherOrderOperator
        return [torch.cond, utils._hop_compile_and_call, operator.__call__, BaseHOP.__call__]

    real = places()
    answered = torch_private.higher_order_answered
    x = torch.ones(3)
    with answered(lambda op, args, kwargs: op.name()), answered(lambda *call: NotImplemented):
        assert not any(a is b for a, b in zip(places(), real, strict=True))
        result = torch.cond(x.sum() > 0, lambda x: (x.sin(),), lambda x: (x.cos(),), (x,))
    torch.testing.assert_close(result, (x.sin(),))
    with answered(lambda op, args, kwargs: op.name()):
        assert torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)) == "cond"
    assert places() == real


def test_stacks_hide_torch() -> None:
    import stillframe.shapes.env  # noqa: F401  (hides torch's folder)

    found = []

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return helper(x)

    def helper(x: torch.Tensor) -> torch.Tensor:
        found.append(stack.raw_stack())
        return x

    def outer() -> None:
        helper(torch.ones(1))

    Module()(torch.ones(1))
    names = [code.co_name for code, _ in stack.frames(found[0])]
    assert names[:2] == ["forward", "test_stacks_hide_torch"], "the caller's caller outwards"
    assert not any(
        code.co_filename.startswith(os.path.dirname(torch.__file__))
        for code, _ in stack.frames(found[0])
    )
    text = stack.stack_trace(found[0])
    assert "return helper(x)" in text
    assert text.index("test_stacks_hide_torch") < text.index("in forward"), "outermost first"
    assert "return helper(x)" in stack.summary(found[0])[-1]


def test_autocast_regions_are_seen() -> None:
    entered: list[torch.autocast] = []
    left: list[torch.autocast] = []
    before = torch.autocast.__enter__
    with torch_private.autocast_watched(entered.append, left.append):
        with torch.autocast("cpu", enabled=False):
            assert not torch_private.any_autocast_enabled()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch_private.any_autocast_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pass
    assert len(entered) == 2 and left == entered and torch.autocast.__enter__ is before


def test_composite_in_python() -> None:
    kernel = torch_private.composite_in_python(torch.ops.aten.lstm.input)
    mod, x = torch.nn.LSTM(2, 3), torch.randn(4, 1, 2)
    state = [torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)]
    found = kernel(x, state, list(mod.parameters()), True, 1, 0.0, False, False, False)
    torch.testing.assert_close(found[0], mod(x)[0])
    with pytest.raises(KeyError, match=r"aten\.relu"):
        torch_private.composite_in_python(torch.ops.aten.relu.default)


def test_functions_are_replaced_in_one_thread() -> None:
    """Two threads that replace one function leave it as it was, in whatever order they end."""
    original = torch.is_grad_enabled
    inside, done = threading.Barrier(2), threading.Event()
    answers = []

    def capture(name: str, waits: bool) -> None:
        stand_in = lambda function: (name, function())  # noqa: E731
        with torch_private.functions_replaced(torch, {"is_grad_enabled": stand_in}):
            inside.wait()
            answers.append(torch.is_grad_enabled())
            if waits:
                done.wait()

    threads = [threading.Thread(target=capture, args=(n, n == "first")) for n in ("first", "last")]
    for thread in threads:
        thread.start()
    threads[1].join()
    assert torch.is_grad_enabled() is True, "other threads see torch's own"
    done.set()
    threads[0].join()
    assert sorted(answers) == [("first", True), ("last", True)]
    assert torch.is_grad_enabled is original


def test_core_decompositions_are_functions_of_overloads() -> None:
    table = torch_private.core_decompositions()
    assert torch.ops.aten.silu.default in table
    assert all(isinstance(op, torch._ops.OpOverload) and callable(f) for op, f in table.items())


def test_composite_operators_take_themselves_apart() -> None:
    found = torch_private.composite_operators()
    assert torch.ops.aten.linear.default in found
    assert torch.ops.aten.mm.default not in found
    assert all(torch_private.is_composite_implicit(op) for op in found)


def test_primitive_body() -> None:
    body = torch_private.primitive_body(torch.ops.prims.convert_element_type.default)
    assert body(torch.ones(2), torch.int64).dtype is torch.int64


def test_autocast_off() -> None:
    a = torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype is torch.bfloat16
        with torch_private.autocast_off():
            assert (a @ a).dtype is torch.float32


def test_specified_elements() -> None:
    assert torch_private.specified_elements(torch.eye(3).to_sparse()) == 3


def test_script_objects() -> None:
    classes = script_classes.load()
    foo = classes._Foo(1, 2)
    assert torch_private.is_script_object(foo) and not torch_private.is_script_object(torch.ones(1))
    name = torch_private.script_class_name(foo)
    assert name == "__torch__.torch.classes._TorchScriptTesting._Foo"
    assert torch_private.has_method(foo, "add_tensor")
    assert not torch_private.has_method(foo, "no_such_method")
    assert torch_private.owner_of(foo.add_tensor) is not None
    assert hasattr(torch_private.registered_fake_class(name), "__obj_unflatten__")
    assert torch_private.registered_fake_class("no.such.Class") is None
    taking = torch.ops._TorchScriptTesting.takes_foo.default
    assert torch_private.takes_script_object(taking)
    made = torch_private.call_torchbind()(foo, "add_tensor", torch.ones(2))
    assert made.tolist() == [3.0, 3.0]


def test_effects() -> None:
    assert torch_private.has_ordered_effect(torch_private.call_torchbind())
    assert torch_private.has_ordered_effect(torch.ops.aten._print.default)
    assert not torch_private.has_ordered_effect(torch.ops.aten._linalg_check_errors.default)
    assert not torch_private.has_ordered_effect(torch.ops.aten.add_.Tensor)
    assert not torch_private.has_ordered_effect(torch.ops.higher_order.cond)
    assert torch_private.with_effects().name() == "with_effects"


def test_dispatch_keys_can_be_compared() -> None:
    keys = torch_private.dispatch_keys
    assert keys(torch.ones(1)) == keys(torch.zeros(2, 3))
    assert keys(torch.ones(1)) != keys(torch.ones(1).to_sparse())
    assert keys(torch.ones(1, dtype=torch.cfloat)) != keys(torch.ones(1, dtype=torch.cfloat).conj())


def test_marks_of_dims_are_where_torch_writes_them() -> None:
    tensor = torch.ones(2, 3, 4, 5)
    torch._dynamo.mark_dynamic(tensor, 0)
    torch._dynamo.maybe_mark_dynamic(tensor, 1)
    torch._dynamo.mark_static(tensor, 2)
    torch._dynamo.decorators.mark_unbacked(tensor, 3)
    found = {mark: vars(tensor).get(mark) for mark in torch_private.DIM_MARKS}
    assert found["_dynamo_dynamic_indices"] == {0}
    assert found["_dynamo_weak_dynamic_indices"] == {1}
    assert found["_dynamo_static_indices"] == {2}
    assert found["_dynamo_unbacked_indices"] == {3}
    strict = torch.ones(2)
    torch._dynamo.decorators.mark_unbacked(strict, 0, strict=True)
    assert vars(strict)["_dynamo_strict_unbacked_indices"] == {0}


def test_state_of_function_overriding() -> None:
    state = torch_private.torch_function_state()
    with torch._C.DisableTorchFunction():
        off = torch_private.torch_function_state()
        torch_private.set_torch_function_state(state)
        assert torch_private.torch_function_state() == state != off
        torch_private.set_torch_function_state(off)
    assert torch_private.torch_function_state() == state
    assert torch_private.count_function_modes() == 0
    with torch.device("meta"):
        (mode,) = torch_private.function_modes()
        assert torch_private.count_function_modes() == 1
        assert torch_private.default_device_of(mode) == torch.device("meta")
    assert torch_private.default_device_of(object()) is None


def test_fsdp_state_of_a_module_that_it_does_not_manage() -> None:
    assert torch_private.fsdp_training_state(torch.nn.Linear(2, 2)) is None


def test_storages_and_parts() -> None:
    tensor = torch.ones(4, device="meta")
    identity = torch_private.storage_identity
    assert identity(tensor.untyped_storage()) == identity(tensor[2:].untyped_storage())
    assert identity(tensor.untyped_storage()) != identity(torch.ones(4).untyped_storage())
    eye = torch.eye(2)
    blocks = (1, 1)
    sparse = [eye.to_sparse(), eye.to_sparse_csr(), eye.to_sparse_csc()]
    sparse += [eye.to_sparse_bsr(blocks), eye.to_sparse_bsc(blocks)]
    assert [len(torch_private.sparse_parts(t)) for t in [eye, *sparse]] == [0, 2, 3, 3, 3, 3]
