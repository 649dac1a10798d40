"""Calls, in the shapes of each version; all end in ``policy.call``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.containers import callable_text, pop_many
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

_NO_KEYWORDS: dict[str, Any] = {}


@opcode("KW_NAMES")
def kw_names(frame: Frame, names: tuple[str, ...]) -> None:
    frame.keywords = names


@opcode("CALL")
def call(frame: Frame, count: int) -> None:
    """The stack holds an empty slot and a callable, or a callable and its first argument."""
    stack = frame.stack
    if count:
        args = tuple(stack[-count:])
        del stack[-count:]
    else:
        args = ()
    callee = stack.pop()
    first = stack[-1]
    if first is not NULL:
        callee, args = first, (callee, *args)
    if frame.keywords:
        names, frame.keywords = frame.keywords, ()
        split = len(args) - len(names)
        kwargs = dict(zip(names, args[split:], strict=True))
        stack[-1] = frame.policy.call(callee, args[:split], kwargs)
    else:
        stack[-1] = frame.policy.call(callee, args, _NO_KEYWORDS)


@opcode("CALL_13")
def call_13(frame: Frame, count: int) -> None:
    """Since 3.13 the callable comes first, then an empty slot or the first argument."""
    stack = frame.stack
    if count:
        args = tuple(stack[-count:])
        del stack[-count:]
    else:
        args = ()
    first = stack.pop()
    if first is not NULL:
        args = (first, *args)
    stack[-1] = frame.policy.call(stack[-1], args, _NO_KEYWORDS)


@opcode("CALL_KW")
def call_kw(frame: Frame, count: int) -> None:
    stack = frame.stack
    names = stack.pop()
    values = pop_many(stack, count)
    split = count - len(names)
    first = stack.pop()
    args = tuple(values[:split]) if first is NULL else (first, *values[:split])
    kwargs = dict(zip(names, values[split:], strict=True))
    stack[-1] = frame.policy.call(stack[-1], args, kwargs)


@opcode("CALL_FUNCTION_EX")
def call_function_ex(frame: Frame, flags: int) -> None:
    stack = frame.stack
    kwargs = stack.pop() if flags & 1 else _NO_KEYWORDS
    args, callee = stack.pop(), stack.pop()
    assert stack[-1] is NULL
    stack[-1] = _call_ex(frame, callee, args, kwargs)


@opcode("CALL_FUNCTION_EX_13")
def call_function_ex_13(frame: Frame, flags: int) -> None:
    stack = frame.stack
    kwargs = stack.pop() if flags & 1 else _NO_KEYWORDS
    args, empty = stack.pop(), stack.pop()
    assert empty is NULL
    stack[-1] = _call_ex(frame, stack[-1], args, kwargs)


def _call_ex(frame: Frame, callee: Any, args: Any, kwargs: Any) -> Any:
    if type(args) is not tuple:
        if not frame.policy.is_iterable(args):
            raise TypeError(
                f"{callable_text(callee)} argument after * must be an iterable, "
                f"not {type(args).__name__}"
            )
        args = tuple(frame.policy.native_iterable(args))
    else:
        args = tuple(frame.policy.elements(args))
    if kwargs and not all(isinstance(key, str) for key in kwargs):
        raise TypeError("keywords must be strings")
    return frame.policy.call(callee, args, kwargs)
