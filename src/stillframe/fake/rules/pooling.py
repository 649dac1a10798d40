"""Pooling: fixed windows, adaptive windows; im2col and col2im.

Batched images and volumes keep NHWC and NDHWC where the CPU kernel does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.conv import per_dim, window_count
from stillframe.fake.rules.dims import in_suggested_format, suggested_format
from stillframe.fake.rules.sizing import must, must_match, order_is_channels_last, plausible, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import ge, ite

aten = torch.ops.aten


# -- fixed windows ---------------------------------------------------------------------------------


def pooled_size(
    ctx: RuleContext, size: Size, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Size:
    """The number of windows along a dim.

    With ``ceil`` a last window may hang over the end, but must start inside the input or the
    padding before it.
    """
    if not ceil:
        count = window_count(ctx, size, kernel, stride, 2 * padding, dilation)
    else:
        reach = dilation * (kernel - 1) + 1
        count = tidy(ctx, (size + 2 * padding - reach + stride - 1) // stride + 1)
        if padding + stride > reach:  # else the last window always starts inside
            beyond = (count - 1) * stride >= size + padding
            if isinstance(beyond, bool):
                count = count - 1 if beyond else count
            else:
                count = tidy(ctx, count - ite(beyond, 1, 0))
    if not plausible(ctx, count >= 1 if type(count) is int else ge(count, 1)):
        raise RuntimeError(
            f"Given input size: {size}. Calculated output size: {count}. Output size is too small"
        )
    return count


def _pooled(
    ctx: RuleContext,
    name: str,
    x: FakeTensor,
    spatial: int,
    kernel: Any,
    stride: Any,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> tuple[Size, ...]:
    """Sizes of the result; an empty stride means the kernel's size."""
    if len(x.sizes) not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"{name}: Expected {spatial + 1}D or {spatial + 2}D input, but got {len(x.sizes)}D"
        )
    kernel = per_dim(kernel, spatial)
    stride = kernel if stride is None or stride == [] else per_dim(stride, spatial)
    padding, dilation = per_dim(padding, spatial), per_dim(dilation, spatial)
    for p, d in zip(padding, dilation, strict=True):
        must(ctx, p >= 0, f"pad must be non-negative, but got pad: {p}")
        must(ctx, d > 0, f"{name}() dilation must be greater than zero, but got {d}")
    for k, p in zip(kernel, padding, strict=True):
        if type(k) is int and type(p) is int and 2 * p > k:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, "
                f"kernel_size={k}"
            )
    lead = len(x.sizes) - spatial
    for size in x.sizes[lead - 1 :]:
        must(ctx, size > 0, f"{name}: Expected non-batch dims of non-zero size, got {x.sizes}")
    return (
        *x.sizes[:lead],
        *[
            pooled_size(ctx, x.sizes[lead + i], kernel[i], stride[i], padding[i], dilation[i], ceil)
            for i in range(spatial)
        ],
    )


def _formatted_row(
    ctx: RuleContext, x: FakeTensor, sizes: Sequence[Any], dtype: torch.dtype | None = None
) -> FakeTensor:
    """The same for a 1-d operator that runs as a 2-d one over a height of 1."""
    if len(sizes) == 3:
        n, c, length = x.sizes
        sn, sc, step = x.strides
        if order_is_channels_last((n, c, 1, length), (sn, sc, length * step, step)):
            strides = ctx.channels_last_strides((*sizes[:2], 1, sizes[2]))
            return ctx.new(x, sizes, dtype=dtype, strides=(*strides[:2], strides[3]))
    return ctx.new(x, sizes, dtype=dtype)


