"""Operators on values whose special methods may be Python code.

CPython's rules: the left operand first, unless the right one's class is a subclass that has its
own reflected method; an in-place operator falls back to the plain one. Where no Python code is
involved, the operator itself is applied.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from types import BuiltinFunctionType, GeneratorType
from typing import TYPE_CHECKING, Any

from stillframe.frames.attributes import bind_raw, call_special
from stillframe.frames.frame import NULL
from stillframe.frames.lookup import C_KINDS, MISSING, python_special, type_lookup

if TYPE_CHECKING:
    from stillframe.frames.policy import Policy
    from stillframe.frames.versions import Operator

#: C sequences answer ``+`` and ``*`` only after everything else was asked.
_SEQUENCES = (list, tuple, str, bytes, bytearray)


def truth(policy: Policy, value: Any) -> bool:
    """``bool(value)``."""
    answer = call_special(policy, value, "__bool__")
    if answer is not MISSING:
        if answer is not True and answer is not False:
            kind = type(answer).__name__
            raise TypeError(f"__bool__ should return bool, returned {kind}")
        return answer
    if type_lookup(type(value), "__bool__") is MISSING:
        length = call_special(policy, value, "__len__")
        if length is not MISSING:
            return check_length(length) != 0
    return bool(value)


def check_length(length: Any) -> int:
    """What ``len`` makes of a ``__len__``'s answer."""
    number = operator.index(length)
    if number < 0:
        raise ValueError("__len__() should return >= 0")
    return number


def binary(policy: Policy, op: Operator, left: Any, right: Any) -> Any:
    """``left op right``."""
    if op.in_place:
        found = python_special(type(left), op.in_place)
        if found is not None:
            result = policy.call(bind_raw(policy, found, left), (right,), {})
            if result is not NotImplemented:
                return result
        elif type(left) is list and op.sign == "+=" and policy.is_iterable(right):
            left.extend(left if right is left else policy.native_iterable(right))
            return left
    own = python_special(type(left), op.method)
    other = python_special(type(right), op.reflected)
    if own is None and other is None:
        if op.sign == "%" and isinstance(left, str):
            return policy.call(str.__mod__, (left, right), {})
        return op.native(left, right)
    result = _try_both(policy, op, left, right)
    if result is not NotImplemented:
        return result
    if op.in_place and isinstance(left, _SEQUENCES) and own is None:
        return op.native(left, right)
    sign = "** or pow()" if op.sign == "**" else op.sign
    names = f"'{type(left).__name__}' and '{type(right).__name__}'"
    raise TypeError(f"unsupported operand type(s) for {sign}: {names}")


def _try_both(policy: Policy, op: Operator, left: Any, right: Any) -> Any:
    attempts = [(left, op.method, right)]
    reflected = type_lookup(type(right), op.reflected)
    if type(right) is not type(left) and reflected is not MISSING:
        attempt = (right, op.reflected, left)
        overrides = reflected is not type_lookup(type(left), op.reflected)
        if issubclass(type(right), type(left)) and overrides:
            attempts.insert(0, attempt)
        elif isinstance(left, _SEQUENCES) and python_special(type(left), op.method) is None:
            attempts.insert(0, attempt)
        else:
            attempts.append(attempt)
    for value, name, operand in attempts:
        result = _attempt(policy, value, name, operand)
        if result is not NotImplemented:
            return result
    return NotImplemented


def _attempt(policy: Policy, value: Any, name: str, operand: Any) -> Any:
    found = type_lookup(type(value), name)
    if found is MISSING or found is None:
        return NotImplemented
    if type(found) in C_KINDS:
        return getattr(type(value), name)(value, operand)
    return policy.call(bind_raw(policy, found, value), (operand,), {})


def compare(policy: Policy, op: Operator, left: Any, right: Any) -> Any:
    """``left op right`` for the six comparisons."""
    own = _comparison(type(left), op.method)
    other = _comparison(type(right), op.reflected)
    if own is None and other is None:
        return op.native(left, right)
    attempts = [(left, op.method, right), (right, op.reflected, left)]
    if type(right) is not type(left) and issubclass(type(right), type(left)) and other is not None:
        attempts.reverse()
    for value, name, operand in attempts:
        result = _attempt_comparison(policy, value, name, operand)
        if result is not NotImplemented:
            return result
    if op.sign == "==":
        return left is right
    if op.sign == "!=":
        return left is not right
    names = f"'{type(left).__name__}' and '{type(right).__name__}'"
    raise TypeError(f"'{op.sign}' not supported between instances of {names}")


