"""Operators that change the sizes, strides or memory of a tensor in place.

The fake takes over its new layout, so everything that looks at the tensor afterwards sees it. What
stands in the graph already keeps its metadata: where a node's ``val`` is the tensor itself, it
becomes a copy of what the tensor was.

An eager tensor may be one object under two names: ``y = x.to(x.dtype)`` is ``x``. To the recorder
these are two fakes, of which one would miss the change; such a change is refused, and so is one of
an input or of the module's state, which the caller would see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.fake.layout_changes import LAYOUTS
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.trace import operators
from stillframe.trace.functional_forms import LAYOUT_DECIDES, METADATA_CHANGES

if TYPE_CHECKING:
    from stillframe.trace.dispatch import DispatchRecorder
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten

OPERATORS: frozenset[Any] = frozenset((*METADATA_CHANGES, *LAYOUTS))


def new_layout(
    mode: FakeMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FakeTensor:
    """The fake whose layout the first argument of ``func`` takes over."""
    view = METADATA_CHANGES.get(func)
    if view is not None:
        result: FakeTensor = mode.run(view, args, kwargs)
        return result
    plain = [_plain(mode, a) for a in args]
    return LAYOUTS[func](mode.ctx, *plain, **kwargs)


def _plain(mode: FakeMode, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [to_size(v) for v in value]
    return mode.adopt(value) if isinstance(value, torch.Tensor) else value


@operators.special(*OPERATORS)
def record_for_export(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FakeTensor:
    """The node of the change, and the tensor in its new layout."""
    target = recorder.fake_mode.adopt(args[0])
    recorder.operand(args[0])
    maker = _maker(recorder, target)
    if maker is None:
        raise _refuse(
            recorder,
            f"{func} changes the sizes or strides of an input or of the module's state in place.",
            "the change would show outside of the program",
        )
    _check_one_object(recorder, func, maker)
    layout = _settled_layout(recorder, func, args, kwargs)
    node = _node(recorder, func, args, kwargs)
    _keep_history(recorder, target, maker)
    target.become(layout)
    node.meta["val"] = target
    recorder.track(target, node)
    return target


def record_below(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The same in a trace by dispatch, whose nodes have copies for ``val`` anyway."""
    if recorder.runs_on is None:
        return NotImplemented
    target = args[0]
    if recorder.above_autograd:
        recorder.operand(target)
        maker = _maker(recorder, target)
        if maker is not None:
            _check_one_object(recorder, func, maker)
    layout = _settled_layout(recorder, func, args, kwargs)
    node = _node(recorder, func, args, kwargs)
    target.become(layout)
    recorder.describe(node, target)
    recorder.bind_tensor(target, node)
    return target


def _settled_layout(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FakeTensor:
    """The new layout; symbols are read off the old sizes before these change."""
    recorder.symbols.settle()
    layout = new_layout(recorder.fake_mode, func, args, kwargs)
    recorder.flush_asserts()
    return layout


def _node(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.fx.Node:
    operands = tuple(recorder.operand(a) for a in args)
    return recorder.create(func, operands, dict(kwargs), func.overloadpacket.__name__)


def _keep_history(recorder: Recorder, target: FakeTensor, maker: torch.fx.Node) -> None:
    """Nodes whose ``val`` is the tensor get a copy of what it is now."""
    copy = target.snapshot()
    if target.requires_grad:
        copy.requires_grad_(True)

    def kept(value: Any) -> Any:
        return copy if value is target else value

    for node in reversed(recorder.graph.nodes):
        val = node.meta.get("val")
        if val is target or isinstance(val, (list, tuple)):
            node.meta["val"] = pytree.tree_map(kept, val)
        if node is maker:
            return


# -- whose object it is ----------------------------------------------------------------------------


def _maker(recorder: Recorder, target: FakeTensor) -> torch.fx.Node | None:
    """The node that made the tensor, whatever wrote to it since; None for inputs and state."""
    node = recorder.operand(target)
    while True:
        if node.op != "call_function":
            return None
        if node.target is operators.getitem or operators.writes(node):
            source = node.args[0]
            if not isinstance(source, torch.fx.Node):  # an item of a list that was written
                source = source[0]
            node = source
            continue
        return node  # type: ignore[no-any-return]


def _check_one_object(recorder: Recorder, func: Any, maker: torch.fx.Node) -> None:
    """Refuse to change what may be another tensor of the program under a second name."""
    if _may_return_its_argument(maker):
        raise _refuse(
            recorder,
            f"{func} changes the sizes or strides of what {maker.target} returned in place.",
            "that may be the very tensor which the operator was given, or a new one",
        )


def _may_return_its_argument(maker: torch.fx.Node) -> bool:
    """Whether an operator may give back an argument as it is; only composite ones do."""
    target = maker.target
    if target in LAYOUT_DECIDES:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return target is torch_private.call_torchbind()  # an object gives back what it was given
    if not torch_private.is_composite_implicit(target):
        return False
    results = [v for v in pytree.tree_leaves(maker.meta["val"]) if isinstance(v, FakeTensor)]
    given = [n.meta["val"] for n in maker.all_input_nodes]
    return any(isinstance(a, FakeTensor) and _alike(a, r) for a in given for r in results)


def _alike(a: FakeTensor, b: FakeTensor) -> bool:
    same = (a.sizes, a.strides, a.offset) == (b.sizes, b.strides, b.offset)
    return a.storage_ is b.storage_ and same


def _refuse(recorder: Recorder, what: str, why: str) -> NotSupported:
    return NotSupported(
        what,
        why=why,
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["use the operator that returns a view or a new tensor, on a clone if need be"],
    )
