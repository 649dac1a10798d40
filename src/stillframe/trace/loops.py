"""Loops as higher-order operators: ``while_loop``, ``map``, ``scan``, ``associative_scan``.

A body runs for every step, and its graph is made once. So what it sees must stand for all steps:
carried tensors keep their sizes and are contiguous in every step (a copy where they would not be),
a carried integer is a symbol of which nothing is known, and a slice of an input lies somewhere in
its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size, to_size
from stillframe.symbolic import Expr
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
from stillframe.trace.loops_grad import WhileLoop, prefixes_backward, scan_backward
from stillframe.trace.subgraphs import Subgraph, close, inside

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten


# -- while_loop ------------------------------------------------------------------------------------


@family("while_loop")
@family("while_loop_stack_output")
def _while_loop(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``body`` as long as ``cond`` holds, on carried tensors and integers."""
    cond_fn, body_fn, carried, *rest = (*args, *kwargs.values())
    owner = op.name()
    extra = tuple(rest[0]) if rest else ()
    values = [_steady(recorder, value) for value in carried]
    operands = Operands.of(recorder, (*values, *extra))
    count = len(values)
    seen = _carried_inside(recorder, operands.values, count, owner)
    cond_graph = Subgraph(recorder, owner).trace(cond_fn, seen, nodes=operands.nodes, bare=True)
    _check_condition(recorder, owner, cond_graph.outputs)
    seen = _carried_inside(recorder, operands.values, count, owner)
    body_graph = Subgraph(recorder, owner).trace(
        _with_steady_results(body_fn), seen, nodes=operands.nodes
    )
    _check_carry(recorder, owner, seen[:count], body_graph.outputs, body_graph.own_symbols)
    operands = operands.extended(close(cond_graph, body_graph))
    cond_node = attach(recorder, cond_graph, f"{owner}_cond_graph")
    body_node = attach(recorder, body_graph, f"{owner}_body_graph")
    modules = [module_of(recorder, node) for node in (cond_node, body_node)]

    def forward() -> list[Any]:
        if is_real(recorder):
            real = tuple(operands.values[:count]), tuple(operands.values[count:])
            results = arms.Results(run_real(op, (*modules, *real)))
        elif owner == "while_loop":
            results = arms.after_loop(recorder, body_graph.outputs)
        else:
            results = arms.stacked(recorder, body_graph, None)
        nodes = tuple(operands.nodes[:count]), tuple(operands.nodes[count:])
        return make_node(recorder, op, (cond_node, body_node, *nodes), results)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, cond_graph, body_graph)
        loop = WhileLoop(
            recorder, modules[0], modules[1], list(values[:count]), list(values[count:])
        )
        return loop.backward(grads, needs, stacked=owner != "while_loop")

    results = grad.tied(recorder, operands.values, forward, backward)
    assert body_graph.out_spec is not None
    return pytree.tree_unflatten(results, body_graph.out_spec)


def _carried_inside(recorder: Recorder, values: Sequence[Any], count: int, owner: str) -> list[Any]:
    """The carried values as a step sees them, and the other operands as they are."""
    seen = []
    for i, value in enumerate(values):
        number = to_size(value)
        if i < count and (type(number) is int or isinstance(number, Expr)):
            if isinstance(number, Expr) and number.sort != "int":
                raise _not_carried(recorder, owner, number.sort)
            seen.append(_unknown(recorder, float("-inf")))
        elif i < count and not isinstance(value, torch.Tensor):
            raise _not_carried(recorder, owner, type(value).__name__)
        else:
            seen.append(inside(recorder, value))
    return seen


def _unknown(recorder: Recorder, lower: float) -> Any:
    """A symbol that is bound where the subgraph begins."""
    symbol = recorder.env.new_unbacked(lower)
    recorder.env.take_fresh_unbacked()
    return recorder.env.wrap(symbol)


def _steady(recorder: Recorder, value: Any) -> Any:
    """A carried tensor as it is in every step: contiguous, at the beginning of its memory."""
    if not isinstance(value, torch.Tensor) or _is_steady(recorder.fake_mode.adopt(value)):
        return value
    with recorder.listening():
        return aten.clone.default(value, memory_format=torch.contiguous_format)


def _is_steady(fake: FakeTensor) -> bool:
    return layout.is_contiguous(fake.sizes, fake.strides) and fake.offset == 0


def _with_steady_results(function: Callable[..., Any], count: int | None = None) -> Any:
    """The function, with its first ``count`` tensors (all by default) as :func:`_steady` says."""

    def run(*values: Any) -> Any:
        leaves, spec = pytree.tree_flatten(function(*values))
        for i, leaf in enumerate(leaves[:count]):
            if isinstance(leaf, FakeTensor) and not _is_steady(leaf):
                leaves[i] = aten.clone.default(leaf, memory_format=torch.contiguous_format)
        return pytree.tree_unflatten(leaves, spec)

    return run


