"""Float expressions: structure only.

Float arithmetic is neither associative nor distributive, so nothing is reordered; operations on
constants are carried out, with Python's own functions and errors. An integer that meets a float is
converted first (``float(x)``), as Python does. ``a - b`` is kept as ``a + -1.0*b``, which IEEE 754
makes the same number.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from stillframe.symbolic.expr import Expr, Operand, _bool_to_int, const, intern

MINUS_ONE = const(-1.0)


def real_power(base: Any, exponent: Any) -> Any:
    """``base ** exponent`` where the result is a real number.

    Raises:
        ValueError: the result is complex.
    """
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError(f"{base!r} ** {exponent!r} is not a real number")
    return result


FLOAT_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": real_power,
    "truediv": operator.truediv,
    "max": max,
    "min": min,
}

# The float functions that `call` knows, by name; all take and return floats.
FUNCTIONS: dict[str, Callable[..., float]] = {
    name: getattr(math, name)
    for name in (
        "sqrt exp expm1 log log1p log2 log10 sin cos tan asin acos atan sinh cosh tanh asinh acosh "
        "atanh atan2 erf erfc gamma lgamma fabs fmod copysign hypot degrees radians"
    ).split()
}  # fmt: skip

# float -> int
ROUNDINGS: dict[str, Callable[[Any], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
}


def to_float(value: Operand) -> Expr:
    """``float(value)`` of an integer or boolean; a float is returned as it is."""
    node = const(value)
    if node.sort == "float":
        return node
    if node.is_constant:
        return const(float(node.value))
    return intern("float", (number(node),), "float")


def number(value: Operand) -> Expr:
    """``value`` as an integer or float expression (booleans count 0 and 1)."""
    node = const(value)
    return _bool_to_int(node) if node.sort == "bool" else node


def binary_float(op: str, a: Operand, b: Operand) -> Expr:
    """A float operation; integer operands are converted."""
    left, right = to_float(a), to_float(b)
    if left.is_constant and right.is_constant:
        return const(FLOAT_BINARY[op](left.value, right.value))
    if op == "mul" and left is MINUS_ONE and right.op == "mul" and right.args[0] is MINUS_ONE:
        twice_negated: Expr = right.args[1]
        return twice_negated
    return intern(op, (left, right), "float")


def negative_float(a: Expr) -> Expr:
    """``-a``, exactly."""
    return binary_float("mul", MINUS_ONE, a)


def truediv(a: Operand, b: Operand) -> Expr:
    """``a / b``, a float. Two integers are divided as Python does it, correctly rounded.

    Raises:
        ZeroDivisionError: ``b`` is the constant 0.
    """
    left, right = number(a), number(b)
    if right.is_constant and right.value == 0:
        raise ZeroDivisionError("division by zero")
    if left.is_constant and right.is_constant:
        return const(left.value / right.value)
    if left.sort != right.sort:
        left, right = to_float(left), to_float(right)
    return intern("truediv", (left, right), "float")


def call(name: str, *args: Operand) -> Expr:
    """The float function ``math.<name>`` of ``args``; see :data:`FUNCTIONS`.

    Raises:
        ValueError: no such function, or a constant outside its domain.
    """
    if name not in FUNCTIONS:
        raise ValueError(f"unknown float function {name!r}; known: {', '.join(sorted(FUNCTIONS))}")
    nodes = tuple(to_float(a) for a in args)
    if all(n.is_constant for n in nodes):
        return const(FUNCTIONS[name](*(n.value for n in nodes)))
    return intern("call", (name, *nodes), "float")


def _rounding(op: str, value: Operand) -> Expr:
    node = number(value)
    if node.sort == "int":
        return node
    if node.is_constant:
        return const(ROUNDINGS[op](node.value))
    return intern(op, (node,), "int")


def floor_(value: Operand) -> Expr:
    """``math.floor(value)``, an integer."""
    return _rounding("floor", value)


def ceil_(value: Operand) -> Expr:
    """``math.ceil(value)``, an integer."""
    return _rounding("ceil", value)


def round_(value: Operand) -> Expr:
    """``round(value)``, an integer; halves to even."""
    return _rounding("round", value)


def trunc_(value: Operand) -> Expr:
    """``math.trunc(value)`` (which is ``int(value)``), an integer; towards zero."""
    return _rounding("trunc", value)
