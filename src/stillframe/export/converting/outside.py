"""What was there before a way of a branch began: it may not be changed on the way."""

from __future__ import annotations

import gc
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from stillframe.frames.frame import Frame

#: What is not looked into: it holds the world, or nothing that a program changes.
_CLOSED = (
    ModuleType, type, CodeType, torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, str, int,
    float, bytes,
)  # fmt: skip


def reachable(frame: Frame | None, closed: set[int]) -> set[int]:
    """The ids of all objects that the frame and those that called it can reach.

    Args:
        closed: ids of objects that are not looked into.
    """
    found: set[int] = set()
    pending: list[Any] = []
    while frame is not None:
        pending += [*frame.locals, *frame.stack, *(frame.closure or ()), frame.handled.value]
        frame = frame.back
    while pending:
        value = pending.pop()
        if id(value) in found:
            continue
        found.add(id(value))
        if isinstance(value, Frame):
            pending += [*value.locals, *value.stack]
        elif isinstance(value, FunctionType):
            pending += [value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value)]
        elif isinstance(value, torch.Tensor):
            pending += [v for v in vars(value).values() if type(v) in (list, dict, set)]
        elif isinstance(value, type) and _is_users(value):
            pending += vars(value).values()
        elif not (isinstance(value, _CLOSED) or id(value) in closed or _is_ours(value)):
            pending += gc.get_referents(value)
    return found


def _is_users(cls: type) -> bool:
    root = cls.__module__.partition(".")[0]
    return root not in ("torch", "stillframe") and (
        root == "__main__" or root not in sys.stdlib_module_names
    )


def _is_ours(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "stillframe"
