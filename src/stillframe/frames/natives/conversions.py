"""Built-ins that ask a special method: ``len``, ``str``, ``int``, ``hash``, ``format``, ..."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from stillframe.frames.arithmetic import check_length
from stillframe.frames.attributes import call_special
from stillframe.frames.lookup import MISSING, python_special, type_lookup
from stillframe.frames.natives.registry import native

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine


@native(len)
def _len(machine: Machine, value: Any, /) -> int:
    length = call_special(machine.policy, value, "__len__")
    return len(value) if length is MISSING else check_length(length)


@native(bool)
def _bool(machine: Machine, *args: Any, **kwargs: Any) -> Any:
    if len(args) != 1 or kwargs:
        return bool(*args, **kwargs)
    return machine.policy.boolean(args[0])


@native(repr)
def _repr(machine: Machine, value: Any, /) -> str:
    text = call_special(machine.policy, value, "__repr__")
    if text is MISSING:
        return _repr_of_items(machine, value)
    if not isinstance(text, str):
        raise TypeError(f"__repr__ returned non-string (type {type(text).__name__})")
    return text


def _repr_of_items(machine: Machine, value: Any) -> str:
    """Lists, tuples, dicts and sets show their items, whose ``__repr__`` may be Python code."""
    kind = type(value)
    if kind not in (list, tuple, dict, set) or not _shows_python(value):
        return repr(value)
    if id(value) in machine.shown:
        return "[...]" if kind is list else "(...)" if kind is tuple else "{...}"
    machine.shown.add(id(value))
    try:
        if kind is dict:
            pairs = (f"{_repr(machine, k)}: {_repr(machine, v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        items = ", ".join(_repr(machine, item) for item in value)
    finally:
        machine.shown.discard(id(value))
    if kind is tuple:
        return f"({items},)" if len(value) == 1 else f"({items})"
    return f"[{items}]" if kind is list else "{" + items + "}"


def _shows_python(value: Any) -> bool:
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return any(
        python_special(kind, "__repr__") or kind in (list, tuple, dict, set)
        for kind in set(map(type, items))
    )


@native(str)
def _str(machine: Machine, *args: Any, **kwargs: Any) -> str:
    if len(args) != 1 or kwargs:
        return str(*args, **kwargs)
    return to_str(machine, args[0])


def to_str(machine: Machine, value: Any) -> str:
    """``str(value)``."""
    text = call_special(machine.policy, value, "__str__")
    if text is MISSING:
        if type_lookup(type(value), "__str__") is object.__str__:
            return _repr(machine, value)
        if isinstance(value, BaseException):
            return _str_of_error(machine, value)
        return str(value)
    if not isinstance(text, str):
        raise TypeError(f"__str__ returned non-string (type {type(text).__name__})")
    return text


def _str_of_error(machine: Machine, error: BaseException) -> str:
    if type_lookup(type(error), "__str__") is not BaseException.__str__ or len(error.args) != 1:
        return str(error)
    return to_str(machine, error.args[0])


@native(object.__str__)
def _object_str(machine: Machine, value: Any, /) -> str:
    return _repr(machine, value)


@native(ascii)
def _ascii(machine: Machine, value: Any, /) -> str:
    return ascii(_Shown(_repr(machine, value)))


class _Shown:
    """Has the given text for its ``repr``."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@native(format)
def _format(machine: Machine, value: Any, spec: str = "", /) -> str:
    text = call_special(machine.policy, value, "__format__", spec)
    if text is MISSING:
        if type_lookup(type(value), "__format__") is object.__format__:
            return _object_format(machine, value, spec)
        if type(value) in (list, tuple, dict, set) and not spec:
            return _repr(machine, value)
        return format(value, spec)
    if not isinstance(text, str):
        raise TypeError(f"__format__ must return a str, not {type(text).__name__}")
    return text


@native(object.__format__)
def _object_format(machine: Machine, value: Any, spec: str, /) -> str:
    if spec:
        return object.__format__(value, spec)
    return to_str(machine, value)


@native(print)
def _print(machine: Machine, *args: Any, **kwargs: Any) -> None:
    file = kwargs.get("file")
    texts = [to_str(machine, value) for value in args]
    target = sys.stdout if file is None else file
    if python_special(type(target), "write") is None:
        print(*texts, **kwargs)
        return
    sep, end = kwargs.get("sep"), kwargs.get("end")
    write = machine.policy.load_attr(target, "write")
    pieces = [piece for text in texts for piece in (" " if sep is None else sep, text)][1:]
    for piece in (*pieces, "\n" if end is None else end):
        machine.policy.call(write, (piece,), {})


@native(hash)
def _hash(machine: Machine, value: Any, /) -> int:
    number = call_special(machine.policy, value, "__hash__")
    if number is MISSING:
        return hash(value)
    if not isinstance(number, int):
        raise TypeError("__hash__ method should return an integer")
    return hash(_Hashed(number))


class _Hashed:
    """Lets ``hash`` reduce a number as it does that of a ``__hash__``."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number


def _register_one(function: Any, name: str) -> None:
    def handler(machine: Machine, value: Any, /, *rest: Any) -> Any:
        found = call_special(machine.policy, value, name, *rest)
        return function(value, *rest) if found is MISSING else found

    native(function)(handler)


_register_one(abs, "__abs__")


@native(round)
def _round(machine: Machine, number: Any, ndigits: Any = None) -> Any:
    args = () if ndigits is None else (ndigits,)
    found = call_special(machine.policy, number, "__round__", *args)
    return round(number, *args) if found is MISSING else found


@native(operator.index)
def _index(machine: Machine, value: Any, /) -> int:
    return operator.index(_indexed(machine, value))


def _indexed(machine: Machine, value: Any) -> Any:
    found = call_special(machine.policy, value, "__index__")
    return value if found is MISSING else found


@native(int)
def _int(machine: Machine, *args: Any, **kwargs: Any) -> int:
    if len(args) == 1 and not kwargs:
        for name in ("__int__", "__index__", "__trunc__"):
            found = call_special(machine.policy, args[0], name)
            if found is not MISSING:
                if not isinstance(found, int):
                    kind = type(found).__name__
                    raise TypeError(f"{name} returned non-int (type {kind})")
                return int(found)
    return int(*args, **kwargs)


@native(float)
def _float(machine: Machine, *args: Any) -> float:
    if len(args) == 1:
        for name in ("__float__", "__index__"):
            found = call_special(machine.policy, args[0], name)
            if found is not MISSING:
                if name == "__float__" and not isinstance(found, float):
                    raise TypeError(
                        f"{type(args[0]).__name__}.__float__ returned non-float "
                        f"(type {type(found).__name__})"
                    )
                return float(found)
    return float(*args)


@native(complex)
def _complex(machine: Machine, *args: Any, **kwargs: Any) -> complex:
    if len(args) == 1 and not kwargs:
        found = call_special(machine.policy, args[0], "__complex__")
        if found is not MISSING:
            return complex(found)
    return complex(*args, **kwargs)


@native(bytes)
def _bytes(machine: Machine, *args: Any, **kwargs: Any) -> bytes:
    if len(args) == 1 and not kwargs:
        found = call_special(machine.policy, args[0], "__bytes__")
        if found is not MISSING:
            return bytes(found)
        args = (machine.policy.native_iterable(args[0]),)
    return bytes(*args, **kwargs)
