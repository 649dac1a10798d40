"""Bits of a symbolic integer and rounding to multiples, by division and modulus.

All of it follows Python's unbounded two's complement: ``n % 2**k`` are the last ``k`` bits of a
negative ``n`` too.
"""

from __future__ import annotations

from stillframe import symbolic as sym
from stillframe.symbolic import Expr


def and_mask(value: Expr, mask: int) -> Expr:
    """``value & mask`` for a constant mask: the sum over its runs of ones."""
    if mask < 0:  # the bits that the mask clears are finitely many
        return sym.sub(value, and_mask(value, ~mask))
    parts: list[Expr] = []
    place = 0
    while mask >> place:
        place += _trailing(mask >> place, 0)
        length = _trailing(mask >> place, 1)
        run = sym.mod(sym.floordiv(value, 2**place), 2**length)
        parts.append(sym.mul(run, 2**place))
        place += length
    return sym.add(*parts)


def _trailing(number: int, bit: int) -> int:
    """How many of the last bits of ``number`` (not negative) are ``bit``."""
    count = 0
    while number and (number & 1) == bit:
        number >>= 1
        count += 1
    return count


def or_mask(value: Expr, mask: int) -> Expr:
    """``value | mask``: what both have is counted once."""
    return sym.sub(sym.add(value, mask), and_mask(value, mask))


def xor_mask(value: Expr, mask: int) -> Expr:
    """``value ^ mask``: what both have is not counted."""
    return sym.sub(sym.add(value, mask), sym.mul(2, and_mask(value, mask)))


def round_to_even(value: Expr, unit: int) -> Expr:
    """The multiple of ``unit`` nearest to ``value``, the even one of two (as ``round(n, -1)``)."""
    below, rest = sym.floordiv(value, unit), sym.mod(value, unit)
    middle = sym.add(below, sym.mod(below, 2))
    up = sym.add(below, 1)
    twice = sym.mul(2, rest)
    nearest = sym.ite(sym.lt(twice, unit), below, sym.ite(sym.gt(twice, unit), up, middle))
    return sym.mul(nearest, unit)
