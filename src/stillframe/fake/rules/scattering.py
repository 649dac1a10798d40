"""Writing at indices: scatter, index_add, index_copy, masked_scatter and their kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import contiguous, dense_like, fit, whole_copy
from stillframe.fake.rules.sizing import must, must_match
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


def _pairs(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register ``name`` (a row-major copy of the first operand) and ``name_`` (the operand itself).

    The decorated function checks the operands.
    """

    def register(checks: Callable[..., None]) -> Callable[..., None]:
        def copied(ctx: RuleContext, x: FakeTensor, *args: Any, **kwargs: Any) -> FakeTensor:
            checks(ctx, x, *args, **kwargs)
            return contiguous(ctx, x.sizes, x.dtype, x.device)

        def written(ctx: RuleContext, x: FakeTensor, *args: Any, **kwargs: Any) -> FakeTensor:
            checks(ctx, x, *args, **kwargs)
            return x

        for name in names:
            packet, _, overload = name.partition(".")
            rule(getattr(getattr(aten, packet), overload))(copied)
            rule(getattr(getattr(aten, packet + "_"), overload))(written)
        return checks

    return register


@_pairs(
    "scatter.src",
    "scatter.value",
    "scatter.reduce",
    "scatter.value_reduce",
    "scatter_add.default",
    "scatter_reduce.two",
)
def _scatter(
    ctx: RuleContext,
    x: FakeTensor,
    dim: int,
    index: FakeTensor,
    src: Any = None,
    *_: Any,
    **__: Any,
) -> None:
    dim = wrap_dim(dim, len(x.sizes))
    is_empty = any(type(n) is int and n == 0 for n in index.sizes)
    if index.dtype not in (torch.int64, torch.int32) and not is_empty:
        raise RuntimeError("scatter(): Expected dtype int32/int64 for index")
    if isinstance(src, FakeTensor):
        if src.dtype is not x.dtype:
            raise RuntimeError("scatter(): Expected self.dtype to be equal to src.dtype")
        if max(len(src.sizes), 1) != max(len(index.sizes), 1):
            raise RuntimeError("Index tensor must have the same number of dimensions as src tensor")
    if max(len(x.sizes), 1) != max(len(index.sizes), 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as self tensor")
    within(ctx, index, x, dim)
    if isinstance(src, FakeTensor):
        within(ctx, index, src, None)


def within(ctx: RuleContext, index: FakeTensor, x: FakeTensor, dim: int | None) -> None:
    """An index tensor must not be longer than ``x`` in any dim but ``dim``."""
    if any(type(n) is int and n == 0 for n in index.sizes):
        return
    for i, (count, size) in enumerate(zip(index.sizes, x.sizes, strict=False)):
        if i != dim and count is not size:
            must(
                ctx,
                count <= size,
                f"Expected index {list(index.sizes)} to be no larger than {list(x.sizes)} apart "
                f"from dimension {dim}",
            )


@_pairs("index_add.default", "index_copy.default", "index_reduce.default")
def _index_write(
    ctx: RuleContext,
    x: FakeTensor,
    dim: int,
    index: FakeTensor,
    source: FakeTensor,
    *_: Any,
    **__: Any,
) -> None:
    """``source`` has the sizes of ``x`` but for ``dim``, where it has those of the index."""
    dim = wrap_dim(dim, len(x.sizes))
    if len(index.sizes) > 1:
        raise IndexError("Index is supposed to be a vector")
    if source.sizes and x.sizes:
        lead, rest = x.sizes[:dim], x.sizes[dim + 1 :]
        given = source.sizes[:dim] + source.sizes[dim + 1 :]
        message = f"source {list(source.sizes)} does not fit {list(x.sizes)} beside dim {dim}"
        must_match(ctx, given, lead + rest, message)
        count = index.sizes or (1,)
        must_match(ctx, source.sizes[dim : dim + 1], count, "index and source differ in length")
    if source.dtype is not x.dtype:
        raise RuntimeError(
            f"self ({x.dtype}) and source ({source.dtype}) must have the same scalar type"
        )


@rule(aten.index_fill_.int_Scalar, aten.index_fill_.int_Tensor)
def index_fill_(
    ctx: RuleContext, x: FakeTensor, dim: int, index: FakeTensor, value: Any
) -> FakeTensor:
    wrap_dim(dim, len(x.sizes))
    if index.dtype not in (torch.int64, torch.int32):
        raise IndexError("index_fill_(): Expected dtype int64 for index.")
    return x


@rule(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def index_fill(
    ctx: RuleContext, x: FakeTensor, dim: int, index: FakeTensor, value: Any
) -> FakeTensor:
    """A clone, then written."""
    return dense_like(ctx, index_fill_(ctx, x, dim, index, value))


@rule(aten.masked_scatter_.default)
def masked_scatter_(
    ctx: RuleContext, x: FakeTensor, mask: FakeTensor, source: FakeTensor
) -> FakeTensor:
    _check_masked_scatter(x, mask, source)
    fit(ctx, mask.sizes, x.sizes)
    return x


@rule(aten.masked_scatter.default)
def masked_scatter(
    ctx: RuleContext, x: FakeTensor, mask: FakeTensor, source: FakeTensor
) -> FakeTensor:
    """A contiguous copy of the broadcast tensor, then written."""
    _check_masked_scatter(x, mask, source)
    sizes = x.sizes if x.sizes == mask.sizes else ctx.broadcast(x.sizes, mask.sizes)
    return contiguous(ctx, sizes, x.dtype, x.device)


def _check_masked_scatter(x: FakeTensor, mask: FakeTensor, source: FakeTensor) -> None:
    if mask.dtype is not torch.bool:
        raise RuntimeError(
            f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype}"
        )
    if x.dtype is not source.dtype:
        raise RuntimeError(
            f"masked_scatter: expected self and source to have same dtypes but got {x.dtype} and "
            f"{source.dtype}"
        )


@rule(
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.diagonal_scatter.default,
    aten.as_strided_scatter.default,
)
def view_scatter(
    ctx: RuleContext, x: FakeTensor, src: FakeTensor, *_: Any, **__: Any
) -> FakeTensor:
    """A copy of ``x`` with ``src`` in a view of it."""
    return whole_copy(ctx, x)


@rule(aten.fill_diagonal_.default)
def fill_diagonal_(
    ctx: RuleContext, x: FakeTensor, fill_value: Any, wrap: bool = False
) -> FakeTensor:
    if len(x.sizes) < 2:
        raise RuntimeError("dimensions must larger than 1")
    return x


@rule(aten.histc.default)
def histc(
    ctx: RuleContext, x: FakeTensor, bins: Any = 100, min: Any = 0, max: Any = 0
) -> FakeTensor:
    """Counts in ``bins`` equal intervals."""
    return contiguous(ctx, (bins,), x.dtype, x.device)
