"""Running TorchScript's graphs in Python, so that a capture sees them.

Torch's own interpreter asks sizes as plain numbers, which would fix them without a word. Here the
operators of the dispatcher are called as Python calls them, and arithmetic on sizes is Python's on
symbolic numbers: a branch on a size is a guard, a branch on data is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import torch

from stillframe import stack
from stillframe.errors import InternalError, NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.interop import script_graph, script_operators, script_values
from stillframe.interop.script_graph import Block, Step
from stillframe.interop.script_values import InexactText, Instance
from stillframe.trace import scope

Values = dict[int, Any]
Control = Callable[[Step, Values], Any]

#: Operators whose second operand, a scalar constant, is a number for torch's executor: it replaces
#: ``mul.Tensor`` by ``mul.Scalar``, and the dtype of the result follows that.
_NUMBER_OPERANDS = frozenset(
    {"aten::add.Tensor", "aten::sub.Tensor", "aten::mul.Tensor", "aten::div.Tensor"}
)

_CONTROL: dict[str, Control] = {}


def control(kind: str) -> Callable[[Control], Control]:
    """Register how a kind of node runs, where it needs more than its operands."""

    def put(function: Control) -> Control:
        if kind in _CONTROL:
            raise InternalError(f"two functions for {kind}")
        _CONTROL[kind] = function
        return function

    return put


class Method:
    """A decoded method or function: its code, and how its arguments look."""

    def __init__(self, block: Block, types: list[Any]) -> None:
        self.block = block
        self.types = types


def run(block: Block, arguments: tuple[Any, ...]) -> Any:
    """The result of a graph."""
    values: Values = dict(zip(block.inputs, arguments, strict=True))
    results = _run_block(block, values)
    return results[0] if len(results) == 1 else tuple(results)


def _run_block(block: Block, values: Values) -> list[Any]:
    for step in block.steps:
        _run_step(step, values)
    return [values[name] for name in block.outputs]


def _run_step(step: Step, values: Values) -> None:
    handler = _CONTROL.get(step.kind)
    if handler is not None:
        result = handler(step, values)
    else:
        result = _call(step, [values[name] for name in step.inputs])
    if len(step.outputs) == 1:
        values[step.outputs[0]] = result
    elif step.outputs:
        values.update(zip(step.outputs, result, strict=True))


def _place_of(frame: FrameType) -> tuple[CodeType, int]:
    """Which line of TorchScript a frame of :func:`_run_step` is at."""
    step: Step = frame.f_locals["step"]
    return step.place, 0


stack.show_interpreted(
    _run_step.__code__,
    _place_of,
    *(str(module.__file__) for module in (script_operators, script_graph, script_values)),
    __file__,
)


_INEXACT = "it works on a text that TorchScript may write with other digits"


# -- operators ------------------------------------------------------------------------------------


def _call(step: Step, args: list[Any]) -> Any:
    """One operator: by our tables, by the dispatcher, or by torch on plain numbers."""
    if any(isinstance(a, InexactText) for a in args):
        if step.op not in script_operators.ON_INEXACT_TEXT:
            raise _unknown(step, _INEXACT)
    function = script_operators.BUILTINS.get(step.op)
    if function is not None:
        return function(*args)
    if step.kind in script_operators.BANNED:
        raise _unknown(step, "it has effects that a program cannot repeat")
    if torch._C._dispatch_has_kernel(step.op):
        return _dispatch(step, args)
    if script_values.is_symbolic(args):
        on_symbols = script_operators.ON_SYMBOLS.get(step.op)
        if on_symbols is None:
            raise _unknown(step, "it is not defined on a symbolic number")
        return on_symbols(*args)
    if not _is_plain(step.op, args):
        raise _unknown(step, "no rule says what it does")
    return overload_of(step.op)(*args)


def _dispatch(step: Step, args: list[Any]) -> Any:
    for position, number in step.literals.items():
        if position == 1 and step.op in _NUMBER_OPERANDS:
            args[position] = number
    overload = overload_of(step.op)
    arguments = overload._schema.arguments
    count = sum(not argument.kwarg_only for argument in arguments)
    keywords = {a.name: v for a, v in zip(arguments[count:], args[count:], strict=True)}
    return overload(*args[:count], **keywords)


def overload_of(op: str) -> Any:
    """The operator called ``"aten::add.Tensor"``."""
    name, _, overload = op.partition(".")
    namespace, _, name = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name)
    return getattr(packet, overload or "default")


_PLAIN_TYPES = ("int", "float", "bool", "complex", "str", "Scalar", "Device", "number")


def _is_plain(op: str, args: list[Any]) -> bool:
    """Whether torch's operator takes and returns numbers and text only, and writes nothing."""
    if op == op.partition("::")[0] or script_values.holds_tensor(args):
        return False
    try:
        schema = overload_of(op)._schema
    except AttributeError:
        return False
    parts = [*schema.arguments, *schema.returns]
    return len(args) == len(schema.arguments) and all(
        part.alias_info is None and part.type.str().rstrip("[]?") in _PLAIN_TYPES for part in parts
    )


def _unknown(step: Step, why: str) -> NotSupported:
    return NotSupported(
        f"The TorchScript operator {step.op} is not supported here.",
        why=why,
        where=[*stack.summary((step.place, 0)), *step.source.splitlines()[1:]],
        hints=["export the Python module that the TorchScript was made from"],
    )


# -- values ---------------------------------------------------------------------------------------


