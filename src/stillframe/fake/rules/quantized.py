"""Quantization as training simulates it, and products with packed integer weights."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, dense_like
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


@rule(
    aten.fake_quantize_per_tensor_affine.default,
    aten.fake_quantize_per_tensor_affine.tensor_qparams,
    aten.fake_quantize_per_channel_affine.default,
    aten._fake_quantize_learnable_per_tensor_affine.default,
    aten._fake_quantize_learnable_per_channel_affine.default,
)
def fake_quantize(ctx: RuleContext, x: FakeTensor, *_: Any) -> FakeTensor:
    """Rounded to the steps of an integer type, as floats."""
    return dense_like(ctx, x)


@rule(
    aten.fake_quantize_per_tensor_affine_cachemask.default,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
)
def fake_quantize_with_mask(ctx: RuleContext, x: FakeTensor, *_: Any) -> tuple[Any, Any]:
    """The same, and which elements were not clamped."""
    return dense_like(ctx, x), dense_like(ctx, x, torch.bool)


@rule(aten._weight_int8pack_mm.default)
def int8_mm(ctx: RuleContext, x: FakeTensor, weight: FakeTensor, scales: FakeTensor) -> FakeTensor:
    """``x`` by the transposed rows of an integer weight, each with its scale."""
    if weight.dtype is not torch.int8:
        raise RuntimeError("_weight_int8pack_mm: expect B to be int8 tensor.")
    message = "_weight_int8pack_mm: inner sizes differ"
    ctx.require_same(x.sizes[1], weight.sizes[1], message)
    ctx.require_same(scales.sizes[0], weight.sizes[0], "_weight_int8pack_mm: sizes of the scales")
    return contiguous(ctx, (x.sizes[0], weight.sizes[0]), x.dtype, x.device)
