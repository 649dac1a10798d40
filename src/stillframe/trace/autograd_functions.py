"""``torch.autograd.Function``: a forward, and the backward that somebody wrote for it.

The node is ``autograd_function_apply(fwd, bwd, *tensors)``. ``fwd`` returns the outputs and what
backward needs of it; ``bwd`` takes the gradients of the outputs and these values, and returns the
gradients of the tensors. Both are traced when the function is applied: first forward, with a
context that notes what the real one would be told, then backward, with gradients of the outputs'
sizes. A value of forward that backward uses is saved, however it got there: by
``save_for_backward``, as an attribute of the context, or as a size.

Gradients arrive contiguous, and backward is traced for all that could be asked of it: every
floating-point tensor needs its gradient, and every differentiable output has one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import InternalError, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.trace import arms, control_flow
from stillframe.trace.higher_order import (
    Operands,
    attach,
    family,
    is_real,
    make_node,
    module_of,
    run_module,
)
from stillframe.trace.higher_order_grad import is_differentiable
from stillframe.trace.subgraphs import Subgraph, close, inside

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten
OPERATOR = torch.ops.higher_order.autograd_function_apply


def apply(recorder: Recorder, cls: Any, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Record ``cls.apply(*args)``; ``run()`` applies the function as it is.

    Where backward cannot be captured, forward is recorded without gradients, and a note says so.

    Returns:
        What apply returns; ``NotImplemented`` where it is to run as it is.

    Raises:
        NotSupported: forward marks an argument as changed in place.
    """
    if recorder.mode not in torch_private.dispatch_modes() or recorder.inside_function:
        return NotImplemented  # nobody listens; or no gradient goes through what is done here
    if torch_private.inside_transform():
        recorder.note(
            f"{cls.__qualname__} is a torch.autograd.Function inside a transform of torch.func: "
            "the program has the operators that it calls, and gradients through them are theirs"
        )
        return NotImplemented
    if cls is torch.utils.checkpoint.CheckpointFunction:
        return _checkpointed(args)
    function = _Function(cls, args, _Context(_needs(args)))
    try:
        return function.record(recorder)
    except InternalError:
        raise
    except Exception as e:  # whatever the user's code raises where its context is another one
        if function.context.refusal:
            raise function.context.refused(recorder) from e
        recorder.note(
            f"{cls.__qualname__} is a torch.autograd.Function whose backward is not in the "
            f"program, so no gradient goes through it: {_first_line(e)}"
        )
    return _without_gradients(recorder, run)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _checkpointed(args: tuple[Any, ...]) -> Any:
    """Its backward computes forward again: the gradient is that of the operators.

    If no argument requires grad, eager has no gradient either.
    """
    function, _, *operands = args
    if any(isinstance(v, torch.Tensor) and v.requires_grad for v in operands):
        return function(*operands)
    with torch.no_grad():
        return function(*operands)


def _without_gradients(recorder: Recorder, run: Callable[[], Any]) -> Any:
    was_on = torch.is_grad_enabled()
    with torch.no_grad(), _inside_function(recorder):
        result = run()
    if was_on:
        return result
    detached = [aten.detach.default(v) if _is_tensor(v) else v for v in _leaves(result)]
    return tuple(detached) if isinstance(result, tuple) else detached[0]


@contextlib.contextmanager
def _inside_function(recorder: Recorder) -> Iterator[None]:
    old, recorder.inside_function = recorder.inside_function, True
    try:
        yield
    finally:
        recorder.inside_function = old


@contextlib.contextmanager
def _gradients_off() -> Iterator[None]:
    """As around every forward and backward; the graph has no switch for it."""
    old = torch_private.switch_gradients_unseen(False)
    try:
        yield
    finally:
        torch_private.switch_gradients_unseen(old)


@contextlib.contextmanager
def _questions(recorder: Recorder, *, in_backward: bool) -> Iterator[None]:
    """What the user's code asks inside: the fakes here are not those that a program is given.

    Raises:
        NotSupported: at the end, if it asked for gradients where calls may differ.
    """
    reads = recorder.reads
    old, reads.found = reads.found, {}
    try:
        yield
    finally:
        found, reads.found = reads.found, old
    for key, read in found.items():
        if read.what == "grad mode" and not in_backward:
            continue  # always off
        if read.what in ("grad mode", "requires_grad", "is_leaf"):
            raise NotSupported(f"it asks for {read.what}, which may differ from call to call")
        reads.found.setdefault(key, read)


# -- what a user's function says ------------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _needs(args: Sequence[Any]) -> tuple[bool, ...]:
    return tuple(is_differentiable(a) for a in args)


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


