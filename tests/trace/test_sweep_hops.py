"""A sample of the sweep over torch's higher-order operators: every entry in one mode."""

from __future__ import annotations

import warnings

import pytest
from tests.trace.sweep_hops import EXPECTATIONS, check_entry
from tests.trace.sweep_make_fx import name_of, read_expectations, surprises
from torch.testing._internal.hop_db import hop_db


@pytest.mark.parametrize("info", hop_db, ids=name_of)
def test_an_entry(info: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = check_entry(info, "symbolic")
    assert outcomes and not surprises(outcomes, "float32", EXPECTATIONS)


def test_expectations_name_entries() -> None:
    names = {name_of(info) for info in hop_db}
    assert {op.partition(":")[0] for op, _, _ in read_expectations(EXPECTATIONS)} <= names
