"""Subgraphs: functions that a higher-order operator takes, each traced to a graph of its own.

While a :class:`Subgraph` is open, the recorder makes its nodes there. What the function takes from
outside is not copied into it: the first use of an outside value makes a placeholder, and the value
becomes an operand of the higher-order operator. What is learnt about sizes inside holds inside only
(another arm may run), except for guards, which every call of the whole graph satisfies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported, SideEffectError
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, Range
from stillframe.trace import metadata, operators
from stillframe.trace.higher_order_grad import Tie
from stillframe.trace.symbols import SymbolNodes

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten


class WritesOutside(SideEffectError):
    """A function given to an operator changes a tensor that it did not make.

    Attributes:
        tensor: the tensor that is changed, or shown by a view that is.
        subgraph: the graph of the function.
    """

    def __init__(self, what: str, tensor: FakeTensor, subgraph: Subgraph, **parts: object) -> None:
        super().__init__(what, **parts)
        self.tensor = tensor
        self.subgraph = subgraph


@dataclass(frozen=True)
class Place:
    """Where nodes are made: the graph of the program, or that of a subgraph.

    Attributes:
        graph: the graph.
        symbols: its nodes of symbolic values.
        root: holds the modules and tensors that the graph reads as attributes.
        subgraph: the subgraph, if it is one.
    """

    graph: torch.fx.Graph
    symbols: SymbolNodes
    root: torch.nn.Module
    subgraph: Subgraph | None = None

    def reaches(self, graph: torch.fx.Graph) -> bool:
        """Whether what was made in a graph can be used here: it is this one, or one around it."""
        if graph is self.graph:
            return True
        return self.subgraph is not None and self.subgraph.around.reaches(graph)


class Subgraph:
    """One function of a higher-order operator as a graph.

    Args:
        recorder: records the trace; its present graph is the one outside.
        owner: what the function belongs to, for errors: ``"torch.cond"``.
        may_copy: a result that is an operand, or a view of one, is copied; else it is refused.
        keeps_aliases: such a result is returned as it is.

    Attributes:
        graph, root: the graph, and the module that holds its own subgraphs.
        inputs: placeholders of the explicit operands.
        captured: node outside -> placeholder, for what the function closes over.
        values: node outside -> the value itself.
        outputs: the leaves of the result (fakes, symbolic numbers, constants).
        ranges: of each output, what was known of its sizes inside.
        out_spec: the structure of the result.
        own_symbols: symbols made inside; outside they mean nothing.
        around: where the recorder made nodes before.
        own_backward: the name of an ``autograd.Function`` that the function applies, if any: its
            backward is not in the graph.
    """

    def __init__(
        self, recorder: Recorder, owner: str, *, may_copy: bool = True, keeps_aliases: bool = False
    ) -> None:
        self.recorder = recorder
        self.keeps_aliases = keeps_aliases
        self.may_copy = may_copy
        self.owner = owner
        self.graph = torch.fx.Graph()
        self.root = torch.nn.Module()
        self.symbols = SymbolNodes(recorder.create_symbolic, self._captured_symbol)
        self.inputs: list[torch.fx.Node] = []
        self.captured: dict[torch.fx.Node, torch.fx.Node] = {}
        self.values: dict[torch.fx.Node, Any] = {}
        self.outputs: list[Any] = []
        self.ranges: list[tuple[Range, ...]] = []
        self.out_spec: pytree.TreeSpec | None = None
        self.own_symbols: frozenset[Expr] = frozenset()
        self.own_backward = ""
        self._grad_enabled = torch.is_grad_enabled()
        self._outside: dict[int, FakeStorage] = {}
        self._copied: dict[int, FakeTensor] = {}  # by storage
        self._rebound: list[tuple[FakeTensor, Any]] = []
        self.around = recorder.place
        recorder.subgraphs.append(self.graph)

    # -- tracing --------------------------------------------------------------------------------

    def trace(
        self,
        function: Callable[..., Any],
        values: Sequence[Any],
        assumed: Expr | None = None,
        *,
        nodes: Sequence[Any] = (),
        bare: bool = False,
        nested: bool = False,
        listening: bool = True,
    ) -> Subgraph:
        """Run ``function(*values)`` and keep its operators here.

        Args:
            values: as the function sees them, see :func:`inside`.
            assumed: a condition that holds whenever the function runs.
            nodes: the operands that the values stand for; placeholders of programs have their
                names.
            bare: the graph returns its only result itself, and no tuple of it.
            nested: the graph returns the containers of the result, and no flat tuple.
            listening: operators that the function runs are recorded; else it records by itself.

        Raises:
            SideEffectError: the function changes a tensor that it did not make.
            NotSupported: a result that a graph cannot return.
        """
        recorder, env = self.recorder, self.recorder.env
        with self._opened(listening), env.forgetting(assumed):
            before = len(env.given_out)
            for i, value in enumerate(values):
                self._add_input(value, self._input_name(i, nodes))
            result = function(*values)
            leaves, spec = pytree.tree_flatten(result)
            self.out_spec = spec
            operands = [self._output(leaf) for leaf in leaves]
            recorder.flush_asserts()

            def arranged(leaves: list[Any]) -> Any:
                if nested:
                    return pytree.tree_unflatten(leaves, spec)
                return leaves[0] if bare and len(leaves) == 1 else tuple(leaves)

            output = self.graph.output(arranged(operands))
            recorder.describe(output, arranged(self.outputs))
            self.own_symbols = frozenset(env.given_out[before:])
            recorder.inner_symbols |= self.own_symbols
            self.ranges = [tuple(env.facts.range_of(s) for s in _sizes(v)) for v in self.outputs]
        return self

    @contextlib.contextmanager
    def _opened(self, listening: bool) -> Iterator[None]:
        """The recorder works here; outside, it then finds everything as it was."""
        recorder = self.recorder
        recorder.flush_asserts()
        watched = torch_private.autograd_functions_watched(self._note_own_backward)
        heard = recorder.listening() if listening else contextlib.nullcontext()
        with recorder.working_on(self.place), recorder.answering_with_fakes(), heard, watched:
            try:
                yield
            finally:
                for fake, held in reversed(self._rebound):
                    fake.fx_node = held

    @property
    def place(self) -> Place:
        """Where the recorder makes the nodes of this graph."""
        return Place(self.graph, self.symbols, self.root, self)

    def reopen(self) -> Any:
        """Take the output off again, so that nodes can follow; returns what it returned."""
        output = next(reversed(self.graph.nodes))
        returned = output.args[0]
        self.graph.erase_node(output)
        return returned

    def finish(self, returned: Any) -> None:
        """Return these nodes, in containers, from a graph that was reopened."""
        output = self.graph.output(returned)
        output.meta["val"] = pytree.tree_map(
            lambda v: v.meta["val"] if isinstance(v, torch.fx.Node) else v, returned
        )

    def _note_own_backward(self, cls: Any, args: Any, run: Any) -> Any:
        if cls is not Tie:
            self.own_backward = cls.__qualname__
        return NotImplemented

    def _input_name(self, i: int, nodes: Sequence[Any]) -> str:
        node = nodes[i] if i < len(nodes) else None
        if self.recorder.names_of_operands and isinstance(node, torch.fx.Node):
            return node.name
        return f"arg{i}_1"

    def _add_input(self, value: Any, name: str) -> None:
        node = self._placeholder(name, value)
        self.inputs.append(node)
        if isinstance(value, FakeTensor):
            value.fx_node = node
            self._outside[id(value.storage_)] = value.storage_

    def _placeholder(self, name: str, value: Any) -> torch.fx.Node:
        """A placeholder after the others; sizes can be read off it."""
        first = next((n for n in self.graph.nodes if n.op != "placeholder"), None)
        place = contextlib.nullcontext() if first is None else self.graph.inserting_before(first)
        with place:
            node = self.graph.placeholder(name)
        node.target = node.name  # fx makes names unique, and not targets
        self.recorder.describe(node, value)
        if isinstance(value, FakeTensor):
            self.symbols.bind_layout(value, lambda: node)
        elif isinstance(to_size(value), Expr):
            self.symbols.bind(to_size(value), node)
        return node

    def _output(self, leaf: Any) -> Any:
        """An output of the graph: never memory that is reached in another way, too."""
        if isinstance(leaf, torch.Tensor):
            if torch_private.is_functorch_wrapper(leaf):
                raise self._refused(
                    "returns a tensor that is inside a transform of torch.func",
                    "pass what it uses as an operand",
                )
            node = self.recorder.operand(leaf)
            fake = self.recorder.fake_mode.adopt(leaf)
            if id(fake.storage_) in self._outside and not self.keeps_aliases:
                if not self.may_copy:
                    raise self._refused(
                        "returns a tensor from outside, or a view of one",
                        "return a copy: x.clone()",
                    )
                leaf = self.recorder.record(aten.clone.default, (leaf,), {})
                fake, node = leaf, self.recorder.operand(leaf)
            self._outside[id(fake.storage_)] = fake.storage_
            self.outputs.append(fake)
            return node
        if not (leaf is None or isinstance(leaf, (int, float, torch.SymInt, torch.SymBool))):
            raise self._refused(
                f"returns a {type(leaf).__name__}", "return tensors, integers and None"
            )
        self.outputs.append(leaf)
        return self.recorder.operand(leaf)

    def is_from_outside(self, value: torch.Tensor) -> bool:
        """Whether the memory of a tensor was not made here; the tensor can be used here then."""
        self.recorder.operand(value)
        return id(self.recorder.fake_mode.adopt(value).storage_) in self._outside

    def _refused(self, what: str, hint: str) -> NotSupported:
        return NotSupported(
            f"A function given to {self.owner} {what}.",
            where=stack.summary(stack.raw_stack(self.recorder.floor)),
            hints=[hint],
        )

    # -- values from outside ----------------------------------------------------------------------

    def capture(self, value: Any) -> Any:
        """The placeholder here of a value from outside."""
        with self.recorder.working_on(self.around):
            outer = self.recorder.operand(value)
        if not isinstance(outer, torch.fx.Node):
            return outer
        if isinstance(value, torch.Tensor):
            self._check_copies(value)
            self.note_outside(value)
        return self.placeholder_of(outer, value)

    def _check_copies(self, value: torch.Tensor) -> None:
        fake = self.recorder.fake_mode.adopt(value)
        if self._copied.get(id(fake.storage_), fake) is not fake:
            raise self._refused(
                "changes a tensor in place, and uses another one with the same memory",
                "use one of the two only",
            )

    def note_outside(self, value: torch.Tensor) -> None:
        """The memory of a tensor is not this graph's own."""
        storage = self.recorder.fake_mode.adopt(value).storage_
        self._outside[id(storage)] = storage

    def capture_tensor(self, value: torch.Tensor) -> torch.fx.Node:
        """The placeholder here of a tensor from outside."""
        node = self.capture(value)
        assert isinstance(node, torch.fx.Node)
        return node

    def placeholder_of(self, outer: torch.fx.Node, value: Any) -> torch.fx.Node:
        """The placeholder that stands for a node outside; made if there is none."""
        known = self.captured.get(outer)
        if known is None:
            seen = metadata.value_of_result(self.recorder.env, value)
            known = self.captured[outer] = self._placeholder(outer.name, seen)
            self.values[outer] = value
        return known

    def _captured_symbol(self, symbol: Expr) -> torch.fx.Node:
        node = self.capture(self.recorder.env.wrap(symbol))
        assert isinstance(node, torch.fx.Node)
        return node

    def remember(self, fake: FakeTensor) -> None:
        """``fake`` is about to get a node here; if it has one elsewhere, it gets that back."""
        if fake.fx_node is not None and graph_of(fake.fx_node) is not self.graph:
            self._rebound.append((fake, fake.fx_node))

    def note_grad_mode(self, node: torch.fx.Node) -> None:
        """In a trace below autograd: whether gradients flow through a node, if they do at all."""
        if torch.is_grad_enabled() == self._grad_enabled:
            return
        if not self._grad_enabled:
            if self.recorder.is_differentiating:
                return
            raise self._refused(
                "switches gradients on where they are off outside",
                "switch them on around the whole call",
            )
        node.meta[operators.NO_GRAD] = True

    def check_writes(self, func: Any, args: Any, kwargs: Any) -> None:
        """Refuse an in-place operator on memory that the function did not make."""
        facts = operators.facts_of(func)
        for tensor in operators.written_arguments(facts, args, kwargs):
            fake = self.recorder.fake_mode.adopt(tensor)
            elsewhere = fake.fx_node is None or graph_of(fake.fx_node) is not self.graph
            if not elsewhere and id(fake.storage_) in self._copied:
                self._check_gradient(fake)
            elif elsewhere or id(fake.storage_) in self._outside:
                raise WritesOutside(
                    f"A function given to {self.owner} changes a tensor from outside in place "
                    f"({func}).",
                    fake if elsewhere else self._shown_by(fake),
                    self,
                    why="the graph says what such a function returns, not what else it changes",
                    where=stack.summary(stack.raw_stack(self.recorder.floor)),
                    hints=["return the new value, and copy it into the tensor afterwards"],
                )

    def _shown_by(self, view: FakeTensor) -> FakeTensor:
        """The tensor from outside whose memory a view that was made here shows."""
        found = map(self.recorder.fake_mode.adopt, filter(_is_tensor, self.values.values()))
        return next((fake for fake in found if fake.storage_ is view.storage_), view)

    def _check_gradient(self, fake: FakeTensor) -> None:
        """A write that autograd does not see is no longer hidden from it behind a copy."""
        if fake.requires_grad and torch.is_grad_enabled() != self._grad_enabled:
            raise self._refused(
                "changes a tensor that requires grad, in another grad mode than around it",
                "change it out of place",
            )

    def copy_in(self, tensor: FakeTensor) -> None:
        """From here on ``tensor`` is a copy of what it is outside, and may be written.

        Other tensors that show its memory may not be used here: they would not see the writes.
        """
        copy = self.recorder.record(aten.clone.default, (tensor,), {})
        self.remember(tensor)
        tensor.fx_node = copy.fx_node
        self._copied[id(tensor.storage_)] = tensor

    def module(self, name: str) -> torch.fx.GraphModule:
        """The graph as a module."""
        return torch_private.lazy_graph_module(self.graph, self.root, name)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def graph_of(held: Any) -> torch.fx.Graph:
    """The graph of what a fake holds: a node, or a place in the tuple of one."""
    node: torch.fx.Node = held if type(held) is torch.fx.Node else held.node
    return node.graph