class _Context:
    """Stands in for ``ctx``: notes what forward says, and gives it to backward."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()
        self.non_differentiable: tuple[Any, ...] = ()
        self.materialize_grads = True
        self.refusal = False

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Any) -> None:
        """For forward-mode gradients, which a program does not have."""

    def mark_non_differentiable(self, *tensors: Any) -> None:
        self.non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize_grads = value

    def mark_dirty(self, *tensors: Any) -> None:
        self.refusal = True
        raise NotSupported("mark_dirty")

    def refused(self, recorder: Recorder) -> NotSupported:
        """The error for a forward that changes its arguments in place."""
        return NotSupported(
            "A torch.autograd.Function changes an argument in place (ctx.mark_dirty).",
            why="the graph says what a function returns, not what else it changes",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["return the new value, and copy it into the tensor afterwards"],
        )


@dataclass
class _Function:
    """One call of a user's function."""

    cls: Any
    args: tuple[Any, ...]
    context: _Context
    result: Any = None
    places: list[int] = field(default_factory=list)  # of the tensors that forward returns

    def record(self, recorder: Recorder) -> Any:
        """The node of it; returns what apply returns."""
        tensors = [a for a in self.args if _is_tensor(a)]
        values = _Recording(recorder, self.forward, self.backward, self.options).node(tensors)
        leaves = _leaves(self.result)
        for place, value in zip(self.places, values, strict=True):
            leaves[place] = value
        return tuple(leaves) if isinstance(self.result, tuple) else leaves[0]

    def forward(self, *tensors: Any) -> list[Any]:
        given, rest = [], iter(tensors)
        for value in self.args:
            given.append(next(rest) if _is_tensor(value) else value)
        if self.cls.setup_context is torch.autograd.Function.setup_context:
            result = self.cls.forward(self.context, *given)
        else:
            result = self.cls.forward(*given)
            self.cls.setup_context(self.context, tuple(given), result)
        self.result = result
        leaves = _leaves(result)
        self.places = [i for i, v in enumerate(leaves) if _is_tensor(v)]
        for value in leaves:
            if not _is_tensor(value) and any(map(_is_tensor, pytree.tree_leaves(value))):
                raise NotSupported("forward returns tensors inside containers")
        return [leaves[i] for i in self.places]

    def options(self) -> _Options:
        outputs = [_leaves(self.result)[i] for i in self.places]
        marked = {id(t) for t in self.context.non_differentiable}
        return _Options(
            [i for i, t in enumerate(outputs) if id(t) in marked or not is_differentiable(t)],
            self.context.materialize_grads,
            list(self.context.saved_tensors),
        )

    def backward(self, *gradients: Any) -> list[Any]:
        """The gradients of the tensors, from those of the outputs that are tensors."""
        given: list[Any] = [None] * len(_leaves(self.result))
        for place, gradient in zip(self.places, gradients, strict=True):
            given[place] = gradient
        own = self.cls.backward
        if own is torch.autograd.Function.backward:
            own = self.cls.vjp
        before = dict(vars(self.context))
        found = _leaves(own(self.context, *given))
        for name, value in vars(self.context).items():
            if name in before and value is not before[name] and value is not None:
                raise NotSupported(f"backward changes ctx.{name}, which a second one would see")
        count = len(self.args)
        if len(found) < count or any(g is not None for g in found[count:]):
            raise NotSupported(f"backward returns {len(found)} gradients for {count} arguments")
        for value, gradient in zip(self.args, found, strict=False):
            if gradient is not None and not (_is_tensor(value) and _is_tensor(gradient)):
                raise NotSupported("backward returns a gradient for what has none")
        return [g for v, g in zip(self.args, found, strict=False) if _is_tensor(v)]


@dataclass(frozen=True)
class _Options:
    """What forward said about its outputs.

    Attributes:
        non_differentiable: the places of those without gradients.
        materialize: whether missing gradients arrive as zeros.
        saved: the tensors that were given to ``save_for_backward``.
    """

    non_differentiable: list[int]
    materialize: bool
    saved: list[Any]


# -- the node -------------------------------------------------------------------------------------


class _Backward(Subgraph):
    """The graph of backward: what it takes from outside comes out of the graph of forward."""

    def __init__(self, recorder: Recorder, forward: Subgraph) -> None:
        super().__init__(recorder, OPERATOR.name(), keeps_aliases=True)
        self._forward = forward

    def capture(self, value: Any) -> Any:
        """The placeholder here of a value that forward has, or can take in."""
        with self.recorder.working_on(self._forward.place):
            held = self.recorder.operand(value)
        if not isinstance(held, torch.fx.Node):
            return held
        if _is_tensor(value):
            self.note_outside(value)
        return self.placeholder_of(held, value)


