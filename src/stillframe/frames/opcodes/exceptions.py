"""Raising, catching, ``with`` and ``except*``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.frames.lookup import MISSING, type_lookup
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


@opcode("LOAD_ASSERTION_ERROR")
def load_assertion_error(frame: Frame, _: int) -> None:
    frame.stack.append(AssertionError)


@opcode("RAISE_VARARGS")
def raise_varargs(frame: Frame, count: int) -> None:
    if count == 0:
        current = frame.handled.topmost()
        if current is None:
            raise RuntimeError("No active exception to reraise")
        frame.is_reraise = True
        raise current
    cause = frame.stack.pop() if count == 2 else MISSING
    error = _instance(frame, frame.stack.pop(), "exceptions must derive from BaseException")
    if cause is not MISSING:
        if cause is not None:
            cause = _instance(frame, cause, "exception causes must derive from BaseException")
        error.__cause__ = cause
    chain(error, frame.handled.topmost())
    raise error


def _instance(frame: Frame, value: Any, complaint: str) -> BaseException:
    if isinstance(value, type) and issubclass(value, BaseException):
        made = frame.policy.call(value, (), {})
        if not isinstance(made, BaseException):
            raise TypeError(
                f"calling {value!r} should have returned an instance of BaseException, "
                f"not {type(made)!r}"
            )
        return made
    if not isinstance(value, BaseException):
        raise TypeError(complaint)
    return value


def chain(error: BaseException, handled: BaseException | None) -> None:
    """Set the context of an exception that is raised; a cycle in the chain is cut."""
    if handled is None or handled is error:
        return
    link = handled
    while (context := link.__context__) is not None:
        if context is error:
            link.__context__ = None
            break
        link = context
    error.__context__ = handled


@opcode("RERAISE")
def reraise(frame: Frame, _: int) -> None:
    frame.is_reraise = True
    raise frame.stack.pop()


@opcode("PUSH_EXC_INFO")
def push_exc_info(frame: Frame, _: int) -> None:
    error = frame.stack.pop()
    frame.stack += (frame.handled.value, error)
    frame.handled.value = error


@opcode("POP_EXCEPT")
def pop_except(frame: Frame, _: int) -> None:
    frame.handled.value = frame.stack.pop()


@opcode("CHECK_EXC_MATCH")
def check_exc_match(frame: Frame, _: int) -> None:
    wanted = frame.stack.pop()
    _check_classes(wanted, group=False)
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    mro = type(frame.stack[-1]).__mro__
    frame.stack.append(any(kind in mro for kind in kinds))


def _check_classes(wanted: Any, group: bool) -> None:
    for kind in wanted if isinstance(wanted, tuple) else (wanted,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(
                "catching classes that do not inherit from BaseException is not allowed"
            )
        if group and issubclass(kind, BaseExceptionGroup):
            raise TypeError(
                "catching ExceptionGroup with except* is not allowed. Use except instead."
            )


@opcode("CHECK_EG_MATCH")
def check_eg_match(frame: Frame, _: int) -> None:
    """``except*``: what is left of the exception, and the part that matches."""
    wanted = frame.stack.pop()
    error = frame.stack.pop()
    _check_classes(wanted, group=True)
    if isinstance(error, BaseExceptionGroup):
        match, rest = error.split(wanted)
    elif isinstance(error, wanted):
        match, rest = BaseExceptionGroup("", [error]), None
        match.__traceback__ = error.__traceback__
    else:
        match, rest = None, error
    if match is not None:
        frame.handled.value = match
    frame.stack += (rest, match)


@opcode("PREP_RERAISE_STAR")
def prep_reraise_star(frame: Frame, _: int) -> None:
    """What an ``except*`` statement raises at its end, or None."""
    errors, original = frame.stack.pop(), frame.stack.pop()
    frame.stack.append(_joined(original, errors))


def _joined(original: BaseException, errors: list[Any]) -> BaseException | None:
    if not isinstance(original, BaseExceptionGroup):
        return errors[0] if errors else None
    raised: list[BaseException] = []
    leaves: set[int] = set()
    for error in errors:
        if error is None:
            continue
        if _is_part_of(error, original):
            leaves |= _leaf_ids(error)
        else:
            raised.append(error)
    again = original.split(lambda e: id(e) in leaves)[0] if leaves else None
    if not raised:
        return again
    if again is not None:
        raised.append(again)
    return BaseExceptionGroup("", raised) if len(raised) > 1 else raised[0]


def _is_part_of(error: BaseException, original: BaseException) -> bool:
    """A part that was passed on unchanged has the marks of the whole."""
    return (
        error.__traceback__ is original.__traceback__
        and error.__cause__ is original.__cause__
        and error.__context__ is original.__context__
        and getattr(error, "__notes__", None) is getattr(original, "__notes__", None)
    )


def _leaf_ids(error: BaseException) -> set[int]:
    if isinstance(error, BaseExceptionGroup):
        return set().union(*map(_leaf_ids, error.exceptions))
    return {id(error)}


@opcode("BEFORE_WITH")
def before_with(frame: Frame, _: int) -> None:
    _enter(frame, "__enter__", "__exit__", "context manager")


@opcode("BEFORE_ASYNC_WITH")
def before_async_with(frame: Frame, _: int) -> None:
    _enter(frame, "__aenter__", "__aexit__", "asynchronous context manager")


def _enter(frame: Frame, enter: str, leave: str, kind: str) -> None:
    manager = frame.stack.pop()
    cls = type(manager)
    complaint = f"'{cls.__name__}' object does not support the {kind} protocol"
    if type_lookup(cls, enter) is MISSING:
        raise TypeError(complaint)
    if type_lookup(cls, leave) is MISSING:
        raise TypeError(f"{complaint} (missed {leave} method)")
    frame.stack.append(frame.policy.special(manager, leave))
    frame.stack.append(frame.policy.call(frame.policy.special(manager, enter), (), {}))


@opcode("WITH_EXCEPT_START")
def with_except_start(frame: Frame, _: int) -> None:
    """The stack: exit function, position, previous exception, exception."""
    error, leave = frame.stack[-1], frame.stack[-4]
    args = (type(error), error, error.__traceback__)
    frame.stack.append(frame.policy.call(leave, args, {}))