@rule(aten.max_pool1d.default)
def max_pool1d(
    ctx: RuleContext,
    x: FakeTensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> FakeTensor:
    stride = list(stride) if isinstance(stride, tuple) else stride
    args = (kernel_size, stride, padding, dilation, ceil_mode)
    return ctx.new(x, _pooled(ctx, "max_pool1d", x, 1, *args))


def _max_pool(spatial: int) -> None:
    name = f"max_pool{spatial}d"

    def result(ctx: RuleContext, x: FakeTensor, *args: Any) -> FakeTensor:
        sizes = _pooled(ctx, name, x, spatial, *args)
        if spatial == 3 and suggested_format(x) is torch.channels_last:
            raise RuntimeError(
                "Unsupported memory format. Supports only ChannelsLast3d, Contiguous"
            )
        if len(x.sizes) < spatial + 2:
            return ctx.new(x, sizes)
        return in_suggested_format(ctx, x, sizes) if spatial > 1 else _formatted_row(ctx, x, sizes)

    def plain(
        ctx: RuleContext,
        x: FakeTensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> FakeTensor:
        """The greatest element of each window."""
        return result(ctx, x, kernel_size, stride, padding, dilation, ceil_mode)

    def with_indices(
        ctx: RuleContext,
        x: FakeTensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> tuple[FakeTensor, FakeTensor]:
        """The greatest elements, and where they are."""
        values = result(ctx, x, kernel_size, stride, padding, dilation, ceil_mode)
        where = ctx.new(x, values.sizes, dtype=torch.int64, strides=values.strides)
        return values, where

    if spatial > 1:
        rule(getattr(aten, name).default)(plain)
    rule(getattr(aten, f"{name}_with_indices").default)(with_indices)


for _spatial in (1, 2, 3):
    _max_pool(_spatial)


@rule(aten.avg_pool1d.default)
def avg_pool1d(
    ctx: RuleContext,
    x: FakeTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> FakeTensor:
    sizes = _pooled(ctx, "avg_pool1d", x, 1, kernel_size, stride, padding, 1, ceil_mode)
    return _formatted_row(ctx, x, sizes)


@rule(aten.avg_pool2d.default)
def avg_pool2d(
    ctx: RuleContext,
    x: FakeTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> FakeTensor:
    _no_zero_divisor(divisor_override)
    return in_suggested_format(
        ctx, x, _pooled(ctx, "avg_pool2d", x, 2, kernel_size, stride, padding, 1, ceil_mode)
    )


@rule(aten.avg_pool3d.default)
def avg_pool3d(
    ctx: RuleContext,
    x: FakeTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> FakeTensor:
    _no_zero_divisor(divisor_override)
    return ctx.new(x, _pooled(ctx, "avg_pool3d", x, 3, kernel_size, stride, padding, 1, ceil_mode))


# -- a given number of windows ---------------------------------------------------------------------


def _no_zero_divisor(divisor: int | None) -> None:
    if divisor is not None and divisor == 0:
        raise RuntimeError("divisor must be not zero")


def _adaptive(ctx: RuleContext, x: FakeTensor, spatial: int, output_size: Any) -> tuple[Size, ...]:
    if len(x.sizes) not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"adaptive pooling: Expected {spatial + 1}D or {spatial + 2}D tensor, but got "
            f"{len(x.sizes)}D"
        )
    windows = per_dim(output_size, spatial)
    if len(windows) != spatial:
        raise RuntimeError(f"adaptive pooling: output_size must be {spatial}")
    for count in windows:
        must(ctx, count >= 0, f"elements of output_size must not be negative, got {windows}")
    return (*x.sizes[: len(x.sizes) - spatial], *windows)


def _row_major(
    ctx: RuleContext, x: FakeTensor, sizes: Sequence[Any], dtype: torch.dtype | None = None
) -> FakeTensor:
    return ctx.new(x, sizes, dtype=dtype)


_formatters = {1: _formatted_row, 2: in_suggested_format, 3: _row_major}


def _adaptive_avg(overload: Any, spatial: int) -> None:
    @rule(overload)
    def adaptive_avg_pool(ctx: RuleContext, x: FakeTensor, output_size: Any) -> FakeTensor:
        """Means over windows that cover the input; one window is a plain mean."""
        sizes = _adaptive(ctx, x, spatial, output_size)
        return _formatters[spatial](ctx, x, sizes)


_adaptive_avg(aten.adaptive_avg_pool1d.default, 1)
_adaptive_avg(aten.adaptive_avg_pool2d.default, 2)
_adaptive_avg(aten._adaptive_avg_pool2d.default, 2)
_adaptive_avg(aten.adaptive_avg_pool3d.default, 3)
_adaptive_avg(aten._adaptive_avg_pool3d.default, 3)


def _adaptive_max(overload: Any, spatial: int) -> None:
    @rule(overload)
    def adaptive_max_pool(
        ctx: RuleContext, x: FakeTensor, output_size: Any
    ) -> tuple[FakeTensor, FakeTensor]:
        """Maxima over windows that cover the input, and where they are."""
        sizes = _adaptive(ctx, x, spatial, output_size)
        make = _formatters[spatial]
        return make(ctx, x, sizes), make(ctx, x, sizes, torch.int64)


_adaptive_max(aten.adaptive_max_pool1d.default, 1)
_adaptive_max(aten.adaptive_max_pool2d.default, 2)
_adaptive_max(aten.adaptive_max_pool3d.default, 3)


def _fractional(overload: Any, spatial: int) -> None:
    @rule(overload)
    def fractional_max_pool(
        ctx: RuleContext, x: FakeTensor, kernel_size: Any, output_size: Any, random_samples: Any
    ) -> tuple[FakeTensor, FakeTensor]:
        """Windows at random places."""
        sizes = _adaptive(ctx, x, spatial, output_size)
        return ctx.new(x, sizes), ctx.new(x, sizes, dtype=torch.int64)


_fractional(aten.fractional_max_pool2d.default, 2)
_fractional(aten.fractional_max_pool3d.default, 3)


@rule(aten.max_unpool2d.default)
def max_unpool2d(
    ctx: RuleContext, x: FakeTensor, indices: FakeTensor, output_size: Any
) -> FakeTensor:
    """Elements put back where they came from, zeros elsewhere."""
    must_match(ctx, indices.sizes, x.sizes, "the shape of indices must be that of the input")
    return in_suggested_format(ctx, x, _adaptive(ctx, x, 2, output_size))


@rule(aten.max_unpool3d.default)
def max_unpool3d(
    ctx: RuleContext,
    x: FakeTensor,
    indices: FakeTensor,
    output_size: Any,
    stride: Any,
    padding: Any,
) -> FakeTensor:
    must_match(ctx, indices.sizes, x.sizes, "the shape of indices must be that of the input")
    return ctx.new(x, _adaptive(ctx, x, 3, output_size))


# -- windows as columns ----------------------------------------------------------------------------


@rule(aten.im2col.default)
def im2col(
    ctx: RuleContext, x: FakeTensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> FakeTensor:
    """``(n, c * kernel elements, windows)``."""
    *batch, channels, _, _ = x.sizes
    count: Any = 1
    for i in range(2):
        count = count * window_count(
            ctx, x.sizes[i - 2], kernel_size[i], stride[i], 2 * padding[i], dilation[i]
        )
    rows = tidy(ctx, channels * kernel_size[0] * kernel_size[1])
    return ctx.new(x, (*batch, rows, tidy(ctx, count)))


@rule(aten.col2im.default)
def col2im(
    ctx: RuleContext,
    x: FakeTensor,
    output_size: Any,
    kernel_size: Any,
    dilation: Any,
    padding: Any,
    stride: Any,
) -> FakeTensor:
    """The sum of the windows, each at its place."""
    *batch, rows, count = x.sizes
    elements = kernel_size[0] * kernel_size[1]
    windows: Any = 1
    for i in range(2):
        windows = windows * window_count(
            ctx, output_size[i], kernel_size[i], stride[i], 2 * padding[i], dilation[i]
        )
    ctx.require_same(
        count,
        tidy(ctx, windows),
        f"Given output_size={list(output_size)}, expected size of input's dimension 2 to match the "
        f"calculated number of sliding blocks {windows}, but got {count}",
    )
    if type(rows) is int and type(elements) is int and rows % elements:
        raise RuntimeError(
            f"Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={rows} and kernel_size={list(kernel_size)}"
        )
    return ctx.new(x, (*batch, tidy(ctx, rows // elements), *output_size))
