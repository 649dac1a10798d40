"""The usage hook: events of exports, for those who listen."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe import usage
from stillframe.usage import Event

X = torch.ones(3)


def branch(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


@pytest.mark.spec("2.18")
def test_an_export_tells_how_it_began_and_ended() -> None:
    events: list[Event] = []
    with usage.listening(events.append):
        sf.export(lambda x: x + 1, (X,))
        sf.export(lambda x: x + 1, (X,), strict=True)
    sf.export(lambda x: x + 1, (X,))
    assert [e.name for e in events] == ["export.enter", "export.time"] * 2
    assert [e.flags for e in events[::2]] == [
        ("non_strict", "pre_dispatch"), ("strict", "pre_dispatch"),
    ]  # fmt: skip
    assert events[0].seconds is None
    assert events[1].seconds is not None and events[1].seconds > 0


@pytest.mark.spec("2.18")
def test_an_error_is_told_and_raised() -> None:
    events: list[Event] = []

    def bad(x: torch.Tensor) -> Any:
        return x if x.sum() > 0 else -x

    with usage.listening(events.append):
        with pytest.raises(sf.DataDependentError) as raised:
            sf.export(bad, (X,))
        sf.export(lambda x: x + 1, (X,))
    assert [e.name for e in events] == [
        "export.enter",
        "export.error",
        "export.enter",
        "export.time",
    ]
    assert events[1].error == "stillframe.errors.DataDependentError"
    assert events[1].message == str(raised.value)


@pytest.mark.spec("2.19")
def test_the_statistics_count_subgraphs_too() -> None:
    events: list[Event] = []
    with usage.listening(events.append):
        sf.export(branch, (X,))
    done = events[-1]
    assert done.operators["aten.add.Tensor"] == done.operators["aten.sub.Tensor"] == 1
    assert {"aten.sum.default", "aten.gt.Scalar", "cond"} <= done.op_set
    assert done.op_count == sum(done.operators.values()) >= 5


def test_events_are_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "exports.jsonl"
    with usage.writing(path):
        sf.export(lambda x: x + 1, (X,))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["export.enter", "export.time"]
    assert rows[1]["operators"] == {"aten.add.Tensor": 1}


def test_nobody_listens_afterwards() -> None:
    with pytest.raises(RuntimeError, match="stop"), usage.listening(print):
        raise RuntimeError("stop")
    assert usage._listeners == ()
    with pytest.raises(ValueError, match="not in list"):
        usage.remove_listener(print)
