"""``stillframe.comptime``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.variables.checking import guards_of
from tests.variables.kinds.watching import X, x

import stillframe as sf
from stillframe.variables import (
    capture_frame,
)


@pytest.mark.spec("5.21")
def test_comptime_looks_at_the_capture(capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def step(x: torch.Tensor, n: int, unused: int) -> Any:
        y = x.relu() * n

        @sf.comptime
        def _(context: Any) -> None:
            seen["graph"], seen["guards"] = context.graph(), context.guards()
            seen["locals"], seen["stack"] = context.locals(), context.stack()
            context.print_graph()

        sf.comptime(lambda context: seen.setdefault("calls", []).append(y.shape[0]))
        sf.comptime.print_guards()
        sf.comptime.print_locals()
        sf.comptime.print_stack()
        return y

    capture = capture_frame(step, (x(), 3, 5))
    out = capsys.readouterr().out
    assert "relu" in seen["graph"] and seen["graph"] in out
    assert "CONSTANT_MATCH L['n']" in seen["guards"] and "CONSTANT_MATCH L['n']" in out
    assert "LazyVariableTracker" in seen["locals"]["unused"]
    assert "TensorVariable" in seen["locals"]["x"] and "y" in seen["locals"]
    assert "in step" in seen["stack"][-1] and "in step" in out
    assert seen["calls"] == [3]
    assert not any("unused" in guard for guard in guards_of(capture))
    assert not any("comptime" in guard for guard in guards_of(capture))
    torch.testing.assert_close(capture(x(), 3, 6), X.relu() * 3)
    assert capsys.readouterr().out == "" and seen["calls"] == [3]


@pytest.mark.spec("5.21")
def test_comptime_does_nothing_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert sf.comptime(lambda context: 1 / 0) is None
    sf.comptime.print_graph()
    assert capsys.readouterr().out == ""


@pytest.mark.spec("5.21")
def test_comptime_of_a_context_that_fails_is_the_programs_error() -> None:
    with pytest.raises(ZeroDivisionError):
        capture_frame(lambda x: sf.comptime(lambda context: 1 / 0), (x(),))
