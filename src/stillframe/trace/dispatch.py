"""DispatchRecorder: the recorder behind ``make_fx``.

It differs from the recorder of ``export`` in three ways. It sits *below* autograd and the
transforms of ``torch.func`` (unless the trace is pre-dispatch), so operators arrive as kernels see
them, and those of a backward pass arrive too. Operators are taken apart: by the caller's table,
and composite ones by themselves. And the values may be real tensors: then every operator runs its
real kernel, and the nodes are known by the identity of the tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
import torch.fx.traceback

from stillframe import stack, torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.trace import autocast, folding, higher_order, metadata, operators
from stillframe.trace.attributes import Attributes
from stillframe.trace.calls import CallMode
from stillframe.trace.dispatch_operators import HANDLERS
from stillframe.trace.real_tensors import RealTensors, unwraps_itself
from stillframe.trace.recorder import Recorder
from stillframe.trace.scope import ModuleScope, tracking
from stillframe.trace.subgraphs import graph_of, refuse_escaped
from stillframe.trace.unwritten import UnwrittenMemory

aten = torch.ops.aten

_PLAIN_TENSORS = (FakeTensor, torch.Tensor, torch.nn.Parameter)
# They ask for sizes; taking them apart would only ask again.
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_LITERALS = (
    int, float, complex, bool, str, type(None), slice, type(...),
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch._ops.OpOverload,
)  # fmt: skip
# Questions whose answers no node stands for.
_ANSWERED = frozenset({torch.ops.prim.device.default, torch.ops.prim.layout.default})
_SIZE_QUERIES = ("size", "stride", "storage_offset")


@dataclass(frozen=True)
class Options:
    """The switches of one trace, as :func:`stillframe.make_fx` describes them."""

    table: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    mode: str = "real"
    pre_dispatch: bool = False
    record_module_stack: bool = False
    allow_non_fake_inputs: bool = False
    allow_fake_constant: bool = False
    error_on_data_dependent_ops: bool = True


class DispatchRecorder(Recorder):
    """Records one trace by dispatch.

    Args:
        options: the switches.
        env: the environment of the fakes (of real tensors too: those in ``val``).
        runs_on: the mode that answers operators, or None if real kernels do.
        scope: tells which module call is open.
        floor: the frame that called ``make_fx``'s result.
        root: the module whose parameters are read by their names.

    Attributes:
        real: what is known of tensors that are not fakes.
        unwritten: new memory of real tensors that no operator has written.
        attributes: the tensors that the graph reads as attributes.
        enable_tracing: off, operators just run. Whoever turns it off answers for the results.
        trace_state: free for callers.
    """

    names_of_operands = False

    def __init__(
        self,
        options: Options,
        env: ShapeEnv,
        runs_on: FakeMode | None,
        scope: ModuleScope,
        floor: FrameType | None,
        root: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(env, scope, self._no_lifting, floor, runs_on)
        self.options = options
        self.runs_on = runs_on
        self.functions: CallMode = CallMode(self)
        self.real = RealTensors()
        self.unwritten = UnwrittenMemory()
        self.attributes = Attributes(self.graph, root)
        self.root = self.attributes.root
        self.objects.lift = self._lift_object
        self.enable_tracing = True
        self.trace_state: dict[str, Any] = {}
        self._displaced: list[tuple[FakeTensor, Any]] = []
        self._original: Any = None

    def _no_lifting(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        return self._attribute(real)

    def _lift_object(self, value: Any) -> torch.fx.Node:
        """A script object that is no input is an attribute of the graph: the real one."""
        real = value.real_obj if isinstance(value, FakeScriptObject) else value
        node = self.attributes.add_object(real)
        self.locate(node)
        node.meta["val"] = value
        return node

    # -- the run ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Operators of this thread are recorded inside. Restores every global it changes."""
        symbolic = self.runs_on is not None
        old_floor, self.env.stack_floor = self.env.stack_floor, self.floor
        old_grad = self.fake_mode.sets_requires_grad
        self.fake_mode.sets_requires_grad = self.options.pre_dispatch
        try:
            with contextlib.ExitStack() as entered:
                enter = entered.enter_context
                enter(torch.set_grad_enabled(torch.is_grad_enabled()))
                if symbolic:
                    enter(torch_private.compiling_flags())
                enter(torch_private.autocast_cache_disabled())
                enter(higher_order.intercepted(self))
                enter(self.objects.answered())
                if self.options.pre_dispatch:
                    enter(torch_private.below_autograd())
                    enter(self.grad_regions.watched())
                    enter(torch_private.autograd_functions_watched(self._apply_function))
                enter(tracking(self.scope))
                enter(self.mode)
                enter(self.functions)
                yield
        finally:
            self.env.stack_floor = old_floor
            self.fake_mode.sets_requires_grad = old_grad
            for fake, held in self._displaced:
                fake.fx_node = held

    @property
    def above_autograd(self) -> bool:
        """Whether operators are recorded before autograd takes effect."""
        return self.options.pre_dispatch

    @contextlib.contextmanager
    def answering_with_fakes(self) -> Iterator[None]:
        """Operators are answered with fakes inside, also in a trace of real tensors."""
        old = self.runs_on
        self.runs_on = self.fake_mode
        try:
            yield
        finally:
            self.runs_on = old

    # -- nodes of values ------------------------------------------------------------------------

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """A ``call_function`` node with where-it-came-from metadata."""
        node = super().create(target, args, kwargs, name)
        if self.subgraph is not None and not self.above_autograd:
            self.subgraph.note_grad_mode(node)
        preserved = torch.fx.traceback
        if preserved.has_preserved_node_meta():
            node.meta.update(preserved.get_current_meta())
            node.meta["seq_nr"] = torch_private.autograd_sequence_number() - 1
            if self._original is not None:
                node.meta["original_aten"] = self._original
        return node

    def operand(self, value: Any) -> Any:
        """An operator argument as the graph holds it: nodes for tensors and symbolic values."""
        if isinstance(value, torch.Tensor):
            if type(value) is FakeTensor:
                node = value.fx_node
                if type(node) is torch.fx.Node and node.graph is self.graph:
                    return node
            return self._tensor_node(value)
        node = super().operand(value)
        if node is value and not isinstance(value, _LITERALS):
            raise NotSupported(
                f"An operator has an argument of type {type(value).__name__}, which a graph "
                "cannot hold.",
                where=stack.summary(stack.raw_stack(self.floor)),
            )
        return node

    def held(self, tensor: torch.Tensor) -> torch.fx.Node | None:
        """The node that computes a tensor, or None if the trace does not know it."""
        if type(tensor) is FakeTensor:
            node = tensor.fx_node
        else:
            node = self.real.node(tensor)
        return node if type(node) is torch.fx.Node and node.graph is self.graph else None

    def _tensor_node(self, tensor: torch.Tensor) -> torch.fx.Node:
        held = self.held(tensor)
        if held is None and self.subgraph is not None:
            return self.subgraph.capture_tensor(tensor)
        return self._attribute(tensor) if held is None else held

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        return self._tensor_node(fake if real is None else real)

    def bind_tensor(self, tensor: torch.Tensor, held: torch.fx.Node) -> None:
        """``held`` computes ``tensor`` from now on."""
        if type(tensor) is FakeTensor:
            old = tensor.fx_node
            if self.subgraph is not None:
                self.subgraph.remember(tensor)
            elif old is not None and self.held(tensor) is None:  # another trace's: give it back
                self._displaced.append((tensor, old))
            tensor.fx_node = held
        else:
            self.real.bind(tensor, held)

    def _attribute(self, tensor: torch.Tensor) -> torch.fx.Node:
        """The ``get_attr`` node of a tensor that did not come from the inputs."""
        known = self.attributes.node(tensor)
        if known is not None:
            return known
        self._refuse_escaped(tensor)
        self._refuse_unseen(tensor)
        node = self.attributes.add(tensor)
        self.locate(node)
        value = metadata.value_of_result(self.env, tensor)
        if value is not None:
            node.meta["val"] = value
        self.real.add_outside(tensor)
        return node

    def _refuse_escaped(self, tensor: torch.Tensor) -> None:
        if type(tensor) is FakeTensor and tensor.fx_node is not None:
            if graph_of(tensor.fx_node) in self.subgraphs:
                raise refuse_escaped(self.floor)

    def _refuse_unseen(self, tensor: torch.Tensor) -> None:
        """An unknown tensor over memory of a traced one was made behind the dispatcher's back."""
        unseen = self.real.shares_traced_memory(tensor)
        if type(tensor) is FakeTensor:
            unseen = tensor.env is self.env and tensor.fx_node is None
            if tensor.env is not self.env and not self.options.allow_fake_constant:
                raise NotSupported(
                    f"{tensor} belongs to another trace.",
                    where=stack.summary(stack.raw_stack(self.floor)),
                    hints=["allow_fake_constant=True keeps it as an attribute of the graph"],
                )
        if unseen:
            raise NotSupported(
                "An operator got a tensor that was made from a traced one without any operator.",
                why="the graph would hold its value as a constant",
                where=stack.summary(stack.raw_stack(self.floor)),
                hints=["make parameters and tensor subclasses outside of the traced function"],
            )

    # -- one operator -----------------------------------------------------------------------------

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one operator call and make its node, or take the operator apart."""
        if not self.enable_tracing or func in _ANSWERED:
            return self._compute(func, args, kwargs)
        if self._has_foreign_tensor(args) or (kwargs and self._has_foreign_tensor(kwargs.values())):
            return NotImplemented
        if self.subgraph is not None:
            self.subgraph.check_writes(func, args, kwargs)
        with self._origin(func):
            taken_apart = self._take_apart(func, args, kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
            handler = HANDLERS.get(func)
            if handler is not None:
                handled = handler(self, func, args, kwargs)
                if handled is not NotImplemented:
                    return handled
            return self.record_call(func, args, kwargs)

    @contextlib.contextmanager
    def _origin(self, func: Any) -> Iterator[None]:
        """Nodes made inside come from ``func``, unless an outer operator is being taken apart."""
        if self._original is not None:
            yield
            return
        self._original = func
        try:
            yield
        finally:
            self._original = None

    def _take_apart(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """By the caller's table, else a composite operator by itself; may decline."""
        options = self.options
        entry = options.table.get(func)
        if entry is not None:
            with self.mode:
                result = entry(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if options.pre_dispatch or func in autocast.KERNELS:
            if autocast.casts_parts(func, args, kwargs):
                return autocast.taken_apart(func, args, kwargs, self.mode)
            return NotImplemented
        if not _is_composite(func):
            return NotImplemented
        if self.runs_on is not None and torch_private.takes_script_object(func):
            return NotImplemented  # its parts in C++ cannot take a stand-in
        with self.mode:
            return func.decompose(*args, **kwargs)

    def record_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator and make the node of it."""
        facts = operators.facts_of(func)
        if self.env.deferred:
            self.flush_asserts()
        if facts.takes_object and self.runs_on is not None:
            args, kwargs = self.objects.stood_for((args, kwargs))
        constant = False
        if self.runs_on is None:
            constant = facts.may_fold and self.real.all_constant(args, kwargs)
            if self.unwritten.is_filled_unseen(facts, args, kwargs):
                raise self._filled_unseen(func)
        result = self._compute(func, args, kwargs)
        if func is aten.empty.memory_format and self.runs_on is None:
            self.unwritten.add(result)
        if facts.pure_constant and not _has_value(result):
            return result
        node = self.create(
            func,
            tuple(self.operand(a) for a in args),
            {k: self.operand(v) for k, v in kwargs.items()},
            facts.name,
        )
        self.describe(node, result)
        self._follow_values(facts, func, args, kwargs, result)
        fresh = self.env.take_fresh_unbacked()
        self._track(result, node)
        if fresh:
            self._bind_unbacked(fresh, node, result)
        if constant:
            self.real.mark_constant(result)
        return result

    def _filled_unseen(self, func: Any) -> NotSupported:
        return NotSupported(
            f"{func} reads memory that C++ code filled without any operator.",
            why="the graph would read memory that nobody wrote",
            where=stack.summary(stack.raw_stack(self.floor)),
            hints=["make the tensor with an operator, or wrap the code: torch.library.custom_op"],
        )

    def describe(self, node: torch.fx.Node, value: Any) -> None:
        """Write ``val`` and ``tensor_meta`` for a value."""
        self._describe(node, value, metadata.value_of_result(self.env, value))

    def _describe(self, node: torch.fx.Node, value: Any, val: Any) -> None:
        node.meta["val"] = val
        requires_grad = isinstance(value, torch.Tensor) and value.requires_grad
        meta = metadata.tensor_meta(val, requires_grad)
        if meta is not None:
            node.meta["tensor_meta"] = meta

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator: fakes, or what the real kernel gives."""
        if self.runs_on is None or self._has_subclass(args):
            return func(*args, **kwargs)
        if not func._schema.returns and operators.facts_of(func).writes:
            return None  # _foreach_add_ and the like: no metadata changes
        if not self.options.allow_non_fake_inputs and self.options.mode != "real":
            self._refuse_real(func, args)
            self._refuse_real(func, kwargs.values())
        return self.runs_on.run(func, args, kwargs)

    def _refuse_real(self, func: Any, values: Any) -> None:
        for value in values:
            if isinstance(value, (list, tuple)):
                self._refuse_real(func, value)
            elif isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor):
                raise InvalidInput(
                    f"{func} met a real tensor of sizes {tuple(value.shape)} that is not an input.",
                    why="in fake and symbolic mode all tensors come from the inputs",
                    where=stack.summary(stack.raw_stack(self.floor)),
                    hints=[
                        "pass it as an input (torch.func.functional_call for parameters)",
                        "or keep it in the graph as a constant: allow_non_fake_inputs=True",
                    ],
                )

    def _track(self, result: Any, node: torch.fx.Node) -> None:
        if isinstance(result, torch.Tensor):
            self.bind_tensor(result, node)
        elif isinstance(result, (list, tuple)):
            self._track_items(result, node)
        elif isinstance(result, SYMBOLIC):
            self.symbols.bind(result.node.expr, node)

    def _track_items(self, results: Any, node: torch.fx.Node) -> None:  # type: ignore[override]
        """A node for every element now, so that it has the metadata of the operator."""
        vals = node.meta["val"]
        for i, item in enumerate(results):
            if isinstance(item, (torch.Tensor, *SYMBOLIC)):
                element = self.create(operators.getitem, (node, i), {})
                self._describe(element, item, vals[i])
                self._track(item, element)
            elif isinstance(item, (list, tuple)):
                element = self.create(operators.getitem, (node, i), {})
                element.meta["val"] = vals[i]
                self._track_items(item, element)

    # -- kinds of tensor --------------------------------------------------------------------------

    def _has_foreign_tensor(self, values: Any) -> bool:
        """Whether a tensor is of a class that wants to take the operator apart first.

        One that the trace knows (an input, or what an operator returned) is recorded as it is.
        """
        for value in values:
            if isinstance(value, torch.Tensor):
                if type(value) not in _PLAIN_TENSORS and self._is_foreign(value):
                    return True
            elif isinstance(value, (list, tuple)) and self._has_foreign_tensor(value):
                return True
        return False

    def _is_foreign(self, tensor: torch.Tensor) -> bool:
        return unwraps_itself(type(tensor)) and tensor not in self.real

    def _has_subclass(self, values: Any) -> bool:
        for value in values:
            if isinstance(value, torch.Tensor):
                if type(value) not in _PLAIN_TENSORS and unwraps_itself(type(value)):
                    return True
            elif isinstance(value, (list, tuple)) and self._has_subclass(value):
                return True
        return False

    # -- which values are constant ----------------------------------------------------------------

    def _follow_values(
        self,
        facts: operators.OperatorFacts,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        """Keep what is known of scalar tensors: fold results, forget what was written."""
        if self.runs_on is not None:
            if facts.writes:
                if not folding.write_constants(func, args, kwargs):
                    self._note_writes(facts, args, kwargs)
            elif facts.may_fold:
                folding.fold(self, func, args, kwargs, result)
        elif facts.writes and not self.real.all_constant(args, kwargs):
            for tensor in operators.written_arguments(facts, args, kwargs):
                self.real.note_write(tensor)


_composite: dict[Any, bool] = {}


def _is_composite(func: Any) -> bool:
    """Whether the operator can take itself apart; memoised."""
    known = _composite.get(func)
    if known is None:
        queries = func.overloadpacket.__name__ in _SIZE_QUERIES
        known = _composite[func] = not queries and torch_private.is_composite_implicit(func)
    return known


def _has_value(value: Any) -> bool:
    """Whether a result has something that a node can stand for."""
    if isinstance(value, (list, tuple)):
        return any(_has_value(v) for v in value)
    return isinstance(value, (torch.Tensor, *SYMBOLIC))