def _check_condition(recorder: Recorder, owner: str, outputs: Sequence[Any]) -> None:
    (result,) = outputs if len(outputs) == 1 else (None,)
    if isinstance(result, (bool, torch.SymBool)):
        return
    if isinstance(result, FakeTensor) and result.dtype is torch.bool and result.dim() == 0:
        return
    raise InvalidInput(
        f"The condition of {owner} must return one bool or one tensor of dtype bool without dims.",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["reduce it: (x > 0).all()"],
    )


def _check_carry(
    recorder: Recorder,
    owner: str,
    before: Sequence[Any],
    after: Sequence[Any],
    own_symbols: frozenset[Expr],
) -> None:
    """Every step takes what the step before it returned, so the two must be of one kind."""
    if len(before) != len(after):
        raise _uneven(recorder, owner, f"{len(before)} carried values and {len(after)} results")
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        if isinstance(a, FakeTensor) != isinstance(b, FakeTensor):
            raise _uneven(recorder, owner, f"carried value {i}: {a} and then {b}")
        if not isinstance(a, FakeTensor):
            if not isinstance(b, (int, torch.SymInt)) or isinstance(b, bool):
                raise _not_carried(recorder, owner, type(b).__name__)
            continue
        same = (a.dtype, a.device, len(a.sizes)) == (b.dtype, b.device, len(b.sizes))
        if not same or not _same_sizes(recorder, a.sizes, b.sizes, own_symbols):
            raise _uneven(recorder, owner, f"carried value {i}: {a} and then {b}")


def _same_sizes(
    recorder: Recorder, a: Sequence[Size], b: Sequence[Size], own_symbols: frozenset[Expr]
) -> bool:
    return all(arms.same_number(recorder, x, y, own_symbols) for x, y in zip(a, b, strict=True))


def _uneven(recorder: Recorder, owner: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"A step of {owner} returns other values than it takes: {what}.",
        why="the next step takes what this one returns",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["return tensors of the same sizes, dtype and device as the carried ones"],
    )


def _not_carried(recorder: Recorder, owner: str, kind: str) -> NotSupported:
    return NotSupported(
        f"{owner} carries a value of kind {kind}.",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["carry tensors and integers"],
    )


# -- map, scan ------------------------------------------------------------------------------------


@family("map_impl")
def _map(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of each slice along the first dim; the results are stacked."""
    function, xs, *rest = (*args, *kwargs.values())
    owner = "map"
    count = len(xs)
    operands = Operands.of(recorder, (*xs, *(rest[0] if rest else ())))
    length = _length(recorder, owner, operands.values[:count])
    seen = [_slice_inside(recorder, x) for x in operands.values[:count]]
    seen += [inside(recorder, value) for value in operands.values[count:]]
    body = Subgraph(recorder, owner).trace(function, seen, nodes=operands.nodes)
    operands = operands.extended(close(body))
    node = attach(recorder, body, "body_graph")
    module = module_of(recorder, node)

    def forward() -> list[Any]:
        if is_real(recorder):
            values = list(operands.values[:count]), list(operands.values[count:])
            results = arms.Results(run_real(op, (module, *values)))
        else:
            results = arms.stacked(recorder, body, length)
        nodes = list(operands.nodes[:count]), list(operands.nodes[count:])
        return make_node(recorder, op, (node, *nodes), results)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, body)
        product = grad.vjp(recorder, module, len(values), needs)

        def of_slices(*leaves: Any) -> Any:
            slices, flows = leaves[:count], leaves[count : count + len(grads)]
            return product(*slices, *leaves[count + len(grads) :], *flows)

        found = record(recorder, op, (of_slices, [*values[:count], *grads], values[count:]), {})
        return [g if i < count else g.sum(0) for i, g in zip(needs, found, strict=True)]

    results = grad.tied(recorder, operands.values, forward, backward)
    assert body.out_spec is not None
    return pytree.tree_unflatten(results, body.out_spec)


@family("scan")
def _scan(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of a carry and of each slice along the first dim, in order."""
    function, init, xs, *rest = (*args, *kwargs.values())
    owner = "scan"
    carries, count = len(init), len(init) + len(xs)
    values = [_steady(recorder, value) for value in init]
    operands = Operands.of(recorder, (*values, *xs, *(rest[0] if rest else ())))
    length = _length(recorder, owner, operands.values[carries:count])
    seen = _carried_inside(recorder, operands.values[:carries], carries, owner)
    seen += [_slice_inside(recorder, x) for x in operands.values[carries:count]]
    seen += [inside(recorder, value) for value in operands.values[count:]]
    body = Subgraph(recorder, owner).trace(
        _with_steady_results(function, carries), seen, nodes=operands.nodes
    )
    _check_carry(recorder, owner, seen[:carries], body.outputs[:carries], body.own_symbols)
    operands = operands.extended(close(body))
    node = attach(recorder, body, "scan_combine_graph")
    module = module_of(recorder, node)

    def parts(items: Sequence[Any]) -> tuple[Any, ...]:
        return list(items[:carries]), list(items[carries:count]), tuple(items[count:])

    def forward() -> list[Any]:
        if is_real(recorder):
            results = arms.Results(run_real(op, (module, *parts(operands.values))))
        else:
            results = arms.stacked(recorder, body, length, carries)
        return make_node(recorder, op, (node, *parts(operands.nodes)), results)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, body)
        return scan_backward(recorder, op, module, parts(values), grads, needs)

    results = grad.tied(recorder, operands.values, forward, backward)
    assert body.out_spec is not None
    return pytree.tree_unflatten(results, body.out_spec)


