"""Bits of a symbolic integer and rounding to multiples, by division and modulus.

All of it follows Python's unbounded two's complement: ``n % 2**k`` are the last ``k`` bits of a
negative ``n`` too. The bits of a constant mask come in runs of ones and zeros, and the bits of
``n`` beside one run are ``n // 2**place % 2**length``; above the highest run it is
``n // 2**place``. So every result is a sum of parts whose ranges are plain to see.
"""

from __future__ import annotations

from collections.abc import Callable

from stillframe import symbolic as sym
from stillframe.symbolic import Expr

# What becomes of the bits of a run, given these bits and the number with all bits of the run set.
_Part = Callable[[Expr, int], Expr | int]


def _keep(bits: Expr, full: int) -> Expr | int:
    return bits


def _clear(bits: Expr, full: int) -> Expr | int:
    return 0


def _set(bits: Expr, full: int) -> Expr | int:
    return full


def _flip(bits: Expr, full: int) -> Expr | int:
    return sym.sub(full, bits)


def and_mask(value: Expr, mask: int) -> Expr:
    """``value & mask`` for a constant mask."""
    return _by_runs(value, mask, _clear, _keep)


def or_mask(value: Expr, mask: int) -> Expr:
    """``value | mask`` for a constant mask."""
    return _by_runs(value, mask, _keep, _set)


def xor_mask(value: Expr, mask: int) -> Expr:
    """``value ^ mask`` for a constant mask."""
    return _by_runs(value, mask, _keep, _flip)


def _by_runs(value: Expr, mask: int, zeros: _Part, ones: _Part) -> Expr:
    total: Expr = sym.const(0)
    place = 0
    while mask not in (0, -1):
        part = ones if mask & 1 else zeros
        length = _run_length(mask)
        bits = sym.mod(sym.floordiv(value, 2**place), 2**length)
        total = sym.add(total, sym.mul(part(bits, 2**length - 1), 2**place))
        mask >>= length
        place += length
    part = ones if mask else zeros
    return sym.add(total, sym.mul(part(sym.floordiv(value, 2**place), -1), 2**place))


def _run_length(mask: int) -> int:
    """How many of the last bits of ``mask`` are equal; it is neither 0 nor -1."""
    flipped = ~mask if mask & 1 else mask
    return (flipped & -flipped).bit_length() - 1


def round_to_even(value: Expr, unit: int) -> Expr:
    """The multiple of ``unit`` nearest to ``value``, the even one of two (as ``round(n, -1)``)."""
    below, rest = sym.floordiv(value, unit), sym.mod(value, unit)
    middle = sym.add(below, sym.mod(below, 2))
    up = sym.add(below, 1)
    twice = sym.mul(2, rest)
    nearest = sym.ite(sym.lt(twice, unit), below, sym.ite(sym.gt(twice, unit), up, middle))
    return sym.mul(nearest, unit)
