"""Functions and classes made by the program, and the intrinsics of 3.12."""

from __future__ import annotations

import typing
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from stillframe.frames.opcodes.attributes import import_star
from stillframe.frames.opcodes.containers import list_to_tuple
from stillframe.frames.opcodes.operators import unary_positive
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


@opcode("MAKE_FUNCTION")
def make_function(frame: Frame, flags: int) -> None:
    """The parts lie on the stack in the order of their flags."""
    stack = frame.stack
    code = stack.pop()
    parts = {flag: stack.pop() for flag in (8, 4, 2, 1) if flags & flag}
    function = FunctionType(code, frame.globals, closure=parts.pop(8, None))
    _set_module(frame, function)
    for flag, value in parts.items():
        _set_part(function, flag, value)
    stack.append(function)


@opcode("MAKE_FUNCTION_13")
def make_function_13(frame: Frame, _: int) -> None:
    """Since 3.13 the parts are set one by one, the closure too; until then its cells are empty."""
    code = frame.stack.pop()
    empty = tuple(CellType() for _ in code.co_freevars)
    frame.stack.append(_set_module(frame, FunctionType(code, frame.globals, closure=empty)))


@opcode("SET_FUNCTION_ATTRIBUTE")
def set_function_attribute(frame: Frame, flag: int) -> None:
    made, value = frame.stack.pop(), frame.stack.pop()
    if flag == 8:
        function = FunctionType(made.__code__, frame.globals, closure=value)
        function.__defaults__, function.__kwdefaults__ = made.__defaults__, made.__kwdefaults__
        function.__annotations__ = made.__annotations__
        made = _set_module(frame, function)
    else:
        _set_part(made, flag, value)
    frame.stack.append(made)


def _set_module(frame: Frame, function: FunctionType) -> FunctionType:
    function.__module__ = frame.globals.get("__name__")  # type: ignore[assignment]
    frame.policy.new_function(function)
    return function


def _set_part(function: FunctionType, flag: int, value: Any) -> None:
    if flag == 1:
        function.__defaults__ = value
    elif flag == 2:
        function.__kwdefaults__ = value
    elif isinstance(value, tuple):  # annotations lie flat: name, value, name, value
        function.__annotations__ = dict(zip(value[::2], value[1::2], strict=True))
    else:
        function.__annotations__ = value


@opcode("LOAD_BUILD_CLASS")
def load_build_class(frame: Frame, _: int) -> None:
    frame.stack.append(frame.builtins["__build_class__"])


@opcode("PRINT_EXPR")
def print_expr(frame: Frame, _: int) -> None:
    import sys

    frame.policy.call(sys.displayhook, (frame.stack.pop(),), {})


@opcode("CALL_INTRINSIC_1")
def call_intrinsic_1(frame: Frame, number: int) -> None:
    _INTRINSICS[number](frame)


@opcode("CALL_INTRINSIC_2")
def call_intrinsic_2(frame: Frame, number: int) -> None:
    from stillframe.frames.opcodes.exceptions import prep_reraise_star

    if number == 1:
        prep_reraise_star(frame, 0)
        return
    second = frame.stack.pop()
    first = frame.stack.pop()
    if number == 2:  # a type variable with a bound, which is evaluated late
        value: Any = _type_variable(first, bound=frame.policy.call(second, (), {}))
    elif number == 3:
        value = _type_variable(first, *frame.policy.call(second, (), {}))
    elif number == 4:
        first.__type_params__ = second
        value = first
    else:
        raise frame.machine.refuse("a type parameter with a default is not supported.")
    frame.stack.append(value)


def _type_variable(name: str, *constraints: Any, **options: Any) -> Any:
    make: Any = typing.TypeVar
    return make(name, *constraints, infer_variance=True, **options)


def _intrinsic_subscript_generic(frame: Frame) -> None:
    parameters = frame.stack.pop()
    frame.stack.append(typing.Generic[parameters])  # type: ignore[index]


def _intrinsic_type_alias(frame: Frame) -> None:
    name, parameters, value = frame.stack.pop()
    alias = typing.TypeAliasType  # type: ignore[attr-defined]
    made = alias(name, frame.policy.call(value, (), {}), type_params=parameters or ())
    frame.stack.append(made)


def _intrinsic_stop_iteration(frame: Frame) -> None:
    """In a generator a StopIteration that escapes becomes a RuntimeError."""
    error = frame.stack.pop()
    if isinstance(error, StopIteration):
        changed = RuntimeError("generator raised StopIteration")
        changed.__cause__ = changed.__context__ = error
        error = changed
    frame.stack.append(error)


def _map_top(make: Any) -> Any:
    def intrinsic(frame: Frame) -> None:
        frame.stack[-1] = make(frame.stack[-1])

    return intrinsic


def _intrinsic_import_star(frame: Frame) -> None:
    import_star(frame, 0)
    frame.stack.append(None)


def _intrinsic_print(frame: Frame) -> None:
    print_expr(frame, 0)
    frame.stack.append(None)


def _intrinsic_wrap(frame: Frame) -> None:
    raise frame.machine.refuse("an asynchronous generator is not supported.")


_INTRINSICS: dict[int, Any] = {
    1: _intrinsic_print,
    2: _intrinsic_import_star,
    3: _intrinsic_stop_iteration,
    4: _intrinsic_wrap,
    5: lambda frame: unary_positive(frame, 0),
    6: lambda frame: list_to_tuple(frame, 0),
    7: _map_top(_type_variable),
    8: _map_top(lambda name: typing.ParamSpec(name)),
    9: _map_top(lambda name: typing.TypeVarTuple(name)),
    10: _intrinsic_subscript_generic,
    11: _intrinsic_type_alias,
}
