"""Higher-order operators: calls that take functions become nodes that take subgraphs.

Each function is traced to a graph module, an attribute of the graph around it (``true_graph_0``),
and the node calls torch's operator with it: ``torch.ops.higher_order.cond(pred, true_graph_0,
false_graph_0, (x,))``. Tensors and sizes that a function closes over are further operands.
The functions of one operator are traced on fakes, also in a trace of real tensors, because an arm
that the example does not take must not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, not_
from stillframe.trace import arms
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.subgraphs import Subgraph, close, inside

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


def intercepted() -> contextlib.AbstractContextManager[None]:
    """A context in which torch's functions for control flow reach the recorder uncompiled."""
    return torch_private.control_flow_uncompiled()


def call(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that the function mode saw: above autograd and the transforms of ``torch.func``."""
    leaves = pytree.tree_leaves((args, kwargs))
    if any(isinstance(v, torch.Tensor) and torch_private.is_functorch_wrapper(v) for v in leaves):
        return op(*args, **kwargs)  # torch takes the transform off; the dispatch mode sees the rest
    return record(recorder, op, args, kwargs)


def record(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the node of one call, with its subgraphs; returns the result for the program.

    Raises:
        NotSupported: no family knows the operator.
    """
    known = _FAMILIES.get(op.name())
    if known is None:
        raise NotSupported(
            f"The higher-order operator {op.name()} is not supported yet.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["call the function itself"],
        )
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


def module_of(recorder: Recorder, node: torch.fx.Node) -> torch.nn.Module:
    """The subgraph that a node reads."""
    module: torch.nn.Module = getattr(recorder.root, str(node.target))
    return module


def make_node(
    recorder: Recorder, op: Any, args: tuple[Any, ...], results: arms.Results
) -> list[Any]:
    """The node of a call, which returns ``results``; returns these for the program."""
    recorder.env.take_fresh_unbacked()
    node = recorder.create(op, args, {}, op.name())
    recorder.describe(node, tuple(results.values))
    recorder.track(tuple(results.values), node)
    results.bind(recorder, node)
    return results.values


def run_real(op: Any, args: tuple[Any, ...]) -> list[Any]:
    """The real result of an operator whose functions are traced graphs."""
    with torch_private.modes_taken_off(lambda mode: True), torch.no_grad():
        return list(op(*args))


def is_real(recorder: Recorder) -> bool:
    """Whether operators are answered by real kernels here."""
    return getattr(recorder, "runs_on", recorder.fake_mode) is None


# -- cond ------------------------------------------------------------------------------------------


@family("cond")
def _cond(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One of two functions, by a predicate that only the data or the sizes can tell."""
    pred, true_fn, false_fn, *rest = (*args, *kwargs.values())
    container = rest[0] if rest else ()
    if isinstance(pred, (bool, int, float)):
        return (true_fn if pred else false_fn)(*container)
    _check_predicate(pred)
    operands = Operands.of(recorder, container)
    holds = _known_inside(recorder, pred)
    true_graph = _arm(recorder, true_fn, operands, holds)
    false_graph = _arm(recorder, false_fn, operands, None if holds is None else not_(holds))
    operands = operands.extended(close(true_graph, false_graph))
    true_node = attach(recorder, true_graph, "true_graph")
    false_node = attach(recorder, false_graph, "false_graph")
    modules = [module_of(recorder, node) for node in (true_node, false_node)]

    def forward() -> list[Any]:
        results = arms.merged(recorder, true_graph, false_graph)
        if is_real(recorder):
            results = arms.Results(run_real(op, (pred, *modules, tuple(operands.values))))
        call_args = (recorder.operand(pred), true_node, false_node, tuple(operands.nodes))
        return make_node(recorder, op, call_args, results)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.refuse_random(recorder, "torch.cond", *modules)
        functions = [grad.vjp(module, len(values), needs) for module in modules]
        return record(recorder, op, (pred, *functions, (*values, *grads)), {})

    values = grad.tied(recorder, operands.values, forward, backward)
    assert true_graph.out_spec is not None
    return pytree.tree_unflatten(values, true_graph.out_spec)


def _arm(
    recorder: Recorder, function: Any, operands: Operands, condition: Expr | None
) -> Subgraph:
    values = [inside(recorder, value) for value in operands.values]

    def of_leaves(*leaves: Any) -> Any:
        return function(*pytree.tree_unflatten(list(leaves), operands.spec))

    return Subgraph(recorder, "torch.cond").trace(of_leaves, values, condition)


def _check_predicate(pred: Any) -> None:
    if isinstance(pred, torch.Tensor):
        sizes = pred.sizes if isinstance(pred, FakeTensor) else tuple(pred.shape)
        if pred.dtype is torch.bool and all(size == 1 for size in sizes):
            return
        text = f"a tensor of dtype {pred.dtype} and sizes {tuple(sizes)}"
    elif isinstance(pred, torch.SymBool):
        return
    else:
        text = f"a {type(pred).__name__}"
    raise InvalidInput(
        f"The predicate of torch.cond is {text}.",
        hints=["pass a bool, or a tensor of dtype bool with one element"],
    )


def _known_inside(recorder: Recorder, pred: Any) -> Expr | None:
    """What an arm may rely on: the predicate, if no question in the arm is decided by hints."""
    condition = to_size(pred)
    if not isinstance(condition, Expr):
        return None
    hints = recorder.env.hints
    return None if any(s in hints for s in condition.free_symbols) else condition
