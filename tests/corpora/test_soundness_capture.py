"""The soundness corpus through ``capture``: a graph of torch functions never differs in silence."""

from __future__ import annotations

from typing import Any

import pytest
from tests.corpora.soundness_programs import Case, Export, run
from tests.corpora.test_soundness import CASES
from torch import nn

import stillframe as sf


def _by_capture(level: str) -> Any:
    def make(mod: nn.Module, args: Any, kwargs: Any, dims: Any) -> nn.Module:
        spec = None if dims is None else dims(sf.Dim)
        return sf.capture(mod, args, kwargs, dynamic_shapes=spec, level=level)

    return make


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("item", [c for c in CASES if not c.unsound], ids=lambda c: c.name)
def test_program(item: Case) -> None:
    """What export refuses to capture is refused; the rest never differs in silence."""
    for level in ("torch", "aten") if len(item.name) % 4 == 0 else ("torch",):
        error, outcomes = run(item, _by_capture(level))
        silent = [f"call {i}: {o.kind}: {o.text}" for i, o in enumerate(outcomes) if o.silent]
        assert not silent
        if isinstance(item.verdict, Export):
            assert type(error).__name__ == item.verdict.error, error
