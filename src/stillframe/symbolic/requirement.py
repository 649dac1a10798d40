"""What a condition on one symbol asks of it: for suggesting a spec that a guard admits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from stillframe.symbolic.arith import linear
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import Range


@dataclass(frozen=True)
class Requirement:
    """What a boolean expression over one symbol says of it; exactly one field tells it.

    Attributes:
        symbol: the symbol.
        range: it lies in this range.
        multiple_of: ``(k, r)``: it is ``r`` modulo ``k``.
        equals: it is this number.
    """

    symbol: Expr
    range: Range | None = None
    multiple_of: tuple[int, int] | None = None
    equals: int | None = None


def requirement(expr: Expr) -> Requirement | None:
    """What ``expr`` requires of its only symbol; None if it says something else.

    Understood are linear comparisons, ``(a*s + b) % k == r``, comparisons of
    ``(a*s + b) // k`` with a constant, and conjunctions that come to one range. The requirement is
    equivalent to ``expr``.
    """
    if expr.sort != "bool" or len(expr.free_symbols) != 1:
        return None
    if expr.op == "and":
        return _conjunction(expr)
    if expr.diff is None:
        return None
    terms, constant = linear(expr.diff)
    if len(terms) != 1:
        return None
    ((mono, c),) = terms.items()
    rule = _RULES.get((expr.op, mono.op))
    return None if rule is None else rule(mono, c, constant)


def _conjunction(expr: Expr) -> Requirement | None:
    parts = [requirement(a) for a in expr.args]
    total = Range()
    for part in parts:
        if part is None or part.range is None:
            return None
        try:
            total = total.intersect(part.range)
        except ValueError:
            return None
    (symbol,) = expr.free_symbols
    if total.is_single:
        return Requirement(symbol, equals=int(total.lower))
    return Requirement(symbol, range=total)


def _between(node: Expr, low: float, high: float) -> Requirement | None:
    """``low <= node <= high`` for a linear ``node`` of one symbol."""
    terms, constant = linear(node)
    if len(terms) != 1:
        return None
    ((symbol, c),) = terms.items()
    if symbol.op != "symbol" or low > high:
        return None
    if c < 0:
        c, constant, low, high = -c, -constant, -high, -low
    lower = low if low == -math.inf else -(-(low - constant) // c)
    upper = high if high == math.inf else (high - constant) // c
    if lower > upper:
        return None
    if lower == upper:
        return Requirement(symbol, equals=int(lower))
    return Requirement(symbol, range=Range(lower, upper))


def _bounded(mono: Expr, c: int, constant: int) -> Requirement | None:
    """``c * s + constant <= 0``; the normal form leaves no floor-division here."""
    if c > 0:
        return _between(mono, -math.inf, -constant // c)
    return _between(mono, -(-constant // -c), math.inf)


def _equal(mono: Expr, c: int, constant: int) -> Requirement | None:
    return _between(mono, -constant // c, -constant // c)


def _quotient(mono: Expr, c: int, constant: int) -> Requirement | None:
    """``x // n == q``."""
    x, n = mono.args
    q = -constant // c
    return _between(x, q * n.value, q * n.value + n.value - 1) if n.is_constant else None


def _remainder(mono: Expr, c: int, constant: int) -> Requirement | None:
    """``x % n == r``."""
    x, n = mono.args
    r = -constant // c
    return _congruence(x, n.value, r) if n.is_constant else None


def _odd(mono: Expr, c: int, constant: int) -> Requirement | None:
    """``x % 2 != r``: there is only one other remainder."""
    x, n = mono.args
    r = -constant // c
    if n.is_constant and n.value == 2 and r in (0, 1):
        return _congruence(x, 2, 1 - r)
    return None


def _congruence(x: Expr, n: int, r: int) -> Requirement | None:
    """``a*s + b = r`` modulo ``n``, solved for ``s``."""
    terms, b = linear(x)
    if len(terms) != 1 or not 0 <= r < n:
        return None
    ((symbol, a),) = terms.items()
    g = math.gcd(a, n)
    if symbol.op != "symbol" or (r - b) % g:
        return None
    k = n // g
    if k == 1:
        return None
    return Requirement(symbol, multiple_of=(k, (r - b) // g * pow(a // g, -1, k) % k))


_RULES: dict[tuple[str, str], Callable[[Expr, int, int], Requirement | None]] = {
    ("le", "symbol"): _bounded,
    ("lt", "symbol"): _bounded,
    ("eq", "symbol"): _equal,
    ("eq", "floordiv"): _quotient,
    ("eq", "mod"): _remainder,
    ("ne", "mod"): _odd,
}
