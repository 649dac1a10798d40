"""Whose code it is: the user's is run by the machine, torch's is called."""

from __future__ import annotations

import os
from types import CodeType

import torch

from stillframe import stack, torch_private

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.abspath(stack.__file__)) + os.sep

#: Files of torch whose functions call the user's code, and torch's examples of what users write:
#: run by the machine, like the user's.
_INLINED = tuple(
    os.path.join(_TORCH, *path) for path in (
        ("nn", "modules", "container.py"), ("utils", "_contextlib.py"),
        ("_export", "db", "examples", ""),
    )
)  # fmt: skip

#: torch's own code that calls hooks.
_CALLS_HOOKS = (torch.nn.Module._call_impl.__code__,)


def is_users(code: CodeType) -> bool:
    """Whether the machine runs the function of this code."""
    name = code.co_filename
    if name.startswith(_INLINED) or not name.startswith((_TORCH, _STILLFRAME)):
        return True
    return code in _CALLS_HOOKS


def has_hooks(module: torch.nn.Module) -> bool:
    """Whether a call of the module runs hooks."""
    own = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
        module._backward_pre_hooks,
    )  # fmt: skip
    return any(own) or any(torch_private.global_module_hooks())
