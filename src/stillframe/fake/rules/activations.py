"""Activation functions of ``torch.nn.functional``.

Most are elementwise and keep dtype and layout. The ones that are made of other operators, or whose
CPU kernel is not an elementwise iterator, say so where they differ.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import as_float, contiguous, elementwise, mapped
from stillframe.fake.rules.pointwise import overloads
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import eq

aten = torch.ops.aten


@rule(*overloads("relu silu mish selu elu celu hardswish hardshrink softplus leaky_relu threshold"))
def activation(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """Same dtype, sizes and (made dense) layout."""
    return mapped(ctx, x)


@rule(aten.gelu.default)
def gelu(ctx: RuleContext, x: FakeTensor, *, approximate: str = "none") -> FakeTensor:
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return mapped(ctx, x)


@rule(aten.softshrink.default)
def softshrink(ctx: RuleContext, x: FakeTensor, lambd: Any = 0.5) -> FakeTensor:
    must(ctx, lambd >= 0, f"lambda must not be negative, but found {lambd}")
    return mapped(ctx, x)


@rule(*overloads("hardtanh relu6"))
def hardtanh(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """A clamp, refused for bool."""
    return mapped(ctx, x)


@rule(*overloads("hardsigmoid"))
def hardsigmoid(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return mapped(ctx, x, as_float(x.dtype))


@rule(
    *overloads(
        "relu_ gelu_ silu_ mish_ selu_ elu_ celu_ hardswish_ leaky_relu_ threshold_ hardtanh_ "
        "relu6_ hardsigmoid_ rrelu_with_noise_"
    )
)
def activation_(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    return x


@rule(aten.rrelu.default)
def rrelu(
    ctx: RuleContext,
    x: FakeTensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> FakeTensor:
    """In training the noise and the output are made contiguous; otherwise a leaky relu."""
    _check_rrelu(ctx, lower, upper)
    if training:
        return contiguous(ctx, x.sizes, x.dtype, x.device)
    return mapped(ctx, x)


@rule(aten.rrelu_.default)
def rrelu_(
    ctx: RuleContext, x: FakeTensor, lower: float = 0.125, upper: float = 1 / 3, *_: Any, **__: Any
) -> FakeTensor:
    _check_rrelu(ctx, lower, upper)
    return x


def _check_rrelu(ctx: RuleContext, lower: Any, upper: Any) -> None:
    must(ctx, lower <= upper, "Lower bound should be less than or equal to the upper bound")


@rule(aten.rrelu_with_noise.default)
def rrelu_with_noise(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.glu.default)
def glu(ctx: RuleContext, x: FakeTensor, dim: int = -1) -> FakeTensor:
    """The first half times the sigmoid of the second: an elementwise operator over two slices."""
    dim = wrap_dim(dim, len(x.sizes))
    size = x.sizes[dim]
    ctx.require(
        size % 2 == 0 if type(size) is int else eq(size % 2, 0),
        f"Halving dimension must be even, but dimension {dim} is size {size}",
    )
    sizes = (*x.sizes[:dim], size // 2, *x.sizes[dim + 1 :])
    half = ctx.view(x, sizes, x.strides, x.offset)
    return elementwise(ctx, (half, half), x.dtype)


@rule(aten.prelu.default)
def prelu(ctx: RuleContext, x: FakeTensor, weight: FakeTensor) -> FakeTensor:
    """``weight`` holds one number, or one for each channel (dim 1)."""
    if len(weight.sizes) > 1:
        raise RuntimeError(f"prelu: Expected `weight` to be a scalar or 1D: {weight.sizes}")
    if weight.sizes and not (type(weight.sizes[0]) is int and weight.sizes[0] == 1):
        channels = x.sizes[1] if len(x.sizes) >= 2 else 1
        ctx.require_same(
            ctx.numel(weight.sizes),
            channels,
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
            f"{weight.sizes[0]} and channel size = {channels}.",
        )
    return mapped(ctx, x)


@rule(aten._prelu_kernel.default)
def prelu_kernel(ctx: RuleContext, x: FakeTensor, weight: FakeTensor) -> FakeTensor:
    return elementwise(ctx, (x, weight), x.dtype)


@rule(aten.log_sigmoid.default)
def log_sigmoid(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The CPU kernel writes into contiguous memory."""
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    output = contiguous(ctx, x.sizes, x.dtype, x.device)
    return output, contiguous(ctx, x.sizes, x.dtype, x.device)
