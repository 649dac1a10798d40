"""From the arguments of a call to the local variables of the function."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

from stillframe.errors import InternalError
from stillframe.frames.decode import Decoded
from stillframe.frames.frame import NULL


def bind(
    function: FunctionType, decoded: Decoded, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """The local slots of a new frame, arguments first.

    Raises:
        TypeError: the arguments do not fit, in CPython's words.
    """
    given = len(args)
    if decoded.is_simple and not kwargs and given == decoded.positional:
        return [*args, *[NULL] * (decoded.size - given)]
    variables = [NULL] * decoded.size
    if not _fill(function, decoded, variables, args, dict(kwargs)):
        _complain(function, args, kwargs)
    return variables


def _fill(
    function: FunctionType,
    decoded: Decoded,
    variables: list[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bool:
    positional, named = decoded.positional, decoded.positional + decoded.keyword_only
    variables[: min(len(args), positional)] = args[:positional]
    if decoded.has_varargs:
        variables[named] = args[positional:]
    elif len(args) > positional:
        return False
    names = decoded.local_names
    for index in range(decoded.code.co_posonlyargcount, named):
        if names[index] in kwargs:
            if variables[index] is not NULL:
                return False
            variables[index] = kwargs.pop(names[index])
    if decoded.has_varkw:
        variables[named + decoded.has_varargs] = kwargs
    elif kwargs:
        return False
    _defaults(function, decoded, variables)
    return not any(value is NULL for value in variables[:named])


def _defaults(function: FunctionType, decoded: Decoded, variables: list[Any]) -> None:
    defaults = function.__defaults__ or ()
    first = decoded.positional - len(defaults)
    for index, value in enumerate(defaults, first):
        if variables[index] is NULL:
            variables[index] = value
    keyword_defaults = function.__kwdefaults__ or {}
    for index in range(decoded.positional, decoded.positional + decoded.keyword_only):
        if variables[index] is NULL:
            variables[index] = keyword_defaults.get(decoded.local_names[index], NULL)


def _nothing() -> None:
    return None


def _complain(function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Let CPython find the words: call a function with the same signature and an empty body."""
    stub = FunctionType(_empty_body(function.__code__), {})
    stub.__qualname__ = function.__qualname__
    stub.__defaults__, stub.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    stub(*args, **kwargs)
    raise InternalError(f"the arguments of {function.__qualname__} fit after all")


def _empty_body(code: CodeType) -> CodeType:
    empty = _nothing.__code__
    return code.replace(
        co_code=empty.co_code,
        co_consts=empty.co_consts,
        co_names=(),
        co_cellvars=(),
        co_freevars=(),
        co_exceptiontable=b"",
        co_flags=code.co_flags & (4 | 8) | empty.co_flags,
        co_stacksize=max(1, empty.co_stacksize),
    )