def inside(recorder: Recorder, value: Any) -> Any:
    """A value as a function of a higher-order operator sees it: a fake of the same metadata."""
    if not isinstance(value, torch.Tensor):
        return value
    fake = recorder.fake_mode.adopt(value)
    return FakeTensor.make(
        recorder.env, fake.sizes, fake.strides, fake.offset, fake.dtype, fake.device,
        fake.requires_grad,
    )  # fmt: skip


def close(*subgraphs: Subgraph) -> list[tuple[torch.fx.Node, Any]]:
    """Give all subgraphs placeholders for what any of them closes over, in one order.

    Returns:
        ``(node outside, value)`` in that order, after the explicit operands.
    """
    values: dict[torch.fx.Node, Any] = {}
    for subgraph in subgraphs:
        values.update(subgraph.values)
    for subgraph in subgraphs:
        last = subgraph.inputs[-1] if subgraph.inputs else None
        for outer, value in values.items():
            node = subgraph.placeholder_of(outer, value)
            if last is None:
                first = next(iter(subgraph.graph.nodes))
                if first is not node:
                    first.prepend(node)
            else:
                last.append(node)
            last = node
    return list(values.items())


def _sizes(value: Any) -> tuple[Any, ...]:
    if isinstance(value, FakeTensor):
        return value.sizes
    size = to_size(value)
    is_integer = type(size) is int or (isinstance(size, Expr) and size.sort == "int")
    return (size,) if is_integer else ()


def refuse_escaped(owner_floor: Any, what: str = "tensor") -> SideEffectError:
    """The error for what was made inside a subgraph and is used outside."""
    return SideEffectError(
        f"A {what} that a function of a higher-order operator made is used outside of it, and the "
        "function did not return it.",
        why="which arm runs, and how often, is known only when the program runs",
        where=stack.summary(stack.raw_stack(owner_floor)),
        hints=["return it from the function"],
    )