@control("prim::Constant")
def _constant(step: Step, values: Values) -> Any:
    """A scalar that nobody writes is made in the graph, where its value is known."""
    value = step.attributes["value"]
    if not isinstance(value, torch.Tensor) or value.dim() or not step.attributes["is_read_only"]:
        return value
    if value.dtype.is_complex or value.requires_grad or value.is_quantized:
        return value
    with torch.utils._python_dispatch._disable_current_modes():
        number = value.item()
    return script_operators.scalar(number, value.dtype, value.device)


@control("prim::TupleConstruct")
def _tuple(step: Step, values: Values) -> Any:
    return script_values.make_tuple(step.output_type, [values[name] for name in step.inputs])


@control("prim::TupleSlice")
def _tuple_slice(step: Step, values: Values) -> Any:
    whole = tuple(values[step.inputs[0]])
    return whole[step.attributes["begin"] : step.attributes["end"]]


@control("aten::__is__")
def _is(step: Step, values: Values) -> bool:
    a, b = (values[name] for name in step.inputs)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return _is_one_tensor(step, a, b)
    if a is not None and b is not None:
        raise _unknown(step, "identity is only known of None and of tensors")
    return a is b


def _is_one_tensor(step: Step, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are one object.

    A call may pass one tensor for two inputs, and an operator may return its operand. Torch's
    library asks this to choose among kernels that agree; for other code it must be certain.
    """
    if a is not b and stack.is_user_code(step.place):
        if not isinstance(a, FakeTensor) or not isinstance(b, FakeTensor):
            raise _unknown(step, "whether a constant is another tensor is not known")
        are_inputs = all(getattr(t.fx_node, "op", "") == "placeholder" for t in (a, b))
        if are_inputs or a.storage_ is b.storage_:
            raise _unknown(step, "whether these are one tensor may differ from call to call")
    return a is b


@control("aten::__isnot__")
def _is_not(step: Step, values: Values) -> bool:
    return not _is(step, values)


# -- control flow ---------------------------------------------------------------------------------


@control("prim::If")
def _if(step: Step, values: Values) -> Any:
    condition = bool(values[step.inputs[0]])
    return _outputs(step, _run_block(step.blocks[0 if condition else 1], values))


@control("prim::Loop")
def _loop(step: Step, values: Values) -> Any:
    limit, condition, *carried = (values[name] for name in step.inputs)
    body = step.blocks[0]
    limit, count = operator.index(limit), 0
    while count < limit and bool(condition):
        values.update(zip(body.inputs, (count, *carried), strict=True))
        condition, *carried = _run_block(body, values)
        count += 1
    return _outputs(step, carried)


def _outputs(step: Step, results: list[Any]) -> Any:
    return results[0] if len(step.outputs) == 1 else results


@control("prim::RaiseException")
def _raise(step: Step, values: Values) -> Any:
    raise torch.jit.Error(str(values[step.inputs[0]]))


@control("prim::fork")
def _fork(step: Step, values: Values) -> Any:
    return run(step.blocks[0], tuple(values[name] for name in step.inputs))


@control("prim::CallFunction")
def _call_function(step: Step, values: Values) -> Any:
    return run(step.blocks[0], tuple(values[name] for name in step.inputs))


# -- objects --------------------------------------------------------------------------------------


@control("prim::CallMethod")
def _call_method(step: Step, values: Values) -> Any:
    receiver, *args = (values[name] for name in step.inputs)
    name = step.attributes["name"]
    if isinstance(receiver, Instance):
        return run(step.blocks[0], (receiver, *args))
    if not isinstance(receiver, torch.nn.Module):
        raise _unknown(step, f"it is a method of a {type(receiver).__name__}")
    return call_method(receiver, name, tuple(args))


def call_method(module: Any, name: str, args: tuple[Any, ...]) -> Any:
    """Run a method of a converted module; ``forward`` is a call of the module."""
    block = module.methods[name].block
    if name.partition("__")[0] != "forward":  # overloads are called forward__0, forward__1
        return run(block, (module, *args))
    return scope.in_scope(module, lambda *given: run(block, (module, *given)), args, {})


@control("prim::GetAttr")
def _get_attribute(step: Step, values: Values) -> Any:
    receiver, name = values[step.inputs[0]], step.attributes["name"]
    if isinstance(receiver, Instance):
        return receiver.attributes[name]
    found = read_attribute(receiver, name)
    if found is MISSING:
        raise _unknown(step, f"the attribute {name} is of a class that is not read yet")
    return found


@control("prim::SetAttr")
def _set_attribute(step: Step, values: Values) -> None:
    receiver, value = (values[name] for name in step.inputs)
    name = step.attributes["name"]
    if isinstance(receiver, Instance):
        receiver.attributes[name] = value
        return
    table = _table_of(receiver, name)
    if table is None:
        raise _unknown(step, f"the attribute {name} is of a class that is not written yet")
    table[name] = value


MISSING = object()


def _table_of(module: Any, name: str) -> dict[str, Any] | None:
    """Where a converted module keeps an attribute."""
    if not isinstance(module, torch.nn.Module):
        return None
    tables = (module._parameters, module._buffers, module._modules, module.__dict__)
    return next((table for table in tables if name in table), None)


def read_attribute(module: Any, name: str) -> Any:
    """An attribute of a converted module, or MISSING."""
    table = _table_of(module, name)
    return MISSING if table is None else table[name]


@control("prim::CreateObject")
def _create_object(step: Step, values: Values) -> Instance:
    return Instance()


@control("prim::Enter")
def _enter(step: Step, values: Values) -> Any:
    if "autocast" in step.attributes["class"]:
        raise _unknown(step, "regions of autocast are done by a pass of TorchScript's compiler")
    return run(step.blocks[0], (values[step.inputs[0]],))


@control("prim::Exit")
def _exit(step: Step, values: Values) -> Any:
    return run(step.blocks[0], (values[step.inputs[0]], None, None, None))
