"""C++ text: compiled and run, its values are those of ``evaluate``."""

from __future__ import annotations

import math
import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.symbolic import fuzz_values
from tests.symbolic.generate import NAMES, bool_text, float_text, int_text

from stillframe.errors import NotSupported
from stillframe.symbolic import (
    CPP_PRELUDE,
    Expr,
    and_,
    call,
    ceil_,
    const,
    eq,
    evaluate,
    floor_,
    floordiv,
    ite,
    max_,
    min_,
    ne,
    not_,
    or_,
    parse,
    power,
    round_,
    symbol,
    to_cpp,
    to_float,
    trunc_,
)

a, b, c = symbol("a"), symbol("b"), symbol("c")
x, y = symbol("x", "float"), symbol("y", "float")
p, q = symbol("p", "bool"), symbol("q", "bool")

# (expression, its C++ text)
FORMS = [
    (2 * a * b - 3, "2LL*a*b - 3LL"),
    (a // 4, "stillframe::floordiv(a, 4LL)"),
    (a % b, "stillframe::mod(a, b)"),
    (x % y, "stillframe::float_mod(x, y)"),
    (a**3 * b, "stillframe::pow(a, 3LL)*b"),
    (2**a, "stillframe::pow(2LL, a)"),
    (power(x, 0.5), "stillframe::call(std::pow, x, 0.5)"),
    (a / b, "stillframe::truediv(a, b)"),
    (x / 2.0, "x/2.0"),
    (x / y, "stillframe::float_truediv(x, y)"),
    (-(x * -x), "-(x*-x)"),
    (max_(a, b, 5), "std::max<int64_t>({5LL, a, b})"),
    (min_(x, 0.5), "std::min<double>({x, 0.5})"),
    (floor_(x), "stillframe::floor(x)"),
    (to_float(a) + 0.5, "static_cast<double>(a) + 0.5"),
    (call("sqrt", x), "stillframe::call(std::sqrt, x)"),
    (ite(a < b, a, b + 2) + 1, "(a < b ? a : b + 2LL) + 1LL"),
    (or_(p, and_(q, not_(x < 1.0))), "p || (q && !(x < 1.0))"),
    (a <= x, "stillframe::less_equal(a, x)"),
    (ne(x, a), "!stillframe::equal(a, x)"),
    (const(-math.inf), "-std::numeric_limits<double>::infinity()"),
    (const(True), "true"),
]


@pytest.mark.parametrize(("expr", "text"), FORMS, ids=[t for _, t in FORMS])
def test_form(expr: Expr, text: str) -> None:
    assert to_cpp(expr) == text


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (a + 2**63, "9223372036854775808 does not fit"),
        (const(-(2**63)), "9223372036854775808 does not fit"),
        (symbol("class") + 1, "`class` cannot be the name"),
        (symbol("größe") + 1, "cannot be the name"),
        (call("gamma", x), "math.gamma"),
        (floordiv(x, y), "floor division of floats"),
    ],
)
def test_refusals(expr: Expr, message: str) -> None:
    with pytest.raises(NotSupported, match=message):
        to_cpp(expr)


# -- values ----------------------------------------------------------------------------------------

BIG = 2**53 + 1
EDGES = [
    a // b,
    a % b,
    a / b,
    a / 3,
    7 / a,
    to_float(a) / 3.0,
    (to_float(a) % to_float(b)),
    to_float(a) % 0.7,
    max_(a, 2 - b, 3),
    min_(a * b, c, -4),
    round_(a / 2),
    round_(to_float(a) * 0.25),
    floor_(a / b),
    ceil_(a / b),
    trunc_(a / b),
    floor_(to_float(a) * 1.5),
    power(a, 5) * power(b, 2),
    ite(a < b, max_(a, 1), min_(b, 2)) % 7,
    (ite(a < b, 100000, 1) * ite(b < c, 100000, 1)),
    to_float(a) < b,
    to_float(a + BIG) <= a + BIG,
    (a + BIG) < to_float(a + BIG),
    eq(to_float(a + BIG), a + BIG),
    ne(a + BIG, to_float(a + BIG)),
    (a + BIG) / (b + 3),
    (a * 2**40 + 12345) / (b * 2**20 + 77),
    power(to_float(a), 0.5),
    power(to_float(a), -2.0),
    power(to_float(a), to_float(b)),
    call("sqrt", call("fabs", a)),
    call("log2", a),
    call("atan2", a, b),
    call("fmod", a, b),
    -(to_float(a) * -to_float(b)),
    or_(eq(a % 4, 1), and_(a < b, ne(b, c))),
    const(-math.inf) * to_float(a),
]

