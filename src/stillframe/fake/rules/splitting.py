"""Views of the pieces of a tensor: split, chunk, tensor_split, unbind.

How many pieces there are must be known, so a symbolic number of them is guarded.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim
from stillframe.fake.rules.sizing import as_int, ceil_div, tidy
from stillframe.fake.rules.views import listed, piece, slice_
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, eq, ge, ite, le, lt

aten = torch.ops.aten


@rule(aten.split.Tensor)
def split(ctx: RuleContext, x: FakeTensor, split_size: Any, dim: int = 0) -> list[FakeTensor]:
    """Pieces of ``split_size``; the last one is what remains."""
    dim = wrap_dim(dim, len(x.sizes))
    size = x.sizes[dim]
    if type(split_size) is int and split_size == 0:
        ctx.require(
            eq(size, 0) if isinstance(size, Expr) else size == 0,
            f"split_size can only be 0 if dimension size is 0, but got dimension size of {size}",
        )
        return [piece(ctx, x, dim, 0, size)]
    if split_size == size:  # one piece, of 0 elements too
        return [piece(ctx, x, dim, 0, size)]
    count = _piece_count(ctx, size, split_size)
    return _pieces(ctx, x, dim, split_size, count)


def _piece_count(ctx: RuleContext, size: Size, step: Any) -> int:
    """``size / step`` rounded up, at least 1; guarded by where the last piece lies."""
    exact = tidy(ctx, ceil_div(size, step))
    if isinstance(exact, Expr) and not ctx.env.is_unbacked(exact):
        count = int(ctx.env.hint_of(exact))
        if ctx.guard(lt((count - 1) * step, size)) and ctx.guard(le(size, count * step)):
            return count
    return max(as_int(ctx, exact), 1)


def _pieces(ctx: RuleContext, x: FakeTensor, dim: int, step: Any, count: int) -> list[FakeTensor]:
    made = [piece(ctx, x, dim, i * step, step) for i in range(count - 1)]
    last = (count - 1) * step
    made.append(piece(ctx, x, dim, last, tidy(ctx, x.sizes[dim] - last)))
    return made


@rule(aten.chunk.default, aten.unsafe_chunk.default)
def chunk(ctx: RuleContext, x: FakeTensor, chunks: int, dim: int = 0) -> list[FakeTensor]:
    """At most ``chunks`` pieces of the same size, the last one smaller."""
    dim = wrap_dim(dim, len(x.sizes))
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = x.sizes[dim]
    step = tidy(ctx, ceil_div(size, chunks))
    if type(step) is int and step == 0:
        return [piece(ctx, x, dim, 0, 0) for _ in range(chunks)]
    exact = tidy(ctx, step * chunks)
    if exact == size:  # evenly; holds for a size of 0 as well
        return [piece(ctx, x, dim, i * step, step) for i in range(chunks)]
    if chunks == 2 and ctx.guard(ge(size, 2)):
        return _pieces(ctx, x, dim, step, 2)
    return _pieces(ctx, x, dim, step, _piece_count(ctx, size, step))


@rule(aten.split_with_sizes.default, aten.split.sizes)
def split_with_sizes(
    ctx: RuleContext, x: FakeTensor, split_sizes: list[Size], dim: int = 0
) -> list[FakeTensor]:
    dim = wrap_dim(dim, len(x.sizes))
    made: list[FakeTensor] = []
    start: Any = 0
    for size in split_sizes:
        if type(size) is int and size < 0:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes have only non-negative entries, but got "
                f"split_sizes={listed(split_sizes)}"
            )
        made.append(piece(ctx, x, dim, start, size))
        start = start + size
    total = x.sizes[dim]
    ctx.require(
        start == total if type(start) is int and type(total) is int else eq(start, total),
        f"split_with_sizes expects split_sizes to sum exactly to {total} (input tensor's size at "
        f"dimension {dim}), but got split_sizes={listed(split_sizes)}",
    )
    return made


@rule(aten.unsafe_split.Tensor)
def unsafe_split(
    ctx: RuleContext, x: FakeTensor, split_size: Any, dim: int = 0
) -> list[FakeTensor]:
    return split(ctx, x, split_size, dim)


@rule(aten.unsafe_split_with_sizes.default)
def unsafe_split_with_sizes(
    ctx: RuleContext, x: FakeTensor, split_sizes: list[Size], dim: int = 0
) -> list[FakeTensor]:
    return split_with_sizes(ctx, x, split_sizes, dim)


@rule(aten.tensor_split.sections)
def tensor_split_sections(
    ctx: RuleContext, x: FakeTensor, sections: Any, dim: int = 0
) -> list[FakeTensor]:
    """``sections`` pieces, of which the first ``size % sections`` have one element more."""
    dim = wrap_dim(dim, len(x.sizes))
    sections = as_int(ctx, sections)
    size = x.sizes[dim]
    low, more = tidy(ctx, size // sections), tidy(ctx, size % sections)
    made, start = [], 0
    for i in range(sections):
        if type(more) is int:
            length: Any = low + 1 if i < more else low
        else:
            length = low + ite(lt(i, more), 1, 0)
        made.append(piece(ctx, x, dim, start, length))
        start = start + length
    return made


@rule(aten.tensor_split.indices)
def tensor_split_indices(
    ctx: RuleContext, x: FakeTensor, indices: list[Any], dim: int = 0
) -> list[FakeTensor]:
    dim = wrap_dim(dim, len(x.sizes))
    ends = [*indices, None]
    return [slice_(ctx, x, dim, start, end) for start, end in zip([0, *indices], ends, strict=True)]


def _split_dim(name: str, rank: int) -> int:
    """hsplit, vsplit, dsplit: which dim."""
    if name == "hsplit":
        return 0 if rank == 1 else 1
    return 0 if name == "vsplit" else 2


def _axis_split(name: str) -> None:
    packet = getattr(aten, name)

    @rule(packet.int)
    def by_sections(ctx: RuleContext, x: FakeTensor, sections: int) -> list[FakeTensor]:
        return tensor_split_sections(ctx, x, sections, _split_dim(name, len(x.sizes)))

    @rule(packet.array)
    def by_indices(ctx: RuleContext, x: FakeTensor, indices: list[int]) -> list[FakeTensor]:
        return tensor_split_indices(ctx, x, indices, _split_dim(name, len(x.sizes)))


for _name in ("hsplit", "vsplit", "dsplit"):
    _axis_split(_name)


@rule(aten.unbind.int)
def unbind(ctx: RuleContext, x: FakeTensor, dim: int = 0) -> list[FakeTensor]:
    dim = wrap_dim(dim, len(x.sizes))
    count = as_int(ctx, x.sizes[dim])
    sizes = x.sizes[:dim] + x.sizes[dim + 1 :]
    strides = x.strides[:dim] + x.strides[dim + 1 :]
    return [
        ctx.view(x, sizes, strides, x.offset + i * x.strides[dim] if i else x.offset)
        for i in range(count)
    ]
