"""TorchScript functions that Python calls while a capture runs.

torch then calls the Python function that each was made from. A trace may have fixed what that
function computes anew, and a function of a compilation unit has no such origin. So the graphs of
these are run instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from stillframe.interop.torchscript import convert_function
from stillframe.trace import scope


@functools.lru_cache(maxsize=256)
def _stand_in(script: Any) -> Callable[..., Any] | None:
    """What runs the graph of a function; None where its Python function says the same."""
    if hasattr(script, "_torchdynamo_inline") and not _is_traced(script.graph):
        return None
    return convert_function(script).forward


def _is_traced(graph: Any) -> bool:
    """Whether a graph knows the sizes of a tensor, which only the example of a trace gives."""
    values = [*graph.inputs(), *(v for node in graph.nodes() for v in node.outputs())]
    return any(value.isCompleteTensor() for value in values)


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    stand_in = None if scope.current() is None else _stand_in(self)
    if stand_in is None:
        return scope.original(torch.jit.ScriptFunction, "__call__")(self, *args, **kwargs)
    return stand_in(*args, **kwargs)


scope.replace_while_capturing(torch.jit.ScriptFunction, "__call__", _call)
