"""Views that pick, reorder or repeat dims: transpose, expand, select, slice, split and their kin.

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
from stillframe.fake.rules.elementwise import complex_of, elementwise, real_of
from stillframe.fake.rules.sizing import as_int, ceil_div, clamp_index, is_one, plausible, tidy
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, add, eq, ge, ite, le, lt, max_, min_, ne

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
        raise RuntimeError(f"tensor.mT is only supported on matrices or batches of matrices. Got {rank}-D tensor.")
    return swapped(ctx, x, rank - 2, rank - 1)


@rule(aten.numpy_T.default)
def numpy_t(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return permuted(ctx, x, range(len(x.sizes) - 1, -1, -1))


@rule(
    aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist
)
def movedim(ctx: RuleContext, x: FakeTensor, source: Any, destination: Any) -> FakeTensor:
    rank = len(x.sizes)
    src = wrap_dims(source, rank, empty_is_all=False)
    dst = wrap_dims(destination, rank, empty_is_all=False)
    if len(src) != len(dst):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({list(src)} dims) should contain "
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
def expand(ctx: RuleContext, x: FakeTensor, size: Sequence[Size], *, implicit: bool = False) -> FakeTensor:
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
            f"expand({_listed(x.sizes)}, size={_listed(target)}): the number of sizes provided "
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
        keeps = own is want or (type(want) is int and want == -1)
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
        f"non-singleton dimension {dim}.  Target sizes: {_listed(target)}.  Tensor sizes: "
        f"{_listed(sizes)}"
    )
    if type(own) is not int and ctx.known(eq(own, want)) is None and ctx.env.hint_of(own) == 1:
        if (want if type(want) is int else ctx.env.hint_of(want)) != 1:
            ctx.require(eq(own, 1), text)
            return False
    ctx.require_same(own, want, text)
    return True


def _listed(sizes: Sequence[Size]) -> str:
    return "[" + ", ".join(map(str, sizes)) + "]"


# -- one index, a range of indices -------------------------------------------------------------------


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
                f"select(): index {index} out of range for tensor of size {_listed(x.sizes)} at "
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
        length = max_(last - first, 0) if not (type(first) is int and type(last) is int) else max(last - first, 0)
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
            at = ite(negative, max_(add(index, size), 0), min_(index, size))
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
    fits = start + length <= size if type(start + length) is int and type(size) is int else le(start + length, size)
    if not plausible(ctx, fits):
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({size}).")
    return piece(ctx, x, dim, start, length)


# -- several pieces ------------------------------------------------------------------------------


@rule(aten.split.Tensor)
def split(ctx: RuleContext, x: FakeTensor, split_size: Any, dim: int = 0) -> list[FakeTensor]:
    """Pieces of ``split_size``; the last one is what remains."""
    dim = wrap_dim(dim, len(x.sizes))
    size = x.sizes[dim]
    if type(split_size) is int and split_size == 0:
        ctx.require(eq(size, 0) if isinstance(size, Expr) else size == 0, f"split_size can only be 0 if dimension size is 0, but got dimension size of {size}")
        return [piece(ctx, x, dim, 0, size)]
    count = max(as_int(ctx, tidy(ctx, ceil_div(size, split_size))), 1)
    return _pieces(ctx, x, dim, split_size, count)


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
    if exact is size or exact == size:  # evenly; holds for a size of 0 as well
        return [piece(ctx, x, dim, i * step, step) for i in range(chunks)]
    if chunks == 2 and ctx.guard(ge(size, 2)):
        return _pieces(ctx, x, dim, step, 2)
    count = as_int(ctx, tidy(ctx, ceil_div(size, step)))
    return _pieces(ctx, x, dim, step, max(count, 1))


@rule(aten.split_with_sizes.default, aten.split.sizes)
def split_with_sizes(
    ctx: RuleContext, x: FakeTensor, split_sizes: list[Size], dim: int = 0
) -> list[FakeTensor]:
    dim = wrap_dim(dim, len(x.sizes))
    made, start = [], 0
    for size in split_sizes:
        if type(size) is int and size < 0:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes have only non-negative entries, but got "
                f"split_sizes={_listed(split_sizes)}"
            )
        made.append(piece(ctx, x, dim, start, size))
        start = start + size
    total = x.sizes[dim]
    ctx.require(
        start == total if type(start) is int and type(total) is int else eq(start, total),
        f"split_with_sizes expects split_sizes to sum exactly to {total} (input tensor's size at "
        f"dimension {dim}), but got split_sizes={_listed(split_sizes)}",
    )
    return made


@rule(aten.unsafe_split.Tensor)
def unsafe_split(ctx: RuleContext, x: FakeTensor, split_size: Any, dim: int = 0) -> list[FakeTensor]:
    return split(ctx, x, split_size, dim)


@rule(aten.unsafe_split_with_sizes.default)
def unsafe_split_with_sizes(
    ctx: RuleContext, x: FakeTensor, split_sizes: list[Size], dim: int = 0
) -> list[FakeTensor]:
    return split_with_sizes(ctx, x, split_sizes, dim)


@rule(aten.tensor_split.sections)
def tensor_split_sections(ctx: RuleContext, x: FakeTensor, sections: Any, dim: int = 0) -> list[FakeTensor]:
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
def tensor_split_indices(ctx: RuleContext, x: FakeTensor, indices: list[Any], dim: int = 0) -> list[FakeTensor]:
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


@rule(aten.diff.default)
def diff(
    ctx: RuleContext,
    x: FakeTensor,
    n: int = 1,
    dim: int = -1,
    prepend: FakeTensor | None = None,
    append: FakeTensor | None = None,
) -> FakeTensor:
    """``n`` times the difference (for bools: the xor) of the slices without first and last."""
    d = wrap_dim(dim, len(x.sizes))
    ends = [t for t in (prepend, append) if t is not None]
    if ends:
        total: Any = x.sizes[d]
        for t in ends:
            total = total + t.sizes[d]
        x = ctx.new(x, (*x.sizes[:d], total, *x.sizes[d + 1 :]), dtype=ctx.promote(x, *ends))
    if n == 0:
        return ctx.new_like(x)
    for _ in range(n):
        part = slice_(ctx, x, d, 1, None)
        x = elementwise(ctx, (part, part), part.dtype)
    return x


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


# -- diagonals, windows, raw strides -------------------------------------------------------------


@rule(aten.diagonal.default)
def diagonal(
    ctx: RuleContext, x: FakeTensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> FakeTensor:
    """The elements ``x[..., i, i + offset, ...]`` as a new last dim."""
    rank = len(x.sizes)
    d1, d2 = wrap_dim(dim1, rank), wrap_dim(dim2, rank)
    if d1 == d2:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    rows, columns = x.sizes[d1], x.sizes[d2]
    start = x.offset
    if offset > 0:
        columns, start = columns - offset, start + offset * x.strides[d2]
    elif offset < 0:
        rows, start = rows + offset, start - offset * x.strides[d1]
    length = tidy(ctx, rows if rows is columns else max_(min_(rows, columns), 0))
    if type(length) is int and length == 0:
        start = x.offset
    rest = [d for d in range(rank) if d not in (d1, d2)]
    return ctx.view(
        x,
        (*[x.sizes[d] for d in rest], length),
        (*[x.strides[d] for d in rest], x.strides[d1] + x.strides[d2]),
        start,
    )


@rule(aten.linalg_diagonal.default)
def linalg_diagonal(
    ctx: RuleContext, x: FakeTensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1
) -> FakeTensor:
    return diagonal(ctx, x, offset, dim1, dim2)


@rule(aten.unfold.default)
def unfold(ctx: RuleContext, x: FakeTensor, dimension: int, size: Any, step: Any) -> FakeTensor:
    """Windows of ``size`` every ``step`` elements, as a new last dim."""
    rank = len(x.sizes)
    if rank == 0:
        return ctx.view(x, (size,), (1,), x.offset)
    dim = wrap_dim(dimension, rank)
    length = x.sizes[dim]
    fits = size <= length if type(size) is int and type(length) is int else le(size, length)
    if not plausible(ctx, fits):
        raise RuntimeError(f"maximum size for tensor at dimension {dim} is {length} but size is {size}")
    count = tidy(ctx, (length - size) // step + 1)
    return ctx.view(
        x,
        (*x.sizes[:dim], count, *x.sizes[dim + 1 :], size),
        (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim]),
        x.offset,
    )


@rule(aten.as_strided.default)
def as_strided(
    ctx: RuleContext, x: FakeTensor, size: Sequence[Size], stride: Sequence[Size], storage_offset: Any = None
) -> FakeTensor:
    return ctx.view(x, size, stride, x.offset if storage_offset is None else storage_offset)


# -- other dtypes over the same memory -----------------------------------------------------------


def _times(sizes: Sequence[Size], factor: int) -> list[Any]:
    return [s * factor for s in sizes]


@rule(aten.view_as_real.default)
def view_as_real(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.dtype.is_complex:
        raise RuntimeError("view_as_real is only supported for complex tensors")
    return ctx.view(
        x, (*x.sizes, 2), (*_times(x.strides, 2), 1), x.offset * 2, dtype=real_of(x.dtype)
    )


@rule(aten.view_as_complex.default)
def view_as_complex(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.sizes:
        raise RuntimeError("Input tensor must have one or more dimensions")
    ctx.require_same(x.sizes[-1], 2, "Tensor must have a last dimension of size 2")
    if not is_one(x.strides[-1]):
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    strides = [tidy(ctx, s // 2) for s in x.strides[:-1]]
    offset = tidy(ctx, x.offset // 2)
    return ctx.view(x, x.sizes[:-1], strides, offset, dtype=complex_of(x.dtype))


@rule(aten.real.default)
def real(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The real part; a real tensor is its own."""
    if not x.dtype.is_complex:
        return x
    return ctx.view(x, x.sizes, _times(x.strides, 2), x.offset * 2, dtype=real_of(x.dtype))


