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
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

from stillframe import stack, torch_private
from stillframe.errors import DataDependentError, InvalidInput, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.trace import folding, metadata, operators
from stillframe.trace.folding import CONSTANT_NUMEL_LIMIT
from stillframe.trace.functions import FunctionMode
from stillframe.trace.recorder import Recorder, RecordingMode
from stillframe.trace.scope import ModuleScope, tracking

aten = torch.ops.aten

_PLAIN_TENSORS = (FakeTensor, torch.Tensor, torch.nn.Parameter)
# They ask for sizes; taking them apart would only ask again.
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


@dataclass(slots=True)
class Slot:
    """What the trace knows of a tensor that is not a fake of this trace.

    ``node`` computes it (or is a tuple of which it is an element); ``constant`` says whether its
    value does not depend on the inputs.
    """

    node: Any
    constant: bool = False


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
        root: holds the tensors that the graph reads as attributes.
        enable_tracing: off, operators just run. Whoever turns it off answers for the results.
        trace_state: free for callers.
    """

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
        self.functions = CallMode(self)
        self.mode = RecordingMode(self)
        self.root = torch.nn.Module()
        self.enable_tracing = True
        self.trace_state: dict[str, Any] = {}
        self._names = {} if root is None else {id(p): n for n, p in root.named_parameters()}
        self._slots: WeakIdKeyDictionary = WeakIdKeyDictionary(ref_type=WeakIdRef)
        self._attributes: dict[int, tuple[torch.Tensor, torch.fx.Node]] = {}
        self._traced_memory: dict[int, StorageWeakRef] = {}
        self._spoiled_memory: dict[int, StorageWeakRef] = {}
        self._displaced: list[tuple[FakeTensor, Any]] = []
        self._original: Any = None

    def _no_lifting(self, real: torch.Tensor, fake: FakeTensor) -> torch.fx.Node:
        return self._attribute(real)

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
                enter(torch_private.control_flow_replaced(self.functions.refuse_control_flow))
                if self.options.pre_dispatch:
                    enter(torch_private.below_autograd())
                elif symbolic:
                    enter(torch_private.python_kernels_first())
                enter(tracking(self.scope))
                enter(self.mode)
                enter(self.functions)
                yield
        finally:
            self.env.stack_floor = old_floor
            self.fake_mode.sets_requires_grad = old_grad
            for fake, held in self._displaced:
                fake.fx_node = held

    def finish(self) -> None:
        """Write the stack traces and detach the metadata. Call once, at the end."""
        super().finish()
        for node in self.graph.nodes:
            if "val" in node.meta:
                node.meta["val"] = metadata.detached(node.meta["val"])

    # -- nodes of values ------------------------------------------------------------------------

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """A ``call_function`` node with where-it-came-from metadata."""
        node = super().create(target, args, kwargs, name)
        preserved = torch.fx.traceback
        if preserved.has_preserved_node_meta():
            node.meta.update(preserved.get_current_meta())
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
        return super().operand(value)

    def _held(self, tensor: torch.Tensor) -> Any:
        """The node of a tensor or the place in a tuple that it comes from, or None if untracked."""
        if type(tensor) is FakeTensor:
            held = tensor.fx_node
            if held is None:
                return None
            graph = held.graph if type(held) is torch.fx.Node else held.node.graph
            return held if graph is self.graph else None
        slot = self._slots.get(tensor)
        return None if slot is None else slot.node

    def _tensor_node(self, tensor: torch.Tensor) -> torch.fx.Node:
        held = self._held(tensor)
        if held is None:
            return self._attribute(tensor)
        if type(held) is torch.fx.Node:
            return held
        node = self._take_item(held)
        self.bind_tensor(tensor, node)
        return node

    def _node_of(self, fake: FakeTensor, real: torch.Tensor | None = None) -> torch.fx.Node:
        return self._tensor_node(fake if real is None else real)

    def bind_tensor(self, tensor: torch.Tensor, held: Any) -> None:
        """``held`` (a node, or a place in its tuple) computes ``tensor`` from now on."""
        if type(tensor) is FakeTensor:
            old = tensor.fx_node
            if old is not None and self._held(tensor) is None:  # another trace's: give it back
                self._displaced.append((tensor, old))
            tensor.fx_node = held
            return
        slot = self._slots.get(tensor)
        if slot is None:
            self._slots[tensor] = Slot(held)
            self._remember_memory(tensor)
        else:
            slot.node = held

    # -- constants ------------------------------------------------------------------------------

    def _attribute(self, tensor: torch.Tensor) -> torch.fx.Node:
        """The ``get_attr`` node of a tensor that did not come from the inputs."""
        known = self._attributes.get(id(tensor))
        if known is not None:
            return known[1]
        self._refuse_alias(tensor)
        name = self._attribute_name(tensor)
        node = self.graph.get_attr(name)
        value = metadata.value_of_result(self.env, tensor)
        if value is not None:
            node.meta["val"] = value
        self._attributes[id(tensor)] = (tensor, node)  # keeps the tensor, so that its id stays
        return node

    def _attribute_name(self, tensor: torch.Tensor) -> str:
        registered = self._names.get(id(tensor))
        if registered is not None:
            _set_nested(self.root, registered, tensor)
            return registered
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        prefix = "_param_constant" if is_parameter else "_tensor_constant"
        count = 0
        while hasattr(self.root, f"{prefix}{count}"):
            count += 1
        setattr(self.root, f"{prefix}{count}", tensor)
        return f"{prefix}{count}"

    def _refuse_alias(self, tensor: torch.Tensor) -> None:
        """An unknown tensor over memory of a traced one was made behind the dispatcher's back."""
        if type(tensor) is FakeTensor and tensor.fx_node is None:
            known = tensor.env is self.env
        else:
            key = _memory(tensor)
            known = key is not None and key in self._traced_memory
        if known:
            raise NotSupported(
                "An operator got a tensor that was made from a traced one without any operator.",
                why="the graph would hold its value as a constant",
                where=stack.summary(stack.raw_stack(self.floor)),
                hints=["make parameters and tensor subclasses outside of the traced function"],
            )

    def _remember_memory(self, tensor: torch.Tensor) -> None:
        key = _memory(tensor)
        if key is not None and not self._is_attribute_memory(key):
            self._traced_memory.setdefault(key, StorageWeakRef(tensor.untyped_storage()))

    def _is_attribute_memory(self, key: int) -> bool:
        return any(_memory(tensor) == key for tensor, _ in self._attributes.values())

    # -- one operator -----------------------------------------------------------------------------

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one operator call and make its node, or take the operator apart."""
        if not self.enable_tracing or func is torch.ops.prim.device.default:
            return self._compute(func, args, kwargs)
        if self._has_foreign_tensor(args) or (kwargs and self._has_foreign_tensor(kwargs.values())):
            return NotImplemented
        with self._origin(func):
            taken_apart = self._take_apart(func, args, kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
            special = _SPECIAL.get(func)
            if special is not None:
                handled = special(self, func, args, kwargs)
                if handled is not NotImplemented:
                    return handled
            return self._record_call(func, args, kwargs)

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
        if options.pre_dispatch or not _is_composite(func):
            return NotImplemented
        with self.mode:
            return func.decompose(*args, **kwargs)

    def _record_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        facts = operators.facts_of(func)
        if self.env.deferred:
            self.flush_asserts()
        constant = self.runs_on is None and facts.may_fold and self._all_constant(args, kwargs)
        result = self._compute(func, args, kwargs)
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
            self._mark_constant(result)
        return result

    def describe(self, node: torch.fx.Node, value: Any) -> None:
        """Write ``val`` and ``tensor_meta`` for a value."""
        val = metadata.value_of_result(self.env, value)
        node.meta["val"] = val
        meta = metadata.tensor_meta(val)
        if meta is not None:
            node.meta["tensor_meta"] = meta

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operator: fakes, or what the real kernel gives."""
        if self.runs_on is None or self._has_subclass(args):
            return func(*args, **kwargs)
        if not self.options.allow_non_fake_inputs:
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
            self._track_items(result, node, ())

    def _track_items(self, results: Any, node: torch.fx.Node, path: tuple[int, ...]) -> None:
        for i, item in enumerate(results):
            if isinstance(item, torch.Tensor):
                self.bind_tensor(item, operators.Item(node, (*path, i)))
            elif isinstance(item, (list, tuple)):
                self._track_items(item, node, (*path, i))

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
        return _unwraps_itself(type(tensor)) and tensor not in self._slots

    def _has_subclass(self, values: Any) -> bool:
        for value in values:
            if isinstance(value, torch.Tensor):
                if type(value) not in _PLAIN_TENSORS and _unwraps_itself(type(value)):
                    return True
            elif isinstance(value, (list, tuple)) and self._has_subclass(value):
                return True
        return False

    # -- which values are constant ------------------------------------------------------------------

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
        elif facts.writes and not self._all_constant(args, kwargs):
            for tensor in operators.written_arguments(facts, args, kwargs):
                key = _memory(tensor)
                if key is not None:
                    self._spoiled_memory.setdefault(key, StorageWeakRef(tensor.untyped_storage()))

    def _all_constant(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether there are tensors among the arguments and the values of all are constant."""
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        if any(isinstance(a, (list, tuple, torch.SymInt)) for a in (*args, *kwargs.values())):
            return False
        return bool(tensors) and all(self.is_constant(t) for t in tensors)

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether a real tensor's value follows from constants of the function alone."""
        slot = self._slots.get(tensor)
        return slot is not None and slot.constant and _memory(tensor) not in self._spoiled_memory

    def _mark_constant(self, result: Any) -> None:
        for value in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(value, torch.Tensor) and value.numel() <= CONSTANT_NUMEL_LIMIT:
                self._slots[value].constant = True

    # -- refusals -----------------------------------------------------------------------------------

    def refuse_real_data(self, func: Any) -> DataDependentError:
        """The error for an operator whose answer would be the one of the example only."""
        return DataDependentError(
            f"Python needs the answer of {func}, which depends on the data.",
            why="the graph would hold the answer for the example as a constant",
            where=stack.summary(stack.raw_stack(self.floor)),
            hints=[
                'trace with tracing_mode="symbolic", where item() gives an unknown number',
                "or choose with torch.where",
            ],
        )


class CallMode(FunctionMode):
    """The function mode of a trace by dispatch.

    Grad-mode switches are only recorded before dispatch; below autograd they have done their work.
    """

    recorder: DispatchRecorder

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch_private.set_grad_enabled and not self.recorder.options.pre_dispatch:
            return func(*args, **(kwargs or {}))
        if func in _PASSED_THROUGH:
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


_PASSED_THROUGH = {torch.ops.higher_order.custom_function_call}


# -- operators that are not simply recorded -------------------------------------------------------


def _item(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``item()``, ``bool()``, ``equal``: answered if constant; of real data only on demand."""
    if recorder.runs_on is not None:
        special = operators.facts_of(func).special
        assert special is not None
        return special(recorder, func, args, kwargs)
    if recorder._all_constant(args, kwargs):
        return func(*args, **kwargs)
    if recorder.options.error_on_data_dependent_ops:
        raise recorder.refuse_real_data(func)
    return NotImplemented


def _lift_fresh(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``torch.tensor(...)``: an attribute of the graph, and a copy of it that the program uses."""
    fresh = args[0]
    if recorder._held(fresh) is not None:
        return recorder._record_call(aten.alias.default, args, {})
    node = recorder.operand(fresh)
    copy = recorder.create(aten.lift_fresh_copy.default, (node,), {}, "lift_fresh_copy")
    small = fresh.numel() <= CONSTANT_NUMEL_LIMIT
    if recorder.runs_on is None:
        result = fresh.clone()
        recorder.bind_tensor(result, copy)
        recorder._slots[result].constant = small
    else:
        fake = recorder.fake_mode.adopt(fresh)
        result = FakeTensor.make(recorder.env, fake.sizes, fake.strides, 0, fake.dtype, fake.device)
        result.constant = fresh.detach().clone() if small else None
        result.fx_node = copy
    recorder.describe(copy, result)
    return result


def _same_memory_size(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Forward-mode autograd asks it to choose a layout for tangents; False is always right."""
    if recorder.runs_on is None:
        return NotImplemented
    a, b = args
    same = a.sizes == b.sizes and a.strides == b.strides
    return same and recorder.fake_mode.ctx.is_dense(a)


def _assertion(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A check that stays in the graph; on real tensors it is made now, too."""
    special = operators.facts_of(func).special
    assert special is not None
    special(recorder, func, args, kwargs)
    return func(*args, **kwargs) if recorder.runs_on is None else None


_SPECIAL: dict[Any, Any] = {
    aten._local_scalar_dense.default: _item,
    aten.item.default: _item,
    aten.is_nonzero.default: _item,
    aten.equal.default: _item,
    aten.allclose.default: _item,
    aten.lift_fresh.default: _lift_fresh,
    aten.lift_fresh_copy.default: _lift_fresh,
    aten._has_same_storage_numel.default: _same_memory_size,
    aten._assert_async.msg: _assertion,
    aten._assert_async.default: _assertion,
    aten._assert_tensor_metadata.default: _assertion,
}


# -- helpers ----------------------------------------------------------------------------------------


_composite: dict[Any, bool] = {}


def _is_composite(func: Any) -> bool:
    """Whether the operator can take itself apart; memoised."""
    known = _composite.get(func)
    if known is None:
        queries = func.overloadpacket.__name__ in _SIZE_QUERIES
        known = _composite[func] = not queries and torch_private.is_composite_implicit(func)
    return known


def _unwraps_itself(cls: type) -> bool:
    return cls.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__  # type: ignore[attr-defined]


def _memory(tensor: torch.Tensor) -> int | None:
    """The identity of a real tensor's storage; None for tensors without one."""
    if type(tensor) is FakeTensor or _unwraps_itself(type(tensor)):
        return None
    if tensor.layout is not torch.strided or tensor.is_nested:
        return None
    return tensor.untyped_storage()._cdata


def _has_value(value: Any) -> bool:
    """Whether a result has something that a node can stand for."""
    if isinstance(value, (list, tuple)):
        return any(_has_value(v) for v in value)
    return isinstance(value, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool))


def _set_nested(root: torch.nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Put a tensor at a dotted path below ``root``, making the modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, torch.nn.Module())
        root = getattr(root, parent)
    setattr(root, name, tensor)