_MAIN = r"""
#include <cstdio>
#include <cstring>
typedef long long number;
static void show(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, 8);
  std::printf("f%llx ", (unsigned long long)bits);
}
static void show(bool v) { std::printf("b%d ", int(v)); }
static void show(int64_t v) { std::printf("i%lld ", number(v)); }
static void show(number v) { show(int64_t(v)); }
template <class F> void value(F f) {
  try { show(f()); } catch (const std::exception&) { std::printf("error "); }
}
"""


def corpus(seed: int = 7, size: int = 300) -> list[Expr]:
    """The edge cases and a few hundred random expressions that have a C++ form."""
    found = list(EDGES)
    rng = random.Random(seed)
    while len(found) < size:
        make = rng.choice((int_text, int_text, bool_text, float_text))
        expr = fuzz_values.build(make(rng, rng.choice((1, 2, 3))))
        if expr is not None and not expr.is_constant:
            found.append(expr)
    return found


def assignments() -> list[dict[str, int]]:
    rng = random.Random(11)
    small = [{n: rng.randint(-12, 12) for n in NAMES} for _ in range(10)]
    return small + [{n: rng.randint(-60, 60) for n in NAMES} for _ in range(6)]


def compiled_values(exprs: list[Expr], values: list[dict[str, int]], folder: Path) -> list[str]:
    """One word for each assignment and expression, from one program compiled once."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    lines = [f"  value([=] {{ return {to_cpp(e)}; }});" for e in exprs]
    calls = [f"  all({', '.join(f'{v[n]}LL' for n in NAMES)});" for v in values]
    names = ", ".join(f"int64_t {n}" for n in NAMES)
    body = "\n".join([f"static void all({names}) {{", *lines, "}", "int main() {", *calls, "}"])
    source = folder / "values.cpp"
    source.write_text(CPP_PRELUDE + _MAIN + body)
    program = str(folder / "values")
    options = ["-std=c++17", "-O0", "-ffp-contract=off", "-ftrapv", "-Wall", "-Wextra", "-Werror"]
    unused = ["-Wno-unused-parameter", "-Wno-unused-function"]
    subprocess.run([compiler, *options, *unused, str(source), "-o", program], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()


def read(word: str) -> Any:
    kinds: dict[str, Callable[[str], Any]] = {
        "i": int,
        "b": lambda t: bool(int(t)),
        "f": lambda t: struct.unpack("<d", int(t, 16).to_bytes(8, "little"))[0],
    }
    return kinds[word[0]](word[1:])


def test_compiled_values_are_those_of_evaluate(tmp_path: Path) -> None:
    exprs, values = corpus(), assignments()
    words = compiled_values(exprs, values, tmp_path)
    assert len(words) == len(exprs) * len(values)
    compared = 0
    for i, numbers in enumerate(values):
        for expr, word in zip(exprs, words[i * len(exprs) :], strict=False):
            try:
                expected = evaluate(expr, {symbol(n): v for n, v in numbers.items()})
            except (ArithmeticError, ValueError):
                assert word == "error", f"{expr} at {numbers}: {word}"
                continue
            if word == "error" and fuzz_values.has_connective(expr):
                continue  # an operand that another one made irrelevant
            found = read(word)
            assert type(found) is type(expected), f"{expr} at {numbers}: {word}"
            # not by text: g++ 12 makes `0.0 - double(n)` the negation, which is -0.0 where n is 0
            assert fuzz_values.same(found, expected), f"{expr} at {numbers}: {to_cpp(expr)}"
            compared += 1
    assert compared > 3000


def test_prelude_names_are_not_symbols_of_the_caller() -> None:
    text = to_cpp(parse("floordiv + mod // 2"))
    assert text == "floordiv + stillframe::floordiv(mod, 2LL)"
