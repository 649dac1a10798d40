"""Reductions over dims, scans along a dim, sorting.

Reductions and scans write row-major memory whatever the input's layout is; sorting keeps the
input's layout (made dense).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import without_dims, wrap_dim, wrap_dims
from stillframe.fake.rules.elementwise import (
    Sizes,
    contiguous,
    dense_like,
    elementwise,
    promoted,
    real_of,
)
from stillframe.fake.rules.pointwise import overloads
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import le

aten = torch.ops.aten
DtypeRule = Callable[[torch.dtype], torch.dtype]
Pair = tuple[FakeTensor, FakeTensor]


def _same(dtype: torch.dtype) -> torch.dtype:
    return dtype


def _int_to_long(dtype: torch.dtype) -> torch.dtype:
    """Sums and products of integers and bools are int64."""
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.int64


def _float_only(dtype: torch.dtype) -> torch.dtype:
    if not (dtype.is_floating_point or dtype.is_complex):
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {dtype}"
        )
    return dtype


def _int64(dtype: torch.dtype) -> torch.dtype:
    return torch.int64


def _bool(dtype: torch.dtype) -> torch.dtype:
    return torch.uint8 if dtype is torch.uint8 else torch.bool


def reduced(
    ctx: RuleContext, x: FakeTensor, dims: Any, keepdim: bool, dtype: torch.dtype
) -> FakeTensor:
    """``x`` without ``dims`` (None or empty: all), row-major."""
    sizes = x.sizes
    rank = len(sizes)
    if rank > 64:
        raise RuntimeError("only tensors with up to 64 dims are supported")
    if dims is None or (not isinstance(dims, int) and not dims):
        return contiguous(ctx, (1,) * rank if keepdim else (), dtype, x.device)
    if isinstance(dims, int):
        dims = (dims,)
    return contiguous(ctx, without_dims(sizes, wrap_dims(dims, rank), keepdim), dtype, x.device)


def needs_elements(ctx: RuleContext, x: FakeTensor, dims: Any, name: str) -> None:
    """Operators without identity refuse dims of size 0.

    Raises:
        IndexError: as eager, a reduced dim has size 0.
    """
    for dim in wrap_dims(dims, len(x.sizes)):
        if x.sizes and type(x.sizes[dim]) is int and x.sizes[dim] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")


# -- one output ------------------------------------------------------------------------------------


def reduction(dtype_of: DtypeRule) -> Callable[..., FakeTensor]:
    """A rule for ``op(x, dim, keepdim, dtype=)``."""

    def reduction_rule(
        ctx: RuleContext,
        x: FakeTensor,
        dim: Any = None,
        keepdim: bool = False,
        *,
        dtype: torch.dtype | None = None,
        **_: Any,
    ) -> FakeTensor:
        return reduced(ctx, x, dim, keepdim, dtype or dtype_of(x.dtype))

    return reduction_rule


rule(*overloads("sum prod nansum"))(reduction(_int_to_long))
rule(aten.nanmean.default)(reduction(_float_only))
rule(aten.logsumexp.default, aten.special_logsumexp.default)(
    reduction(lambda d: d if d.is_floating_point or d.is_complex else torch.get_default_dtype())
)
rule(aten.count_nonzero.default, aten.count_nonzero.dim_IntList)(reduction(_int64))
rule(aten.frobenius_norm.dim)(reduction(real_of))


@rule(aten.hash_tensor.default)
def hash_tensor(
    ctx: RuleContext, x: FakeTensor, dim: Any = (), *, keepdim: bool = False, mode: int = 0
) -> FakeTensor:
    """The xor of the elements' bits; only mode 0 exists."""
    if mode != 0:
        raise RuntimeError(f"Unknown hash_tensor mode: {mode}")
    return reduced(ctx, x, dim, keepdim, torch.uint64)


