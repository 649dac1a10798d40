"""Which values a branch cannot be decided on while capturing."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.errors import DataDependentError
from stillframe.fake.tensor import FakeTensor

_NUMBERS = (torch.SymBool, torch.SymInt, torch.SymFloat)


def predicate(value: Any) -> Any:
    """What decides a branch when the program runs: a tensor of dtype bool without dims, or a
    symbolic bool. None where Python can decide now, or where the branch is an error."""
    if isinstance(value, torch.Tensor):
        return _of_tensor(value) if isinstance(value, FakeTensor) else None
    if isinstance(value, _NUMBERS) and _is_open(value):
        return value if isinstance(value, torch.SymBool) else value != 0
    return None


def _of_tensor(value: FakeTensor) -> Any:
    if value.constant is not None or value.symbolic_value is not None:
        return None
    if any(type(size) is not int or size != 1 for size in value.sizes):
        return None
    if value.dtype is not torch.bool:
        value = value != 0  # type: ignore[assignment]
    return value.reshape(()) if value.sizes else value


def _is_open(value: Any) -> bool:
    """Whether only the data can tell; asks as Python would, with a guard if sizes can tell."""
    try:
        bool(value)
    except DataDependentError:
        return True
    return False


def as_boolean(condition: Any) -> Any:
    """A predicate as a Python value."""
    return condition.item() if isinstance(condition, torch.Tensor) else condition


def as_tensor(condition: Any) -> torch.Tensor:
    """A predicate as a tensor."""
    if isinstance(condition, torch.Tensor):
        return condition
    made: torch.Tensor = torch.ops.aten.scalar_tensor.default(condition, dtype=torch.bool)
    return made


def negation(condition: Any) -> Any:
    """The predicate that holds where this one does not."""
    if isinstance(condition, torch.Tensor):
        return condition.logical_not()
    return torch.sym_not(condition)
