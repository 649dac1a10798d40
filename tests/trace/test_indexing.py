"""Which parts of an index become selects, and what is left for torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stillframe.trace.indexing import select_first

X = torch.arange(24.0).reshape(2, 3, 4)
K = torch.tensor(1)
MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("index", "rest"),
    [
        (K, ...),
        ((K, K), ...),
        ((slice(None), K), (slice(None),)),
        ((..., K), (...,)),
        ((None, K, 0), (None, 0)),
        ((K, ..., K), (...,)),
        ((True, K), (True,)),
        ((K, MASK), (MASK,)),
        ((slice(0, 1), MASK, K), (slice(0, 1), MASK)),
        ((torch.tensor([0, 1]), K), None),
        (([0, 1], K), ([0, 1],)),
        ((torch.ones(2, 3, dtype=torch.bool), K), None),
    ],
)
def test_unknown_integers_are_selected(index: Any, rest: Any) -> None:
    view, left = select_first(X, index)
    if rest is not None:
        assert type(left) is type(rest) and str(left) == str(rest)
    number = tuple(1 if part is K else part for part in index) if index is not K else 1
    assert torch.equal(view[left], X[number])
    assert view.data_ptr() >= X.data_ptr() and view.storage_offset() > 0


@pytest.mark.parametrize(
    "index",
    [
        0,
        slice(1),
        (0, slice(None)),
        torch.tensor([0, 1]),
        torch.tensor(True),
        torch.tensor(1, dtype=torch.uint8),
        MASK,
        (K, K, K, K),
        ([[True, False, True], [True, True, True]], K),
        (K, "a"),
    ],
    ids=str,
)
def test_the_rest_is_left_to_torch(index: Any) -> None:
    tensor, same = select_first(X, index)
    assert tensor is X and same is index
