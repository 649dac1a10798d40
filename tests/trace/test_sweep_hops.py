"""A sample of the sweep over torch's higher-order operators: every entry in one mode."""

from __future__ import annotations

import warnings

import pytest
from tests.trace.sweep_hops import EXPECTATIONS, NOT_RUNNABLE, check_entry, eager_refuses
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


@pytest.mark.parametrize("entry", NOT_RUNNABLE)
def test_eager_refuses_what_is_not_counted(entry: str) -> None:
    name, _, kind = entry.partition(":")
    (info,) = [i for i in hop_db if name_of(i) == name]
    assert eager_refuses(info, kind)
