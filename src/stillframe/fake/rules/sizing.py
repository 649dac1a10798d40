"""Small questions about sizes that many rules ask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.rules.elementwise import compare_strides
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, eq, max_, min_, unwrap

Sizes = tuple[Size, ...]

# Slices without an end have the largest 64-bit integer as their end; anything near it means "all".
_UNBOUNDED = 2**62


def tidy(ctx: RuleContext, size: Any) -> Size:
    """``size`` in its simplest form under the facts, as an int where it is a constant."""
    if type(size) is int:
        return size
    simple: Size = unwrap(ctx.env.facts.simplify(size))
    return simple


def plausible(ctx: RuleContext, cond: Expr | bool) -> bool:
    """Whether ``cond`` may hold: known, or true in the example, or up to the data.

    For conditions on which the result does not depend: where they fail, the operator itself raises
    when the program runs. So no guard is recorded, only that the operator may raise: it stays in
    the graph even if nobody uses its result.
    """
    if not isinstance(cond, Expr):
        return bool(cond)
    known = ctx.known(cond)
    if known is not None:
        return known
    ctx.env.may_raise = True
    hint = ctx.env.hint_of(cond)
    return hint is None or bool(hint)


def must(ctx: RuleContext, cond: Expr | bool, message: str) -> None:
    """The operator is legal only where ``cond`` holds; the result does not depend on it.

    Raises:
        RuntimeError: it does not hold, as far as can be told.
    """
    if not plausible(ctx, cond):
        raise RuntimeError(message)


def must_match(ctx: RuleContext, a: Sequence[Size], b: Sequence[Size], message: str) -> None:
    """:func:`must` for shapes that have to be equal."""
    must(ctx, len(a) == len(b), message)
    for one, other in zip(a, b, strict=True):
        if one is not other:
            must(ctx, one == other if type(one) is type(other) is int else eq(one, other), message)


def as_int(ctx: RuleContext, size: Size | Expr) -> int:
    """The value of a size that decides how many results there are; a guard if it is symbolic."""
    return size if type(size) is int else int(ctx.env.specialise(size))  # type: ignore[arg-type]


def clamp_index(index: Any, size: Size) -> Any:
    """A bound of a slice, counted from the front and within ``[0, size]``; None if symbolic."""
    if type(index) is int and type(size) is int:
        return max(index + size, 0) if index < 0 else min(index, size)
    if type(index) is int:
        if index == 0:
            return 0
        if index >= _UNBOUNDED:
            return size
        return max_(size + index, 0) if index < 0 else min_(index, size)
    return None


def is_one(size: Any) -> bool:
    """The plain number 1 (a symbolic size counts as something else)."""
    return type(size) is int and size == 1


def ceil_div(a: Any, b: Any) -> Any:
    """``a / b`` rounded up, for positive ``b``."""
    return a if is_one(b) else (a + b - 1) // b


def common_dtype(ctx: RuleContext, tensors: Sequence[FakeTensor]) -> torch.dtype:
    """The promoted dtype; the usual case of equal ones first."""
    first = tensors[0].dtype
    for t in tensors:
        if t.dtype is not first:
            return ctx.promote(*tensors)
    return first


@lru_cache(4096)
def order_is_channels_last(sizes: Sizes, strides: Sizes) -> bool:
    """Whether ATen reads NHWC or NDHWC off the strides (only their order counts)."""
    rank = len(sizes)
    if rank not in (4, 5) or (type(strides[1]) is int and strides[1] == 0):
        return False
    least: Any = 0
    for dim in (1, *range(rank - 1, 1, -1), 0):
        size, stride = sizes[dim], strides[dim]
        if type(size) is int and size == 0:
            return False
        if compare_strides(stride, least) not in (0, 1):
            return False
        if dim == 0 and compare_strides(least, strides[1]) == 0:
            return False
        least = stride if is_one(size) else unwrap(stride * size)
    return True


def product(sizes: Sequence[Any]) -> Any:
    """The product, as an int or an expression."""
    total: Any = 1
    for size in sizes:
        total = size if is_one(total) else total * size
    return total
