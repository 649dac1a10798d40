"""Control flow as plain Python: what the higher-order operators mean.

A trace of real tensors calls these, and the code of a program calls :data:`CONTROL_FLOW` with the
functions of its subgraphs. They take and give what the
operators take and give, and eager autograd goes through them. Where the program is captured itself,
or runs inside a transform of ``torch.func``, the operator is called: it keeps both arms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout

Function = Callable[..., Any]


def cond(
    pred: Any, true_graph: Function, false_graph: Function, operands: Sequence[Any]
) -> tuple[Any, ...]:
    """One of two functions."""
    return tuple((true_graph if pred else false_graph)(*operands))


def while_loop(
    cond: Function, body: Function, carried: Sequence[Any], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """``body`` as long as ``cond`` holds. Results are never the operands themselves."""
    values = tuple(v.clone() if isinstance(v, torch.Tensor) else v for v in carried)
    while cond(*values, *extra):
        values = body(*values, *extra)
    return values


def while_loop_stack_output(
    cond: Function, body: Function, carried: Sequence[Any], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """The results of all steps, stacked; without a step the carried values as one step."""
    values, steps = tuple(carried), []
    while cond(*values, *extra):
        values = body(*values, *extra)
        steps.append(values)
    return _columns(steps or [values])


def map_impl(body: Function, xs: Sequence[torch.Tensor], extra: Sequence[Any]) -> tuple[Any, ...]:
    """``body`` of each slice along the first dim, stacked."""
    steps = [body(*slices, *extra) for slices in zip(*xs, strict=True)]
    return _columns(steps)


def scan(
    body: Function, init: Sequence[Any], xs: Sequence[torch.Tensor], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """``body`` of a carry and of each slice; the last carry, and the other results stacked."""
    carry, steps = tuple(init), []
    for slices in zip(*xs, strict=True):
        results = body(*carry, *slices, *extra)
        carry = results[: len(carry)]
        steps.append(results[len(carry) :])
    return (*carry, *_columns(steps))


def associative_scan(
    body: Function, xs: Sequence[torch.Tensor], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """All prefixes of a combination, from the first slice to the last."""
    rows = list(zip(*xs, strict=True))
    steps = rows[:1]
    for row in rows[1:]:
        steps.append(tuple(body(*steps[-1], *row, *extra)))
    return _columns(steps)


class _Applied(torch.autograd.Function):
    """Forward and backward as functions; see :mod:`stillframe.trace.autograd_functions`."""

    @staticmethod
    def forward(ctx: Any, fwd: Function, bwd: Function, options: Any, *operands: Any) -> Any:
        outputs, saved = fwd(*operands)
        outputs = tuple(outputs) if isinstance(outputs, (list, tuple)) else (outputs,)
        held = [i for i in options["saved_for_backward_idx"] if isinstance(saved[i], torch.Tensor)]
        ctx.save_for_backward(*(saved[i] for i in held))
        ctx.held, ctx.rest = held, [None if i in held else v for i, v in enumerate(saved)]
        ctx.without = options["non_differentiable_idx"]
        ctx.mark_non_differentiable(*(outputs[i] for i in ctx.without))
        ctx.set_materialize_grads(options.get("materialize_grads", True))
        ctx.own_backward = bwd
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        saved = list(ctx.rest)
        for i, tensor in zip(ctx.held, ctx.saved_tensors, strict=True):
            saved[i] = tensor
        if any(g is None for i, g in enumerate(grads) if i not in ctx.without):
            raise RuntimeError(
                "a torch.autograd.Function with set_materialize_grads(False) was captured with a "
                "gradient for each of its outputs, and here one of them has none"
            )
        given = [None if g is None else _contiguous(g) for g in grads]
        return (None, None, None, *ctx.own_backward(*given, *saved))


def _contiguous(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, FakeTensor):  # by structure: whether a size is 0 is not asked
        dense = layout.is_contiguous(tensor.sizes, tensor.strides)
    else:
        dense = tensor.is_contiguous()
    if dense:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def autograd_function_apply(
    fwd: Function, bwd: Function, *operands: Any, **options: Any
) -> tuple[Any, ...]:
    """A function with a backward of its own."""
    results: tuple[Any, ...] = _Applied.apply(fwd, bwd, options, *operands)  # type: ignore[no-untyped-call]
    return results


def _columns(steps: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """The results of all steps, stacked.

    Raises:
        ValueError: there is no step, which could tell the number and sizes of results.
    """
    if not steps:
        raise ValueError("map and scan take at least one slice")
    return tuple(
        None if column[0] is None else torch.stack(column) for column in zip(*steps, strict=True)
    )


def _or_operator(function: Function) -> Function:
    """``function``, or torch's operator of its name where somebody wants to see the operator."""
    op = getattr(torch.ops.higher_order, function.__name__)

    def run(*args: Any, **kwargs: Any) -> Any:
        if torch_private.is_listened_to(op):
            return op(*args, **kwargs)
        return function(*args, **kwargs)

    return run


PLAIN: dict[str, Function] = {
    f.__name__: f
    for f in (
        cond, while_loop, while_loop_stack_output, map_impl, scan, associative_scan,
        autograd_function_apply,
    )
}  # fmt: skip
CONTROL_FLOW: dict[str, Function] = {name: _or_operator(f) for name, f in PLAIN.items()}
