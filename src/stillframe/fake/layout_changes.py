"""What a tensor becomes when its sizes or its memory change in place.

Each function gives the new layout as a fake of its own; the recorder has the tensor take it over
(:meth:`FakeTensor.become`). Those that only make a view of the tensor are answered by the rule of
the operator that returns the view; here are the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import and_, eq, unwrap

aten = torch.ops.aten


def resized(
    ctx: RuleContext,
    x: FakeTensor,
    sizes: Sequence[Size],
    *,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    """``x.resize_(sizes)``: the same memory, more of it if need be, read in other sizes.

    The kernel leaves the strides alone where the sizes are the ones that ``x`` has, so that is
    asked: a guard where the facts do not tell.
    """
    if x.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    for size in sizes:
        ctx.require(size >= 0, f"resize_: a size is negative in {list(sizes)}")
    if memory_format is torch.preserve_format:
        raise RuntimeError("resize_ takes no torch.preserve_format")
    if memory_format is None:
        keeps = not ctx.is_contiguous(x) and _same_sizes(ctx, x.sizes, sizes)
        strides = x.strides if keeps else layout.contiguous_strides(sizes)
    else:
        strides = _strides_in(sizes, memory_format)
    return ctx.view(x, sizes, strides, x.offset)


def _same_sizes(ctx: RuleContext, a: Sequence[Size], b: Sequence[Size]) -> bool:
    if len(a) != len(b):
        return False
    question: Any = True
    for m, n in zip(a, b, strict=True):
        question = and_(question, eq(m, n))
    return ctx.guard(unwrap(question))


def resized_as(
    ctx: RuleContext,
    x: FakeTensor,
    template: FakeTensor,
    *,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    """``x.resize_as_(template)``; ``torch.preserve_format`` takes the template's format."""
    if memory_format is torch.preserve_format:
        last = ctx.is_channels_last(template)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        memory_format = formats[len(template.sizes)] if last else torch.contiguous_format
    return resized(ctx, x, template.sizes, memory_format=memory_format)


def _strides_in(sizes: Sequence[Size], memory_format: torch.memory_format) -> tuple[Size, ...]:
    if memory_format is torch.contiguous_format:
        return layout.contiguous_strides(sizes)
    rank = 4 if memory_format is torch.channels_last else 5
    if len(sizes) != rank:
        raise RuntimeError(f"required rank {rank} tensor to use {memory_format}")
    return layout.channels_last_strides(sizes)


def set_to_tensor(ctx: RuleContext, x: FakeTensor, source: FakeTensor) -> FakeTensor:
    """``x.set_(source)``: x shares the memory of ``source``, read alike."""
    _refuse_gradients(ctx, x, source)
    if x.dtype is not source.dtype or x.device != source.device:
        raise ctx.unsupported("set_ to a tensor of another dtype or device cannot be captured.")
    return ctx.alias(source)


def set_to_nothing(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """``x.set_()``: no elements and no memory."""
    _refuse_gradients(ctx, x)
    made = ctx.view(x, (0,), (1,), 0)
    made.storage_ = FakeStorage()
    return made


def _refuse_gradients(ctx: RuleContext, *tensors: FakeTensor) -> None:
    if any(t.requires_grad for t in tensors):
        raise ctx.unsupported("set_ of a tensor that requires grad cannot be captured.")


#: Operator -> the fake whose layout its first argument takes over.
LAYOUTS: dict[Any, Callable[..., FakeTensor]] = {
    aten.resize_.default: resized,
    aten.resize_as_.default: resized_as,
    aten.set_.source_Tensor: set_to_tensor,
    aten.set_.default: set_to_nothing,
}
