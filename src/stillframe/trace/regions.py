"""Operators that call one function, and say something about the call to a compiler.

``invoke_subgraph`` (regions marked with ``mark_compile_region``), ``hints_wrapper``,
``strict_mode``, ``invoke_quant``: what they compute is what their function computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils import _pytree as pytree

from stillframe.trace import arms
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.higher_order import (
    Operands,
    attach,
    family,
    is_real,
    make_node,
    module_of,
    record,
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
    """

    function: Callable[..., Any]
    operands: Sequence[Any]
    arguments: Callable[[Any, Sequence[Any]], tuple[Any, ...]]
    kwargs: dict[str, Any]


def _record(recorder: Recorder, op: Any, region: Region, prefix: str) -> Any:
    operands = Operands.of(recorder, region.operands)
    values = [inside(recorder, value) for value in operands.values]

    def of_leaves(*leaves: Any) -> Any:
        return region.function(*pytree.tree_unflatten(list(leaves), operands.spec))

    subgraph = Subgraph(recorder, op.name(), may_copy=False).trace(
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
        call_args = region.arguments(product, (*values, *grads))
        return record(recorder, op, call_args, region.kwargs)

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
    kept = {k: v for k, v in kwargs.items() if isinstance(v, (str, int, float, bool))}

    def arguments(called: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        return called, *values

    return _record(recorder, op, Region(function, operands, arguments, kept), "subgraph")