@rule(aten.imag.default)
def imag(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    if not x.dtype.is_complex:
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return ctx.view(x, x.sizes, _times(x.strides, 2), x.offset * 2 + 1, dtype=real_of(x.dtype))


@rule(aten.view.dtype)
def view_dtype(ctx: RuleContext, x: FakeTensor, dtype: torch.dtype) -> FakeTensor:
    """The same bytes read as another dtype; the last dim grows or shrinks."""
    old, new = x.dtype.itemsize, dtype.itemsize
    if old == new:
        return ctx.view(x, x.sizes, x.strides, x.offset, dtype=dtype)
    if not x.sizes:
        raise RuntimeError("self.dim() cannot be 0 to view as a different element size")
    if x.strides[-1] != 1:
        raise RuntimeError("self.stride(-1) must be 1 to view as a different element size")
    if old > new:
        k = old // new
        strides = (*_times(x.strides[:-1], k), 1)
        return ctx.view(
            x, (*x.sizes[:-1], x.sizes[-1] * k), strides, x.offset * k, dtype=dtype
        )
    k = new // old
    for size in (x.sizes[-1], *x.strides[:-1], x.offset):
        ctx.require(
            size % k == 0 if type(size) is int else eq(size % k, 0),
            f"self.size(-1) must be divisible by {k} to view as a different element size",
        )
    return ctx.view(
        x,
        (*x.sizes[:-1], tidy(ctx, x.sizes[-1] // k)),
        (*[tidy(ctx, s // k) for s in x.strides[:-1]], 1),
        tidy(ctx, x.offset // k),
        dtype=dtype,
    )


# -- changes of the tensor's own metadata ----------------------------------------------------------


@rule(
    aten.squeeze_.default,
    aten.squeeze_.dim,
    aten.squeeze_.dims,
    aten.unsqueeze_.default,
    aten.transpose_.default,
    aten.t_.default,
    aten.swapaxes_.default,
    aten.swapdims_.default,
    aten.as_strided_.default,
    aten.resize_.default,
    aten.resize_as_.default,
    aten.set_.source_Tensor,
    aten.set_.source_Storage,
    aten.set_.default,
)
def metadata_in_place(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """A recorded tensor keeps its sizes: refused."""
    raise ctx.unsupported(
        "An operator that changes the sizes or strides of a tensor in place (squeeze_, unsqueeze_, "
        "transpose_, t_, swapaxes_, resize_, set_, as_strided_) cannot be captured; use the form "
        "that returns a view."
    )
