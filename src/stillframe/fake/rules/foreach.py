"""Operators over lists of tensors: the same operator for every element.

Optimizers and the clipping of gradients are made of these. Each is answered by the rule of the
operator for one tensor, called with the elements of the lists at one position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stillframe.fake import gradients
from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES, rule
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten

_ONE_LIST = (
    "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 "
    "neg reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc zero"
).split()

# By operator: the overload for lists, and the operator and overload for one tensor. All of them
# have forms that write, too.
_ARITHMETIC = {"Scalar": "Scalar", "List": "Tensor", "ScalarList": "Scalar", "Tensor": "Tensor"}
_BOUND = {"Scalar": "default", "List": "Tensor", "ScalarList": "default"}
_ALL_DEFAULT = {"Scalar": "default", "ScalarList": "default", "Tensor": "default"}
_WITH_OPERANDS: Mapping[str, Mapping[str, str]] = {
    "add": _ARITHMETIC,
    "sub": {k: v for k, v in _ARITHMETIC.items() if k != "Tensor"},
    "mul": _ARITHMETIC,
    "div": _ARITHMETIC,
    "clamp_min": _BOUND,
    "clamp_max": _BOUND,
    "lerp": {"List": "Tensor", "Scalar": "Scalar", "ScalarList": "Scalar"},
    "addcdiv": _ALL_DEFAULT,
    "addcmul": _ALL_DEFAULT,
}


def _of_elements(overload: Any, base: Any, *, factor: bool = False) -> None:
    """Register the rule of one overload for lists.

    Args:
        overload: the operator over lists.
        base: the operator for one tensor.
        factor: the last operand, which the base takes by name, is ``value``.
    """
    writes = gradients.writes_first(base)

    @rule(overload)
    def each(ctx: RuleContext, *args: Any, **kwargs: Any) -> Any:
        """One call for each element."""
        count = _length(overload, args)
        if factor:
            args, kwargs = args[:3], {"value": 1}
        results = []
        for i in range(count):
            given = [a[i] if isinstance(a, list) else a for a in args]
            results.append(RULES[base](ctx, *given, **kwargs))
            if writes and ctx.requires_grad and _any_requires_grad(given):
                gradients.written(base, given[0])
        return None if writes else results


def _any_requires_grad(values: list[Any]) -> bool:
    return any(isinstance(v, FakeTensor) and v.requires_grad for v in values)


def _length(overload: Any, args: tuple[Any, ...]) -> int:
    """How many elements the lists have.

    Raises:
        RuntimeError: as eager, none or not all the same number.
    """
    lengths = {len(a) for a in args if isinstance(a, list)}
    if 0 in lengths:
        raise RuntimeError(f"{overload}: Tensor list must have at least one tensor.")
    if len(lengths) != 1:
        raise RuntimeError(f"{overload}: Tensor lists must have the same number of tensors.")
    return int(lengths.pop())


def _both_forms(name: str, overload: str, base: str, base_overload: str, **how: Any) -> None:
    for form in ("", "_"):
        of_lists = getattr(getattr(aten, f"_foreach_{name}{form}"), overload)
        _of_elements(of_lists, getattr(getattr(aten, base + form), base_overload), **how)


for _name in _ONE_LIST:
    _both_forms(_name, "default", _name, "default")
for _name, _overloads in _WITH_OPERANDS.items():
    for _overload, _base in _overloads.items():
        _both_forms(_name, _overload, _name, _base, factor=_name.startswith("addc"))
for _name, _bound in (("maximum", "clamp_min"), ("minimum", "clamp_max")):
    for _overload in ("Scalar", "ScalarList"):
        _both_forms(_name, _overload, _bound, "default")
    _both_forms(_name, "List", _bound, "Tensor")
for _overload, _base in (("Scalar", "Scalar"), ("ScalarList", "Scalar"), ("List", "Tensor")):
    _of_elements(getattr(aten._foreach_pow, _overload), getattr(aten.pow, f"Tensor_{_base}"))
    _of_elements(getattr(aten._foreach_pow_, _overload), getattr(aten.pow_, _base))
_of_elements(aten._foreach_pow.ScalarAndTensor, aten.pow.Scalar)
_of_elements(aten._foreach_max.default, aten.max.default)
_of_elements(aten._foreach_copy_.default, aten.copy_.default)
_of_elements(aten._foreach_clone.default, aten.clone.default)


@rule(aten._foreach_norm.Scalar)
def foreach_norm(
    ctx: RuleContext, tensors: list[FakeTensor], ord: Any = 2, dtype: torch.dtype | None = None
) -> list[FakeTensor]:
    """The norm of all elements of each tensor."""
    norm = RULES[aten.linalg_vector_norm.default]
    _length(aten._foreach_norm.Scalar, (tensors,))
    return [norm(ctx, t, ord, None, False, dtype=dtype) for t in tensors]
