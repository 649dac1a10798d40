"""Expressions as text in sympy's language.

Integers and booleans become sympy's own functions, whose values are the same numbers. Floats do
not: sympy computes with real numbers and would reorder them, so an operation on floats becomes a
function of a name that sympy does not know (``IntTrueDiv``, ``ToFloat``: the names that torch uses;
``FloatAdd``...: ours) and does not touch. ``sympy_reading.py`` reads all of them back.
"""

from __future__ import annotations

import keyword
import math

from stillframe.errors import NotSupported
from stillframe.symbolic.expr import Expr, Number
from stillframe.symbolic.printing import ATOM, COMPARE, POWER, PRODUCT, SUM, UNARY, Printer, Text

# What sympy understands by these names is not a symbol.
CONSTANT_NAMES = frozenset("oo zoo nan pi E I S N O Q C int_oo true false".split())

# Operators on floats -> the function that stands for them.
FLOAT_NAMES = {
    "add": "FloatAdd",
    "mul": "FloatMul",
    "floordiv": "FloatFloorDiv",
    "mod": "FloatMod",
    "truediv": "FloatTrueDiv",
    "pow": "FloatPow",
    "max": "FloatMax",
    "min": "FloatMin",
    "float": "ToFloat",
    "floor": "FloorToInt",
    "ceil": "CeilToInt",
    "round": "RoundToInt",
    "trunc": "TruncToInt",
}
FUNCTION_PREFIX = "OpaqueUnaryFn_"


def to_sympy(expr: Expr | Number) -> str:
    """``expr`` as text for ``sympy.sympify``; give it the symbols as ``locals``.

    Symbols must be declared ``integer=True`` there, or sympy rounds what needs no rounding.
    :func:`~stillframe.symbolic.parse_sympy` reads the text back without sympy, and
    :func:`~stillframe.symbolic.from_sympy` the object.

    Raises:
        NotSupported: a float that is no real number, a negated order of floats (``not x < y`` is
            not ``x >= y`` for NaN, which sympy does not know), a float function of two operands, or
            a name that means something else in sympy.
    """
    return _PRINTER.text(expr)


class _SympyPrinter(Printer):
    def name(self, name: str) -> str:
        if name in CONSTANT_NAMES or keyword.iskeyword(name):
            raise NotSupported(
                f"The symbol `{name}` is not a symbol in sympy's language.",
                hints=["substitute another symbol for it first"],
            )
        return name

    def print_const(self, node: Expr) -> Text:
        value = node.value
        if node.sort == "float" and (not math.isfinite(value) or repr(value) == "-0.0"):
            raise NotSupported(f"The float {value!r} is not one of sympy's numbers.")
        text = repr(value)
        return text, UNARY if text.startswith("-") else ATOM

    def _opaque(self, node: Expr) -> Text:
        return self.function(FLOAT_NAMES[node.op], node.args)

    print_add = print_mul = print_float = print_floor = print_ceil = _opaque
    print_round = print_trunc = _opaque

    def print_floordiv(self, node: Expr) -> Text:
        if node.sort == "float":
            return self._opaque(node)
        above, below = node.args
        return f"floor({self.at(above, PRODUCT)}/{self.at(below, POWER)})", ATOM

    def print_mod(self, node: Expr) -> Text:
        return self._opaque(node) if node.sort == "float" else self.function("Mod", node.args)

    def print_truediv(self, node: Expr) -> Text:
        if node.args[0].sort == "float":
            return self._opaque(node)
        return self.function("IntTrueDiv", node.args)

    def print_pow(self, node: Expr) -> Text:
        if node.sort == "float":
            return self._opaque(node)
        base, exponent = node.args
        return f"{self.at(base, ATOM)}**{self.at(exponent, UNARY)}", POWER

    def _extremum(self, node: Expr) -> Text:
        return self._opaque(node) if node.sort == "float" else self._capitalised(node)

    print_max = print_min = _extremum

    def _capitalised(self, node: Expr) -> Text:
        return self.function(node.op.capitalize(), node.args)

    print_eq = print_ne = print_and = print_or = _capitalised

    def print_call(self, node: Expr) -> Text:
        name, *operands = node.args
        if len(operands) != 1:
            raise NotSupported(
                f"math.{name} in `{node}` has no form in sympy's language.",
                hints=["only float functions of one operand have one"],
            )
        return self.function(f"{FUNCTION_PREFIX}{name}", tuple(operands))

    def _order(self, node: Expr) -> Text:
        left, right = node.args
        sign = "<" if node.op == "lt" else "<="
        return f"{self.at(left, SUM)} {sign} {self.at(right, SUM)}", COMPARE

    print_lt = print_le = _order

    def print_not(self, node: Expr) -> Text:
        if node.args[0].op in ("lt", "le"):
            raise NotSupported(
                f"The negated order of floats `{node}` has no form in sympy's language.",
                why="sympy would turn it around, which is wrong for NaN",
                hints=["print it with to_python"],
            )
        return self.function("Not", node.args)

    def print_ite(self, node: Expr) -> Text:
        test, then, other = (self.render(a)[0] for a in node.args)
        return f"Piecewise(({then}, {test}), ({other}, True))", ATOM


_PRINTER = _SympyPrinter()