@dataclass
class _Recording:
    """Makes the node of a forward and a backward.

    Attributes:
        forward: tensors to the tensors that are returned.
        backward: gradients of these to gradients of the tensors.
        options: what is known of the outputs when forward has run.
    """

    recorder: Recorder
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    options: Callable[[], _Options]

    def node(self, tensors: Sequence[Any]) -> list[Any]:
        """Record the call; returns its results.

        Nothing is left of a recording that fails.
        """
        recorder = self.recorder
        deferred, graphs = list(recorder.env.deferred), len(recorder.subgraphs)
        try:
            # the recorder's own questions are no operators of the program
            with torch_private.modes_taken_off(lambda mode: mode is recorder.mode):
                return self._node(Operands.of(recorder, tensors))
        except Exception:
            recorder.env.deferred[:] = deferred
            recorder.env.take_fresh_unbacked()
            del recorder.subgraphs[graphs:]
            raise

    def _node(self, operands: Operands) -> list[Any]:
        recorder = self.recorder
        values = [inside(recorder, v) for v in operands.values]
        forward = Subgraph(recorder, OPERATOR.name(), keeps_aliases=True)
        inside_forward = _questions(recorder, in_backward=False)
        with _gradients_off(), _inside_function(recorder), inside_forward:
            forward.trace(self.forward, values, nodes=operands.nodes)
        options = self.options()
        returned = forward.reopen()
        with _gradients_off(), _questions(recorder, in_backward=True):
            backward = self._traced_backward(forward, options)
        gradients = backward.reopen()
        count = len(operands.values)
        operands = operands.extended(close(forward))
        missing = [None] * (len(operands.values) - count)
        held = list(backward.captured)
        forward.finish((returned, tuple(held)))
        backward.finish((*gradients, *missing))
        ids = {id(t) for t in options.saved}
        kwargs: dict[str, Any] = {
            "non_differentiable_idx": options.non_differentiable,
            "saved_for_backward_idx": [
                i for i, node in enumerate(held) if id(backward.values[node]) in ids
            ],
        }
        if not options.materialize:
            kwargs["materialize_grads"] = False
        nodes = attach(recorder, forward, "fwd_body"), attach(recorder, backward, "bwd_body")
        results = self._results(operands, forward, values, options)
        if is_real(recorder):
            outputs, _ = run_module(module_of(recorder, nodes[0]), operands.values)
            results = arms.Results(list(outputs))
        return make_node(recorder, OPERATOR, (*nodes, *operands.nodes), results, kwargs)

    def _traced_backward(self, forward: Subgraph, options: _Options) -> _Backward:
        recorder = self.recorder
        without = set() if options.materialize else set(options.non_differentiable)
        flowing = [_gradient(recorder, output) for output in forward.outputs]

        def run(*gradients: Any) -> Any:
            given = [None if i in without else g for i, g in enumerate(gradients)]
            return tuple(self.backward(*given))

        backward = _Backward(recorder, forward)
        backward.trace(run, flowing)
        return backward

    def _results(
        self, operands: Operands, forward: Subgraph, values: Sequence[Any], options: _Options
    ) -> arms.Results:
        """Fakes of the outputs, over the memory that forward returns."""
        recorder = self.recorder
        results = arms.merged(recorder, forward, forward)
        outer = [recorder.fake_mode.adopt(v) for v in operands.values[: len(values)]]
        memory = {id(v.storage_): o.storage_ for v, o in zip(values, outer, strict=True)}
        needs = torch.is_grad_enabled() and any(v.requires_grad for v in outer)
        for i, (value, inner) in enumerate(zip(results.values, forward.outputs, strict=True)):
            results.values[i] = FakeTensor.make(
                recorder.env, value.sizes, value.strides, value.offset, value.dtype, value.device,
                needs and i not in options.non_differentiable,
                memory.get(id(inner.storage_), inner.storage_),
            )  # fmt: skip
        return results


def _gradient(recorder: Recorder, output: FakeTensor) -> FakeTensor:
    strides = layout.contiguous_strides(output.sizes)
    return FakeTensor.make(recorder.env, output.sizes, strides, 0, output.dtype, output.device)


# -- the operator in a graph that is captured again -----------------------------------------------


@family("autograd_function_apply")
def _autograd_function_apply(
    recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    fwd, bwd, *operands = args
    if not recorder.above_autograd or recorder.inside_function:
        with recorder.listening():
            return control_flow.autograd_function_apply(fwd, bwd, *operands, **kwargs)
    again = _Again(fwd, bwd, kwargs)
    tensors = [v for v in operands if _is_tensor(v)]
    again.others = [None if _is_tensor(v) else v for v in operands]
    recording = _Recording(recorder, again.forward, again.backward, again.options)
    return tuple(recording.node(tensors))


class _Again:
    """The two functions of a node."""

    def __init__(self, fwd: Any, bwd: Any, kwargs: dict[str, Any]) -> None:
        self._fwd, self._bwd, self._kwargs = fwd, bwd, kwargs
        self._saved: Sequence[Any] = ()
        self.others: list[Any] = []

    def forward(self, *tensors: Any) -> list[Any]:
        rest = iter(tensors)
        outputs, self._saved = self._fwd(*(next(rest) if v is None else v for v in self.others))
        return _leaves(tuple(outputs) if isinstance(outputs, list) else outputs)

    def backward(self, *gradients: Any) -> list[Any]:
        found = self._bwd(*gradients, *self._saved)
        return [g for g, v in zip(found, self.others, strict=True) if v is None]

    def options(self) -> _Options:
        kwargs = self._kwargs
        if kwargs.get("dirty_idx"):
            raise NotSupported("A torch.autograd.Function changes an argument in place.")
        saved = [self._saved[i] for i in kwargs["saved_for_backward_idx"]]
        materialize = kwargs.get("materialize_grads", True)
        return _Options(list(kwargs["non_differentiable_idx"]), materialize, saved)
