"""Each decomposition of this package gives what the operator's kernel gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.trace.decomposition_rules import RULES

aten = torch.ops.aten


def randn(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def positive(*sizes: int) -> torch.Tensor:
    return randn(*sizes).abs() + 0.5


def qkv(heads: int = 2, keys: int = 5, key_heads: int = 2) -> tuple[torch.Tensor, ...]:
    return randn(3, heads, 4, 8), randn(3, key_heads, keys, 8), randn(3, key_heads, keys, 8)


STATISTICS = (positive(3), randn(3), randn(3), positive(3))
MASK = torch.tensor([[True, False, True, True, False]] * 3 + [[False] * 5])

CASES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aten.contiguous.default, (randn(3, 4),), {}),
    (aten.contiguous.default, (randn(3, 4).t(),), {}),
    (aten.contiguous.default, (randn(3, 2, 4, 5),), {"memory_format": torch.channels_last}),
    (aten.reshape.default, (randn(3, 4), [2, -1]), {}),
    (aten.reshape.default, (randn(3, 4).t(), [12]), {}),
    (aten.reshape.default, (randn(1, 1), []), {}),
    (aten.linear.default, (randn(3, 4), randn(5, 4), randn(5)), {}),
    (aten.linear.default, (randn(2, 3, 4), randn(5, 4), randn(5)), {}),
    (aten.linear.default, (randn(2, 2, 3, 4), randn(5, 4)), {}),
    (aten.linear.default, (randn(4), randn(5, 4), randn(5)), {}),
    (aten.linear.default, (randn(4), randn(5, 4)), {}),
    (aten.linear.default, (randn(3, 4), randn(4)), {}),
    (aten.linear.default, (randn(3, 4), randn(5, 4), randn(1, 5)), {}),
    (aten.linear.default, (randn(3, 4), randn(5, 4), randn()), {}),
    (aten.linear.default, (randn(0, 4), randn(5, 4), randn(5)), {}),
    (aten.cov.default, (randn(3, 4),), {}),
    (aten.cov.default, (randn(3, 4),), {"aweights": positive(4), "correction": 0}),
    (aten.corrcoef.default, (randn(3, 4),), {}),
    (aten.corrcoef.default, (randn(4),), {}),
    (aten.t.default, (randn(3, 4),), {}),
    (aten.t.default, (randn(3),), {}),
    (aten.transpose.int, (randn(2, 3, 4), 0, -1), {}),
    (aten.transpose.int, (randn(), 0, -1), {}),
    (aten.batch_norm.default, (randn(6, 3), *STATISTICS, False, 0.1, 1e-5, True), {}),
    (aten.batch_norm.default, (randn(6, 3), *STATISTICS, True, 0.1, 1e-5, True), {}),
    (aten.batch_norm.default, (randn(6, 3, 4, 4), *STATISTICS, True, 0.3, 1e-3, True), {}),
    (aten.batch_norm.default, (randn(6, 3), None, None, None, None, True, 0.1, 1e-5, True), {}),
    (aten.native_batch_norm.default, (randn(6, 3), *STATISTICS, True, 0.1, 1e-5), {}),
    (aten.native_batch_norm.default, (randn(6, 3), *STATISTICS, False, 0.1, 1e-5), {}),
    (aten.native_batch_norm.default, (randn(6, 3), None, None, None, None, True, 0.1, 1e-5), {}),
    (aten._native_batch_norm_legit.default, (randn(6, 3), *STATISTICS, True, 0.1, 1e-5), {}),
    (aten.adaptive_avg_pool2d.default, (randn(2, 3, 6, 8), [1, 1]), {}),
    (aten.adaptive_avg_pool2d.default, (randn(2, 3, 6, 8), [2, 4]), {}),
    (aten.adaptive_avg_pool2d.default, (randn(3, 6, 8), [1, 1]), {}),
    (aten.adaptive_avg_pool3d.default, (randn(2, 3, 6, 8, 4), [1, 1, 1]), {}),
    (aten.adaptive_avg_pool3d.default, (randn(2, 3, 6, 8, 4), [2, 4, 1]), {}),
    (aten.dropout.default, (randn(3, 4), 0.3, True), {}),
    (aten.dropout.default, (randn(3, 4), 0.3, False), {}),
    (aten.dropout.default, (randn(3, 4), 0.0, True), {}),
    (aten.dropout.default, (randn(3, 4), 1.0, True), {}),
    (aten.dropout.default, (randn(3, 4).t(), 0.5, True), {}),
    (aten.bernoulli_.float, (randn(3, 4), 0.3), {}),
    (aten.bernoulli_.float, (randn(3, 4).t(), 0.3), {}),
    (aten.bernoulli_.float, (randn(2, 3, 4).permute(1, 2, 0),), {}),
    (aten.rand_like.default, (randn(3, 4),), {}),
    (aten.rand_like.default, (randn(3, 4).t(),), {"dtype": torch.float64}),
    (aten.rand_like.default, (randn(3, 4).t(),), {"memory_format": torch.contiguous_format}),
    (aten.randn_like.default, (randn(2, 3, 4, 5),), {"memory_format": torch.channels_last}),
    (aten.randn_like.default, (randn(2, 3, 4).permute(1, 2, 0),), {}),
    (aten.scaled_dot_product_attention.default, qkv(), {}),
    (aten.scaled_dot_product_attention.default, qkv(), {"scale": 0.7}),
    (aten.scaled_dot_product_attention.default, qkv(), {"scale": -0.7}),
    (aten.scaled_dot_product_attention.default, qkv(), {"is_causal": True}),
    (aten.scaled_dot_product_attention.default, (*qkv(), randn(4, 5)), {}),
    (aten.scaled_dot_product_attention.default, (*qkv(), MASK), {}),
    (aten.scaled_dot_product_attention.default, (*qkv(), MASK[None, None]), {}),
    (aten.scaled_dot_product_attention.default, qkv(4), {"enable_gqa": True}),
]  # fmt: skip


class Calls(nn.Module):
    def __init__(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.op, self.args, self.kwargs = op, args, kwargs

    def forward(self, *tensors: Any) -> Any:
        given = iter(tensors)
        args = [next(given) if isinstance(a, torch.Tensor) else a for a in self.args]
        return self.op(*args, **self.kwargs)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{i}")
def test_rules(case: int, dynamic: bool) -> None:
    op, args, kwargs = CASES[case]
    module = Calls(op, args, kwargs)

    def tensors() -> tuple[torch.Tensor, ...]:
        return tuple(a.clone() for a in args if isinstance(a, torch.Tensor))

    first = tensors()[0]
    varies = dynamic and first.dim() > 1 and first.shape[0] > 1
    dims = None
    if varies:
        named = {0: sf.Dim.AUTO}
        dims = (tuple(named if t.dim() > 1 and t.shape[0] == first.shape[0] else None
                      for t in tensors()),)  # fmt: skip
    program = sf.export(module, tensors(), dynamic_shapes=dims).run_decompositions()
    assert op not in {n.target for n in program.graph.nodes}
    ours, theirs = tensors(), tensors()
    torch.manual_seed(0)
    actual = program.module()(*ours)
    torch.manual_seed(0)
    expected = module(*theirs)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(ours, theirs)


def test_every_rule_is_tried() -> None:
    assert {op for op, _, _ in CASES} == set(RULES)
