"""Scripted code, attention parameters, kernels and other objects of torch."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from tests import script_classes
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.seen_kinds import watched
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

import stillframe as sf
from stillframe.variables import capture_frame
from stillframe.variables.kinds.torch_objects import SDPAParamsVariable

SCALE = 3


@pytest.mark.spec("5.17")
def test_the_handle_of_a_hook_from_another_frame_is_refused() -> None:
    x = torch.ones(2, requires_grad=True)
    handle = x.register_hook(lambda grad: grad)

    def removes(x: torch.Tensor, handle: Any) -> torch.Tensor:
        handle.remove()
        return x * 2

    with pytest.raises(sf.FrameError, match=r"handle of a hook \(L\['handle'\]\)"):
        capture_frame(removes, (x, handle))
    capture_frame(lambda x, handle: x * 2, (x, handle))  # it is not looked at


# -- scripted functions ----------------------------------------------------------------------------


@torch.jit.script
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.jit.script
def tripled(x: torch.Tensor) -> torch.Tensor:
    return x * 3


function = doubled


@pytest.mark.spec("5.18")
def test_a_scripted_function_is_the_python_that_it_was_made_of() -> None:
    def calls(x: torch.Tensor) -> Any:
        return function(x) + 1

    with watched() as seen:
        capture = agrees(calls, lambda: (torch.arange(3.0),))
    assert seen.kind("G['function']") == "WrapperUserFunctionVariable"
    assert "TYPE_MATCH G['function']" in guards_of(capture)
    assert capture.failure(torch.arange(3.0)) is None
    with mock.patch.dict(globals(), function=tripled):  # of the same class
        assert "_torchdynamo_inline" in refuses(capture, torch.arange(3.0))


@pytest.mark.spec("5.18")
def test_a_traced_function_does_what_was_traced_so_it_is_refused() -> None:
    traced = torch.jit.trace(lambda x: x * 2, (torch.ones(3),))  # type: ignore[no-untyped-call]

    def calls(x: torch.Tensor, traced: Any) -> Any:
        return traced(x)

    with pytest.raises(sf.FrameError, match="traced, or loaded"):
        capture_frame(calls, (torch.ones(3), traced))


# -- attention -------------------------------------------------------------------------------------


def heads() -> torch.Tensor:
    return torch.arange(192.0).reshape(2, 3, 4, 8)


@pytest.mark.spec("5.72")
def test_attention_parameters_from_outside_are_read_field_by_field() -> None:
    def reads(params: Any) -> Any:
        return params.query * params.dropout, params.is_causal, can_use_flash_attention(params)

    def world(dropout: float = 0.5) -> tuple[Any, ...]:
        return (SDPAParams(heads(), heads(), heads(), None, dropout, True, False),)

    with watched() as seen:
        capture = capture_frame(reads, world())
    torch.testing.assert_close(capture(*world()), reads(*world()))
    assert seen.kind("L['params']") == "SDPAParamsVariable"
    found = guards_of(capture)
    assert {"TYPE_MATCH L['params']", "TENSOR_MATCH L['params'].query"} <= set(found)
    assert "dropout" in refuses(capture, *world(0.25))


@pytest.mark.spec("5.114")
def test_attention_parameters_made_in_the_frame_are_made_again() -> None:
    def makes(x: torch.Tensor) -> Any:
        return SDPAParams(x * 2, x, x, None, 0.5, False, False)

    reconstruct = SDPAParamsVariable.reconstruct
    with mock.patch.object(SDPAParamsVariable, "reconstruct", autospec=True) as again:
        again.side_effect = reconstruct
        capture = capture_frame(makes, (heads(),))
    assert again.call_count == 1
    made = capture(heads())
    torch.testing.assert_close((made.query, made.key), (heads() * 2, heads()))
    assert (made.dropout, made.is_causal, made.attn_mask) == (0.5, False, None)


@pytest.mark.spec("5.115")
def test_whether_a_kernel_can_be_used_is_a_constant() -> None:
    def asks(x: torch.Tensor) -> Any:
        params = SDPAParams(x, x, x, None, 0.0, False, False)
        if can_use_flash_attention(params):
            return x * 2
        return x * 3, can_use_efficient_attention(params)

    with watched() as seen:
        capture = agrees(asks, lambda: (heads(),))
    assert [n.op for n in capture.graph_module.graph.nodes].count("call_function") == 1
    assert "ConstantVariable" in seen.made_kinds()
    assert "L['x']" in refuses(capture, heads().half())


# -- packages that are not here --------------------------------------------------------------------


class KeyedJaggedTensor:
    """What such an object of torchrec looks like."""

    def __init__(self, values: torch.Tensor, lengths: list[int]) -> None:
        self._values = values
        self._length_per_key = lengths
        self.stride = 2


KeyedJaggedTensor.__module__ = "torchrec.sparse.jagged_tensor"


@pytest.mark.spec("5.76")
def test_lengths_of_a_keyed_jagged_tensor_are_left_to_the_data() -> None:
    def weighs(kjt: Any) -> torch.Tensor:
        total = 0
        for length in kjt._length_per_key:
            total = total * 2 + length
        return kjt._values * total * kjt.stride  # type: ignore[no-any-return]

    def world(lengths: list[int]) -> tuple[Any, ...]:
        return (KeyedJaggedTensor(torch.arange(6.0), lengths),)

    with watched() as seen:
        capture = agrees(
            weighs, lambda: world([2, 4]), lambda: world([1, 5]), lambda: world([6, 0])
        )
    assert seen.kind("L['kjt']") == "KeyedJaggedTensorVariable"
    assert seen.kind("L['kjt']._length_per_key[0]") == "SymNodeVariable"
    found = guards_of(capture)
    assert "TYPE_MATCH L['kjt']" in found
    assert "CONSTANT_MATCH L['kjt'].stride" in found
    assert not any("CONSTANT_MATCH L['kjt']._length" in guard for guard in found)
    assert "_length_per_key" in refuses(capture, *world([1, 2, 3]))


class JITFunction:
    """What a kernel of Triton looks like."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args: None

    def run(self, *args: Any) -> None:
        """Launches."""


