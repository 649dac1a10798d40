"""Derivatives of the user's own, their contexts, and torch's engine."""

from __future__ import annotations

import sys
import types
from typing import Any
from unittest import mock

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.seen_kinds import watched

import stillframe as sf
from stillframe.variables import capture_frame


class Settings:
    def __init__(self) -> None:
        self.scale = 3
        self.count = 0


SETTINGS = Settings()
ENGINE = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.scale = SETTINGS.scale
        return x * x * SETTINGS.scale

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 5 * grad * x * ctx.scale


class WithSetup(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x * y, x + y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, product: torch.Tensor, total: torch.Tensor) -> Any:
        x, y = ctx.saved_tensors
        return product * y + total, product * x * 7


APPLY = Scaled.apply


def leaf() -> torch.Tensor:
    return torch.arange(4.0, requires_grad=True)


def gradient(function: Any, *args: torch.Tensor) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(function(*args))
    torch.stack([leaf.sum() for leaf in leaves]).sum().backward()  # type: ignore[no-untyped-call]
    return [arg.grad for arg in args]


@pytest.mark.spec("5.61")
def test_a_function_class_is_one_node_with_its_own_gradient() -> None:
    def applies(x: torch.Tensor) -> torch.Tensor:
        return Scaled.apply(x) + 1  # type: ignore[no-untyped-call,no-any-return]

    with watched() as seen:
        capture = agrees(applies, lambda: (leaf(),))
    assert seen.kind("G['Scaled']") == "AutogradFunctionVariable"
    found = guards_of(capture)
    assert "FUNCTION_MATCH G['Scaled']" in found
    assert "CONSTANT_MATCH G['SETTINGS'].scale" in found
    assert not any("count" in guard for guard in found)
    torch.testing.assert_close(gradient(capture, leaf()), gradient(applies, leaf()))
    with mock.patch.object(SETTINGS, "scale", 4):
        assert "scale" in refuses(capture, leaf())

    def other(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad

    with mock.patch.object(Scaled, "backward", staticmethod(other)):
        assert "backward" in refuses(capture, leaf())
    assert capture.failure(leaf()) is None


@pytest.mark.spec("5.61")
def test_a_function_with_a_setup_and_two_results() -> None:
    def applies(x: torch.Tensor, y: torch.Tensor) -> Any:
        return WithSetup.apply(x, y)  # type: ignore[no-untyped-call]

    capture = agrees(applies, lambda: (leaf(), leaf() * 1))
    worlds = [(leaf(), leaf()) for _ in range(2)]
    torch.testing.assert_close(gradient(capture, *worlds[0]), gradient(applies, *worlds[1]))


@pytest.mark.spec("5.63")
def test_an_apply_that_somebody_keeps_is_known_by_its_class() -> None:
    def applies(x: torch.Tensor) -> Any:
        return APPLY(x)  # type: ignore[no-untyped-call]

    with watched() as seen:
        capture = agrees(applies, lambda: (leaf(),))
    variable: Any = seen.outside["G['APPLY']"]
    assert type(variable).__name__ == "GetAttrVariable"
    assert type(variable.owner).__name__ == "AutogradFunctionVariable"
    assert variable.name == "apply"
    assert "FUNCTION_MATCH G['APPLY'].__self__" in guards_of(capture)
    torch.testing.assert_close(gradient(capture, leaf()), gradient(applies, leaf()))
    with mock.patch.dict(globals(), APPLY=WithSetup.apply):
        assert "G['APPLY'].__self__" in refuses(capture, leaf())
    with mock.patch.dict(globals(), APPLY=Scaled.apply):  # another bound method of the same
        assert capture.failure(leaf()) is None


def test_a_function_that_changes_what_is_around_it_is_refused() -> None:
    class Counts(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            SETTINGS.count += 1
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad

    def applies(x: torch.Tensor) -> Any:
        return Counts.apply(x)  # type: ignore[no-untyped-call]

    with pytest.raises(sf.FrameError, match="changes a Settings outside"):
        capture_frame(applies, (leaf(),))
    assert SETTINGS.count == 0


def test_a_function_whose_backward_would_be_lost_is_refused() -> None:
    class Numpyish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad if grad.sum() > 0 else -grad

    def applies(x: torch.Tensor) -> Any:
        return Numpyish.apply(x)  # type: ignore[no-untyped-call]

    with pytest.raises(sf.FrameError, match="cannot be captured"):
        capture_frame(applies, (leaf(),))
    agrees(applies, lambda: (torch.arange(4.0),))


def test_a_class_that_the_frame_makes_is_applied_on_the_machine() -> None:
    def applies(x: torch.Tensor) -> Any:
        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                return x * SETTINGS.scale

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
                return grad * SETTINGS.scale * 2

        return Own.apply(x)  # type: ignore[no-untyped-call]

    capture = agrees(applies, lambda: (leaf(),))
    torch.testing.assert_close(gradient(capture, leaf()), gradient(applies, leaf()))
    with mock.patch.object(SETTINGS, "scale", 4):
        assert "scale" in refuses(capture, leaf())


# -- contexts --------------------------------------------------------------------------------------


def node_of(x: torch.Tensor) -> Any:
    return Scaled.apply(x).grad_fn  # type: ignore[no-untyped-call]


def backward(ctx: Any, grad: torch.Tensor) -> Any:
    (x,) = ctx.saved_tensors
    return 5 * grad * x * ctx.scale if ctx.needs_input_grad[0] else None


@pytest.mark.spec("5.62")
def test_a_context_gives_its_saved_tensors_as_inputs() -> None:
    def world() -> tuple[Any, ...]:
        return node_of(leaf()), torch.ones(4)

    with watched() as seen:
        capture = agrees(backward, world)
    variable: Any = seen.outside["L['ctx']"]
    assert type(variable).__name__ == "AutogradFunctionContextVariable"
    assert type(variable.saved).__name__ == "SavedTensorBox"
    found = guards_of(capture)
    assert found[:2] == ["TYPE_MATCH L['ctx']", "SEQUENCE_LENGTH L['ctx'].saved_tensors"]
    assert "TENSOR_MATCH L['ctx'].saved_tensors[0]" in found
    other = node_of(torch.arange(4.0, requires_grad=True) + 2)
    torch.testing.assert_close(capture(other, torch.ones(4)), backward(other, torch.ones(4)))
    shorter = node_of(torch.ones(3, requires_grad=True))
    assert "saved_tensors[0]" in refuses(capture, shorter, torch.ones(4))
    other.scale = 4
    assert "scale" in refuses(capture, other, torch.ones(4))


@pytest.mark.spec("5.62")
def test_a_context_whose_tensors_are_freed_may_be_read_beside_them() -> None:
    def freed() -> tuple[Any, ...]:
        y = Scaled.apply(leaf())  # type: ignore[no-untyped-call]
        node = y.grad_fn
        y.sum().backward()
        return node, torch.ones(4)

    def reads(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * ctx.scale  # type: ignore[no-any-return]

    capture = agrees(reads, freed)
    assert not any("saved_tensors" in guard for guard in guards_of(capture))
    with pytest.raises(RuntimeError, match="freed"):
        capture_frame(backward, freed())


@pytest.mark.spec("5.62")
def test_what_a_forward_tells_its_context_is_told_when_it_runs() -> None:
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, x * 2)
        ctx.set_materialize_grads(False)
        ctx.power = 2
        return x * x

    agrees(forward, lambda: (torch.autograd.function.FunctionCtx(), torch.arange(3.0)))


# -- the engine ------------------------------------------------------------------------------------


@pytest.mark.spec("5.64")
def test_the_engine_is_one_object_and_is_not_asked() -> None:
    def hands_on(x: torch.Tensor) -> Any:
        return x * 2, ENGINE

    with watched() as seen:
        capture = capture_frame(hands_on, (torch.ones(2),))
    assert seen.kind("G['ENGINE']") == "AutogradEngineVariable"
    assert "ID_MATCH G['ENGINE']" in guards_of(capture)
    assert capture(torch.ones(2))[1] is ENGINE
    with mock.patch.dict(globals(), ENGINE=None):
        assert "G['ENGINE']" in refuses(capture, torch.ones(2))
    with pytest.raises(sf.FrameError, match="queue_callback"):
        capture_frame(lambda x: ENGINE.queue_callback(lambda: None), (torch.ones(2),))


@pytest.mark.spec("5.65")
def test_the_stub_of_final_callbacks_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeCompiledAutogradEngine:
        @staticmethod
        def _exec_final_callbacks_stub() -> None:
            raise AssertionError("the stub is not run")

    module: Any = types.ModuleType("torch._dynamo.external_utils")
    module.FakeCompiledAutogradEngine = FakeCompiledAutogradEngine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    stub = FakeCompiledAutogradEngine._exec_final_callbacks_stub

    def finishes(x: torch.Tensor, stub: Any) -> torch.Tensor:
        stub()
        return x * 2

    with watched() as seen:
        capture = capture_frame(finishes, (torch.ones(2), stub))
    assert seen.kind("L['stub']") == "LambdaVariable"
    assert "FUNCTION_MATCH L['stub']" in guards_of(capture)
    assert "L['stub']" in refuses(capture, torch.ones(2), lambda: None)
