"""Copies that move, repeat or pad elements: repeat, flip, roll, pad, tril and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import in_suggested_format, wrap_dim, wrap_dims
from stillframe.fake.rules.elementwise import contiguous, dense_like
from stillframe.fake.rules.sizing import plausible, tidy
from stillframe.fake.rules.striding import diagonal as diagonal_view
from stillframe.fake.rules.views import swapped
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, ge, unwrap

aten = torch.ops.aten


# -- repeat --------------------------------------------------------------------------------------


def _repeated(ctx: RuleContext, x: FakeTensor, repeats: Sequence[Any]) -> FakeTensor:
    lead = len(repeats) - len(x.sizes)
    sizes = (1,) * lead + x.sizes
    new = tuple(unwrap(s * r) for s, r in zip(sizes, repeats, strict=True))
    return contiguous(ctx, new, x.dtype, x.device)


@rule(aten.repeat.default)
def repeat(ctx: RuleContext, x: FakeTensor, repeats: list[Any]) -> FakeTensor:
    if len(repeats) < len(x.sizes):
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    return _repeated(ctx, x, repeats)


@rule(aten.tile.default)
def tile(ctx: RuleContext, x: FakeTensor, dims: list[Any]) -> FakeTensor:
    """``repeat`` with ones before ``dims`` where there are fewer than dims of ``x``."""
    return _repeated(ctx, x, [1] * (len(x.sizes) - len(dims)) + list(dims))


# -- the same sizes --------------------------------------------------------------------------------


@rule(aten.roll.default)
def roll(ctx: RuleContext, x: FakeTensor, shifts: Any, dims: Any = ()) -> FakeTensor:
    """Two slices put together by ``cat``, dim by dim."""
    shifts = [shifts] if isinstance(shifts, (int, Expr)) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    if not shifts:
        raise RuntimeError("`shifts` required")
    if not dims and len(shifts) == 1:
        return contiguous(ctx, x.sizes, x.dtype, x.device)
    if len(shifts) != len(dims):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}"
        )
    if not x.sizes:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    for d in dims:
        wrap_dim(d, len(x.sizes))
    return in_suggested_format(ctx, x)


@rule(aten.flip.default)
def flip(ctx: RuleContext, x: FakeTensor, dims: list[int]) -> FakeTensor:
    wrap_dims(dims, len(x.sizes), empty_is_all=False)
    return dense_like(ctx, x)


@rule(aten.fliplr.default)
def fliplr(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if len(x.sizes) < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return dense_like(ctx, x)


@rule(aten.flipud.default)
def flipud(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.sizes:
        raise RuntimeError("Input must be >= 1-d.")
    return dense_like(ctx, x)


@rule(aten.rot90.default)
def rot90(ctx: RuleContext, x: FakeTensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> FakeTensor:
    """Quarter turns: flips, then for odd ``k`` a transpose."""
    a, b = wrap_dims(dims, len(x.sizes), empty_is_all=False)
    if k % 4 == 0:
        return contiguous(ctx, x.sizes, x.dtype, x.device)
    turned = dense_like(ctx, x)
    return turned if k % 2 == 0 else swapped(ctx, turned, a, b)


@rule(aten.tril.default, aten.triu.default)
def triangle(ctx: RuleContext, x: FakeTensor, diagonal: Any = 0) -> FakeTensor:
    return contiguous(ctx, triangle_(ctx, x, diagonal).sizes, x.dtype, x.device)


@rule(aten.tril_.default, aten.triu_.default)
def triangle_(ctx: RuleContext, x: FakeTensor, diagonal: Any = 0) -> FakeTensor:
    if len(x.sizes) < 2:
        raise RuntimeError("triu: input tensor must have at least 2 dimensions")
    return x


@rule(aten.channel_shuffle.default, aten.native_channel_shuffle.default)
def channel_shuffle(ctx: RuleContext, x: FakeTensor, groups: Any) -> FakeTensor:
    """The kernel keeps NHWC."""
    return in_suggested_format(ctx, x)


@rule(aten.pixel_shuffle.default)
def pixel_shuffle(ctx: RuleContext, x: FakeTensor, upscale_factor: int) -> FakeTensor:
    """``(..., c * r * r, h, w)`` to ``(..., c, h * r, w * r)``."""
    *lead, channels, height, width = x.sizes
    r = upscale_factor
    if type(channels) is int and channels % (r * r):
        raise RuntimeError(
            f"pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}"
        )
    sizes = (*lead, tidy(ctx, channels // (r * r)), unwrap(height * r), unwrap(width * r))
    return _shuffled(ctx, x, sizes)


@rule(aten.pixel_unshuffle.default)
def pixel_unshuffle(ctx: RuleContext, x: FakeTensor, downscale_factor: int) -> FakeTensor:
    """``(..., c, h * r, w * r)`` to ``(..., c * r * r, h, w)``."""
    *lead, channels, height, width = x.sizes
    r = downscale_factor
    for name, size in (("height", height), ("width", width)):
        if type(size) is int and size % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but {size} "
                f"is not divisible by {r}"
            )
    sizes = (*lead, unwrap(channels * r * r), tidy(ctx, height // r), tidy(ctx, width // r))
    return _shuffled(ctx, x, sizes)


def _shuffled(ctx: RuleContext, x: FakeTensor, sizes: Sequence[Any]) -> FakeTensor:
    if len(sizes) == 4:
        return in_suggested_format(ctx, x, sizes)
    return ctx.new(x, sizes)


# -- pad -----------------------------------------------------------------------------------------


def padded_sizes(ctx: RuleContext, sizes: Sequence[Size], pad: Sequence[Any]) -> tuple[Size, ...]:
    """``pad`` holds (before, after) for the last dim, then the one before it, and so on."""
    new = list(sizes)
    for i in range(len(pad) // 2):
        d = len(sizes) - 1 - i
        size = new[d] + pad[2 * i] + pad[2 * i + 1]
        fits = size >= 0 if isinstance(size, int) else ge(size, 0)
        if not plausible(ctx, fits):
            raise RuntimeError(
                f"The input size {sizes[d]}, plus negative padding {pad[2 * i]} and "
                f"{pad[2 * i + 1]} resulted in a negative output size, which is invalid. Check "
                f"dimension {d} of your input."
            )
        new[d] = size if type(size) is int else tidy(ctx, size)
    return tuple(new)


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(
    ctx: RuleContext, x: FakeTensor, pad: Sequence[Any], value: Any = 0
) -> FakeTensor:
    """New memory in the input's memory format; without any padding a clone."""
    if len(pad) % 2 or len(pad) > 2 * len(x.sizes):
        raise RuntimeError(
            f"Length of pad must be even and no more than twice the number of dimensions of the "
            f"input. Pad length is {len(pad)} while the input has {len(x.sizes)} dimensions."
        )
    if all(type(p) is int and p <= 0 for p in pad):
        return dense_like(ctx, _narrowed(ctx, x, pad))
    return in_suggested_format(ctx, x, padded_sizes(ctx, x.sizes, pad))


