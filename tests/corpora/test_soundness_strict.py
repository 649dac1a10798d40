"""The programs of ``test_soundness`` under strict capture: equal or refused, never wrong.

Strict capture sees side effects of Python that non-strict capture cannot, so fewer are wrong. What
is still wrong is an expected failure there and here, and must fail.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.corpora.soundness_programs import Case, run
from tests.corpora.test_soundness import CASES
from torch import nn

import stillframe as sf

#: Wrong without ``strict``, refused with it.
SEEN = {
    "a global counter", "a counter in a global dict", "a counter on the class",
    "a counter in a closure", "a list in a dict", "a deque", "an object's attribute",
    "a cache object",
}  # fmt: skip


def _marked(item: Case) -> Any:
    still = item.unsound and item.name not in SEEN
    marks = pytest.mark.xfail(strict=True, reason=item.unsound) if still else ()
    return pytest.param(item, id=item.name, marks=marks)


def strictly(mod: nn.Module, args: Any, kwargs: Any, dims: Any) -> nn.Module:
    spec = None if dims is None else dims(sf.Dim)
    return sf.export(mod, args, kwargs, dynamic_shapes=spec, strict=True).module()


@pytest.mark.parametrize("item", [_marked(item) for item in CASES])
def test_never_wrong(item: Case) -> None:
    _, outcomes = run(item, strictly)
    assert not [outcome.text for outcome in outcomes if outcome.silent]


def test_the_list_names_programs() -> None:
    assert {item.name for item in CASES if item.unsound} >= SEEN
