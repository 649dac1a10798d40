"""Interpolation and sampling on grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import in_suggested_format
from stillframe.fake.rules.sizing import tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, mul, to_float, trunc_

aten = torch.ops.aten


def scaled(ctx: RuleContext, size: Size, factor: Any) -> Size:
    """``int(size * factor)`` in double precision.

    A factor with few bits, such as 0.5 or 2.25, makes the product exact, so it is a division of
    integers then.
    """
    if type(size) is int and not isinstance(factor, Expr):
        return int(size * factor)
    if not isinstance(factor, Expr):
        above, below = float(factor).as_integer_ratio()
        if 0 < above < 2**16:
            return tidy(ctx, size * above // below)
    return tidy(ctx, trunc_(mul(to_float(size), factor)))


def _output_size(
    ctx: RuleContext, x: FakeTensor, output_size: Sequence[Any] | None, factors: Any
) -> list[Any]:
    if output_size is not None:
        if factors is not None:
            raise RuntimeError("Must specify exactly one of output_size and scale_factors")
        return list(output_size)
    if factors is None:
        raise RuntimeError("Must specify exactly one of output_size and scale_factors")
    return [scaled(ctx, s, f) for s, f in zip(x.sizes[2:], factors, strict=True)]


def _resized(ctx: RuleContext, x: FakeTensor, outer: Sequence[Any], spatial: int) -> FakeTensor:
    if len(x.sizes) != spatial + 2 or len(outer) != spatial:
        raise RuntimeError(
            f"It is expected input_size equals to {spatial + 2}, but got size {len(x.sizes)}"
        )
    return in_suggested_format(ctx, x, (*x.sizes[:2], *outer))


def _upsample(name: str, spatial: int, has_corners: bool) -> None:
    packet = getattr(aten, name)

    @rule(packet.default)
    def by_size(
        ctx: RuleContext, x: FakeTensor, output_size: Any, *_: Any, **__: Any
    ) -> FakeTensor:
        """To a given size; the factors only change the values."""
        return _resized(ctx, x, output_size, spatial)

    if has_corners:

        @rule(packet.vec)
        def with_corners(
            ctx: RuleContext,
            x: FakeTensor,
            output_size: Any,
            align_corners: bool,
            scale_factors: Any,
        ) -> FakeTensor:
            """To a given size or by given factors."""
            return _resized(ctx, x, _output_size(ctx, x, output_size, scale_factors), spatial)
    else:

        @rule(packet.vec)
        def without_corners(
            ctx: RuleContext, x: FakeTensor, output_size: Any, scale_factors: Any
        ) -> FakeTensor:
            """To a given size or by given factors."""
            return _resized(ctx, x, _output_size(ctx, x, output_size, scale_factors), spatial)


for _spatial in (1, 2, 3):
    _upsample(f"upsample_nearest{_spatial}d", _spatial, False)
    _upsample(f"_upsample_nearest_exact{_spatial}d", _spatial, False)
_upsample("upsample_linear1d", 1, True)
_upsample("upsample_bilinear2d", 2, True)
_upsample("upsample_bicubic2d", 2, True)
_upsample("_upsample_bilinear2d_aa", 2, True)
_upsample("_upsample_bicubic2d_aa", 2, True)
_upsample("upsample_trilinear3d", 3, True)


@rule(aten.grid_sampler.default, aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def grid_sampler(
    ctx: RuleContext,
    x: FakeTensor,
    grid: FakeTensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> FakeTensor:
    """One value of each channel for each point of the grid."""
    if len(x.sizes) != len(grid.sizes):
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have same number of dimensions"
        )
    batch = ctx.require_same(
        x.sizes[0], grid.sizes[0], "grid_sampler(): expected grid and input to have same batch size"
    )
    ctx.require_same(
        grid.sizes[-1],
        len(x.sizes) - 2,
        f"grid_sampler(): expected grid to have size {len(x.sizes) - 2} in last dimension",
    )
    return ctx.new(x, (batch, x.sizes[1], *grid.sizes[1:-1]))


@rule(aten.affine_grid_generator.default)
def affine_grid_generator(
    ctx: RuleContext, theta: FakeTensor, size: Sequence[Size], align_corners: bool
) -> FakeTensor:
    """A point of 2 or 3 coordinates for each pixel of ``size`` ``(n, c, h, w)``."""
    return ctx.new(theta, (size[0], *size[2:], len(size) - 2))
