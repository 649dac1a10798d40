"""Views by stride arithmetic: diagonals, windows, raw strides, other dtypes over the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import complex_of, dense_like, elementwise, real_of
from stillframe.fake.rules.sizing import is_one, must, plausible, tidy
from stillframe.fake.rules.views import slice_
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import eq, le, max_, min_

aten = torch.ops.aten


# -- diagonals, windows, raw strides -------------------------------------------------------------


@rule(aten.diagonal.default)
def diagonal(
    ctx: RuleContext, x: FakeTensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> FakeTensor:
    """The elements ``x[..., i, i + offset, ...]`` as a new last dim."""
    rank = len(x.sizes)
    d1, d2 = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if d1 == d2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rows, columns = x.sizes[d1], x.sizes[d2]
    start = x.offset
    if offset > 0:
        columns, start = columns - offset, start + offset * x.strides[d2]
    elif offset < 0:
        rows, start = rows + offset, start - offset * x.strides[d1]
    length = tidy(ctx, rows if rows is columns else max_(min_(rows, columns), 0))
    if type(length) is int and length == 0:
        start = x.offset
    rest = [d for d in range(rank) if d not in (d1, d2)]
    return ctx.view(
        x,
        (*[x.sizes[d] for d in rest], length),
        (*[x.strides[d] for d in rest], x.strides[d1] + x.strides[d2]),
        start,
    )


@rule(aten.linalg_diagonal.default)
def linalg_diagonal(
    ctx: RuleContext, x: FakeTensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> FakeTensor:
    return diagonal(ctx, x, offset, dim1, dim2)


@rule(aten.unfold.default)
def unfold(ctx: RuleContext, x: FakeTensor, dimension: int, size: Any, step: Any) -> FakeTensor:
    """Windows of ``size`` every ``step`` elements, as a new last dim."""
    rank = len(x.sizes)
    if rank == 0:
        return ctx.view(x, (size,), (1,), x.offset)
    dim = wrap_dim(dimension, rank)
    length = x.sizes[dim]
    fits = size <= length if type(size) is int and type(length) is int else le(size, length)
    if not plausible(ctx, fits):
        raise RuntimeError(
            f"maximum size for tensor at dimension {dim} is {length} but size is {size}"
        )
    count = tidy(ctx, (length - size) // step + 1)
    return ctx.view(
        x,
        (*x.sizes[:dim], count, *x.sizes[dim + 1 :], size),
        (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim]),
        x.offset,
    )


@rule(aten.as_strided.default)
def as_strided(
    ctx: RuleContext,
    x: FakeTensor,
    size: Sequence[Size],
    stride: Sequence[Size],
    storage_offset: Any = None,
) -> FakeTensor:
    return ctx.view(x, size, stride, x.offset if storage_offset is None else storage_offset)


@rule(aten.diff.default)
def diff(
    ctx: RuleContext,
    x: FakeTensor,
    n: int = 1,
    dim: int = -1,
    prepend: FakeTensor | None = None,
    append: FakeTensor | None = None,
) -> FakeTensor:
    """``n`` times the difference (for bools: the xor) of the slices without first and last."""
    d = wrap_dim(dim, len(x.sizes))
    must(ctx, n >= 0, f"order must be non-negative but got {n}")
    if n == 0:
        ctx.requires_grad = ctx.requires_grad and x.requires_grad
        return dense_like(ctx, x)
    ends = [t for t in (prepend, append) if t is not None]
    if ends:
        total: Any = x.sizes[d]
        for t in ends:
            total = total + t.sizes[d]
        x = ctx.new(x, (*x.sizes[:d], total, *x.sizes[d + 1 :]), dtype=ctx.promote(x, *ends))
    for _ in range(n):
        part = slice_(ctx, x, d, 1, None)
        x = elementwise(ctx, (part, part), part.dtype)
    return x


# -- other dtypes over the same memory -----------------------------------------------------------


def _times(sizes: Sequence[Size], factor: int) -> list[Any]:
    return [s * factor for s in sizes]


@rule(aten.view_as_real.default)
def view_as_real(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.dtype.is_complex:
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return ctx.view(
        x, (*x.sizes, 2), (*_times(x.strides, 2), 1), x.offset * 2, dtype=real_of(x.dtype)
    )


@rule(aten.view_as_complex.default)
def view_as_complex(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.sizes:
        raise RuntimeError("Input tensor must have one or more dimensions")
    ctx.require_same(x.sizes[-1], 2, "Tensor must have a last dimension of size 2")
    if not is_one(x.strides[-1]):
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    strides = [tidy(ctx, s // 2) for s in x.strides[:-1]]
    offset = tidy(ctx, x.offset // 2)
    return ctx.view(x, x.sizes[:-1], strides, offset, dtype=complex_of(x.dtype))


@rule(aten.real.default)
def real(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The real part; a real tensor is its own."""
    if not x.dtype.is_complex:
        return x
    return ctx.view(x, x.sizes, _times(x.strides, 2), x.offset * 2, dtype=real_of(x.dtype))


@rule(aten.imag.default)
def imag(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.dtype.is_complex:
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return ctx.view(x, x.sizes, _times(x.strides, 2), x.offset * 2 + 1, dtype=real_of(x.dtype))


@rule(aten.view.dtype)
def view_dtype(ctx: RuleContext, x: FakeTensor, dtype: torch.dtype) -> FakeTensor:
    """The same bytes read as another dtype; the last dim grows or shrinks."""
    old, new = x.dtype.itemsize, dtype.itemsize
    if old == new:
        return ctx.view(x, x.sizes, x.strides, x.offset, dtype=dtype)
    if not x.sizes:
        raise RuntimeError("self.dim() cannot be 0 to view as a different element size")
    if x.strides[-1] != 1:
        raise RuntimeError("self.stride(-1) must be 1 to view as a different element size")
    if old > new:
        k = old // new
        strides = (*_times(x.strides[:-1], k), 1)
        return ctx.view(x, (*x.sizes[:-1], x.sizes[-1] * k), strides, x.offset * k, dtype=dtype)
    k = new // old
    for size in (x.sizes[-1], *x.strides[:-1], x.offset):
        ctx.require(
            size % k == 0 if type(size) is int else eq(size % k, 0),
            f"self.size(-1) must be divisible by {k} to view as a different element size",
        )
    return ctx.view(
        x,
        (*x.sizes[:-1], tidy(ctx, x.sizes[-1] // k)),
        (*[tidy(ctx, s // k) for s in x.strides[:-1]], 1),
        tidy(ctx, x.offset // k),
        dtype=dtype,
    )


# -- changes of the tensor's own metadata ----------------------------------------------------------


@rule(
    aten.squeeze_.default,
    aten.squeeze_.dim,
    aten.squeeze_.dims,
    aten.unsqueeze_.default,
    aten.transpose_.default,
    aten.t_.default,
    aten.swapaxes_.default,
    aten.swapdims_.default,
    aten.as_strided_.default,
    aten.resize_.default,
    aten.resize_as_.default,
    aten.set_.source_Tensor,
    aten.set_.source_Storage,
    aten.set_.default,
)
def metadata_in_place(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """The recorder answers these; inside of another operator nobody would see the change."""
    raise ctx.unsupported(
        "An operator that changes the sizes or strides of a tensor in place (squeeze_, unsqueeze_, "
        "transpose_, t_, swapaxes_, resize_, set_, as_strided_) cannot be answered inside of "
        "another operator; use the form that returns a view."
    )
