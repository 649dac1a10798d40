"""Quotients of sizes in float scalars: ``torch.ceil((length - kernel) / stride + 1)``.

A float does not hold ``a / b``, only a number near to it. But where the numbers are small, it lies
between the same integers, and is an integer exactly where ``a / b`` is one. So its floor and its
ceiling are those of the quotient, which are expressions in sizes.

Why: with at most ``_STEPS`` operations, each correctly rounded to 24 bits or more, on numbers of at
most ``_LARGEST / b``, the error is less than ``_STEPS * _LARGEST / b / 2**24 < 1 / b``. A quotient
that is no integer is at least that far from every integer. One that is an integer is a float, and
only integers are added, so that nothing is rounded at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import symbolic as sym
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr, unwrap

aten = torch.ops.aten

_LARGEST = 2**20
_STEPS = 8
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Ratio:
    """``above / below``, and how often it was rounded.

    Attributes:
        above: an integer, or an expression of that sort.
        below: a positive integer.
        steps: the number of operations behind it.
    """

    above: int | Expr
    below: int
    steps: int


def quotient(result: FakeTensor, a: Any, b: Any) -> Ratio | None:
    """``a / b`` of integers."""
    if isinstance(a, Ratio) or type(b) is not int or b <= 0:
        return None
    if not _divides_exactly(result.device, b):
        return None
    return _if_small(result, Ratio(a, b, 1)) if b <= _LARGEST else None


def _divides_exactly(device: torch.device, b: int) -> bool:
    """Other devices may multiply by the inverse, which is exact for powers of two."""
    return device.type == "cpu" or b & (b - 1) == 0


def total(result: FakeTensor, a: Any, b: Any, *, alpha: Any = 1) -> Ratio | None:
    """``a + alpha * b``, one of them a ratio."""
    if isinstance(b, Ratio):
        return total(result, b, a) if alpha == 1 else None
    if not isinstance(a, Ratio) or alpha not in (1, -1):
        return None
    above = unwrap(sym.add(a.above, sym.mul(b, alpha * a.below)))
    return _if_small(result, Ratio(above, a.below, a.steps + 1))


def difference(result: FakeTensor, a: Any, b: Any, *, alpha: Any = 1) -> Ratio | None:
    """``a - b``, the first a ratio."""
    return total(result, a, b, alpha=-1) if alpha == 1 and not isinstance(b, Ratio) else None


def floor(result: FakeTensor, a: Any) -> Ratio | None:
    """The integer below."""
    if not isinstance(a, Ratio):
        return None
    return _if_small(result, Ratio(unwrap(sym.floordiv(a.above, a.below)), 1, a.steps))


def ceiling(result: FakeTensor, a: Any) -> Ratio | None:
    """The integer above."""
    if not isinstance(a, Ratio):
        return None
    below = sym.floordiv(sym.neg(a.above), a.below)
    return _if_small(result, Ratio(unwrap(sym.neg(below)), 1, a.steps))


def as_integer(result: FakeTensor, a: Ratio) -> int | Expr | None:
    """What a cast to integers gives, which goes towards zero."""
    if a.below == 1:
        return a.above
    if result.env.facts.decide(sym.ge(a.above, 0)) is True:
        below: int | Expr = unwrap(sym.floordiv(a.above, a.below))
        return below
    return None


def _if_small(result: FakeTensor, ratio: Ratio) -> Ratio | None:
    small = sym.and_(sym.ge(ratio.above, -_LARGEST), sym.le(ratio.above, _LARGEST))
    if ratio.steps > _STEPS or result.dtype not in _DTYPES:
        return None
    return ratio if result.env.facts.decide(small) is True else None


#: Operators with float results.
RULES: dict[Any, Callable[..., Ratio | None]] = {
    aten.div.Tensor: quotient,
    aten.true_divide.Tensor: quotient,
    aten.add.Tensor: total,
    aten.sub.Tensor: difference,
    aten.detach.default: lambda result, a: a if isinstance(a, Ratio) else None,
    aten.floor.default: floor,
    aten.ceil.default: ceiling,
}
