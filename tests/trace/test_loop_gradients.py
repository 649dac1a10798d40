"""First and second derivatives of loops: those of the loop written out in Python."""

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
def integers_among_the_carries(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def step(carry: Any, r: torch.Tensor) -> Any:
        i, c = carry
        return (i + 1, c * r + w * i), (c * 2, i * 2)

    return ops.scan(step, (torch.tensor(0), w * 1), x)


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


@loop
def until_a_counter(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def step(i: torch.Tensor, c: torch.Tensor) -> Any:
        return i + 1, (c * w).sin() + x.mean() * i

    return ops.while_loop(lambda i, c: i < 3, step, (torch.tensor(0), x * 1))[1]


@loop
def until_the_data_say_so(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    return ops.while_loop(lambda c: c.abs().sum() < 40, lambda c: (c * 1.5 + w,), (x * 1,))


@loop
def no_step_at_all(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    counter = torch.tensor(0)
    return ops.while_loop(lambda i, c: i < 0, lambda i, c: (i + 1, c * w), (counter, x * 1))[1]


@loop
def a_loop_in_a_loop(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def step(i: torch.Tensor, c: torch.Tensor) -> Any:
        inner = ops.while_loop(
            lambda j, d: j < i, lambda j, d: (j + 1, d * c.mean()), (torch.tensor(0), c * 0.5)
        )
        return i + 1, inner[1] + w

    return ops.while_loop(lambda i, c: i < 3, step, (torch.tensor(0), x * 1))[1]


@loop
def every_step_of_a_loop(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    counter = torch.tensor(0)
    return ops.loop_operator(
        lambda i, c: i < 3, lambda i, c: (i + 1, (c * w).sin()), (counter, x * 1), ()
    )[1]


@loop
def every_step_of_none(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    counter = torch.tensor(0)
    return ops.loop_operator(lambda i, c: i < 0, lambda i, c: (i + 1, c * w), (counter, x * 1), ())[
        1
    ]


@loop
def products_of_prefixes(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    factor = w.mean()
    return ops.prefix_operator(lambda a, b: [a * b * factor], [x * 1], ())


@loop
def prefixes_of_pairs(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    pair = [x.sin(), x * w.sum()]
    return ops.prefix_operator(lambda a, u, b, v: [a * b, b * u + v], pair, ())


@loop
def prefixes_with_integers(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    def combine(a: Any, i: Any, b: Any, j: Any) -> Any:
        return [a * b, torch.maximum(i, j)]

    return ops.prefix_operator(combine, [x * w.sum(), (x > 0).long()], ())


@loop
def prefixes_of_one_slice(x: torch.Tensor, w: torch.Tensor, ops: Any) -> Any:
    factor = w.mean()
    return ops.prefix_operator(lambda a, b: [a * b * factor], [x[:1]], ())


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


def test_the_gradient_of_an_open_loop_is_a_loop() -> None:
    f = derivatives(until_the_data_say_so, control_flow.torch_operators(), 1)
    graph = sf.make_fx(f, tracing_mode="symbolic")(EXAMPLE, WEIGHT)
    again = sf.make_fx(graph, tracing_mode="symbolic")(EXAMPLE, WEIGHT)
    want = derivatives(until_the_data_say_so, control_flow.PLAIN, 1)
    loops = torch.ops.higher_order.while_loop, torch.ops.higher_order.while_loop_stack_output
    for traced in (graph, again):
        for x in (*control_flow.SAME_SIZES, *control_flow.OTHER_SIZES):
            torch.testing.assert_close(traced(x, WEIGHT), want(x, WEIGHT))
        targets = [n.target for n in traced.graph.nodes]
        assert [targets.count(loop) for loop in loops] == [2, 1]


def test_the_gradient_of_a_loop_over_integers_of_python_is_refused() -> None:
    def f(x: torch.Tensor) -> Any:
        x = x.detach().requires_grad_()
        ops = control_flow.torch_operators()
        _, y = ops.while_loop(lambda i, c: i < 3, lambda i, c: (i + 1, c * 2), (0, x * 1))
        return torch.autograd.grad(y.sum(), x)

    with pytest.raises(sf.NotSupported, match="carries integers of Python"):
        sf.make_fx(f, tracing_mode="symbolic")(EXAMPLE)


RANDOM = {
    "condition": (lambda i, c: (i < 3) & (torch.rand(()) < 2), lambda i, c: (i + 1, c * 2)),
    "body": (lambda i, c: i < 3, lambda i, c: (i + 1, torch.dropout(c, 0.5, True))),
}


@pytest.mark.parametrize("where", RANDOM)
def test_the_gradient_of_a_random_loop_is_refused(where: str) -> None:
    def f(x: torch.Tensor) -> Any:
        x = x.detach().requires_grad_()
        ops = control_flow.torch_operators()
        y = ops.while_loop(*RANDOM[where], (torch.tensor(0), x * 1))[1]
        return torch.autograd.grad(y.sum(), x)

    with pytest.raises(sf.NotSupported, match="draw random numbers"):
        sf.make_fx(f, tracing_mode="fake")(EXAMPLE)