class Autotuner(JITFunction):
    """What a tuner of kernels looks like."""


JITFunction.__module__ = "triton.runtime.jit"
Autotuner.__module__ = "triton.runtime.autotuner"


@pytest.mark.spec("5.85")
@pytest.mark.parametrize("cls", [JITFunction, Autotuner])
def test_a_kernel_is_the_very_object_and_is_not_launched(cls: Any) -> None:
    kernel = cls()

    def hands_on(x: torch.Tensor, kernel: Any) -> Any:
        return x * 2, kernel is None

    with watched() as seen:
        capture = agrees(hands_on, lambda: (torch.ones(2), kernel))
    assert seen.kind("L['kernel']") == "TritonKernelVariable"
    assert "ID_MATCH L['kernel']" in guards_of(capture)
    assert "L['kernel']" in refuses(capture, torch.ones(2), cls())

    def launches(x: torch.Tensor, kernel: Any) -> Any:
        kernel[(1,)](x)
        return x

    def runs(x: torch.Tensor, kernel: Any) -> Any:
        kernel.run(x)
        return x

    for function in (launches, runs):
        with pytest.raises(sf.FrameError, match="launches a kernel of Triton"):
            capture_frame(function, (torch.ones(2), kernel))


# -- script objects --------------------------------------------------------------------------------


@pytest.mark.spec("5.95")
def test_a_script_object_is_an_input_known_by_what_it_is_made_of() -> None:
    classes = script_classes.load()

    def adds(x: torch.Tensor, foo: Any) -> Any:
        return foo.add_tensor(x), torch.ops._TorchScriptTesting.takes_foo(foo, x * 2)

    def world() -> tuple[Any, ...]:
        return torch.ones(3), classes._Foo(10, 20)

    with watched() as seen:
        capture = capture_frame(adds, world())
    torch.testing.assert_close(capture(*world()), adds(*world()))
    assert seen.kind("L['foo']") == "TorchScriptObjectVariable"
    found = guards_of(capture)
    assert "EQUALS_MATCH script_class_name(L['foo'])" in found
    assert "EQUALS_MATCH flattened_script_object(L['foo'])" in found
    assert "flattened" in refuses(capture, torch.ones(3), classes._Foo(10, 21))
    queue = classes._TensorQueue(torch.ones(2))
    assert "L['foo']" in refuses(capture, torch.ones(3), queue)
    assert "script" in refuses(capture, torch.ones(3), 5)
