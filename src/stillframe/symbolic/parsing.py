"""Python text to expressions: the inverse of ``printing.py``.

The text may come from a file that nobody checked, so it is never compiled or evaluated: its syntax
tree is walked, anything outside the small grammar is refused, and so is a number that would grow
out of bounds.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

from stillframe.symbolic import compare, floats, operators
from stillframe.symbolic.expr import Expr, const, symbol

MAX_LENGTH = 100_000
MAX_BITS = 4096


def bounded(node: Expr) -> Expr:
    """``node``, unless it is an integer that a text makes too large.

    Raises:
        ValueError: it is.
    """
    if node.sort == "int" and node.is_constant and node.value.bit_length() > MAX_BITS:
        raise ValueError("a constant is too large")
    return node


def bounded_power(base: Expr, exponent: Expr) -> Expr:
    """``base ** exponent``, not computed where the constant would be too large.

    Raises:
        ValueError: it would.
    """
    if base.is_constant and exponent.is_constant:
        if base.sort == "int" and exponent.sort == "int":
            if int(base.value).bit_length() * exponent.value > MAX_BITS:
                raise ValueError("a constant is too large")
    return operators.power(base, exponent)


_BINARY: dict[type[ast.operator], Callable[[Expr, Expr], Expr]] = {
    ast.Add: operators.add,
    ast.Sub: operators.sub,
    ast.Mult: operators.mul,
    ast.FloorDiv: operators.floordiv,
    ast.Mod: operators.mod,
    ast.Div: operators.truediv,
    ast.Pow: bounded_power,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Expr, Expr], Expr]] = {
    ast.Eq: operators.eq,
    ast.NotEq: operators.ne,
    ast.Lt: operators.lt,
    ast.LtE: operators.le,
    ast.Gt: operators.gt,
    ast.GtE: operators.ge,
}
_UNARY: dict[type[ast.unaryop], Callable[[Expr], Expr]] = {
    ast.USub: operators.neg,
    ast.UAdd: floats.number,
    ast.Not: compare.not_,
}
_BUILTINS: dict[str, tuple[Callable[..., Expr], int, int]] = {
    "max": (operators.max_, 1, 1000),
    "min": (operators.min_, 1, 1000),
    "abs": (operators.absolute, 1, 1),
    "float": (floats.to_float, 1, 1),
    "int": (floats.trunc_, 1, 1),
    "round": (floats.round_, 1, 1),
}
_MATH: dict[str, Callable[..., Expr]] = {
    "floor": floats.floor_,
    "ceil": floats.ceil_,
    "trunc": floats.trunc_,
}
_MATH_CONSTANTS = {"inf": math.inf, "nan": math.nan, "pi": math.pi, "e": math.e}


def parse(text: str, symbols: Mapping[str, Expr] | None = None) -> Expr:
    """The expression that ``text`` says, in normal form.

    Args:
        text: a Python expression in the grammar of :func:`~stillframe.symbolic.to_python`.
        symbols: what names stand for; a name that is not there is an integer symbol.

    Raises:
        ValueError: ``text`` is not in the grammar, or not a well-formed expression of it.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _Parser(symbols or {}).read(tree)
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a symbolic expression: {text[:200]!r} ({error})") from error


class _Parser:
    def __init__(self, symbols: Mapping[str, Expr]) -> None:
        self.symbols = symbols

    def read(self, tree: ast.expr) -> Expr:
        reader = self._READERS.get(type(tree))
        if reader is None:
            raise ValueError(f"{type(tree).__name__} is not part of a symbolic expression")
        return reader(self, tree)

    def _name(self, tree: ast.Name) -> Expr:
        known = self.symbols.get(tree.id)
        return symbol(tree.id) if known is None else known

    def _constant(self, tree: ast.Constant) -> Expr:
        if type(tree.value) not in (int, float, bool):
            raise ValueError(f"{tree.value!r} is not a number")
        return bounded(const(tree.value))  # type: ignore[arg-type]

    def _binary(self, tree: ast.BinOp) -> Expr:
        function = _BINARY.get(type(tree.op))
        if function is None:
            raise ValueError(f"the operator {type(tree.op).__name__} is not known")
        return bounded(function(self.read(tree.left), self.read(tree.right)))

    def _unary(self, tree: ast.UnaryOp) -> Expr:
        function = _UNARY.get(type(tree.op))
        if function is None:
            raise ValueError(f"the operator {type(tree.op).__name__} is not known")
        return function(self.read(tree.operand))

    def _compare(self, tree: ast.Compare) -> Expr:
        operands = [self.read(t) for t in (tree.left, *tree.comparators)]
        tests = []
        for op, left, right in zip(tree.ops, operands, operands[1:], strict=False):
            function = _COMPARE.get(type(op))
            if function is None:
                raise ValueError(f"the comparison {type(op).__name__} is not known")
            tests.append(function(left, right))
        return compare.and_(*tests)

    def _connective(self, tree: ast.BoolOp) -> Expr:
        join = compare.and_ if isinstance(tree.op, ast.And) else compare.or_
        return join(*(self.read(v) for v in tree.values))

    def _choice(self, tree: ast.IfExp) -> Expr:
        return operators.ite(self.read(tree.test), self.read(tree.body), self.read(tree.orelse))

    def _attribute(self, tree: ast.Attribute) -> Expr:
        if isinstance(tree.value, ast.Name) and tree.value.id == "math":
            value = _MATH_CONSTANTS.get(tree.attr)
            if value is not None:
                return const(value)
        raise ValueError(f"{ast.unparse(tree)[:80]!r} is not a constant of math")

    def _call(self, tree: ast.Call) -> Expr:
        if tree.keywords:
            raise ValueError("keyword arguments are not part of a symbolic expression")
        args = [self.read(a) for a in tree.args]
        target = tree.func
        if isinstance(target, ast.Name) and target.id in _BUILTINS:
            function, least, most = _BUILTINS[target.id]
            if not least <= len(args) <= most:
                raise ValueError(f"{target.id} does not take {len(args)} arguments")
            return function(*args)
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            if target.value.id == "math":
                if target.attr in _MATH:
                    return _MATH[target.attr](*args)
                return floats.call(target.attr, *args)
        raise ValueError(f"{ast.unparse(target)[:80]!r} is not a function of symbolic expressions")

    _READERS: dict[type[ast.expr], Callable[..., Expr]] = {
        ast.Name: _name,
        ast.Constant: _constant,
        ast.BinOp: _binary,
        ast.UnaryOp: _unary,
        ast.Compare: _compare,
        ast.BoolOp: _connective,
        ast.IfExp: _choice,
        ast.Attribute: _attribute,
        ast.Call: _call,
    }
