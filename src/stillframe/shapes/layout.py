"""Memory layout by structure: strides, contiguity and density of sizes that may be symbolic.

Every question here is answered from the form of the expressions alone: equality is identity of
interned expressions, and a symbolic size counts as "neither 0 nor 1". So no answer ever adds a
guard. At a size of 0 or 1 the real tensor may be contiguous where the answer says it is not; the
operators themselves stay in the graph and decide for themselves at run time, so only the recorded
metadata is conservative.
"""

from __future__ import annotations

from collections.abc import Sequence

from stillframe.symbolic import Expr, const, max_, unwrap

Size = int | Expr


def numel(sizes: Sequence[Size]) -> Size:
    """The product of ``sizes`` (1 for no sizes)."""
    total: Size = 1
    for size in sizes:
        total = size if total == 1 and type(total) is int else unwrap(total * size)
    return total


def contiguous_strides(sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Row-major strides. As in ATen, a size of 0 counts as 1 for the strides before it."""
    strides: list[Size] = [1] * len(sizes)
    step: Size = 1
    for i in range(len(sizes) - 1, -1, -1):
        strides[i] = step
        size = sizes[i]
        if type(size) is int:
            if size > 1:
                step = unwrap(step * size)
        else:
            step = unwrap(step * size)
    return tuple(strides)


def permuted_strides(sizes: Sequence[Size], order: Sequence[int]) -> tuple[Size, ...]:
    """Dense strides whose fastest dim is ``order[0]``, then ``order[1]``, and so on."""
    strides: list[Size] = [1] * len(sizes)
    step: Size = 1
    for dim in order:
        strides[dim] = step
        size = sizes[dim]
        if type(size) is not int or size > 1:
            step = unwrap(step * size)
    return tuple(strides)


def channels_last_strides(sizes: Sequence[Size]) -> tuple[Size, ...]:
    """Strides of NHWC (rank 4) or NDHWC (rank 5)."""
    inner = range(len(sizes) - 1, 1, -1)
    return permuted_strides(sizes, (1, *inner, 0))


def is_contiguous(sizes: Sequence[Size], strides: Sequence[Size]) -> bool:
    """Row-major and without gaps."""
    return _follows(sizes, strides, range(len(sizes) - 1, -1, -1))


def is_channels_last(sizes: Sequence[Size], strides: Sequence[Size], rank: int = 4) -> bool:
    """Whether a tensor of that rank is laid out as :func:`channels_last_strides` says."""
    if len(sizes) != rank:
        return False
    return _follows(sizes, strides, (1, *range(rank - 1, 1, -1), 0))


def is_non_overlapping_and_dense(sizes: Sequence[Size], strides: Sequence[Size]) -> bool:
    """Whether the elements fill their memory without gaps, in some order of dims."""
    if is_contiguous(sizes, strides):
        return True
    order = stride_order(sizes, strides)
    return order is not None and _follows(sizes, strides, order)


def _follows(sizes: Sequence[Size], strides: Sequence[Size], order: Sequence[int]) -> bool:
    expected: Size = 1
    if any(type(size) is int and size == 0 for size in sizes):
        return True
    for dim in order:
        size = sizes[dim]
        if type(size) is int and size == 1:
            continue
        stride = strides[dim]
        if stride is not expected and (
            type(stride) is not int or type(expected) is not int or stride != expected
        ):
            return False
        expected = unwrap(expected * size)
    return True


def stride_order(sizes: Sequence[Size], strides: Sequence[Size]) -> tuple[int, ...] | None:
    """Dims from fastest to slowest if the strides form a chain of multiples, else None.

    Works on structure: each next stride must be the previous one times the previous size. Dims
    of size 1 may stand anywhere; they come last.
    """
    left = [d for d, size in enumerate(sizes) if not (type(size) is int and size == 1)]
    ones = [d for d, size in enumerate(sizes) if type(size) is int and size == 1]
    order: list[int] = []
    expected: Size = 1
    while left:
        for dim in reversed(left):
            stride = strides[dim]
            same = stride is expected or (
                type(stride) is int and type(expected) is int and stride == expected
            )
            if same:
                order.append(dim)
                left.remove(dim)
                expected = unwrap(expected * sizes[dim])
                break
        else:
            return None
    return (*order, *reversed(ones))


def storage_size(sizes: Sequence[Size], strides: Sequence[Size], offset: Size) -> Size:
    """Number of elements from the start of the storage to the last element."""
    if any(type(size) is int and size == 0 for size in sizes):
        return 0
    last: Size = offset
    for size, stride in zip(sizes, strides, strict=True):
        last = unwrap(last + unwrap(max_(size, 1) - 1) * stride)
    total: Size = unwrap(const(1) + last)
    return total
