"""A sample of the sweep over torch's own operator samples; all: ``python -m tests.fake.sweep``."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.fake.samples import LAYOUTS, OPERATORS
from tests.fake.sweep import expectations, run, surprises

# Every so many operators, so that a layout takes a few seconds; another first one for each.
STEPS = {"given": 10, "reversed": 30, "sliced": 30, "shifted": 30, "channels_last": 30}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rules_agree_with_the_kernels(layout: str) -> None:
    """A few samples of some operators in all dtypes."""
    threads = torch.get_num_threads()
    first = list(LAYOUTS).index(layout)
    try:
        with warnings.catch_warnings():
            report = run(list(OPERATORS)[first :: STEPS[layout]], layouts=(layout,), limit=2)
    finally:
        torch.set_num_threads(threads)
    assert len(report.calls) > 15
    unexpected = surprises(report, expectations())
    assert not unexpected, "\n".join(map(str, unexpected))
