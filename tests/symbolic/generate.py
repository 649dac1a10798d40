"""Random expressions: as Python text for the arithmetic tests, as nodes for the decision tests."""

from __future__ import annotations

import random
from collections.abc import Callable

from stillframe import symbolic as sym
from stillframe.symbolic import Expr

NAMES = ("a", "b", "c")


def int_text(rng: random.Random, depth: int) -> str:
    """Python text of an integer expression over :data:`NAMES`, fully parenthesised."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(NAMES) if rng.random() < 0.6 else f"({rng.randint(-9, 9)})"
    kind = rng.choice(
        (
            "+",
            "-",
            "*",
            "+",
            "-",
            "*",
            "//",
            "%",
            "//k",
            "%k",
            "//k",
            "%k",
            "max",
            "min",
            "neg",
            "ite",
            "**",
        )
    )
    left = int_text(rng, depth - 1)
    if kind == "neg":
        return f"(-{left})"
    if kind == "**":
        return f"({left} ** {rng.randint(0, 3)})"
    if kind in ("//k", "%k"):
        return f"({left} {kind[:-1]} ({rng.choice((-8, -4, -3, -2, -1, 1, 2, 3, 4, 6, 8, 12))}))"
    right = int_text(rng, depth - 1)
    if kind in ("max", "min"):
        return f"{kind}({left}, {right})"
    if kind == "ite":
        return f"({left} if {bool_text(rng, depth - 1)} else {right})"
    return f"({left} {kind} {right})"


def bool_text(rng: random.Random, depth: int) -> str:
    """Python text of a boolean expression."""
    kind = rng.choice(("cmp", "cmp", "cmp", "and", "or", "not")) if depth > 0 else "cmp"
    if kind in ("and", "or"):
        return f"({bool_text(rng, depth - 1)} {kind} {bool_text(rng, depth - 1)})"
    if kind == "not":
        return f"(not {bool_text(rng, depth - 1)})"
    op = rng.choice(("==", "!=", "<", "<=", ">", ">="))
    return f"({int_text(rng, max(depth - 1, 0))} {op} {int_text(rng, max(depth - 1, 0))})"


def float_text(rng: random.Random, depth: int) -> str:
    """Python text of a float expression; integers take part."""
    if depth == 0:
        return rng.choice(("float(a)", "0.5", "(-1.5)", "float(b)", "2.0"))
    kind = rng.choice(("+", "-", "*", "/", "i/", "int", "neg", "sqrt", "max", "ite"))
    left = float_text(rng, depth - 1)
    if kind == "neg":
        return f"(-{left})"
    if kind == "int":
        return f"({left} {rng.choice('+-*')} {int_text(rng, 1)})"
    if kind == "i/":
        return f"({int_text(rng, 1)} / {int_text(rng, 1)})"
    if kind == "sqrt":
        return f"math.sqrt({left})"
    right = float_text(rng, depth - 1)
    if kind == "max":
        return f"max({left}, {right})"
    if kind == "ite":
        return f"({left} if {left} < {right} else {right})"
    return f"({left} {kind} {right})"


# -- decision problems ----------------------------------------------------------------------------

_LINEAR = ("lin", "lin", "lin", "+", "-", "*", "//", "%", "//s", "%s", "max", "min", "ite")
_MORE = (*_LINEAR, "+", "-", "abs", "pow", "shift", "ceil", "int")


def small_int(
    rng: random.Random, symbols: tuple[Expr, ...], depth: int, *, floats: bool = True
) -> Expr:
    """An integer expression as sizes have them.

    Without ``floats`` it has nothing that z3's integers lack: no rounding, no symbolic exponent.
    """
    if depth == 0:
        return rng.choice(symbols) if rng.random() < 0.8 else sym.const(rng.randint(-3, 8))
    kind = rng.choice(_MORE if floats else _LINEAR)
    a = small_int(rng, symbols, depth - 1, floats=floats)
    if kind == "lin":
        return a * rng.choice((1, 1, 2, 3, 4, -1, -2)) + rng.randint(-6, 6)
    if kind == "//":
        return a // rng.choice((2, 3, 4, 8, -3))
    if kind == "%":
        return a % rng.choice((2, 3, 4, 8, -4))
    if kind in _UNARY_INT:
        return _UNARY_INT[kind](rng, a)
    b = small_int(rng, symbols, depth - 1, floats=floats)
    if kind in ("//s", "%s"):
        if b.is_constant and b.value == 0:
            return a
        return a // b if kind == "//s" else a % b
    if kind == "max":
        return sym.max_(a, b)
    if kind == "min":
        return sym.min_(a, b)
    if kind == "ite":
        return sym.ite(a < b, a, small_int(rng, symbols, depth - 1, floats=floats))
    return {"+": a + b, "-": a - b, "*": a * b}[kind]


_UNARY_INT: dict[str, Callable[[random.Random, Expr], Expr]] = {
    "abs": lambda rng, a: sym.absolute(a),
    "pow": lambda rng, a: a ** rng.choice((2, 2, 3)),
    "shift": lambda rng, a: sym.power(2, sym.max_(0, sym.min_(a, 9))),
    "ceil": lambda rng, a: sym.ceil_(sym.to_float(a) * rng.choice((0.5, 0.25, 0.1, 1.5, -0.5))),
    "int": lambda rng, a: rng.choice((sym.trunc_, sym.floor_, sym.round_))(
        a / rng.choice((2, 3, 8))
    ),
}


def small_float(rng: random.Random, symbols: tuple[Expr, ...], depth: int = 2) -> Expr:
    """A float expression as interpolation and attention scales have them."""
    a = small_int(rng, symbols, rng.choice((0, 0, 1)))
    if depth == 0:
        return sym.to_float(a)
    kind = rng.choice(("scale", "scale", "/", "/k", "pow", "call", "+", "*", "max", "min", "ite"))
    if kind == "scale":
        return sym.to_float(a) * rng.choice((0.5, 0.125, 0.1, 3.0, -1.5))
    if kind == "/k":
        return a / rng.choice((2, 3, 7, 0.3))
    b = small_float(rng, symbols, depth - 1)
    if kind == "/":
        return a / (small_int(rng, symbols, 1) if rng.random() < 0.5 else b)
    if kind == "pow":
        exponent = rng.choice((0.5, -0.5, 2.0, -1, 1.5))
        return sym.power(rng.choice((a, b)), exponent) * 1.0
    if kind == "call":
        if b.is_constant:
            return b
        return sym.call(rng.choice(("sqrt", "log2", "log", "exp", "fabs", "tanh", "sin")), b)
    if kind == "+":
        return sym.to_float(a) + b
    if kind == "*":
        return b * small_float(rng, symbols, 0)
    if kind == "ite":
        return sym.ite(a < 2, b, 0.25)
    return (sym.max_ if kind == "max" else sym.min_)(a, rng.choice((b, sym.const(2.5))))


_COMPARE = (sym.eq, sym.eq, sym.ne, sym.lt, sym.le, sym.gt, sym.ge)


def float_question(rng: random.Random, symbols: tuple[Expr, ...]) -> Expr:
    """A comparison with a float on at least one side."""
    while True:
        try:
            return _float_question(rng, symbols)
        except (ArithmeticError, ValueError):  # an operation on constants that has no value
            continue


def _float_question(rng: random.Random, symbols: tuple[Expr, ...]) -> Expr:
    left = small_float(rng, symbols)
    kind = rng.random()
    if kind < 0.6:
        right = sym.const(rng.choice((0, 0.0, 1, 1.0, 2.5, 4, 0.125, -1, 100.0)))
    else:
        right = small_float(rng, symbols, 1) if kind < 0.8 else small_int(rng, symbols, 1)
    return rng.choice(_COMPARE)(left, right)


def question(
    rng: random.Random, symbols: tuple[Expr, ...], depth: int = 2, *, floats: bool = True
) -> Expr:
    """A boolean expression; see :func:`small_int` for ``floats``."""
    kind = rng.random()
    if kind < 0.2:
        join = sym.and_ if kind < 0.08 else sym.or_ if kind < 0.16 else sym.eq
        left, right = (question(rng, symbols, depth - 1, floats=floats) for _ in range(2))
        return join(left, right)
    if kind < 0.26:
        k = rng.choice((2, 3, 4, 8))
        return sym.eq(sym.mod(small_int(rng, symbols, 1, floats=floats), k), rng.randrange(k))
    if floats and kind < 0.36:
        return float_question(rng, symbols)
    return rng.choice(_COMPARE)(
        small_int(rng, symbols, max(depth, 0), floats=floats),
        small_int(rng, symbols, max(depth - 1, 0), floats=floats),
    )


def disjunction(rng: random.Random, symbols: tuple[Expr, ...], *, floats: bool = True) -> Expr:
    """What a program says of a size that is one of a few: ``s == 1 or s == 8 or s % 3 == 0``."""
    s = rng.choice(symbols)
    arms = []
    for _ in range(rng.randint(2, 5)):
        kind = rng.random()
        if kind < 0.6:
            arms.append(sym.eq(s, rng.randint(-2, 12)))
        elif kind < 0.75:
            arms.append(sym.eq(sym.mod(s, rng.choice((2, 3, 4, 8))), rng.randint(0, 1)))
        elif kind < 0.85:
            arms.append(s < rng.randint(0, 6))
        else:
            arms.append(question(rng, symbols, 0, floats=floats))
    return sym.or_(*arms)


def assumption(rng: random.Random, symbols: tuple[Expr, ...], *, floats: bool = True) -> Expr:
    """A fact: a question that is answered by "yes", or a disjunction."""
    if rng.random() < 0.25:
        return disjunction(rng, symbols, floats=floats)
    return question(rng, symbols, rng.choice((0, 1, 1, 2)), floats=floats)
