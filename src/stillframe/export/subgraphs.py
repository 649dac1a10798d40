"""Subgraphs of a program in functional form: one more run over each, inside the run over the whole.

The operator that takes them stays as it is. Each subgraph is run again with placeholders of the
metadata that it had, and what it returns keeps the metadata that it had, so that what is known of
the operator's results stays true. A subgraph never returns memory that is reached in another way,
and none writes to what it was given: nobody would copy that back.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, not_
from stillframe.trace.arms import Results
from stillframe.trace.autograd_functions import OPERATOR
from stillframe.trace.branches import known_inside
from stillframe.trace.higher_order import attach
from stillframe.trace.subgraphs import Subgraph, close
from stillframe.trace.views import View

if TYPE_CHECKING:
    from stillframe.export.decompose import Rerun

aten = torch.ops.aten

# Which argument of an operator holds what its functions close over; None: all from the end on.
_CLOSED_OVER: dict[str, int | None] = {
    "cond": 3, "while_loop": 3, "while_loop_stack_output": 3, "map_impl": 2, "scan": 3,
    "associative_scan": 2, "hints_wrapper": 1, "strict_mode": 1, "invoke_subgraph": None,
    "invoke_quant": None, "invoke_quant_packed": None,
}  # fmt: skip


def run_operator(run: Rerun, node: torch.fx.Node) -> Any:
    """Record an operator that takes functions, with its subgraphs in functional form.

    Returns:
        The value of the operator in the new graph: a tensor, or a tuple.
    """
    recorder = run.recorder
    op: Any = node.target
    recorder.flush_asserts()
    readers = [n for n in node.all_input_nodes if n.op == "get_attr"]
    inner = [_subgraph(run, node, reader) for reader in readers]
    captured = [outer for outer, _ in close(*inner)]
    attached = {
        reader: attach(recorder, subgraph, str(reader.target).rpartition("_")[0])
        for reader, subgraph in zip(readers, inner, strict=True)
    }

    def operand(n: torch.fx.Node) -> Any:
        if n in attached:
            return attached[n]
        value = run.values[n]
        if isinstance(value, FakeTensor):  # the subgraphs rely on how it was laid out
            value = recorder.laid_out_like(value, n.meta["val"])
        return recorder.operand(value)

    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), operand)
    args = _with_captured(op, args, captured)
    new = recorder.create(op, args, kwargs, op.name())
    value = _value(run, node.meta["val"])
    if op is OPERATOR:
        _share_memory(run, node, value)
        _keep_for_backward(run, node, value)
    recorder.describe(new, value)
    recorder.track(value, new)
    places = dict(node.meta.get("unbacked_bindings", {}))
    Results(list(value) if isinstance(value, tuple) else [value], places).bind(recorder, new)
    return value


def _with_captured(op: Any, args: tuple[Any, ...], captured: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments, with what decompositions inside take from outside."""
    if not captured:
        return args
    if op.name() not in _CLOSED_OVER:
        raise NotSupported(
            f"A decomposition inside a function of {op.name()} uses a constant or a size from "
            "outside of it.",
            hints=["keep the operators of the function whole: edit default_decompositions()"],
        )
    place = _CLOSED_OVER[op.name()]
    if place is None:
        return (*args, *captured)
    return (*args[:place], [*args[place], *captured], *args[place + 1 :])


def run_inline(run: Rerun, node: torch.fx.Node) -> Any:
    """Record what the forward of a ``torch.autograd.Function`` does; nobody asks for gradients."""
    reader, _, *operands = node.args
    module = getattr(run.owner, str(reader.target))  # type: ignore[union-attr]
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    run.values.update((n, run.argument(v)) for n, v in zip(inputs, operands, strict=True))
    with run.inside(module):
        run.run_graph(module.graph)
    outputs, _ = next(reversed(module.graph.nodes)).args[0]
    return tuple(run.argument(v) for v in outputs)


def _share_memory(run: Rerun, node: torch.fx.Node, results: Sequence[Any]) -> None:
    """Results that are views of an operand, or of one another, know it: neither may be written."""
    known = {}
    for n in node.args:
        if isinstance(n, torch.fx.Node) and isinstance(run.values.get(n), FakeTensor):
            known[id(n.meta["val"].storage_)] = run.values[n]
    grad = torch.is_grad_enabled()
    for old, new in zip(node.meta["val"], results, strict=True):
        parent = known.setdefault(id(old.storage_), new)
        if parent is not new:
            new.storage_ = parent.storage_
            seen = (new.storage_.written, grad)
            new.view_of = View(parent, node.target, (), {}, (), grad, seen)


def _keep_for_backward(run: Rerun, node: torch.fx.Node, results: Sequence[Any]) -> None:
    """Memory that backward reads may not be written from here on: it would see what is there then.

    What backward gets in a functional program is the value of now.
    """
    reader, _, *operands = node.args
    module = getattr(run.owner, str(reader.target))  # type: ignore[union-attr]
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    outputs, saved = next(reversed(module.graph.nodes)).args[0]
    read = {id(_memory(n)) for n in saved}
    around = [run.argument(v) for v in operands]
    for inner, value in (*zip(inputs, around, strict=True), *zip(outputs, results, strict=True)):
        if isinstance(value, FakeTensor) and id(_memory(inner)) in read:
            run.recorder.keep_for_backward(value)


def _memory(node: torch.fx.Node) -> Any:
    return getattr(node.meta["val"], "storage_", node)


def _value(run: Rerun, val: Any) -> Any:
    """The metadata of a result in objects of the new graph."""
    if isinstance(val, FakeTensor):
        return _fake(run, val, given=False)
    if isinstance(val, (list, tuple)):
        return tuple(_value(run, v) for v in val)
    size = to_size(val)
    return run.env.wrap(size) if isinstance(size, Expr) else val


