"""Products of matrices and vectors: mm, bmm, matmul, linear and their kin.

All of these make row-major results on the CPU, whatever the layout of the operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, elementwise, fit, promoted
from stillframe.fake.rules.sizing import is_one, must_match, product, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import unwrap

aten = torch.ops.aten


def _same_dtype(name: str, *tensors: FakeTensor) -> None:
    first = tensors[0].dtype
    for t in tensors[1:]:
        if t.dtype is not first:
            raise RuntimeError(
                f"{name}: expected m1 and m2 to have the same dtype, but got: {first} != {t.dtype}"
            )


def _ranks(name: str, *pairs: tuple[FakeTensor, int]) -> None:
    for t, rank in pairs:
        if len(t.sizes) != rank:
            raise RuntimeError(f"{name}: expected a {rank}-D tensor, but got {len(t.sizes)}-D")


def _inner(ctx: RuleContext, name: str, a: FakeTensor, b: FakeTensor, i: int, j: int) -> None:
    left, right = a.sizes[i], b.sizes[j]
    if left != right:
        ctx.require_same(
            left,
            right,
            f"{name}: mat1 and mat2 shapes cannot be multiplied ({_shape(a.sizes)} and "
            f"{_shape(b.sizes)})",
        )


def _shape(sizes: Sequence[Size]) -> str:
    return "x".join(map(str, sizes))


# -- matrices ------------------------------------------------------------------------------------


@rule(aten.mm.default)
def mm(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    _ranks("mm", (a, 2), (b, 2))
    _inner(ctx, "mm", a, b, 1, 0)
    _same_dtype("mm", a, b)
    return contiguous(ctx, (a.sizes[0], b.sizes[1]), a.dtype, a.device)


@rule(aten.mm.dtype)
def mm_dtype(ctx: RuleContext, a: FakeTensor, b: FakeTensor, out_dtype: torch.dtype) -> FakeTensor:
    _inner(ctx, "mm", a, b, 1, 0)
    return contiguous(ctx, (a.sizes[0], b.sizes[1]), out_dtype, a.device)


@rule(aten._int_mm.default)
def int_mm(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    _inner(ctx, "_int_mm", a, b, 1, 0)
    return contiguous(ctx, (a.sizes[0], b.sizes[1]), torch.int32, a.device)


@rule(aten.bmm.default)
def bmm(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    _ranks("bmm", (a, 3), (b, 3))
    batch = ctx.require_same(
        a.sizes[0], b.sizes[0], "bmm: batch1 and batch2 must have the same number of batches"
    )
    _inner(ctx, "bmm", a, b, 2, 1)
    _same_dtype("bmm", a, b)
    return contiguous(ctx, (batch, a.sizes[1], b.sizes[2]), a.dtype, a.device)


@rule(aten.mv.default)
def mv(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    _ranks("mv", (a, 2), (b, 1))
    _inner(ctx, "mv", a, b, 1, 0)
    _same_dtype("mv", a, b)
    return contiguous(ctx, (a.sizes[0],), a.dtype, a.device)


@rule(aten.dot.default, aten.vdot.default, aten.inner.default)
def dot(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """For vectors a number; ``inner`` contracts the last dims of tensors of any rank."""
    if len(a.sizes) == len(b.sizes) == 1:
        _inner(ctx, "dot", a, b, 0, 0)
        _same_dtype("dot", a, b)
        return contiguous(ctx, (), a.dtype, a.device)
    if not a.sizes or not b.sizes:
        return elementwise(ctx, (a, b), promoted(ctx, a, b))
    _inner(ctx, "inner", a, b, -1, -1)
    return contiguous(ctx, a.sizes[:-1] + b.sizes[:-1], a.dtype, a.device)


@rule(aten.outer.default, aten.ger.default)
def outer(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """``a[:, None] * b``."""
    _ranks("outer", (a, 1), (b, 1))
    return contiguous(ctx, (a.sizes[0], b.sizes[0]), ctx.promote(a, b), a.device)


# -- any ranks -----------------------------------------------------------------------------------


@rule(aten.matmul.default, aten.linalg_matmul.default)
def matmul(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """Vectors stand for a row on the left and a column on the right; batches are broadcast."""
    ra, rb = len(a.sizes), len(b.sizes)
    if ra == 0 or rb == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {ra}D and {rb}D"
        )
    _inner(ctx, "matmul", a, b, ra - 1, max(rb - 2, 0))
    _same_dtype("matmul", a, b)
    sizes = ctx.broadcast(a.sizes[:-2], b.sizes[:-2]) if ra > 2 or rb > 2 else ()
    if ra > 1:
        sizes = (*sizes, a.sizes[-2])
    if rb > 1:
        sizes = (*sizes, b.sizes[-1])
    return contiguous(ctx, sizes, a.dtype, a.device)


@rule(aten.linear.default)
def linear(
    ctx: RuleContext, x: FakeTensor, weight: FakeTensor, bias: FakeTensor | None = None
) -> FakeTensor:
    """``x @ weight.T + bias``; the leading dims of ``x`` are free."""
    if x.sizes[-1] != weight.sizes[-1]:
        ctx.require_same(
            x.sizes[-1],
            weight.sizes[-1],
            f"mat1 and mat2 shapes cannot be multiplied ({_shape(_folded(x.sizes))} and "
            f"{_shape(weight.sizes[::-1])})",
        )
    if weight.dtype is not x.dtype or (bias is not None and bias.dtype is not x.dtype):
        raise RuntimeError(
            f"mat1 and mat2 must have the same dtype, but got {_dtypes(x, weight, bias)}"
        )
    sizes = x.sizes[:-1] + weight.sizes[:-1]
    if bias is not None and bias.sizes and bias.sizes[-1] != sizes[-1]:
        fit(ctx, bias.sizes, sizes)
    return contiguous(ctx, sizes, x.dtype, x.device)


def _folded(sizes: tuple[Size, ...]) -> tuple[Any, ...]:
    return (unwrap(product(sizes[:-1])), sizes[-1])


def _dtypes(*tensors: FakeTensor | None) -> str:
    return " and ".join(str(t.dtype) for t in tensors if t is not None)


@rule(aten.bilinear.default)
def bilinear(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    weight: FakeTensor,
    bias: FakeTensor | None = None,
) -> FakeTensor:
    """``out[..., o] = a[..., i] * weight[o, i, j] * b[..., j]``."""
    lead = tuple(
        ctx.require_same(m, n, "bilinear(): input batch dimensions do not match")
        for m, n in zip(a.sizes[:-1], b.sizes[:-1], strict=True)
    )
    ctx.require_same(
        a.sizes[-1], weight.sizes[1], "bilinear(): input1 size does not match weight size"
    )
    ctx.require_same(
        b.sizes[-1], weight.sizes[2], "bilinear(): input2 size does not match weight size"
    )
    return contiguous(ctx, (*lead, weight.sizes[0]), a.dtype, a.device)


@rule(aten._trilinear.default)
def trilinear(
    ctx: RuleContext,
    i1: FakeTensor,
    i2: FakeTensor,
    i3: FakeTensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    unroll_dim: int = 1,
) -> FakeTensor:
    """The product of three operands that get new dims at ``expand``, summed over ``sumdim``."""
    operands = ((i1, expand1), (i2, expand2), (i3, expand3))
    sizes = ctx.broadcast(*(_expanded(t.sizes, dims) for t, dims in operands))
    kept = tuple(s for dim, s in enumerate(sizes) if dim not in sumdim)
    return contiguous(ctx, kept, i1.dtype, i1.device)


def _expanded(sizes: tuple[Size, ...], dims: list[int]) -> list[Size]:
    result = list(sizes)
    for dim in sorted(dims):
        result.insert(dim, 1)
    return result


# -- with a summand ------------------------------------------------------------------------------


def _plus(ctx: RuleContext, summand: FakeTensor, result: FakeTensor) -> FakeTensor:
    if summand.sizes != result.sizes:
        fit(ctx, summand.sizes, result.sizes)
    return result


@rule(aten.addmm.default)
def addmm(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    _same_dtype("addmm", x, a)
    return _plus(ctx, x, mm(ctx, a, b))


@rule(aten.addmv.default)
def addmv(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    return _plus(ctx, x, mv(ctx, a, b))


@rule(aten.baddbmm.default)
def baddbmm(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    _same_dtype("baddbmm", x, a)
    return _plus(ctx, x, bmm(ctx, a, b))


@rule(aten.addbmm.default)
def addbmm(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    """The sum over the batch of ``a @ b``."""
    whole = bmm(ctx, a, b)
    return _plus(ctx, x, contiguous(ctx, whole.sizes[1:], a.dtype, a.device))


def _in_place(overload: Any, product_rule: Any) -> None:
    @rule(overload)
    def add_product_(
        ctx: RuleContext,
        x: FakeTensor,
        a: FakeTensor,
        b: FakeTensor,
        *,
        beta: Any = 1,
        alpha: Any = 1,
    ) -> FakeTensor:
        """The tensor written to must have the sizes of the product; it is not broadcast."""
        result = product_rule(ctx, x, a, b)
        must_match(ctx, x.sizes, result.sizes, f"{x.sizes} is not the product's {result.sizes}")
        return x


_in_place(aten.addmm_.default, addmm)
_in_place(aten.addmv_.default, addmv)
_in_place(aten.baddbmm_.default, baddbmm)


@rule(aten.addbmm_.default)
def addbmm_(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, beta: Any = 1, alpha: Any = 1
) -> FakeTensor:
    """The kernel resizes ``x`` to the sizes of the product, which a fake cannot follow."""
    whole = addbmm(ctx, x, a, b).sizes
    if len(whole) != len(x.sizes) or not all(map(ctx.same, x.sizes, whole)):
        raise ctx.unsupported("addbmm_ that changes the sizes of its tensor cannot be captured.")
    return x


# -- several operands ------------------------------------------------------------------------------


@rule(aten.chain_matmul.default, aten.linalg_multi_dot.default)
def multi_dot(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    """A product in the cheapest order; the order does not show in the result."""
    if len(tensors) == 1:
        return tensors[0]
    result = tensors[0]
    for t in tensors[1:]:
        result = matmul(ctx, result, t)
    return result


@rule(aten.tensordot.default)
def tensordot(
    ctx: RuleContext, a: FakeTensor, b: FakeTensor, dims_self: list[int], dims_other: list[int]
) -> FakeTensor:
    """Contract pairs of dims: a product of two matrices, then a reshape."""
    da = [d % max(len(a.sizes), 1) for d in dims_self]
    db = [d % max(len(b.sizes), 1) for d in dims_other]
    for i, j in zip(da, db, strict=True):
        if not (is_one(a.sizes[i]) or is_one(b.sizes[j])):  # a 1 is broadcast
            _inner(ctx, "tensordot", a, b, i, j)
    rest_a = [s for d, s in enumerate(a.sizes) if d not in da]
    rest_b = [s for d, s in enumerate(b.sizes) if d not in db]
    return contiguous(ctx, (*rest_a, *rest_b), a.dtype, a.device)


@rule(aten._grouped_mm.default)
def grouped_mm(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    offs: FakeTensor | None = None,
    bias: FakeTensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> FakeTensor:
    """One product for each group; ``offs`` has the ends of the groups within a dim of a matrix.

    Rows of the result begin at multiples of 16 bytes.
    """
    _check_groups(ctx, a, b, offs, bias, out_dtype)
    rows, columns = a.sizes[-2], b.sizes[-1]
    groups: tuple[Size, ...] = ()
    if len(a.sizes) == len(b.sizes):
        groups = (a.sizes if offs is None else offs.sizes)[:1]
    unit = 16 // a.dtype.itemsize
    row: Any = tidy(ctx, (columns + unit - 1) // unit * unit)
    strides = (unwrap(row * rows), row, 1)[-2 - len(groups) :]
    return ctx.new(a, (*groups, rows, columns), strides=strides)


def _check_groups(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    offs: FakeTensor | None,
    bias: FakeTensor | None,
    out_dtype: torch.dtype | None,
) -> None:
    if {len(a.sizes), len(b.sizes)} - {2, 3}:
        raise RuntimeError("grouped_mm: the operands must have 2 or 3 dims")
    if a.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise RuntimeError(f"grouped_mm: matrices of {a.dtype} are not supported")
    _same_dtype("grouped_mm", a, b)
    if (len(a.sizes) == len(b.sizes) == 3) != (offs is None):
        raise RuntimeError("grouped_mm: offsets go with matrices of 2 dims, and only with them")
    if offs is not None and offs.dtype is not torch.int32:
        raise RuntimeError("grouped_mm: offsets have to be int32")
    if bias is not None or out_dtype not in (None, a.dtype):
        raise RuntimeError("grouped_mm: no bias, and no other dtype of the result")
    if len(a.sizes) == 2 and len(b.sizes) == 3 and offs is not None:
        ctx.require_same(b.sizes[0], offs.sizes[0], "grouped_mm: batch sizes have to match")
    if len(a.sizes) == 3:
        batch = b.sizes[0] if offs is None else offs.sizes[0]
        ctx.require_same(a.sizes[0], batch, "grouped_mm: batch sizes have to match")
    _inner(ctx, "grouped_mm", a, b, len(a.sizes) - 1, len(b.sizes) - 2)
