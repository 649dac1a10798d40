"""``torch.einsum``: sizes by the labels, layout by the steps that the operator takes.

All operands are brought to the same dims, those of the output first, then those to sum over. Pairs
are contracted from left to right (or along a path): by an elementwise product if there is nothing
to sum over yet, else by one batched matrix product. That writes row-major memory in the order
"dims of both, dims of the left, dims of the right"; the operands change sides if all dims of the
right come before all dims of the left in the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import Layout, contiguous, fresh, layout_of
from stillframe.fake.rules.sizing import common_dtype, is_one
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import unwrap

aten = torch.ops.aten


@dataclass(frozen=True)
class _Plan:
    """An equation for operands of given ranks.

    Attributes:
        operands: the label of each dim of each operand; dims under an ellipsis are numbers,
            counted so that the last one is the same for all operands.
        order: all labels, those of the output first.
        kept: how many of them the output has.
    """

    operands: tuple[tuple[str | int, ...], ...]
    order: tuple[str | int, ...]
    kept: int


@lru_cache(1024)
def _plan(equation: str, ranks: tuple[int, ...]) -> _Plan:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        few = "fewer" if len(terms) > len(ranks) else "more"
        raise RuntimeError(f"einsum(): {few} operands were provided than specified in the equation")
    covered = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)]
    depth = max([n for t, n in zip(terms, covered, strict=True) if "..." in t], default=0)
    operands = tuple(
        _labels(term, n, depth, i) for i, (term, n) in enumerate(zip(terms, covered, strict=True))
    )
    names = sorted({name for op in operands for name in op if isinstance(name, str)})
    dots = tuple(range(depth))
    if arrow:
        kept = _labels(right, depth if "..." in right else 0, depth, None)
        unknown = [name for name in kept if isinstance(name, str) and name not in names]
        if unknown or len(set(kept)) != len(kept):
            raise RuntimeError(
                f"einsum(): output subscripts {right} do not appear in the equation for any input "
                "operand, or appear more than once"
            )
    else:
        joined = left.replace(",", "")
        kept = (*dots, *[name for name in names if joined.count(name) == 1])
    every: tuple[str | int, ...] = (*dots, *names)
    summed = [d for d in every if d not in kept]
    return _Plan(operands, (*kept, *summed), len(kept))


def _labels(term: str, covered: int, depth: int, operand: int | None) -> tuple[str | int, ...]:
    before, dots, after = term.partition("...")
    if any(not (c.isascii() and c.isalpha()) for c in before + after):
        raise RuntimeError(
            f"einsum(): invalid subscript in '{term}', subscripts must be in [a-zA-Z]"
        )
    if covered < 0 or (covered and not dots):
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({len(before + after)}) does not "
            f"match the number of dimensions for operand {operand}"
        )
    middle = range(depth - covered, depth) if dots else ()
    return (*before, *middle, *after)


def _aligned(ctx: RuleContext, x: FakeTensor, labels: Sequence[str | int], plan: _Plan) -> Layout:
    """Sizes and strides of ``x`` over the dims of the plan.

    Missing dims are 1; of dims with the same label the diagonal is taken, whose stride is the sum.
    """
    sizes: dict[str | int, Size] = {}
    strides: dict[str | int, Size] = {}
    for name, size, stride in zip(labels, x.sizes, x.strides, strict=True):
        if name in sizes:
            text = f"einsum(): subscript {name} is repeated, but the sizes don't match"
            sizes[name] = ctx.require_same(sizes[name], size, text)
            strides[name] = unwrap(strides[name] + stride)
        else:
            sizes[name], strides[name] = size, stride
    return (
        tuple([sizes.get(name, 1) for name in plan.order]),
        tuple([strides.get(name, 1) for name in plan.order]),
    )


def _check_sizes(ctx: RuleContext, operands: Sequence[Layout], plan: _Plan) -> None:
    """Dims of one label are equal, or 1."""
    for dim, name in enumerate(plan.order):
        seen: Size = 1
        for sizes, _ in operands:
            size = sizes[dim]
            if size == seen or is_one(size):
                continue
            if not is_one(seen):
                size = ctx.require_same(
                    seen,
                    size,
                    f"einsum(): subscript {name} has size {size}, which does not broadcast with "
                    f"previously seen size {seen}",
                )
            seen = size


def _summed(operand: Layout, dims: Sequence[int]) -> Layout:
    if not dims:
        return operand
    sizes = tuple(1 if d in dims else size for d, size in enumerate(operand[0]))
    return sizes, layout.contiguous_strides(sizes)


def _product(ctx: RuleContext, a: Layout, b: Layout, sum_dims: Sequence[int]) -> Layout:
    """Contract two operands over ``sum_dims``, which stay as dims of size 1."""
    if not sum_dims:
        sizes = ctx.broadcast(a[0], b[0])
        return sizes, layout_of(ctx, sizes, (a, b))
    both: list[int] = []
    left: list[int] = []
    right: list[int] = []
    for d, (m, n) in enumerate(zip(a[0], b[0], strict=True)):
        if d in sum_dims:
            continue
        if not is_one(m):
            (left if is_one(n) else both).append(d)
        else:
            right.append(d)
    if left and right and right[-1] < left[0]:
        left, right = right, left
    sizes = tuple(
        1 if d in sum_dims else (n if is_one(m) else m)
        for d, (m, n) in enumerate(zip(a[0], b[0], strict=True))
    )
    order = [*both, *left, *sum_dims, *right]
    return sizes, layout.permuted_strides(sizes, order[::-1])


def _single(ctx: RuleContext, x: FakeTensor, operand: Layout, kept: int) -> FakeTensor:
    """One operand: a view if nothing is summed over, else a sum (of integers: int64)."""
    sizes, strides = operand
    if kept == len(sizes):
        return ctx.view(x, sizes, strides, x.offset)
    dtype = x.dtype if x.dtype.is_floating_point or x.dtype.is_complex else torch.int64
    return contiguous(ctx, sizes[:kept], dtype, x.device)


@rule(aten.einsum.default)
def einsum(
    ctx: RuleContext, equation: str, tensors: list[FakeTensor], *, path: Sequence[int] | None = None
) -> FakeTensor:
    plan = _plan(equation, tuple(len(t.sizes) for t in tensors))
    operands = [
        _aligned(ctx, t, labels, plan) for t, labels in zip(tensors, plan.operands, strict=True)
    ]
    _check_sizes(ctx, operands, plan)
    kept, rank = plan.kept, len(plan.order)
    if len(operands) == 1:
        return _single(ctx, tensors[0], operands[0], kept)
    counts = [sum(not is_one(sizes[d]) for sizes, _ in operands) for d in range(rank)]
    steps = iter(path or ())
    while len(operands) > 1:
        i, j = sorted((next(steps), next(steps))) if path is not None else (0, 1)
        b, a = operands.pop(j), operands.pop(i)
        sum_dims: list[int] = []
        alone: tuple[list[int], list[int]] = ([], [])
        for d in range(kept, rank):
            in_a, in_b = not is_one(a[0][d]), not is_one(b[0][d])
            if in_a and in_b:
                counts[d] -= 1
                if counts[d] == 1:
                    sum_dims.append(d)
                    counts[d] = 0
            elif counts[d] == 1 and (in_a or in_b):
                alone[0 if in_a else 1].append(d)
                counts[d] = 0
        made = _product(ctx, _summed(a, alone[0]), _summed(b, alone[1]), sum_dims)
        operands.insert(len(operands) if path is not None else 0, made)
    sizes, strides = operands[0]
    dtype = common_dtype(ctx, tensors)
    return fresh(ctx, sizes[:kept], strides[:kept], dtype, tensors[0].device)
