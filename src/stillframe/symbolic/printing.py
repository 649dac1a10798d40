"""Expressions as text: what infix languages share, and Python.

The Python text is valid, has few parentheses, and is read back by ``parsing.py``. The printers of
other languages are in ``cpp.py`` and ``sympy_text.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stillframe.symbolic.arith import MAX_EXPONENT, factors, linear
from stillframe.symbolic.expr import Expr, Number, const
from stillframe.symbolic.floats import MINUS_ONE

# Python's binding strengths, weakest first.
IF, OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, POWER, ATOM = range(10)

Text = tuple[str, int]  # with its binding strength


def to_python(expr: Expr | Number) -> str:
    """``expr`` as a Python expression over its symbols, ``max``, ``min``, ``float`` and ``math``.

    Its value in Python is the value of the expression, and :func:`~stillframe.symbolic.parse`
    gives back the same object (if its symbols are integers, or are passed).
    """
    return _PYTHON.text(expr)


class Printer:
    """Text of expressions in one language.

    Here is what the languages share: integer sums and products in infix form. A subclass has a
    method ``print_<op>`` for every other operator.
    """

    def text(self, expr: Expr | Number) -> str:
        """``expr`` in this language."""
        return self.render(const(expr))[0]

    def render(self, node: Expr) -> Text:
        """The text of ``node`` and how strongly its outermost operator binds."""
        if node.op == "symbol":
            return self.name(node.name or ""), ATOM
        if node.sort == "int" and node.op in ("add", "mul"):
            return self._sum(node)
        method: Callable[[Expr], Text] = getattr(self, f"print_{node.op}")
        return method(node)

    def at(self, node: Expr, strength: int) -> str:
        """The text of ``node``, in parentheses if it binds weaker than ``strength``."""
        text, own = self.render(node)
        return text if own >= strength else f"({text})"

    def function(self, name: str, operands: tuple[Expr, ...]) -> Text:
        """A call of ``name``."""
        return f"{name}({', '.join(self.render(a)[0] for a in operands)})", ATOM

    # -- what a language may write in its own way -------------------------------------------------

    def name(self, name: str) -> str:
        """A symbol."""
        return name

    def integer(self, value: int) -> str:
        """An integer that is not negative."""
        return str(value)

    def powers(self, atom: Expr, n: int) -> list[str]:
        """The factors of ``atom ** n``, for ``n > 1``."""
        base = self.at(atom, ATOM)
        texts = []
        while n > MAX_EXPONENT:  # a higher power would be read back as an opaque one
            texts.append(f"{base}**{MAX_EXPONENT}")
            n -= MAX_EXPONENT
        return [*texts, f"{base}**{n}" if n > 1 else base]

    # -- integers: sums of terms ------------------------------------------------------------------

    def _sum(self, node: Expr) -> Text:
        terms, constant = linear(node)
        parts = [(c, m) for m, c in terms.items()]
        if len(parts) == 1 and not constant:
            return self._term(*parts[0])
        first = next((i for i, (c, _) in enumerate(parts) if c > 0), None)
        if first is None and constant > 0:
            text = self.integer(constant)
            constant = 0
        else:
            text = self._addend(*parts.pop(first or 0))
        for c, mono in parts:
            text += f" {'+' if c > 0 else '-'} {self._addend(abs(c), mono)}"
        if constant:
            text += f" {'+' if constant > 0 else '-'} {self.integer(abs(constant))}"
        return text, SUM

    def _addend(self, coefficient: int, mono: Expr) -> str:
        text, strength = self._term(coefficient, mono)
        return text if strength >= PRODUCT else f"({text})"

    def _term(self, coefficient: int, mono: Expr) -> Text:
        if coefficient == 1:
            return self._monomial(mono, False)
        if coefficient == -1:  # the sign binds to the first factor, which makes it the same product
            text, strength = self._monomial(mono, mono.op == "mul")
            if strength >= UNARY or mono.op == "mul":
                return f"-{text}", PRODUCT
            return f"-({text})", UNARY
        sign = "-" if coefficient < 0 else ""
        return f"{sign}{self.integer(abs(coefficient))}*{self._monomial(mono, True)[0]}", PRODUCT

    def _monomial(self, mono: Expr, follows: bool) -> Text:
        """A product; where it ``follows`` something, ``//`` needs parentheses."""
        atoms = factors(mono)
        counts: dict[Expr, int] = {}
        for atom in atoms:
            counts[atom] = counts.get(atom, 0) + 1
        if len(atoms) == 1 and not follows:
            return self.render(atoms[0])
        texts: list[str] = []
        for atom, n in counts.items():
            if n > 1:
                texts.extend(self.powers(atom, n))
            else:
                texts.append(self.at(atom, UNARY if texts or follows else PRODUCT))
        strength = POWER if len(texts) == 1 and len(atoms) > 1 else PRODUCT
        return "*".join(texts), strength


