"""The error for control flow on data that no operator can stand for."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.errors import ConversionError
from stillframe.frames import places
from stillframe.frames.frame import NULL, Frame


def refusal(
    frame: Frame | None, rule: str, what: str, *, why: str = "", hint: str = ""
) -> ConversionError:
    """The error for one rule that does not hold, with the line of ``frame`` and a caret."""
    return ConversionError(
        what,
        rule=rule,
        why=why,
        where=places.describe(frame),
        hints=[hint] if hint else [],
    )


def shown(value: Any) -> str:
    """A value as an error shows it."""
    if value is NULL:
        return "not assigned"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype}, sizes {tuple(value.shape)}, on {value.device}"
    if isinstance(value, (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)):
        return f"{kind(value)} {value}"
    text = repr(value) if isinstance(value, (str, bytes, type(None), tuple, list, dict)) else ""
    return text if 0 < len(text) < 80 else f"a {type(value).__name__}"


def kind(value: Any) -> str:
    """``"tensor"``, the Python type of a number, or ``"constant"``."""
    for name, types in _KINDS.items():
        if isinstance(value, types):
            return name
    return "constant"


#: In this order: a bool is an int, too.
_KINDS: dict[str, tuple[type, ...]] = {
    "tensor": (torch.Tensor,),
    "bool": (bool, torch.SymBool),
    "int": (int, torch.SymInt),
    "float": (float, torch.SymFloat),
}
