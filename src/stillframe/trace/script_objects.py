"""Script objects in a recording: one node for each object, one node for each call of a method.

An object that a capture meets, as an input, as an attribute of the module or anywhere else, is one
thing whatever handle it comes by: two Python handles of one C++ object have one hash. Methods are
nodes of torch's operator ``call_torchbind``. They may change the object, so all of them stay in the
graph, in order, and so do operators that take an object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.fake import custom
from stillframe.fake.script_objects import FakeScriptObject, make_fake, run_method
from stillframe.fake.tensor import FakeTensor
from stillframe.trace import higher_order

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

Lift = Callable[[Any], torch.fx.Node]

_RESULTS = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float, type(None))


class ScriptObjects:
    """The script objects of one recording.

    Attributes:
        lift: makes the node of an object that is no input; None: there can be no such.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.lift: Lift | None = None
        self._fakes: dict[int, FakeScriptObject] = {}
        self._nodes: dict[int, torch.fx.Node] = {}
        self._kept: list[Any] = []  # so that hashes stay those of the objects

    def fake_of(self, real: torch.ScriptObject, path: str = "An object") -> FakeScriptObject:
        """The fake of an object; one for each, whatever handle it is given by."""
        key = hash(real)
        if key not in self._fakes:
            self._kept.append(real)
            self._fakes[key] = make_fake(self.recorder.fake_mode, real, path, self.call)
        return self._fakes[key]

    def stood_for(self, values: Any) -> Any:
        """Arguments of an operator with fakes in the place of real objects."""
        return pytree.tree_map_only(torch.ScriptObject, self.fake_of, values)

    def bind(self, value: Any, node: torch.fx.Node) -> None:
        """``node`` is the object from now on."""
        self._kept.append(value)
        self._nodes[_key(value)] = node

    def node(self, value: Any) -> torch.fx.Node:
        """The node of an object; made if it is met for the first time."""
        if self.recorder.subgraph is not None:
            raise self._refuse("A script object is used inside of a subgraph.")
        known = self._nodes.get(_key(value))
        if known is None:
            if self.lift is None:
                raise self._refuse("A script object cannot become a constant here.")
            known = self.lift(value)
            self.bind(value, known)
        return known

    def call(
        self, obj: FakeScriptObject, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A method of a fake: a node if the program calls it, else (in other fakes) just run."""
        recorder = self.recorder
        if recorder.mode not in torch_private.dispatch_modes():
            return run_method(recorder.fake_mode, obj, name, args, kwargs)
        op = torch_private.call_torchbind()
        return higher_order.record(recorder, op, (obj, name, *args), kwargs)

    def answered(self) -> contextlib.AbstractContextManager[None]:
        """Methods of real objects are recorded inside, too."""

        def call(original: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
            owner = torch_private.owner_of(method)
            ours = self.recorder.mode in torch_private.dispatch_modes()
            if not ours or not torch_private.is_script_object(owner):
                return original(method, *args, **kwargs)
            obj = owner if higher_order.is_real(self.recorder) else self.fake_of(owner)
            op = torch_private.call_torchbind()
            return higher_order.record(self.recorder, op, (obj, method.name, *args), kwargs)

        return torch_private.functions_replaced(torch.ScriptMethod, {"__call__": call})

    def _refuse(self, what: str) -> NotSupported:
        where = stack.summary(stack.raw_stack(self.recorder.floor))
        return NotSupported(what, where=where, hints=["use it in the forward of the module itself"])


def _key(value: Any) -> int:
    return hash(value.real_obj if isinstance(value, FakeScriptObject) else value)


@higher_order.family("call_torchbind")
def call_method(recorder: Recorder, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The node of one call of a method, and its result.

    Raises:
        NotSupported: the result is something that a program cannot check, or a gradient would be
            lost.
    """
    obj, name, *given = args
    tensors = [t for t in pytree.tree_leaves((given, kwargs)) if isinstance(t, torch.Tensor)]
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if differentiable and not recorder.above_autograd:
        raise _refuse_call(recorder, name, "gets a tensor that requires grad below autograd")
    if recorder.env.deferred:
        recorder.flush_asserts()
    operands = (recorder.operand(obj), name, *(recorder.operand(a) for a in given))
    keywords = {k: recorder.operand(v) for k, v in kwargs.items()}
    if higher_order.is_real(recorder):
        result = getattr(obj, name)(*given, **kwargs)
    else:
        result = run_method(recorder.fake_mode, obj, name, given, kwargs)
        result = pytree.tree_map_only(
            FakeTensor, lambda t: custom.as_another(recorder.fake_mode, t), result
        )
    if not all(isinstance(v, _RESULTS) for v in pytree.tree_leaves(result)):
        raise _refuse_call(recorder, name, f"returns {result!r}")
    _set_gradients(result, differentiable)
    node = recorder.create(op, operands, keywords, op.name())
    recorder.describe(node, result)
    recorder.track_result(result, node)
    return result


def _set_gradients(result: Any, differentiable: bool) -> None:
    """Methods run operators, through which gradients flow when the program runs."""
    for tensor in pytree.tree_leaves(result):
        if isinstance(tensor, FakeTensor):
            floating = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            tensor.requires_grad_(differentiable and floating)


def _refuse_call(recorder: Recorder, name: str, what: str) -> NotSupported:
    return NotSupported(
        f"The method {name} of a script object {what}.",
        why="such a call cannot stand in a graph: results are tensors and numbers",
        where=stack.summary(stack.raw_stack(recorder.floor)),
    )
