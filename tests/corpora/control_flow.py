"""Programs with control flow, each a function of one tensor and of the operators that it calls.

Traced they call torch's operators; eagerly the plain ones below, so no oracle goes through torch's
compiler, which refuses some of the programs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as torch_map
from torch.utils import _pytree as pytree

Program = Callable[[torch.Tensor, Any], Any]

PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


# -- the operators --------------------------------------------------------------------------------


def _plain_cond(pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    return (true_fn if bool(pred) else false_fn)(*operands)


def _plain_while(cond_fn: Any, body_fn: Any, carried: Any) -> Any:
    while bool(cond_fn(*carried)):
        carried = body_fn(*carried)
    return carried


def _stacked(steps: list[Any], dim: int = 0) -> Any:
    return pytree.tree_map(lambda *column: torch.stack(column, dim), steps[0], *steps[1:])


def _plain_map(function: Any, xs: Any, *args: Any) -> Any:
    length = pytree.tree_leaves(xs)[0].shape[0]
    return _stacked([function(_at(xs, i, 0), *args) for i in range(length)])


def _at(xs: Any, i: int, dim: int) -> Any:
    return pytree.tree_map(lambda x: x.select(dim, i), xs)


def _plain_scan(combine: Any, init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> Any:
    carry, steps = init, []
    order = list(range(pytree.tree_leaves(xs)[0].shape[dim]))
    for i in reversed(order) if reverse else order:
        carry, out = combine(carry, _at(xs, i, dim))
        steps.append(out)
    return carry, _stacked(steps[::-1] if reverse else steps)


def _plain_prefixes(combine: Any, xs: Any, dim: int, **_: Any) -> Any:
    steps = [_at(xs, 0, dim)]
    for i in range(1, pytree.tree_leaves(xs)[0].shape[dim]):
        steps.append(combine(steps[-1], _at(xs, i, dim)))
    return _stacked(steps, dim)


def _plain_steps(cond_fn: Any, body_fn: Any, carried: Any, _: Any) -> Any:
    steps = []
    while bool(cond_fn(*carried)):
        carried = body_fn(*carried)
        steps.append(carried)
    return _stacked(steps or [carried])


def _plain_operator(combine: Any, xs: Any, _: Any) -> Any:
    steps = [[x[0] for x in xs]]
    for i in range(1, xs[0].shape[0]):
        steps.append(combine(*steps[-1], *(x[i] for x in xs)))
    return _stacked(steps)


PLAIN = SimpleNamespace(
    cond=_plain_cond, while_loop=_plain_while, map=_plain_map, scan=_plain_scan,
    associative_scan=_plain_prefixes, loop_operator=_plain_steps, prefix_operator=_plain_operator,
)  # fmt: skip


def torch_operators() -> SimpleNamespace:
    """Looked up at the call: a capture stands in for some of them."""
    return SimpleNamespace(
        cond=torch.cond, while_loop=while_loop, map=torch_map, scan=scan,
        associative_scan=associative_scan,
        loop_operator=torch.ops.higher_order.while_loop_stack_output,
        prefix_operator=torch.ops.higher_order.associative_scan,
    )  # fmt: skip


def traced(name: str) -> Callable[[torch.Tensor], Any]:
    """The program for a capture."""
    return lambda x: PROGRAMS[name](x, torch_operators())


def eager(name: str) -> Callable[[torch.Tensor], Any]:
    """The same for an ordinary run."""
    return lambda x: PROGRAMS[name](x, PLAIN)


# -- what programs close over, and inputs for both outcomes ---------------------------------------

WEIGHT = torch.linspace(-1, 1, 3)
EXAMPLE = torch.linspace(-1, 2, 12).reshape(4, 3)
SAME_SIZES = (EXAMPLE, -EXAMPLE, EXAMPLE.abs() + 1, -EXAMPLE.abs())
OTHER_SIZES = (torch.linspace(-3, 5, 18).reshape(6, 3), -torch.linspace(-3, 5, 9).reshape(3, 3))

# They read numbers from tensors, which a trace of real tensors refuses.
READ_NUMBERS = {"number_of_data", "predicate_of_numbers", "integers_until_a_number"}
# A size of the result depends on the data; a trace of real tensors has the example's.
SIZES_OF_DATA = {"sizes_that_differ", "an_integer"}
# torch unrolls it over the length.
UNROLLED = {"prefix_sums"}


# -- torch.cond -----------------------------------------------------------------------------------


@program
def nested(x: torch.Tensor, ops: Any) -> Any:
    """Inner arms use a size and a tensor of the outermost graph."""
    n = x.shape[0]

    def outer(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return ops.cond(x.max() > 1, lambda x: x * n + y + WEIGHT, lambda x: x - y, (x,))

    return ops.cond(x.sum() > 0, outer, lambda x: x + n, (x,))


@program
def number_of_data(x: torch.Tensor, ops: Any) -> Any:
    k = (x > 0).sum().item()
    return ops.cond(x.sum() > 0, lambda x: x * k + k * 2, lambda x: x - x.shape[0] * k, (x,))


@program
def predicate_of_sizes(x: torch.Tensor, ops: Any) -> Any:
    return ops.cond(x.shape[0] > 4, lambda: x * 2, lambda: x.sin())


@program
def predicate_of_numbers(x: torch.Tensor, ops: Any) -> Any:
    k = (x > 0).sum().item()
    return ops.cond(k > 6, lambda: x + k, lambda: x - 1)


@program
def predicate_with_a_dim(x: torch.Tensor, ops: Any) -> Any:
    return ops.cond((x.sum() > 0).reshape(1), lambda: x + 1, lambda: x - 1)


@program
def sizes_that_differ(x: torch.Tensor, ops: Any) -> Any:
    y = ops.cond(x.sum() > 0, lambda x: x[:2].clone(), lambda x: x[:3].clone(), (x,))
    return y * 2, y.shape[0]


@program
def indices(x: torch.Tensor, ops: Any) -> Any:
    """The sizes of both arms are symbols of their own."""
    y = ops.cond(x.sum() > 0, lambda x: x.nonzero(), lambda x: (x < 0).nonzero(), (x,))
    return y + 1


@program
def strides_that_differ(x: torch.Tensor, ops: Any) -> Any:
    y = ops.cond(x.sum() > 0, lambda: (x * 2).t().contiguous().t(), lambda: x + 1)
    return y.sin(), y + 1


@program
def an_integer(x: torch.Tensor, ops: Any) -> Any:
    return x * ops.cond(x.sum() > 0, lambda x: x.shape[0], lambda x: 7, (x,))


@program
def operands_as_results(x: torch.Tensor, ops: Any) -> Any:
    return ops.cond(x.sum() > 0, lambda x: (x, x, None), lambda x: (x.t().t(), x + 1, None), (x,))


@program
def containers(x: torch.Tensor, ops: Any) -> Any:
    pair = {"a": x, "b": [x * 3]}
    return ops.cond(
        x.sum() > 0,
        lambda p: {"u": p["a"] + 1, "v": [p["b"][0] * 2]},
        lambda p: {"u": p["a"] - 1, "v": [p["b"][0]]},
        (pair,),
    )


@program
def constants_inside(x: torch.Tensor, ops: Any) -> Any:
    def with_literal(x: torch.Tensor) -> torch.Tensor:
        step = torch.tensor([1.0, 2.0, 3.0])
        step.add_(1)
        return x + step

    return ops.cond(x.sum() > 0, with_literal, lambda x: x * torch.ones(3), (x,))


@program
def in_place_on_own_memory(x: torch.Tensor, ops: Any) -> Any:
    def arm(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[0].mul_(3)
        return y.add_(1)

    return ops.cond(x.sum() > 0, arm, lambda x: x.sin(), (x,))


@program
def one_after_another(x: torch.Tensor, ops: Any) -> Any:
    y = ops.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))
    return ops.cond(y.sum() > 6, lambda: y * x, lambda: y - x), y


@program
def grad_mode_inside(x: torch.Tensor, ops: Any) -> Any:
    def arm(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x * 2
        return y + x

    return ops.cond(x.sum() > 0, arm, lambda x: x * 1, (x,))


# -- loops ----------------------------------------------------------------------------------------


@program
def loop(x: torch.Tensor, ops: Any) -> Any:
    n = x.shape[0]
    return ops.while_loop(
        lambda i, y: i < n, lambda i, y: (i + 1, y * WEIGHT + x + n), (torch.tensor(0), x)
    )


@program
def loop_without_a_step(x: torch.Tensor, ops: Any) -> Any:
    return ops.while_loop(lambda i, y: i < 0, lambda i, y: (i + 1, y * 2), (torch.tensor(0), x))


@program
def loop_over_a_view(x: torch.Tensor, ops: Any) -> Any:
    return ops.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, (y * 2).t().contiguous().t()),
        (torch.tensor(0), x.t()),
    )[1]  # fmt: skip


@program
def integers_until_a_number(x: torch.Tensor, ops: Any) -> Any:
    k = (x > 0).sum().item()
    return ops.while_loop(lambda i, y: i < k, lambda i, y: (i + 1, y + i), (0, x))[1]


@program
def cond_in_a_loop(x: torch.Tensor, ops: Any) -> Any:
    def body(i: torch.Tensor, y: torch.Tensor) -> Any:
        return i + 1, ops.cond(y.sum() > 0, lambda: y - i, lambda: y + x)

    return ops.while_loop(lambda i, y: i < 3, body, (torch.tensor(0), x))[1]


@program
def mapped(x: torch.Tensor, ops: Any) -> Any:
    return ops.map(lambda row, w: (row.sin() + w, {"sum": row.sum()}), x, WEIGHT)


@program
def cond_in_a_map(x: torch.Tensor, ops: Any) -> Any:
    total = x.sum()
    return ops.map(lambda r: ops.cond(r.sum() > 0, lambda r: r + total, lambda r: r * 2, (r,)), x)


@program
def scanned(x: torch.Tensor, ops: Any) -> Any:
    return ops.scan(
        lambda c, r: ({"a": c["a"] + r["u"]}, [r["u"] * 2, c["a"].clone()]), {"a": WEIGHT}, {"u": x}
    )


@program
def scanned_backwards(x: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * 0.5 + r, c - r), WEIGHT, x, reverse=True)


@program
def scanned_columns(x: torch.Tensor, ops: Any) -> Any:
    return ops.scan(lambda c, r: (c * 0.5 + r.sum(), r.sum() - c), torch.zeros(()), x, dim=1)


@program
def prefix_sums(x: torch.Tensor, ops: Any) -> Any:
    return ops.associative_scan(
        lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (x, x.sin()), 0, combine_mode="generic"
    )


@program
def steps_of_a_loop(x: torch.Tensor, ops: Any) -> Any:
    """One row for each step; the number of steps is a symbol of the result."""
    limit = (x > 0).sum() % 4
    i, y = ops.loop_operator(
        lambda i, y: i < limit, lambda i, y: (i + 1, y * 2 + i), (torch.tensor(0), x), ()
    )
    return i * 2, y.sum(0), y.shape[0] + y


@program
def prefixes(x: torch.Tensor, ops: Any) -> Any:
    first, second = ops.prefix_operator(lambda a, u, b, v: [a * b, b * u + v], [x, x.sin()], ())
    return first + 1, second
