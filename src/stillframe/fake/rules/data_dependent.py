"""Operators whose result's size or value only the data can tell.

A size becomes a new unbacked symbol with the bounds that hold for any data; a value read into
Python becomes a symbol too. Where Python needs a plain True or False, the question goes to the
environment, which says what to write instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import Sizes, contiguous, fresh
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.shapes.layout import permuted_strides
from stillframe.symbolic import Expr, eq, ne

aten = torch.ops.aten


def _count(ctx: RuleContext, sizes: Sequence[Size], lower: int = 0) -> Expr:
    """How many of the elements of a tensor with ``sizes`` were picked."""
    total = ctx.numel(sizes)
    return ctx.unbacked(lower, total if type(total) is int else math.inf)


# -- positions and selections ----------------------------------------------------------------------


@rule(aten.nonzero.default, aten.argwhere.default)
def nonzero(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """One row of coordinates for each element that is not zero; the memory is column-major."""
    rank = len(x.sizes)
    count = _count(ctx, x.sizes)
    return fresh(ctx, (count, rank), (1, count), torch.int64, x.device)


@rule(aten.nonzero_numpy.default, aten.where.default)
def nonzero_numpy(ctx: RuleContext, x: FakeTensor) -> list[FakeTensor]:
    """The columns of :func:`nonzero`; a 0-dim tensor counts as one of one element."""
    rank = max(len(x.sizes), 1)
    count = _count(ctx, x.sizes)
    base = fresh(ctx, (count, rank), (1, count), torch.int64, x.device)
    return [ctx.view(base, (count,), (1,), i * count) for i in range(rank)]


@rule(aten.nonzero_static.default)
def nonzero_static(
    ctx: RuleContext, x: FakeTensor, *, size: Size, fill_value: int = -1
) -> FakeTensor:
    return contiguous(ctx, (size, len(x.sizes)), torch.int64, x.device)


@rule(aten.masked_select.default)
def masked_select(ctx: RuleContext, x: FakeTensor, mask: FakeTensor) -> FakeTensor:
    sizes = x.sizes if x.sizes == mask.sizes else ctx.broadcast(x.sizes, mask.sizes)
    return contiguous(ctx, (_count(ctx, sizes),), x.dtype, x.device)


# -- distinct values -------------------------------------------------------------------------------


@rule(aten._unique2.default)
def unique2(
    ctx: RuleContext,
    x: FakeTensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Values, the index of each element's value, counts; what was not asked for is empty."""
    return _unique(ctx, x, x.sizes, return_inverse, return_counts)


@rule(aten._unique.default)
def unique(
    ctx: RuleContext, x: FakeTensor, sorted: bool = True, return_inverse: bool = False
) -> tuple[FakeTensor, FakeTensor]:
    values, inverse, _ = _unique(ctx, x, x.sizes, return_inverse, False)
    return values, inverse


