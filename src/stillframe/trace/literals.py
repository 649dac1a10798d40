"""Tensors made of numbers that are not known: ``torch.tensor(n)``, ``x.new_tensor([n, 2])``.

torch reads the numbers into memory, which would fix them. ``scalar_tensor`` makes the same tensor
of one number by an operator, which takes symbols; lists of numbers are stacked.
"""

from __future__ import annotations

from typing import Any

import torch

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_KNOWN_OPTIONS = frozenset(("dtype", "device"))

MAKERS = frozenset((torch.tensor, torch.as_tensor, torch.Tensor.new_tensor))


def of_symbols(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What ``func`` (one of :data:`MAKERS`) makes of data with symbolic numbers.

    None if all numbers are known, or with something beside numbers or an option that operators
    do not have: torch's function then does its work, and fixes what it reads.
    """
    operands = dict(enumerate(args)) | kwargs
    like = operands.pop(0) if func is torch.Tensor.new_tensor else None
    data = operands.pop(0 if like is None else 1, None)
    if data is None:
        data = operands.pop("data", None)
    numbers = _numbers(data)
    if numbers is None or not any(isinstance(n, _SYMBOLIC) for n in numbers):
        return None
    if not operands.keys() <= _KNOWN_OPTIONS:
        return None
    dtype = operands.get("dtype") or (_dtype_of(numbers) if like is None else like.dtype)
    device = operands.get("device") or (None if like is None else like.device)
    return _build(data, dtype, device)


def _numbers(data: Any) -> list[Any] | None:
    """All numbers in nested lists, or None if there is anything else."""
    if isinstance(data, (int, float, *_SYMBOLIC)):
        return [data]
    if not isinstance(data, (list, tuple)):
        return None
    found: list[Any] = []
    for part in data:
        numbers = _numbers(part)
        if not numbers:
            return None
        found += numbers
    return found


def _dtype_of(numbers: list[Any]) -> torch.dtype:
    if any(isinstance(n, (float, torch.SymFloat)) for n in numbers):
        return torch.get_default_dtype()
    if all(isinstance(n, (bool, torch.SymBool)) for n in numbers):
        return torch.bool
    return torch.int64


def _build(data: Any, dtype: torch.dtype, device: Any) -> torch.Tensor:
    if isinstance(data, (list, tuple)):
        return torch.stack([_build(part, dtype, device) for part in data])
    return torch.scalar_tensor(data, dtype=dtype, device=device)
