"""Steps of ``torch.optim`` in a captured frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.variables.checking import assert_same, guards_of, refuses
from tests.variables.kinds.tracked import kinds_of
from torch import nn, optim
from torch.optim.optimizer import register_optimizer_step_post_hook

import stillframe as sf
from stillframe.source import OptimizerSource, chain
from stillframe.variables import FrameCapture, capture_frame

World = tuple[nn.Module, optim.Optimizer]


def world(make: Callable[..., optim.Optimizer], steps: int = 2, **options: Any) -> World:
    """A layer with gradients, and its optimizer after some steps."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = make(layer.parameters(), **options)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(4, 3)).pow(2).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    layer(torch.randn(4, 3)).pow(2).sum().backward()
    return layer, optimizer


def step(layer: nn.Module, optimizer: optim.Optimizer) -> Any:
    optimizer.step()


def state_of(layer: nn.Module, optimizer: optim.Optimizer) -> list[Any]:
    """All numbers: parameters, gradients, and what the optimizer keeps."""
    values: list[Any] = [(p.detach().clone(), p.grad) for p in layer.parameters()]
    return [values, [dict(optimizer.state.get(p, {})) for p in layer.parameters()]]


def equal(ours: Any, theirs: Any) -> None:
    """As eager's, to the last bit."""
    assert str(type(ours)) == str(type(theirs))
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        equal(list(ours.values()), list(theirs.values()))
    elif isinstance(ours, (list, tuple)):
        for one, other in zip(ours, theirs, strict=True):
            equal(one, other)
    else:
        assert ours == theirs


def same_as_eager(
    make: Callable[[], Any], function: Callable[..., Any] = step, calls: int = 2
) -> FrameCapture:
    """Capture a step, and compare the world that it leaves with eager's."""
    ours, untouched, theirs = make(), make(), make()
    capture = capture_frame(function, ours)
    equal(state_of(*ours[:2]), state_of(*untouched[:2]))
    for _ in range(calls):
        assert capture.failure(*ours) is None, capture.failure(*ours)
        equal(capture(*ours), function(*theirs))
        equal(state_of(*ours[:2]), state_of(*theirs[:2]))
    return capture


@pytest.mark.spec("5.77")
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (optim.SGD, {"lr": 0.1}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (optim.Adam, {}),
        (optim.Adam, {"foreach": True, "amsgrad": True}),
        (optim.AdamW, {"maximize": True}),
        (optim.RMSprop, {"momentum": 0.5}),
        (optim.Adagrad, {"lr_decay": 0.1}),
        (optim.Adam, {"lr": torch.tensor(0.1)}),
    ],
)
def test_a_step_leaves_what_eager_leaves(make: Any, options: dict[str, Any]) -> None:
    same_as_eager(lambda: world(make, **options))


@pytest.mark.spec("5.77")
def test_an_optimizer_is_this_very_one_and_what_it_holds_is_an_optimizers() -> None:
    layer, optimizer = world(optim.SGD, lr=0.1, momentum=0.9)
    capture = capture_frame(step, (layer, optimizer))
    assert kinds_of(step, (layer, optimizer))["L['optimizer']"] == "OptimizerVariable"
    found = guards_of(capture)
    assert "ID_MATCH L['optimizer']" in found
    assert "CONSTANT_MATCH L['optimizer'].param_groups[0]['lr']" in found
    assert not any("L['layer']" in guard for guard in found)
    for guard in capture.guards:
        if "param_groups" in guard.name:
            assert any(isinstance(s, OptimizerSource) for s in chain(guard.originating_source))
    assert "ID_MATCH" in refuses(capture, layer, world(optim.SGD, lr=0.1, momentum=0.9)[1])
    optimizer.param_groups[0]["lr"] = 0.2
    assert "['lr']" in refuses(capture, layer, optimizer)
    optimizer.param_groups[0]["lr"] = 0.1
    assert capture.failure(layer, optimizer) is None
    optimizer.register_step_pre_hook(lambda *_: None)
    assert "_optimizer_step_pre_hooks" in refuses(capture, layer, optimizer)


