"""Backward operators that autograd calls: mostly the shape and layout of one of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.conv import conv_format, pads_beyond_stride
from stillframe.fake.rules.dims import in_suggested_format, wrap_dim
from stillframe.fake.rules.elementwise import contiguous, dense_like, elementwise, fresh
from stillframe.fake.rules.pointwise import overloads
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size

aten = torch.ops.aten
Maybe = FakeTensor | None
Sizes = Sequence[Size]


# -- elementwise -----------------------------------------------------------------------------------


@rule(
    *overloads(
        "hardtanh_backward hardswish_backward elu_backward softplus_backward silu_backward "
        "gelu_backward mish_backward hardsigmoid_backward sigmoid_backward tanh_backward "
        "logit_backward hardshrink_backward softshrink_backward"
    )
)
def pointwise_backward(ctx: RuleContext, grad: FakeTensor, *args: Any, **_: Any) -> FakeTensor:
    """An elementwise function of the gradient and of the input (or the result)."""
    x = next(a for a in args if isinstance(a, FakeTensor))
    return elementwise(ctx, (grad, x), ctx.promote(grad, x))


@rule(aten._standard_gamma_grad.default)
def gamma_backward(ctx: RuleContext, x: FakeTensor, sample: FakeTensor) -> FakeTensor:
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten._dirichlet_grad.default)
def dirichlet_backward(
    ctx: RuleContext, sample: FakeTensor, alpha: FakeTensor, total: FakeTensor
) -> FakeTensor:
    return contiguous(ctx, sample.sizes, sample.dtype, sample.device)


@rule(aten._weight_norm_interface_backward.default)
def weight_norm_backward(
    ctx: RuleContext, grad: FakeTensor, v: FakeTensor, g: FakeTensor, norms: FakeTensor, dim: int
) -> tuple[FakeTensor, FakeTensor]:
    """The gradients of direction and magnitude."""
    for name, t in (("saved_v", v), ("saved_g", g), ("saved_norm", norms)):
        must(ctx, ctx.is_contiguous(t), f"{name} must be contiguous")
    return contiguous(ctx, v.sizes, v.dtype, v.device), contiguous(ctx, g.sizes, g.dtype, g.device)


@rule(aten.native_dropout_backward.default)
def dropout_backward(
    ctx: RuleContext, grad: FakeTensor, mask: FakeTensor, scale: float
) -> FakeTensor:
    """Multiplied by a mask and by a float."""
    return elementwise(ctx, (grad, mask), ctx.promote(grad, mask, 1.0))


@rule(aten.threshold_backward.default, aten.leaky_relu_backward.default)
def input_first_backward(ctx: RuleContext, grad: FakeTensor, x: FakeTensor, *_: Any) -> FakeTensor:
    """The same with the operands in the other order, by which the layout is chosen."""
    return pointwise_backward(ctx, x, grad)


@rule(aten.rrelu_with_noise_backward.default)
def rrelu_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    noise: FakeTensor,
    lower: float,
    upper: float,
    training: bool,
    self_is_result: bool,
) -> FakeTensor:
    """In training the noise was the slope; without any, it is a leaky relu."""
    if training and upper - lower > 1e-6:
        return pointwise_backward(ctx, noise, grad)
    return input_first_backward(ctx, grad, x)


@rule(*overloads("mse_loss_backward huber_loss_backward smooth_l1_loss_backward"))
def loss_backward(
    ctx: RuleContext, grad: FakeTensor, x: FakeTensor, target: FakeTensor, *_: Any
) -> FakeTensor:
    """Row-major, whatever the layout of the operands."""
    sizes = ctx.broadcast(x.sizes, target.sizes, grad.sizes)
    return contiguous(ctx, sizes, ctx.promote(x, target, grad), x.device)


@rule(aten.log_sigmoid_backward.default)
def log_sigmoid_backward(
    ctx: RuleContext, grad: FakeTensor, x: FakeTensor, buffer: FakeTensor
) -> FakeTensor:
    return dense_like(ctx, grad)


@rule(aten.binary_cross_entropy_backward.default)
def cross_entropy_backward(
    ctx: RuleContext, grad: FakeTensor, x: FakeTensor, *_: Any
) -> FakeTensor:
    return dense_like(ctx, x)


@rule(aten._prelu_kernel_backward.default)
def prelu_backward(
    ctx: RuleContext, grad: FakeTensor, x: FakeTensor, weight: FakeTensor
) -> tuple[FakeTensor, FakeTensor]:
    """For the input, and for the weight before it is summed to its own sizes."""
    made = elementwise(ctx, (x, weight, grad), x.dtype)
    return made, fresh(ctx, made.sizes, made.strides, made.dtype, made.device)


# -- zeros of given sizes, into which the gradient is put ------------------------------------------


@rule(
    aten.slice_backward.default,
    aten.select_backward.default,
    aten.diagonal_backward.default,
    aten.unfold_backward.default,
)
def view_backward(ctx: RuleContext, grad: FakeTensor, input_sizes: Sizes, *_: Any) -> FakeTensor:
    return ctx.new(grad, input_sizes)


@rule(aten.masked_scatter_backward.default)
def masked_scatter_backward(
    ctx: RuleContext, grad: FakeTensor, mask: FakeTensor, sizes: Sizes
) -> FakeTensor:
    return ctx.new(grad, sizes)


@rule(aten.embedding_dense_backward.default)
def embedding_backward(
    ctx: RuleContext, grad: FakeTensor, indices: FakeTensor, num_weights: Size, *_: Any
) -> FakeTensor:
    return ctx.new(grad, (num_weights, grad.sizes[-1]))


@rule(aten._embedding_bag_backward.default)
def embedding_bag_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    indices: FakeTensor,
    offsets: FakeTensor,
    bag_of_index: FakeTensor,
    bag_size: FakeTensor,
    maximum_indices: FakeTensor,
    num_weights: Size,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    *_: Any,
) -> FakeTensor:
    """One row for each row of the weight."""
    if sparse:
        raise ctx.unsupported("embedding_bag(sparse=True) has a sparse gradient.")
    return ctx.new(grad, (num_weights, grad.sizes[1]))


@rule(aten._embedding_bag_dense_backward.default)
def embedding_bag_dense_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    indices: FakeTensor,
    bag_of_index: FakeTensor,
    bag_size: FakeTensor,
    maximum_indices: FakeTensor,
    num_weights: Size,
    *_: Any,
) -> FakeTensor:
    return ctx.new(grad, (num_weights, grad.sizes[1]))


@rule(aten._embedding_bag_per_sample_weights_backward.default)
def per_sample_weights_backward(
    ctx: RuleContext, grad: FakeTensor, weight: FakeTensor, indices: FakeTensor, *_: Any
) -> FakeTensor:
    return ctx.new(grad, (indices.sizes[0],))


@rule(aten._segment_reduce_backward.default)
def segment_reduce_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    output: FakeTensor,
    data: FakeTensor,
    reduce: str,
    **_: Any,
) -> FakeTensor:
    return ctx.new(grad, data.sizes)


# -- like the gradient or the input ----------------------------------------------------------------


@rule(aten._softmax_backward_data.default, aten._log_softmax_backward_data.default)
def softmax_backward(
    ctx: RuleContext, grad: FakeTensor, output: FakeTensor, dim: int, input_dtype: torch.dtype
) -> FakeTensor:
    wrap_dim(dim, len(grad.sizes))
    return contiguous(ctx, grad.sizes, input_dtype, grad.device)


@rule(
    *overloads(
        "max_pool3d_with_indices_backward max_pool2d_with_indices_backward avg_pool2d_backward "
        "_adaptive_avg_pool2d_backward adaptive_max_pool2d_backward replication_pad1d_backward "
        "replication_pad2d_backward replication_pad3d_backward reflection_pad1d_backward "
        "reflection_pad2d_backward reflection_pad3d_backward"
    )
)
def window_backward(ctx: RuleContext, grad: FakeTensor, x: FakeTensor, *_: Any) -> FakeTensor:
    """In the memory format of the input."""
    return in_suggested_format(ctx, x, x.sizes)


@rule(
    *overloads(
        "avg_pool3d_backward _adaptive_avg_pool3d_backward adaptive_max_pool3d_backward "
        "glu_backward fractional_max_pool2d_backward fractional_max_pool3d_backward "
        "nll_loss_backward "
        "nll_loss2d_backward multilabel_margin_loss_backward multi_margin_loss_backward "
        "_cdist_backward _pdist_backward"
    )
)
def like_input(ctx: RuleContext, grad: FakeTensor, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    return contiguous(ctx, x.sizes, x.dtype, x.device)


def _upsample_backward(ctx: RuleContext, grad: FakeTensor, *args: Any) -> FakeTensor:
    """In the memory format of the gradient."""
    return in_suggested_format(ctx, grad, args[1])


def _upsample_backward_in_rows(ctx: RuleContext, grad: FakeTensor, *args: Any) -> FakeTensor:
    return ctx.new(grad, args[1])


def _upsampling(names: str, body: Callable[..., FakeTensor]) -> None:
    rule(*[getattr(aten, f"{name}_backward").default for name in names.split()])(body)


_upsampling(
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_nearest1d "
    "upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_bilinear2d_aa",
    _upsample_backward,
)
_upsampling(
    "upsample_bicubic2d upsample_nearest3d _upsample_nearest_exact3d _upsample_bicubic2d_aa",
    _upsample_backward_in_rows,
)


# -- several gradients, each if it is wanted -------------------------------------------------------


def _wanted(mask: Sequence[bool], *make: Callable[[], FakeTensor]) -> tuple[Maybe, ...]:
    return tuple(one() if wanted else None for wanted, one in zip(mask, make, strict=True))


@rule(aten.convolution_backward.default)
def convolution_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    weight: FakeTensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Maybe, ...]:
    """For the input and the weight in the format of the forward pass, and for the bias."""
    spatial = len(weight.sizes) - 2

    def made(like: FakeTensor) -> FakeTensor:
        if transposed and pads_beyond_stride(output_padding, stride, spatial):
            return ctx.new(like, like.sizes)
        return conv_format(ctx, x, weight, groups, like.sizes, spatial)

    return _wanted(
        output_mask,
        lambda: made(x),
        lambda: made(weight),
        lambda: ctx.new(grad, (grad.sizes[1],)),
    )


@rule(aten.native_layer_norm_backward.default)
def layer_norm_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    normalized_shape: Sizes,
    mean: FakeTensor,
    rstd: FakeTensor,
    weight: Maybe,
    bias: Maybe,
    output_mask: Sequence[bool],
) -> tuple[Maybe, ...]:
    return _wanted(
        output_mask,
        lambda: ctx.new(x, x.sizes),
        lambda: ctx.new(x if weight is None else weight, normalized_shape),
        lambda: ctx.new(x if bias is None else bias, normalized_shape),
    )


@rule(aten.native_group_norm_backward.default)
def group_norm_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    mean: FakeTensor,
    rstd: FakeTensor,
    weight: Maybe,
    N: Size,
    C: Size,
    HxW: Size,
    group: int,
    output_mask: Sequence[bool],
) -> tuple[Maybe, ...]:
    params = x if weight is None else weight
    return _wanted(
        output_mask,
        lambda: in_suggested_format(ctx, x),
        lambda: ctx.new(params, (C,)),
        lambda: ctx.new(params, (C,)),
    )


@rule(aten.native_batch_norm_backward.default)
def batch_norm_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    weight: Maybe,
    running_mean: Maybe,
    running_var: Maybe,
    save_mean: Maybe,
    save_invstd: Maybe,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> tuple[Maybe, ...]:
    params = x if weight is None else weight
    return _wanted(
        output_mask,
        lambda: in_suggested_format(ctx, x),
        lambda: ctx.new(params, (x.sizes[1],)),
        lambda: ctx.new(params, (x.sizes[1],)),
    )


@rule(aten.grid_sampler_2d_backward.default, aten.grid_sampler_3d_backward.default)
def grid_sampler_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    x: FakeTensor,
    grid: FakeTensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    output_mask: Sequence[bool],
) -> tuple[Maybe, FakeTensor]:
    """For the input if it is wanted; for the grid always."""
    made = contiguous(ctx, x.sizes, x.dtype, x.device) if output_mask[0] else None
    return made, contiguous(ctx, grid.sizes, grid.dtype, grid.device)
