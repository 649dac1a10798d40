"""What composite operators come to below autograd, where these have no family of their own.

Only a trace by dispatch meets them; pre-dispatch graphs hold the composite operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.linalg import columns, rows
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import sub, unwrap

aten = torch.ops.aten


def _factors(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    return columns(ctx, x, x.sizes), rows(ctx, x, x.sizes[:-1], torch.int32)


def _check_matrix(x: FakeTensor, name: str) -> None:
    if len(x.sizes) < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")


def _with_ones(sizes: Sequence[Size], dims: Sequence[int]) -> tuple[Size, ...]:
    """Sizes with 1 put in so that it stands at each of ``dims``."""
    out = list(sizes)
    for d in sorted(dims):
        out.insert(d, 1)
    return tuple(out)


@rule(aten._histogramdd_bin_edges.default)
def histogram_edges(
    ctx: RuleContext, x: FakeTensor, bins: Sequence[int], **_: Any
) -> list[FakeTensor]:
    """One vector of edges for each column of the points."""
    return [rows(ctx, x, (n + 1,)) for n in bins]


@rule(aten._histogramdd_from_bin_cts.default)
def histogram_counts(ctx: RuleContext, x: FakeTensor, bins: Sequence[int], **_: Any) -> FakeTensor:
    """The counts, one dim for each column of the points."""
    return rows(ctx, x, tuple(bins))


@rule(aten._histogramdd_from_bin_tensors.default)
def histogram_between(
    ctx: RuleContext, x: FakeTensor, bins: Sequence[FakeTensor], **_: Any
) -> FakeTensor:
    """The same, with the edges given."""
    counts = [edges.sizes[0] for edges in bins]
    return rows(ctx, x, tuple(unwrap(sub(n, 1)) for n in counts))
