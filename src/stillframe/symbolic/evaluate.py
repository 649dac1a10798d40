"""Values of expressions, and replacing their symbols."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from stillframe.symbolic.compare import COMPARISONS
from stillframe.symbolic.expr import Expr, Number, Operand, const
from stillframe.symbolic.floats import FLOAT_BINARY, FUNCTIONS, ROUNDINGS
from stillframe.symbolic.operators import CONSTRUCTORS


def _integer_power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and exponent < 0:
        raise ValueError(f"{base} ** {exponent} is not an integer")
    return FLOAT_BINARY["pow"](base, exponent)


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def folded(first: Any, *rest: Any) -> Any:
        for value in rest:
            first = function(first, value)
        return first

    return folded


# Operator name -> Python function of the operands' values ("ite", "call", "and", "or" are apart).
PYTHON: dict[str, Callable[..., Any]] = {
    **COMPARISONS,
    **ROUNDINGS,
    "add": _fold(operator.add),
    "mul": _fold(operator.mul),
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": _integer_power,
    "max": max,
    "min": min,
    "truediv": operator.truediv,
    "float": float,
    "not": operator.not_,
}


def evaluate(expr: Expr | Number, values: Mapping[Expr, Number]) -> Any:
    """The value of ``expr`` with Python's arithmetic: an int, float or bool.

    Raises:
        KeyError: a symbol has no value.
        ZeroDivisionError, OverflowError, ValueError: as the Python expression would.
    """
    if expr.__class__ is not Expr:
        return expr
    if expr.op == "symbol":
        return values[expr]
    return _evaluate(expr, values, {})


def _evaluate(expr: Expr, values: Mapping[Expr, Number], done: dict[Expr, Any]) -> Any:
    op = expr.op
    if op == "const":
        return expr.value
    if op == "symbol":
        return values[expr]
    if expr in done:
        return done[expr]
    if op == "ite":
        test, then, other = expr.args
        chosen = then if _evaluate(test, values, done) else other
        result = _evaluate(chosen, values, done)
    elif op in ("and", "or"):
        result = _connective(op == "or", expr.args, values, done)
    elif op == "call":
        result = FUNCTIONS[expr.args[0]](*[_evaluate(a, values, done) for a in expr.args[1:]])
    else:
        result = PYTHON[op](*[_evaluate(a, values, done) for a in expr.args])
    done[expr] = result
    return result


def _connective(
    deciding: bool, args: tuple[Expr, ...], values: Mapping[Expr, Number], done: dict[Expr, Any]
) -> bool:
    """``or`` (``and``) in any order: an operand that is true (false) decides, whatever the others.

    The normal form reorders operands, so an operand that Python would not have reached may raise
    here; that only counts if no other one decides.
    """
    error: Exception | None = None
    for arg in args:
        try:
            value: bool = _evaluate(arg, values, done)
            if value is deciding:
                return deciding
        except (ArithmeticError, ValueError) as problem:
            error = problem
    if error is not None:
        raise error
    return not deciding


def substitute(expr: Expr | Number, replacements: Mapping[Expr, Operand]) -> Expr:
    """``expr`` with symbols replaced, all at once, in normal form again.

    Raises:
        TypeError: a replacement is of another sort than its symbol.
        ZeroDivisionError: a divisor becomes the constant 0.
    """
    node = const(expr)
    if not any(s in replacements for s in node.free_symbols):
        return node
    done: dict[Expr, Expr] = {}
    for symbol in node.free_symbols:
        if symbol in replacements:
            new = const(replacements[symbol])
            if new.sort != symbol.sort:
                raise TypeError(
                    f"the {symbol.sort} `{symbol}` cannot become the {new.sort} `{new}`"
                )
            done[symbol] = new
    return rewrite(node, done)


def rewrite(node: Expr, done: dict[Expr, Expr]) -> Expr:
    """Rebuild ``node`` bottom up; ``done`` says what some nodes become, and is added to."""
    known = done.get(node)
    if known is not None:
        return known
    if not node.args:
        return node
    args = [rewrite(a, done) if a.__class__ is Expr else a for a in node.args]
    if all(new is old for new, old in zip(args, node.args, strict=True)):
        result = node
    else:
        result = CONSTRUCTORS[node.op](*args)
    done[node] = result
    return result
