"""Decompositions and solvers of matrices, distances between rows, cross products.

What LAPACK computes is column-major in its last two dims; everything else is row-major.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import (
    as_float,
    complex_of,
    contiguous,
    elementwise,
    promoted,
    real_of,
)
from stillframe.fake.rules.reshaping import is_single
from stillframe.fake.rules.sizing import must_match, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, min_, unwrap

aten = torch.ops.aten

Sizes = tuple[Size, ...]


def columns(
    ctx: RuleContext, x: FakeTensor, sizes: Sizes, dtype: torch.dtype | None = None
) -> FakeTensor:
    """New memory, column-major in the last two dims."""
    rank = len(sizes)
    order = [rank - 2, rank - 1, *range(rank - 3, -1, -1)]
    strides = layout.permuted_strides(sizes, order)
    return ctx.new(x, sizes, dtype=dtype, strides=strides)


def rows(
    ctx: RuleContext, x: FakeTensor, sizes: Sizes, dtype: torch.dtype | None = None
) -> FakeTensor:
    return contiguous(ctx, sizes, dtype or x.dtype, x.device)


def square(ctx: RuleContext, x: FakeTensor, name: str) -> None:
    if len(x.sizes) < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    ctx.require_same(x.sizes[-2], x.sizes[-1], f"{name}: A must be batches of square matrices")


def least(ctx: RuleContext, x: FakeTensor) -> Size:
    """The smaller of the last two sizes."""
    m, n = x.sizes[-2], x.sizes[-1]
    if m is n:
        return m
    return min(m, n) if type(m) is int and type(n) is int else tidy(ctx, min_(m, n))


# -- square matrices -------------------------------------------------------------------------------


@rule(
    aten.linalg_inv.default,
    aten.inverse.default,
    aten.linalg_cholesky.default,
    aten.cholesky_inverse.default,
)
def inverse(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    square(ctx, x, "linalg.inv")
    return columns(ctx, x, x.sizes)


@rule(aten.cholesky.default)
def cholesky(ctx: RuleContext, x: FakeTensor, upper: bool = False) -> FakeTensor:
    """Column-major, but row-major where there are no elements."""
    square(ctx, x, "cholesky")
    return rows(ctx, x, x.sizes) if 0 in x.sizes else columns(ctx, x, x.sizes)


@rule(aten.linalg_inv_ex.default, aten.linalg_cholesky_ex.default)
def inverse_ex(
    ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any
) -> tuple[FakeTensor, FakeTensor]:
    """The result and LAPACK's error codes."""
    square(ctx, x, "linalg.inv")
    return columns(ctx, x, x.sizes), rows(ctx, x, x.sizes[:-2], torch.int32)


