"""Operators that call one function, and say something about the call to a compiler.

``invoke_subgraph`` (regions marked with ``mark_compile_region``), ``hints_wrapper``,
``strict_mode``, ``invoke_quant``, ``foreach_map``: they compute what their function computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.trace import arms
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.higher_order import (
    Operands,
    attach,
    family,
    is_real,
    make_node,
    module_of,
    run_module,
)
from stillframe.trace.subgraphs import Subgraph, close, inside

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


@dataclass(frozen=True)
class Region:
    """One call.

    Attributes:
        function: what is called.
        operands: with these.
        arguments: the arguments of the operator for another function and other operands.
        kwargs: its keyword arguments.
        may_copy: a result that is an operand is copied; else it is refused.
    """

    function: Callable[..., Any]
    operands: Sequence[Any]
    arguments: Callable[[Any, Sequence[Any]], tuple[Any, ...]]
    kwargs: dict[str, Any]
    may_copy: bool = False


def _record(recorder: Recorder, op: Any, region: Region, prefix: str) -> Any:
    operands = Operands.of(recorder, region.operands)
    values = [inside(recorder, value) for value in operands.values]

    def of_leaves(*leaves: Any) -> Any:
        return region.function(*pytree.tree_unflatten(list(leaves), operands.spec))

    subgraph = Subgraph(recorder, op.name(), may_copy=region.may_copy).trace(
        of_leaves, values, nodes=operands.nodes
    )
    operands = operands.extended(close(subgraph))
    node = attach(recorder, subgraph, prefix)
    module = module_of(recorder, node)

    def forward() -> list[Any]:
        results = arms.merged(recorder, subgraph, subgraph)
        if is_real(recorder):
            results = arms.Results(run_module(module, operands.values))
        call_args = region.arguments(node, operands.nodes)
        return make_node(recorder, op, call_args, results, region.kwargs)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, subgraph)
        product = grad.vjp(recorder, module, len(values), needs)
        # the gradient of a sum is the one that flows in: nothing that a user could avoid
        of_region = replace(region, function=product, operands=(*values, *grads), may_copy=True)
        with torch_private.modes_taken_off(lambda mode: mode is recorder.mode):
            return _record(recorder, op, of_region, prefix)

    results = grad.tied(recorder, operands.values, forward, backward)
    assert subgraph.out_spec is not None
    return pytree.tree_unflatten(results, subgraph.out_spec)


@family("invoke_subgraph")
def _invoke_subgraph(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    function, name, *operands = args

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        identifier = name or str(getattr(called, "target", ""))
        return called, identifier or None, *values

    return _record(recorder, op, Region(function, operands, arguments, kwargs), "repeated_subgraph")


@family("hints_wrapper")
def _hints_wrapper(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    function, operands, function_kwargs, hints = (*args, *kwargs.values())

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        return called, tuple(values), function_kwargs, hints

    region = Region(function, operands, arguments, {})
    return _record(recorder, op, region, "hints_wrapper_body_graph")


@family("strict_mode")
def _strict_mode(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function, operands = (*args, *kwargs.values())

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        return called, tuple(values)

    return _record(recorder, op, Region(function, operands, arguments, {}), "strict_graph")


@family("invoke_quant")
@family("invoke_quant_packed")
def _invoke_quant(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Options that a graph can hold stay; others are for a compiler that sees the Python code."""
    function, *operands = args

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        return called, *values

    region = Region(function, operands, arguments, _literals(kwargs))
    return _record(recorder, op, region, "subgraph")


def _literals(options: dict[str, Any]) -> dict[str, Any]:
    """The options that a graph can hold; the operator's function sees none of them."""
    return {k: v for k, v in options.items() if isinstance(v, (str, int, float, bool))}


@family("foreach_map")
def _foreach_map(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of several lists, element by element; the operand list is flat in the graph."""
    function, *given = args
    leaves, spec = pytree.tree_flatten(given)
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (torch.Tensor, torch.SymInt))]

    def of_moving(*values: Any) -> Any:
        filled = list(leaves)
        for i, value in zip(moving, values, strict=True):
            filled[i] = value
        return function(*pytree.tree_unflatten(filled, spec))

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        return called, *values

    region = Region(of_moving, [leaves[i] for i in moving], arguments, _literals(kwargs))
    return _record(recorder, op, region, "foreach_map_graph")
