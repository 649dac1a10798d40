"""Which fake mode is in force."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.fake.detect import active_fake_mode, detect_fake_mode
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.trace.recorder import RecordingMode


def fake_of(mode: FakeMode) -> FakeTensor:
    return FakeTensor.make(mode.env, (2,), (1,), 0, torch.float32, torch.device("cpu"))


def recording(mode: FakeMode | None, **more: Any) -> RecordingMode:
    """A dispatch mode whose operators ``mode`` answers."""
    return RecordingMode(SimpleNamespace(fake_mode=mode, **more))  # type: ignore[arg-type]


@pytest.mark.spec("4.63")
def test_each_place_tells() -> None:
    mode = FakeMode(ShapeEnv())
    assert detect_fake_mode() is None and detect_fake_mode([1, torch.ones(1)]) is None
    assert detect_fake_mode({"a": [1, (fake_of(mode),)]}) is mode
    with tracing(TracingContext(mode)):
        assert detect_fake_mode() is mode and detect_fake_mode([fake_of(mode)]) is mode
    with tracing(TracingContext(None)):
        assert detect_fake_mode() is None
    with recording(mode):
        assert detect_fake_mode() is mode
        with tracing(TracingContext(mode)):
            assert detect_fake_mode([fake_of(mode)]) is mode


@pytest.mark.spec("4.63")
def test_two_modes_are_an_error_that_names_both() -> None:
    first, second = FakeMode(ShapeEnv()), FakeMode(ShapeEnv())
    with tracing(TracingContext(first)):
        with pytest.raises(InternalError) as caught:
            detect_fake_mode([1, fake_of(first), fake_of(second)])
        with pytest.raises(InternalError, match="dispatch mode 0"), recording(second):
            detect_fake_mode()
    message = str(caught.value)
    assert "the tracing context" in message and "leaf 2 of the inputs" in message
    assert message.count("test_detect.py") == 2  # where each was made
    with pytest.raises(InternalError, match="leaf 0 .* leaf 1"):
        detect_fake_mode([fake_of(first), fake_of(second)])


@pytest.mark.spec("4.63", "4.64")
def test_the_innermost_dispatch_mode_is_first() -> None:
    outer, inner = FakeMode(ShapeEnv()), FakeMode(ShapeEnv())
    assert active_fake_mode() is None
    with recording(outer):
        assert active_fake_mode() is outer
        with recording(inner):
            assert active_fake_mode() is inner
            with pytest.raises(InternalError, match="mode 0, .* mode 1, "):
                detect_fake_mode()
        with recording(inner, runs_on=None):  # real kernels answer
            assert active_fake_mode() is outer
    with tracing(TracingContext(outer)):
        assert active_fake_mode() is None


@pytest.mark.spec("4.64")
def test_a_trace_has_an_active_fake_mode() -> None:
    import stillframe

    seen: list[Any] = []

    def f(x: torch.Tensor) -> torch.Tensor:
        seen.append((active_fake_mode(), detect_fake_mode([x])))
        return x + 1

    stillframe.make_fx(f, tracing_mode="symbolic")(torch.ones(2))
    ((active, detected),) = seen
    assert isinstance(active, FakeMode) and active is detected
    assert active_fake_mode() is None
