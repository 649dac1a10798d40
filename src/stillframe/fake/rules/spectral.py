"""Fourier transforms, of one dim, of several dims and of windows (stft, istft).

With MKL the memory of a result is ordered "other dims by falling stride of the input, then the
transformed dims", row-major in that order; without MKL it is row-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim, wrap_dims
from stillframe.fake.rules.elementwise import (
    as_float,
    compare_strides,
    complex_of,
    elementwise,
    real_of,
)
from stillframe.fake.rules.rearrange import constant_pad_nd, roll
from stillframe.fake.rules.sizing import tidy
from stillframe.fake.rules.striding import view_as_real
from stillframe.fake.rules.views import transpose
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, unwrap

aten = torch.ops.aten


# -- layout --------------------------------------------------------------------------------------


def _falling(ctx: RuleContext, x: FakeTensor, dims: Sequence[int]) -> list[int]:
    """``dims`` by falling stride."""

    def compare(a: int, b: int) -> int:
        order = compare_strides(x.strides[a], x.strides[b])
        if order is None:
            hints = [
                ctx.env.hint_of(s) if isinstance(s, Expr) else s
                for s in (x.strides[a], x.strides[b])
            ]
            order = 0 if None in hints else (hints[0] > hints[1]) - (hints[0] < hints[1])
        return -order

    return sorted(dims, key=cmp_to_key(compare))


def _others(rank: int, dims: Sequence[int]) -> list[int]:
    """The dims beside ``dims``, in the order in which the kernel sorts them by stride.

    It moves them to the front, and each takes the place of one of ``dims``, the last one first.
    That shows where strides are equal, as those of an expanded tensor are.
    """
    order = list(range(rank))
    low, high = 0, rank - 1
    while low < high:
        if order[low] not in dims:
            low += 1
        elif order[high] in dims:
            high -= 1
        else:
            order[low], order[high] = order[high], order[low]
            low, high = low + 1, high - 1
    return order[: rank - len(dims)]


def _transformed(
    ctx: RuleContext, x: FakeTensor, dims: Sequence[int], sizes: Sequence[Any], dtype: torch.dtype
) -> FakeTensor:
    """New memory for a transform over ``dims``, given in the order in which they lie in memory."""
    if not torch.backends.mkl.is_available():
        return ctx.new(x, sizes, dtype=dtype)
    order = [*_falling(ctx, x, _others(len(x.sizes), dims)), *dims]
    plain = tuple(s if type(s) is int else unwrap(s) for s in sizes)
    return ctx.new(x, plain, dtype=dtype, strides=layout.permuted_strides(plain, order[::-1]))


def _c2c(ctx: RuleContext, x: FakeTensor, dims: Sequence[int]) -> FakeTensor:
    return _transformed(ctx, x, _falling(ctx, x, dims), x.sizes, x.dtype)


def _r2c(ctx: RuleContext, x: FakeTensor, dims: Sequence[int], onesided: bool) -> FakeTensor:
    """Of a real tensor; the last of ``dims`` keeps only the half that is not redundant."""
    sizes: list[Any] = list(x.sizes)
    if onesided:
        sizes[dims[-1]] = tidy(ctx, x.sizes[dims[-1]] // 2 + 1)
    order = [*_falling(ctx, x, dims[:-1]), dims[-1]]
    return _transformed(ctx, x, order, sizes, complex_of(x.dtype))


def _c2r(ctx: RuleContext, x: FakeTensor, dims: Sequence[int], last: Any) -> FakeTensor:
    """To a real tensor with ``last`` elements along the last of ``dims``."""
    if len(dims) > 1:
        x = _c2c(ctx, x, dims[:-1])
    sizes: list[Any] = list(x.sizes)
    sizes[dims[-1]] = last
    return _transformed(ctx, x, dims[-1:], sizes, real_of(x.dtype))


# -- arguments -----------------------------------------------------------------------------------


def _promoted(ctx: RuleContext, x: FakeTensor, *, to_complex: bool = False) -> FakeTensor:
    dtype = as_float(x.dtype)
    if to_complex:
        dtype = complex_of(dtype)
    return x if dtype is x.dtype else ctx.new_like(x, dtype=dtype)


def _cut_or_padded(ctx: RuleContext, x: FakeTensor, dims: Sequence[int], counts: Any) -> FakeTensor:
    """``x`` with the given sizes along ``dims``: cut, or padded with zeros."""
    sizes, grows = list(x.sizes), False
    for d, count in zip(dims, counts, strict=True):
        if count is None or (type(count) is int and count == -1) or count is sizes[d]:
            continue
        if type(count) is int and count < 1:
            raise RuntimeError(f"Invalid number of data points ({count}) specified")
        grows = grows or _hint(ctx, count) > _hint(ctx, sizes[d])
        sizes[d] = count
    if not grows:
        return ctx.view(x, sizes, x.strides, x.offset)
    pad: list[Any] = []
    for d in range(len(sizes) - 1, -1, -1):
        pad += [0, sizes[d] - x.sizes[d]]
    padded = constant_pad_nd(ctx, x, pad)
    return ctx.new(x, sizes, strides=padded.strides)


def _hint(ctx: RuleContext, size: Size) -> int:
    hint = ctx.env.hint_of(size) if isinstance(size, Expr) else size
    return 0 if hint is None else int(hint)


def _dims_and_sizes(x: FakeTensor, s: Any, dim: Any) -> tuple[list[int], list[Any]]:
    rank = len(x.sizes)
    if dim is None:
        dims = list(range(0 if s is None else rank - len(s), rank))
    else:
        dims = list(wrap_dims(dim, rank, empty_is_all=False))
    if s is not None and len(s) != len(dims):
        raise RuntimeError("When given, dim and shape arguments must have the same length")
    return dims, [None] * len(dims) if s is None else list(s)


# -- one dim -------------------------------------------------------------------------------------


@rule(aten.fft_fft.default, aten.fft_ifft.default)
def fft(
    ctx: RuleContext, x: FakeTensor, n: Any = None, dim: int = -1, norm: str | None = None
) -> FakeTensor:
    x = _promoted(ctx, x)
    d = wrap_dim(dim, len(x.sizes))
    x = _cut_or_padded(ctx, x, [d], [n])
    return _c2c(ctx, x, [d]) if x.dtype.is_complex else _r2c(ctx, x, [d], False)


@rule(aten.fft_rfft.default, aten.fft_ihfft.default)
def rfft(
    ctx: RuleContext, x: FakeTensor, n: Any = None, dim: int = -1, norm: str | None = None
) -> FakeTensor:
    if x.dtype.is_complex:
        raise RuntimeError(f"rfft expects a real input tensor, but got {x.dtype}")
    x = _promoted(ctx, x)
    d = wrap_dim(dim, len(x.sizes))
    return _r2c(ctx, _cut_or_padded(ctx, x, [d], [n]), [d], True)


@rule(aten.fft_irfft.default, aten.fft_hfft.default)
def irfft(
    ctx: RuleContext, x: FakeTensor, n: Any = None, dim: int = -1, norm: str | None = None
) -> FakeTensor:
    """``n`` elements along ``dim``, twice as many as there are (less two) if not given."""
    x = _promoted(ctx, x, to_complex=True)
    d = wrap_dim(dim, len(x.sizes))
    last: Any = tidy(ctx, (x.sizes[d] - 1) * 2) if n is None else n
    x = _cut_or_padded(ctx, x, [d], [None if n is None else tidy(ctx, n // 2 + 1)])
    return _c2r(ctx, x, [d], last)


# -- several dims ----------------------------------------------------------------------------------


@rule(aten.fft_fftn.default, aten.fft_ifftn.default)
def fftn(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = None, norm: str | None = None
) -> FakeTensor:
    dims, counts = _dims_and_sizes(x, s, dim)
    x = _cut_or_padded(ctx, _promoted(ctx, x, to_complex=True), dims, counts)
    return _c2c(ctx, x, dims)


@rule(aten.fft_fft2.default, aten.fft_ifft2.default)
def fft2(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None
) -> FakeTensor:
    return fftn(ctx, x, s, dim, norm)


@rule(aten.fft_rfftn.default)
def rfftn(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = None, norm: str | None = None
) -> FakeTensor:
    if x.dtype.is_complex:
        raise RuntimeError(f"rfftn expects a real-valued input tensor, but got {x.dtype}")
    dims, counts = _dims_and_sizes(x, s, dim)
    return _r2c(ctx, _cut_or_padded(ctx, _promoted(ctx, x), dims, counts), dims, True)


@rule(aten.fft_rfft2.default)
def rfft2(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None
) -> FakeTensor:
    return rfftn(ctx, x, s, dim, norm)


@rule(aten.fft_irfftn.default, aten.fft_hfftn.default)
def irfftn(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = None, norm: str | None = None
) -> FakeTensor:
    dims, counts = _dims_and_sizes(x, s, dim)
    last = counts[-1]
    if last is None or (type(last) is int and last == -1):
        last = tidy(ctx, (x.sizes[dims[-1]] - 1) * 2)
        counts[-1] = None
    else:
        counts[-1] = tidy(ctx, last // 2 + 1)
    x = _cut_or_padded(ctx, _promoted(ctx, x, to_complex=True), dims, counts)
    return _c2r(ctx, x, dims, last)


@rule(aten.fft_irfft2.default, aten.fft_hfft2.default)
def irfft2(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None
) -> FakeTensor:
    return irfftn(ctx, x, s, dim, norm)


@rule(aten.fft_ihfftn.default)
def ihfftn(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = None, norm: str | None = None
) -> FakeTensor:
    """The last dim from real to complex numbers, then the others."""
    if x.dtype.is_complex:
        raise RuntimeError(f"ihfftn expects a real-valued input tensor, but got {x.dtype}")
    dims, counts = _dims_and_sizes(x, s, dim)
    if not dims:
        raise RuntimeError("ihfftn must transform at least one axis")
    half = _r2c(ctx, _cut_or_padded(ctx, _promoted(ctx, x), dims, counts), dims[-1:], True)
    return _c2c(ctx, half, dims[:-1]) if len(dims) > 1 else half


@rule(aten.fft_ihfft2.default)
def ihfft2(
    ctx: RuleContext, x: FakeTensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None
) -> FakeTensor:
    return ihfftn(ctx, x, s, dim, norm)


@rule(aten._fft_c2c.default)
def fft_c2c(
    ctx: RuleContext, x: FakeTensor, dim: Any, normalization: int, forward: bool
) -> FakeTensor:
    return _c2c(ctx, x, wrap_dims(dim, len(x.sizes)))


@rule(aten._fft_r2c.default)
def fft_r2c(
    ctx: RuleContext, x: FakeTensor, dim: Any, normalization: int, onesided: bool
) -> FakeTensor:
    return _r2c(ctx, x, wrap_dims(dim, len(x.sizes)), onesided)


@rule(aten._fft_c2r.default)
def fft_c2r(
    ctx: RuleContext, x: FakeTensor, dim: Any, normalization: int, last_dim_size: Any
) -> FakeTensor:
    return _c2r(ctx, x, wrap_dims(dim, len(x.sizes)), last_dim_size)


@rule(aten.fft_fftshift.default, aten.fft_ifftshift.default)
def fftshift(ctx: RuleContext, x: FakeTensor, dim: Any = None) -> FakeTensor:
    """A roll by half of each size."""
    dims = wrap_dims(dim, len(x.sizes))
    return roll(ctx, x, [1] * len(dims), list(dims))


@rule(aten.fft_fftfreq.default)
def fftfreq(
    ctx: RuleContext, n: Any, d: float = 1.0, *, dtype: Any = None, device: Any = None, **_: Any
) -> FakeTensor:
    return ctx.empty((n,), dtype=dtype or torch.get_default_dtype(), device=device)


@rule(aten.fft_rfftfreq.default)
def rfftfreq(
    ctx: RuleContext, n: Any, d: float = 1.0, *, dtype: Any = None, device: Any = None, **_: Any
) -> FakeTensor:
    size = tidy(ctx, n // 2 + 1)
    return ctx.empty((size,), dtype=dtype or torch.get_default_dtype(), device=device)


# -- windows -------------------------------------------------------------------------------------


def _frames(
    ctx: RuleContext,
    x: FakeTensor,
    n_fft: Any,
    hop_length: Any,
    extra: Any,
    window: FakeTensor | None,
    onesided: Any,
    out: Any,
) -> FakeTensor:
    """``(batch, frequencies, frames)``; in memory each frame's frequencies are together."""
    hop = n_fft // 4 if hop_length is None else hop_length
    count = tidy(ctx, (x.sizes[-1] + extra - n_fft) // hop + 1)
    if onesided is None:
        onesided = not x.dtype.is_complex
    frames = ctx.view(
        x,
        (*x.sizes[:-1], count, n_fft),
        (*x.strides[:-1], x.strides[-1] * hop, x.strides[-1]),
        x.offset,
    )
    if extra:  # padded, so row-major
        frames = ctx.new(frames, frames.sizes)
    if window is not None:
        frames = elementwise(ctx, (frames, window), ctx.promote(frames, window))
    last = (len(frames.sizes) - 1,)
    made = _c2c(ctx, frames, last) if frames.dtype.is_complex else _r2c(ctx, frames, last, onesided)
    result = transpose(ctx, made, -1, -2)
    if out is None:
        out = x.dtype.is_complex
    if out:
        return result
    return view_as_real(ctx, result)


@rule(aten.stft.default)
def stft(
    ctx: RuleContext,
    x: FakeTensor,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: FakeTensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> FakeTensor:
    return _frames(ctx, x, n_fft, hop_length, 0, window, onesided, return_complex)


@rule(aten.stft.center)
def stft_center(
    ctx: RuleContext,
    x: FakeTensor,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: FakeTensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> FakeTensor:
    """Padded by half a window on both sides, so that frames are centred."""
    extra = 2 * (n_fft // 2) if center else 0
    return _frames(ctx, x, n_fft, hop_length, extra, window, onesided, return_complex)


@rule(aten.istft.default)
def istft(
    ctx: RuleContext,
    x: FakeTensor,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: FakeTensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> FakeTensor:
    """The signal, without the padding of half a window on both sides."""
    if not x.dtype.is_complex:
        raise RuntimeError("istft requires a complex-valued input tensor")
    hop = n_fft // 4 if hop_length is None else hop_length
    total = n_fft + hop * (x.sizes[-1] - 1)
    size = length if length is not None else total - (2 * (n_fft // 2) if center else 0)
    dtype = x.dtype if return_complex else real_of(x.dtype)
    return ctx.new(x, (*x.sizes[:-2], tidy(ctx, size)), dtype=dtype)
