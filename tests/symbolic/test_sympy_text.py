"""Text in sympy's language: its form, its value in sympy, and the way back."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from tests.symbolic import fuzz_values
from tests.symbolic.generate import NAMES, bool_text, float_text, int_text

from stillframe.errors import NotSupported
from stillframe.symbolic import (
    Expr,
    and_,
    call,
    ceil_,
    const,
    eq,
    evaluate,
    floor_,
    from_sympy,
    ite,
    max_,
    min_,
    ne,
    not_,
    or_,
    parse_sympy,
    power,
    symbol,
    to_float,
    to_sympy,
)

a, b, c = symbol("a"), symbol("b"), symbol("c")
x, y = symbol("x", "float"), symbol("y", "float")
p, q = symbol("p", "bool"), symbol("q", "bool")
OTHER_SORTS = {"x": x, "y": y, "p": p, "q": q}

# (expression, its text)
FORMS = [
    (2 * a * b - 3, "2*a*b - 3"),
    (a**9 * a**4 * b, "a**12*a*b"),
    (2**a, "2**a"),
    ((a + 2 * b) // 4, "floor((a + 2*b)/4)"),
    (a // b, "floor(a/b)"),
    (a // (b * c), "floor(a/(b*c))"),
    (-(a % b), "-Mod(a, b)"),
    (max_(a, b, 5), "Max(5, a, b)"),
    (min_(a, b // 2), "Min(a, floor(b/2))"),
    (ite(a < b, a, b + 2) + 1, "Piecewise((a, a < b), (b + 2, True)) + 1"),
    (eq(a, b), "Eq(a, b)"),
    (ne(a % 8, 3), "Ne(Mod(a, 8), 3)"),
    (or_(p, and_(not_(q), a <= b)), "Or(p, And(a <= b, Not(q)))"),
    (a / b, "IntTrueDiv(a, b)"),
    (floor_(a / b), "FloorToInt(IntTrueDiv(a, b))"),
    (ceil_(to_float(a) * 0.5), "CeilToInt(FloatMul(ToFloat(a), 0.5))"),
    (x + y + 0.5, "FloatAdd(FloatAdd(x, y), 0.5)"),
    (x / y, "FloatTrueDiv(x, y)"),
    (power(x, -0.5), "FloatPow(x, -0.5)"),
    (max_(x, y), "FloatMax(x, y)"),
    (call("sqrt", x), "OpaqueUnaryFn_sqrt(x)"),
    (const(True), "True"),
]


@pytest.mark.parametrize(("expr", "text"), FORMS, ids=[t for _, t in FORMS])
def test_form(expr: Expr, text: str) -> None:
    assert to_sympy(expr) == text
    assert parse_sympy(text, OTHER_SORTS) is expr


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (not_(x < 1.0), "negated order of floats"),
        (call("atan2", x, y), "math.atan2"),
        (x + math.inf, "inf is not one of sympy's numbers"),
        (x * -0.0, "-0.0 is not one"),
        (symbol("pi") + 1, "`pi` is not a symbol"),
        (symbol("lambda") + 1, "`lambda` is not a symbol"),
    ],
)
def test_refusals(expr: Expr, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        to_sympy(expr)


def corpus() -> list[tuple[Expr, random.Random]]:
    found = []
    for seed in range(250):
        rng = random.Random(seed)
        make = rng.choice((int_text, int_text, bool_text, float_text))
        expr = fuzz_values.build(make(rng, rng.choice((1, 2, 3))))
        if expr is not None:
            found.append((expr, rng))
    return found


def sympy_value(obj: Any, numbers: dict[str, int]) -> Any:
    """The number that sympy gives, or None if it leaves something open."""
    import sympy

    if not isinstance(obj, bool):
        obj = obj.subs({sympy.Symbol(n, integer=True): v for n, v in numbers.items()})
    if obj in (True, False):
        return bool(obj)
    return int(obj) if obj.is_Integer else None


def test_sympy_agrees_and_both_ways_back_too() -> None:
    import sympy

    names = {n: sympy.Symbol(n, integer=True) for n in NAMES}
    identical = compared = total = 0
    for expr, rng in corpus():
        text = to_sympy(expr)
        assert parse_sympy(text) is expr, text
        obj = sympy.sympify(text, locals=names)
        back = from_sympy(obj)
        total += 1
        identical += back is expr
        for _ in range(5):
            numbers = {n: rng.randint(-40, 40) for n in NAMES}
            values = {symbol(n): v for n, v in numbers.items()}
            try:
                expected = evaluate(expr, values)
            except (ArithmeticError, ValueError):
                continue
            context = f"{expr} as {obj}, back {back}, at {numbers}"
            assert fuzz_values.same(evaluate(back, values), expected), context
            if expr.sort != "float":
                found = sympy_value(obj, numbers)
                assert found is None or found == expected, context
                compared += found is not None
    assert identical > 0.9 * total  # sympy itself rewrites a few
    assert compared > 400
