"""Filling a tensor with random numbers of a distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, dense_like, refuse_overlap
from stillframe.fake.rules.pointwise import overloads
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.symbolic import Expr

aten = torch.ops.aten
Valid = Callable[..., Expr | bool]


def _fill(names: str, valid: Valid, message: str, *, complex_too: bool = False) -> None:
    """Register the operators named: the parameters must be ``valid``, the tensor floating.

    ``valid`` takes the parameters by position, with the defaults of the operator.
    """

    def check(x: FakeTensor, ctx: RuleContext, *parameters: Any) -> None:
        if not (x.dtype.is_floating_point or (complex_too and x.dtype.is_complex)):
            raise RuntimeError(f"random numbers of this kind are not of dtype {x.dtype}")
        must(ctx, valid(*parameters), message)

    for op in overloads(names):
        written = op._schema.arguments[0].alias_info is not None
        rule(op)(_written(check) if written else _copied(check))


def _written(check: Callable[..., None]) -> Callable[..., FakeTensor]:
    def fill_(
        ctx: RuleContext, x: FakeTensor, *parameters: Any, generator: Any = None, **named: Any
    ) -> FakeTensor:
        """All elements are written."""
        check(x, ctx, *parameters, *named.values())
        refuse_overlap(x)
        return x

    return fill_


def _copied(check: Callable[..., None]) -> Callable[..., FakeTensor]:
    def fill(
        ctx: RuleContext, x: FakeTensor, *parameters: Any, generator: Any = None, **named: Any
    ) -> FakeTensor:
        """The functional form."""
        check(x, ctx, *parameters, *named.values())
        return dense_like(ctx, x)

    return fill


def _ordered(low: Any = 0.0, high: Any = 1.0) -> Expr | bool:
    return low <= high  # type: ignore[no-any-return]


def _second_positive(first: Any = 0.0, second: Any = 1.0) -> Expr | bool:
    return second > 0  # type: ignore[no-any-return]


def _second_not_negative(first: Any = 0.0, second: Any = 1.0) -> Expr | bool:
    return second >= 0  # type: ignore[no-any-return]


def _positive(rate: Any = 1.0) -> Expr | bool:
    return rate > 0  # type: ignore[no-any-return]


_fill(
    "uniform uniform_",
    _ordered,
    "uniform_ expects to return a [from, to) range",
    complex_too=True,
)
_fill("cauchy cauchy_", _second_positive, "cauchy_ expects sigma > 0.0")
_fill("log_normal log_normal_", _second_positive, "log_normal_ expects std > 0.0")
_fill("exponential exponential_", _positive, "exponential_ expects lambda > 0.0")
_fill(
    "normal_functional normal_", _second_not_negative, "normal expects std >= 0.0", complex_too=True
)


@rule(aten.geometric_.default)
def geometric_(ctx: RuleContext, x: FakeTensor, p: Any, *, generator: Any = None) -> FakeTensor:
    if x.dtype is torch.bool or x.dtype.is_complex:
        raise RuntimeError(f"geometric_ is not implemented for dtype {x.dtype}")
    must(ctx, p > 0, f"geometric_ expects p to be in (0, 1), but got p={p}")
    must(ctx, p < 1, f"geometric_ expects p to be in (0, 1), but got p={p}")
    refuse_overlap(x)
    return x


@rule(aten.geometric.default)
def geometric(ctx: RuleContext, x: FakeTensor, p: Any, *, generator: Any = None) -> FakeTensor:
    return dense_like(ctx, geometric_(ctx, x, p))


@rule(aten._standard_gamma.default, aten._sample_dirichlet.default)
def of_parameters(ctx: RuleContext, x: FakeTensor, generator: Any = None) -> FakeTensor:
    """One sample for each parameter, in rows."""
    return contiguous(ctx, x.sizes, x.dtype, x.device)
