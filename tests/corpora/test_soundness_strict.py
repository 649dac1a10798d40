"""The programs of ``test_soundness`` under strict capture: equal or refused, never wrong.

What is still wrong is an expected failure there and here, and must fail.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.corpora.soundness_programs import Case, run
from tests.corpora.test_soundness import CASES
from torch import nn

import stillframe as sf


def _marked(item: Case) -> Any:
    wrong = item.unsound and not item.seen_strictly
    marks = pytest.mark.xfail(strict=True, reason=item.unsound) if wrong else ()
    return pytest.param(item, id=item.name, marks=marks)


def strictly(mod: nn.Module, args: Any, kwargs: Any, dims: Any) -> nn.Module:
    spec = None if dims is None else dims(sf.Dim)
    return sf.export(mod, args, kwargs, dynamic_shapes=spec, strict=True).module()


@pytest.mark.parametrize("item", [_marked(item) for item in CASES])
def test_never_wrong(item: Case) -> None:
    _, outcomes = run(item, strictly)
    assert not [outcome.text for outcome in outcomes if outcome.silent]
