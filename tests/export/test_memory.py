"""Which tensors overlap."""

from __future__ import annotations

import itertools
import random

import torch

from stillframe.export.memory import any_shared, laid_out, overlaps, share_memory


def test_every_tensor_that_overlaps_another_is_in_a_pair() -> None:
    rng = random.Random(0)
    for _ in range(200):
        base, other = torch.zeros(30), torch.zeros(30)
        tensors = []
        for _ in range(rng.randrange(2, 8)):
            begin = rng.randrange(30)
            length = rng.randrange(0, 30 - begin)
            tensors.append(rng.choice([base, other])[begin : begin + length])
        found = {id(t) for pair in overlaps(tensors) for t in pair}
        wanted = {
            id(t) for a, b in itertools.combinations(tensors, 2) if share_memory(a, b)
            for t in (a, b)
        }  # fmt: skip
        assert found == wanted
        for a, b in overlaps(tensors):
            assert share_memory(a, b)


def test_tensors_without_memory_overlap_nothing() -> None:
    meta = [torch.ones(3, device="meta") for _ in range(2)]
    assert list(overlaps([*meta, torch.ones(0), torch.ones(0)])) == []
    assert not any_shared((torch.ones(0),), (torch.ones(2),))


def test_any_shared() -> None:
    base = torch.zeros(4)
    assert any_shared((torch.ones(1), base[1:3]), (base[2:],))
    assert not any_shared((base[:2],), (base[2:],))


def test_laid_out_is_the_tensor_itself_where_it_is_in_order() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert laid_out(x, (1, 0)) is x
    turned = laid_out(x, (0, 1))
    assert turned.stride() == (1, 2) and torch.equal(turned, x)