@family("associative_scan")
def _associative_scan(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """All prefixes of a combination, which may be computed in any grouping.

    torch runs the function on slices and on several slices at once, so it must be elementwise.
    """
    function, xs, *rest = (*args, *kwargs.values())
    owner = "associative_scan"
    count = len(xs)
    operands = Operands.of(recorder, (*xs, *(rest[0] if rest else ())))
    length = _length(recorder, owner, operands.values[:count])
    seen = [_slice_inside(recorder, x) for _ in range(2) for x in operands.values[:count]]
    seen += [inside(recorder, value) for value in operands.values[count:]]
    body = Subgraph(recorder, owner).trace(function, seen)
    _check_carry(recorder, owner, seen[:count], body.outputs, body.own_symbols)
    _check_elementwise(recorder, body)
    operands = operands.extended(close(body))
    node = attach(recorder, body, "associative_scan_combine_graph")

    def parts(items: Sequence[Any]) -> tuple[Any, ...]:
        return list(items[:count]), tuple(items[count:])

    def forward() -> list[Any]:
        if is_real(recorder):
            module = module_of(recorder, node)
            results = arms.Results(run_real(op, (module, *parts(operands.values))))
        else:
            results = arms.Results([_dense_like(recorder, x) for x in operands.values[:count]])
        return make_node(recorder, op, (node, *parts(operands.nodes)), results)

    def backward(values: Sequence[Any], grads: Sequence[Any], needs: Sequence[int]) -> Any:
        grad.check(recorder, body)
        return prefixes_backward(
            recorder, op, module_of(recorder, node), parts(values), length, grads, needs
        )

    results = grad.tied(recorder, operands.values, forward, backward)
    assert body.out_spec is not None
    return pytree.tree_unflatten(results, body.out_spec)


def _check_elementwise(recorder: Recorder, body: Subgraph) -> None:
    for node in body.graph.nodes:
        if node.op != "call_function":
            continue
        tags = getattr(node.target, "tags", ())
        if torch.Tag.pointwise not in tags and node.target is not aten.clone.default:
            raise NotSupported(
                f"The function of associative_scan calls {node.target}, which is not elementwise.",
                why="torch calls the function on one slice and on several at once",
                where=stack.summary(stack.raw_stack(recorder.floor)),
                hints=['combine_mode="generic", or scan'],
            )


def _dense_like(recorder: Recorder, value: torch.Tensor) -> FakeTensor:
    fake = recorder.fake_mode.adopt(value)
    strides = layout.contiguous_strides(fake.sizes)
    needs = recorder.above_autograd and fake.requires_grad
    return FakeTensor.make(recorder.env, fake.sizes, strides, 0, fake.dtype, fake.device, needs)


def _length(recorder: Recorder, owner: str, xs: Sequence[Any]) -> Size:
    """The number of steps: the first size of all ``xs``."""
    fakes = [recorder.fake_mode.adopt(x) for x in xs]
    if not fakes or any(not f.sizes for f in fakes):
        raise InvalidInput(
            f"{owner} takes slices of tensors with at least one dim.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
        )
    first = fakes[0].sizes[0]
    for other in fakes[1:]:
        same = recorder.env.wrap(to_size(first)) == recorder.env.wrap(to_size(other.sizes[0]))
        if not same:
            raise InvalidInput(
                f"{owner} takes tensors of one length; got {first} and {other.sizes[0]}.",
                where=stack.summary(stack.raw_stack(recorder.floor)),
            )
    return first


def _slice_inside(recorder: Recorder, value: torch.Tensor) -> FakeTensor:
    """One slice along the first dim, of any step."""
    fake = recorder.fake_mode.adopt(value)
    offset = to_size(_unknown(recorder, 0))
    return FakeTensor.make(
        recorder.env, fake.sizes[1:], fake.strides[1:], offset, fake.dtype, fake.device,
        fake.requires_grad,
    )  # fmt: skip
