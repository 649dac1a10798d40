"""Embedding lookups."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.sizing import is_one
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten

_FAST_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


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


def _bag(overload: Any, *, exact: bool = False, wraps: bool = False) -> None:
    """Register one embedding bag.

    Args:
        exact: the results for backward have one entry for each bag, not for each offset.
        wraps: a negative padding index counts from the end (elsewhere it means none).
    """

    @rule(overload)
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
        """The bags' sums, means (mode 1) or maxima (mode 2), and three results for backward.

        The fast kernel for sums leaves the bag of each index out.
        """
        offset_count: Any = offsets.sizes[0]
        bags = offset_count - 1 if include_last_offset else offset_count
        width = weight.sizes[1]
        fast = (
            mode == 0
            and weight.dtype in _FAST_DTYPES
            and is_one(weight.strides[1])
            and (padding_idx is None or (padding_idx < 0 and not wraps))
        )
        noted = offset_count if mode == 0 and not exact else bags

        def ints(*sizes: Any) -> FakeTensor:
            return ctx.empty(sizes, dtype=offsets.dtype, device=weight.device)

        return (
            ctx.new(weight, (bags, width)),
            ints(0) if fast else ints(indices.sizes[0]),
            ints(noted),
            ints(bags, width) if mode == 2 else ints(noted),
        )


_bag(aten.embedding_bag.default)
_bag(aten.embedding_bag.padding_idx, wraps=True)
_bag(aten._embedding_bag_forward_only.default)
_bag(aten._embedding_bag.default, exact=True)
