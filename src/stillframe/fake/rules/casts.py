"""Conversions and copies: ``to``, ``contiguous``, ``clone``, ``detach`` and their kin.

``to`` returns its very argument where nothing changes, ``contiguous`` a view of it.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import format_strides, has_format, suggested_format
from stillframe.fake.rules.elementwise import contiguous as row_major
from stillframe.fake.rules.elementwise import fresh
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


def cast(
    ctx: RuleContext,
    x: FakeTensor,
    dtype: torch.dtype | None,
    device: torch.device | None = None,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    """``x.to(...)``: ``x`` itself unless dtype, device or format change or a copy is wanted."""
    own = x.dtype
    if not copy and (dtype is None or dtype is own):
        if device is None or _same_device(device, x.device):
            if memory_format is None or memory_format is torch.preserve_format:
                return x
            if memory_format is suggested_format(x):
                return x
    strides = format_strides(ctx, x, memory_format)
    return fresh(ctx, x.sizes, strides, dtype or own, device or x.device)


def _same_device(wanted: Any, own: torch.device) -> bool:
    wanted = torch.device(wanted)
    return wanted == own or (wanted.index is None and wanted.type == own.type)


@rule(aten.to.dtype, aten.to.prim_dtype)
def to_dtype(
    ctx: RuleContext,
    x: FakeTensor,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    if dtype is x.dtype and not copy and memory_format is None:
        return x
    return cast(ctx, x, dtype, None, copy, memory_format)


@rule(aten.to.device, aten.to.prim_Device)
def to_device(
    ctx: RuleContext,
    x: FakeTensor,
    device: torch.device | None,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    return cast(ctx, x, dtype, device, copy, memory_format)


@rule(aten.to.dtype_layout)
def to_dtype_layout(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    _strided_only(ctx, layout)
    return cast(ctx, x, dtype, device, copy, memory_format)


def _strided_only(ctx: RuleContext, layout: torch.layout | None) -> None:
    if layout not in (None, torch.strided):
        raise ctx.unsupported(f"A tensor with layout {layout} cannot be captured yet.")


@rule(aten.to.other)
def to_other(
    ctx: RuleContext,
    x: FakeTensor,
    other: FakeTensor,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    return cast(ctx, x, other.dtype, other.device, copy, memory_format)


@rule(aten.type_as.default)
def type_as(ctx: RuleContext, x: FakeTensor, other: FakeTensor) -> FakeTensor:
    dtype = other.dtype
    if x.dtype is dtype and x.device == other.device:
        return x
    return cast(ctx, x, dtype, other.device)


@rule(aten._to_copy.default)
def to_copy(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    _strided_only(ctx, layout)
    return cast(ctx, x, dtype, device, True, memory_format)


@rule(aten.chalf.default)
def chalf(
    ctx: RuleContext, x: FakeTensor, *, memory_format: torch.memory_format | None = None
) -> FakeTensor:
    return cast(ctx, x, torch.complex32, memory_format=memory_format)


@rule(aten.contiguous.default)
def contiguous(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> FakeTensor:
    """The same memory if ``x`` is in the format already.

    A tensor of its own even then: an input of another layout is copied when the program is called,
    so that ``x`` and the result must stay two nodes.
    """
    if memory_format is torch.preserve_format:
        raise RuntimeError("preserve memory format is unsupported by the contiguous operator")
    if has_format(x, memory_format):
        return ctx.alias(x)
    return fresh(ctx, x.sizes, format_strides(ctx, x, memory_format), x.dtype, x.device)


@rule(aten.clone.default)
def clone(
    ctx: RuleContext, x: FakeTensor, *, memory_format: torch.memory_format | None = None
) -> FakeTensor:
    return fresh(ctx, x.sizes, format_strides(ctx, x, memory_format), x.dtype, x.device)


@rule(aten.alias_copy.default, aten.lift_fresh_copy.default, aten.detach_copy.default)
def copy_of_view(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The functional forms of views copy into row-major memory."""
    return row_major(ctx, x.sizes, x.dtype, x.device)


@rule(aten.detach.default, aten.data.default)
def detach(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The same memory without gradient."""
    return FakeTensor.make(
        ctx.env, x.sizes, x.strides, x.offset, x.dtype, x.device, False, x.storage_
    )


@rule(aten.alias.default)
def alias(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return ctx.alias(x)


@rule(aten.detach_.default)
def detach_(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The tensor itself gives its gradient up."""
    x.requires_grad = False
    return x


@rule(
    aten.lift_fresh.default,
    aten.lift.default,
    aten.resolve_neg.default,
    aten.resolve_conj.default,
)
def itself(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Returns its argument."""
    return x
