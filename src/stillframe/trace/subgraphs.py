"""``torch.cond`` and ``torch.while_loop`` in a trace by dispatch: branches become subgraphs.

A branch is traced on fakes by a recorder of its own, so both branches are seen whatever the
data. Tensors and sizes of the surrounding trace that a branch uses become further operands. The
node is torch's own higher-order operator over the graph modules of the branches, which stand below
the root of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr, eq
from stillframe.trace import operators
from stillframe.trace.dispatch import DispatchRecorder
from stillframe.trace.functions import FunctionMode
from stillframe.trace.recorder import RecordingMode, new_placeholder
from stillframe.trace.symbols import SymbolNodes

aten = torch.ops.aten
higher_order = torch.ops.higher_order


class BranchRecorder(DispatchRecorder):
    """Records one branch; what it takes from outside becomes a placeholder.

    Args:
        parent: the surrounding trace.
        returns_bare: the graph returns one tensor as it is, not in a tuple.

    Attributes:
        captured: identity of a tensor, or a symbol -> (the value outside, its placeholder).
    """

    def __init__(self, parent: DispatchRecorder, *, returns_bare: bool = False) -> None:
        runs_on = parent.runs_on or parent.fake_mode
        options = replace(parent.options, allow_non_fake_inputs=True, allow_fake_constant=True)
        super().__init__(options, parent.env, runs_on, parent.scope, parent.floor)
        self.returns_bare = returns_bare
        self.symbols = SymbolNodes(self._create_symbolic, self._capture_symbol)
        self.captured: dict[Any, tuple[Any, torch.fx.Node]] = {}
        self._outer_memory: set[int] = set()

    def operands(self, values: Sequence[torch.Tensor]) -> list[FakeTensor]:
        """Placeholders for the operands of the branch, and the fakes that it runs on."""
        fakes = []
        for i, value in enumerate(values):
            fake = self._fake_of(value).snapshot()
            self._placeholder(f"arg{i}_1", fake, fake)
            fakes.append(fake)
        return fakes

    def _fake_of(self, value: torch.Tensor) -> FakeTensor:
        return self.fake_mode.adopt(value)

    def _placeholder(self, name: str, tensor: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        node = new_placeholder(self.graph, name)
        self.bind_tensor(tensor, node)
        self.describe(node, fake)
        self.symbols.bind_sizes(fake.sizes, lambda: node)
        self._outer_memory.add(id(fake.storage_))
        return node

    def _attribute(self, tensor: torch.Tensor) -> torch.fx.Node:
        """A tensor from outside is a further operand."""
        fake = self._fake_of(tensor)
        node = self._placeholder(f"captured_{len(self.captured)}", tensor, fake)
        self.captured[id(tensor)] = (tensor, node)
        return node

    def _capture_symbol(self, symbol: Expr) -> torch.fx.Node:
        value = self.env.wrap(symbol)
        node = new_placeholder(self.graph, f"captured_{len(self.captured)}")
        node.meta["val"] = value
        self.symbols.bind(symbol, node)
        self.captured[symbol] = (value, node)
        return node

    def _follow_values(
        self,
        facts: operators.OperatorFacts,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        for tensor in operators.written_arguments(facts, args, kwargs):
            if id(self._fake_of(tensor).storage_) in self._outer_memory:
                raise self._refusal(f"{func} changes a tensor from outside of the branch.")
        super()._follow_values(facts, func, args, kwargs, result)

    def run(self, function: Callable[..., Any], values: Sequence[Any]) -> list[FakeTensor]:
        """Trace the branch; the fakes of its outputs, flat.

        Raises:
            NotSupported: an output that no operand of another kind may be.
        """
        deferred = len(self.env.deferred)
        symbols = len(self.env.symbols)
        with self.recording():
            outputs, self.out_spec = pytree.tree_flatten(function(*values))
            if len(self.env.deferred) > deferred or len(self.env.symbols) > symbols:
                raise self._refusal("A branch reads numbers or sizes from the data of a tensor.")
            nodes = [self.operand(self._checked(value)) for value in outputs]
        bare = self.returns_bare and self.out_spec.is_leaf()
        self.graph.output(nodes[0] if bare else tuple(nodes))
        self.finish()
        return outputs

    def _checked(self, value: Any) -> FakeTensor:
        if not isinstance(value, FakeTensor):
            raise self._refusal(f"A branch returns a {type(value).__name__}, not only tensors.")
        if id(value.storage_) in self._outer_memory:
            raise self._refusal("A branch returns a tensor from outside, or a view of one.")
        return value

    def _refusal(self, what: str) -> NotSupported:
        return NotSupported(
            what,
            why="the branches of torch.cond and torch.while_loop are functions of their operands",
            where=stack.summary(stack.raw_stack(self.floor)),
            hints=["return x.clone() instead of x; compute new tensors instead of changing old"],
        )

    def captured_requires_grad(self) -> bool:
        values = [value for value, _ in self.captured.values()]
        return any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)


# -- the operators --------------------------------------------------------------------------------


def cond(
    recorder: DispatchRecorder,
    pred: Any,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Any = (),
) -> Any:
    """``torch.cond`` during a trace; both branches are in the graph."""
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    values, spec = pytree.tree_flatten(tuple(operands))
    _check_operands(recorder, "torch.cond", values)
    branches = {"true_graph": true_fn, "false_graph": false_fn}
    children, outputs = [], []
    for function in branches.values():
        child = BranchRecorder(recorder)
        fakes = child.operands(values)
        outputs.append(child.run(_of_leaves(function, spec), fakes))
        children.append(child)
    _check_same(recorder, "torch.cond", outputs, [c.out_spec for c in children])
    further = _unite(recorder, children, len(values))
    modules, nodes = _install(recorder, list(branches), children)
    arguments = tuple(recorder.operand(v) for v in [*values, *further])
    node = recorder.create(
        higher_order.cond, (recorder.operand(pred), *nodes, arguments), {}, "cond"
    )
    results: list[Any] = outputs[0]
    if recorder.runs_on is None:
        results = modules[0 if bool(pred) else 1](*values, *further)
    return _results(recorder, node, results, children[0].out_spec)


def while_loop(
    recorder: DispatchRecorder,
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    carried_inputs: Any,
    additional_inputs: Any = (),
) -> Any:
    """``torch.while_loop`` during a trace; condition and body are in the graph."""
    values, spec = pytree.tree_flatten(tuple(carried_inputs))
    if additional_inputs:
        raise NotSupported("torch.while_loop with additional inputs cannot be traced yet.")
    _check_operands(recorder, "torch.while_loop", values)
    condition, body = BranchRecorder(recorder, returns_bare=True), BranchRecorder(recorder)
    decision = condition.run(_of_leaves(cond_fn, spec), condition.operands(values))
    outputs = body.run(_of_leaves(body_fn, spec), body.operands(values))
    carried = [recorder.fake_mode.adopt(v) for v in values]
    _check_same(recorder, "torch.while_loop", [carried, outputs], [body.out_spec] * 2)
    if not condition.out_spec.is_leaf() or decision[0].sizes or decision[0].dtype is not torch.bool:
        raise InvalidInput("The condition of torch.while_loop returns one boolean scalar tensor.")
    further = _unite(recorder, [condition, body], len(values))
    names = ["while_loop_cond_graph", "while_loop_body_graph"]
    modules, nodes = _install(recorder, names, [condition, body])
    arguments = tuple(recorder.operand(v) for v in values)
    constants = tuple(recorder.operand(v) for v in further)
    node = recorder.create(
        higher_order.while_loop, (*nodes, arguments, constants), {}, "while_loop"
    )
    results: list[Any] = outputs
    if recorder.runs_on is None:
        results = [v.clone() for v in values]  # no iteration: still not the operands themselves
        while bool(modules[0](*results, *further)):
            results = modules[1](*results, *further)
    return _results(recorder, node, results, body.out_spec)


def _of_leaves(function: Callable[..., Any], spec: pytree.TreeSpec) -> Callable[..., Any]:
    return lambda *leaves: function(*pytree.tree_unflatten(list(leaves), spec))


def _check_operands(recorder: DispatchRecorder, name: str, values: list[Any]) -> None:
    recorder.flush_asserts()  # here, not in a branch
    problem = ""
    if not all(isinstance(v, torch.Tensor) for v in values):
        problem = "has an operand that is not a tensor"
    elif torch_private.inside_transform():
        problem = "is inside a transform of torch.func"
    elif _would_differentiate(recorder, [v.requires_grad for v in values]):
        problem = "has an operand that requires grad"
    if problem:
        raise _refuse(recorder, f"{name} {problem}.")


def _would_differentiate(recorder: DispatchRecorder, requires_grad: list[bool]) -> bool:
    """Below autograd a backward pass through the branches would have to be in the graph."""
    return not recorder.options.pre_dispatch and torch.is_grad_enabled() and any(requires_grad)


def _refuse(recorder: DispatchRecorder, what: str) -> NotSupported:
    return NotSupported(
        what,
        why="make_fx traces control flow without gradients and outside of transforms only",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["trace under torch.no_grad(), or choose with torch.where"],
    )


def _check_same(
    recorder: DispatchRecorder, name: str, outputs: list[list[FakeTensor]], specs: list[Any]
) -> None:
    """Both sides return tensors of the same structure, sizes and dtypes."""
    pairs = list(zip(*outputs, strict=False))
    same = specs[0] == specs[1] and all(_alike(recorder, a, b) for a, b in pairs)
    if not same:
        raise _refuse(recorder, f"{name}: both sides must return tensors of the same metadata.")


def _alike(recorder: DispatchRecorder, a: FakeTensor, b: FakeTensor) -> bool:
    ctx = recorder.fake_mode.ctx
    kinds = (a.dtype, a.device, len(a.sizes)) == (b.dtype, b.device, len(b.sizes))
    return kinds and all(ctx.known(eq(m, n)) is True for m, n in zip(a.sizes, b.sizes, strict=True))


def _unite(recorder: DispatchRecorder, children: list[BranchRecorder], count: int) -> list[Any]:
    """Give all branches the same further placeholders, in the same order; the values for them."""
    if _would_differentiate(recorder, [c.captured_requires_grad() for c in children]):
        raise _refuse(recorder, "A branch uses a tensor from outside that requires grad.")
    values = {key: value for child in children for key, (value, _) in child.captured.items()}
    for child in children:
        nodes = [n for n in child.graph.nodes if n.op == "placeholder"][:count]
        for i, (key, value) in enumerate(values.items()):
            with child.graph.inserting_before(next(iter(child.graph.nodes))):
                known = child.captured.get(key)
                node = new_placeholder(child.graph, f"unused_{i}") if known is None else known[1]
            if known is None:
                child.describe(node, child.fake_mode.adopt(value) if _is_tensor(value) else value)
            nodes.append(node)
        for node in reversed(nodes):
            first = next(iter(child.graph.nodes))
            if first is not node:
                first.prepend(node)
    return list(values.values())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _install(
    recorder: DispatchRecorder, names: list[str], children: list[BranchRecorder]
) -> tuple[list[torch.fx.GraphModule], list[torch.fx.Node]]:
    """Put the graph modules of branches below the root; they and the nodes that read them."""
    root = recorder.attributes.root
    number = 0
    while hasattr(root, f"{names[0]}_{number}"):
        number += 1
    modules, nodes = [], []
    for name, child in zip(names, children, strict=True):
        module = torch_private.lazy_graph_module(child.graph, child.attributes.root)
        root.add_module(f"{name}_{number}", module)
        modules.append(module)
        nodes.append(recorder.graph.get_attr(f"{name}_{number}"))
    return modules, nodes


def _results(recorder: DispatchRecorder, node: torch.fx.Node, results: list[Any], spec: Any) -> Any:
    """The results as the surrounding trace knows them: elements of the node."""
    fresh = [r.snapshot() if isinstance(r, FakeTensor) else r for r in results]
    recorder.describe(node, tuple(fresh))
    recorder._track(tuple(fresh), node)
    return pytree.tree_unflatten(fresh, spec)


def stand_in(recorder: DispatchRecorder, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` (``cond`` or ``while_loop``) for this recorder, outside of its recording:
    it makes the nodes itself."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch_private.modes_taken_off(lambda m: isinstance(m, (RecordingMode, FunctionMode))):
            return function(recorder, *args, **kwargs)

    return call


FUNCTIONS = {"cond": cond, "while_loop": while_loop}
