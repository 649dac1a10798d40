"""Which tensors of numbers are made by operators, and which by torch as ever."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Range
from stillframe.trace.literals import of_symbols


def size() -> torch.SymInt:
    env = ShapeEnv()
    made: torch.SymInt = env.wrap(env.new_symbol("n", 7, Range(0, 100)))
    return made


@pytest.mark.parametrize("data", [3, 2.5, True, [1, 2], [], [[1], [2]], "a", None, torch.ones(2)])
def test_known_numbers_are_left_to_torch(data: Any) -> None:
    assert of_symbols(torch.tensor, (data,), {}) is None


def test_what_operators_cannot_make_is_left_to_torch() -> None:
    n = size()
    assert of_symbols(torch.tensor, (n,), {"requires_grad": True}) is None
    assert of_symbols(torch.tensor, ([n, torch.ones(1)],), {}) is None
    assert of_symbols(torch.tensor, ([n, "a"],), {}) is None
    assert of_symbols(torch.tensor, ([n, []],), {}) is None
    assert of_symbols(torch.as_tensor, (n, torch.int32), {}) is None  # an option by position
