"""``torch.cond``: two functions, of which one runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr, not_
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
    run_real,
)
from stillframe.trace.subgraphs import Subgraph, close, inside

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


@family("cond")
def _cond(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One of two functions, by a predicate that only the data or the sizes can tell."""
    pred, true_fn, false_fn, *rest = (*args, *kwargs.values())
    container = rest[0] if rest else ()
    if isinstance(pred, (bool, int, float)):
        return (true_fn if pred else false_fn)(*container)
    _check_predicate(pred)
    operands = Operands.of(recorder, container)
    holds = known_inside(recorder.env, pred)
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
        grad.check(recorder, true_graph, false_graph)
        functions = [grad.vjp(recorder, module, len(values), needs) for module in modules]
        return record(recorder, op, (pred, *functions, (*values, *grads)), {})

    values = grad.tied(recorder, operands.values, forward, backward)
    assert true_graph.out_spec is not None
    return pytree.tree_unflatten(values, true_graph.out_spec)


def _arm(recorder: Recorder, function: Any, operands: Operands, condition: Expr | None) -> Subgraph:
    values = [inside(recorder, value) for value in operands.values]

    def of_leaves(*leaves: Any) -> Any:
        return function(*pytree.tree_unflatten(list(leaves), operands.spec))

    return Subgraph(recorder, "torch.cond").trace(
        of_leaves, values, condition, nodes=operands.nodes
    )


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


def known_inside(env: ShapeEnv, pred: Any) -> Expr | None:
    """What an arm may rely on: the predicate, if no question in the arm is decided by hints."""
    condition = to_size(pred)
    if not isinstance(condition, Expr):
        return None
    hints = env.hints
    return None if any(s in hints for s in condition.free_symbols) else condition
