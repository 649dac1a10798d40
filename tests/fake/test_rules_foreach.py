"""Operators over lists of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error
from tests.fake.samples import Call
from tests.fake.sweep import grad_difference

from stillframe.fake.registry import RULES, load_rules

load_rules()
aten = torch.ops.aten

OVERLOADS = [op for op in RULES if str(op).startswith("aten._foreach_")]


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """Of several ranks and layouts, all with values that every operator takes."""
    made = (torch.rand(3), torch.rand(2, 5).t(), torch.rand(2, 3, 8)[..., ::2])
    return [(t * 0.8 + 0.1).to(dtype) for t in made]


def arguments(op: Any, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Arguments for an overload, by the types of its schema."""
    given: list[Any] = []
    for argument in op._schema.arguments:
        kind = str(argument.type)
        if kind == "List[Tensor]":
            given.append(tensors(dtype))
        elif kind == "List[number]":
            given.append([2.0, 1, 3])
        elif kind == "number" and not argument.kwarg_only:
            given.append(2)
        elif kind == "Tensor":
            given.append(torch.rand(3) if argument.name == "scalars" else torch.tensor(2.0))
    return given


@pytest.mark.parametrize("op", OVERLOADS, ids=str)
def test_every_element(op: Any) -> None:
    """Also where in-place operators change their lists; no guard in any case."""
    for dtype in (torch.float32, torch.bfloat16):
        assert not check(op, *arguments(op, dtype)).guards


def test_most_overloads_have_a_rule() -> None:
    assert len(OVERLOADS) > 120


MIXED = (
    aten._foreach_mul.List,
    aten._foreach_mul_.List,
    aten._foreach_addcdiv_.Scalar,
    aten._foreach_sqrt.default,
    aten._foreach_norm.Scalar,
)


@pytest.mark.parametrize("op", MIXED, ids=str)
def test_which_require_grad(op: Any) -> None:
    """All results if any argument does; of written elements those with such operands."""
    for which in (0, 1, 4):
        difference = grad_difference(op, Call.of(*arguments(op)), lambda i, w=which: i == w)
        assert difference is None, str(difference)


def test_lists_must_fit() -> None:
    two, three = tensors(torch.float32)[:2], tensors(torch.float32)
    assert "same number" in str(check_error(aten._foreach_add.List, two, three))
    assert "at least one" in str(check_error(aten._foreach_neg.default, []))
