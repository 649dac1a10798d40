"""Normalisations, softmax, dropout, and distances along a dim.

What decides the layout of a result: softmax, layer norm and instance norm write row-major memory;
batch norm, group norm and RMS norm keep the order that the input's strides suggest (NHWC, NDHWC or
row-major); dropout multiplies, so it follows the elementwise rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import (
    has_format,
    in_suggested_format,
    suggested_format,
    without_dims,
    wrap_dim,
)
from stillframe.fake.rules.elementwise import (
    as_float,
    contiguous,
    dense_like,
    elementwise,
    promoted,
    real_of,
    write_into,
)
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import eq

aten = torch.ops.aten
Maybe = FakeTensor | None


def _like_row_major(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return contiguous(ctx, x.sizes, x.dtype, x.device)


def _stat_dtype(x: FakeTensor, *params: Maybe) -> torch.dtype:
    """Statistics of half-precision inputs have the dtype of the parameters."""
    if x.dtype in (torch.bfloat16, torch.float16):
        for param in params:
            if param is not None:
                return param.dtype
    return x.dtype


# -- over the last dims ----------------------------------------------------------------------------


def _check_normalized(
    ctx: RuleContext, x: FakeTensor, shape: Sequence[Size], *params: Maybe
) -> int:
    """The first normalised dim.

    Raises:
        RuntimeError: as eager, the sizes do not end in ``shape``, or a parameter does not have it.
    """
    shape = tuple(shape)
    axis = len(x.sizes) - len(shape)
    if axis < 0 or not shape:
        raise RuntimeError(_not_normalizable(x, shape))
    if x.sizes[axis:] != shape:
        for have, want in zip(x.sizes[axis:], shape, strict=True):
            ctx.require_same(have, want, _not_normalizable(x, shape))
    for param in params:
        if param is None or param.sizes == shape:
            continue
        text = (
            "Expected weight to be of same shape as normalized_shape, but got weight of shape "
            f"{list(param.sizes)} and normalized_shape = {list(shape)}"
        )
        if len(param.sizes) != len(shape):
            raise RuntimeError(text)
        for have, want in zip(param.sizes, shape, strict=True):
            ctx.require_same(have, want, text)
    return axis


def _not_normalizable(x: FakeTensor, shape: Sequence[Size]) -> str:
    wanted = "".join(f", {s}" for s in shape)
    return (
        f"Given normalized_shape={list(shape)}, expected input with shape [*{wanted}], but got "
        f"input of size{list(x.sizes)}"
    )


@rule(aten.layer_norm.default)
def layer_norm(
    ctx: RuleContext,
    x: FakeTensor,
    normalized_shape: Sequence[Size],
    weight: Maybe = None,
    bias: Maybe = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> FakeTensor:
    _check_normalized(ctx, x, normalized_shape, weight, bias)
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.native_layer_norm.default)
def native_layer_norm(
    ctx: RuleContext,
    x: FakeTensor,
    normalized_shape: Sequence[Size],
    weight: Maybe,
    bias: Maybe,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Output, mean and reciprocal standard deviation (keeping dims)."""
    axis = _check_normalized(ctx, x, normalized_shape, weight, bias)
    sizes = x.sizes[:axis] + (1,) * len(normalized_shape)
    dtype = _stat_dtype(x, weight, bias)
    return (
        _like_row_major(ctx, x),
        contiguous(ctx, sizes, dtype, x.device),
        contiguous(ctx, sizes, dtype, x.device),
    )


@rule(aten.rms_norm.default)
def rms_norm(
    ctx: RuleContext,
    x: FakeTensor,
    normalized_shape: Sequence[Size],
    weight: Maybe = None,
    eps: float | None = None,
) -> FakeTensor:
    _check_normalized(ctx, x, normalized_shape, weight)
    return in_suggested_format(ctx, x)


