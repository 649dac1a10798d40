"""Embedding lookups."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


@rule(aten.embedding.default)
def embedding(
    ctx: RuleContext,
    weight: FakeTensor,
    indices: FakeTensor,
    padding_idx: Any = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> FakeTensor:
    """One row of ``weight`` for each index."""
    if len(weight.sizes) != 2:
        raise RuntimeError("'weight' must be 2-D")
    if indices.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got {indices.dtype} instead (while checking arguments for embedding)"
        )
    return contiguous(ctx, (*indices.sizes, weight.sizes[1]), weight.dtype, weight.device)


@rule(aten.embedding_renorm_.default)
def embedding_renorm_(
    ctx: RuleContext, weight: FakeTensor, indices: FakeTensor, max_norm: float, norm_type: float
) -> FakeTensor:
    return weight


@rule(
    aten.embedding_bag.default,
    aten.embedding_bag.padding_idx,
    aten._embedding_bag.default,
    aten._embedding_bag_forward_only.default,
)
def embedding_bag(
    ctx: RuleContext,
    weight: FakeTensor,
    indices: FakeTensor,
    offsets: FakeTensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: FakeTensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = -1,
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """The bags' sums, means (mode 1) or maxima (mode 2), and three index tensors for backward."""
    bags: Any = offsets.sizes[0]
    rows = bags - 1 if include_last_offset else bags
    index = indices.dtype

    def ints(*sizes: Any) -> FakeTensor:
        return ctx.empty(sizes, dtype=index, device=weight.device)

    result = ctx.new(weight, (rows, weight.sizes[1]))
    return result, ints(0), ints(bags), ints(0)
