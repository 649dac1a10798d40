"""First and second derivatives of map and scan: those of the loop written out in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from tests.corpora.control_flow import EXAMPLE, WEIGHT

import stillframe as sf

Loop = Callable[[torch.Tensor, torch.Tensor, Any], Any]
LOOPS: dict[str, Loop] = {}


def loop(f: Loop) -> Loop:
    LOOPS[f.__name__] = f
    return f


@loop
def integers_among_the_results(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * r, [c * 2, (r > 0).sum(), r + 1]), w * 1, x)


@loop
def a_carry_that_is_not_dense(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * r + c.sum(), c @ r), (x.t() @ x).t(), x)


@loop
def from_the_end(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * r * w, c + r), w * 1, x, reverse=True)


@loop
def over_columns(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c + r.sum() * w, c * r.mean()), w * 1, x, dim=1)


@loop
def two_carries(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: ((c[0] * r + c[1], c[1].sin()), c[0] * c[1]), (w * 1, w * 2), x)


@loop
def a_detached_result(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * r, c.detach()), w * 1, x)


@loop
def a_region_without_gradients(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def step(c: torch.Tensor, r: torch.Tensor) -> Any:
        with torch.no_grad():
            k = c * 2
        return c * r + k, k * r

    return ops.scan(step, w * 1, x)


@loop
def a_scan_in_a_scan(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def step(c: torch.Tensor, r: torch.Tensor) -> Any:
        inner = ops.scan(lambda d, e: (d + e * c.sum(), d * e), c.sum() * 0 + 1.0, r)[0]
        return inner * c, c * w

    return ops.scan(step, w * 0.5, x)


@loop
def a_map_of_two(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.map(lambda t, w: (t[0] * w, t[1].sin() * t[0].sum()), (x, x * 2), w)


@loop
def a_map_with_integers(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.map(lambda r: (r * w, (r > 0).sum()), x)


def derivatives(f: Loop, ops: Any, order: int) -> Callable[..., Any]:
    def run(x: torch.Tensor, w: torch.Tensor) -> Any:
        inputs = [t.detach().requires_grad_() for t in (x, w)]
        found: Any = torch.utils._pytree.tree_leaves(f(*inputs, ops))
        for left in reversed(range(order)):
            total = sum((y * y).sum() for y in found if y.requires_grad)
            found = torch.autograd.grad(
                total, inputs, create_graph=left > 0, allow_unused=True, materialize_grads=True
            )
        return found

    return run


@pytest.mark.parametrize(("mode", "order"), [("real", 1), ("symbolic", 2)])
@pytest.mark.parametrize("name", LOOPS)
def test_derivatives(name: str, order: int, mode: str) -> None:
    f = LOOPS[name]
    traced = derivatives(f, control_flow.torch_operators(), order)
    graph = sf.make_fx(traced, tracing_mode=mode)(EXAMPLE.double(), WEIGHT.double())
    for run in control_flow.SAME_SIZES:
        x, w = run.double() * 0.5, WEIGHT.double()
        want = derivatives(f, control_flow.PLAIN, order)(x, w)
        torch.testing.assert_close(graph(x, w), want)
