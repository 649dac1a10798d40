"""Higher-order operators: calls that take functions become nodes that take subgraphs.

Each function is traced to a graph module, an attribute of the graph around it (``true_graph_0``),
and the node calls torch's operator with it: ``torch.ops.higher_order.cond(pred, true_graph_0,
false_graph_0, (x,))``. Tensors and sizes that a function closes over are further operands.
The functions of one operator are traced on fakes, also in a trace of real tensors, because an arm
that the example does not take must not run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.trace import arms, transforms
from stillframe.trace.control_flow import PLAIN
from stillframe.trace.subgraphs import Subgraph

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

Family = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any]], Any]

_FAMILIES: dict[str, Family] = {}


def family(name: str) -> Callable[[Family], Family]:
    """Register what records ``torch.ops.higher_order.<name>``."""

    def register(function: Family) -> Family:
        if name in _FAMILIES:
            raise LookupError(f"{name} has two families")
        _FAMILIES[name] = function
        return function

    return register


@functools.cache
def _load_families() -> None:
    from stillframe.trace import (  # noqa: F401
        attention,
        autograd_functions,
        branches,
        direct,
        loops,
        regions,
    )


def intercepted(recorder: Recorder) -> contextlib.AbstractContextManager[None]:
    """A context in which higher-order operators reach the recorder, uncompiled."""

    def answer(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if op in _LEFT_ALONE or recorder.mode not in torch_private.dispatch_modes():
            return NotImplemented
        return call(recorder, op, args, kwargs)

    return torch_private.higher_order_answered(answer)


# They take themselves apart below.
_LEFT_ALONE = {torch.ops.higher_order.custom_function_call}


def call(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call as the program makes it: above autograd and the transforms of ``torch.func``."""
    leaves = pytree.tree_leaves((args, kwargs))
    if any(isinstance(v, torch.Tensor) and torch_private.is_functorch_wrapper(v) for v in leaves):
        return transforms.call(recorder, op, args, kwargs)
    return record(recorder, op, args, kwargs)


def record(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the node of one call, with its subgraphs; returns the result for the program.

    Raises:
        NotSupported: no family knows the operator.
    """
    _load_families()
    known = _FAMILIES.get(op.name())
    if known is None:
        raise NotSupported(
            f"The higher-order operator {op.name()} is not supported yet.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["call the function itself"],
        )
    # the recorder's own questions are no operators of the program
    with torch_private.modes_taken_off(lambda mode: mode is recorder.mode):
        return known(recorder, op, args, kwargs)


# -- parts of every family -------------------------------------------------------------------------


@dataclass(frozen=True)
class Operands:
    """The operands of one call: leaves as the program has them, and their nodes.

    Attributes:
        values: tensors, symbolic numbers and constants.
        nodes: the same as the graph holds them.
        spec: the structure that the functions take.
    """

    values: list[Any]
    nodes: list[Any]
    spec: pytree.TreeSpec

    @staticmethod
    def of(recorder: Recorder, operands: Any) -> Operands:
        """The operands in a container."""
        values, spec = pytree.tree_flatten(tuple(operands))
        return Operands(values, [recorder.operand(v) for v in values], spec)

    def extended(self, captured: Sequence[tuple[torch.fx.Node, Any]]) -> Operands:
        """With what the functions close over behind."""
        return Operands(
            [*self.values, *(value for _, value in captured)],
            [*self.nodes, *(node for node, _ in captured)],
            self.spec,
        )


def attach(recorder: Recorder, subgraph: Subgraph, prefix: str) -> torch.fx.Node:
    """Make the subgraph an attribute of the graph around it; returns the node that reads it."""
    count = 0
    while hasattr(recorder.root, f"{prefix}_{count}"):
        count += 1
    name = f"{prefix}_{count}"
    recorder.root.add_module(name, subgraph.module(name))
    node = recorder.graph.get_attr(name)
    node.meta["val"] = None
    return node


def module_of(recorder: Recorder, node: torch.fx.Node) -> torch.fx.GraphModule:
    """The subgraph that a node reads."""
    module: torch.fx.GraphModule = getattr(recorder.root, str(node.target))
    return module


def make_node(
    recorder: Recorder,
    op: Any,
    args: tuple[Any, ...],
    results: arms.Results,
    kwargs: dict[str, Any] | None = None,
) -> list[Any]:
    """The node of a call, which returns ``results``; returns these for the program."""
    recorder.env.take_fresh_unbacked()
    node = recorder.create(op, args, dict(kwargs or {}), op.name())
    recorder.describe(node, tuple(results.values))
    recorder.track(tuple(results.values), node)
    results.bind(recorder, node)
    return results.values


def run_real(op: Any, args: tuple[Any, ...]) -> list[Any]:
    """The real result of an operator whose functions are traced graphs."""
    return run_module(PLAIN.get(op.name(), op), args)


def run_module(function: Callable[..., Any], args: Sequence[Any]) -> list[Any]:
    """The real results of a traced graph."""
    with torch_private.modes_taken_off(lambda mode: True), torch.no_grad():
        return list(function(*args))


def is_real(recorder: Recorder) -> bool:
    """Whether operators are answered by real kernels here."""
    return getattr(recorder, "runs_on", recorder.fake_mode) is None
