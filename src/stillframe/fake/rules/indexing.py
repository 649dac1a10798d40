"""Reading and writing by index tensors and masks: ``x[i, :, mask]``, index_select, gather, take.

Masks count as the positions of their True elements; how many there are is a new unbacked size.
Bounds of indices are data: the operator checks them when the program runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.elementwise import Layout, contiguous, fit, fresh, layout_of
from stillframe.fake.rules.reshaping import view
from stillframe.fake.rules.scattering import within
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr

aten = torch.ops.aten

_MASKS = (torch.bool, torch.uint8)
_INDEX_DTYPES = (torch.int64, torch.int32, torch.bool, torch.uint8)


# -- x[...] ----------------------------------------------------------------------------------------


def count_true(ctx: RuleContext, mask: FakeTensor) -> Expr:
    """The number of True elements; the same symbol as long as the mask is not written to."""
    written = mask.storage_.written
    seen = mask.__dict__.get("true_count")
    if seen is not None and seen[0] == written:
        found: Expr = seen[1]
        return found
    total = ctx.numel(mask.sizes)
    count = ctx.unbacked(0, total if type(total) is int else math.inf)
    mask.__dict__["true_count"] = (written, count)
    return count


def _positions(
    ctx: RuleContext, x: FakeTensor, indices: Sequence[FakeTensor | None], count: Expr | None = None
) -> list[Layout | None]:
    """Sizes and strides of one index per dim of ``x``; masks replaced by positions.

    Args:
        count: what to take as the number of True elements of masks, for writing.
    """
    found: list[Layout | None] = []
    for index in indices:
        if index is None:
            found.append(None)
            continue
        if index.dtype not in _INDEX_DTYPES:
            raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
        if index.dtype not in _MASKS:
            found.append((index.sizes, index.strides))
            continue
        at = len(found)
        for d, size in enumerate(index.sizes):
            own = x.sizes[at + d] if at + d < len(x.sizes) else None
            text = (
                f"The shape of the mask {list(index.sizes)} at index {d} does not match the shape "
                f"of the indexed tensor {list(x.sizes)} at index {at + d}"
            )
            if own is None:
                raise IndexError(text)
            if own != size:
                try:
                    ctx.require_same(size, own, text)
                except RuntimeError as e:
                    raise IndexError(text) from e
        picked = count_true(ctx, index) if count is None else count
        found += [((picked,), (1,))] * len(index.sizes)
    if len(found) > len(x.sizes):
        raise IndexError(
            f"too many indices for tensor of dimension {len(x.sizes)} (got {len(found)})"
        )
    return found + [None] * (len(x.sizes) - len(found))


def _placed(
    ctx: RuleContext, x: FakeTensor, positions: Sequence[Layout | None]
) -> tuple[tuple[Size, ...], tuple[Layout, ...]]:
    """The result's sizes, and the operands of the kernel aligned to them.

    Indices that are neighbours put their broadcast sizes in their place, others in front.
    """
    used = [d for d, p in enumerate(positions) if p is not None]
    order = list(range(len(x.sizes)))
    if used and used[-1] - used[0] + 1 != len(used):
        order = used + [d for d in order if d not in used]
    given = [p for p in positions if p is not None]
    shape = ctx.broadcast(*[sizes for sizes, _ in given]) if len(given) > 1 else given[0][0]
    first = order.index(used[0])
    before, after = order[:first], order[first + len(used) :]
    lead, tail = [x.sizes[d] for d in before], [x.sizes[d] for d in after]
    sizes = (*lead, *shape, *tail)
    source: Layout = (
        sizes,
        (*[x.strides[d] for d in before], *[0] * len(shape), *[x.strides[d] for d in after]),
    )
    operands = [source]
    for own, strides in given:
        pad = len(shape) - len(own)
        operands.append(
            (
                (*[1] * (len(lead) + pad), *own, *[1] * len(tail)),
                (*[0] * (len(lead) + pad), *strides, *[0] * len(tail)),
            )
        )
    return sizes, tuple(operands)


@rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(ctx: RuleContext, x: FakeTensor, indices: Sequence[FakeTensor | None]) -> FakeTensor:
    """A copy in the memory order that the elementwise kernel over its operands gives it."""
    positions = _positions(ctx, x, indices)
    if all(p is None for p in positions):
        return contiguous(ctx, x.sizes, x.dtype, x.device)
    sizes, operands = _placed(ctx, x, positions)
    return fresh(ctx, sizes, layout_of(ctx, sizes, operands), x.dtype, x.device)


def _write(
    ctx: RuleContext, x: FakeTensor, indices: Sequence[FakeTensor | None], values: FakeTensor
) -> None:
    """The values must broadcast to what the indices select."""
    if x.dtype is not values.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {x.dtype} for the "
            f"destination and {values.dtype} for the source."
        )
    if not values.sizes or any(i is not None and i.dtype in _MASKS for i in indices):
        return  # a number, or as many as the data say
    positions = _positions(ctx, x, indices)
    if any(p is not None for p in positions):
        fit(ctx, _without_ones(values.sizes, positions, x), _placed(ctx, x, positions)[0])


def _without_ones(
    sizes: tuple[Size, ...], positions: Sequence[Layout | None], x: FakeTensor
) -> tuple[Size, ...]:
    """Values may have more dims than the selection, of size 1, in front."""
    rank = sum(p is None for p in positions) + max(len(p[0]) for p in positions if p is not None)
    while len(sizes) > rank and type(sizes[0]) is int and sizes[0] == 1:
        sizes = sizes[1:]
    return sizes


@rule(aten.index_put_.default, aten._index_put_impl_.default)
def index_put_(
    ctx: RuleContext,
    x: FakeTensor,
    indices: Sequence[FakeTensor | None],
    values: FakeTensor,
    accumulate: bool = False,
    *_: Any,
) -> FakeTensor:
    _write(ctx, x, indices, values)
    return x


@rule(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(
    ctx: RuleContext,
    x: FakeTensor,
    indices: Sequence[FakeTensor | None],
    values: FakeTensor,
    accumulate: bool = False,
) -> FakeTensor:
    _write(ctx, x, indices, values)
    return ctx.new_like(x)


@rule(aten._unsafe_masked_index.default)
def masked_index(
    ctx: RuleContext,
    x: FakeTensor,
    mask: FakeTensor,
    indices: Sequence[FakeTensor | None],
    fill: Any,
) -> FakeTensor:
    """What the indices select, then filled where the mask is not set."""
    selected = index(ctx, x, indices)
    return contiguous(ctx, ctx.broadcast(selected.sizes, mask.sizes), x.dtype, x.device)


@rule(aten._unsafe_masked_index_put_accumulate.default)
def masked_index_put(
    ctx: RuleContext,
    x: FakeTensor,
    mask: FakeTensor,
    indices: Sequence[FakeTensor | None],
    values: FakeTensor,
) -> FakeTensor:
    return ctx.new_like(x)


# -- one index for a dim ---------------------------------------------------------------------------


@rule(aten.index_select.default)
def index_select(ctx: RuleContext, x: FakeTensor, dim: int, index: FakeTensor) -> FakeTensor:
    if len(index.sizes) > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    if not x.sizes:
        return ctx.new(x, ())
    dim = wrap_dim(dim, len(x.sizes))
    count = index.sizes[0] if index.sizes else 1
    return contiguous(ctx, (*x.sizes[:dim], count, *x.sizes[dim + 1 :]), x.dtype, x.device)


@rule(aten.gather.default)
def gather(
    ctx: RuleContext, x: FakeTensor, dim: int, index: FakeTensor, *, sparse_grad: bool = False
) -> FakeTensor:
    """One element for each index."""
    _check_index(ctx, x, index, dim)
    return contiguous(ctx, index.sizes, x.dtype, x.device)


def _check_index(ctx: RuleContext, x: FakeTensor, index: FakeTensor, dim: int) -> None:
    dim = wrap_dim(dim, len(x.sizes))
    if index.dtype not in (torch.int64, torch.int32) and 0 not in index.sizes:
        raise RuntimeError("gather(): Expected dtype int32/int64 for index")
    if 0 in index.sizes:  # nothing else is checked then
        return
    if max(len(x.sizes), 1) != max(len(index.sizes), 1):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    within(ctx, index, x, dim)


@rule(aten.take_along_dim.default)
def take_along_dim(
    ctx: RuleContext, x: FakeTensor, indices: FakeTensor, dim: int | None = None
) -> FakeTensor:
    """``gather`` after broadcasting; without a dim, over the flattened tensors."""
    if indices.dtype is not torch.int64:
        raise RuntimeError(
            "torch.take_along_dim(): dtype of indices should be Long but got " + str(indices.dtype)
        )
    if dim is None:
        for t in (x, indices):
            view(ctx, t, (-1,))  # eager flattens both, without a copy
        return contiguous(ctx, (ctx.numel(indices.sizes),), x.dtype, x.device)
    dim = wrap_dim(dim, len(x.sizes))
    own, given = list(x.sizes), list(indices.sizes)
    if len(own) != len(given):
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {len(own)} dimensions for input, and {len(given)} dimensions for indices"
        )
    own[dim] = given[dim]
    return contiguous(ctx, ctx.broadcast(own, given), x.dtype, x.device)


@rule(aten.take.default)
def take(ctx: RuleContext, x: FakeTensor, index: FakeTensor) -> FakeTensor:
    """Elements of the flattened tensor."""
    return contiguous(ctx, index.sizes, x.dtype, x.device)


@rule(aten.put_.default)
def put_(
    ctx: RuleContext,
    x: FakeTensor,
    index: FakeTensor,
    source: FakeTensor,
    accumulate: bool = False,
) -> FakeTensor:
    return x


@rule(aten.put.default)
def put(
    ctx: RuleContext,
    x: FakeTensor,
    index: FakeTensor,
    source: FakeTensor,
    accumulate: bool = False,
) -> FakeTensor:
    return ctx.new_like(x)
