"""Dim arguments and memory formats, as operators read them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.rules.elementwise import Sizes, Strides, contiguous_strides, dense_strides
from stillframe.fake.rules.sizing import order_is_channels_last
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout

_channels_last = lru_cache(4096)(layout.channels_last_strides)


def wrap_dim(dim: int, rank: int) -> int:
    """A dim counted from the front.

    Raises:
        IndexError: as eager, out of range.
    """
    low = rank or 1
    if not -low <= dim < low:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-low}, {low - 1}], "
            f"but got {dim})"
        )
    return dim + low if dim < 0 else dim


def wrap_dims(dims: Any, rank: int, *, empty_is_all: bool = True) -> tuple[int, ...]:
    """Dims counted from the front; None (and an empty list) stand for all of them.

    Raises:
        RuntimeError: a dim appears twice.
        IndexError: a dim is out of range.
    """
    if dims is None or (empty_is_all and not isinstance(dims, int) and not dims):
        return tuple(range(rank))
    if isinstance(dims, int):
        return (wrap_dim(dims, rank),)
    wrapped = [wrap_dim(d, rank) for d in dims]
    if len(set(wrapped)) != len(wrapped):
        raise RuntimeError("dim appears multiple times in the list of dims")
    return tuple(wrapped)


def without_dims(sizes: Sizes, dims: Sequence[int], keepdim: bool) -> Sizes:
    """Sizes after a reduction over ``dims``."""
    if keepdim:
        return tuple([1 if i in dims else size for i, size in enumerate(sizes)])
    return tuple([size for i, size in enumerate(sizes) if i not in dims])


def format_strides(
    ctx: RuleContext, t: FakeTensor, memory_format: torch.memory_format | None
) -> Strides:
    """Strides of a copy of ``t`` in a memory format (None: preserve).

    Raises:
        RuntimeError: the format is for tensors of another rank.
    """
    if memory_format is None or memory_format is torch.preserve_format:
        return dense_strides(ctx, t)
    if memory_format is torch.contiguous_format:
        return contiguous_strides(t.sizes)
    rank = 4 if memory_format is torch.channels_last else 5
    if len(t.sizes) != rank:
        raise RuntimeError(
            f"required rank {rank} tensor to use {str(memory_format).removeprefix('torch.')} format"
        )
    return _channels_last(t.sizes)


def has_format(t: FakeTensor, memory_format: torch.memory_format) -> bool:
    """``t.is_contiguous(memory_format=...)``, by structure."""
    if memory_format is torch.contiguous_format:
        return layout.is_contiguous(t.sizes, t.strides)
    rank = 4 if memory_format is torch.channels_last else 5
    return layout.is_channels_last(t.sizes, t.strides, rank)


def suggested_format(t: FakeTensor) -> torch.memory_format:
    """The format that ATen reads off the strides: NHWC or NDHWC order, else contiguous.

    Only the order of the strides counts, not whether the memory is dense; where sizes of 1 leave
    two readings, contiguous is taken.
    """
    if not order_is_channels_last(t.sizes, t.strides):
        return torch.contiguous_format
    return torch.channels_last if len(t.sizes) == 4 else torch.channels_last_3d


def in_suggested_format(
    ctx: RuleContext,
    x: FakeTensor,
    sizes: Sequence[Any] | None = None,
    dtype: torch.dtype | None = None,
) -> FakeTensor:
    """New memory, of the sizes of ``x`` or others, in the format that ATen reads off ``x``."""
    sizes = x.sizes if sizes is None else sizes
    if len(sizes) in (4, 5) and suggested_format(x) is not torch.contiguous_format:
        return ctx.new(x, sizes, dtype=dtype, strides=ctx.channels_last_strides(tuple(sizes)))
    return ctx.new(x, sizes, dtype=dtype)
