"""Seeded fuzzing of the normal form: Python's own arithmetic is the oracle.

A random Python expression is built twice: by Python on random numbers, and by the constructors on
symbols. The values must agree wherever Python has one (negative operands included), text must read
back to the identical object, and substituting some symbols first must change nothing.

Run ``python -m tests.symbolic.fuzz_values --cases 200000 --seed 1`` for a long one.
"""

from __future__ import annotations

import argparse
import math
import random
from typing import Any

from tests.symbolic.generate import NAMES, bool_text, float_text, int_text

from stillframe import symbolic as sym
from stillframe.symbolic import Expr

_SYMBOLS = {name: sym.symbol(name) for name in NAMES}


def python_value(text: str, numbers: dict[str, int]) -> Any:
    """The value Python gives, or None where it raises."""
    try:
        result = eval(text, {"math": math, **numbers})
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return None if isinstance(result, complex) else result


def build(text: str) -> Expr | None:
    """The expression of ``text``; None if it divides by the constant zero."""
    try:
        return sym.parse(text)
    except ValueError as error:
        if isinstance(error.__cause__, (ArithmeticError, ValueError)) or "math domain" in str(
            error
        ):
            return None
        raise


def check_case(seed: int) -> None:
    """One random expression, six assignments."""
    rng = random.Random(seed)
    make = rng.choice((int_text, int_text, int_text, bool_text, float_text))
    text = make(rng, rng.choice((1, 2, 3, 4)))
    node = build(text)
    if node is None:
        return
    printed = sym.to_python(node)
    assert sym.parse(printed) is node, f"# seed {seed}\nparse({text!r})  # prints {printed!r}"
    for _ in range(6):
        numbers = {
            name: rng.choice((rng.randint(-12, 12), rng.randint(-100, 100))) for name in NAMES
        }
        expected = python_value(text, numbers)
        if expected is None:
            continue
        question = f"evaluate(parse({text!r}), {numbers})"
        context = f"# seed {seed}\n{question}  # {printed}, expected {expected!r}"
        values = {_SYMBOLS[name]: v for name, v in numbers.items()}
        found = sym.evaluate(node, values)
        assert same(found, expected), f"{context}, got {found!r}"
        again = python_value(printed, numbers)  # may raise: operands of and/or are reordered
        assert same(again, expected) or (again is None and has_connective(node)), (
            f"{context}, text differs"
        )
        some = {s: v for s, v in values.items() if rng.random() < 0.5}
        try:
            partly = sym.substitute(node, some)
        except (ZeroDivisionError, OverflowError, ValueError):
            continue  # a branch that is not taken
        assert same(sym.evaluate(partly, values), expected), f"{context}, substituted {partly}"


def has_connective(node: Expr) -> bool:
    """Whether ``and`` or ``or`` occurs in ``node``."""
    return node.op in ("and", "or") or any(
        has_connective(a) for a in node.args if isinstance(a, Expr)
    )


def same(a: Any, b: Any) -> bool:
    """Equal values of one type; NaN equals itself. An int in place of a float is let pass."""
    if isinstance(a, float) and isinstance(b, (int, float)):
        return a == b or (a != a and b != b)
    return type(a) is type(b) and bool(a == b)


def main() -> None:
    """Command line: ``--cases`` expressions from ``--seed`` on."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sympy", action="store_true", help="simplification, sympy as the oracle")
    options = parser.parse_args()
    check = check_case
    if options.sympy:
        from tests.symbolic.oracle_sympy import check_simplified as check
    for seed in range(options.seed, options.seed + options.cases):
        check(seed)
    print(f"seeds {options.seed}..{options.seed + options.cases - 1}: all agree")


if __name__ == "__main__":
    main()
