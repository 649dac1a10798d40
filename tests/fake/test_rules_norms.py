"""Normalisations, softmax, dropout and distances against the real kernels."""

from __future__ import annotations

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of

aten = torch.ops.aten
SHAPES = (
    (2, 6, 4, 5),
    (2, 6, 5),
    (2, 6),
    (2, 6, 3, 4, 5),
    (2, 6, 1, 1),
    (1, 6, 4, 4),
    (2, 1, 4, 4),
)


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """All ranks in all layouts."""
    made = [x for sizes in SHAPES for x in layouts_of(sizes, dtype).values()]
    return [*made, torch.ones(SHAPES[3], dtype=dtype).to(memory_format=torch.channels_last_3d)]


@pytest.mark.parametrize("training", (False, True))
def test_batch_norm(training: bool) -> None:
    """Output in NHWC where the strides suggest it; statistics of the batch only in training."""
    for x in inputs():
        stats = [torch.ones(x.shape[1]) for _ in range(4)]
        check(aten.batch_norm.default, x, *stats, training, 0.1, 1e-5, True)
        check(aten.native_batch_norm.default, x, *stats, training, 0.1, 1e-5)
        check(aten._native_batch_norm_legit.default, x, *stats, training, 0.1, 1e-5)
        check(aten._batch_norm_impl_index.default, x, *stats, training, 0.1, 1e-5, True)
        if training:
            none = (None,) * 4
            assert not check(aten.batch_norm.default, x, *none, True, 0.1, 1e-5, True).guards
            check(aten._native_batch_norm_legit.no_stats, x, None, None, True, 0.1, 1e-5)
        else:
            check(aten._native_batch_norm_legit_no_training.default, x, *stats, 0.1, 1e-5)


def test_mixed_precision_statistics() -> None:
    """Half-precision input with single-precision parameters gives single-precision statistics."""
    x, one = torch.ones(2, 6, 4, dtype=torch.bfloat16), torch.ones(6)
    for params in ((one,) * 4, (None, None, one, one), (one.bfloat16(),) * 4):
        check(aten.native_batch_norm.default, x, *params, True, 0.1, 1e-5)
    check(aten.native_group_norm.default, x, one, one, 2, 6, 4, 3, 1e-5)
    check(aten.native_layer_norm.default, x, [4], torch.ones(4), torch.ones(4), 1e-5)
    check(aten.native_layer_norm.default, x, [4], None, None, 1e-5)


def test_layer_group_instance_rms() -> None:
    """The other normalisations in every layout, without a guard but on the normalised sizes."""
    for x in inputs():
        size, channels = x.shape[-1], x.shape[1]
        weight = torch.ones(size)
        check(aten.layer_norm.default, x, [size], weight, weight)
        check(aten.native_layer_norm.default, x, list(x.shape[1:]), None, None, 1e-5)
        check(aten.rms_norm.default, x, [size], weight)
        check(aten._fused_rms_norm.default, x, [size], weight, None)
        if x.shape[1] == 6:
            check(aten.group_norm.default, x, 2, torch.ones(6), torch.ones(6))
        if x.dim() > 2 and x[0, 0].numel() > 1:
            ones = torch.ones(channels)
            check(aten.instance_norm.default, x, ones, ones, None, None, True, 0.1, 1e-5, True)
    x = torch.ones(3, 4)
    outcome = check(aten.layer_norm.default, x, [4], torch.ones(4), symbolic_ints=True)
    assert not outcome.guards
    check_error(aten.layer_norm.default, x, [3])
    check_error(aten.layer_norm.default, x, [4], torch.ones(3))
    check_error(aten.group_norm.default, torch.ones(2, 6, 4), 4)
    check_error(aten.batch_norm.default, x, torch.ones(3), None, None, None, True, 0.1, 1e-5, True)


def test_softmax() -> None:
    """Row-major output; the dtype argument; integers are refused."""
    for x in inputs():
        for op in (aten.softmax.int, aten.log_softmax.int, aten._safe_softmax.default):
            assert not check(op, x, -1).guards
            check(op, x, 1, torch.float64)
        check(aten._softmax.default, x, 0, False)
    check(aten.softmax.int, torch.tensor(1.0), 0)
    check_error(aten.softmax.int, torch.ones(3, dtype=torch.int64), 0)
    check_error(aten.softmax.int, torch.ones(3), 1)


def test_dropout() -> None:
    """Outside training the very argument is returned."""
    for x in inputs():
        for train, p in ((False, 0.5), (True, 0.5), (True, 0.0)):
            for op in (aten.dropout, aten.alpha_dropout, aten.feature_dropout):
                assert not check(op.default, x, p, train).guards
            check(aten.native_dropout.default, x, p, train)
        check(aten.dropout_.default, x.clone(), 0.5, True)


def test_distances() -> None:
    """Cosine similarity, pairwise distance, weight norm."""
    for x in inputs():
        check(aten.cosine_similarity.default, x, x.contiguous(), 1)
        check(aten.cosine_similarity.default, x, x[:1], -1)
        check(aten.pairwise_distance.default, x, x.contiguous(), keepdim=True)
        check(aten.norm_except_dim.default, x, 2, 1)
        check(aten.norm_except_dim.default, x, 2, -1)
        for dim in range(x.dim()):
            g = torch.ones([s if i == dim else 1 for i, s in enumerate(x.shape)])
            check(aten._weight_norm.default, x, g, dim)
        check(aten.renorm.default, x, 2, 0, 1.0)
