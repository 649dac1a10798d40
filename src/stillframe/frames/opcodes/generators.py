"""Generators and coroutines.

A generator of the program is a real generator object: its body is :func:`drive`, which runs the
frame from yield to yield. So C code can iterate over it, ``type()`` is right, and closing it when
it dies is CPython's business.
"""

from __future__ import annotations

from collections.abc import Generator
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import Handled
from stillframe.frames.lookup import MISSING, type_lookup
from stillframe.frames.opcodes.registry import LEAVE, opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

_COROUTINE, _ASYNC_GENERATOR, _ITERABLE_COROUTINE = 0x80, 0x200, 0x100


@opcode("RETURN_GENERATOR")
def return_generator(frame: Frame, _: int) -> int:
    code = frame.decoded.code
    if code.co_flags & _ASYNC_GENERATOR:
        raise frame.machine.refuse(
            f"the asynchronous generator {code.co_qualname} is not supported.",
            hints=["collect the values in a list, or use a plain generator"],
        )
    generator: Any
    generator = _coroutine(frame) if code.co_flags & _COROUTINE else drive(frame)
    generator.__name__, generator.__qualname__ = frame.label or (code.co_name, code.co_qualname)
    frame.handled = Handled()
    frame.stack.append(generator)
    return LEAVE


def drive(frame: Frame) -> Generator[Any, Any, Any]:
    """Run a frame behind its ``RETURN_GENERATOR``, yielding what it yields."""
    machine = frame.machine
    frame.stack.append(None)
    value = machine.resume(frame)
    while not frame.is_finished:
        thrown: BaseException | None = None
        try:
            sent = yield value
        except BaseException as error:
            thrown = error
        if thrown is None:
            frame.stack.append(sent)
            value = machine.resume(frame)
        else:
            value = _throw(frame, thrown)
    return value


async def _coroutine(frame: Frame) -> Any:
    return await _Awaited(frame)


class _Awaited:
    """Lets a coroutine be driven as a generator is."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def __await__(self) -> Generator[Any, Any, Any]:
        return drive(self.frame)


def _throw(frame: Frame, error: BaseException) -> Any:
    """Raise ``error`` where the frame waits; a delegate gets it first."""
    exit_index = frame.decoded.is_delegating.get(frame.pc - 1)
    if exit_index is not None:
        try:
            return _throw_into_delegate(frame, frame.stack[-1], error)
        except BaseException as e:
            error = e
        if isinstance(error, StopIteration) and frame.machine.pops_delegate:
            frame.stack[-1] = error.value
            frame.pc = exit_index
            return frame.machine.resume(frame)
    frame.stack.append(None)
    frame.thrown = error
    return frame.machine.resume(frame)


def _throw_into_delegate(frame: Frame, delegate: Any, error: BaseException) -> Any:
    policy = frame.policy
    if isinstance(error, GeneratorExit):
        close = policy.load_attr_or(delegate, "close", None)
        if close is not None:
            policy.call(close, (), {})
        raise error
    throw = policy.load_attr_or(delegate, "throw", None)
    if throw is None:
        raise error
    return policy.call(throw, (error,), {})


@opcode("YIELD_VALUE")
def yield_value(frame: Frame, _: int) -> int:
    return LEAVE


@opcode("GET_YIELD_FROM_ITER")
def get_yield_from_iter(frame: Frame, _: int) -> None:
    value = frame.stack[-1]
    if type(value) is GeneratorType:
        return
    if type(value) is CoroutineType:
        if not frame.decoded.code.co_flags & (_COROUTINE | _ITERABLE_COROUTINE):
            raise TypeError("cannot 'yield from' a coroutine object in a non-coroutine generator")
        return
    frame.stack[-1] = frame.policy.iterate(value)


@opcode("SEND")
def send(frame: Frame, target: int) -> int | None:
    """Send the top into the delegate below it. Its result replaces both when it ends."""
    stack = frame.stack
    try:
        stack[-1] = _send(frame, stack[-2], stack[-1])
    except StopIteration as stop:
        value = stop.value
    else:
        return None
    stack.pop()
    stack[-1] = value
    return target


@opcode("SEND_12")
def send_12(frame: Frame, target: int) -> int | None:
    """Since 3.12 the delegate stays until ``END_SEND``."""
    stack = frame.stack
    try:
        stack[-1] = _send(frame, stack[-2], stack[-1])
    except StopIteration as stop:
        value = stop.value
    else:
        return None
    stack[-1] = value
    return target


def _send(frame: Frame, delegate: Any, value: Any) -> Any:
    policy = frame.policy
    if type(delegate) is GeneratorType or type(delegate) is CoroutineType:
        return delegate.send(value)
    if value is None:
        return policy.next(delegate)
    return policy.call(policy.load_attr(delegate, "send"), (value,), {})


@opcode("END_SEND")
def end_send(frame: Frame, _: int) -> None:
    value = frame.stack.pop()
    frame.stack[-1] = value


@opcode("CLEANUP_THROW")
def cleanup_throw(frame: Frame, _: int) -> None:
    """The stack: delegate, last sent value, exception. A StopIteration is the delegate's result."""
    error = frame.stack.pop()
    if not isinstance(error, StopIteration):
        frame.is_reraise = True
        raise error
    frame.stack[-2:] = (None, error.value)


@opcode("GET_AWAITABLE")
def get_awaitable(frame: Frame, _: int) -> None:
    value = frame.stack[-1]
    if type(value) is CoroutineType:
        return
    if type(value) is GeneratorType and value.gi_code.co_flags & _ITERABLE_COROUTINE:
        return
    if type_lookup(type(value), "__await__") is MISSING:
        raise TypeError(f"object {type(value).__name__} can't be used in 'await' expression")
    policy = frame.policy
    frame.stack[-1] = policy.call(policy.special(value, "__await__"), (), {})


@opcode("GET_AITER")
def get_aiter(frame: Frame, _: int) -> None:
    value = frame.stack[-1]
    if type_lookup(type(value), "__aiter__") is MISSING:
        raise TypeError(
            f"'async for' requires an object with __aiter__ method, got {type(value).__name__}"
        )
    policy = frame.policy
    frame.stack[-1] = policy.call(policy.special(value, "__aiter__"), (), {})


@opcode("GET_ANEXT")
def get_anext(frame: Frame, _: int) -> None:
    policy = frame.policy
    frame.stack.append(policy.call(policy.special(frame.stack[-1], "__anext__"), (), {}))
    get_awaitable(frame, 0)


@opcode("END_ASYNC_FOR")
def end_async_for(frame: Frame, _: int) -> None:
    error = frame.stack.pop()
    if not isinstance(error, StopAsyncIteration):
        frame.is_reraise = True
        raise error
    frame.stack.pop()


@opcode("ASYNC_GEN_WRAP")
def async_gen_wrap(frame: Frame, _: int) -> None:
    raise frame.machine.refuse("an asynchronous generator is not supported.")
