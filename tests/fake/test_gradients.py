"""Which results require grad, where operators of ``op_db`` do not show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.samples import Call
from tests.fake.sweep import GRAD_PATTERNS, grad_difference

aten = torch.ops.aten


def random(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes)


CLASSES = torch.zeros(3, dtype=torch.int64)
HEADS = (1, 2, 4, 8)

CALLS: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    (aten.native_group_norm.default, (random(2, 4, 3), random(4), random(4), 2, 4, 3, 2, 1e-5)),
    (aten._fused_rms_norm.default, (random(2, 4), [4], random(4), 1e-5)),
    (
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        (random(*HEADS), random(*HEADS), random(*HEADS)),
    ),
    (aten._weight_norm_interface.default, (random(3, 4), random(3, 1), 0)),
    (aten.nll_loss_forward.default, (random(3, 4), CLASSES, random(4), 1, -100)),
    (aten.log_sigmoid_forward.default, (random(3),)),
    (aten._linalg_det.default, (random(3, 3),)),
    (aten._linalg_slogdet.default, (random(3, 3),)),
    (aten._linalg_solve_ex.default, (random(3, 3), random(3, 3))),
    (aten.linalg_lstsq.default, (random(3, 3), random(3, 3))),
    (aten.linalg_norm.default, (random(0, 3), 2)),
    (aten.copy_.default, (random(3), random(3))),
    (aten.bernoulli.default, (random(3).sigmoid(),)),
)


@pytest.mark.parametrize(("op", "args"), CALLS, ids=[str(op) for op, _ in CALLS])
def test_results(op: Any, args: tuple[Any, ...]) -> None:
    """All tensors, only the first, or all but the first require grad."""
    call = Call.of(*args)
    for pattern in GRAD_PATTERNS:
        difference = grad_difference(op, call, pattern)
        assert difference is None, str(difference)