@rule(aten.mean.default, aten.mean.dim)
def mean(
    ctx: RuleContext,
    x: FakeTensor,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    """Given or not, the dtype must be able to hold fractions."""
    return reduced(ctx, x, dim, keepdim, _float_only(dtype or x.dtype))


@rule(*overloads("any all"))
def any_(ctx: RuleContext, x: FakeTensor, dim: Any = None, keepdim: bool = False) -> FakeTensor:
    """No dims at all (None) means all of them, but an empty list means none."""
    dtype = _bool(x.dtype)
    if dim is not None and not isinstance(dim, int) and not dim:
        return contiguous(ctx, x.sizes, dtype, x.device)
    return reduced(ctx, x, dim, keepdim, dtype)


@rule(aten.max.default, aten.min.default, aten.median.default, aten.nanmedian.default)
def extreme(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """One element of all."""
    return contiguous(ctx, (), x.dtype, x.device)


@rule(aten.amax.default, aten.amin.default)
def amax(ctx: RuleContext, x: FakeTensor, dim: Any = (), keepdim: bool = False) -> FakeTensor:
    needs_elements(ctx, x, dim, "amax")
    return reduced(ctx, x, dim, keepdim, x.dtype)


@rule(aten.argmax.default, aten.argmin.default)
def argmax(
    ctx: RuleContext, x: FakeTensor, dim: int | None = None, keepdim: bool = False
) -> FakeTensor:
    return reduced(ctx, x, dim, keepdim, torch.int64)


@rule(aten._is_all_true.default, aten._is_any_true.default)
def is_all_true(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return contiguous(ctx, (), torch.bool, x.device)


@rule(aten.trace.default)
def trace(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if len(x.sizes) != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {len(x.sizes)}")
    return contiguous(ctx, (), _int_to_long(x.dtype), x.device)


@rule(aten.dist.default)
def dist(ctx: RuleContext, x: FakeTensor, y: FakeTensor, p: Any = 2) -> FakeTensor:
    return contiguous(ctx, (), real_of(promoted(ctx, x, y)), x.device)


@rule(aten.linalg_vector_norm.default)
def vector_norm(
    ctx: RuleContext,
    x: FakeTensor,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    return reduced(ctx, x, dim, keepdim, real_of(dtype or x.dtype))


@rule(
    aten.norm.Scalar,
    aten.norm.ScalarOpt_dim,
    aten.norm.ScalarOpt_dim_dtype,
    aten.norm.ScalarOpt_dtype,
)
def norm(
    ctx: RuleContext,
    x: FakeTensor,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    return reduced(ctx, x, dim, keepdim, real_of(dtype or x.dtype))


# -- variance --------------------------------------------------------------------------------------


@rule(*overloads("var std"))
def var(
    ctx: RuleContext,
    x: FakeTensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> FakeTensor:
    """``dim`` may be ``unbiased``, in the overload without dims."""
    if not (x.dtype.is_floating_point or x.dtype.is_complex):
        raise RuntimeError("std and var only support floating point and complex dtypes")
    return reduced(ctx, x, None if isinstance(dim, bool) else dim, keepdim, real_of(x.dtype))


@rule(
    *[
        getattr(getattr(aten, name), overload)
        for name in ("var_mean", "std_mean")
        for overload in ("default", "dim", "correction")
    ]
)
def var_mean(ctx: RuleContext, x: FakeTensor, dim: Any = None, *args: Any, **kwargs: Any) -> Pair:
    spread = var(ctx, x, dim, *args, **kwargs)
    return spread, contiguous(ctx, spread.sizes, x.dtype, x.device)


# -- values and indices ----------------------------------------------------------------------------


@rule(aten.max.dim, aten.min.dim, aten.median.dim, aten.nanmedian.dim, aten.mode.default)
def with_indices(ctx: RuleContext, x: FakeTensor, dim: int = -1, keepdim: bool = False) -> Pair:
    """Values and the indices where they were."""
    values = reduced(ctx, x, dim, keepdim, x.dtype)
    return values, contiguous(ctx, values.sizes, torch.int64, x.device)


@rule(aten.kthvalue.default)
def kthvalue(
    ctx: RuleContext, x: FakeTensor, k: Size, dim: int = -1, keepdim: bool = False
) -> Pair:
    size = x.sizes[wrap_dim(dim, len(x.sizes))] if x.sizes else 1
    must(ctx, k > 0, "kthvalue(): selected number k out of range")
    must(ctx, k <= size, f"kthvalue(): selected number k out of range for dimension {dim}")
    return with_indices(ctx, x, dim, keepdim)


@rule(aten.aminmax.default)
def aminmax(
    ctx: RuleContext, x: FakeTensor, *, dim: int | None = None, keepdim: bool = False
) -> Pair:
    low = reduced(ctx, x, dim, keepdim, x.dtype)
    return low, contiguous(ctx, low.sizes, x.dtype, x.device)


@rule(aten.topk.default)
def topk(
    ctx: RuleContext,
    x: FakeTensor,
    k: Size,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> Pair:
    """``k`` values along ``dim`` and their indices."""
    sizes: Sizes = x.sizes
    if sizes:
        dim = wrap_dim(dim, len(sizes))
        if k is not sizes[dim]:
            ctx.require(
                k <= sizes[dim]
                if type(k) is int and type(sizes[dim]) is int
                else le(k, sizes[dim]),
                "selected index k out of range",
            )
        sizes = (*sizes[:dim], k, *sizes[dim + 1 :])
    return (
        contiguous(ctx, sizes, x.dtype, x.device),
        contiguous(ctx, sizes, torch.int64, x.device),
    )


@rule(aten.sort.default, aten.sort.stable)
def sort(ctx: RuleContext, x: FakeTensor, dim: int = -1, *_: Any, **kwargs: Any) -> Pair:
    wrap_dim(kwargs.get("dim", dim), len(x.sizes))
    return dense_like(ctx, x), dense_like(ctx, x, torch.int64)


@rule(aten.argsort.default, aten.argsort.stable)
def argsort(ctx: RuleContext, x: FakeTensor, dim: int = -1, *_: Any, **kwargs: Any) -> FakeTensor:
    wrap_dim(kwargs.get("dim", dim), len(x.sizes))
    return dense_like(ctx, x, torch.int64)


@rule(aten.msort.default)
def msort(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return dense_like(ctx, x)


# -- scans -----------------------------------------------------------------------------------------


@rule(aten.cumsum.default, aten.cumprod.default)
def cumsum(
    ctx: RuleContext, x: FakeTensor, dim: int, *, dtype: torch.dtype | None = None
) -> FakeTensor:
    wrap_dim(dim, len(x.sizes))
    return contiguous(ctx, x.sizes, dtype or _int_to_long(x.dtype), x.device)


@rule(aten.cumsum_.default, aten.cumprod_.default)
def cumsum_(
    ctx: RuleContext, x: FakeTensor, dim: int, *, dtype: torch.dtype | None = None
) -> FakeTensor:
    wrap_dim(dim, len(x.sizes))
    return x


@rule(aten.logcumsumexp.default)
def logcumsumexp(ctx: RuleContext, x: FakeTensor, dim: int) -> FakeTensor:
    wrap_dim(dim, len(x.sizes))
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.cummax.default, aten.cummin.default)
def cummax(ctx: RuleContext, x: FakeTensor, dim: int) -> Pair:
    wrap_dim(dim, len(x.sizes))
    return (
        contiguous(ctx, x.sizes, x.dtype, x.device),
        contiguous(ctx, x.sizes, torch.int64, x.device),
    )


# -- membership ------------------------------------------------------------------------------------


@rule(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(
    ctx: RuleContext,
    x: Any,
    boundaries: FakeTensor,
    *,
    out_int32: bool = False,
    right: bool = False,
) -> FakeTensor:
    """The index of the bucket of each value."""
    if len(boundaries.sizes) != 1:
        raise RuntimeError(
            f"boundaries tensor must be 1 dimension, but got dim({len(boundaries.sizes)})"
        )
    return _buckets(ctx, x, boundaries, out_int32)


def _buckets(ctx: RuleContext, x: Any, boundaries: FakeTensor, out_int32: bool) -> FakeTensor:
    sizes: Sequence[Size] = x.sizes if isinstance(x, FakeTensor) else ()
    dtype = torch.int32 if out_int32 else torch.int64
    return contiguous(ctx, tuple(sizes), dtype, boundaries.device)


@rule(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    ctx: RuleContext,
    sorted_sequence: FakeTensor,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: FakeTensor | None = None,
) -> FakeTensor:
    return _buckets(ctx, x, sorted_sequence, out_int32)


@rule(aten.isin.Tensor_Tensor, aten.isin.Tensor_Scalar, aten.isin.Scalar_Tensor)
def isin(ctx: RuleContext, elements: Any, test: Any, **_: Any) -> FakeTensor:
    """Whether each element is among the tested ones."""
    if not isinstance(elements, FakeTensor):
        return contiguous(ctx, (), torch.bool, test.device)
    return elementwise(ctx, (elements,), torch.bool)