def _narrowed(ctx: RuleContext, x: FakeTensor, pad: Sequence[int]) -> FakeTensor:
    offset: Any = x.offset
    for i in range(len(pad) // 2):
        offset = offset - pad[2 * i] * x.strides[len(x.sizes) - 1 - i]
    return ctx.view(x, padded_sizes(ctx, x.sizes, pad), x.strides, offset)


@rule(aten.pad.default)
def pad_(
    ctx: RuleContext, x: FakeTensor, pad: Sequence[Any], mode: str = "constant", value: Any = None
) -> FakeTensor:
    """``torch.nn.functional.pad``."""
    if mode == "constant":
        return constant_pad_nd(ctx, x, pad)
    if mode not in ("circular", "reflect", "replicate"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    sizes = padded_sizes(ctx, x.sizes, pad)
    spatial = len(pad) // 2
    if spatial > 3 or len(x.sizes) not in (spatial + 1, spatial + 2):
        raise NotImplementedError(
            f"Padding size {len(pad)} is not supported for {len(x.sizes)}D input tensor."
        )
    return ctx.new(x, sizes) if mode == "circular" else edge_pad(ctx, x, pad)


@rule(aten._pad_circular.default, aten._pad_enum.default)
def pad_circular(ctx: RuleContext, x: FakeTensor, pad: Sequence[Any], *_: Any) -> FakeTensor:
    return ctx.new(x, padded_sizes(ctx, x.sizes, pad))


@rule(
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
)
def edge_pad(ctx: RuleContext, x: FakeTensor, padding: Sequence[Any]) -> FakeTensor:
    """Reflected or repeated edges; batched images and volumes keep NHWC and NDHWC."""
    sizes = padded_sizes(ctx, x.sizes, padding)
    spatial = len(padding) // 2
    if (len(x.sizes) == spatial + 2 and spatial > 1) or (len(x.sizes) == 4 and spatial == 3):
        return in_suggested_format(ctx, x, sizes)
    return ctx.new(x, sizes)


# -- diagonals -------------------------------------------------------------------------------------


@rule(aten.diag_embed.default)
def diag_embed(
    ctx: RuleContext, x: FakeTensor, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> FakeTensor:
    """The last dim becomes a diagonal of a matrix over ``dim1`` and ``dim2``."""
    rank = len(x.sizes) + 1
    d1, d2 = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if d1 == d2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    side = unwrap(x.sizes[-1] + abs(offset))
    rest = iter(x.sizes[:-1])
    sizes = tuple(side if d in (d1, d2) else next(rest) for d in range(rank))
    return ctx.new(x, sizes)


@rule(aten.diagflat.default)
def diagflat(ctx: RuleContext, x: FakeTensor, offset: int = 0) -> FakeTensor:
    side = unwrap(ctx.numel(x.sizes) + abs(offset))
    return ctx.new(x, (side, side))


@rule(aten.diag.default)
def diag(ctx: RuleContext, x: FakeTensor, diagonal: int = 0) -> FakeTensor:
    """A vector becomes a matrix, a matrix gives a copy of its diagonal."""
    if len(x.sizes) == 1:
        return diag_embed(ctx, x, diagonal)
    if len(x.sizes) != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {len(x.sizes)}D")
    view = diagonal_view(ctx, x, diagonal)
    return ctx.new(x, view.sizes)
