"""A sample of the sweep over torch's own operator samples; all: ``python -m tests.fake.sweep``."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.fake.sweep import run

# Overload -> why its rule may differ from the kernel.
EXPECTED = {
    "aten.stack.default": "where dims of size 1 leave the memory format open, the kernel may "
    "choose row-major",
    "aten.ldexp.Tensor": "strides depend on the dtypes where both operands broadcast and one of "
    "them is permuted",
}


@pytest.mark.parametrize(
    ("layout", "step"), (("given", 2), ("reversed", 3), ("sliced", 6), ("channels_last", 6))
)
def test_rules_agree_with_the_kernels(layout: str, step: int) -> None:
    """A few samples of every ``step``-th operator, in four memory layouts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run((torch.float32, torch.int64), 4, part=(1, step), layout=layout)
    finally:
        torch.set_num_threads(threads)
    assert len(found.calls) > 60
    surprises = {k: v[0] for k, v in found.failures.items() if k not in EXPECTED}
    assert not surprises, "\n".join(f"{k}: {v}" for k, v in surprises.items())
