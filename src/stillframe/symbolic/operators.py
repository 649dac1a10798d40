"""The public constructors of numbers, and Python's operators on expressions.

A constructor takes expressions and plain numbers, picks the integer rules or the float ones by the
operands' sorts, and remembers the answer: what has been built before costs one dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillframe.symbolic import arith, compare, floats
from stillframe.symbolic.expr import ONE, ZERO, Expr, Operand, const

# A memo is emptied when it reaches this many entries; it only saves time.
MEMO_LIMIT = 200_000

_IntRule = Callable[[Expr, Expr], Expr]
_Binary = Callable[[Any, Any], Expr]


def _memoised(rule: Callable[[Operand, Operand], Expr]) -> _Binary:
    """``rule`` with a memo on its two operands.

    Plain integers are keys as they are. Floats are not (``1.0 == 1`` as a key), and a bool stands
    for its integer, which is what arithmetic makes of it.
    """
    memo: dict[tuple[Any, Any], Expr] = {}

    def remembered(a: Any, b: Any) -> Expr:
        if isinstance(a, float):
            a = const(a)
        if isinstance(b, float):
            b = const(b)
        key = (a, b)
        node = memo.get(key)
        if node is None:
            node = rule(a, b)
            if len(memo) >= MEMO_LIMIT:
                memo.clear()
            memo[key] = node
        return node

    remembered.__doc__ = rule.__doc__
    remembered.__name__ = remembered.__qualname__ = rule.__name__.lstrip("_")
    return remembered


def _by_sort(op: str, int_rule: _IntRule, a: Operand, b: Operand) -> Expr:
    left, right = floats.number(a), floats.number(b)
    if left.sort == "int" and right.sort == "int":
        return int_rule(left, right)
    return floats.binary_float(op, left, right)


@_memoised
def _add2(a: Operand, b: Operand) -> Expr:
    return _by_sort("add", arith.add_int, a, b)


@_memoised
def _mul2(a: Operand, b: Operand) -> Expr:
    return _by_sort("mul", arith.mul_int, a, b)


@_memoised
def sub(a: Operand, b: Operand) -> Expr:
    """``a - b``."""
    left, right = floats.number(a), floats.number(b)
    if left.sort == "int" and right.sort == "int":
        return arith.sub_int(left, right)
    right = floats.to_float(right)
    return floats.binary_float("add", left, floats.negative_float(right))


@_memoised
def floordiv(a: Operand, b: Operand) -> Expr:
    """``a // b``, rounded down.

    Raises:
        ZeroDivisionError: ``b`` is the constant 0.
    """
    return _by_sort("floordiv", arith.floordiv_int, a, b)


@_memoised
def mod(a: Operand, b: Operand) -> Expr:
    """``a % b``, with the sign of ``b``.

    Raises:
        ZeroDivisionError: ``b`` is the constant 0.
    """
    return _by_sort("mod", arith.mod_int, a, b)


@_memoised
def power(a: Operand, b: Operand) -> Expr:
    """``a ** b``: an integer for integers, unless the exponent is a negative constant.

    A symbolic exponent of an integer is taken not to be negative; evaluation raises if it is.
    """
    left, right = floats.number(a), floats.number(b)
    if left.sort == "int" and right.sort == "int":
        if not (right.is_constant and right.value < 0):
            return arith.power_int(left, right)
    return floats.binary_float("pow", left, right)


truediv = _memoised(floats.truediv)


def add(*args: Operand) -> Expr:
    """The sum of ``args``, from left to right; 0 for none."""
    if len(args) == 2:
        return _add2(*args)
    total: Expr = ZERO if not args else floats.number(args[0])
    for arg in args[1:]:
        total = _add2(total, arg)
    return total


def mul(*args: Operand) -> Expr:
    """The product of ``args``, from left to right; 1 for none."""
    if len(args) == 2:
        return _mul2(*args)
    total: Expr = ONE if not args else floats.number(args[0])
    for arg in args[1:]:
        total = _mul2(total, arg)
    return total


def neg(a: Operand) -> Expr:
    """``-a``."""
    node = floats.number(a)
    return _mul2(node, -1) if node.sort == "int" else floats.negative_float(node)


def _extremum(op: str, args: tuple[Operand, ...]) -> Expr:
    if not args:
        raise ValueError(f"{op}_ needs at least one argument")
    nodes = [floats.number(a) for a in args]
    if all(n.sort == "int" for n in nodes):
        return arith.extremum_int(op, nodes)
    total = floats.to_float(nodes[0])
    for node in nodes[1:]:
        if floats.to_float(node) is not total:
            total = floats.binary_float(op, total, node)
    return total


@_memoised
def _max2(a: Operand, b: Operand) -> Expr:
    return _extremum("max", (a, b))


@_memoised
def _min2(a: Operand, b: Operand) -> Expr:
    return _extremum("min", (a, b))


def max_(*args: Operand) -> Expr:
    """The largest of ``args``; a float if one of them is."""
    return _max2(*args) if len(args) == 2 else _extremum("max", args)


def min_(*args: Operand) -> Expr:
    """The smallest of ``args``; a float if one of them is."""
    return _min2(*args) if len(args) == 2 else _extremum("min", args)


def absolute(a: Operand) -> Expr:
    """``abs(a)``: ``max(a, -a)`` of an integer, ``math.fabs`` of a float."""
    node = floats.number(a)
    return max_(node, neg(node)) if node.sort == "int" else floats.call("fabs", node)


eq = _memoised(compare.eq)
ne = _memoised(compare.ne)
lt = _memoised(compare.lt)
le = _memoised(compare.le)


def gt(a: Operand, b: Operand) -> Expr:
    """``a > b``, kept as ``b < a``."""
    return lt(b, a)


def ge(a: Operand, b: Operand) -> Expr:
    """``a >= b``, kept as ``b <= a``."""
    return le(b, a)


def ite(condition: Operand, then: Operand, other: Operand) -> Expr:
    """``then if condition else other``; an int and a float give a float."""
    return compare.ite(condition, then, other)


# -- operators ------------------------------------------------------------------------------------

_OPERATORS: dict[str, _Binary] = {
    "add": _add2,
    "sub": sub,
    "mul": _mul2,
    "floordiv": floordiv,
    "mod": mod,
    "truediv": truediv,
    "pow": power,
}
_COMPARISONS: dict[str, _Binary] = {"lt": lt, "le": le, "gt": gt, "ge": ge}
_LOGICAL: dict[str, _Binary] = {"and": compare.and_, "or": compare.or_}


def _forward(function: _Binary) -> Callable[[Expr, Any], Any]:
    def method(self: Expr, other: Any) -> Any:
        if other.__class__ is Expr or isinstance(other, (int, float)):
            return function(self, other)
        return NotImplemented

    return method


def _reflected(function: _Binary) -> Callable[[Expr, Any], Any]:
    def method(self: Expr, other: Any) -> Any:
        if isinstance(other, (int, float)):
            return function(other, self)
        return NotImplemented

    return method


for _name, _function in _OPERATORS.items():
    setattr(Expr, f"__{_name}__", _forward(_function))
    setattr(Expr, f"__r{_name}__", _reflected(_function))
for _name, _function in _COMPARISONS.items():
    setattr(Expr, f"__{_name}__", _forward(_function))
for _name, _function in _LOGICAL.items():
    setattr(Expr, f"__{_name}__", _forward(_function))
    setattr(Expr, f"__r{_name}__", _reflected(_function))
setattr(Expr, "__neg__", neg)
setattr(Expr, "__pos__", floats.number)
setattr(Expr, "__abs__", absolute)
setattr(Expr, "__invert__", compare.not_)

# Operator name -> constructor on its arguments: rebuilds a node with other operands.
CONSTRUCTORS: dict[str, Callable[..., Expr]] = {
    "add": add,
    "mul": mul,
    "floordiv": floordiv,
    "mod": mod,
    "pow": power,
    "max": max_,
    "min": min_,
    "truediv": truediv,
    "float": floats.to_float,
    "floor": floats.floor_,
    "ceil": floats.ceil_,
    "round": floats.round_,
    "trunc": floats.trunc_,
    "call": floats.call,
    "eq": eq,
    "ne": ne,
    "lt": lt,
    "le": le,
    "and": compare.and_,
    "or": compare.or_,
    "not": compare.not_,
    "ite": ite,
}
