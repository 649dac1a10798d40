"""What composite operators come to below autograd, where these have no family of their own.

Only a trace by dispatch meets them; pre-dispatch graphs hold the composite operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, real_of
from stillframe.fake.rules.linalg import columns, least, rows, square
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import sub, unwrap

aten = torch.ops.aten


@rule(aten._linalg_svd.default)
def svd(
    ctx: RuleContext,
    x: FakeTensor,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """``U``, the singular values, ``V`` conjugate transposed; empty vectors if only values."""
    _check_matrix(x, "linalg.svd")
    *lead, m, n = x.sizes
    k = least(ctx, x)
    values = rows(ctx, x, (*lead, k), real_of(x.dtype))
    if not compute_uv:
        return rows(ctx, x, (0,)), values, rows(ctx, x, (0,))
    u = columns(ctx, x, (*lead, m, m if full_matrices else k))
    return u, values, columns(ctx, x, (*lead, n if full_matrices else k, n))


@rule(aten._linalg_eigh.default)
def eigh(
    ctx: RuleContext, x: FakeTensor, UPLO: str = "L", compute_v: bool = True
) -> tuple[FakeTensor, FakeTensor]:
    """Eigenvalues, and eigenvectors as columns; an empty vector if only values."""
    square(ctx, x, "linalg.eigh")
    values = rows(ctx, x, x.sizes[:-1], real_of(x.dtype))
    return values, columns(ctx, x, x.sizes) if compute_v else rows(ctx, x, (0,))


@rule(aten._linalg_det.default)
def det(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """The determinant, and the LU factors and pivots that its gradient uses."""
    square(ctx, x, "linalg.det")
    return rows(ctx, x, x.sizes[:-2]), *_factors(ctx, x)


@rule(aten._linalg_slogdet.default)
def slogdet(
    ctx: RuleContext, x: FakeTensor
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """Sign and logarithm of the determinant, LU factors, pivots."""
    square(ctx, x, "linalg.slogdet")
    sizes = x.sizes[:-2]
    return rows(ctx, x, sizes), rows(ctx, x, sizes, real_of(x.dtype)), *_factors(ctx, x)


def _factors(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    return columns(ctx, x, x.sizes), rows(ctx, x, x.sizes[:-1], torch.int32)


def _check_matrix(x: FakeTensor, name: str) -> None:
    if len(x.sizes) < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")


@rule(aten._trilinear.default)
def trilinear(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    c: FakeTensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> FakeTensor:
    """A product of three tensors, each with new dims of size 1, summed over some dims."""
    if set(expand1) & set(expand2) & set(expand3):
        raise ctx.unsupported("aten._trilinear: a dim that no factor has")
    factors = zip((a, b, c), (expand1, expand2, expand3), strict=True)
    sizes = ctx.broadcast(*(_with_ones(x.sizes, dims) for x, dims in factors))
    kept = tuple(s for d, s in enumerate(sizes) if d not in sumdim)
    return contiguous(ctx, kept, a.dtype, a.device)


def _with_ones(sizes: Sequence[Size], dims: Sequence[int]) -> tuple[Size, ...]:
    """Sizes with 1 put in so that it stands at each of ``dims``."""
    out = list(sizes)
    for d in sorted(dims):
        out.insert(d, 1)
    return tuple(out)


@rule(aten._ctc_loss.default)
def ctc_loss(
    ctx: RuleContext,
    log_probs: FakeTensor,
    targets: FakeTensor,
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[FakeTensor, FakeTensor]:
    """The losses, and the table of partial sums that the gradient uses."""
    time, batch = log_probs.sizes[0], log_probs.sizes[1:-1]
    ctx.require_same(
        batch[0] if batch else 1,
        len(input_lengths),
        "ctc_loss: input_lengths must be of size batch",
    )
    states = 2 * max(target_lengths, default=0) + 1
    losses = rows(ctx, log_probs, batch)
    return losses, rows(ctx, log_probs, (*batch, time, states))


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
