"""Which functions of Python the machine runs, and which are called as they are."""

from __future__ import annotations

import os
from types import FunctionType
from typing import Any

import torch

from stillframe.frames.lookup import type_lookup

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_LIBRARIES = (_TORCH, _STILLFRAME)

#: Python of torch, and of ours around it, that is run by the machine: it reads the user's objects.
_INLINED = (
    os.path.join(_TORCH, "nn", "init.py"),
    os.path.join(_TORCH, "nn", "modules", ""),
    os.path.join(_TORCH, "nn", "parallel", ""),
    os.path.join(_TORCH, "nn", "utils", ""),
    os.path.join(_TORCH, "optim", ""),
    os.path.join(_TORCH, "utils", "_contextlib.py"),
    os.path.join(_TORCH, "autograd", "function.py"),
    os.path.join(_TORCH, "random.py"),
    os.path.join(_TORCH, "utils", "_pytree.py"),
    os.path.join(_STILLFRAME, "trace", "transformer.py"),
)

#: Of these, what counts the classes that were made, and reads no object of the user's.
_COUNTS = frozenset({torch.autograd.function.FunctionMeta.__init__.__code__})


def is_inlined(function: FunctionType) -> bool:
    """Whether the machine runs a function: of the user's, or one that reads the user's objects."""
    code = function.__code__
    name = code.co_filename
    users = not name.startswith(_LIBRARIES)
    runs = users or name.startswith(_INLINED) or _is_of_compiled_module(function)
    return runs and code not in _COUNTS


def call_of_module(cls: type[torch.nn.Module]) -> FunctionType:
    """What a call of a module runs: the user's own ``__call__``, else that of ``nn.Module``."""
    call = type_lookup(cls, "__call__")
    if type(call) is FunctionType and not call.__code__.co_filename.startswith(_LIBRARIES):
        return call
    return cls._call_impl  # type: ignore[return-value]


def is_module_call(function: Any) -> bool:
    """Whether a function is ``nn.Module.__call__``, or what stands there during a capture."""
    return function is torch.nn.Module.__call__ or function is torch.nn.Module._wrapped_call_impl


def _is_of_compiled_module(function: FunctionType) -> bool:
    """Whether a function is a method of what ``torch.compile`` makes of a module."""
    in_dynamo = function.__module__ == "torch._dynamo.eval_frame"
    return in_dynamo and function.__qualname__.startswith("OptimizedModule.")