@pytest.mark.spec("5.77")
def test_state_and_gradients_that_come_or_go_are_seen() -> None:
    layer, optimizer = world(optim.SGD, steps=0, lr=0.1, momentum=0.9)
    first = capture_frame(step, (layer, optimizer))
    first(layer, optimizer)
    assert ".state" in refuses(first, layer, optimizer)
    later = capture_frame(step, (layer, optimizer))
    assert later.failure(layer, optimizer) is None
    layer.bias.grad = None
    assert ".grad" in refuses(later, layer, optimizer)
    optimizer.state.clear()
    assert ".state" in refuses(later, layer, optimizer)


@pytest.mark.spec("5.77")
@pytest.mark.parametrize("make", [optim.Adam, optim.SGD])
def test_the_first_step_makes_the_state(make: Any) -> None:
    options = {"lr": 0.1, "momentum": 0.9} if make is optim.SGD else {}
    same_as_eager(lambda: world(make, steps=0, **options), calls=1)


def test_hooks_groups_and_schedules_are_run() -> None:
    def hooked() -> World:
        layer, optimizer = world(optim.SGD, lr=0.1)
        optimizer.register_step_post_hook(
            lambda self, args, kwargs: self.param_groups[0].update(lr=0.5)
        )
        return layer, optimizer

    same_as_eager(hooked, calls=1)

    def groups() -> World:
        layer, _ = world(optim.SGD, lr=0.1)
        weight, bias = layer.parameters()
        return layer, optim.Adam([{"params": [weight], "lr": 0.1}, {"params": [bias]}])

    same_as_eager(groups, calls=1)

    def scheduled() -> Any:
        layer, optimizer = world(optim.SGD, lr=0.1)
        return layer, optimizer, optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def step_and_decay(layer: Any, optimizer: Any, schedule: Any) -> None:
        optimizer.step()
        schedule.step()

    capture = capture_frame(step_and_decay, ours := scheduled())
    theirs = scheduled()
    capture(*ours)
    step_and_decay(*theirs)
    equal(state_of(*ours[:2]), state_of(*theirs[:2]))
    assert ours[1].param_groups[0]["lr"] == theirs[1].param_groups[0]["lr"] == 0.05


def test_a_step_and_a_forward_share_the_parameters() -> None:
    def step_and_run(layer: Any, optimizer: Any) -> Any:
        optimizer.step()
        return layer(torch.ones(1, 3)), layer.weight.grad, layer.weight in optimizer.state

    same_as_eager(lambda: world(optim.Adam), step_and_run)


def test_what_no_graph_holds_is_refused_by_name() -> None:
    def train(layer: Any, optimizer: Any) -> Any:
        loss = layer(torch.ones(4, 3)).sum()
        loss.backward()
        optimizer.step()
        return loss

    with pytest.raises(sf.FrameError, match="backward"):
        capture_frame(train, world(optim.SGD, lr=0.1))


def test_gradients_are_clipped_as_in_eager() -> None:
    def clip(layer: Any, optimizer: Any) -> Any:
        norm = nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
        optimizer.step()
        return norm

    same_as_eager(lambda: world(optim.SGD, lr=0.1), clip, calls=1)


def test_hooks_for_all_optimizers_are_seen() -> None:
    layer, optimizer = world(optim.SGD, lr=0.1)
    capture = capture_frame(step, (layer, optimizer))
    handle = register_optimizer_step_post_hook(lambda *_: None)
    try:
        assert "_global_optimizer_post_hooks" in refuses(capture, layer, optimizer)
    finally:
        handle.remove()
    assert_same(capture.failure(layer, optimizer), None)


def test_what_compilers_patch_into_optimizers_is_seen_through() -> None:
    torch.compile(nn.Linear(3, 3), backend="eager")  # patches the classes of torch.optim
    same_as_eager(lambda: world(optim.SGD, lr=0.1, momentum=0.9))
