"""Expressions as Python text: valid Python with few parentheses, read back by ``parsing.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

from stillframe.symbolic.arith import MAX_EXPONENT, factors, linear
from stillframe.symbolic.expr import Expr, Number, const
from stillframe.symbolic.floats import MINUS_ONE

# Python's binding strengths, weakest first.
IF, OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, POWER, ATOM = range(10)

_Text = tuple[str, int]


def to_python(expr: Expr | Number) -> str:
    """``expr`` as a Python expression over its symbols, ``max``, ``min``, ``float`` and ``math``.

    Its value in Python is the value of the expression, and :func:`~stillframe.symbolic.parse`
    gives back the same object (if its symbols are integers, or are passed).
    """
    return _render(const(expr))[0]


def _render(node: Expr) -> _Text:
    if node.op == "symbol":
        return node.name or "", ATOM
    if node.sort == "int" and node.op in ("add", "mul"):
        return _integer(node)
    return _PRINTERS[node.op](node)


def _at(node: Expr, strength: int) -> str:
    """The text of ``node``, in parentheses if it binds weaker than ``strength``."""
    text, own = _render(node)
    return text if own >= strength else f"({text})"


# -- integers: sums of terms ----------------------------------------------------------------------


def _integer(node: Expr) -> _Text:
    terms, constant = linear(node)
    parts = [(c, m) for m, c in terms.items()]
    if len(parts) == 1 and not constant:
        return _term(*parts[0])
    first = next((i for i, (c, _) in enumerate(parts) if c > 0), None)
    if first is None and constant > 0:
        text = str(constant)
        constant = 0
    else:
        text = _addend(*parts.pop(first or 0))
    for c, mono in parts:
        text += f" {'+' if c > 0 else '-'} {_addend(abs(c), mono)}"
    if constant:
        text += f" {'+' if constant > 0 else '-'} {abs(constant)}"
    return text, SUM


def _addend(coefficient: int, mono: Expr) -> str:
    text, strength = _term(coefficient, mono)
    return text if strength >= PRODUCT else f"({text})"


def _term(coefficient: int, mono: Expr) -> _Text:
    if coefficient == 1:
        return _monomial(mono, False)
    if coefficient == -1:  # the sign binds to the first factor, which makes it the same product
        text, strength = _monomial(mono, mono.op == "mul")
        return (
            (f"-{text}", PRODUCT)
            if strength >= UNARY or mono.op == "mul"
            else (f"-({text})", UNARY)
        )
    return f"{coefficient}*{_monomial(mono, True)[0]}", PRODUCT


def _monomial(mono: Expr, follows: bool) -> _Text:
    """A product; ``follows`` if something stands before it, so that ``//`` needs parentheses."""
    atoms = factors(mono)
    counts: dict[Expr, int] = {}
    for atom in atoms:
        counts[atom] = counts.get(atom, 0) + 1
    if len(atoms) == 1 and not follows:
        return _render(atoms[0])
    texts: list[str] = []
    for atom, n in counts.items():
        while n > MAX_EXPONENT:  # a higher power would be read back as an opaque one
            texts.append(f"{_at(atom, ATOM)}**{MAX_EXPONENT}")
            n -= MAX_EXPONENT
        if n > 1:
            texts.append(f"{_at(atom, ATOM)}**{n}")
        else:
            texts.append(_at(atom, UNARY if texts or follows else PRODUCT))
    strength = POWER if len(texts) == 1 and len(atoms) > 1 else PRODUCT
    return "*".join(texts), strength


# -- everything else ------------------------------------------------------------------------------


def _constant(node: Expr) -> _Text:
    value = node.value
    if node.sort == "float" and not math.isfinite(value):
        text = "math.nan" if value != value else "math.inf"
        return (text, ATOM) if not value < 0 else (f"-{text}", UNARY)
    text = repr(value)
    return text, UNARY if text.startswith("-") else ATOM


def _infix(sign: str, strength: int) -> Callable[[Expr], _Text]:
    """A left-associative binary operator."""

    def printer(node: Expr) -> _Text:
        left, right = node.args
        return f"{_at(left, strength)}{sign}{_at(right, strength + 1)}", strength

    return printer


def _float_sum(node: Expr) -> _Text:
    left, right = node.args
    if right.op == "mul" and right.args[0] is MINUS_ONE:
        return f"{_at(left, SUM)} - {_at(right.args[1], PRODUCT)}", SUM
    if right.is_constant and right.value < 0:
        return f"{_at(left, SUM)} - {_at(const(-right.value), PRODUCT)}", SUM
    return f"{_at(left, SUM)} + {_at(right, PRODUCT)}", SUM


def _float_product(node: Expr) -> _Text:
    left, right = node.args
    if left is MINUS_ONE:
        return f"-{_at(right, UNARY)}", UNARY
    return f"{_at(left, PRODUCT)}*{_at(right, UNARY)}", PRODUCT


def _power(node: Expr) -> _Text:
    base, exponent = node.args
    return f"{_at(base, ATOM)}**{_at(exponent, UNARY)}", POWER


def _function(name: str) -> Callable[[Expr], _Text]:
    def printer(node: Expr) -> _Text:
        return f"{name}({', '.join(_render(a)[0] for a in node.args)})", ATOM

    return printer


def _call(node: Expr) -> _Text:
    name, *args = node.args
    return f"math.{name}({', '.join(_render(a)[0] for a in args)})", ATOM


_SIGNS = {"eq": ("==", "=="), "ne": ("!=", "!="), "lt": ("<", ">"), "le": ("<=", ">=")}


def _comparison(node: Expr) -> _Text:
    """Constants go to the right."""
    left, right = node.args
    sign, mirrored = _SIGNS[node.op]
    if left.is_constant and not right.is_constant:
        left, right, sign = right, left, mirrored
    return f"{_at(left, SUM)} {sign} {_at(right, SUM)}", COMPARE


def _connective(word: str, strength: int) -> Callable[[Expr], _Text]:
    def printer(node: Expr) -> _Text:
        return f" {word} ".join(_at(a, strength + 1) for a in node.args), strength

    return printer


def _negation(node: Expr) -> _Text:
    return f"not {_at(node.args[0], SUM)}", NOT


def _choice(node: Expr) -> _Text:
    test, then, other = node.args
    return f"{_at(then, OR)} if {_at(test, OR)} else {_at(other, OR)}", IF


_PRINTERS: dict[str, Callable[[Expr], _Text]] = {
    "const": _constant,
    "add": _float_sum,
    "mul": _float_product,
    "floordiv": _infix("//", PRODUCT),
    "mod": _infix(" % ", PRODUCT),
    "truediv": _infix("/", PRODUCT),
    "pow": _power,
    "max": _function("max"),
    "min": _function("min"),
    "float": _function("float"),
    "floor": _function("math.floor"),
    "ceil": _function("math.ceil"),
    "round": _function("round"),
    "trunc": _function("math.trunc"),
    "call": _call,
    "eq": _comparison,
    "ne": _comparison,
    "lt": _comparison,
    "le": _comparison,
    "and": _connective("and", AND),
    "or": _connective("or", OR),
    "not": _negation,
    "ite": _choice,
}
