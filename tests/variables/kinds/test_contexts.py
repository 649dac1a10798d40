"""Context managers of torch, from outside and made in the frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.seen_kinds import watched

import stillframe as sf
from stillframe.variables import capture_frame

no_grad = torch.no_grad


def leaf() -> torch.Tensor:
    return torch.arange(4.0, requires_grad=True)


def entered(x: torch.Tensor, region: Any) -> Any:
    with region:
        y = x * 2
    return y, x * 3


def product(x: torch.Tensor, region: Any) -> Any:
    with region as given:
        return x[None] @ x[:, None], given is None


# -- the ways out of a block -----------------------------------------------------------------------


def left_by_return(x: torch.Tensor) -> Any:
    with torch.no_grad():
        return x * 2


def left_by_break(x: torch.Tensor) -> Any:
    for i in range(3):
        with torch.enable_grad():
            if i == 1:
                break
            x = x * 2
    return x * 2


def left_by_continue(x: torch.Tensor) -> Any:
    total = x
    for _ in range(2):
        with torch.set_grad_enabled(False):
            total = total * 2
            continue
    return total, x * 2


def left_by_exception(x: torch.Tensor) -> Any:
    try:
        with torch.inference_mode():
            y = x * 2
            raise ValueError("out")
    except ValueError:
        pass
    return y + 0, x * 2


def nested(x: torch.Tensor) -> Any:
    with torch.no_grad():
        with torch.enable_grad():
            y = x * 2
        z = x * 3
    return y, z, x * 4


def cast(x: torch.Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        y = x[None] @ x[:, None]
        with torch.autocast("cpu", enabled=False):
            z = x[None] @ x[:, None]
    return y, z


@contextlib.contextmanager
def user_region(number: int) -> Iterator[int]:
    with torch.no_grad():
        yield number + 1


def with_user_region(x: torch.Tensor) -> Any:
    with user_region(3) as k:
        y = x * k
    return y, x * k


@torch.no_grad()
def decorated(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def calls_decorated(x: torch.Tensor) -> Any:
    return decorated(x), x * 2


def in_a_generator(x: torch.Tensor) -> Any:
    def steps() -> Iterator[torch.Tensor]:
        with torch.no_grad():
            yield x * 2
            yield x * 3

    own = steps()
    first, between = next(own), x * 4
    return first, between, list(own), x * 5


def in_a_stack(x: torch.Tensor) -> Any:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        y = x[None] @ x[:, None]
    return y, x * 2


def switched(x: torch.Tensor) -> Any:
    torch.set_grad_enabled(False)
    y = x * 2
    torch.set_grad_enabled(True)
    return y, x * 2


@pytest.mark.spec("5.87")
@pytest.mark.parametrize(
    "function",
    [
        left_by_return, left_by_break, left_by_continue, left_by_exception, nested, cast,
        with_user_region, calls_decorated, switched, in_a_generator, in_a_stack,
    ],
)  # fmt: skip
def test_a_region_ends_whichever_way_it_is_left(function: Callable[..., Any]) -> None:
    agrees(function, lambda: (leaf(),))
    assert torch.is_grad_enabled()


def test_a_mode_that_is_not_switched_back_is_refused() -> None:
    def leaves_it(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return x * 2

    with pytest.raises(sf.FrameError, match="switches a mode of torch"):
        capture_frame(leaves_it, (leaf(),))
    assert torch.is_grad_enabled()


# -- objects from outside --------------------------------------------------------------------------


@pytest.mark.spec("5.74")
def test_a_null_context_is_known_by_its_class_and_that_it_gives_nothing() -> None:
    with watched() as seen:
        capture = agrees(entered, lambda: (leaf(), contextlib.nullcontext()))
    assert seen.kind("L['region']") == "NullContextVariable"
    assert "TYPE_MATCH L['region']" in guards_of(capture)
    assert "enter_result" in refuses(capture, leaf(), contextlib.nullcontext(3))
    assert "L['region']" in refuses(capture, leaf(), torch.no_grad())
    with watched() as seen:
        capture = agrees(product, lambda: (torch.arange(3.0), contextlib.nullcontext(3)))
    assert seen.kind("L['region']") == "UserDefinedObjectVariable"
    assert "enter_result" in refuses(capture, torch.arange(3.0), contextlib.nullcontext())


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (torch.no_grad, [torch.enable_grad, lambda: torch.inference_mode()]),
        (torch.enable_grad, [torch.no_grad]),
        (torch.inference_mode, [lambda: torch.inference_mode(False)]),
        (lambda: torch.inference_mode(False), [torch.inference_mode]),
    ],
)
def test_a_grad_mode_region_from_outside(make: Any, others: list[Any]) -> None:
    with watched() as seen:
        capture = agrees(entered, lambda: (leaf(), make()))
    assert seen.kind("L['region']") == "GradModeVariable"
    assert "TYPE_MATCH L['region']" in guards_of(capture)
    for other in others:
        assert "L['region']" in refuses(capture, leaf(), other())


def test_a_switch_from_outside_says_to_what() -> None:
    off = torch.set_grad_enabled(False)
    torch.set_grad_enabled(True)
    capture = capture_frame(entered, (leaf(), off))
    assert not capture(leaf(), off)[0].requires_grad
    on = torch.set_grad_enabled(True)
    assert "L['region'].mode" in refuses(capture, leaf(), on)


@pytest.mark.spec("5.86")
def test_an_autocast_region_is_the_very_object_with_its_fields() -> None:
    region = torch.autocast("cpu", torch.bfloat16)
    x = torch.arange(4.0)
    with watched() as seen:
        capture = agrees(product, lambda: (torch.arange(4.0), region))
    variable: Any = seen.outside["L['region']"]
    assert type(variable).__name__ == "AutocastModeVariable"
    assert variable.fields[:3] == ("cpu", torch.bfloat16, True)
    assert "ID_MATCH L['region']" in guards_of(capture)
    assert "the very object" in refuses(capture, x, torch.autocast("cpu", torch.bfloat16))
    region.fast_dtype = torch.float16
    assert "fast_dtype" in refuses(capture, x, region)
    region.fast_dtype = torch.bfloat16
    region._enabled = False
    assert "_enabled" in refuses(capture, x, region)


def test_a_region_from_outside_is_entered_again() -> None:
    def twice(x: torch.Tensor, region: Any) -> Any:
        for _ in range(2):
            with region:
                x = x @ x
        return x, x @ x

    regions = [torch.autocast("cpu", torch.bfloat16), torch.no_grad()]
    for region in regions:
        agrees(twice, lambda region=region: (torch.ones(2, 2, requires_grad=True), region))  # type: ignore[misc]


# -- classes ---------------------------------------------------------------------------------------


@pytest.mark.spec("5.87")
def test_the_class_of_a_region_is_known_by_identity() -> None:
    def enters(x: torch.Tensor) -> Any:
        with no_grad():
            return x * 2

    with watched() as seen:
        capture = agrees(enters, lambda: (leaf(),))
    assert seen.kind("G['no_grad']") == "TorchCtxManagerClassVariable"
    assert "FUNCTION_MATCH G['no_grad']" in guards_of(capture)
    global no_grad
    try:
        no_grad = torch.enable_grad  # type: ignore[assignment, misc]
        assert "G['no_grad']" in refuses(capture, leaf())
    finally:
        no_grad = torch.no_grad  # type: ignore[misc]


def test_a_class_that_switches_what_no_graph_holds_is_refused() -> None:
    def hooks(x: torch.Tensor) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            return x * x

    with pytest.raises(sf.FrameError, match="saved_tensors_hooks"):
        capture_frame(hooks, (leaf(),))


@pytest.mark.spec("5.75")
def test_version_counters_are_put_back_when_the_graph_runs() -> None:
    preserve = torch.autograd._unsafe_preserve_version_counter

    def hides(x: torch.Tensor, y: torch.Tensor) -> Any:
        with preserve((x,)):
            x.add_(1)
            y.add_(1)
        return x * 2

    def world() -> tuple[Any, ...]:
        return torch.arange(3.0), torch.arange(3.0)

    with watched() as seen:
        capture = agrees(hides, world)
    assert seen.kind("L['preserve']") == "LambdaVariable"
    assert "FUNCTION_MATCH L['preserve']" in guards_of(capture)
    ours, theirs = world(), world()
    capture(*ours)
    hides(*theirs)
    assert [t._version for t in ours] == [t._version for t in theirs] == [0, 1]