def _unique(
    ctx: RuleContext, x: FakeTensor, inverse_sizes: Sizes, return_inverse: bool, return_counts: bool
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    # Any element at all means at least one distinct value.
    total = ctx.numel(x.sizes)
    count = _count(ctx, x.sizes, 1 if ctx.known(total >= 1) is True else 0)
    return (
        contiguous(ctx, (count,), x.dtype, x.device),
        contiguous(ctx, inverse_sizes if return_inverse else (0,), torch.int64, x.device),
        contiguous(ctx, (count,) if return_counts else (0,), torch.int64, x.device),
    )


@rule(aten.unique_consecutive.default)
def unique_consecutive(
    ctx: RuleContext,
    x: FakeTensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """With a dim, inverse and counts are computed even if nobody asked (but not for ``dim=0`` of a
    vector, which is the case without a dim)."""
    if dim is not None and (dim != 0 or len(x.sizes) != 1):
        return unique_dim(ctx, x, dim)
    return _unique(ctx, x, x.sizes, return_inverse, return_counts)


@rule(aten.unique_dim.default)
def unique_dim(
    ctx: RuleContext,
    x: FakeTensor,
    dim: int,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Distinct slices along ``dim``, which is the slowest in memory; inverse and counts are always
    computed."""
    dim = wrap_dim(dim, len(x.sizes))
    size = x.sizes[dim]
    count = _count(ctx, (size,), 1 if ctx.known(size >= 1) is True else 0)
    sizes = (*x.sizes[:dim], count, *x.sizes[dim + 1 :])
    order = [d for d in range(len(sizes) - 1, -1, -1) if d != dim] + [dim]
    return (
        fresh(ctx, sizes, permuted_strides(sizes, order), x.dtype, x.device),
        contiguous(ctx, (size,), torch.int64, x.device),
        contiguous(ctx, (count,), torch.int64, x.device),
    )


@rule(aten.unique_dim_consecutive.default)
def unique_dim_consecutive(
    ctx: RuleContext,
    x: FakeTensor,
    dim: int,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    return unique_dim(ctx, x, dim)


@rule(aten.bincount.default)
def bincount(
    ctx: RuleContext, x: FakeTensor, weights: FakeTensor | None = None, minlength: Size = 0
) -> FakeTensor:
    """At least ``minlength`` bins."""
    lower = minlength if type(minlength) is int else 0
    count = ctx.unbacked(lower)
    if isinstance(minlength, Expr):
        ctx.require(count >= minlength, "bincount returned fewer bins than minlength")
    if weights is None:
        dtype = torch.int64
    else:
        dtype = torch.float32 if weights.dtype is torch.float32 else torch.float64
    return contiguous(ctx, (count,), dtype, x.device)


# -- values ----------------------------------------------------------------------------------------


@rule(aten._local_scalar_dense.default, aten.item.default)
def item(ctx: RuleContext, x: FakeTensor) -> Any:
    """The value of a tensor of one element.

    Raises:
        RuntimeError: as eager, there are more elements, or none.
    """
    if x.sizes:
        total = ctx.numel(x.sizes)
        ctx.require(
            total == 1 if type(total) is int else eq(total, 1),
            f"a Tensor with {total} elements cannot be converted to Scalar",
        )
    dtype = x.dtype
    if dtype is torch.bool:
        return eq(ctx.unbacked(0, 1), 1)
    if dtype.is_floating_point:
        return ctx.unbacked(-math.inf, math.inf, sort="float")
    if dtype.is_complex:
        raise ctx.unsupported("The value of a complex tensor cannot be read while capturing.")
    bounds = torch.iinfo(dtype)
    if dtype is torch.int64:
        return ctx.unbacked(-math.inf, math.inf)
    return ctx.unbacked(bounds.min, bounds.max)


@rule(aten.is_nonzero.default)
def is_nonzero(ctx: RuleContext, x: FakeTensor) -> bool:
    """``bool(x)``: Python needs to know."""
    value = item(ctx, x)
    return ctx.guard(value if isinstance(value, Expr) and value.sort == "bool" else ne(value, 0))


@rule(aten.equal.default, aten.allclose.default)
def equal(ctx: RuleContext, x: FakeTensor, y: FakeTensor, *_: Any, **__: Any) -> bool:
    """Whether all elements are equal: a plain bool from the data."""
    if len(x.sizes) != len(y.sizes):
        return False
    return ctx.guard(eq(ctx.unbacked(0, 1), 1))


# -- repetition ------------------------------------------------------------------------------------


@rule(aten.repeat_interleave.Tensor)
def repeats_to_indices(
    ctx: RuleContext, repeats: FakeTensor, *, output_size: Size | None = None
) -> FakeTensor:
    """Each index as often as its repeat count says; the sum is ``output_size`` if given."""
    size = ctx.unbacked() if output_size is None else output_size
    return contiguous(ctx, (size,), repeats.dtype, repeats.device)


@rule(aten.repeat_interleave.self_Tensor)
def repeat_interleave(
    ctx: RuleContext,
    x: FakeTensor,
    repeats: FakeTensor,
    dim: int | None = None,
    *,
    output_size: Size | None = None,
) -> FakeTensor:
    """Without a dim the tensor is flattened first."""
    sizes: Sizes = (ctx.numel(x.sizes),) if dim is None else x.sizes
    dim = 0 if dim is None else wrap_dim(dim, len(sizes))
    size = ctx.unbacked() if output_size is None else output_size
    return contiguous(ctx, (*sizes[:dim], size, *sizes[dim + 1 :]), x.dtype, x.device)


@rule(aten.repeat_interleave.self_int)
def repeat_interleave_int(
    ctx: RuleContext,
    x: FakeTensor,
    repeats: Size,
    dim: int | None = None,
    *,
    output_size: Size | None = None,
) -> FakeTensor:
    """Every element ``repeats`` times: no data needed."""
    sizes: Sizes = (ctx.numel(x.sizes),) if dim is None else x.sizes
    dim = 0 if dim is None else wrap_dim(dim, len(sizes))
    return ctx.new(x, (*sizes[:dim], sizes[dim] * repeats, *sizes[dim + 1 :]))
