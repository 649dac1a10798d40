"""Gradients, the trapezoidal rule, quantiles, histograms, Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim, wrap_dims
from stillframe.fake.rules.elementwise import as_float, contiguous, contiguous_strides, elementwise
from stillframe.fake.rules.reshaping import view
from stillframe.fake.rules.sizing import must, must_match, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size

aten = torch.ops.aten
Maybe = FakeTensor | None


# -- differences and sums ----------------------------------------------------------------------


@rule(
    aten.gradient.scalarint,
    aten.gradient.scalararray,
    aten.gradient.array,
    aten.gradient.scalarrayint,
    aten.gradient.scalarrayarray,
    aten.gradient.tensorarrayint,
    aten.gradient.tensorarray,
)
def gradient(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    spacing: Any = None,
    dim: Any = None,
    edge_order: int = 1,
) -> list[FakeTensor]:
    """Central differences along each dim, one-sided ones at the ends."""
    dims = wrap_dims(dim, len(x.sizes), empty_is_all=False)
    if isinstance(spacing, list) and len(spacing) != len(dims):
        raise RuntimeError("torch.gradient expected spacing to fit the given dims")
    if edge_order not in (1, 2):
        raise RuntimeError("torch.gradient only supports edge_order=1 and edge_order=2.")
    for d in dims:
        message = f"torch.gradient expected each dimension size to be at least {edge_order + 1}"
        must(ctx, x.sizes[d] > edge_order, message)
    for t in spacing if isinstance(spacing, list) else ():
        if isinstance(t, FakeTensor) and t.device != x.device:
            raise RuntimeError(
                "torch.gradient expected each tensor to be on the same device, but got devices "
                f"{x.device} and {t.device}!"
            )
    dtype = as_float(x.dtype)
    return [contiguous(ctx, x.sizes, dtype, x.device) for _ in dims]


@rule(aten.trapezoid.x, aten.trapz.x)
def trapezoid(ctx: RuleContext, y: FakeTensor, x: FakeTensor, *, dim: int = -1) -> FakeTensor:
    """The integral along a dim over the points ``x``."""
    return _integral(ctx, _terms(ctx, y, x, dim), dim)


@rule(aten.trapezoid.dx, aten.trapz.dx)
def trapezoid_dx(ctx: RuleContext, y: FakeTensor, *, dx: Any = 1, dim: int = -1) -> FakeTensor:
    """The integral along a dim over points of equal distance."""
    return _integral(ctx, _terms(ctx, y, dx, dim), dim)


def _integral(ctx: RuleContext, terms: FakeTensor, dim: int) -> FakeTensor:
    d = wrap_dim(dim, len(terms.sizes))
    sizes = terms.sizes[:d] + terms.sizes[d + 1 :]
    return contiguous(ctx, sizes, terms.dtype, terms.device)


@rule(aten.cumulative_trapezoid.x)
def cumulative_trapezoid(
    ctx: RuleContext, y: FakeTensor, x: FakeTensor, *, dim: int = -1
) -> FakeTensor:
    terms = _terms(ctx, y, x, dim)
    return contiguous(ctx, terms.sizes, terms.dtype, terms.device)


@rule(aten.cumulative_trapezoid.dx)
def cumulative_trapezoid_dx(
    ctx: RuleContext, y: FakeTensor, *, dx: Any = 1, dim: int = -1
) -> FakeTensor:
    terms = _terms(ctx, y, dx, dim)
    return contiguous(ctx, terms.sizes, terms.dtype, terms.device)


def _terms(ctx: RuleContext, y: FakeTensor, x: Any, dim: int) -> FakeTensor:
    """The areas between neighbours: one less along ``dim`` than there are points."""
    d = wrap_dim(dim, len(y.sizes))
    between = ctx.view(y, _one_less(ctx, y.sizes, d), y.strides, y.offset)
    if not isinstance(x, FakeTensor):
        return elementwise(ctx, (between,), as_float(ctx.promote(y, x)))
    if len(x.sizes) == 1:
        must_match(ctx, x.sizes, (y.sizes[d],), "There must be one `x` value for each sample point")
        sizes = (*_one_less(ctx, x.sizes, 0), *[1] * (len(y.sizes) - 1 - d))
        steps = contiguous(ctx, sizes, x.dtype, x.device)
    else:
        at = wrap_dim(dim, len(x.sizes))
        steps = ctx.view(x, _one_less(ctx, x.sizes, at), x.strides, x.offset)
    return elementwise(ctx, (steps, between), as_float(ctx.promote(steps, between)))


def _one_less(ctx: RuleContext, sizes: Sequence[Size], dim: int) -> tuple[Size, ...]:
    size = sizes[dim]
    less = size if type(size) is int and size == 0 else tidy(ctx, size - 1)
    return (*sizes[:dim], less, *sizes[dim + 1 :])


# -- quantiles and histograms ----------------------------------------------------------------------


@rule(
    aten.quantile.default, aten.quantile.scalar, aten.nanquantile.default, aten.nanquantile.scalar
)
def quantile(
    ctx: RuleContext,
    x: FakeTensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> FakeTensor:
    """One result for each of ``q``, which come first; they are computed as the last dim."""
    if interpolation != "linear":  # which elements are taken is then no function of q
        ctx.requires_grad = ctx.requires_grad and x.requires_grad
    if x.dtype not in (torch.float32, torch.float64):
        raise RuntimeError("quantile() input tensor must be either float or double dtype")
    rank = len(x.sizes)
    if dim is None:
        rest: tuple[Size, ...] = (1,) * rank if keepdim else ()
        must(ctx, ctx.numel(x.sizes) > 0, "quantile() input tensor must be non-empty")
    else:
        d = wrap_dim(dim, rank)
        rest = x.sizes[:d] + ((1,) if keepdim and x.sizes else ()) + x.sizes[d + 1 :]
        if x.sizes:
            must(ctx, x.sizes[d] > 0, "quantile() input tensor must be non-empty")
    if not isinstance(q, FakeTensor) or not q.sizes:
        if not isinstance(q, FakeTensor):
            must(ctx, 0 <= q, "quantile() q must be in the range [0, 1]")
            must(ctx, q <= 1, "quantile() q must be in the range [0, 1]")
        return contiguous(ctx, rest, x.dtype, x.device)
    if len(q.sizes) > 1:
        raise RuntimeError("quantile() q must be a scalar or 1D tensor")
    if q.dtype is not x.dtype:
        raise RuntimeError("quantile() q tensor must be same dtype as the input tensor")
    strides = contiguous_strides((*rest, q.sizes[0]))
    return ctx.new(x, (*q.sizes, *rest), strides=(strides[-1], *strides[:-1]))


@rule(aten.histogram.bin_ct)
def histogram(
    ctx: RuleContext, x: FakeTensor, bins: Size = 100, **_: Any
) -> tuple[FakeTensor, FakeTensor]:
    """The counts and the edges of the bins."""
    must(ctx, bins > 0, f"torch.histogram(): bins must be > 0, but got {bins}")
    counts = contiguous(ctx, (bins,), x.dtype, x.device)
    return counts, contiguous(ctx, (tidy(ctx, bins + 1),), x.dtype, x.device)


@rule(aten.histogram.bins_tensor)
def histogram_edges(
    ctx: RuleContext, x: FakeTensor, bins: FakeTensor, **_: Any
) -> tuple[FakeTensor, FakeTensor]:
    if len(bins.sizes) != 1 or bins.dtype is not x.dtype:
        raise RuntimeError("torch.histogram(): bins must be a vector of the input's dtype")
    counts = contiguous(ctx, (tidy(ctx, bins.sizes[0] - 1),), x.dtype, x.device)
    return counts, contiguous(ctx, bins.sizes, x.dtype, x.device)


@rule(aten.histogramdd.default, aten.histogramdd.int_bins, aten.histogramdd.TensorList_bins)
def histogramdd(
    ctx: RuleContext, x: FakeTensor, bins: Any, *_: Any, **__: Any
) -> tuple[FakeTensor, list[FakeTensor]]:
    """Bins of as many dims as the last dim of ``x`` is long."""
    if not isinstance(bins, list):
        if type(x.sizes[-1]) is not int:
            raise ctx.unsupported("torch.histogramdd over a number of variables that is dynamic.")
        bins = [bins] * x.sizes[-1]
    if len(x.sizes) < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions")
    message = "torch.histogramdd: the innermost dimension must be as long as there are bins"
    must_match(ctx, x.sizes[-1:], (len(bins),), message)
    tensors = [isinstance(b, FakeTensor) for b in bins]
    counts = [tidy(ctx, b.sizes[0] - 1) if t else b for b, t in zip(bins, tensors, strict=True)]
    edges = [
        b if t else contiguous(ctx, (tidy(ctx, b + 1),), x.dtype, x.device)
        for b, t in zip(bins, tensors, strict=True)
    ]
    return contiguous(ctx, tuple(counts), x.dtype, x.device), edges


@rule(aten._histogramdd_bin_edges.default)
def edges_by_column(
    ctx: RuleContext, x: FakeTensor, bins: Sequence[int], **_: Any
) -> list[FakeTensor]:
    """One vector of edges for each column of the points."""
    return [contiguous(ctx, (n + 1,), x.dtype, x.device) for n in bins]


@rule(aten._histogramdd_from_bin_cts.default)
def counts_by_column(ctx: RuleContext, x: FakeTensor, bins: Sequence[int], **_: Any) -> FakeTensor:
    """The counts, one dim for each column of the points."""
    return contiguous(ctx, tuple(bins), x.dtype, x.device)


@rule(aten._histogramdd_from_bin_tensors.default)
def counts_between_edges(
    ctx: RuleContext, x: FakeTensor, bins: Sequence[FakeTensor], **_: Any
) -> FakeTensor:
    """The same, with the edges given."""
    sizes = tuple(tidy(ctx, edges.sizes[0] - 1) for edges in bins)
    return contiguous(ctx, sizes, x.dtype, x.device)


# -- products --------------------------------------------------------------------------------------


@rule(aten.kron.default)
def kron(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """A block for each element of ``a``."""
    rank = max(len(a.sizes), len(b.sizes))
    left = (1,) * (rank - len(a.sizes)) + a.sizes
    right = (1,) * (rank - len(b.sizes)) + b.sizes
    sizes = tuple(tidy(ctx, m * n) for m, n in zip(left, right, strict=True))
    blocks = ctx.view(a, *_spread(left, a.strides, first=True), a.offset)
    inside = ctx.view(b, *_spread(right, b.strides, first=False), b.offset)
    return view(ctx, elementwise(ctx, (blocks, inside), ctx.promote(a, b)), sizes)


def _spread(
    sizes: Sequence[Size], strides: Sequence[Size], *, first: bool
) -> tuple[list[Size], list[Size]]:
    """Sizes and strides with a dim of size 1 after (or before) each of them."""
    new_sizes: list[Size] = []
    new_strides: list[Size] = []
    for size, stride in zip(sizes, [0] * (len(sizes) - len(strides)) + [*strides], strict=True):
        new_sizes += [size, 1] if first else [1, size]
        new_strides += [stride, 0] if first else [0, stride]
    return new_sizes, new_strides


@rule(aten.addr.default)
def addr(
    ctx: RuleContext,
    x: FakeTensor,
    a: FakeTensor,
    b: FakeTensor,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> FakeTensor:
    """``x + a[:, None] * b``, in one elementwise kernel."""
    if len(a.sizes) != 1 or len(b.sizes) != 1:
        raise RuntimeError("addr: Expected 1-D arguments vec1 and vec2")
    column = ctx.view(a, (a.sizes[0], 1), (a.strides[0], 0), a.offset)
    made = elementwise(ctx, (x, column, b), ctx.promote(x, a, b))
    must_match(ctx, made.sizes, (a.sizes[0], b.sizes[0]), "addr: the size of the input is wrong")
    return made


@rule(aten.addr_.default)
def addr_(
    ctx: RuleContext,
    x: FakeTensor,
    a: FakeTensor,
    b: FakeTensor,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> FakeTensor:
    made = addr(ctx, x, a, b)
    must_match(ctx, x.sizes, made.sizes, f"addr_: {x.sizes} is not the size of the product")
    return x


@rule(aten.segment_reduce.default)
def segment_reduce(
    ctx: RuleContext,
    x: FakeTensor,
    reduce: str,
    *,
    lengths: Maybe = None,
    indices: Maybe = None,
    offsets: Maybe = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> FakeTensor:
    """One result for each segment of ``axis``."""
    axis = wrap_dim(axis, len(x.sizes))
    segments = lengths if lengths is not None else offsets
    if segments is None:
        raise RuntimeError("segment_reduce(): Either lengths or offsets must be defined.")
    count = segments.sizes[axis]
    if lengths is None:
        count = tidy(ctx, count - 1)
    return contiguous(ctx, (*x.sizes[:axis], count, *x.sizes[axis + 1 :]), x.dtype, x.device)
