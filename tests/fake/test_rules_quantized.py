"""Simulated quantization, and products with packed weights."""

from __future__ import annotations

import torch
from tests.fake.checking import check, check_error, layouts_of

aten = torch.ops.aten
RANGE = (0, 255)


def test_fake_quantize() -> None:
    """The layout of the input; the mask has it too."""
    scale, zero = torch.tensor(0.1), torch.tensor(0)
    scales, zeros = torch.rand(3) + 0.1, torch.zeros(3)
    for x in layouts_of((2, 3, 4, 5)).values():
        check(aten.fake_quantize_per_tensor_affine.default, x, 0.1, 0, *RANGE)
        check(aten.fake_quantize_per_tensor_affine.tensor_qparams, x, scale, zero, *RANGE)
        check(aten.fake_quantize_per_tensor_affine_cachemask.default, x, 0.1, 0, *RANGE)
        on = torch.tensor(1)
        op = aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default
        check(op, x, scale, zero, on, *RANGE)
        check(aten.fake_quantize_per_channel_affine.default, x, scales, zeros, 1, *RANGE)
        check(aten.fake_quantize_per_channel_affine_cachemask.default, x, scales, zeros, 1, *RANGE)
        one, none = torch.tensor([0.1]), torch.tensor([0.0])
        check(aten._fake_quantize_learnable_per_tensor_affine.default, x, one, none, *RANGE)
        op = aten._fake_quantize_learnable_per_channel_affine.default
        check(op, x, scales, zeros, 1, *RANGE)


def test_int8_weight() -> None:
    weight = torch.randint(-5, 5, (16, 32), dtype=torch.int8)
    x, scales = torch.randn(8, 32).bfloat16(), torch.randn(16).bfloat16()
    assert not check(aten._weight_int8pack_mm.default, x, weight, scales).guards
    check_error(aten._weight_int8pack_mm.default, x[:, :16].contiguous(), weight, scales)
    check_error(aten._weight_int8pack_mm.default, x, weight.to(torch.int16), scales)
