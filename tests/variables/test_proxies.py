"""wrap_fx_proxy: what goes with the nodes of a graph."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, new_translator

from stillframe.context import TracingContext, tracing
from stillframe.errors import FrameError, InternalError
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Machine
from stillframe.guards import GuardsContext
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.shapes.env import ShapeEnv
from stillframe.source import LocalSource
from stillframe.variables import Options, Translator, capture_frame
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.numbers import SymNodeVariable
from stillframe.variables.kinds.tensor_subclasses import TensorWithTFOverrideVariable
from stillframe.variables.kinds.tensors import TensorVariable
from stillframe.variables.proxies import clone_with_strides, wrap_fx_proxy, wraps_result

aten = torch.ops.aten


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


@pytest.fixture
def tx() -> Iterator[Translator]:
    made = new_translator(t, Options(assume_static_by_default=False))
    Machine(made)
    with tracing(TracingContext(made.recorder.fake_mode)):
        yield made


def input_of(tx: Translator, value: Any, name: str = "x") -> TensorVariable:
    source = LocalSource(name)
    node = tx.inputs.placeholder(source)
    made = wrap_fx_proxy(tx, node, example_value=value, source=source)
    assert isinstance(made, TensorVariable)
    return made


def call(tx: Translator, target: Any, *args: Any, op: str = "call_function") -> torch.fx.Node:
    return tx.recorder.graph.create_node(op, target, args, {})


# -- the two uses ----------------------------------------------------------------------------------


@pytest.mark.spec("5.97", "5.98", "5.99")
def test_with_an_example_a_tensor_from_outside_becomes_an_input(tx: Translator) -> None:
    x = t(4, 3)
    made = input_of(tx, x)
    node = made.as_proxy()
    assert type(made) is TensorVariable and made.source == LocalSource("x")
    assert made.value is node.meta["example_value"] and made.value.env is tx.env
    assert tx.recorder.fake_mode.adopt(x) is made.value
    (tracked,) = tx.inputs.tracked_fakes
    assert tracked.fake is made.value


@pytest.mark.spec("5.98")
def test_without_an_example_the_node_is_run_on_fakes(tx: Translator) -> None:
    x = input_of(tx, t(4, 3)).as_proxy()
    before = torch.get_rng_state()
    for node, sizes in (
        (call(tx, aten.t.default, x), (3, 4)),
        (call(tx, torch.relu, x), (4, 3)),
        (call(tx, "sum", x, 0, op="call_method"), (3,)),
        (torch.fx.Proxy(call(tx, aten.rand_like.default, x)), (4, 3)),
    ):
        made = wrap_fx_proxy(tx, node)
        assert isinstance(made.value, FakeTensor) and made.value.env is tx.env
        assert [int(tx.env.hint_of(s)) if type(s) is not int else s for s in made.value.sizes] == [
            *sizes
        ]
    assert torch.equal(torch.get_rng_state(), before)
    tx.recorder.root.held = torch.nn.Module()
    tx.recorder.root.held.weight = torch.nn.Parameter(t(2))
    made = wrap_fx_proxy(tx, tx.recorder.graph.get_attr("held.weight"))
    assert made.python_type() is torch.nn.Parameter and made.value.env is tx.env


@pytest.mark.spec("5.98")
def test_a_node_has_one_value_of_this_mode_only(tx: Translator) -> None:
    x = input_of(tx, t(2)).as_proxy()
    with pytest.raises(InternalError, match="value already"):
        wrap_fx_proxy(tx, x, example_value=t(2), source=LocalSource("x"))
    node = call(tx, aten.relu.default, x)
    other = ShapeEnv()
    FakeMode(other)
    for foreign in (t(2), FakeTensor.like_real(other, t(2)), [FakeTensor.like_real(other, t(2))]):
        node.meta["val"] = foreign
        with pytest.raises(InternalError, match="no fake of this trace"):
            wrap_fx_proxy(tx, node)
    with pytest.raises(InternalError, match="no example"):
        bare = tx.recorder.graph.placeholder("bare")
        wrap_fx_proxy(tx, bare)


@pytest.mark.spec("5.98")
def test_guards_among_the_options_are_installed(tx: Translator) -> None:
    x = input_of(tx, t(2)).as_proxy()
    guard = LocalSource("y").make_guard(guard_kind("TYPE_MATCH"))
    wrap_fx_proxy(tx, call(tx, aten.relu.default, x), guards=[guard])
    installed = TracingContext.get().part(GuardsContext).dynamo_guards
    assert guard in list(installed)


@pytest.mark.spec("5.99", "5.100")
def test_a_fake_of_this_mode_is_kept_and_a_tensor_needs_a_source(tx: Translator) -> None:
    ours = tx.recorder.fake_mode.ctx.empty((2,), dtype=torch.float32)
    node = call(tx, aten.relu.default)
    assert wrap_fx_proxy(tx, node, example_value=ours).value is ours
    with pytest.raises(InternalError, match="not known where it is read"):
        wrap_fx_proxy(tx, tx.recorder.graph.placeholder("y"), example_value=t(2))


@pytest.mark.spec("5.99", "5.100")
def test_export_keeps_copies_of_the_examples_with_their_strides(tx: Translator) -> None:
    examples = (t(6)[::2], t(4, 3).t(), t(3).expand(2, 3), t(0, 3), torch.tensor(2.0))
    input_of(tx, t(2))
    assert tx.inputs.real_values == {}
    tx = new_translator(t, Options(export=True))
    with tracing(TracingContext(tx.recorder.fake_mode)):
        for number, example in enumerate(examples):
            example = example.requires_grad_(example.is_leaf)
            node = input_of(tx, example, f"x{number}").as_proxy()
            copy = tx.inputs.real_values[node]
            assert torch.equal(copy, example) and copy.stride() == example.stride()
            assert copy.data_ptr() != example.data_ptr() or not example.numel()
            assert not copy.requires_grad
    ours = tx.recorder.fake_mode.ctx.empty((2,), dtype=torch.float32)
    assert clone_with_strides(ours) is ours


@pytest.mark.spec("5.100")
def test_the_example_is_neither_kept_alive_nor_written(tx: Translator) -> None:
    x = t(6)[::2]
    input_of(tx, x)
    assert tx.inputs.arguments[0].example is x
    agrees(lambda x: x.add_(1), lambda: (t(6)[::2],))
    alive = weakref.ref(x)
    capture = capture_frame(lambda x: x * 2, (x,))
    del x
    tx.recorder.fake_mode.forget_real_tensors()
    tx.effects = tx.inputs = None  # type: ignore[assignment]
    gc.collect()
    assert alive() is None and capture.inputs[0].example is None


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.spec("5.101")
def test_properties_of_a_tensor_are_those_of_its_fake(tx: Translator) -> None:
    static, open_ = t(0, 3), t(4, 3)
    made = input_of(tx, static.requires_grad_())
    found = made.properties
    assert (found.dtype, found.device, found.layout) == (
        torch.float32, torch.device("cpu"), torch.strided,
    )  # fmt: skip
    assert found.ndim == 2 and found.requires_grad and found.size is None
    zero = new_translator(t, Options())
    with tracing(TracingContext(zero.recorder.fake_mode)):
        fixed = input_of(zero, open_).properties
        parameter = input_of(zero, torch.nn.Parameter(open_), "p")
    assert fixed.size == (4, 3) and fixed.stride == (3, 1) and not fixed.requires_grad
    assert parameter.python_type() is torch.nn.Parameter
    assert input_of(tx, open_, "y").properties.size is None
    assert input_of(tx, open_.clone(), "z").python_type() is torch.Tensor


@pytest.mark.spec("5.97", "5.101")
def test_with_a_subclass_the_program_sees_that_class(tx: Translator) -> None:
    class Own(torch.Tensor):
        pass

    node = tx.inputs.placeholder(LocalSource("x"))
    made = wrap_fx_proxy(tx, node, t(2), Own, source=LocalSource("x"))
    assert type(made) is TensorWithTFOverrideVariable and made.python_type() is Own
    parameter = torch.nn.Parameter(t(2))
    node = tx.inputs.placeholder(LocalSource("p"))
    assert wrap_fx_proxy(tx, node, parameter, source=LocalSource("p")).python_type() is (
        torch.nn.Parameter
    )


@pytest.mark.spec("5.107")
def test_nothing_is_a_constant_and_is_not_kept(tx: Translator) -> None:
    for node in (
        call(tx, aten._assert_async.default, input_of(tx, t(1)).as_proxy()),
        call(tx, torch.manual_seed, 3),
    ):
        node.meta["val"] = None if node.target is not torch.manual_seed else object()
        made = wrap_fx_proxy(tx, node)
        assert type(made) is ConstantVariable and made.value is None
        assert "example_value" not in node.meta


@pytest.mark.spec("5.108")
def test_symbolic_numbers(tx: Translator) -> None:
    x = input_of(tx, t(4, 3))
    size = x.value.shape[0]
    for value, cls in ((size, int), (size > 3, bool), (torch.sym_float(size), float)):
        node = tx.recorder.operand(value)
        made = wrap_fx_proxy(tx, node)
        assert type(made) is SymNodeVariable and made.python_type() is cls
        assert node.meta["example_value"] is made.value
    agrees(
        lambda x: (x.shape[0], x.shape[0] > 3, x.shape[0] / 2, x.sum().item(), [x.shape[0]]),
        lambda: (t(4, 3),), lambda: (t(9, 3),), options=Options(assume_static_by_default=False),
    )  # fmt: skip


def element_size(x: Any) -> int:
    return 4


def call_torchbind(x: Any) -> Any:
    return x


@pytest.mark.spec("5.113", "5.116")
@pytest.mark.parametrize(
    ("target", "value"),
    [
        (element_size, 4), (getattr, 3), (torch.sym_int, 2), (call_torchbind, 1),
        (call_torchbind, 2.5), (call_torchbind, True),
    ],
)  # fmt: skip
def test_plain_numbers_of_known_calls_are_constants(
    tx: Translator, target: Any, value: Any
) -> None:
    node = call(tx, target)
    node.meta["val"] = value
    made = wrap_fx_proxy(tx, node)
    assert type(made) is ConstantVariable and made.as_python_constant() is value
    assert node.meta["example_value"] is value


@pytest.mark.spec("5.113")
def test_the_size_of_an_element_is_a_number_of_the_program() -> None:
    agrees(lambda x: (x.element_size(), x * x.element_size()), lambda: (t(2),))


@pytest.mark.spec("5.117")
def test_other_results_are_refused_by_class_and_operator(tx: Translator) -> None:
    class Odd:
        pass

    for target, op, value in (
        (element_size, "call_function", 2.5), (call_torchbind, "call_function", "text"),
        ("frobnicate", "call_method", Odd()), (aten.relu.default, "call_function", 3),
    ):  # fmt: skip
        node = call(tx, target, op=op)
        node.meta["val"] = value
        name = target if isinstance(target, str) else target.__name__
        with pytest.raises(FrameError) as e:
            wrap_fx_proxy(tx, node)
        assert type(value).__qualname__ in e.value.what
        assert op in e.value.what and name in e.value.what


def test_two_wrappers_at_one_place_are_refused() -> None:
    with pytest.raises(InternalError, match="two wrappers of results: tensor and another"):
        wraps_result(101, "another", lambda node, value: False)(lambda *args, **kwargs: None)  # type: ignore[arg-type,return-value]
