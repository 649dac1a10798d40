"""Reads and writes of torch's generator in a frame."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees
from tests.variables.kinds.seen_kinds import watched

import stillframe as sf
from stillframe.variables import capture_frame

OTHER = torch.Generator()


def rewinds(x: torch.Tensor) -> Any:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = x + torch.rand(4)
    torch.set_rng_state(state)
    return first, x + torch.rand(4), torch.rand(2)


def rewinds_by_generator(x: torch.Tensor) -> Any:
    generator = torch.default_generator
    generator.manual_seed(5)
    state = generator.get_state()
    first = x + torch.rand(4)
    generator.set_state(state)
    return first, torch.rand(4)


def forks(x: torch.Tensor) -> Any:
    torch.manual_seed(3)
    before = torch.rand(2)
    with torch.random.fork_rng():
        inside = x + torch.rand(4)
        torch.manual_seed(9)
    return before, inside, torch.rand(2)


def forks_and_leaves(x: torch.Tensor) -> Any:
    torch.manual_seed(3)
    try:
        with torch.random.fork_rng():
            x = x + torch.rand(4)
            raise KeyError
    except KeyError:
        return x, torch.rand(2)


@pytest.mark.spec("5.102")
@pytest.mark.parametrize("function", [rewinds, rewinds_by_generator, forks, forks_and_leaves])
def test_the_state_is_read_and_set_when_the_graph_runs(function: Any) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with watched() as seen:
        capture = capture_frame(function, (torch.zeros(4),))
    torch.testing.assert_close(torch.get_rng_state(), before, rtol=0, atol=0)
    kinds = {type(variable).__name__ for variable in seen.outside.values()}
    assert "GeneratorFunctionVariable" in kinds
    agrees(function, lambda: (torch.zeros(4),))
    ours = capture(torch.zeros(4)), torch.rand(3)
    theirs = function(torch.zeros(4)), torch.rand(3)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.initial_seed(),
        lambda x: x + torch.seed(),
        lambda x: x + OTHER.initial_seed(),
        lambda x: (OTHER.manual_seed(3), x),
    ],
)
def test_what_the_capture_alone_would_know_is_refused(function: Any) -> None:
    state = OTHER.get_state(), torch.get_rng_state()
    with pytest.raises(sf.FrameError, match=r"seed|torch\.Generator"):
        capture_frame(function, (torch.zeros(2),))
    torch.testing.assert_close((OTHER.get_state(), torch.get_rng_state()), state)


def test_a_seed_in_an_arm_is_refused() -> None:
    def arm(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return x + 1

    def branches(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, arm, lambda v: v * 2, (x,))

    with pytest.raises(sf.FrameError, match="manual_seed"):
        capture_frame(branches, (torch.ones(2),))


@pytest.mark.spec("5.103")
def test_guards_of_functorch_and_fork_queries_leave_no_node() -> None:
    def asks(x: torch.Tensor) -> Any:
        held = torch._C._DisableFuncTorch()
        y = x * 2
        del held
        return y, torch.cuda._is_in_bad_fork()

    def keeps(x: torch.Tensor) -> Any:
        return x * 2, torch._C._DisableFuncTorch()

    capture = agrees(asks, lambda: (torch.ones(2),))
    calls = [n for n in capture.graph_module.graph.nodes if n.op == "call_function"]
    assert [n.target for n in calls] == [torch.ops.aten.mul.Tensor]
    keys = str(torch._C._dispatch_tls_local_exclude_set())
    with pytest.raises(sf.FrameError, match="_DisableFuncTorch"):
        capture_frame(keeps, (torch.ones(2),))
    gc.collect()
    assert str(torch._C._dispatch_tls_local_exclude_set()) == keys
