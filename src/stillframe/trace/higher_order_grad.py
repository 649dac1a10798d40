"""Gradients of higher-order operators, in traces below autograd.

There the functions of an operator are traced with autograd above them, so what they compute must be
tied to the operands again. One ``autograd.Function`` does that: forward makes the operator's node,
and backward makes another one, whose functions compute the vector-Jacobian product of the first
ones from the operands (the forward is computed again inside; nothing is saved).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack
from stillframe.errors import NotSupported
from stillframe.trace.operators import draws_random_numbers

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

Backward = Callable[[Sequence[Any], Sequence[torch.Tensor], Sequence[int]], Sequence[Any]]


def tied(
    recorder: Recorder,
    values: Sequence[Any],
    forward: Callable[[], list[Any]],
    backward: Backward,
) -> list[Any]:
    """The results of ``forward()``, with gradients for ``values`` if there can be any.

    Args:
        values: the operands.
        forward: makes the node and returns the results.
        backward: ``(values, grads, needs)`` to the gradients of the values at ``needs``; ``grads``
            has one entry for each floating-point result.
    """
    if recorder.above_autograd or not torch.is_grad_enabled():
        return forward()
    if not any(isinstance(v, torch.Tensor) and v.requires_grad for v in values):
        return forward()
    results = _Tie.apply(forward, backward, *values)  # type: ignore[no-untyped-call]
    return list(results)


class _Tie(torch.autograd.Function):
    """Forward as it is; backward by a function."""

    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, *values: Any) -> Any:
        ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in values))
        ctx.others = [None if isinstance(v, torch.Tensor) else v for v in values]
        ctx.own_backward = backward
        results = forward()
        ctx.kinds = [is_differentiable(r) for r in results]
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
        values = [other if tensor is None else tensor for tensor, other in pairs]
        needs = [i for i, v in enumerate(values) if ctx.needs_input_grad[i + 2]]
        given = [g for g, kind in zip(grads, ctx.kinds, strict=True) if kind]
        found = dict(zip(needs, ctx.own_backward(values, given, needs), strict=True))
        return (None, None, *(found.get(i) for i in range(len(values))))


def is_differentiable(value: Any) -> bool:
    """Whether gradients can flow into a result."""
    return isinstance(value, torch.Tensor) and (
        value.dtype.is_floating_point or value.dtype.is_complex
    )


def vjp(function: Callable[..., Any], count: int, needs: Sequence[int]) -> Callable[..., Any]:
    """The function of ``count`` operands and of one gradient for each floating-point result.

    It returns the gradients of the operands at ``needs``, zeros where there is none.
    """

    def run(*leaves: Any) -> tuple[torch.Tensor, ...]:
        inputs, grads = list(leaves[:count]), leaves[count:]
        with torch.enable_grad():
            for i in needs:
                inputs[i] = inputs[i].detach().requires_grad_()
            outputs = [o for o in pytree.tree_leaves(function(*inputs)) if is_differentiable(o)]
        flows = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
        wanted = [inputs[i] for i in needs]
        found: Sequence[Any] = [None] * len(wanted)
        if flows:
            found = torch.autograd.grad(
                [o for o, _ in flows], wanted, [g for _, g in flows], allow_unused=True
            )
        return tuple(
            torch.zeros_like(x, memory_format=torch.contiguous_format)
            if g is None
            else g.contiguous()
            for x, g in zip(wanted, found, strict=True)
        )

    return run


def refuse_random(recorder: Recorder, owner: str, *modules: Any) -> None:
    """Backward computes the forward again, which must not draw other random numbers."""
    for module in modules:
        if any(draws_random_numbers(node, module) for node in module.graph.nodes):
            raise NotSupported(
                f"The gradient of {owner} whose functions draw random numbers.",
                why="backward would draw other numbers than forward",
                where=stack.summary(stack.raw_stack(recorder.floor)),
                hints=["draw the random numbers outside and pass them as an operand"],
            )


def no_gradient(recorder: Recorder, owner: str) -> Backward:
    """The backward of an operator that has none."""

    def refuse(values: Any, grads: Any, needs: Any) -> Sequence[Any]:
        raise NotSupported(
            f"The gradient of {owner} is not supported yet.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["unroll the loop in Python where its length is known"],
        )

    return refuse