class InfixPrinter(Printer):
    """Floats, comparisons and the functions, as Python and C++ share them."""

    not_sign, not_strength, not_operand = "not ", NOT, SUM
    words = {"and": "and", "or": "or"}
    connective_operand: int | None = None  # the weakest operand that needs no parentheses

    def print_add(self, node: Expr) -> Text:
        left, right = node.args
        if right.op == "mul" and right.args[0] is MINUS_ONE:
            return f"{self.at(left, SUM)} - {self.at(right.args[1], PRODUCT)}", SUM
        if right.is_constant and right.value < 0:
            return f"{self.at(left, SUM)} - {self.at(const(-right.value), PRODUCT)}", SUM
        return f"{self.at(left, SUM)} + {self.at(right, PRODUCT)}", SUM

    def print_mul(self, node: Expr) -> Text:
        left, right = node.args
        if left is MINUS_ONE:  # never two signs in a row, which is another operator in C++
            return f"-{self.at(right, POWER)}", UNARY
        return f"{self.at(left, PRODUCT)}*{self.at(right, UNARY)}", PRODUCT

    def infix(self, node: Expr, sign: str, strength: int) -> Text:
        """A left-associative binary operator."""
        left, right = node.args
        return f"{self.at(left, strength)}{sign}{self.at(right, strength + 1)}", strength

    def _comparison(self, node: Expr) -> Text:
        """Constants go to the right."""
        left, right = node.args
        sign, mirrored = _SIGNS[node.op]
        if left.is_constant and not right.is_constant:
            left, right, sign = right, left, mirrored
        return f"{self.at(left, SUM)} {sign} {self.at(right, SUM)}", COMPARE

    print_eq = print_ne = print_lt = print_le = _comparison

    def _connective(self, node: Expr) -> Text:
        strength = AND if node.op == "and" else OR
        operand = self.connective_operand or strength + 1
        word = self.words[node.op]
        return f" {word} ".join(self.at(a, operand) for a in node.args), strength

    print_and = print_or = _connective

    def print_not(self, node: Expr) -> Text:
        return f"{self.not_sign}{self.at(node.args[0], self.not_operand)}", self.not_strength


class PythonPrinter(InfixPrinter):
    """Python, in the grammar that ``parsing.py`` reads."""

    def print_const(self, node: Expr) -> Text:
        value = node.value
        if node.sort == "float" and not math.isfinite(value):
            text = "math.nan" if value != value else "math.inf"
            return (text, ATOM) if not value < 0 else (f"-{text}", UNARY)
        text = repr(value)
        return text, UNARY if text.startswith("-") else ATOM

    def print_floordiv(self, node: Expr) -> Text:
        return self.infix(node, "//", PRODUCT)

    def print_mod(self, node: Expr) -> Text:
        return self.infix(node, " % ", PRODUCT)

    def print_truediv(self, node: Expr) -> Text:
        return self.infix(node, "/", PRODUCT)

    def print_pow(self, node: Expr) -> Text:
        base, exponent = node.args
        return f"{self.at(base, ATOM)}**{self.at(exponent, UNARY)}", POWER

    def _same_name(self, node: Expr) -> Text:
        return self.function(node.op, node.args)

    print_max = print_min = print_float = print_round = _same_name

    def _from_math(self, node: Expr) -> Text:
        return self.function(f"math.{node.op}", node.args)

    print_floor = print_ceil = print_trunc = _from_math

    def print_call(self, node: Expr) -> Text:
        return self.function(f"math.{node.args[0]}", node.args[1:])

    def print_ite(self, node: Expr) -> Text:
        test, then, other = node.args
        return f"{self.at(then, OR)} if {self.at(test, OR)} else {self.at(other, OR)}", IF


_SIGNS = {"eq": ("==", "=="), "ne": ("!=", "!="), "lt": ("<", ">"), "le": ("<=", ">=")}
_PYTHON = PythonPrinter()
