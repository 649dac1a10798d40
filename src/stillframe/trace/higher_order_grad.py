"""Gradients of higher-order operators, in traces below autograd.

There the functions of an operator are traced with autograd above them, so what they compute must be
tied to the operands again. One ``autograd.Function`` does that: forward makes the operator's node,
and backward makes another one, whose functions compute the vector-Jacobian product of the first
ones from the operands (the forward is computed again inside; nothing is saved).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.trace import operators

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder
    from stillframe.trace.subgraphs import Subgraph

Backward = Callable[[Sequence[Any], Sequence[torch.Tensor], Sequence[int]], Sequence[Any]]


def tied(
    recorder: Recorder,
    values: Sequence[Any],
    forward: Callable[[], list[Any]],
    backward: Backward,
    *,
    kept: int = 0,
    constant: Sequence[int] = (),
) -> list[Any]:
    """The results of ``forward()``, with gradients for ``values`` if there can be any.

    Args:
        values: the operands.
        forward: makes the node and returns the results.
        backward: ``(values, grads, needs)`` to the gradients of the values at ``needs``; ``grads``
            has one entry for each floating-point result that is not constant.
        kept: so many results, the first ones, stand behind the values that backward gets.
        constant: the results, by number, through which no gradient flows.
    """
    if recorder.above_autograd or not torch.is_grad_enabled():
        return forward()
    if not any(isinstance(v, torch.Tensor) and v.requires_grad for v in values):
        return forward()

    def quietly() -> list[Any]:
        # what is made here is recorded once, and is no part of a region without gradients
        with torch_private.modes_taken_off(lambda m: m is recorder.mode), torch.enable_grad():
            return forward()

    with recorder.listening():  # hooks on saved tensors may call operators
        how = _How(quietly, backward, kept, tuple(constant))
        results = Tie.apply(how, *values)  # type: ignore[no-untyped-call]
    return list(results)


@dataclass(frozen=True)
class _How:
    """What :func:`tied` was told."""

    forward: Callable[[], list[Any]]
    backward: Backward
    kept: int
    constant: tuple[int, ...]


class Tie(torch.autograd.Function):
    """Forward as it is; backward by a function. Subgraphs know both."""

    @staticmethod
    def forward(ctx: Any, how: _How, *values: Any) -> Any:
        results = how.forward()
        known = [*values, *results[: how.kept]]
        ctx.save_for_backward(*(v if isinstance(v, torch.Tensor) else None for v in known))
        ctx.others = [None if isinstance(v, torch.Tensor) else v for v in known]
        ctx.how = how
        ctx.kinds = [is_differentiable(r) and i not in how.constant for i, r in enumerate(results)]
        ctx.mark_non_differentiable(*(results[i] for i in how.constant))
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
        known = [other if tensor is None else tensor for tensor, other in pairs]
        count = len(known) - ctx.how.kept
        needs = [i for i in range(count) if ctx.needs_input_grad[i + 1]]
        given = [g for g, kind in zip(grads, ctx.kinds, strict=True) if kind]
        found = dict(zip(needs, ctx.how.backward(known, given, needs), strict=True))
        return (None, *(found.get(i) for i in range(count)))


def is_differentiable(value: Any) -> bool:
    """Whether gradients can flow into a result."""
    return isinstance(value, torch.Tensor) and (
        value.dtype.is_floating_point or value.dtype.is_complex
    )


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()


class _Replay(torch.fx.Interpreter):
    """Runs a subgraph for its gradient: regions without gradients have none again."""

    def run_node(self, n: torch.fx.Node) -> Any:
        with torch.set_grad_enabled(operators.NO_GRAD not in n.meta):
            return super().run_node(n)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return _Replay(value).run if isinstance(value, torch.fx.GraphModule) else value


def replayed(module: torch.fx.GraphModule) -> Callable[..., Any]:
    """A subgraph as a function whose gradients are those of the program."""

    def run(*leaves: Any) -> Any:
        if not torch.is_grad_enabled():
            return module(*leaves)
        return _Replay(module, garbage_collect_values=False).run(*leaves)

    return run


def vjp(
    recorder: Recorder, module: torch.fx.GraphModule, count: int, needs: Sequence[int]
) -> Callable[..., Any]:
    """The function of ``count`` operands and of one gradient for each floating-point result.

    It returns the gradients of the operands at ``needs``, zeros where there is none.
    """

    function = _Replay(module, garbage_collect_values=False).run

    def run(*leaves: Any) -> tuple[torch.Tensor, ...]:
        inputs, grads = list(leaves[:count]), leaves[count:]
        again = torch.is_grad_enabled()  # gradients of gradients are wanted
        with torch.enable_grad(), recorder.differentiating():
            for i in needs:
                inputs[i] = inputs[i] if again and inputs[i].requires_grad else _leaf(inputs[i])
            outputs = [o for o in pytree.tree_leaves(function(*inputs)) if is_differentiable(o)]
        flows = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
        wanted = [inputs[i] for i in needs]
        found: Sequence[Any] = [None] * len(wanted)
        if flows:
            found = torch.autograd.grad(
                [o for o, _ in flows],
                wanted,
                [g for _, g in flows],
                allow_unused=True,
                create_graph=again,
            )
        return tuple(
            torch.zeros_like(x, memory_format=torch.contiguous_format)
            if g is None
            else g.contiguous()
            for x, g in zip(wanted, found, strict=True)
        )

    return run


def check(recorder: Recorder, *subgraphs: Subgraph) -> None:
    """Refuse what backward cannot know.

    It computes the forward again, which must not draw other random numbers nor print twice, and
    it differentiates the operators, which knows nothing of a backward that somebody wrote.

    Raises:
        NotSupported: a subgraph with either.
    """
    for subgraph in subgraphs:
        problem = ""
        if subgraph.own_backward:
            problem = f"apply {subgraph.own_backward}, a torch.autograd.Function"
        elif any(operators.draws_random_numbers(n, subgraph.root) for n in subgraph.graph.nodes):
            problem = "draw random numbers"
        elif any(operators.prints(n, subgraph.root) for n in subgraph.graph.nodes):
            problem = "print"
        if problem:
            raise NotSupported(
                f"The gradient of {subgraph.owner} whose functions {problem}.",
                why="backward would compute something else than forward did",
                where=stack.summary(stack.raw_stack(recorder.floor)),
                hints=["do that outside and pass the result as an operand"],
            )


def no_gradient(recorder: Recorder, owner: str) -> Backward:
    """The backward of an operator that has none."""

    def refuse(values: Any, grads: Any, needs: Any) -> Sequence[Any]:
        raise NotSupported(
            f"The gradient of {owner} is not supported yet.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["detach the results, or write out what the operator computes"],
        )

    return refuse
