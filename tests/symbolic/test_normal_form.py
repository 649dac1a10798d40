"""Each rule of the normal form, by text, and Python's arithmetic as the oracle of all of them."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
from tests.symbolic import fuzz_values

from stillframe.symbolic import (
    Expr,
    absolute,
    add,
    and_,
    call,
    ceil_,
    const,
    eq,
    evaluate,
    floor_,
    floordiv,
    ge,
    gt,
    ite,
    le,
    lt,
    max_,
    min_,
    mod,
    mul,
    ne,
    neg,
    not_,
    or_,
    parse,
    power,
    round_,
    sub,
    substitute,
    symbol,
    to_float,
    to_python,
    truediv,
    trunc_,
    unwrap,
)

a, b, c = symbol("a"), symbol("b"), symbol("c")
x = symbol("x", "float")
p, q = symbol("p", "bool"), symbol("q", "bool")

# (expression, text of its normal form)
SUMS = [
    (a + 1, "a + 1"),
    (1 + a, "a + 1"),
    (a + b - a, "b"),
    (a - a, "0"),
    (b + a, "a + b"),
    (2 * a * b, "2*a*b"),
    (a * (b + 1), "a*b + a"),
    ((a + b) ** 2, "a**2 + 2*a*b + b**2"),
    (b - a, "b - a"),
    (-a, "-a"),
    (-a - 1, "-a - 1"),
    (3 - a, "3 - a"),
    (add(a, b, 1, 2), "a + b + 3"),
    (mul(a, b, 0), "0"),
    (sub(1, a), "1 - a"),
    (neg(a + b), "-a - b"),
    (symbol("s10") + symbol("s2"), "s2 + s10"),
]
DIVISIONS = [
    ((6 * a) // 3, "2*a"),
    ((4 * a + 8) // 4, "a + 2"),
    ((8 * a + 3) // 8, "a"),
    ((8 * a - 3) // 8, "a - 1"),
    ((a // 2) // 3, "a//6"),
    ((a // 2 + 1) // 3, "(a + 2)//6"),
    (a // 1, "a"),
    (a // -1, "-a"),
    (a // -4, "-((a + 3)//4)"),
    (-(a // 4), "-(a//4)"),
    (-(-a // 4), "(a + 3)//4"),
    ((a - 1) // 2 + 1, "(a + 1)//2"),
    ((5 * a) // 4, "5*a//4"),
    ((2 * a + 1) // 4, "a//2"),
    ((2 * a) // (4 * b), "a//(2*b)"),
    ((-a) // (-b), "a//b"),
    ((a * b) // b, "a*b//b"),
    ((a % 3) // 4, "0"),
    (2 * (a // 3) * b, "2*b*(a//3)"),
    (a // b // c, "a//b//c"),
    (a // (b // c), "a//(b//c)"),
    (a // (b * c), "a//(b*c)"),
    (symbol("s0") * (symbol("s1") + 1) // 8, "(s0*s1 + s0)//8"),
]
MODULI = [
    ((5 * a) % 5, "0"),
    (a % 1, "0"),
    ((9 * a + 10) % 8, "(a + 2) % 8"),
    ((a - b) % 4, "(a - b) % 4"),
    ((2 * a) % 4, "2*(a % 2)"),
    ((2 * a + 1) % 4, "2*(a % 2) + 1"),
    (a % -4, "-(-a % 4)"),
    ((a % 8) % 4, "a % 4"),
    ((a % 4) % 8, "a % 4"),
    ((3 * (a % 8) + b) % 4, "(b - a) % 4"),
    ((2 * a) % (2 * b), "2*(a % b)"),
    ((-a) % (-b), "-(a % b)"),
    (a % (b % 3), "a % (b % 3)"),
]
CHOICES = [
    (max_(a, a + 1), "a + 1"),
    (min_(a, a + 1), "a"),
    (max_(a, max_(b, 3), 5), "max(5, a, b)"),
    (max_(a, a), "a"),
    (max_(a, min_(a, b)), "a"),
    (min_(2, 3), "2"),
    (absolute(a), "max(a, -a)"),
    (ite(a < b, a, a), "a"),
    (ite(ne(a, b), 1, 2), "2 if a == b else 1"),
    (ite(const(True), a, b), "a"),
    (ite(a < b, a, c) * 2, "2*(a if a < b else c)"),
    (ite(a < b, a, c) + 2, "(a if a < b else c) + 2"),
    (ite(a < b, a, b), "min(a, b)"),
    (ite(a <= b, a, b), "min(a, b)"),
    (ite(a < b, b, a), "max(a, b)"),
    (ite(a >= b, a, b), "max(a, b)"),
    (ite(a + 1 < b, a, b), "a if a + 2 <= b else b"),
    (ite(a < 4, a, 4), "min(4, a)"),
]
COMPARISONS = [
    (eq(a * 128, 0), "a == 0"),
    (le(2 * a, 2 * b + 1), "a <= b"),
    (lt(a, b), "a < b"),
    (gt(a, b), "b < a"),
    (gt(a, 1), "a >= 2"),
    (ge(a, 1), "a >= 1"),
    (le(3 * a, 20), "a <= 6"),
    (eq(2 * a + 1, 2 * b), "False"),
    (ne(2 * a + 1, 2 * b), "True"),
    (eq(a, a), "True"),
    (eq(3, a), "a == 3"),
    (eq(b, a), "a == b"),
    (eq(-a, -b), "a == b"),
    (eq(b, 2 * a + 1), "2*a == b - 1"),
    (le(2 * a, b - 3), "2*a + 3 <= b"),
    (ge(a // 8, 1), "a >= 8"),
    (le(a // 8, 1), "a <= 15"),
    (le(a // 2, b), "a <= 2*b + 1"),
    (eq((2 * a) % 4, 0), "a % 2 == 0"),
    (eq((3 - a) % 8, 0), "a % 8 == 3"),
    (eq((a + 1) % 8, 0), "a % 8 == 7"),
    (eq(a % 8, 9), "False"),
    (ne((b - a) % 4, 1), "(a - b) % 4 != 3"),
]
LOGIC = [
    (not_(a <= b), "b < a"),
    (not_(eq(a, b)), "a != b"),
    (and_(p, True), "p"),
    (and_(p, False), "False"),
    (or_(p, not_(p)), "True"),
    (and_(a <= b, b < a), "False"),
    (and_(p, q, p), "p and q"),
    (not_(and_(p, q)), "not p or not q"),
    (not_(not_(p)), "p"),
    (or_(), "False"),
    (and_(q, or_(p, a < b)), "q and (p or a < b)"),
    (eq(p, True), "p"),
    (p & ~q, "p and not q"),
    (p | q, "p or q"),
]
FLOATS = [
    (a / b, "a/b"),
    (a / 2 + 0.5, "a/2 + 0.5"),
    (to_float(a) - 0.5, "float(a) - 0.5"),
    (a + 0.5, "float(a) + 0.5"),
    (-to_float(a), "-float(a)"),
    ((x + 1.0) + (x + 2.0), "x + 1.0 + (x + 2.0)"),
    (x * (x + 1.0), "x*(x + 1.0)"),
    (power(a, -0.5), "float(a)**-0.5"),
    (power(a, 0.5), "float(a)**0.5"),
    (power(a, -1), "float(a)**-1.0"),
    (call("sqrt", a), "math.sqrt(float(a))"),
    (floor_(x), "math.floor(x)"),
    (ceil_(a / 2), "math.ceil(a/2)"),
    (round_(x), "round(x)"),
    (trunc_(x), "math.trunc(x)"),
    (floor_(a), "a"),
    (max_(a, 0.5), "max(float(a), 0.5)"),
    (not_(x < 1.0), "not (x < 1.0)"),
    (not_(eq(x, 1.0)), "x != 1.0"),
    (x > 0, "x > 0.0"),
    (call("exp", 0.0), "1.0"),
    (truediv(7, 2), "3.5"),
    (const(math.inf) * x, "math.inf*x"),
    ((a**9) ** 2 // 2, "a**12*a**6//2"),
    (2**a, "2**a"),
    ((a + 1) ** b, "(a + 1)**b"),
    (const(-2) ** a, "(-2)**a"),
]
RULES = SUMS + DIVISIONS + MODULI + CHOICES + COMPARISONS + LOGIC + FLOATS


@pytest.mark.parametrize(("expr", "text"), RULES, ids=[t for _, t in RULES])
def test_rule(expr: Expr, text: str) -> None:
    assert to_python(expr) == text


@pytest.mark.parametrize(("expr", "text"), RULES, ids=[t for _, t in RULES])
def test_text_reads_back(expr: Expr, text: str) -> None:
    assert parse(text, {"x": x, "p": p, "q": q}) is expr


def test_values_agree_with_python() -> None:
    for seed in range(4000):
        fuzz_values.check_case(seed)


# -- nodes -----------------------------------------------------------------------------------------


def test_equality_is_identity() -> None:
    assert a + b is b + a
    assert symbol("a") is a
    assert symbol("a", "float") is not a
    assert (a == b) is False
    assert len({a + 1, 1 + a, a + 2}) == 2


def test_constants_of_three_sorts_are_three() -> None:
    assert len({const(1), const(1.0), const(True)}) == 3
    assert const(0.0) is not const(-0.0)
    assert const(math.nan) is const(math.nan)
    assert a + 1.0 is not a + 1
    assert (a + 1).sort == "int" and (a + 1.0).sort == "float"


def test_truth_and_conversion_are_refused() -> None:
    with pytest.raises(TypeError, match=r"the truth of the symbolic expression `a < b`"):
        bool(a < b)
    with pytest.raises(TypeError, match=r"`a \+ 1` is not a constant"):
        int(a + 1)
    with pytest.raises(TypeError, match="not a constant"):
        float(a)
    assert int(const(3)) == 3 and float(const(3)) == 3.0
    with pytest.raises(TypeError):
        a + "1"  # type: ignore[operator]


def test_unwrap() -> None:
    assert unwrap(const(3)) == 3 and type(unwrap(const(True))) is bool
    assert unwrap(a - a) == 0
    assert unwrap(a) is a and unwrap(7) == 7


def test_op_and_args_are_a_uniform_view() -> None:
    node = 2 * a * b + a + 1
    assert node.op == "add" and [str(t) for t in node.args] == ["2*a*b", "a", "1"]
    assert node.args[0].op == "mul" and [str(t) for t in node.args[0].args] == ["2", "a", "b"]
    assert call("sqrt", x).args == ("sqrt", x)
    assert eq(a, 3).args == (a, const(3))
    assert node.free_symbols == {a, b}
    assert const(3).args == () and a.args == () and a.name == "a"


def test_copies_and_pickles_are_the_same_object() -> None:
    for node, _ in RULES:
        assert copy.deepcopy(node) is node and copy.copy(node) is node
        assert pickle.loads(pickle.dumps(node)) is node


def test_division_by_constant_zero() -> None:
    for build in (floordiv, mod, truediv):
        with pytest.raises(ZeroDivisionError):
            build(a, 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(a // b, {a: 1, b: 0})
    assert evaluate(or_(eq(a // b, 1), eq(b, 0)), {a: 1, b: 0}) is True  # in any order


def test_products_do_not_explode() -> None:
    wide = add(*(symbol(f"w{i}") for i in range(40)))
    node = wide * wide * wide
    assert len(node.args) <= 256
    values = {symbol(f"w{i}"): i - 7 for i in range(40)}
    assert evaluate(node, values) == evaluate(wide, values) ** 3
    assert evaluate(a**100, {a: -3}) == 3**100


def test_sorts_are_checked() -> None:
    with pytest.raises(TypeError, match="expected a boolean"):
        and_(a, True)
    with pytest.raises(TypeError, match="cannot hold a str"):
        const("a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identifier"):
        symbol("s 0")
    with pytest.raises(ValueError, match="sort"):
        symbol("s0", "complex")
    with pytest.raises(ValueError, match="unknown float function"):
        call("system", x)


# -- substitution ----------------------------------------------------------------------------------


def test_substitute() -> None:
    assert substitute(a * b + 1, {a: b, b: a}) is a * b + 1  # all at once
    assert unwrap(substitute(a // 2 + b, {a: 5, b: 1})) == 3
    assert substitute(a + b, {a: 2 * c}) is 2 * c + b
    assert substitute(a + b, {c: 1}) is a + b
    with pytest.raises(TypeError, match="cannot become the float"):
        substitute(a, {a: 0.5})


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a +",
        "__import__('os')",
        "a.b",
        "a[0]",
        "lambda: 1",
        "'text'",
        "a @ b",
        "a << 2",
        "~a",
        "a is b",
        "a in b",
        "f(a)",
        "math.system(a)",
        "max()",
        "max(a, key=b)",
        "float(a, b)",
        "1 // 0",
        "9**9**9",
        "a and b",
        "max(*a)",
        "math.sqrt(-1.0)",
        "(" * 5000 + "a" + ")" * 5000,
        "-" * 20000 + "a",
        "a" * 200_000,
    ],
    ids=lambda t: t[:20],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_parse_reads_chains_and_builtins() -> None:
    assert parse("2 <= a < 10") is and_(a >= 2, a <= 9)
    assert parse("abs(a) >= 1") is ge(absolute(a), 1)
    assert parse(" a\n") is a