@rule(aten.linalg_det.default, aten.det.default, aten.logdet.default)
def det(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    square(ctx, x, "linalg.det")
    return rows(ctx, x, x.sizes[:-2])


@rule(aten.linalg_slogdet.default, aten.slogdet.default)
def slogdet(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    """Sign and logarithm of the absolute value."""
    square(ctx, x, "linalg.slogdet")
    sizes = x.sizes[:-2]
    return rows(ctx, x, sizes), rows(ctx, x, sizes, real_of(x.dtype))


@rule(aten.linalg_eigh.default)
def eigh(ctx: RuleContext, x: FakeTensor, UPLO: str = "L") -> tuple[FakeTensor, FakeTensor]:
    square(ctx, x, "linalg.eigh")
    return rows(ctx, x, x.sizes[:-1], real_of(x.dtype)), columns(ctx, x, x.sizes)


@rule(aten._linalg_eigh.default)
def eigh_parts(
    ctx: RuleContext, x: FakeTensor, UPLO: str = "L", compute_v: bool = True
) -> tuple[FakeTensor, FakeTensor]:
    values, vectors = eigh(ctx, x, UPLO)
    return values, vectors if compute_v else rows(ctx, x, (0,))


@rule(aten._linalg_svd.default)
def svd_parts(
    ctx: RuleContext,
    x: FakeTensor,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    u, values, v = svd(ctx, x, full_matrices)
    return (u, values, v) if compute_uv else (rows(ctx, x, (0,)), values, rows(ctx, x, (0,)))


@rule(aten._linalg_det.default)
def det_parts(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """The determinants, and the LU factorisation with its pivots."""
    square(ctx, x, "linalg.det")
    pivots = rows(ctx, x, x.sizes[:-1], torch.int32)
    return rows(ctx, x, x.sizes[:-2]), columns(ctx, x, x.sizes), pivots


@rule(aten._linalg_slogdet.default)
def slogdet_parts(
    ctx: RuleContext, x: FakeTensor
) -> tuple[FakeTensor, FakeTensor, FakeTensor, FakeTensor]:
    """Signs, logarithms, and the LU factorisation with its pivots."""
    sign, lu_factors, pivots = det_parts(ctx, x)
    return sign, rows(ctx, x, x.sizes[:-2], real_of(x.dtype)), lu_factors, pivots


@rule(aten._linalg_check_errors.default)
def check_errors(ctx: RuleContext, info: FakeTensor, api_name: str, *, is_matrix: bool) -> None:
    """Raises when the program runs, if LAPACK reported an error."""
    ctx.env.may_raise = True


@rule(aten.linalg_eigvalsh.default)
def eigvalsh(ctx: RuleContext, x: FakeTensor, UPLO: str = "L") -> FakeTensor:
    square(ctx, x, "linalg.eigvalsh")
    return rows(ctx, x, x.sizes[:-1], real_of(x.dtype))


@rule(aten.linalg_eig.default)
def eig(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    square(ctx, x, "linalg.eig")
    dtype = complex_of(x.dtype)
    return rows(ctx, x, x.sizes[:-1], dtype), columns(ctx, x, x.sizes, dtype)


@rule(aten.linalg_eigvals.default)
def eigvals(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    square(ctx, x, "linalg.eigvals")
    return rows(ctx, x, x.sizes[:-1], complex_of(x.dtype))


@rule(aten.matrix_exp.default, aten.linalg_matrix_exp.default)
def matrix_exp(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    square(ctx, x, "linalg.matrix_exp")
    return rows(ctx, x, x.sizes)


@rule(aten.linalg_matrix_power.default, aten.matrix_power.default)
def matrix_power(ctx: RuleContext, x: FakeTensor, n: int) -> FakeTensor:
    """Products of matrices; -1 is the inverse alone."""
    square(ctx, x, "linalg.matrix_power")
    return columns(ctx, x, x.sizes) if n == -1 else rows(ctx, x, x.sizes)


# -- any matrices ----------------------------------------------------------------------------------


@rule(aten.linalg_qr.default)
def qr(ctx: RuleContext, x: FakeTensor, mode: str = "reduced") -> tuple[FakeTensor, FakeTensor]:
    m, n, k = x.sizes[-2], x.sizes[-1], least(ctx, x)
    lead = x.sizes[:-2]
    if mode == "complete":
        k = m
    r = columns(ctx, x, (*lead, k, n))
    if mode == "r":
        return ctx.new(x, (0,)), r
    return columns(ctx, x, (*lead, m, k)), r


@rule(aten.linalg_svd.default)
def svd(
    ctx: RuleContext, x: FakeTensor, full_matrices: bool = True, *, driver: str | None = None
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """``U``, the singular values, ``V`` conjugate transposed."""
    m, n, k = x.sizes[-2], x.sizes[-1], least(ctx, x)
    lead = x.sizes[:-2]
    return (
        columns(ctx, x, (*lead, m, m if full_matrices else k)),
        rows(ctx, x, (*lead, k), real_of(x.dtype)),
        columns(ctx, x, (*lead, n if full_matrices else k, n)),
    )


@rule(aten.svd.default)
def svd_old(
    ctx: RuleContext, x: FakeTensor, some: bool = True, compute_uv: bool = True
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """The deprecated form: ``V`` is not transposed."""
    m, n, k = x.sizes[-2], x.sizes[-1], least(ctx, x)
    lead = x.sizes[:-2]
    values = rows(ctx, x, (*lead, k), real_of(x.dtype))
    if not compute_uv:
        return rows(ctx, x, (*lead, m, m)), values, rows(ctx, x, (*lead, n, n))
    u = columns(ctx, x, (*lead, m, k if some else m))
    return u, values, rows(ctx, x, (*lead, n, k if some else n))


@rule(aten.linalg_svdvals.default)
def svdvals(ctx: RuleContext, x: FakeTensor, *, driver: str | None = None) -> FakeTensor:
    return rows(ctx, x, (*x.sizes[:-2], least(ctx, x)), real_of(x.dtype))


@rule(
    aten.linalg_matrix_rank.default,
    aten.linalg_matrix_rank.atol_rtol_float,
    aten.linalg_matrix_rank.atol_rtol_tensor,
)
def matrix_rank(ctx: RuleContext, x: FakeTensor, *tolerances: Any, **named: Any) -> FakeTensor:
    shapes = [t.sizes for t in (*tolerances, *named.values()) if isinstance(t, FakeTensor)]
    sizes = ctx.broadcast(x.sizes[:-2], *shapes) if shapes else x.sizes[:-2]
    return rows(ctx, x, sizes, torch.int64)


@rule(aten.linalg_lu.default)
def lu(
    ctx: RuleContext, x: FakeTensor, *, pivot: bool = True
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    m, n, k = x.sizes[-2], x.sizes[-1], least(ctx, x)
    lead = x.sizes[:-2]
    p = rows(ctx, x, (*lead, m, m)) if pivot else ctx.new(x, (0,))
    return p, rows(ctx, x, (*lead, m, k)), rows(ctx, x, (*lead, k, n))


@rule(aten.linalg_lu_factor.default)
def lu_factor(
    ctx: RuleContext, x: FakeTensor, *, pivot: bool = True
) -> tuple[FakeTensor, FakeTensor]:
    pivots = rows(ctx, x, (*x.sizes[:-2], least(ctx, x)), torch.int32)
    return columns(ctx, x, x.sizes), pivots


@rule(aten.linalg_lu_factor_ex.default)
def lu_factor_ex(
    ctx: RuleContext, x: FakeTensor, *, pivot: bool = True, check_errors: bool = False
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    return (*lu_factor(ctx, x), rows(ctx, x, x.sizes[:-2], torch.int32))


# -- solvers ---------------------------------------------------------------------------------------


def is_vector(a: FakeTensor, b: FakeTensor) -> bool:
    """Whether ``b`` holds a vector for each matrix of ``a`` (and not a matrix)."""
    return len(b.sizes) == 1 or (len(b.sizes) == len(a.sizes) - 1 and b.sizes == a.sizes[:-1])


@rule(aten.linalg_solve.default)
def solve(ctx: RuleContext, a: FakeTensor, b: FakeTensor, *, left: bool = True) -> FakeTensor:
    """``X`` with ``A X = B`` (or ``X A = B``)."""
    square(ctx, a, "linalg.solve")
    if is_vector(a, b):
        sizes = (*ctx.broadcast(a.sizes[:-2], b.sizes[:-1]), a.sizes[-1])
        # LAPACK's order is put on the last two dims, although they are no matrix here.
        return columns(ctx, b, sizes) if len(sizes) > 1 else rows(ctx, b, sizes)
    ctx.require_same(
        a.sizes[-1],
        b.sizes[-2 if left else -1],
        f"linalg.solve: Incompatible shapes of A and B for the equation {'AX' if left else 'XA'} "
        f"= B ({a.sizes[-2]}x{a.sizes[-1]} and {b.sizes[-2]}x{b.sizes[-1]})",
    )
    sizes = (*ctx.broadcast(a.sizes[:-2], b.sizes[:-2]), *b.sizes[-2:])
    return columns(ctx, b, sizes) if left else rows(ctx, b, sizes)


@rule(aten.linalg_solve_triangular.default)
def solve_triangular(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> FakeTensor:
    square(ctx, a, "linalg.solve_triangular")
    sizes = (*ctx.broadcast(a.sizes[:-2], b.sizes[:-2]), *b.sizes[-2:])
    return columns(ctx, b, sizes)


@rule(aten.cholesky_solve.default)
def cholesky_solve(
    ctx: RuleContext, b: FakeTensor, a: FakeTensor, upper: bool = False
) -> FakeTensor:
    sizes = (*ctx.broadcast(a.sizes[:-2], b.sizes[:-2]), *b.sizes[-2:])
    return columns(ctx, b, sizes)


# -- rows ------------------------------------------------------------------------------------------


@rule(aten._cdist_forward.default)
def cdist(ctx: RuleContext, a: FakeTensor, b: FakeTensor, p: float = 2.0, *_: Any) -> FakeTensor:
    """Distances between all rows of ``a`` and all rows of ``b``."""
    ctx.require_same(a.sizes[-1], b.sizes[-1], "X1 and X2 must have the same number of columns.")
    lead = a.sizes[:-2]
    if lead != b.sizes[:-2]:
        lead = ctx.broadcast(lead, b.sizes[:-2])
    return rows(ctx, a, (*lead, a.sizes[-2], b.sizes[-2]), promoted(ctx, a, b))


@rule(aten.pdist.default, aten._pdist_forward.default)
def pdist(ctx: RuleContext, x: FakeTensor, p: float = 2.0) -> FakeTensor:
    """Distances between all pairs of rows."""
    n = x.sizes[0]
    return rows(ctx, x, (tidy(ctx, n * (n - 1) // 2),))


@rule(aten.linalg_cross.default)
def linalg_cross(ctx: RuleContext, a: FakeTensor, b: FakeTensor, *, dim: int = -1) -> FakeTensor:
    if len(a.sizes) != len(b.sizes):
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    sizes = ctx.broadcast(a.sizes, b.sizes)
    d = wrap_dim(dim, len(sizes))
    for t in (a, b):
        ctx.require_same(t.sizes[d], 3, f"linalg.cross: inputs dimension {dim} must have length 3")
    return rows(ctx, a, sizes, promoted(ctx, a, b))


@rule(aten.cross.default)
def cross(ctx: RuleContext, a: FakeTensor, b: FakeTensor, dim: int | None = None) -> FakeTensor:
    """Without ``dim``, along the first dim of size 3."""
    if dim is None:
        found = [d for d, size in enumerate(a.sizes) if type(size) is int and size == 3]
        if not found:
            raise ctx.unsupported(
                "torch.cross without dim, on sizes of which none is the plain number 3."
            )
        dim = found[0]
    return linalg_cross(ctx, a, b, dim=dim)


@rule(aten.linalg_vecdot.default)
def vecdot(ctx: RuleContext, a: FakeTensor, b: FakeTensor, *, dim: int = -1) -> FakeTensor:
    whole = elementwise(ctx, (a, b), promoted(ctx, a, b))
    d = wrap_dim(dim, len(whole.sizes))
    return rows(ctx, whole, whole.sizes[:d] + whole.sizes[d + 1 :])


@rule(aten.cov.default)
def cov(
    ctx: RuleContext,
    x: FakeTensor,
    *,
    correction: int = 1,
    fweights: FakeTensor | None = None,
    aweights: FakeTensor | None = None,
) -> FakeTensor:
    """:func:`corrcoef` of weighted observations."""
    observations = x.sizes[-1] if x.sizes else 1
    for name, weights in (("fweights", fweights), ("aweights", aweights)):
        if weights is None:
            continue
        if len(weights.sizes) > 1:
            raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions")
        must_match(
            ctx,
            weights.sizes or (1,),
            (observations,),
            f"cov(): expected {name} to have the same numel as there are observations in the input",
        )
        if weights.dtype.is_floating_point is (name == "fweights"):
            raise RuntimeError(f"cov(): {name} cannot have dtype {weights.dtype}")
    dtype = x.dtype if aweights is None else torch.promote_types(x.dtype, aweights.dtype)
    return _between_variables(ctx, x, as_float(dtype))


@rule(aten.corrcoef.default)
def corrcoef(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return _between_variables(ctx, x, as_float(x.dtype))


def _between_variables(ctx: RuleContext, x: FakeTensor, dtype: torch.dtype) -> FakeTensor:
    """One row and column for each variable (row of ``x``); a number for a single one."""
    if len(x.sizes) > 2:
        raise RuntimeError("cov(): expected input to have two or fewer dimensions")
    if len(x.sizes) < 2 or is_single(ctx, x.sizes[0]):
        return rows(ctx, x, (), dtype)
    return rows(ctx, x, (x.sizes[0], x.sizes[0]), dtype)


@rule(aten.linalg_vander.default)
def linalg_vander(ctx: RuleContext, x: FakeTensor, *, N: Any = None) -> FakeTensor:
    """Powers ``0, 1, ..., N - 1`` of each element."""
    count: Expr | int = (x.sizes or (1,))[-1] if N is None else N
    dtype = x.dtype if x.dtype.is_floating_point or x.dtype.is_complex else torch.int64
    return rows(ctx, x, (*(x.sizes or (1,)), unwrap(count)), dtype)
