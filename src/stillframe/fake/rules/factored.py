"""Working with factored matrices (LU, LDL, QR), pseudo-inverses and matrix norms.

As in ``linalg.py``: what LAPACK computes is column-major in its last two dims.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import without_dims, wrap_dims
from stillframe.fake.rules.elementwise import real_of
from stillframe.fake.rules.linalg import columns, least, qr, rows, solve, square
from stillframe.fake.rules.reductions import reduced
from stillframe.fake.rules.reshaping import reshape
from stillframe.fake.rules.sizing import product, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import max_, unwrap

aten = torch.ops.aten
Pair = tuple[FakeTensor, FakeTensor]
Triple = tuple[FakeTensor, FakeTensor, FakeTensor]


# -- LU ----------------------------------------------------------------------------------------


@rule(aten._lu_with_info.default)
def lu_with_info(
    ctx: RuleContext, x: FakeTensor, pivot: bool = True, check_errors: bool = True
) -> Triple:
    """Both factors in one matrix, the pivots, LAPACK's error codes."""
    lead = x.sizes[:-2]
    pivots = rows(ctx, x, (*lead, least(ctx, x)), torch.int32)
    return columns(ctx, x, x.sizes), pivots, rows(ctx, x, lead, torch.int32)


@rule(aten.lu_unpack.default)
def lu_unpack(
    ctx: RuleContext,
    lu: FakeTensor,
    pivots: FakeTensor,
    unpack_data: bool = True,
    unpack_pivots: bool = True,
) -> Triple:
    """Permutation, lower and upper factor; what is not asked for is empty."""
    if pivots.dtype is not torch.int32:
        raise RuntimeError(f"torch.lu_unpack: pivots must be of dtype int32, got {pivots.dtype}")
    lead, m, n, k = lu.sizes[:-2], lu.sizes[-2], lu.sizes[-1], least(ctx, lu)
    empty = (0,)
    return (
        rows(ctx, lu, (*lead, m, m) if unpack_pivots else empty),
        rows(ctx, lu, (*lead, m, k) if unpack_data else empty),
        rows(ctx, lu, (*lead, k, n) if unpack_data else empty),
    )


