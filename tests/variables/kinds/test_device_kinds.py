"""Streams and events in a captured frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.tracked import kinds_of

import stillframe as sf
from stillframe.variables import FrameCapture, capture_frame
from stillframe.variables.kinds import devices


def row() -> torch.Tensor:
    return torch.arange(3.0)


def targets(capture: FrameCapture) -> list[str]:
    """What the nodes of the graph call, in order."""
    nodes = capture.graph_module.graph.nodes
    return [
        node.target if isinstance(node.target, str) else node.target.__name__
        for node in nodes
        if node.op in ("call_function", "call_method")
    ]


@pytest.mark.spec("5.70", "5.71", "5.111", "5.112")
def test_work_on_streams_is_ordered_by_nodes() -> None:
    stream, event = torch.cpu.Stream(), torch.cpu.Event()

    def work(stream: Any, event: Any, x: torch.Tensor) -> Any:
        y = x + 1
        event.record(stream)
        stream.wait_event(event)
        later = stream.record_event()
        return y * 2, event.query(), later, stream

    capture = agrees(work, lambda: (stream, event, row()))
    assert targets(capture) == ["add.Tensor", "record", "wait_event", "record_event", "mul.Tensor"]
    found = guards_of(capture)
    assert "ID_MATCH L['stream']" in found and "ID_MATCH L['event']" in found
    kinds = kinds_of(work, (stream, event, row()))
    assert kinds["L['stream']"] == "StreamVariable"
    assert kinds["L['event']"] == "EventVariable"
    assert "L['stream']" in refuses(capture, torch.cpu.Stream(), event, row())
    assert "L['event']" in refuses(capture, stream, torch.cpu.Event(), row())


@pytest.mark.spec("5.69")
def test_a_block_makes_its_stream_current() -> None:
    stream = torch.cpu.Stream()
    block = torch.cpu.stream(stream)

    def inside(block: Any, x: torch.Tensor) -> Any:
        with block:
            y = x + 1
        return y * 2

    capture = agrees(inside, lambda: (block, row()))
    assert targets(capture) == ["enter_stream", "add.Tensor", "leave_stream", "mul.Tensor"]
    found = guards_of(capture)
    assert "ID_MATCH L['block']" in found and "ID_MATCH L['block'].stream" in found
    kinds = kinds_of(inside, (block, row()))
    assert kinds["L['block']"] == "StreamContextVariable"
    assert kinds["L['block'].stream"] == "StreamVariable"
    assert "ID_MATCH" in refuses(capture, torch.cpu.stream(stream), row())
    block.stream = torch.cpu.Stream()
    assert "L['block'].stream" in refuses(capture, block, row())


@pytest.mark.spec("5.69")
def test_the_graph_runs_its_work_in_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = torch.cpu.Stream()

    def inside(x: torch.Tensor) -> Any:
        with torch.cpu.stream(stream):
            return x + 1

    capture = capture_frame(inside, (row(),))
    entered = []
    enter = torch.cpu.StreamContext.__enter__

    def watched(self: Any) -> None:
        entered.append(self.stream)
        enter(self)

    monkeypatch.setattr(torch.cpu.StreamContext, "__enter__", watched)
    before = torch.cpu.current_stream()
    torch.testing.assert_close(capture(row()), row() + 1)
    assert entered == [stream]
    assert torch.cpu.current_stream() is before


@pytest.mark.spec("5.109", "5.110")
def test_streams_and_events_of_the_frame_are_made_anew() -> None:
    def make(x: torch.Tensor) -> Any:
        stream, event = torch.cpu.Stream(), torch.cpu.Event()
        with torch.cpu.stream(stream):
            y = x + 1
            event.record()
        return y, stream, event

    capture = agrees(make, lambda: (row(),))
    assert targets(capture)[:2] == ["Stream", "Event"]
    _, stream, event = capture(row())
    _, again, _ = capture(row())
    assert type(stream) is torch.cpu.Stream and type(event) is torch.cpu.Event
    assert stream is not again


@pytest.mark.spec("5.109")
def test_the_current_stream_is_asked_for_and_relied_on() -> None:
    def ask(x: torch.Tensor) -> Any:
        current = torch.cpu.current_stream()
        current.wait_stream(current)
        return x + 1, current

    capture = agrees(ask, lambda: (row(),))
    assert targets(capture) == ["current_stream", "wait_stream", "add.Tensor"]
    with torch.cpu.stream(torch.cpu.Stream()):
        failure = capture.failure(row())
        assert failure is not None and "CURRENT_STREAM" in str(failure)
    unasked = capture_frame(lambda x: x + 1, (row(),))
    with torch.cpu.stream(torch.cpu.Stream()):
        assert unasked.failure(row()) is None


@pytest.mark.spec("5.70", "5.109")
def test_a_stream_with_numbers_is_rebuilt_from_them() -> None:
    stream = torch.Stream("cpu")

    def wait(stream: torch.Stream, x: torch.Tensor) -> Any:
        return x + 1, stream.stream_id, stream

    agrees(wait, lambda: (stream, row()))
    rebuilt = devices.stream_from_ids(
        "torch", "Stream", stream.stream_id, stream.device_index, stream.device_type
    )
    assert rebuilt == stream
    assert devices.StreamVariable(stream).device == torch.device("cpu")


class _Slow(torch.cpu.Event):
    """An event of a device where work takes time."""

    device = torch.device("meta")

    def query(self) -> bool:
        return False


@pytest.mark.spec("5.111")
def test_whether_work_is_done_is_a_constant_only_where_it_always_is() -> None:
    _Slow.__module__ = "torch.slow"
    with pytest.raises(sf.FrameError, match="whether the work before an event is done"):
        capture_frame(lambda event, x: (event.query(), x + 1), (_Slow(), row()))
