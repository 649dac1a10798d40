"""The operators of backward passes that models meet most; the others are taken apart.

Gradients are new row-major memory. Where an input lies otherwise (channels last), the rule leaves
the call to torch's own shape function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, elementwise
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.shapes.layout import contiguous_strides

aten = torch.ops.aten

Gradients = tuple[FakeTensor | None, ...]


def _like(ctx: RuleContext, x: FakeTensor, sizes: Sequence[Size] | None = None) -> FakeTensor:
    return contiguous(ctx, x.sizes if sizes is None else tuple(sizes), x.dtype, x.device)


def _is_row_major(x: FakeTensor) -> bool:
    return tuple(contiguous_strides(x.sizes)) == x.strides


# -- activations -----------------------------------------------------------------------------------


@rule(aten.threshold_backward.default)
def threshold(ctx: RuleContext, gradient: FakeTensor, x: FakeTensor, *_: Any) -> Any:
    """As the others, but the layout follows what the forward pass kept."""
    return activation(ctx, x, gradient)


@rule(
    aten.gelu_backward.default,
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
)
def activation(ctx: RuleContext, gradient: FakeTensor, x: FakeTensor, *_: Any, **__: Any) -> Any:
    """Elementwise over the gradient and what the forward pass kept."""
    if gradient.dtype is not x.dtype:
        return NotImplemented
    return elementwise(ctx, (gradient, x), x.dtype)


# -- views -----------------------------------------------------------------------------------------


@rule(aten.slice_backward.default, aten.select_backward.default)
def view(ctx: RuleContext, gradient: FakeTensor, sizes: Sequence[Size], *_: Any) -> FakeTensor:
    """Zeros of the base's sizes with the gradient put in."""
    return _like(ctx, gradient, sizes)


@rule(aten.embedding_dense_backward.default)
def embedding(
    ctx: RuleContext, gradient: FakeTensor, indices: FakeTensor, count: Size, *_: Any
) -> FakeTensor:
    """One row for each embedding."""
    return _like(ctx, gradient, (count, gradient.sizes[-1]))


# -- layers ----------------------------------------------------------------------------------------


@rule(aten.native_layer_norm_backward.default)
def layer_norm(
    ctx: RuleContext,
    gradient: FakeTensor,
    x: FakeTensor,
    normalized_shape: Sequence[Size],
    mean: FakeTensor,
    rstd: FakeTensor,
    weight: FakeTensor | None,
    bias: FakeTensor | None,
    output_mask: Sequence[bool],
) -> Any:
    """Gradients of input, weight and bias, where asked for."""
    return _layer(ctx, (x, weight, bias), output_mask)


@rule(aten.native_batch_norm_backward.default)
def batch_norm(
    ctx: RuleContext,
    gradient: FakeTensor,
    x: FakeTensor,
    weight: FakeTensor | None,
    running_mean: FakeTensor | None,
    running_var: FakeTensor | None,
    save_mean: FakeTensor | None,
    save_invstd: FakeTensor | None,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> Any:
    """Gradients of input, weight and bias, where asked for; the bias is like the weight."""
    if not _is_row_major(x) or not _is_row_major(gradient):
        return NotImplemented
    return _layer(ctx, (x, weight, weight), output_mask)


@rule(aten.convolution_backward.default)
def convolution(
    ctx: RuleContext,
    gradient: FakeTensor,
    x: FakeTensor,
    weight: FakeTensor,
    bias_sizes: Sequence[Size] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Gradients of input, weight and bias, where asked for; images only."""
    images = len(x.sizes) == 4 and not transposed
    if not images or not all(_is_row_major(t) for t in (gradient, x, weight)):
        return NotImplemented
    bias = _like(ctx, weight, bias_sizes) if bias_sizes is not None and output_mask[2] else None
    return _layer(ctx, (x, weight, bias), output_mask)


def _layer(ctx: RuleContext, of: Sequence[FakeTensor | None], mask: Sequence[bool]) -> Any:
    """Gradients like the tensors of ``of``; None where not asked for."""
    gradients: list[FakeTensor | None] = []
    for tensor, wanted in zip(of, mask, strict=True):
        if wanted and (tensor is None or of[0] is None or tensor.dtype is not of[0].dtype):
            return NotImplemented
        gradients.append(_like(ctx, tensor) if wanted and tensor is not None else None)
    return tuple(gradients)


@rule(aten.max_pool2d_with_indices_backward.default)
def max_pool(ctx: RuleContext, gradient: FakeTensor, x: FakeTensor, *_: Any) -> Any:
    """Like the input."""
    return _like(ctx, x) if _is_row_major(x) and _is_row_major(gradient) else NotImplemented


@rule(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def attention(
    ctx: RuleContext,
    gradient: FakeTensor,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    *_: Any,
    **__: Any,
) -> Gradients:
    """Gradients of query, key and value; the heads lie inside of the sequence."""
    return tuple(_heads_inside(ctx, x) for x in (query, key, value))


def _heads_inside(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    batch, heads, length, width = x.sizes
    s = contiguous_strides((batch, length, heads, width))
    return ctx.new(x, x.sizes, strides=(s[0], s[2], s[1], s[3]))