def _comparison(kind: type, name: str) -> Any:
    """The Python method behind a comparison; ``__ne__`` may be the opposite of ``__eq__``."""
    found = python_special(kind, name)
    if found is None and name == "__ne__" and type_lookup(kind, name) is object.__ne__:
        return python_special(kind, "__eq__")
    return found


def _attempt_comparison(policy: Policy, value: Any, name: str, operand: Any) -> Any:
    if name == "__ne__" and type_lookup(type(value), name) is object.__ne__:
        answer = _attempt(policy, value, "__eq__", operand)
        return answer if answer is NotImplemented else not policy.truth(answer)
    return _attempt(policy, value, name, operand)


def unary(policy: Policy, method: str, native: Any, value: Any) -> Any:
    """``-value`` and the like."""
    result = call_special(policy, value, method)
    return native(value) if result is MISSING else result


def contains(policy: Policy, container: Any, value: Any) -> bool:
    """``value in container``."""
    kind = type(container)
    answer = call_special(policy, container, "__contains__", value)
    if answer is not MISSING:
        return policy.truth(answer)
    if type_lookup(kind, "__contains__") is MISSING and (
        python_special(kind, "__iter__") or python_special(kind, "__getitem__")
    ):
        return _search(policy, policy.iterate(container), value)
    if (kind is list or kind is tuple) and has_python_equality(container, value):
        return _search(policy, iter(container), value)
    if kind is GeneratorType:
        return _search(policy, container, value)
    return value in container


def has_python_equality(container: Any, value: Any) -> bool:
    if python_special(type(value), "__eq__"):
        return True
    return any(python_special(kind, "__eq__") for kind in set(map(type, container)))


def _search(policy: Policy, iterator: Any, value: Any) -> bool:
    from stillframe.frames.versions import COMPARE

    equal = COMPARE["=="]
    while (item := policy.advance(iterator, NULL)) is not NULL:
        if item is value or policy.truth(policy.compare(equal, item, value)):
            return True
    return False


def load_item(policy: Policy, container: Any, key: Any) -> Any:
    """``container[key]``."""
    found = call_special(policy, container, "__getitem__", key)
    if found is not MISSING:
        return found
    if isinstance(container, type) and type_lookup(type(container), "__getitem__") is MISSING:
        return _load_class_item(policy, container, key)
    if isinstance(container, dict):
        missing = python_special(type(container), "__missing__")
        if missing is not None and not dict.__contains__(container, key):
            return policy.call(bind_raw(policy, missing, container), (key,), {})
        if isinstance(container, defaultdict) and not dict.__contains__(container, key):
            return default_item(policy, container, key)
    return container[key]


def default_item(policy: Policy, table: defaultdict[Any, Any], key: Any) -> Any:
    """What the ``__missing__`` of a default dict does."""
    if table.default_factory is None:
        raise KeyError(key)
    value = policy.call(table.default_factory, (), {})
    policy.store_item(table, key, value)
    return value


def _load_class_item(policy: Policy, cls: type, key: Any) -> Any:
    hook = type_lookup(cls, "__class_getitem__")
    if isinstance(hook, classmethod) and type(hook.__func__) is not BuiltinFunctionType:
        return policy.call(policy.load_attr(cls, "__class_getitem__"), (key,), {})
    return cls[key]  # type: ignore[index]


def store_item(policy: Policy, container: Any, key: Any, value: Any) -> None:
    """``container[key] = value``."""
    if call_special(policy, container, "__setitem__", key, value) is MISSING:
        if isinstance(key, slice) and isinstance(container, list):
            value = policy.native_iterable(value)
        container[key] = value


def delete_item(policy: Policy, container: Any, key: Any) -> None:
    """``del container[key]``."""
    if call_special(policy, container, "__delitem__", key) is MISSING:
        del container[key]
