"""sympy as the oracle of simplification: its exact rationals, at points.

The expression that the facts simplify is translated to sympy, which rewrites it by its own rules;
its value at a point must be Python's value of the original text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import sympy
from tests.symbolic.fuzz_values import NAMES, build, python_value
from tests.symbolic.generate import bool_text, int_text

from stillframe.symbolic import Expr, Facts, Range, symbol

_SYMBOLS = {name: sympy.Symbol(name, integer=True) for name in NAMES}


def to_sympy(node: Expr) -> Any:
    """An integer or boolean expression in sympy's terms."""
    if node.op == "const":
        return sympy.true if node.value is True else sympy.sympify(node.value)
    if node.op == "symbol":
        return _SYMBOLS[str(node)]
    if node.op == "ite":
        test, then, other = (to_sympy(a) for a in node.args)
        return sympy.Piecewise((then, test), (other, True))
    return _TERMS[node.op](*[to_sympy(a) for a in node.args])


_TERMS: dict[str, Callable[..., Any]] = {
    "add": sympy.Add,
    "mul": sympy.Mul,
    "pow": sympy.Pow,
    "floordiv": lambda x, y: sympy.floor(x / y),
    "mod": lambda x, y: x - y * sympy.floor(x / y),
    "max": sympy.Max,
    "min": sympy.Min,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
    "lt": sympy.Lt,
    "le": sympy.Le,
    "and": sympy.And,
    "or": sympy.Or,
    "not": sympy.Not,
}


def check_simplified(seed: int) -> None:
    """One random expression, simplified under random ranges, at four points in them."""
    rng = random.Random(seed)
    text = rng.choice((int_text, int_text, bool_text))(rng, rng.choice((1, 2, 3)))
    node = build(text)
    if node is None:
        return
    facts = Facts()
    spans = {}
    for name in NAMES:
        low = rng.choice((-9, 0, 1, 2))
        spans[name] = (low, low + rng.choice((0, 3, 40)))
        facts.set_range(symbol(name), Range(*spans[name]))
    simple = facts.simplify(node)
    points = [{n: rng.randint(*span) for n, span in spans.items()} for _ in range(4)]
    values = [(numbers, python_value(text, numbers)) for numbers in points]
    if all(expected is None for _, expected in values):
        return  # such as a division by 0, of which sympy makes an infinity
    translated = to_sympy(simple)
    for numbers, expected in values:
        if expected is None:
            continue
        found = translated.subs({_SYMBOLS[name]: n for name, n in numbers.items()})
        assert found == expected, (
            f"# seed {seed}\nparse({text!r}) under {facts!r} simplifies to {simple}\n"
            f"# at {numbers}: sympy says {found} of it, Python says {expected} of the original"
        )
