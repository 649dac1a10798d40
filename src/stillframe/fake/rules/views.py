"""Views that pick, reorder or repeat dims: transpose, expand, select, slice and their kin.

None of them asks whether a symbolic size is 0 or 1. Bounds of indices are not guarded either: the
operator stays in the program and raises by itself where they do not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim, wrap_dims
from stillframe.fake.rules.sizing import ceil_div, clamp_index, is_one, plausible, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, add, eq, ge, ite, le, lt, max_, min_

aten = torch.ops.aten


# -- the order of dims ---------------------------------------------------------------------------


def permuted(ctx: RuleContext, x: FakeTensor, order: Sequence[int]) -> FakeTensor:
    """The view whose dim ``i`` is dim ``order[i]`` of ``x``."""
    return ctx.view(x, [x.sizes[d] for d in order], [x.strides[d] for d in order], x.offset)


def swapped(ctx: RuleContext, x: FakeTensor, a: int, b: int) -> FakeTensor:
    """The view with two dims exchanged."""
    sizes, strides = list(x.sizes), list(x.strides)
    if sizes:
        sizes[a], sizes[b] = sizes[b], sizes[a]
        strides[a], strides[b] = strides[b], strides[a]
    return ctx.view(x, sizes, strides, x.offset)


@rule(aten.permute.default)
def permute(ctx: RuleContext, x: FakeTensor, dims: list[int]) -> FakeTensor:
    rank = len(x.sizes)
    if len(dims) != rank:
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {rank} is not equal "
            f"to len(dims) = {len(dims)}"
        )
    order = [wrap_dim(d, rank) for d in dims]
    if len(set(order)) != rank:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return permuted(ctx, x, order)


@rule(
    aten.transpose.int,
    aten.swapaxes.default,
    aten.swapdims.default,
)
def transpose(ctx: RuleContext, x: FakeTensor, dim0: int, dim1: int) -> FakeTensor:
    rank = len(x.sizes)
    return swapped(ctx, x, wrap_dim(dim0, rank), wrap_dim(dim1, rank))


@rule(aten.t.default)
def t(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    rank = len(x.sizes)
    if rank > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {rank}D")
    return swapped(ctx, x, 0, rank - 1)


@rule(aten.mT.default, aten.mH.default, aten.adjoint.default, aten.matrix_H.default)
def matrix_transpose(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    rank = len(x.sizes)
    if rank < 2:
        raise RuntimeError(
            f"tensor.mT is only supported on matrices or batches of matrices. Got {rank}-D tensor."
        )
    return swapped(ctx, x, rank - 2, rank - 1)


@rule(aten.numpy_T.default)
def numpy_t(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return permuted(ctx, x, range(len(x.sizes) - 1, -1, -1))


@rule(aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist)
def movedim(ctx: RuleContext, x: FakeTensor, source: Any, destination: Any) -> FakeTensor:
    rank = len(x.sizes)
    src = wrap_dims(source, rank, empty_is_all=False)
    dst = wrap_dims(destination, rank, empty_is_all=False)
    if len(src) != len(dst):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({list(src)} dims) should have "
            f"the same number of dims as destination ({list(dst)} dims)"
        )
    placed = dict(zip(dst, src, strict=True))
    rest = iter([d for d in range(rank) if d not in src])
    return permuted(ctx, x, [placed[d] if d in placed else next(rest) for d in range(rank)])


# -- more dims, repeated dims ----------------------------------------------------------------------


@rule(aten.unsqueeze.default)
def unsqueeze(ctx: RuleContext, x: FakeTensor, dim: int) -> FakeTensor:
    rank = len(x.sizes)
    dim = wrap_dim(dim, rank + 1)
    stride = x.sizes[dim] * x.strides[dim] if dim < rank else 1
    return ctx.view(
        x,
        (*x.sizes[:dim], 1, *x.sizes[dim:]),
        (*x.strides[:dim], stride, *x.strides[dim:]),
        x.offset,
    )


@rule(aten.expand.default)
def expand(
    ctx: RuleContext, x: FakeTensor, size: Sequence[Size], *, implicit: bool = False
) -> FakeTensor:
    return expanded(ctx, x, size)


@rule(aten.broadcast_to.default)
def broadcast_to(ctx: RuleContext, x: FakeTensor, size: Sequence[Size]) -> FakeTensor:
    return expanded(ctx, x, size)


@rule(aten.expand_as.default)
def expand_as(ctx: RuleContext, x: FakeTensor, other: FakeTensor) -> FakeTensor:
    return expanded(ctx, x, other.sizes)


@rule(aten.broadcast_tensors.default)
def broadcast_tensors(ctx: RuleContext, tensors: list[FakeTensor]) -> list[FakeTensor]:
    """Tensors that have the common sizes already are returned as they are."""
    sizes = ctx.broadcast(*[t.sizes for t in tensors])
    return [t if t.sizes == sizes else expanded(ctx, t, sizes) for t in tensors]


def expanded(ctx: RuleContext, x: FakeTensor, target: Sequence[Size]) -> FakeTensor:
    """The view of ``x`` with ``target`` sizes; -1 keeps a size. Repeated dims have stride 0."""
    lead = len(target) - len(x.sizes)
    if lead < 0:
        raise RuntimeError(
            f"expand({listed(x.sizes)}, size={listed(target)}): the number of sizes provided "
            f"({len(target)}) must be greater or equal to the number of dimensions in the tensor "
            f"({len(x.sizes)})"
        )
    sizes: list[Size] = [1] * len(target)
    strides: list[Any] = [0] * len(target)
    for d in range(len(target) - 1, -1, -1):
        want = target[d]
        if d < lead:
            if type(want) is int and want < 0:
                raise RuntimeError(
                    f"The expanded size of the tensor ({want}) isn't allowed in a leading, "
                    f"non-existing dimension {d}"
                )
            sizes[d] = want
            if is_one(want):
                strides[d] = sizes[d + 1] * strides[d + 1] if d + 1 < len(target) else 1
            continue
        own = x.sizes[d - lead]
        if isinstance(want, Expr) and ctx.env.may_be_negative((want,)):
            is_size = ctx.env.expect_true(ge(want, 0))
            if not is_size and ctx.env.evaluate(eq(want, -1)):
                want = -1  # as which it is no size, but the one that is there
        keeps = own == want or (type(want) is int and want == -1)
        sizes[d] = own if keeps else want
        if keeps or _keeps_size(ctx, own, want, d, x.sizes, target):
            strides[d] = x.strides[d - lead]
            if type(own) is int:
                sizes[d] = own
    return ctx.view(x, sizes, strides, x.offset)


def _keeps_size(
    ctx: RuleContext, own: Size, want: Size, dim: int, sizes: Sequence[Size], target: Sequence[Size]
) -> bool:
    """Whether a dim keeps its size (else it is a 1 that is repeated)."""
    if type(own) is int and own == 1:
        return is_one(want)
    text = (
        f"The expanded size of the tensor ({want}) must match the existing size ({own}) at "
        f"non-singleton dimension {dim}.  Target sizes: {listed(target)}.  Tensor sizes: "
        f"{listed(sizes)}"
    )
    if isinstance(own, Expr) and ctx.known(eq(own, want)) is not True and ctx.env.hint_of(own) == 1:
        if (ctx.env.hint_of(want) if isinstance(want, Expr) else want) != 1:
            ctx.require(eq(own, 1), text)
            return False
    ctx.require_same(own, want, text)
    return True


def listed(sizes: Sequence[Size]) -> str:
    """Sizes as torch prints them."""
    return "[" + ", ".join(map(str, sizes)) + "]"


# -- one index, a range of indices ----------------------------------------------------------------


@rule(aten.select.int)
def select(ctx: RuleContext, x: FakeTensor, dim: int, index: Any) -> FakeTensor:
    rank = len(x.sizes)
    if rank == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, rank)
    size = x.sizes[dim]
    at = index
    if type(index) is int:
        if index < 0:
            at = size + index
            inside = at >= 0 if type(at) is int else ge(at, 0)
        else:
            inside = index < size if type(size) is int else lt(index, size)
        if inside is not True and not plausible(ctx, inside):
            raise IndexError(
                f"select(): index {index} out of range for tensor of size {listed(x.sizes)} at "
                f"dimension {dim}"
            )
    else:
        at = _from_front(ctx, index, size)
    offset = x.offset if type(at) is int and at == 0 else x.offset + at * x.strides[dim]
    return ctx.view(
        x, x.sizes[:dim] + x.sizes[dim + 1 :], x.strides[:dim] + x.strides[dim + 1 :], offset
    )


def _from_front(ctx: RuleContext, index: Expr, size: Size) -> Any:
    """A symbolic index that may be negative, counted from the front."""
    negative = lt(index, 0)
    known = ctx.known(negative)
    if known is None:
        return ite(negative, index + size, index)
    return index + size if known else index


@rule(aten.slice.Tensor)
def slice_(
    ctx: RuleContext, x: FakeTensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> FakeTensor:
    """``x[..., start:end:step, ...]`` along ``dim``, with Python's clamping."""
    rank = len(x.sizes)
    if rank == 0:
        raise RuntimeError("slice() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim(dim, rank)
    size = x.sizes[dim]
    if type(step) is int and step <= 0:
        raise RuntimeError("slice step must be positive")
    first = 0 if start is None else _bound(ctx, start, size)
    last = size if end is None else _bound(ctx, end, size)
    if type(first) is int and first == 0:
        length, offset = last, x.offset
    else:
        length = (
            max_(last - first, 0)
            if not (type(first) is int and type(last) is int)
            else max(last - first, 0)
        )
        offset = x.offset + first * x.strides[dim]
    stride: Any = x.strides[dim]
    if not is_one(step):
        length, stride = ceil_div(length, step), stride * step
    return ctx.view(
        x,
        (*x.sizes[:dim], tidy(ctx, length), *x.sizes[dim + 1 :]),
        (*x.strides[:dim], stride, *x.strides[dim + 1 :]),
        tidy(ctx, offset),
    )


def _bound(ctx: RuleContext, index: Any, size: Size) -> Any:
    at = clamp_index(index, size)
    if at is None:  # a symbolic index
        negative = lt(index, 0)
        known = ctx.known(negative)
        if known is False:
            at = min_(index, size)
        elif known is True:
            at = max_(add(index, size), 0)
        else:
            at = ite(negative, max_(add(index, size), 0), min_(max_(index, 0), size))
    return tidy(ctx, at)


def piece(ctx: RuleContext, x: FakeTensor, dim: int, start: Any, length: Any) -> FakeTensor:
    """The view of ``length`` elements of ``dim`` from ``start``; both are within bounds."""
    offset = x.offset if type(start) is int and start == 0 else x.offset + start * x.strides[dim]
    return ctx.view(x, (*x.sizes[:dim], length, *x.sizes[dim + 1 :]), x.strides, offset)


@rule(aten.narrow.default)
def narrow(ctx: RuleContext, x: FakeTensor, dim: int, start: Any, length: Any) -> FakeTensor:
    dim = wrap_dim(dim, len(x.sizes))
    size = x.sizes[dim]
    if type(start) is int:
        if start < 0:
            start = start + size
    else:
        start = _from_front(ctx, start, size)
    fits = (
        start + length <= size
        if type(start + length) is int and type(size) is int
        else le(start + length, size)
    )
    if not plausible(ctx, start >= 0):
        raise IndexError(f"start out of range (expected to be in range of [{-size}, {size}])")
    if not plausible(ctx, fits):
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return piece(ctx, x, dim, start, length)
