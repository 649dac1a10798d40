"""A continued environment knows what was known, assumes nothing more, and repeats names."""

from __future__ import annotations

import pytest

import stillframe as sf
from stillframe.shapes.continued import ContinuedEnv
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Range


def test_facts_stay_and_none_is_added() -> None:
    env = ShapeEnv()
    size = env.new_symbol("batch", 4, Range(2, 64))
    env.freeze()
    again = ContinuedEnv(env)
    assert again.evaluate(size >= 2) is True
    assert again.evaluate(size < 2) is False
    with pytest.raises(sf.NotSupported, match="is open in this program"):
        again.evaluate(size > 10)
    assert not again.guards


def test_planned_symbols_come_first_and_in_order() -> None:
    env = ShapeEnv()
    first, second = env.new_unbacked(), env.new_unbacked()
    env.freeze()
    again = ContinuedEnv(env)
    again.plan([second, first])
    assert again.new_unbacked() is second
    assert again.new_unbacked(sort="float") not in (first, second)
    assert again.new_unbacked() is first
    assert str(again.new_unbacked()) not in {str(first), str(second)}