@rule(aten.linalg_lu_solve.default)
def linalg_lu_solve(
    ctx: RuleContext,
    lu: FakeTensor,
    pivots: FakeTensor,
    b: FakeTensor,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> FakeTensor:
    square(ctx, lu, "torch.linalg.lu_solve")
    return _solution(ctx, lu, b, left=left)


@rule(aten.lu_solve.default)
def lu_solve(ctx: RuleContext, b: FakeTensor, lu: FakeTensor, pivots: FakeTensor) -> FakeTensor:
    return linalg_lu_solve(ctx, lu, pivots, b)


def _solution(ctx: RuleContext, a: FakeTensor, b: FakeTensor, *, left: bool = True) -> FakeTensor:
    """``X`` of ``A X = B`` for a matrix (or batch) ``B``: row-major where on the right."""
    ctx.require_same(
        a.sizes[-1],
        b.sizes[-2 if left else -1],
        f"Incompatible shapes of A and B: {list(a.sizes)} and {list(b.sizes)}",
    )
    sizes = (*ctx.broadcast(a.sizes[:-2], b.sizes[:-2]), *b.sizes[-2:])
    return columns(ctx, b, sizes) if left else rows(ctx, b, sizes)


# -- LDL and QR ------------------------------------------------------------------------------------


@rule(aten.linalg_ldl_factor_ex.default)
def ldl_factor_ex(
    ctx: RuleContext, x: FakeTensor, *, hermitian: bool = False, check_errors: bool = False
) -> Triple:
    square(ctx, x, "torch.linalg.ldl_factor_ex")
    pivots = rows(ctx, x, x.sizes[:-1], torch.int32)
    return columns(ctx, x, x.sizes), pivots, rows(ctx, x, x.sizes[:-2], torch.int32)


@rule(aten.linalg_ldl_factor.default)
def ldl_factor(ctx: RuleContext, x: FakeTensor, *, hermitian: bool = False) -> Pair:
    return ldl_factor_ex(ctx, x)[:2]


@rule(aten.linalg_ldl_solve.default)
def ldl_solve(
    ctx: RuleContext, ld: FakeTensor, pivots: FakeTensor, b: FakeTensor, *, hermitian: bool = False
) -> FakeTensor:
    square(ctx, ld, "torch.linalg.ldl_solve")
    return _solution(ctx, ld, b)


@rule(aten.qr.default)
def qr_old(ctx: RuleContext, x: FakeTensor, some: bool = True) -> Pair:
    return qr(ctx, x, "reduced" if some else "complete")


@rule(aten.geqrf.default)
def geqrf(ctx: RuleContext, x: FakeTensor) -> Pair:
    """Reflectors and their factors."""
    tau = rows(ctx, x, (*x.sizes[:-2], least(ctx, x)))
    return columns(ctx, x, x.sizes), tau


@rule(aten.linalg_householder_product.default, aten.orgqr.default)
def householder_product(ctx: RuleContext, x: FakeTensor, tau: FakeTensor) -> FakeTensor:
    return columns(ctx, x, x.sizes)


@rule(aten.ormqr.default)
def ormqr(
    ctx: RuleContext,
    x: FakeTensor,
    tau: FakeTensor,
    other: FakeTensor,
    left: bool = True,
    transpose: bool = False,
) -> FakeTensor:
    """The product of the implicit Q of ``x`` and ``other``."""
    return columns(ctx, other, other.sizes)


# -- solvers with more results ---------------------------------------------------------------------


@rule(aten.linalg_solve_ex.default)
def solve_ex(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    *,
    left: bool = True,
    check_errors: bool = False,
) -> Pair:
    return solve(ctx, a, b, left=left), rows(ctx, a, a.sizes[:-2], torch.int32)


@rule(aten._linalg_solve_ex.default)
def solve_with_factors(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    *,
    left: bool = True,
    check_errors: bool = False,
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """The solution, LU in one matrix, the pivots, LAPACK's error codes."""
    solution, info = solve_ex(ctx, a, b, left=left)
    return solution, columns(ctx, a, a.sizes), rows(ctx, a, a.sizes[:-1], torch.int32), info


@rule(aten.triangular_solve.default)
def triangular_solve(ctx: RuleContext, b: FakeTensor, a: FakeTensor, *_: Any) -> Pair:
    """The solution, and a copy of the coefficients."""
    square(ctx, a, "triangular_solve")
    lead = ctx.broadcast(a.sizes[:-2], b.sizes[:-2])
    return (
        columns(ctx, b, (*lead, *b.sizes[-2:])),
        columns(ctx, a, (*lead, *a.sizes[-2:])),
    )


@rule(aten.linalg_tensorsolve.default)
def tensorsolve(
    ctx: RuleContext, a: FakeTensor, b: FakeTensor, dims: list[int] | None = None
) -> FakeTensor:
    """The solution has the dims of ``a`` that ``b`` does not have."""
    sizes = a.sizes
    if dims is not None:
        moved = wrap_dims(dims, len(sizes))
        sizes = tuple(s for d, s in enumerate(sizes) if d not in moved)
        sizes += tuple(a.sizes[d] for d in moved)
    rest = sizes[len(b.sizes) :]
    message = "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == numel"
    ctx.require_same(tidy(ctx, product(rest)), tidy(ctx, product(sizes[: len(b.sizes)])), message)
    return rows(ctx, a, rest)


@rule(aten.linalg_tensorinv.default)
def tensorinv(ctx: RuleContext, x: FakeTensor, ind: int = 2) -> FakeTensor:
    """The inverse of the matrix that the first ``ind`` dims make with the others."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    front, back = x.sizes[:ind], x.sizes[ind:]
    side = unwrap(product(back))
    ctx.require_same(
        tidy(ctx, product(front)), tidy(ctx, side), "Expected self to satisfy prod == prod"
    )
    return reshape(ctx, columns(ctx, x, (side, side)), [*back, *front])


# -- pseudo-inverses and norms ---------------------------------------------------------------------


@rule(
    aten.linalg_pinv.default,
    aten.linalg_pinv.rcond_tensor,
    aten.linalg_pinv.atol_rtol_float,
    aten.linalg_pinv.atol_rtol_tensor,
    aten.pinverse.default,
)
def pinv(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    return rows(ctx, x, (*x.sizes[:-2], x.sizes[-1], x.sizes[-2]))


@rule(aten.linalg_matrix_norm.default, aten.linalg_matrix_norm.str_ord)
def matrix_norm(
    ctx: RuleContext,
    x: FakeTensor,
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    """One number for each matrix that ``dim`` spans."""
    if len(x.sizes) < 2 or len(dim) != 2:
        raise RuntimeError("linalg.matrix_norm: The input must have two dims to reduce over")
    dims = wrap_dims(dim, len(x.sizes))
    ctx.requires_grad = ctx.requires_grad and not _over_nothing(x, ord, dims)
    return rows(ctx, x, without_dims(x.sizes, dims, keepdim), real_of(dtype or x.dtype))


def _over_nothing(x: FakeTensor, ord: Any, dims: tuple[int, ...]) -> bool:
    """Whether the norm is a maximum of no elements: zeros, which no gradient flows to."""
    inner = {1: dims[1:], math.inf: dims[:1], 2: dims}.get(ord, ())
    return any(type(x.sizes[d]) is int and x.sizes[d] == 0 for d in inner)


@rule(aten.linalg_norm.default, aten.linalg_norm.ord_str)
def norm(
    ctx: RuleContext,
    x: FakeTensor,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    """A vector norm, or with ``ord`` over two dims a matrix norm."""
    if ord is not None and dim is None and len(x.sizes) == 2:
        dim = (0, 1)
    if ord is not None and isinstance(dim, (list, tuple)) and len(dim) == 2:
        return matrix_norm(ctx, x, ord, dim, keepdim, dtype=dtype)
    return reduced(ctx, x, dim, keepdim, real_of(dtype or x.dtype))


@rule(aten.linalg_cond.default, aten.linalg_cond.p_str)
def cond(ctx: RuleContext, x: FakeTensor, p: Any = None) -> FakeTensor:
    """The condition number of each matrix."""
    if p not in (None, 2, -2):
        square(ctx, x, "linalg.cond")
    return rows(ctx, x, x.sizes[:-2], real_of(x.dtype))


# -- least squares ---------------------------------------------------------------------------------


@rule(aten.linalg_lstsq.default)
def lstsq(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    rcond: Any = None,
    *,
    driver: str | None = None,
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """The solution, residuals, ranks and singular values; the driver says which are computed."""
    driver = driver or "gelsy"
    if driver not in ("gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(f"torch.linalg.lstsq: unknown driver {driver}")
    if not len(b.sizes) <= len(a.sizes) <= len(b.sizes) + 1 or len(a.sizes) < 2:
        raise RuntimeError("torch.linalg.lstsq: other must have as many dims as input, or one less")
    if a.dtype is not b.dtype:
        raise RuntimeError("torch.linalg.lstsq: input and other must have the same dtype")
    *lead, m, n = a.sizes
    vector = len(b.sizes) == len(a.sizes) - 1 and all(map(ctx.same, b.sizes, a.sizes[:-1]))
    if not vector:
        message = "torch.linalg.lstsq: input.size(-2) should match other.size(-2)"
        ctx.require_same(m, b.sizes[-2], message)
        lead = list(ctx.broadcast(lead, b.sizes[:-2]))
    right = () if vector else b.sizes[-1:]
    tall = driver != "gelsy" and ctx.guard(m > n)
    if tall and driver != "gels":
        raise ctx.unsupported(
            f"linalg.lstsq with driver {driver} and more equations than unknowns has residuals "
            "only if the matrices are of full rank."
        )
    # the first n rows of what LAPACK wrote over a matrix of max(m, n) rows
    full = columns(ctx, b, (*lead, tidy(ctx, max_(m, n)), *(right or (1,))))
    strides = full.strides[: len(lead) + 1 + len(right)]
    values = (*lead, least(ctx, a)) if driver in ("gelsd", "gelss") else (0,)
    return (
        ctx.new(b, (*lead, n, *right), strides=strides),
        rows(ctx, a, (*lead, *(right or (1,))) if tall else (0,), real_of(a.dtype)),
        rows(ctx, a, (0,) if driver == "gels" else tuple(lead), torch.int64),
        rows(ctx, a, values, real_of(a.dtype)),
    )
