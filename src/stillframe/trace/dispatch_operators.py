"""Operators that a trace by dispatch does not simply record.

Each handler gets the recorder and the call, and returns the result or ``NotImplemented`` to have
the call recorded as usual. Those that :mod:`stillframe.trace.operators` handles for ``export`` are
reached from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe import stack
from stillframe.errors import DataDependentError
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr
from stillframe.trace import layout_changes, operators
from stillframe.trace.calls import check_fresh
from stillframe.trace.folding import CONSTANT_NUMEL_LIMIT

if TYPE_CHECKING:
    from stillframe.trace.dispatch import DispatchRecorder

aten = torch.ops.aten

Handler = Callable[["DispatchRecorder", Any, tuple[Any, ...], dict[str, Any]], Any]


def _item(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``item()``, ``bool()``, ``equal``: answered if constant; of real data only on demand."""
    if recorder.runs_on is not None:
        special = operators.facts_of(func).special
        assert special is not None
        return special(recorder, func, args, kwargs)
    if recorder.real.all_constant(args, kwargs):
        return func(*args, **kwargs)
    if recorder.options.error_on_data_dependent_ops:
        raise _needs_data(recorder, func)
    return NotImplemented


def _needs_data(recorder: DispatchRecorder, func: Any) -> DataDependentError:
    """The error for an operator whose answer would be the one of the example only."""
    return DataDependentError(
        f"Python needs the answer of {func}, which depends on the data.",
        why="the graph would hold the answer for the example as a constant",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=[
            'trace with tracing_mode="symbolic", where item() gives an unknown number',
            "or choose with torch.where",
        ],
    )


def _lift_fresh(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``torch.tensor(...)``: an attribute of the graph, and a copy of it that the program uses."""
    fresh = args[0]
    if recorder.held(fresh) is not None:
        again = aten.clone if func is aten.lift_fresh_copy.default else aten.alias
        return recorder.record_call(again.default, args, {})
    node = recorder.operand(fresh)
    copy = recorder.create(aten.lift_fresh_copy.default, (node,), {}, "lift_fresh_copy")
    small = fresh.numel() <= CONSTANT_NUMEL_LIMIT
    if recorder.runs_on is None:
        check_fresh(recorder)
        result = fresh.clone()
        recorder.bind_tensor(result, copy)
        if small:
            recorder.real.mark_constant(result)
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


def _concrete_layout(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """C++ code that cannot take symbolic sizes asks for numbers: the example's, with guards."""
    if recorder.runs_on is None:
        return NotImplemented
    fake = recorder.fake_mode.adopt(args[0])
    if func is aten.storage_offset.default:
        return _number(recorder, fake.offset)
    values = fake.sizes if func is aten.size.default else fake.strides
    return [_number(recorder, v) for v in values]


def _number(recorder: DispatchRecorder, value: Any) -> Any:
    return recorder.env.specialise(value) if isinstance(value, Expr) else value


def _zeros(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Autograd's zero tensors without memory: to fakes they are like any zeros."""
    if recorder.runs_on is None:
        return NotImplemented
    result = recorder.runs_on.run(aten.zeros.default, args, kwargs)
    sizes = [recorder.operand(size) for size in args[0]]
    node = recorder.create(func, (sizes,), dict(kwargs), func.overloadpacket.__name__)
    recorder.describe(node, result)
    recorder.bind_tensor(result, node)
    return result


def _assertion(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A check that stays in the graph; on real tensors it is made now, too."""
    special = operators.facts_of(func).special
    assert special is not None
    special(recorder, func, args, kwargs)
    return func(*args, **kwargs) if recorder.runs_on is None else None


def _assert_scalar(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A check of a graph that is traced again."""
    special = operators.facts_of(func).special
    assert special is not None
    return special(recorder, func, args, kwargs)


def _check_codes(
    recorder: DispatchRecorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Error codes that a kernel returned are checked when the graph runs; fakes have none."""
    if recorder.runs_on is None:
        return NotImplemented
    operands = tuple(recorder.operand(a) for a in args)
    recorder.create(func, operands, dict(kwargs), func.overloadpacket.__name__).meta["val"] = None
    return None


HANDLERS: dict[Any, Handler] = {
    aten._assert_scalar.default: _assert_scalar,
    aten._linalg_check_errors.default: _check_codes,
    aten._local_scalar_dense.default: _item,
    aten.item.default: _item,
    aten.is_nonzero.default: _item,
    aten.equal.default: _item,
    aten.allclose.default: _item,
    aten.lift_fresh.default: _lift_fresh,
    aten.lift_fresh_copy.default: _lift_fresh,
    aten._has_same_storage_numel.default: _same_memory_size,
    aten._efficientzerotensor.default: _zeros,
    aten.size.default: _concrete_layout,
    aten.stride.default: _concrete_layout,
    aten.storage_offset.default: _concrete_layout,
    **dict.fromkeys(layout_changes.OPERATORS, layout_changes.record_below),
    aten._assert_async.msg: _assertion,
    aten._assert_async.default: _assertion,
    aten._assert_tensor_metadata.default: _assertion,
}
