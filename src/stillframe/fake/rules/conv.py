"""Convolutions: sizes by the formula of the documentation, layout as the CPU kernels choose it.

The result is NHWC (NDHWC) if the input or the weight is. 1-d convolutions run as 2-d ones over a
height of 1; their input is made row-major first, so only the weight can ask for NHWC there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.sizing import must, order_is_channels_last, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr

aten = torch.ops.aten

# Without a kernel of oneDNN, 3-d convolutions make row-major results.
_ONEDNN_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def per_dim(values: Any, count: int) -> list[Any]:
    """A parameter for each spatial dim; one value stands for all."""
    if not isinstance(values, (list, tuple)):
        return [values] * count
    return list(values) * count if len(values) == 1 else list(values)


def window_count(
    ctx: RuleContext, size: Size, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> Size:
    """How many windows fit: ``floor((n + padding - dilation * (kernel - 1) - 1) / stride) + 1``.

    ``padding`` is the sum of both sides.
    """
    reach = dilation * (kernel - 1)
    if type(size) is int and size + padding < reach + 1:
        raise RuntimeError(
            f"Calculated padded input size per channel: {size + padding}. Kernel size: "
            f"{reach + 1}. Kernel size can't be greater than actual input size"
        )
    room = size + padding - reach - 1
    return tidy(ctx, room + 1 if stride == 1 else room // stride + 1)


def _convolved(
    ctx: RuleContext,
    x: FakeTensor,
    weight: FakeTensor,
    bias: FakeTensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    spatial: int,
) -> FakeTensor:
    """A forward convolution; ``padding`` holds the sum of both sides for each dim."""
    batched = _check(ctx, x, weight, bias, spatial, weight.sizes[1] * groups)
    stride, dilation = per_dim(stride, spatial), per_dim(dilation, spatial)
    for step, gap, both in zip(stride, dilation, padding, strict=True):
        must(ctx, step > 0, "non-positive stride is not supported")
        must(ctx, gap > 0, "dilation should be greater than zero")
        must(ctx, both >= 0, "negative padding is not supported")
    lead = x.sizes[:1] if batched else ()
    outer = [
        window_count(
            ctx, x.sizes[i - spatial], weight.sizes[i + 2], stride[i], padding[i], dilation[i]
        )
        for i in range(spatial)
    ]
    return conv_format(ctx, x, weight, groups, (*lead, weight.sizes[0], *outer), spatial)


def _check(
    ctx: RuleContext,
    x: FakeTensor,
    weight: FakeTensor,
    bias: FakeTensor | None,
    spatial: int,
    channels: Any,
) -> bool:
    """Ranks, dtypes and channels; whether there is a batch dim."""
    if bias is not None and bias.dtype is not x.dtype:
        raise RuntimeError(
            f"Input type ({x.dtype}) and bias type ({bias.dtype}) should be the same"
        )
    rank = len(x.sizes)
    if rank not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"Expected {spatial + 1}D (unbatched) or {spatial + 2}D (batched) input to "
            f"conv{spatial}d, but got input of size: {list(x.sizes)}"
        )
    if x.dtype is not weight.dtype:
        raise RuntimeError(
            f"Input type ({x.dtype}) and weight type ({weight.dtype}) should be the same"
        )
    batched = rank == spatial + 2
    given, wanted = x.sizes[-spatial - 1], tidy(ctx, channels)
    if given != wanted:
        ctx.require_same(
            given,
            wanted,
            f"Given weight of size {list(weight.sizes)}, expected input{list(x.sizes)} to have "
            f"{wanted} channels, but got {given} channels instead",
        )
    return batched


def conv_format(
    ctx: RuleContext,
    x: FakeTensor,
    weight: FakeTensor,
    groups: int,
    sizes: tuple[Size, ...],
    spatial: int,
) -> FakeTensor:
    """New memory for the result, in the memory format that the kernel chooses."""
    if not _channels_last(ctx, x, weight, groups, spatial):
        return contiguous(ctx, sizes, x.dtype, x.device)
    full = sizes if len(sizes) == spatial + 2 else (1, *sizes)
    strides = ctx.channels_last_strides(full if spatial > 1 else (*full[:2], 1, full[2]))
    if spatial == 1:
        strides = (*strides[:2], strides[3])
    return ctx.new(x, sizes, strides=strides[len(full) - len(sizes) :])


def _onednn(ctx: RuleContext, x: FakeTensor, weight: FakeTensor, groups: int) -> bool:
    """Whether oneDNN computes a convolution of volumes, which in float32 it does for large work.

    Decided as in the example; the layout of the result is all that depends on it.
    """
    if x.dtype not in (torch.float32, torch.complex64):
        return x.dtype in _ONEDNN_DTYPES
    batched = x.sizes if len(x.sizes) == 5 else (1, *x.sizes)
    hints = [ctx.env.hint_of(s) if isinstance(s, Expr) else s for s in (*batched, *weight.sizes)]
    if None in hints:
        return True
    large = min(hints[-2:]) > 3 or hints[0] > 1 or math.prod(hints[:4]) > 20480
    return groups > 1 or large


def _channels_last(
    ctx: RuleContext, x: FakeTensor, weight: FakeTensor, groups: int, spatial: int
) -> bool:
    if spatial == 3 and not _onednn(ctx, x, weight, groups):
        return False
    if spatial == 1:
        a, b, c = weight.sizes
        sa, sb, sc = weight.strides
        return order_is_channels_last((a, b, 1, c), (sa, sb, c * sc, sc))
    if order_is_channels_last(weight.sizes, weight.strides):
        return True
    if len(x.sizes) == spatial + 2:
        return order_is_channels_last(x.sizes, x.strides)
    lead = x.sizes[0] * x.strides[0]
    return order_is_channels_last((1, *x.sizes), (lead, *x.strides))


def _forward(name: str, spatial: int) -> None:
    packet = getattr(aten, name)

    @rule(packet.default)
    def conv(
        ctx: RuleContext,
        x: FakeTensor,
        weight: FakeTensor,
        bias: FakeTensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> FakeTensor:
        """Zeros on both sides of each dim."""
        both = [2 * p for p in per_dim(padding, spatial)]
        return _convolved(ctx, x, weight, bias, stride, both, dilation, groups, spatial)

    @rule(packet.padding)
    def conv_padding(
        ctx: RuleContext,
        x: FakeTensor,
        weight: FakeTensor,
        bias: FakeTensor | None = None,
        stride: Any = 1,
        padding: str = "valid",
        dilation: Any = 1,
        groups: int = 1,
    ) -> FakeTensor:
        """``valid`` is no padding; ``same`` keeps the sizes (an odd zero goes to the end)."""
        both = [0] * spatial
        if padding == "same":
            if any(s != 1 for s in per_dim(stride, spatial)):
                raise RuntimeError("padding='same' is not supported for strided convolutions")
            steps = per_dim(dilation, spatial)
            both = [d * (k - 1) for d, k in zip(steps, weight.sizes[2:], strict=True)]
            if any(type(b) is int and b % 2 for b in both):
                x = _padded(ctx, x, both)
                both = [b - b % 2 for b in both]
        elif padding != "valid":
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        return _convolved(ctx, x, weight, bias, stride, both, dilation, groups, spatial)


def _padded(ctx: RuleContext, x: FakeTensor, both: Sequence[Any]) -> FakeTensor:
    """The input with one zero at the end of each dim whose padding is odd (a copy)."""
    lead = len(x.sizes) - len(both)
    sizes = (*x.sizes[:lead], *[s + b % 2 for s, b in zip(x.sizes[lead:], both, strict=True)])
    if (
        len(x.sizes) == len(both) + 2
        and len(both) > 1
        and order_is_channels_last(x.sizes, x.strides)
    ):
        return ctx.new(x, sizes, strides=ctx.channels_last_strides(sizes))
    return ctx.new(x, sizes)


for _spatial in (1, 2, 3):
    _forward(f"conv{_spatial}d", _spatial)


# -- transposed ------------------------------------------------------------------------------------


def _transposed(
    ctx: RuleContext,
    x: FakeTensor,
    weight: FakeTensor,
    bias: FakeTensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    spatial: int,
) -> FakeTensor:
    """``(n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1``."""
    batched = _check(ctx, x, weight, bias, spatial, weight.sizes[0])
    lead = x.sizes[:1] if batched else ()
    stride, padding = per_dim(stride, spatial), per_dim(padding, spatial)
    more, dilation = per_dim(output_padding, spatial), per_dim(dilation, spatial)
    outer = []
    for i in range(spatial):
        size = (x.sizes[i - spatial] - 1) * stride[i] - 2 * padding[i]
        size = size + dilation[i] * (weight.sizes[i + 2] - 1) + more[i] + 1
        outer.append(tidy(ctx, size))
    channels = tidy(ctx, weight.sizes[1] * groups)
    if pads_beyond_stride(more, stride, spatial):
        return contiguous(ctx, (*lead, channels, *outer), x.dtype, x.device)
    return conv_format(ctx, x, weight, groups, (*lead, channels, *outer), spatial)


def pads_beyond_stride(output_padding: Any, stride: Any, spatial: int) -> bool:
    """Whether a transposed convolution of volumes pads its result as oneDNN cannot."""
    pairs = zip(output_padding, stride, strict=True)
    return spatial == 3 and any(type(p) is type(s) is int and p >= s for p, s in pairs)


def _transposed_rule(overload: Any, spatial: int) -> None:
    @rule(overload)
    def conv_transpose(
        ctx: RuleContext,
        x: FakeTensor,
        weight: FakeTensor,
        bias: FakeTensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> FakeTensor:
        """Transposed convolution."""
        return _transposed(
            ctx, x, weight, bias, stride, padding, output_padding, groups, dilation, spatial
        )


_transposed_rule(aten.conv_transpose1d.default, 1)
_transposed_rule(aten.conv_transpose2d.input, 2)
_transposed_rule(aten.conv_transpose3d.input, 3)


@rule(aten.convolution.default, aten._convolution.default, aten.convolution_overrideable.default)
def convolution(
    ctx: RuleContext,
    x: FakeTensor,
    weight: FakeTensor,
    bias: FakeTensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> FakeTensor:
    """Any of the above, by arguments."""
    spatial = len(weight.sizes) - 2
    if transposed:
        return _transposed(
            ctx, x, weight, bias, stride, padding, output_padding, groups, dilation, spatial
        )
    both = [2 * p for p in per_dim(padding, spatial)]
    return _convolved(ctx, x, weight, bias, stride, both, dilation, groups, spatial)


@rule(aten.conv_tbc.default)
def conv_tbc(
    ctx: RuleContext, x: FakeTensor, weight: FakeTensor, bias: FakeTensor, pad: int = 0
) -> FakeTensor:
    """Time, batch, channels."""
    length = window_count(ctx, x.sizes[0], weight.sizes[0], 1, 2 * pad, 1)
    return contiguous(ctx, (length, x.sizes[1], weight.sizes[2]), x.dtype, x.device)