@rule(aten._fused_rms_norm.default)
def fused_rms_norm(
    ctx: RuleContext,
    x: FakeTensor,
    normalized_shape: Sequence[Size],
    weight: Maybe,
    eps: float | None,
) -> tuple[FakeTensor, FakeTensor]:
    """Output and reciprocal root mean square, in at least single precision."""
    axis = _check_normalized(ctx, x, normalized_shape, weight)
    sizes = x.sizes[:axis] + (1,) * len(normalized_shape)
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return in_suggested_format(ctx, x), contiguous(ctx, sizes, dtype, x.device)


# -- over channels ---------------------------------------------------------------------------------


def _channels(x: FakeTensor) -> Size:
    return x.sizes[1] if len(x.sizes) > 1 else x.sizes[0]


def _check_channels(ctx: RuleContext, channels: Size, **params: Maybe) -> None:
    for name, param in params.items():
        if param is not None and param.sizes[0] is not channels:
            ctx.require_same(
                param.sizes[0],
                channels,
                f"{name} should contain {channels} elements not {param.sizes[0]}",
            )


@rule(aten.batch_norm.default)
def batch_norm(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> FakeTensor:
    """In training the running statistics are updated in place."""
    _check_channels(
        ctx,
        _channels(x),
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_var=running_var,
    )
    return in_suggested_format(ctx, x)


@rule(aten.native_batch_norm.default, aten._native_batch_norm_legit.default)
def native_batch_norm(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Output and the batch's statistics, which are empty outside training."""
    _check_channels(
        ctx,
        _channels(x),
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_var=running_var,
    )
    sizes = (_channels(x),) if training else (0,)
    dtype = _stat_dtype(x, weight, bias, running_mean, running_var)
    return (
        in_suggested_format(ctx, x),
        contiguous(ctx, sizes, dtype, x.device),
        contiguous(ctx, sizes, dtype, x.device),
    )


@rule(aten._batch_norm_with_update.default)
def batch_norm_with_update(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: FakeTensor,
    running_var: FakeTensor,
    momentum: float,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """In training, with an empty reserve."""
    three = native_batch_norm(ctx, x, weight, bias, running_mean, running_var, True, momentum, eps)
    return (*three, contiguous(ctx, (0,), torch.uint8, x.device))


@rule(aten._native_batch_norm_legit.no_stats)
def native_batch_norm_no_stats(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    return native_batch_norm(ctx, x, weight, bias, None, None, training, momentum, eps)


@rule(aten._native_batch_norm_legit_no_training.default)
def native_batch_norm_eval(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: FakeTensor,
    running_var: FakeTensor,
    momentum: float,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    return native_batch_norm(ctx, x, weight, bias, running_mean, running_var, False, momentum, eps)


@rule(aten._batch_norm_impl_index.default)
def batch_norm_impl_index(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor, int]:
    """The native operator's outputs, an empty reserve, and which implementation ran (0: native)."""
    three = native_batch_norm(
        ctx, x, weight, bias, running_mean, running_var, training, momentum, eps
    )
    return (*three, contiguous(ctx, (0,), torch.uint8, x.device), 0)


@rule(aten.instance_norm.default)
def instance_norm(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> FakeTensor:
    """A batch norm over ``[1, N * C, ...]``, which needs row-major memory."""
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.group_norm.default)
def group_norm(
    ctx: RuleContext,
    x: FakeTensor,
    num_groups: int,
    weight: Maybe = None,
    bias: Maybe = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> FakeTensor:
    channels = x.sizes[1]
    message = "Expected number of channels in input to be divisible by num_groups, but got input "
    divides = channels % num_groups == 0 if type(channels) is int else eq(channels % num_groups, 0)
    must(ctx, divides, f"{message}of shape {list(x.sizes)} and num_groups={num_groups}")
    _check_channels(ctx, channels, weight=weight, bias=bias)
    return in_suggested_format(ctx, x)


@rule(aten.native_group_norm.default)
def native_group_norm(
    ctx: RuleContext,
    x: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    N: Size,
    C: Size,
    HxW: Size,
    group: int,
    eps: float,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """Output, and mean and reciprocal standard deviation of each group."""
    dtype = _stat_dtype(x, weight, bias)
    if not has_format(x, suggested_format(x)):
        raise RuntimeError("native_group_norm: the input must be contiguous in its memory format")
    return (
        in_suggested_format(ctx, x),
        contiguous(ctx, (N, group), dtype, x.device),
        contiguous(ctx, (N, group), dtype, x.device),
    )


# -- softmax ---------------------------------------------------------------------------------------


@rule(
    aten.softmax.int,
    aten.log_softmax.int,
    aten.special_softmax.default,
    aten._safe_softmax.default,
)
def softmax(
    ctx: RuleContext, x: FakeTensor, dim: int, dtype: torch.dtype | None = None
) -> FakeTensor:
    """Row-major. ``dtype`` is what the input is cast to first."""
    if not -len(x.sizes) <= dim < len(x.sizes):
        wrap_dim(dim, len(x.sizes))
    dtype = dtype or x.dtype
    if not dtype.is_floating_point and not dtype.is_complex:
        raise NotImplementedError(
            f'"softmax_lastdim_kernel_impl" not implemented for {str(dtype).removeprefix("torch.")}'
        )
    return contiguous(ctx, x.sizes, dtype, x.device)


@rule(aten.special_log_softmax.default)
def special_log_softmax(
    ctx: RuleContext, x: FakeTensor, dim: int, *, dtype: torch.dtype | None = None
) -> FakeTensor:
    return softmax(ctx, x, dim, dtype)


@rule(aten._softmax.default, aten._log_softmax.default)
def raw_softmax(ctx: RuleContext, x: FakeTensor, dim: int, half_to_float: bool) -> FakeTensor:
    return softmax(ctx, x, dim, torch.float32 if half_to_float else None)


# -- dropout ---------------------------------------------------------------------------------------


def _is_noop(x: FakeTensor, p: float, train: bool) -> bool:
    return not train or p == 0 or any(type(s) is int and s == 0 for s in x.sizes)


@rule(aten.dropout.default)
def dropout(ctx: RuleContext, x: FakeTensor, p: float, train: bool) -> FakeTensor:
    """The argument itself outside training; else it times noise made like it."""
    return x if _is_noop(x, p, train) else _times_noise(ctx, x)


def _times_noise(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return elementwise(ctx, (x, dense_like(ctx, x)), x.dtype)


@rule(aten.alpha_dropout.default)
def alpha_dropout(ctx: RuleContext, x: FakeTensor, p: float, train: bool) -> FakeTensor:
    return x if _is_noop(x, p, train) else _times_noise(ctx, x)


@rule(aten.feature_dropout.default, aten.feature_alpha_dropout.default)
def feature_dropout(ctx: RuleContext, x: FakeTensor, p: float, train: bool) -> FakeTensor:
    """The noise is one number for each channel."""
    if _is_noop(x, p, train):
        return x
    if len(x.sizes) < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    noise = contiguous(ctx, x.sizes[:2] + (1,) * (len(x.sizes) - 2), x.dtype, x.device)
    return elementwise(ctx, (x, noise), x.dtype)


@rule(
    aten.dropout_.default,
    aten.alpha_dropout_.default,
    aten.feature_dropout_.default,
    aten.feature_alpha_dropout_.default,
)
def dropout_(ctx: RuleContext, x: FakeTensor, p: float, train: bool) -> FakeTensor:
    return write_into(ctx, x, (), x.dtype)


@rule(aten.native_dropout.default)
def native_dropout(
    ctx: RuleContext, x: FakeTensor, p: float, train: bool | None
) -> tuple[FakeTensor, FakeTensor]:
    """Output and mask."""
    return dense_like(ctx, x), dense_like(ctx, x, torch.bool)


# -- norms along a dim -----------------------------------------------------------------------------


@rule(aten.cosine_similarity.default)
def cosine_similarity(
    ctx: RuleContext, x1: FakeTensor, x2: FakeTensor, dim: int = 1, eps: float = 1e-8
) -> FakeTensor:
    """A sum over ``dim`` of the broadcast arguments' product."""
    sizes = x1.sizes if x1.sizes == x2.sizes else ctx.broadcast(x1.sizes, x2.sizes)
    dims = (wrap_dim(dim, len(sizes)),)
    return contiguous(ctx, without_dims(sizes, dims, False), promoted(ctx, x1, x2), x1.device)


@rule(aten.pairwise_distance.default)
def pairwise_distance(
    ctx: RuleContext,
    x1: FakeTensor,
    x2: FakeTensor,
    p: float = 2.0,
    eps: float = 1e-6,
    keepdim: bool = False,
) -> FakeTensor:
    """The norm of the difference along the last dim."""
    sizes = x1.sizes if x1.sizes == x2.sizes else ctx.broadcast(x1.sizes, x2.sizes)
    sizes = without_dims(sizes, (len(sizes) - 1,), keepdim)
    return contiguous(ctx, sizes, real_of(as_float(promoted(ctx, x1, x2))), x1.device)


@rule(aten.cdist.default)
def cdist(
    ctx: RuleContext,
    x1: FakeTensor,
    x2: FakeTensor,
    p: float = 2.0,
    compute_mode: int | None = None,
) -> FakeTensor:
    """The distance of every row of ``x1`` to every row of ``x2``, by batch."""
    ctx.require_same(
        x1.sizes[-1],
        x2.sizes[-1],
        f"X1 and X2 must have the same number of columns. X1: {x1.sizes[-1]} X2: {x2.sizes[-1]}",
    )
    batch = ctx.broadcast(x1.sizes[:-2], x2.sizes[:-2])
    return contiguous(ctx, (*batch, x1.sizes[-2], x2.sizes[-2]), x1.dtype, x1.device)


@rule(aten._weight_norm.default)
def weight_norm(ctx: RuleContext, v: FakeTensor, g: FakeTensor, dim: int = 0) -> FakeTensor:
    """``v * (g / norm(v))`` with the norm over all dims but ``dim``; row-major."""
    return contiguous(ctx, v.sizes, v.dtype, v.device)


@rule(aten._weight_norm_interface.default)
def weight_norm_interface(
    ctx: RuleContext, v: FakeTensor, g: FakeTensor, dim: int = 0
) -> tuple[FakeTensor, FakeTensor]:
    dtype = torch.float32 if g.dtype is torch.bfloat16 else g.dtype
    return dense_like(ctx, v), dense_like(ctx, g, dtype)


@rule(aten.norm_except_dim.default)
def norm_except_dim(ctx: RuleContext, v: FakeTensor, pow: int = 2, dim: int = 0) -> FakeTensor:
    """The norm over all dims but ``dim``; -1: over all, without dims."""
    if dim == -1:
        return contiguous(ctx, (), v.dtype, v.device)
    sizes = tuple([size if i == dim else 1 for i, size in enumerate(v.sizes)])
    return contiguous(ctx, sizes, v.dtype, v.device)


@rule(aten.renorm.default)
def renorm(ctx: RuleContext, x: FakeTensor, p: Any, dim: int, maxnorm: Any) -> FakeTensor:
    return contiguous(ctx, renorm_(ctx, x, p, dim, maxnorm).sizes, x.dtype, x.device)


@rule(aten.renorm_.default)
def renorm_(ctx: RuleContext, x: FakeTensor, p: Any, dim: int, maxnorm: Any) -> FakeTensor:
    if len(x.sizes) < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {len(x.sizes)}")
    wrap_dim(dim, len(x.sizes))
    return x
