"""Reading sympy's objects and text: fractions, torch's own functions, refusals."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.symbolic.fuzz_values import same

from stillframe.errors import InvalidInput, NotSupported
from stillframe.symbolic import (
    Expr,
    absolute,
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
    mod,
    ne,
    not_,
    parse_sympy,
    power,
    round_,
    symbol,
    to_float,
    trunc_,
)

a, b, c = symbol("a"), symbol("b"), symbol("c")
x = symbol("x", "float")

# (text, what it says)
TEXTS = [
    ("floor(a/2 + b/3)", (3 * a + 2 * b) // 6),
    ("ceiling(a/4)", -(-a // 4)),
    ("floor(a/b + c/b)", (a + c) // b),
    ("floor(a/b + c/2)", (2 * a + b * c) // (2 * b)),
    ("floor(1.5*a)", floor_(1.5 * to_float(a))),
    ("Mod(a/2, 3)*2", mod(a, 6)),
    ("Max(a/2, b)*2", max_(a, 2 * b)),
    ("a/2 < b/3", 3 * a < 2 * b),
    ("a/b <= 1", a * b <= b * b),
    ("Eq(a/2, b)", eq(a, 2 * b)),
    ("Abs(a)", absolute(a)),
    ("Abs(-a/2)*2", absolute(-a)),
    ("sign(a)", ite(a > 0, 1, ite(a < 0, -1, 0))),
    ("(a < b) & ~Eq(a, 3)", and_(a < b, ne(a, 3))),
    ("Xor(a < b, b < c)", not_(eq(a < b, b < c))),
    ("Implies(a < b, b < c)", ~(a < b) | (b < c)),
    ("Equivalent(a < b, b < c)", eq(a < b, b < c)),
    ("ITE(a < b, b < c, c < a)", ite(a < b, b < c, c < a)),
    ("Piecewise((1, a < b), (2, Eq(a, b)), (3, True))", ite(a < b, 1, ite(eq(a, b), 2, 3))),
    ("floor(Piecewise((a/2, a < b), (b/3, True)))", ite(a < b, a, b) // ite(a < b, 2, 3)),
    ("a % 3 + a // 3", a % 3 + a // 3),
    ("LShift(a, 2) + RShift(b, 1)", 4 * a + b // 2),
    ("-(-a) - b", a - b),
    ("ToFloat(a)/2 + 1", to_float(a) * 0.5 + 1.0),
    ("-ToFloat(a)", -to_float(a)),
]


@pytest.mark.parametrize(("text", "expr"), TEXTS, ids=[t for t, _ in TEXTS])
def test_text(text: str, expr: Expr) -> None:
    assert parse_sympy(text) is expr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/2", r"fraction \(a\)/\(2\) is not an integer"),
        ("sqrt(a)", "`sqrt` of sympy"),
        ("a**(1/2)", r"fraction \(1\)/\(2\)"),
        ("oo + a", "`oo` is a constant of sympy"),
        ("Piecewise((1, a < b))", "without a last case"),
        ("Max(a/b, c)*b", "unknown denominators"),
        ("1/ToFloat(a)", "reciprocal of the float"),
        ("ToFloat(a)/3", r"fraction \(1\)/\(3\)"),
        ("__import__(a)", "`__import__`"),
    ],
)
def test_not_supported(text: str, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        parse_sympy(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a +",
        "a.b",
        "a[0]",
        "lambda: 1",
        "'text'",
        "a < b < c",
        "a is b",
        "not a",
        "Max()",
        "Mod(a)",
        "f(a=1)",
        "a/0",
        "9**9**9",
        "2**-1**-9",
        "And(a, b)",
        "Piecewise(a)",
        "(a, b)",
        "(" * 5000 + "a" + ")" * 5000,
        "a" * 200_000,
    ],
    ids=lambda t: t[:20],
)
def test_malformed_text(text: str) -> None:
    with pytest.raises((InvalidInput, NotSupported)):
        parse_sympy(text)


def test_objects_that_are_not_sympys() -> None:
    assert from_sympy(3) is const(3)
    with pytest.raises(InvalidInput, match="a str is not a sympy object"):
        from_sympy("a")


def test_sorts_of_symbols() -> None:
    import sympy

    real = sympy.Symbol("x", integer=False, real=True)
    with pytest.raises(NotSupported, match="`x` is declared not to be an integer"):
        from_sympy(real)
    assert from_sympy(real, {"x": x}) is x
    assert from_sympy(sympy.Symbol("E") + 1, {"E": a}) is a + 1


def torch_functions() -> list[tuple[Any, Expr]]:
    """(sympy object of torch's function classes, the expression it is)."""
    import sympy
    from torch.utils._sympy import functions as torch_sympy

    s, t = sympy.Symbol("a", integer=True), sympy.Symbol("b", integer=True)
    f = torch_sympy
    return [
        (f.FloorDiv(s, t), a // b),
        (f.FloorDiv(s + 1, 2), (a + 1) // 2),
        (f.CleanDiv(s * t, 3), (a * b) // 3),
        (f.Mod(s, t), a % b),
        (f.PythonMod(s, t), a % b),
        (f.IntTrueDiv(s, t), a / b),
        (f.FloatTrueDiv(f.ToFloat(s), 3.0), to_float(a) / 3.0),
        (f.CeilToInt(f.IntTrueDiv(s, 2)), ceil_(a / 2)),
        (f.FloorToInt(f.IntTrueDiv(s, t)), floor_(a / b)),
        (f.TruncToInt(f.IntTrueDiv(s, t)), trunc_(a / b)),
        (f.RoundToInt(f.IntTrueDiv(s, t)), round_(a / b)),
        (f.PowByNatural(s, 3), a**3),
        (f.FloatPow(f.ToFloat(s), 0.5), power(to_float(a), 0.5)),
        (f.Max(s, t, 4), max_(a, b, 4)),
        (f.Min(s, t), -max_(-a, -b)),
        (f.Where(sympy.Lt(s, t), s, t + 1), ite(a < b, a, b + 1)),
        (f.OpaqueUnaryFn_sqrt(f.ToFloat(s)), call("sqrt", a)),
        (f.LShift(s, 3), 8 * a),
        (f.ToFloat(s) * 2.0 + 1.0, to_float(a) * 2.0 + 1.0),
    ]


def test_torchs_functions() -> None:
    rng = random.Random(3)
    for obj, expected in torch_functions():
        found = from_sympy(obj)
        for _ in range(20):
            values = {a: rng.randint(1, 60), b: rng.randint(1, 9)}
            assert same(evaluate(found, values), evaluate(expected, values)), f"{obj}: {found}"


def test_what_torch_makes_of_shape_arithmetic() -> None:
    """Expressions of a real ShapeEnv of torch, read by name."""
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

    env = ShapeEnv()
    size = env.create_unspecified_symbol(12, ConstantSource("n"), DimDynamic.DYNAMIC)
    n = env.create_symintnode(size, hint=12)
    s = symbol(str(size))
    for made in ((n + 3) // 4 * 4, n % 7 + n**2, -(-n // 8)):
        found = from_sympy(made.node.expr)
        for value in (2, 7, 12, 31):
            expected = int(made.node.expr.xreplace({size: value}))
            assert evaluate(found, {s: value}) == expected
