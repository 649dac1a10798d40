"""view, reshape, flatten, unflatten, squeeze: the same elements under other sizes.

The size that -1 stands for and the strides of a view are found on structure: equal factors cancel,
and dims merge where one stride is the product of the next stride and size. Cancelling needs no
guard: where the product of the other sizes is 0, the operator itself refuses -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import wrap_dim, wrap_dims
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.sizing import Sizes, is_one, product, tidy
from stillframe.fake.rules.views import listed
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, eq, ne, unwrap

aten = torch.ops.aten


# -- sizes ---------------------------------------------------------------------------------------


def _split_factors(sizes: Sequence[Size]) -> tuple[int, list[Expr]]:
    """A product as its integer factor and its symbolic ones."""
    number, symbolic = 1, []
    for size in sizes:
        if not isinstance(size, Expr):
            number *= size
        elif size.op == "mul":
            for arg in size.args:
                if arg.is_constant:
                    number *= arg.value
                else:
                    symbolic.append(arg)
        else:
            symbolic.append(size)
    return number, symbolic


def _cancel(left: list[Expr], right: list[Expr]) -> None:
    """Remove common factors from both lists."""
    for factor in list(right):
        for i, other in enumerate(left):
            if other is factor:
                del left[i]
                right.remove(factor)
                break


def infer_sizes(ctx: RuleContext, sizes: Sizes, wanted: Sequence[Size]) -> Sizes:
    """``wanted`` with its -1 replaced, checked to hold as many elements as ``sizes``.

    Raises:
        RuntimeError: as eager: the numbers of elements differ.
    """
    hole = None
    for i, size in enumerate(wanted):
        if type(size) is int and size < 0:
            if size != -1:
                raise RuntimeError(
                    f"invalid shape dimension {size} at index {i} of shape {listed(wanted)}"
                )
            if hole is not None:
                raise RuntimeError("only one dimension can be inferred")
            hole = i
    plain = tuple(wanted)
    if plain == sizes:
        return plain
    rest = plain if hole is None else plain[:hole] + plain[hole + 1 :]
    have, have_symbolic = _split_factors(sizes)
    need, need_symbolic = _split_factors(rest)
    _cancel(have_symbolic, need_symbolic)
    if hole is None:
        if have_symbolic or need_symbolic:
            for old, new in _matching(ctx, sizes, plain):
                ctx.require(eq(old, new), _invalid(wanted, sizes))
        elif have != need:
            raise RuntimeError(_invalid(wanted, sizes))
        return plain
    found = _quotient(ctx, have, have_symbolic, need, need_symbolic, _invalid(wanted, sizes))
    return (*plain[:hole], found, *plain[hole + 1 :])


def _matching(ctx: RuleContext, sizes: Sizes, new: Sizes) -> list[tuple[Any, Any]]:
    """Pairs of products that must be equal for the numbers of elements to be.

    That is the two products of all sizes; but where runs of dims of both sides match in the example
    and speak of the same symbols (or one is a number), these runs: ``h`` and ``h // 7 * 7`` for a
    view of ``(h, w)`` as ``(h // 7, 7, w // 7, 7)``, which says the same and can be solved.
    """
    whole = [(product(sizes), product(new))]
    pairs: list[tuple[Any, Any]] = []
    left, right = list(sizes), list(new)
    while left or right:
        a, b = (left or [1]).pop(0), (right or [1]).pop(0)
        while True:
            hints = [ctx.env.hint_of(s) if isinstance(s, Expr) else s for s in (a, b)]
            if None in hints:
                return whole
            if hints[0] == hints[1]:
                break
            side = left if hints[0] < hints[1] else right
            if not side:
                return whole
            size = side.pop(0)
            a, b = (a * size, b) if side is left else (a, b * size)
        if a is b or (type(a) is int and type(b) is int):
            continue
        symbols = [s.free_symbols if isinstance(s, Expr) else frozenset() for s in (a, b)]
        if symbols[0] and symbols[1] and not symbols[0] & symbols[1]:
            return whole
        pairs.append((a, b))
    return pairs or whole


def _quotient(
    ctx: RuleContext, have: int, left: list[Expr], need: int, right: list[Expr], message: str
) -> Size:
    if not right:
        if need == 0:
            raise RuntimeError(
                "cannot reshape tensor of 0 elements: the unspecified dimension size -1 can be any "
                f"value and is ambiguous. {message}"
            )
        if have % need == 0:
            return tidy(ctx, product([have // need, *left]))
        if not left:
            raise RuntimeError(message)
    total, divisor = product([have, *left]), product([need, *right])
    remainder = tidy(ctx, total % divisor)
    if type(remainder) is not int:
        ctx.require(eq(remainder, 0), message)
    elif remainder != 0:
        raise RuntimeError(message)
    return tidy(ctx, total // divisor)


def _invalid(wanted: Sequence[Size], sizes: Sizes) -> str:
    return f"shape '{listed(wanted)}' is invalid for input of size {layout.numel(sizes)}"


# -- strides -------------------------------------------------------------------------------------


def view_strides(
    ctx: RuleContext, sizes: Sizes, strides: Sizes, new: Sizes
) -> tuple[Size, ...] | None:
    """Strides over the same memory for sizes ``new`` of equal product; None if there are none.

    Old dims merge to blocks of evenly spaced elements; each block must be the product of
    consecutive new dims.
    """
    if layout.is_contiguous(sizes, strides):
        return layout.contiguous_strides(new)
    if new == sizes:
        return strides
    out: list[Size] = [1] * len(new)
    at = len(new) - 1
    block: Size = 1
    base = strides[-1]
    for d in range(len(sizes) - 1, -1, -1):
        block = unwrap(block * sizes[d])
        if d > 0 and (is_one(sizes[d - 1]) or _equal(ctx, strides[d - 1], unwrap(block * base))):
            continue
        filled: Size = 1
        while at >= 0 and (is_one(new[at]) or _short(ctx, filled, block)):
            out[at] = unwrap(filled * base)
            filled = unwrap(filled * new[at])
            at -= 1
        if not _equal(ctx, filled, block):
            return None
        if d > 0:
            block, base = 1, strides[d - 1]
    return tuple(out) if at < 0 else None


def _equal(ctx: RuleContext, a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is int and type(b) is int:
        return a == b
    return ctx.known(eq(a, b)) is True


def _short(ctx: RuleContext, filled: Any, block: Any) -> bool:
    """Whether more dims are needed to fill the block; a symbolic product only by being unequal."""
    if type(filled) is int and type(block) is int:
        return filled < block
    return not _equal(ctx, filled, block)


def _example_strides(ctx: RuleContext, sizes: Sizes, strides: Sizes, new: Sizes) -> bool:
    """Whether the example's numbers allow a view."""
    numbers = []
    for group in (sizes, strides, new):
        values = [ctx.env.hint_of(s) if isinstance(s, Expr) else s for s in group]
        if any(v is None for v in values):
            return False
        numbers.append(tuple(values))
    if 0 in numbers[0]:
        return True
    return view_strides(ctx, *numbers) is not None


# -- rules ---------------------------------------------------------------------------------------


@rule(aten.view.default, aten._unsafe_view.default)
def view(ctx: RuleContext, x: FakeTensor, size: Sequence[Size]) -> FakeTensor:
    return _viewed(ctx, x, infer_sizes(ctx, x.sizes, size))


def _viewed(ctx: RuleContext, x: FakeTensor, new: Sizes) -> FakeTensor:
    """``x`` as a view of these sizes, which are known to hold as many elements."""
    strides = view_strides(ctx, x.sizes, x.strides, new)
    if strides is None:
        if not any(isinstance(s, Expr) for s in (*x.sizes, *new)) or not _example_strides(
            ctx, x.sizes, x.strides, new
        ):
            raise RuntimeError(
                "view size is not compatible with input tensor's size and stride (at least one "
                "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
            )
        strides = _guarded_strides(ctx, x, new)
    return ctx.view(x, new, strides, x.offset)


def _guarded_strides(ctx: RuleContext, x: FakeTensor, new: Sizes) -> tuple[Size, ...]:
    """The example allows the view, the structure does not show it: rely on the example's sizes."""
    sizes = tuple(
        1 if isinstance(s, Expr) and ctx.env.hint_of(s) == 1 and ctx.guard(eq(s, 1)) else s
        for s in x.sizes
    )
    strides = view_strides(ctx, sizes, x.strides, new)
    if strides is None:
        raise ctx.unsupported(
            f"A view of sizes {listed(x.sizes)} as {listed(new)}: whether the memory allows it "
            "depends on the sizes. Use reshape."
        )
    return strides


@rule(aten.view_as.default)
def view_as(ctx: RuleContext, x: FakeTensor, other: FakeTensor) -> FakeTensor:
    return view(ctx, x, other.sizes)


@rule(aten.reshape.default)
def reshape(ctx: RuleContext, x: FakeTensor, shape: Sequence[Size]) -> FakeTensor:
    return reshaped(ctx, x, infer_sizes(ctx, x.sizes, shape))


@rule(aten.reshape_as.default)
def reshape_as(ctx: RuleContext, x: FakeTensor, other: FakeTensor) -> FakeTensor:
    return reshaped(ctx, x, infer_sizes(ctx, x.sizes, other.sizes))


def reshaped(ctx: RuleContext, x: FakeTensor, new: Sizes) -> FakeTensor:
    """A view where the strides allow it by structure, else a contiguous copy."""
    strides = view_strides(ctx, x.sizes, x.strides, new)
    if strides is None:
        return contiguous(ctx, tuple(new), x.dtype, x.device)
    return ctx.view(x, new, strides, x.offset)


@rule(aten.flatten.using_ints)
def flatten(ctx: RuleContext, x: FakeTensor, start_dim: int = 0, end_dim: int = -1) -> FakeTensor:
    """``x`` itself where there is nothing to merge."""
    rank = len(x.sizes)
    first, last = wrap_dim(start_dim, rank), wrap_dim(end_dim, rank)
    if first > last:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if rank == 0:
        return ctx.view(x, (1,), (1,), x.offset)
    if first == last:
        return x
    merged = unwrap(product(x.sizes[first : last + 1]))
    return reshaped(ctx, x, (*x.sizes[:first], merged, *x.sizes[last + 1 :]))


@rule(aten.ravel.default)
def ravel(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """``contiguous().view(-1)``."""
    size = unwrap(product(x.sizes))
    if layout.is_contiguous(x.sizes, x.strides):
        return ctx.view(x, (size,), (1,), x.offset)
    return contiguous(ctx, (size,), x.dtype, x.device)


@rule(aten.unflatten.int)
def unflatten(ctx: RuleContext, x: FakeTensor, dim: int, sizes: Sequence[Size]) -> FakeTensor:
    dim = wrap_dim(dim, len(x.sizes))
    inner = infer_sizes(ctx, (x.sizes[dim],), sizes)
    return _viewed(ctx, x, (*x.sizes[:dim], *inner, *x.sizes[dim + 1 :]))


# -- squeeze -------------------------------------------------------------------------------------


def is_single(ctx: RuleContext, size: Size) -> bool:
    """Whether a dim is dropped. The rank depends on it, so a symbolic size must be known."""
    if not isinstance(size, Expr):
        return size == 1
    known = ctx.known(eq(size, 1))
    if known is not None:
        return known
    if ctx.env.is_unbacked(size):
        ctx.require(ne(size, 1), "squeeze of a dim whose size depends on data: it must not be 1")
        return False
    return ctx.guard(eq(size, 1))


def _squeezed(ctx: RuleContext, x: FakeTensor, dims: Sequence[int]) -> FakeTensor:
    keep = [d for d in range(len(x.sizes)) if d not in dims or not is_single(ctx, x.sizes[d])]
    return ctx.view(x, [x.sizes[d] for d in keep], [x.strides[d] for d in keep], x.offset)


@rule(aten.squeeze.default)
def squeeze(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return _squeezed(ctx, x, range(len(x.sizes)))


@rule(aten.squeeze.dim)
def squeeze_dim(ctx: RuleContext, x: FakeTensor, dim: int) -> FakeTensor:
    return _squeezed(ctx, x, (wrap_dim(dim, len(x.sizes)),))


@rule(aten.squeeze.dims)
def squeeze_dims(ctx: RuleContext, x: FakeTensor, dim: list[int]) -> FakeTensor:
    return _squeezed(ctx, x, wrap_dims(dim, len(x.sizes), empty_is_all=False))


@rule(aten.atleast_1d.default)
def atleast_1d(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return x if x.sizes else ctx.view(x, (1,), (1,), x.offset)


@rule(aten.atleast_2d.default)
def atleast_2d(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """A vector becomes a row."""
    if len(x.sizes) >= 2:
        return x
    if not x.sizes:
        return ctx.view(x, (1, 1), (1, 1), x.offset)
    return ctx.view(x, (1, *x.sizes), (x.sizes[0] * x.strides[0], *x.strides), x.offset)


@rule(aten.atleast_3d.default)
def atleast_3d(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """A vector becomes ``(1, n, 1)``, a matrix ``(m, n, 1)``."""
    if len(x.sizes) >= 3:
        return x
    if len(x.sizes) == 2:
        return ctx.view(x, (*x.sizes, 1), (*x.strides, 1), x.offset)
    flat = atleast_2d(ctx, x)
    return ctx.view(x, (*flat.sizes, 1), (*flat.strides, 1), x.offset)


def _of_each(overload: Any, one: Callable[[RuleContext, FakeTensor], FakeTensor]) -> None:
    @rule(overload)
    def of_each(ctx: RuleContext, tensors: list[FakeTensor]) -> list[FakeTensor]:
        """The same for each tensor of a list."""
        return [one(ctx, t) for t in tensors]


_of_each(aten.atleast_1d.Sequence, atleast_1d)
_of_each(aten.atleast_2d.Sequence, atleast_2d)
_of_each(aten.atleast_3d.Sequence, atleast_3d)


@rule(aten.sum_to_size.default)
def sum_to_size(ctx: RuleContext, x: FakeTensor, size: Sequence[Size]) -> FakeTensor:
    """The reverse of expand: a sum over the dims that were repeated; ``x`` itself if none."""
    kept = x.sizes[len(x.sizes) - len(size) :]
    text = f"size {{{listed(size)}}} is not expandable to size {{{listed(x.sizes)}}}."
    for own, want in zip(kept, size, strict=True):
        if own != want and not is_one(want):
            ctx.require_same(own, want, text)
    summed = [own for own, want in zip(kept, size, strict=True) if is_one(want) and own != want]
    if size and len(size) == len(x.sizes) and not summed:
        return x
    floating = x.dtype.is_floating_point or x.dtype.is_complex
    return contiguous(ctx, tuple(size), x.dtype if floating else torch.int64, x.device)
