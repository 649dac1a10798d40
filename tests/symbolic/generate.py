"""Random expressions: as Python text for the arithmetic tests, as nodes for the decision tests."""

from __future__ import annotations

import random

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


def small_int(rng: random.Random, symbols: tuple[Expr, ...], depth: int) -> Expr:
    """An integer expression as sizes have them."""
    if depth == 0:
        return rng.choice(symbols) if rng.random() < 0.8 else sym.const(rng.randint(-3, 8))
    kind = rng.choice(
        ("lin", "lin", "lin", "+", "-", "*", "//", "%", "//s", "%s", "max", "min", "ite")
    )
    a = small_int(rng, symbols, depth - 1)
    if kind == "lin":
        return a * rng.choice((1, 1, 2, 3, 4, -1, -2)) + rng.randint(-6, 6)
    if kind == "//":
        return a // rng.choice((2, 3, 4, 8))
    if kind == "%":
        return a % rng.choice((2, 3, 4, 8))
    b = small_int(rng, symbols, depth - 1)
    if kind in ("//s", "%s"):
        if b.is_constant and b.value == 0:
            return a
        return a // b if kind == "//s" else a % b
    if kind == "max":
        return sym.max_(a, b)
    if kind == "min":
        return sym.min_(a, b)
    if kind == "ite":
        return sym.ite(a < b, a, small_int(rng, symbols, depth - 1))
    return {"+": a + b, "-": a - b, "*": a * b}[kind]


def question(rng: random.Random, symbols: tuple[Expr, ...], depth: int = 2) -> Expr:
    """A boolean expression."""
    kind = rng.random()
    if kind < 0.08:
        return sym.and_(question(rng, symbols, depth - 1), question(rng, symbols, depth - 1))
    if kind < 0.16:
        return sym.or_(question(rng, symbols, depth - 1), question(rng, symbols, depth - 1))
    if kind < 0.22:
        k = rng.choice((2, 3, 4, 8))
        return sym.eq(sym.mod(small_int(rng, symbols, 1), k), rng.randrange(k))
    compare = rng.choice((sym.eq, sym.eq, sym.ne, sym.lt, sym.le, sym.gt, sym.ge))
    return compare(
        small_int(rng, symbols, max(depth, 0)), small_int(rng, symbols, max(depth - 1, 0))
    )
