"""Backward operators; the forward pass of torch's autograd supplies what they are called with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.sweep import run

aten = torch.ops.aten

ACTIVATIONS = (
    aten.threshold_backward.default,
    aten.hardtanh_backward.default,
    aten.leaky_relu_backward.default,
    aten.silu_backward.default,
    aten.gelu_backward.default,
    aten.sigmoid_backward.default,
    aten.mse_loss_backward.default,
)
ARGUMENTS: dict[Any, tuple[Any, ...]] = {
    aten.threshold_backward.default: (0,),
    aten.hardtanh_backward.default: (-1, 1),
    aten.leaky_relu_backward.default: (0.1, False),
}


@pytest.mark.parametrize("op", ACTIVATIONS, ids=str)
def test_activations(op: Any) -> None:
    """Gradient and input in any layouts."""
    grads, inputs = layouts_of((2, 3, 4, 5)), layouts_of((2, 3, 4, 5))
    for grad in list(grads.values())[::2]:
        for x in inputs.values():
            extra = ARGUMENTS.get(op, ())
            if op is aten.mse_loss_backward.default:
                extra = (torch.randn(2, 3, 4, 5), 0)
            assert not check(op, grad, x, *extra).guards


@pytest.mark.parametrize("transposed", (False, True))
def test_convolution(transposed: bool) -> None:
    """Each gradient only if it is wanted."""
    grad = torch.randn(2, 4, 6, 8)
    for x in list(layouts_of((2, 4, 6, 8)).values())[::2]:
        for weight in list(layouts_of((4, 4, 3, 3)).values())[::2]:
            rest = ([4], [1, 1], [1, 1], [1, 1], transposed, [0, 0], 1)
            for mask in ([True, True, True], [False, True, False]):
                check(aten.convolution_backward.default, grad, x, weight, *rest, mask)


def test_samples_and_weight_norm() -> None:
    """Row-major, whatever is given; the weight norm takes nothing else."""
    x = (torch.rand(4, 3) + 1).t()
    check(aten._standard_gamma.default, x)
    check(aten._sample_dirichlet.default, x)
    check(aten._standard_gamma_grad.default, x, x)
    check(aten._dirichlet_grad.default, x, x, x)
    v, g = torch.randn(3, 4), torch.randn(3, 1)
    check(aten._weight_norm_interface_backward.default, v, v, g, g, 0)
    check_error(aten._weight_norm_interface_backward.default, v, torch.rand(4, 3).t(), g, g, 0)


SAMPLED = (
    "nn.functional.embedding_bag",
    "nn.functional.multilabel_margin_loss",
    "_segment_reduce.lengths",
    "gather",
    "fft.fftn",
    "nn.functional.layer_norm",
    "nn.functional.group_norm",
    "nn.functional.max_pool2d",
    "nn.functional.avg_pool3d",
    "nn.functional.grid_sample",
    "nn.functional.ctc_loss",
    "log_softmax",
    "linalg.svd",
)


@pytest.mark.parametrize("layout", ("given", "channels_last"))
def test_what_autograd_calls(layout: str) -> None:
    """All operators of some backward passes."""
    report = run(SAMPLED, ("float32",), (layout,), limit=2, backward=True)
    backward = {name for name in report.calls if "backward" in name}
    assert len(backward) >= 6
    wrong = [f for f in report.found if f.difference.kind != "refuses"]
    assert not wrong, "\n".join(map(str, wrong))
    assert not {n for n in report.fallbacks["symbolic"] if "backward" in n}