def _fake(run: Rerun, val: FakeTensor, *, given: bool) -> FakeTensor:
    return FakeTensor.make(
        run.env, val.sizes, val.strides, val.offset, val.dtype, val.device, val.requires_grad,
        FakeStorage(given=given),
    )  # fmt: skip


# -- one subgraph ---------------------------------------------------------------------------------


def _subgraph(run: Rerun, node: torch.fx.Node, reader: torch.fx.Node) -> Subgraph:
    """The subgraph that ``reader`` reads for ``node``, run once more."""
    op: Any = node.target
    module = getattr(run.owner, str(reader.target))
    inputs = [n for n in module.graph.nodes if n.op == "placeholder"]
    values = [_input(run, n.meta["val"]) for n in inputs]
    subgraph = Subgraph(run.recorder, op.name(), keeps_aliases=op is OPERATOR)

    def again(*values: Any) -> Any:
        run.env.know(s for v in values for s in symbols_of(v))
        run.values.update(zip(inputs, values, strict=True))
        with run.inside(module):
            run.run_graph(module.graph)
        for placeholder, value in zip(subgraph.inputs, values, strict=True):
            if isinstance(value, FakeTensor) and value.fx_node is not placeholder:
                raise run.recorder.refuse(
                    f"A subgraph of {node.name} writes to its operand {placeholder.name}.",
                    "what a subgraph writes to its operands is copied back by nobody",
                    "return the new value, and copy it into the tensor afterwards",
                )
        outputs = _Outputs(run, dict(zip(subgraph.inputs, inputs, strict=True)), op is OPERATOR)
        return outputs.of(next(reversed(module.graph.nodes)).args[0])

    with run.recorder.inside_subgraph():
        if op is OPERATOR:  # autograd looks at what is around it
            torch.set_grad_enabled(False)
        return subgraph.trace(
            again, values, _assumed(run, node, reader), nodes=inputs, nested=True, listening=False
        )


def _input(run: Rerun, val: Any) -> Any:
    return _fake(run, val, given=True) if isinstance(val, FakeTensor) else _value(run, val)


def symbols_of(value: Any) -> Iterator[Expr]:
    """The symbols in the metadata of a tensor, or in a number."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from symbols_of(item)
        return
    sizes = [to_size(value)]
    if isinstance(value, FakeTensor):
        sizes = [*value.sizes, *value.strides, value.offset]
    for size in sizes:
        if isinstance(size, Expr):
            yield from size.free_symbols


def _assumed(run: Rerun, node: torch.fx.Node, reader: torch.fx.Node) -> Expr | None:
    """What holds whenever a subgraph runs."""
    if node.target is not torch.ops.higher_order.cond:
        return None
    pred = node.args[0]
    value = run.values[pred] if isinstance(pred, torch.fx.Node) else pred
    holds = known_inside(run.env, value)
    return holds if holds is None or reader is node.args[1] else not_(holds)


class _Outputs:
    """What a subgraph returns: in the metadata that it had, and over the memory that it had.

    Args:
        inputs: placeholder -> the one in the old graph.
        may_share: results may be views of inputs or of one another, if they were before.
    """

    def __init__(
        self, run: Rerun, inputs: dict[torch.fx.Node, torch.fx.Node], may_share: bool
    ) -> None:
        self.run = run
        self.may_share = may_share
        self.taken = dict(inputs)

    def of(self, returned: Any) -> Any:
        """The new value of what the old graph returns."""
        if isinstance(returned, (list, tuple)):
            return tuple(self.of(r) for r in returned)
        if not isinstance(returned, torch.fx.Node):
            return returned
        value = self.run.values[returned]
        return self._apart(value, returned) if isinstance(value, FakeTensor) else value

    def _apart(self, value: FakeTensor, old: torch.fx.Node) -> FakeTensor:
        recorder = self.run.recorder
        recorder.check_memory(value)
        shown = list(memory_shown(recorder.operand(value)))
        if any(n in self.taken and not self._shared(old, self.taken[n]) for n in shown):
            value = recorder.record(aten.clone.default, (value,), {})
            shown = [recorder.operand(value)]
        for n in shown:
            self.taken.setdefault(n, old)
        return recorder.laid_out_like(value, old.meta["val"])

    def _shared(self, one: torch.fx.Node, other: torch.fx.Node) -> bool:
        """Whether two values of the old graph were over one memory, and may be."""
        a, b = one.meta["val"], other.meta["val"]
        return self.may_share and isinstance(b, FakeTensor) and a.storage_ is b.storage_


# -- graphs and all that is inside of them --------------------------------------------------------


def memory_shown(node: torch.fx.Node) -> Iterator[torch.fx.Node]:
    """The nodes whose memory a value may be a view of, by the schemas: itself, and so on."""
    while True:
        yield node
        if node.target is operator.getitem:
            node = node.args[0]  # type: ignore[assignment]
            continue
        if not isinstance(node.target, torch._ops.OpOverload):
            return
        if not any(r.alias_info is not None for r in node.target._schema.returns):
            return
        viewed = next((a for a in node.args if isinstance(a, torch.fx.Node)), None)
        if viewed is None:
            return
        node = viewed


def may_show(node: torch.fx.Node, changed: Set[torch.fx.Node]) -> bool:
    """Whether a value may be a view of the memory of one of these inputs."""
    return any(n in changed for n in memory_shown(node))


def nodes_of(module: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    """All nodes of a graph module, and those of its subgraphs where they are read."""
    for node in module.graph.nodes:
        yield node
        if node.op == "get_attr":
            inner = getattr(module, str(node.target), None)
            if isinstance(inner, torch.fx.GraphModule):
                yield from nodes_of(inner)
