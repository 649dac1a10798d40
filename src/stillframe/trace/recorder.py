"""Recorder: the one place that makes graph nodes.

A :class:`Recorder` owns an fx graph under construction. While :meth:`Recorder.recording` is
active, every operator that the thread runs is answered with fakes and becomes one node: resolve
the metadata, create the node, note which node each result is. Composite operators arrive whole,
because the autograd keys are excluded: the graph is pre-dispatch ATen in a single pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

import torch

from stillframe import stack, torch_private
from stillframe.errors import DataDependentError, InternalError, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.shapes.node import SymNode
from stillframe.symbolic import Expr
from stillframe.trace import autocast, autograd_functions, folding, higher_order, operators
from stillframe.trace import layout_changes as _layout_changes  # noqa: F401  (register themselves)
from stillframe.trace import transformer as _transformer  # noqa: F401
from stillframe.trace.functions import FunctionMode
from stillframe.trace.grad_regions import GradRegions
from stillframe.trace.reads import OF_MODES, Reads
from stillframe.trace.scope import ModuleScope, tracking
from stillframe.trace.script_objects import ScriptObjects
from stillframe.trace.subgraphs import Place, Subgraph, graph_of, refuse_escaped
from stillframe.trace.symbols import SymbolNodes

aten = torch.ops.aten

_ORIGIN = ("nn_module_stack", "stack_trace")

LiftConstant = Callable[[torch.Tensor, FakeTensor], torch.fx.Node]


class Recorder:
    """Builds one graph from one run.

    Args:
        env: the shape environment; symbols of inputs are made by the caller.
        scope: tells which module call is open.
        lift_constant: called for each real tensor that an operator meets for the first time;
            makes and returns the placeholder that stands for it.
        floor: the frame that called the capture; user stacks stop there.
        fake_mode: answers the operators; a new one by default.

    Attributes:
        graph, symbols, root, subgraph: where nodes are made now, see :class:`Place`.
        objects: the script objects that the run met.
        subgraphs: the graphs of all subgraphs.
        inner_symbols: symbols that were made in subgraphs; outside they mean nothing.
        notes: what a reader of the graph should know.
        is_differentiating: a subgraph is run for its gradient.
        meets_autocast: there was an autocast region, maybe one around the run.
        inside_function: the forward of a ``torch.autograd.Function`` is being run.
        written: fakes that an in-place operator changed, by identity.
        state_values: the real buffers and constants behind fakes, by identity of the fake.
        checked_values: of these, the integers that the program relies on and checks.
        origin: metadata of the node that is being run, where a graph is captured again; its
            module stack and user lines are taken over.
    """

    # placeholders of subgraphs are called what the operands are called
    names_of_operands = True

    def __init__(
        self,
        env: ShapeEnv,
        scope: ModuleScope,
        lift_constant: LiftConstant,
        floor: FrameType | None = None,
        fake_mode: FakeMode | None = None,
    ) -> None:
        self.env = env
        self.fake_mode = fake_mode or FakeMode(env)
        self.graph = torch.fx.Graph()
        self.scope = scope
        self.floor = floor
        self.symbols = SymbolNodes(self.create_symbolic, self._escaped_symbol)
        self.inner_symbols: set[Expr] = set()
        self.root = torch.nn.Module()
        self.subgraph: Subgraph | None = None
        self.subgraphs: list[torch.fx.Graph] = []
        self._outermost = self.place
        self.notes: list[str] = []
        self.is_differentiating = False
        self.meets_autocast = False
        self.inside_function = False
        self.functions = FunctionMode(self)
        self.mode = RecordingMode(self)
        self.written: dict[int, FakeTensor] = {}
        self.state_values: dict[int, torch.Tensor] = {}
        self.checked_values: dict[int, Any] = {}
        self.origin: dict[str, Any] = {}
        self._lift_constant = lift_constant
        self._stacks: list[tuple[torch.fx.Node, stack.RawStack]] = []
        self._assert_stack: stack.RawStack | None = None
        self.reads = Reads(floor)
        self.grad_regions = GradRegions(self)
        self.objects = ScriptObjects(self)
        self._items: dict[tuple[torch.fx.Node, int], torch.fx.Node] = {}

    # -- the run ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Operators of this thread are recorded inside. Restores every global it changes."""
        old_floor, self.env.stack_floor = self.env.stack_floor, self.floor
        self.scope.grad_mode = self.grad_mode
        self.meets_autocast = torch_private.any_autocast_enabled()
        try:
            with (
                torch_private.compiling_flags(),
                torch_private.autocast_cache_disabled(),
                higher_order.intercepted(self),
                torch_private.autocast_watched(self._note_autocast, self._leave_autocast),
                torch_private.autograd_functions_watched(self._apply_function),
                self.reads.watching(),
                self.objects.answered(),
                torch_private.below_autograd(),
                self.grad_regions.watched(),
                tracking(self.scope),
                self.mode,
                self.functions,
            ):
                yield
        finally:
            self.env.stack_floor = old_floor

    def finish(self) -> None:
        """Write the stack traces, and drop what only the run needed. Call once, at the end."""
        self.flush_asserts()
        self.grad_regions.finish()
        texts: dict[stack.RawStack, str] = {}  # layers of one class run the same lines
        for node, raw in self._stacks:
            text = texts.get(raw)
            if text is None:
                text = texts[raw] = stack.stack_trace(raw)
            if text:
                node.meta.setdefault("stack_trace", text)
        self._stacks.clear()

    # -- where nodes are made -----------------------------------------------------------------

    @property
    def place(self) -> Place:
        """Where nodes are made now."""
        return Place(self.graph, self.symbols, self.root, self.subgraph)

    @contextlib.contextmanager
    def working_on(self, place: Place) -> Iterator[None]:
        """Nodes are made at ``place`` inside."""
        old = self.place
        self._go_to(place)
        try:
            yield
        finally:
            self._go_to(old)

    def _go_to(self, place: Place) -> None:
        self.graph, self.symbols, self.root = place.graph, place.symbols, place.root
        self.subgraph = place.subgraph

    def at_root(self) -> contextlib.AbstractContextManager[None]:
        """Nodes are made in the graph of the program inside, which runs in every call."""
        return self.working_on(self._outermost)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Both modes are active inside, also if one of them called."""
        with contextlib.ExitStack() as entered:
            if self.mode not in torch_private.dispatch_modes():
                entered.enter_context(self.mode)
            if self.functions not in torch_private.function_modes():
                entered.enter_context(self.functions)
            yield

    @property
    def above_autograd(self) -> bool:
        """Whether operators are recorded before autograd takes effect."""
        return True

    @contextlib.contextmanager
    def run_of(self, node: torch.fx.Node) -> Iterator[None]:
        """What is recorded inside stands for ``node``."""
        old, self.origin = self.origin, node.meta
        try:
            yield
        finally:
            self.origin = old

    @contextlib.contextmanager
    def differentiating(self) -> Iterator[None]:
        """A subgraph is run for its gradient inside; it switches gradients as it needs them."""
        old, self.is_differentiating = self.is_differentiating, True
        try:
            yield
        finally:
            self.is_differentiating = old

    @contextlib.contextmanager
    def answering_with_fakes(self) -> Iterator[None]:
        """Operators are answered with fakes inside, also in a trace of real tensors."""
        yield

    def describe(self, node: torch.fx.Node, value: Any) -> None:
        """Write the metadata of a node for the value that it computes."""
        node.meta["val"] = value

    # -- inputs -------------------------------------------------------------------------------

    def placeholder(self, name: str, value: Any) -> torch.fx.Node:
        """A placeholder with ``val``; a fake tensor is tracked by it and binds its sizes."""
        node = new_placeholder(self.graph, name)
        self.stands_for(node, value)
        return node

    def stands_for(self, node: torch.fx.Node, value: Any) -> None:
        """What a placeholder stands for: it tells the sizes."""
        node.meta["val"] = value
        if isinstance(value, FakeTensor):
            value.fx_node = node
            self.symbols.bind_sizes(value.sizes, lambda: node)
            self.symbols.bind_specified(value, lambda: node)
        else:
            number = to_size(value)
            if isinstance(number, Expr):
                self.symbols.bind(number, node)

    # -- nodes --------------------------------------------------------------------------------

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """A ``call_function`` node with where-it-came-from metadata."""
        node = self.graph.create_node("call_function", target, args, kwargs, name)
        if self.functions.current is not None:
            node.meta["torch_fn"] = self.functions.current
        self.locate(node)
        return node

    def locate(self, node: torch.fx.Node) -> None:
        """Note where in the modules and in the user's code a node was made."""
        meta = node.meta
        if self.scope.stack:
            meta["nn_module_stack"] = self.scope.stack
        meta.update((k, self.origin[k]) for k in _ORIGIN if k in self.origin)
        place = self._assert_stack
        self._stacks.append((node, stack.raw_stack(self.floor) if place is None else place))

    def create_symbolic(self, target: Any, args: tuple[Any, ...], value: Any) -> torch.fx.Node:
        node = self.create(target, args, {})
        node.meta["val"] = self.env.wrap(value)
        return node

    def _escaped_symbol(self, symbol: Expr) -> torch.fx.Node:
        """There is no node in the outermost graph for a symbol of a subgraph."""
        if symbol in self.inner_symbols:
            raise refuse_escaped(self.floor, "number")
        raise InternalError(f"the symbol {symbol} is bound by no input and no operator")

    def operand(self, value: Any) -> Any:
        """An operator argument as the graph holds it: nodes for tensors and symbolic values."""
        kind = type(value)
        if kind is FakeTensor:
            node = value.fx_node
            if type(node) is torch.fx.Node and node.graph is self.graph:
                return node
            return self._node_of(value)
        if kind is int or kind is float or kind is bool or value is None or kind is str:
            return value
        if isinstance(value, (list, tuple)):
            return [self.operand(v) for v in value]
        if isinstance(value, torch.Tensor):
            return self._node_of(self.fake_mode.adopt(value), value)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            if not isinstance(value.node, SymNode):
                raise NotSupported("A symbolic value of another capture reached this one.")
            return self.symbols.node(value.node.expr)
        if isinstance(value, (torch.ScriptObject, FakeScriptObject)):
            return self.objects.node(value)
        if isinstance(value, torch.Generator):
            raise NotSupported(
                "A torch.Generator passed to an operator in forward cannot be captured yet.",
                where=stack.summary(stack.raw_stack(self.floor)),
                hints=["draw the random numbers outside and pass them as an input"],
            )
        return value

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        node = fake.fx_node
        if node is None or graph_of(node) is not self.graph:
            if self.subgraph is not None:
                return self.subgraph.capture_tensor(fake if real is None else real)
            if node is not None and graph_of(node) in self.subgraphs:
                raise refuse_escaped(self.floor)
        if isinstance(node, operators.Item):
            node = fake.fx_node = self._take_item(node)
        elif node is None:
            if real is None:
                raise InternalError("a fake tensor without a node reached the recorder")
            node = self._lift_constant(real, fake)
            fake.fx_node = node
        return node  # type: ignore[no-any-return]

    def item_node(self, node: torch.fx.Node, index: int) -> torch.fx.Node:
        """The node of one element of the tuple that ``node`` returns."""
        return self._take_item(operators.Item(node, (index,)))

    def track(self, result: Any, node: torch.fx.Node) -> None:
        """``node`` computes ``result``: a tensor, or a container of them."""
        self._track(result, node)

    def track_result(self, result: Any, node: torch.fx.Node) -> None:
        """:meth:`track`, and the new symbols of the result can be read off it."""
        fresh = self.env.take_fresh_unbacked()
        self._track(result, node)
        if fresh:
            self._bind_unbacked(fresh, node, result)

    def bind_symbols(self, symbols: list[Expr], node: torch.fx.Node, result: Any) -> None:
        """Unbacked symbols can be read off what ``node`` returns."""
        self._bind_unbacked(symbols, node, result)

    def _take_item(self, item: operators.Item) -> torch.fx.Node:
        node = item.node
        for index in item.path:
            key = (node, index)
            known = self._items.get(key)
            if known is None:
                known = self._items[key] = self.create(operators.getitem, (node, index), {})
                held = node.meta["val"][index]
                known.meta["val"] = held
            node = known
        return node

    # -- one operator -------------------------------------------------------------------------

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one operator call and make its node."""
        facts = operators.facts_of(func)
        if self.subgraph is not None:
            self.subgraph.check_writes(func, args, kwargs)
        if facts.special is not None:
            handled = facts.special(self, func, args, kwargs)
            if handled is not NotImplemented:
                return handled
        if self.meets_autocast and autocast.casts_parts(func, args, kwargs):
            return autocast.taken_apart(func, args, kwargs, self.mode)
        if self.env.deferred:
            self.flush_asserts()
        self.env.may_raise = False
        if facts.takes_object:
            args, kwargs = self.objects.stood_for((args, kwargs))
        result = self.fake_mode.run(func, args, kwargs)
        if facts.pure_constant and not _has_tensor(result):
            return result
        node = self.create(
            func,
            tuple(self.operand(a) for a in args),
            {k: self.operand(v) for k, v in kwargs.items()},
            facts.name,
        )
        node.meta["val"] = result
        if facts.writes:
            if not folding.write_constants(func, args, kwargs):
                self._note_writes(facts, args, kwargs)
        elif facts.may_fold:
            folding.fold(self, func, args, kwargs, result)
        fresh = self.env.take_fresh_unbacked()
        self._track(result, node)
        if self.env.may_raise:
            node.meta[operators.MAY_RAISE] = True
        if fresh:
            self._bind_unbacked(fresh, node, result)
        return result

    def _track(self, result: Any, node: torch.fx.Node) -> None:
        if type(result) is FakeTensor:
            if self.subgraph is not None:
                self.subgraph.remember(result)
            result.fx_node = node
            self._check_sizes(result)
        elif isinstance(result, (list, tuple)):
            self._track_items(result, node, ())

    def _check_sizes(self, result: FakeTensor) -> None:
        if self.env.may_be_negative(result.sizes):
            self.env.may_raise = True

    def _track_items(self, results: Any, node: torch.fx.Node, path: tuple[int, ...]) -> None:
        for i, item in enumerate(results):
            if type(item) is FakeTensor:
                if self.subgraph is not None:
                    self.subgraph.remember(item)
                item.fx_node = operators.Item(node, (*path, i))
                self._check_sizes(item)
            elif isinstance(item, (list, tuple)):
                self._track_items(item, node, (*path, i))

    def _note_writes(
        self, facts: operators.OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        for tensor in operators.written_arguments(facts, args, kwargs):
            fake = self.fake_mode.adopt(tensor)
            fake.storage_.written += 1
            self.written[id(fake)] = fake

    # -- symbols that operators bind ------------------------------------------------------------

    def _bind_unbacked(self, fresh: list[Expr], node: torch.fx.Node, result: Any) -> None:
        """Where each new unbacked symbol can be read off the result."""
        bindings: dict[Expr, tuple[Any, ...]] = {}
        for symbol in fresh:
            place = self._find(symbol, result, node, ())
            if place is None:
                if torch_private.is_composite_implicit(node.target):  # type: ignore[arg-type]
                    raise NotSupported(
                        f"{node.target} reads a number from data, and its result depends on it.",
                        why="the number itself is not among its results",
                        where=stack.summary(stack.raw_stack(self.floor)),
                        hints=["read it before: tensor.item() or tensor.tolist()"],
                    )
                raise InternalError(
                    f"{node.target} made the symbol {symbol} and does not return it"
                )
            bindings[symbol] = place
        node.meta["unbacked_bindings"] = bindings

    def _find(
        self, symbol: Expr, value: Any, node: torch.fx.Node, path: tuple[int, ...]
    ) -> tuple[Any, ...] | None:
        if isinstance(value, FakeTensor):
            for dim, size in enumerate(value.sizes):
                if size is symbol:
                    self.symbols.bind_size(symbol, lambda: self._node_of(value), dim)
                    return (*path, "size", dim)
            if value.sparse is not None and value.sparse.nnz is symbol:
                self.symbols.bind_specified(value, lambda: self._node_of(value))
                return (*path, "nnz")
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                found = self._find(symbol, item, node, (*path, i))
                if found is not None:
                    return found
        elif isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            if operators.tells(value.node.expr, symbol):
                item = self._take_item(operators.Item(node, path))
                return (*path, *operators.bind_item(self, symbol, value.node.expr, item))
        return None

    def flush_asserts(self) -> None:
        """Turn the environment's deferred asserts into nodes, at the present place."""
        pending, self.env.deferred[:] = list(self.env.deferred), []
        for check in pending:
            self._assert_stack = check.stack
            condition = self.symbols.node(check.expr)
            node = self.create(aten._assert_scalar.default, (condition, check.message), {})
            node.meta["val"] = None
        self._assert_stack = None

    def _note_autocast(self, region: torch.autocast) -> None:
        """An autocast region begins."""
        self.meets_autocast = True
        self.reads.note("autocast")

    def _leave_autocast(self, region: torch.autocast) -> None:
        """It ends; graphs of operators have its casts and no sign of the region."""

    def _apply_function(self, cls: Any, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """A ``torch.autograd.Function`` is a node with its forward and its backward."""
        return autograd_functions.apply(self, cls, args, run)

    def note(self, text: str) -> None:
        """Tell a reader of the graph something, once."""
        if text not in self.notes:
            self.notes.append(text)

    def grad_mode(self) -> FakeTensor:
        """A 0-dim bool: whether gradients are enabled when the program comes here."""
        state = self.create(OF_MODES["grad mode"], (), {})
        state.meta["val"] = OF_MODES["grad mode"]()
        node = self.create(aten.scalar_tensor.default, (state,), {"dtype": torch.bool})
        result = self.fake_mode.ctx.empty((), dtype=torch.bool)
        node.meta["val"] = result
        result.fx_node = node
        return result

    def refuse_data_dependent(self, func: Any, advice: str) -> DataDependentError:
        """The error for an operator whose answer Python would need now."""
        return DataDependentError(
            f"Python needs the answer of {func}, which depends on the data.",
            why="the values of tensors are unknown while capturing",
            where=stack.summary(stack.raw_stack(self.floor)),
            hints=[advice],
        )


def new_placeholder(graph: torch.fx.Graph, name: str) -> torch.fx.Node:
    """A placeholder of exactly that name (fx itself would rename those that shadow a builtin)."""
    node = graph.placeholder(name)
    node.name = node.target = name
    return node


class Records(Protocol):
    """What answers the operators of a thread."""

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of one operator call."""
        ...


class RecordingMode(torch_private.PlainDispatchMode):
    """Hands every operator of the thread to a recorder."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Records) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder: Any = recorder

    @property
    def fake_mode(self) -> FakeMode | None:
        """What answers the operators; None where real kernels do."""
        recorder = self.recorder
        mode: FakeMode | None = getattr(recorder, "runs_on", recorder.fake_mode)
        return mode

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if isinstance(func, torch._ops.HigherOrderOperator):
            return higher_order.record(self.recorder, func, args, kwargs or {})
        return self.recorder.record(func, args, kwargs or {})


def _has_tensor(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, (list, tuple)):
        return any(_has_tensor(v) for v in value)
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
