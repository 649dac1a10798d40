"""Indexing by a number that is not known: ``x[n - 1]``, ``x[:, k.item()]``, ``x[k]``.

torch's indexing wants the number of such an index and would fix it. It also does with an integer
what ``select`` does, and dim by dim before anything else, so the selects are made here, by the
operator, which takes symbols; the rest of the index is left to torch.
"""

from __future__ import annotations

from typing import Any

import torch

GETITEM: Any = torch.Tensor.__getitem__
SETITEM: Any = torch.Tensor.__setitem__


def select_first(tensor: torch.Tensor, index: Any) -> tuple[torch.Tensor, Any]:
    """``(view, rest)`` such that ``tensor[index]`` is ``view[rest]``, without unknown numbers.

    ``rest`` is ``...`` if nothing is left. Without an unknown number, or with a part whose number
    of dims is not plain, the arguments come back as they are.
    """
    parts = index if type(index) is tuple else (index,)
    if not any(map(_is_unknown, parts)):
        return tensor, index
    dims = _dims_taken(parts, tensor.dim())
    if dims is None or sum(dims) > tensor.dim():
        return tensor, index
    view, dim = tensor, 0
    rest: list[Any] = []
    for part, taken in zip(parts, dims, strict=True):
        if _is_unknown(part):
            at: Any = part.item() if isinstance(part, torch.Tensor) else part
            view = view.select(dim, at)
        else:
            rest.append(part)
            dim += taken
    return view, tuple(rest) if rest else ...


def _is_unknown(part: Any) -> bool:
    """An integer that torch would have to know: a SymInt, or an integer tensor without dims."""
    if isinstance(part, torch.SymInt):
        return True
    return isinstance(part, torch.Tensor) and part.dim() == 0 and _is_integer(part.dtype)


def _is_integer(dtype: torch.dtype) -> bool:
    masks = (torch.bool, torch.uint8)
    return not (dtype.is_floating_point or dtype.is_complex or dtype in masks)


def _dims_taken(parts: tuple[Any, ...], rank: int) -> list[int] | None:
    """How many dims of the tensor each part of an index stands for; None if that is not plain."""
    counts: list[int] = []
    for part in parts:
        taken = _dims_of(part)
        if taken is None:
            return None
        counts.append(taken)
    for i, part in enumerate(parts):
        if part is ...:
            counts[i] = max(rank - sum(counts), 0)
    return counts


def _dims_of(part: Any) -> int | None:
    if part is None or part is ... or isinstance(part, (bool, torch.SymBool)):
        return 0
    if isinstance(part, (int, slice, torch.SymInt)):
        return 1
    if isinstance(part, torch.Tensor):
        return part.dim() if part.dtype in (torch.bool, torch.uint8) else 1
    if isinstance(part, (list, range)) and all(isinstance(p, int) for p in part):
        return 1
    return None
