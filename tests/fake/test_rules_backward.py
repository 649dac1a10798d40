"""Operators of backward passes against the real kernels."""

from __future__ import annotations

import pytest
import torch
from tests.fake.checking import check

aten = torch.ops.aten
rand = torch.randn


def test_activations() -> None:
    for x in (rand(3, 4), rand(4, 3).t()):
        for gradient in (rand(3, 4), rand(4, 3).t(), rand(3, 1).expand(3, 4)):
            check(aten.threshold_backward.default, gradient, x, 0)
            check(aten.gelu_backward.default, gradient, x)
            check(aten.tanh_backward.default, gradient, x)
            check(aten.sigmoid_backward.default, gradient, x)


def test_views() -> None:
    check(aten.slice_backward.default, rand(2, 3), [4, 3], 0, 1, 3, 1)
    check(aten.select_backward.default, rand(3), [4, 3], 0, 1)
    check(
        aten.embedding_dense_backward.default, rand(2, 5, 4), torch.ones(2, 5).long(), 9, -1, False
    )


@pytest.mark.parametrize("x", [rand(4, 6, 8), rand(6, 4, 8).transpose(0, 1)], ids=("dense", "view"))
@pytest.mark.parametrize("mask", [[True] * 3, [True, False, False], [False, True, True]], ids=str)
def test_layer_norm(x: torch.Tensor, mask: list[bool]) -> None:
    weight, bias = torch.ones(8), torch.zeros(8)
    _, mean, rstd = aten.native_layer_norm(x, [8], weight, bias, 1e-5)
    check(aten.native_layer_norm_backward.default,
          rand(4, 6, 8), x, [8], mean, rstd, weight, bias, mask)  # fmt: skip


IMAGES = [rand(2, 4, 8, 6)]


@pytest.mark.parametrize("x", IMAGES, ids=("dense",))
@pytest.mark.parametrize("mask", [[True] * 3, [True, False, False], [False, True, True]], ids=str)
def test_images(x: torch.Tensor, mask: list[bool]) -> None:
    pair, weight = [1, 1], rand(5, 4, 3, 3)
    check(aten.convolution_backward.default,
          rand(2, 5, 8, 6), x, weight, [5], pair, pair, pair, False, [0, 0], 1, mask)  # fmt: skip
    gamma = torch.ones(4)
    _, mean, invstd = aten.native_batch_norm(x, gamma, gamma, None, None, True, 0.1, 1e-5)
    check(aten.native_batch_norm_backward.default,
          rand(2, 4, 8, 6), x, gamma, None, None, mean, invstd, True, 1e-5, mask)  # fmt: skip
    window = ([3, 3], [1, 1], [1, 1])
    _, places = aten.max_pool2d_with_indices(x, *window)
    check(aten.max_pool2d_with_indices_backward.default,
          rand(2, 4, 8, 6), x, *window, [1, 1], False, places)  # fmt: skip


def test_attention() -> None:
    q, k, v = rand(2, 3, 5, 8), rand(2, 3, 7, 8), rand(2, 3, 7, 8)
    for form in (lambda t: t, lambda t: t.transpose(1, 2).contiguous().transpose(1, 2)):
        args = [form(t) for t in (q, k, v)]
        out, sums = aten._scaled_dot_product_flash_attention_for_cpu(*args)
        check(aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
              torch.randn_like(out), *args, out, sums, 0.0, False)  # fmt: skip
