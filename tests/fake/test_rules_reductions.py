"""Reductions, scans, sorting and losses against the real kernels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of

aten = torch.ops.aten
DTYPES = (torch.float32, torch.bfloat16, torch.int32, torch.uint8, torch.bool, torch.complex64)
DIMS: tuple[Any, ...] = (0, -1, [1], [0, 2], [1, 2, 3], [], None)


def calls(x: torch.Tensor) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Reductions of ``x`` that the operators accept."""
    made: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    for dim, keepdim in itertools.product(DIMS, (False, True)):
        lists = (
            aten.sum.dim_IntList,
            aten.mean.dim,
            aten.any.dims,
            aten.all.dims,
            aten.nansum.default,
        )
        made += [
            (op, (x, dim, keepdim), {}) for op in (*lists, aten.amax.default, aten.amin.default)
        ]
        made += [
            (op, (x, dim), {"correction": 1, "keepdim": keepdim})
            for op in (aten.var.correction, aten.std.correction, aten.var_mean.correction)
        ]
        made.append((aten.linalg_vector_norm.default, (x, 2, dim, keepdim), {}))
        made.append((aten.sum.dim_IntList, (x, dim, keepdim), {"dtype": torch.float64}))
        if dim is not None:
            made.append((aten.logsumexp.default, (x, dim, keepdim), {}))
            made.append((aten.norm.ScalarOpt_dim, (x, 2, dim, keepdim), {}))
            made.append((aten.count_nonzero.dim_IntList, (x, dim), {}))
        if isinstance(dim, int):
            one = (
                aten.max.dim,
                aten.min.dim,
                aten.median.dim,
                aten.mode.default,
                aten.prod.dim_int,
            )
            made += [
                (op, (x, dim, keepdim), {}) for op in (*one, aten.argmax.default, aten.any.dim)
            ]
            made.append((aten.aminmax.default, (x,), {"dim": dim, "keepdim": keepdim}))
            made.append((aten.kthvalue.default, (x, 1, dim, keepdim), {}))
    whole = (aten.sum, aten.mean, aten.prod, aten.max, aten.min, aten.argmax, aten.any, aten.all)
    made += [(packet.default, (x,), {}) for packet in (*whole, aten.var, aten.std, aten.median)]
    made += [
        (op.default, (x, dim), {})
        for op in (
            aten.cumsum,
            aten.cumprod,
            aten.cummax,
            aten.logcumsumexp,
            aten.sort,
            aten.argsort,
        )
        for dim in (0, -1)
    ]
    made += [(aten.topk.default, (x, 2, dim), {}) for dim in (0, 1, -1)]
    made += [(aten.sort.stable, (x,), {"stable": True, "dim": 1}), (aten.msort.default, (x,), {})]
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions(dtype: torch.dtype) -> None:
    """Over every dim argument and memory layout, where the dtype is supported."""
    allowed = {aten.topk.default}  # asks for k <= size
    for layout, x in layouts_of((2, 3, 4, 5), dtype).items():
        for op, args, kwargs in calls(x):
            try:
                op(*args, **kwargs)
            except (RuntimeError, IndexError):
                continue
            outcome = check(op, *args, **kwargs)
            assert op in allowed or not outcome.guards, (op, layout, outcome.guards)


def test_rank_zero_and_empty() -> None:
    """Dims of 0-dim tensors wrap; reductions without identity refuse empty dims."""
    scalar = torch.tensor(1.0)
    for op in (aten.sum.dim_IntList, aten.mean.dim):
        check(op, scalar, [0])
        check(op, scalar, [-1], True)
        check(op, torch.ones(0, 3), [0])
    check(aten.cumsum.default, scalar, 0)
    check(aten.topk.default, scalar, 1)
    check(aten.max.dim, scalar, 0)
    assert "non-zero size" in str(check_error(aten.amax.default, torch.ones(0, 3), [0]))


def test_refusals() -> None:
    """Texts of eager: dims out of range and twice, k out of range, means of integers."""
    x = torch.ones(3, 4)
    assert "Dimension out of range" in str(check_error(aten.sum.dim_IntList, x, [2]))
    assert "appears multiple times" in str(check_error(aten.sum.dim_IntList, x, [0, -2]))
    assert "selected index k out of range" in str(check_error(aten.topk.default, x, 5))
    assert "could not infer output dtype" in str(check_error(aten.mean.default, x.long()))
    check_error(aten.var.correction, x.long())


LOSSES = (
    aten.mse_loss, aten.l1_loss, aten.huber_loss, aten.smooth_l1_loss, aten.soft_margin_loss,
    aten.kl_div, aten.binary_cross_entropy, aten.hinge_embedding_loss,
)  # fmt: skip


@pytest.mark.parametrize("reduction", (0, 1, 2))
def test_losses(reduction: int) -> None:
    """Elementwise losses in every layout; class losses with and without extra dims."""
    for x in layouts_of((2, 3, 4, 5)).values():
        y = torch.rand(2, 3, 4, 5)
        for packet in LOSSES:
            if packet in (aten.binary_cross_entropy, aten.hinge_embedding_loss):
                extra: tuple[Any, ...] = (None if packet is aten.binary_cross_entropy else 1.0,)
                assert not check(packet.default, x.sigmoid(), y, *extra, reduction).guards
            else:
                assert not check(packet.default, x, y, reduction).guards
        check(aten.binary_cross_entropy_with_logits.default, x, y, None, torch.ones(5), reduction)
        target = torch.zeros(2, 4, 5, dtype=torch.int64)
        for op in (aten.cross_entropy_loss.default, aten.nll_loss_nd.default):
            assert not check(op, x, target, None, reduction).guards
    logits = torch.rand(6, 7)
    check(
        aten.cross_entropy_loss.default, logits, torch.zeros(6, dtype=torch.int64), None, reduction
    )
    check(aten.cross_entropy_loss.default, logits, logits.softmax(1), None, reduction)
    check(aten.cross_entropy_loss.default, logits[0], torch.tensor(1), None, reduction)


def test_quantiles() -> None:
    """Several quantiles stand first, and their dim is the fastest in memory."""
    quantiles = (torch.tensor(0.5), torch.tensor([0.1, 0.9]), torch.tensor([0.3]))
    for x in layouts_of((2, 3, 4)).values():
        for dim, keepdim in itertools.product((None, 0, 1, -1), (False, True)):
            for op in (aten.quantile, aten.nanquantile):
                assert not check(op.scalar, x, 0.5, dim, keepdim).guards
                for q in quantiles:
                    assert not check(op.default, x, q, dim, keepdim).guards
    check_error(aten.quantile.scalar, torch.arange(3), 0.5)
    check_error(aten.quantile.default, torch.randn(3), torch.ones(1, 1))
    check_error(aten.quantile.default, torch.randn(3), torch.ones(2, dtype=torch.float64))
