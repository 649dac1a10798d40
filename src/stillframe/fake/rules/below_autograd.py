"""What composite operators come to below autograd, where these have no family of their own.

Only a trace by dispatch meets them; pre-dispatch graphs hold the composite operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.linalg import rows
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import sub, unwrap

aten = torch.ops.aten


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
