"""Operators that put tensors together: cat, stack and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import suggested_format, wrap_dim
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.reshaping import atleast_1d, atleast_2d, atleast_3d
from stillframe.fake.rules.sizing import ceil_div, common_dtype, must, must_match, product, tidy
from stillframe.fake.rules.views import expanded
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import max_, unwrap

aten = torch.ops.aten


def joined(ctx: RuleContext, tensors: Sequence[FakeTensor], dim: int) -> FakeTensor:
    """``cat``. Vectors of size 0 are left out, whatever the rank of the others.

    The result is NHWC if all tensors are, else row-major.
    """
    if not tensors:
        raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
    dtype = common_dtype(ctx, tensors)
    kept = [t for t in tensors if not _is_legacy_empty(t)]
    if not kept:
        return ctx.new(tensors[0], (0,), dtype=dtype)
    first = kept[0]
    rank = len(first.sizes)
    if rank == 0:
        raise RuntimeError("zero-dimensional tensor (at position 0) cannot be concatenated")
    dim = wrap_dim(dim, rank)
    sizes = list(first.sizes)
    total: Any = sizes[dim]
    for t in kept[1:]:
        _match(ctx, sizes, t, dim)
        total = total + t.sizes[dim]
    sizes[dim] = total if type(total) is int else tidy(ctx, total)
    if rank in (4, 5):
        formats = {suggested_format(t) for t in tensors}
        if len(formats) == 1 and torch.contiguous_format not in formats:
            return ctx.new(first, sizes, dtype=dtype, strides=ctx.channels_last_strides(sizes))
    return contiguous(ctx, tuple(sizes), dtype, first.device)


def _is_legacy_empty(t: FakeTensor) -> bool:
    return len(t.sizes) == 1 and type(t.sizes[0]) is int and t.sizes[0] == 0


def _match(ctx: RuleContext, sizes: list[Size], t: FakeTensor, dim: int) -> None:
    """All sizes but that of ``dim`` are equal; ``sizes`` takes the simpler ones."""
    if len(t.sizes) != len(sizes):
        raise RuntimeError(
            f"Tensors must have same number of dimensions: got {len(sizes)} and {len(t.sizes)}"
        )
    for d, size in enumerate(t.sizes):
        if d != dim and size != sizes[d]:
            sizes[d] = ctx.require_same(
                sizes[d],
                size,
                f"Sizes of tensors must match except in dimension {dim}. Expected size {sizes[d]} "
                f"but got size {size}",
            )


@rule(aten.cat.default, aten.concat.default, aten.concatenate.default)
def cat(ctx: RuleContext, tensors: list[FakeTensor], dim: int = 0) -> FakeTensor:
    return joined(ctx, tensors, dim)


@rule(aten._chunk_cat.default)
def chunk_cat(ctx: RuleContext, tensors: list[FakeTensor], dim: int, num_chunks: int) -> FakeTensor:
    """Each tensor is cut in ``num_chunks`` flat pieces (padded); the pieces are joined."""
    if not tensors or num_chunks < 1:
        raise RuntimeError("_chunk_cat expects tensors and a positive number of chunks")
    if dim < 0 and len({len(t.sizes) for t in tensors}) > 1:
        raise RuntimeError("_chunk_cat expects non-negative dim when tensors differ in rank")
    first, columns = tensors[0], 0
    for t in tensors:
        d = wrap_dim(dim, len(t.sizes))
        if d >= len(first.sizes) or t.dtype is not first.dtype:
            raise RuntimeError("_chunk_cat expects tensors of one dtype that have the dim")
        must_match(
            ctx, t.sizes[:d], first.sizes[:d], "_chunk_cat expects equal sizes before the dim"
        )
        must(ctx, ctx.numel(t.sizes) > 0, "_chunk_cat expects non-empty tensors")
        columns += ceil_div(t.sizes[d], num_chunks) * product(t.sizes[d + 1 :])
    lead = first.sizes[: wrap_dim(dim, len(first.sizes))]
    return contiguous(ctx, (*lead, num_chunks, tidy(ctx, columns)), first.dtype, first.device)


@rule(aten.stack.default)
def stack(ctx: RuleContext, tensors: list[FakeTensor], dim: int = 0) -> FakeTensor:
    """A new dim over tensors of equal sizes: ``cat``, whose joined dim is then split."""
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    sizes = list(tensors[0].sizes)
    for t in tensors[1:]:
        if tuple(sizes) == t.sizes:
            continue
        text = f"stack expects each tensor to be equal size, but got {sizes} and {list(t.sizes)}"
        if len(sizes) != len(t.sizes):
            raise RuntimeError(text)
        sizes = [ctx.require_same(a, b, text) for a, b in zip(sizes, t.sizes, strict=True)]
    rank, dim = len(sizes), wrap_dim(dim, len(sizes) + 1)
    dtype = common_dtype(ctx, tensors)
    strides: tuple[Size, ...] | None = None
    if rank == 4 and dim < rank and all(map(ctx.is_channels_last, tensors)):
        joined_sizes = [*sizes[:dim], unwrap(sizes[dim] * len(tensors)), *sizes[dim + 1 :]]
        outer = ctx.channels_last_strides(joined_sizes)
        strides = (*outer[:dim], unwrap(outer[dim] * sizes[dim]), *outer[dim:])
    sizes.insert(dim, len(tensors))
    return ctx.new(tensors[0], sizes, dtype=dtype, strides=strides)


@rule(aten.hstack.default)
def hstack(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    parts = [atleast_1d(ctx, t) for t in tensors]
    return joined(ctx, parts, 0 if len(parts[0].sizes) == 1 else 1)


@rule(aten.vstack.default, aten.row_stack.default)
def vstack(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    return joined(ctx, [atleast_2d(ctx, t) for t in tensors], 0)


@rule(aten.dstack.default)
def dstack(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    return joined(ctx, [atleast_3d(ctx, t) for t in tensors], 2)


@rule(aten.column_stack.default)
def column_stack(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    """Vectors and numbers are columns."""
    parts = [
        ctx.view(t, (ctx.numel(t.sizes), 1), ((*t.strides, 1)[0], 1), t.offset)
        if len(t.sizes) <= 1
        else t
        for t in tensors
    ]
    return joined(ctx, parts, 1)


@rule(aten.block_diag.default)
def block_diag(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    parts = [atleast_2d(ctx, t) for t in tensors]
    rows: Any = 0
    columns: Any = 0
    for t in parts:
        rows, columns = rows + t.sizes[0], columns + t.sizes[1]
    first = tensors[0]
    sizes = (unwrap(rows), unwrap(columns))
    return contiguous(ctx, sizes, common_dtype(ctx, tensors), first.device)


# -- grids of several vectors ----------------------------------------------------------------------


def _grid(ctx: RuleContext, tensors: list[FakeTensor], swap: bool) -> list[FakeTensor]:
    """Each vector expanded over the product of all; ``swap`` exchanges the first two dims."""
    axes = list(range(len(tensors)))
    if swap and len(axes) >= 2:
        axes[0], axes[1] = 1, 0
    sizes: list[Size] = [1] * len(axes)
    for t, axis in zip(tensors, axes, strict=True):
        sizes[axis] = t.sizes[0] if t.sizes else 1
    made = []
    for t, axis in zip(tensors, axes, strict=True):
        own: list[Size] = [1] * len(axes)
        own[axis] = sizes[axis]
        step = t.strides[0] if t.sizes else 1
        inner = [unwrap(sizes[axis] * step)] * axis + [step] + [1] * (len(axes) - axis - 1)
        base = ctx.view(t, own, inner, t.offset)
        made.append(expanded(ctx, base, sizes))
    return made


@rule(aten.meshgrid.default)
def meshgrid(ctx: RuleContext, tensors: list[FakeTensor]) -> list[FakeTensor]:
    return _grid(ctx, tensors, False)


@rule(aten.meshgrid.indexing)
def meshgrid_indexing(
    ctx: RuleContext, tensors: list[FakeTensor], *, indexing: str
) -> list[FakeTensor]:
    if indexing not in ("ij", "xy"):
        raise RuntimeError(
            f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}'
        )
    return _grid(ctx, tensors, indexing == "xy")


@rule(aten.cartesian_prod.default)
def cartesian_prod(ctx: RuleContext, tensors: list[FakeTensor]) -> FakeTensor:
    if len(tensors) == 1:
        return tensors[0]
    count: Any = 1
    for t in tensors:
        count = count * t.sizes[0]
    dtype = common_dtype(ctx, tensors)
    return contiguous(ctx, (unwrap(count), len(tensors)), dtype, tensors[0].device)


@rule(aten.combinations.default)
def combinations(
    ctx: RuleContext, x: FakeTensor, r: int = 2, with_replacement: bool = False
) -> FakeTensor:
    """How many there are follows from the size, also where a mask selects them."""
    size = x.sizes[0]
    if r == 0:
        return ctx.new(x, (0,))
    count: Any = 1
    for i in range(r):  # the partial products are binomial coefficients: the divisions are exact
        count = count * (size + i if with_replacement else size - i) // (i + 1)
    return contiguous(ctx, (tidy(ctx, count), r), x.dtype, x.device)


@rule(aten.pad_sequence.default)
def pad_sequence(
    ctx: RuleContext,
    sequences: list[FakeTensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> FakeTensor:
    """Sequences side by side, as long as the longest: which that is is not asked."""
    if not sequences:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, got {padding_side}.")
    first = sequences[0]
    if any(len(s.sizes) != len(first.sizes) or not s.sizes for s in sequences):
        raise ctx.unsupported("pad_sequence of tensors of different ranks")
    rest = list(first.sizes[1:])
    longest: Any = first.sizes[0]
    for s in sequences[1:]:
        longest = max_(longest, s.sizes[0])
        for d, size in enumerate(s.sizes[1:]):
            if 1 in (size, rest[d]) and size is not rest[d]:
                raise ctx.unsupported("pad_sequence that broadcasts a trailing size of 1")
            rest[d] = ctx.require_same(rest[d], size, "pad_sequence: trailing sizes differ")
    length = longest if type(longest) is int else tidy(ctx, longest)
    lead = (len(sequences), length) if batch_first else (length, len(sequences))
    return contiguous(ctx, (*lead, *rest), first.dtype, first.device)
