"""Higher-order operators that make no subgraph.

``out_dtype`` and ``local_map_hop`` leave the operators of which their result is made, ``print``
is a node that prints when the graph runs, and ``register_hook`` acts on the trace itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.trace.higher_order import family

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


@family("out_dtype")
def _out_dtype(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator computed in a dtype that holds the operands and the wanted result."""
    function, dtype, *operands = (*args, *kwargs.values())
    working = torch_private.promoted_dtype(
        [*pytree.tree_leaves(operands), torch.empty(1, dtype=dtype)]
    )
    with recorder.listening():
        cast = pytree.tree_map_only(torch.Tensor, lambda t: t.to(working), operands)
        return function(*cast).to(dtype)


@family("local_map_hop")
def _local_map(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What each device of a mesh computes; on tensors that are whole that is the function itself.

    Raises:
        NotSupported: torch is asked to keep the call, with the sizes that one device sees.
    """
    if torch_private.keeps_local_maps():
        raise NotSupported(
            "local_map as an operator, with the sizes that one device of a mesh sees.",
            why="a graph here has the sizes of whole tensors",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["capture the function that one device runs, on its part of the tensors"],
        )
    function, *operands = args
    with recorder.listening():
        return function(*operands, **kwargs)


@family("print")
def _print(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The graph prints at this place; the trace itself prints nothing."""
    text, *values = args
    if not isinstance(text, str):
        raise InvalidInput(
            f"print takes a format string first, got a {type(text).__name__}.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
        )
    operands, options = pytree.tree_map(recorder.operand, (values, kwargs))
    node = recorder.create(op, (text, *operands), options, op.name())
    recorder.describe(node, None)


@family("register_hook")
def _register_hook(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A function of the gradient of a tensor: it runs, and is recorded, where backward runs."""
    if recorder.above_autograd:
        raise NotSupported(
            "forward registers a hook for gradients (register_hook).",
            why="a program holds what forward computes; torch makes the backward pass when it runs",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["stillframe.make_fx traces gradients: they become operators of the graph"],
        )
    tensor, function, *operands = (*args, *kwargs.values())
    tensor.register_hook(lambda gradient: function(gradient, *operands))
    return tensor
