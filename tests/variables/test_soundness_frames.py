"""The programs of ``test_soundness`` as frames: every call is equal to eager, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.corpora.soundness_programs import Case, run
from tests.corpora.test_soundness import CASES
from tests.variables.recapturing import Recapturing
from torch import nn


class AsFrames:
    """A module whose calls are captured frames; all else of it is its own."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._call = module, Recapturing(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture(autouse=True)
def modes_are_kept() -> Iterator[None]:
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    yield
    after = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
    assert before == after


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("item", CASES, ids=lambda item: item.name)
def test_never_wrong(item: Case) -> None:
    _, outcomes = run(item, lambda module, *_: AsFrames(module))
    assert not [outcome.text for outcome in outcomes if outcome.silent]
