"""Higher-order operators on tensors that are inside a transform of ``torch.func``.

A trace below the transforms sees what they make of an operator. Only ``torch.vmap`` makes something
of ``cond`` and ``scan``; for the rest of them the refusal names the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


def call(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call of a higher-order operator on wrapped tensors.

    Raises:
        NotSupported: the transform has no rule for the operator.
    """
    if not torch_private.has_transform_rule(op):
        raise NotSupported(
            f"The higher-order operator {op.name()} is inside a transform of torch.func.",
            why="the transform has no rule for it",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["apply the transform inside the functions of the operator"],
        )
    if op is torch.ops.higher_order.cond:
        return _cond(recorder, *args, **kwargs)
    return torch_private.call_unanswered(op, *args, **kwargs)


def _cond(
    recorder: Recorder,
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Any = (),
) -> Any:
    """``torch.vmap`` of ``cond``: with a predicate for each sample both arms run on all samples."""
    if isinstance(pred, torch.Tensor) and torch_private.is_functorch_wrapper(pred):
        return _select(recorder, pred, true_fn(*operands), false_fn(*operands))
    specs: list[pytree.TreeSpec] = []

    def flat(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*values: Any) -> Any:
            leaves, spec = pytree.tree_flatten(function(*pytree.tree_unflatten(values, in_spec)))
            specs.append(spec)
            return tuple(leaves)

        return run

    leaves, in_spec = pytree.tree_flatten(tuple(operands))
    op = torch.ops.higher_order.cond
    results = torch_private.call_unanswered(op, pred, flat(true_fn), flat(false_fn), tuple(leaves))
    if specs[0] != specs[-1]:
        raise _uneven(recorder)
    return pytree.tree_unflatten(results, specs[0])


def _select(recorder: Recorder, pred: torch.Tensor, first: Any, second: Any) -> Any:
    """For each sample, one of two results."""
    ones, spec = pytree.tree_flatten(first)
    others, other_spec = pytree.tree_flatten(second)
    if spec != other_spec or not all(map(_same_kind, ones, others)):
        raise _uneven(recorder)
    pairs = zip(ones, others, strict=True)
    return pytree.tree_unflatten(
        [None if a is None else torch.where(pred, a, b) for a, b in pairs], spec
    )


def _same_kind(a: Any, b: Any) -> bool:
    if a is None and b is None:
        return True
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
    return tensors and (a.dtype, a.device, a.shape) == (b.dtype, b.device, b.shape)


def _uneven(recorder: Recorder) -> InvalidInput:
    return InvalidInput(
        "The functions of torch.cond inside torch.vmap return different structures, sizes or "
        "dtypes.",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["make both return tensors of the same sizes, dtype and device"],
    )
