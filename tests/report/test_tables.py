"""What a person reads about a program."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console, RenderableType

import stillframe as sf
from stillframe.report.facts import DimFacts, ProgramFacts, StateFacts, program_facts
from stillframe.report.tables import operators_table, program_report, sizes_table, summary_table

NOTHING = StateFacts(0, 0, 0)


def facts(**changes: Any) -> ProgramFacts:
    given: dict[str, Any] = {
        "root_class": "Net",
        "inputs": [("x", "f32[batch, 8]")],
        "outputs": [("relu", "f32[batch, 8]")],
        "dims": [DimFacts("batch", 1, 64), DimFacts("2*batch", 2, None)],
        "guards": [],
        "nodes": 1234,
        "operators": {"aten.relu.default": 2, "aten.add.Tensor": 1},
        "parameters": StateFacts(2, 1_000_000, 4_000_000),
        "buffers": StateFacts(1, 8, 32),
        "constants": NOTHING,
        "notes": [],
        "graph": ["x: f32[batch, 8]", "return [relu]"],
    }
    return ProgramFacts(**{**given, **changes})


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(" ".join(line.split()) for line in console.file.getvalue().splitlines())


def test_summary() -> None:
    text = shown(
        summary_table(
            facts(),
            export_seconds=1.234,
            verification="3 samples agree",
            file_name="net.still",
            file_bytes=4_100_000,
        )
    )
    for line in (
        "program of Net",
        "│ nodes │ 1,234 (3 operator calls) │",
        "│ dynamic dims │ batch 1..64 │",
        "│ │ 2*batch 2.. │",
        "│ export time │ 1.23 s │",
        "│ verification │ 3 samples agree │",
        "│ file │ net.still 4.1 MB │",
    ):
        assert line in text, f"{line!r} is not in:\n{text}"


def test_summary_leaves_out_what_is_not_known() -> None:
    text = shown(summary_table(facts(dims=[])))
    assert "dynamic dims │ none" in text
    for word in ("time", "verification", "file", "guards"):
        assert word not in text


def test_sizes() -> None:
    assert shown(sizes_table(facts(), file_bytes=10)).splitlines() == [
        "nodes 1,234",
        "parameters 1,000,000 in 2 tensors 4.0 MB",
        "buffers 8 in 1 tensor 32 B",
        "file 10 B",
    ]


def test_operators_are_cut() -> None:
    many = {f"aten.op{i}.default": 20 - i for i in range(20)}
    lines = shown(operators_table(facts(operators=many), limit=2)).splitlines()
    assert lines == ["20 aten.op0.default", "19 aten.op1.default", "... and 18 more"]


def test_report_has_guards_and_notes_only_where_there_are_some() -> None:
    assert "guards" not in shown(program_report(facts()))
    text = shown(program_report(facts(guards=["batch <= 7"], notes=["[x] was assumed"])))
    assert "guards\nbatch <= 7" in text
    assert "notes\n[x] was assumed" in text


class Net(torch.nn.Module):
    """Tied parameters, both kinds of buffers, and a constant among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8, bias=False)
        self.second = torch.nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.ones(8))
        self.register_buffer("scratch", torch.ones(8), persistent=False)

    def forward(self, x: torch.Tensor, flag: bool) -> Any:
        y = torch.relu(self.second(torch.relu(self.first(x)))) + self.kept * self.scratch
        return y, 3


@pytest.fixture(scope="module")
def found() -> ProgramFacts:
    batch = sf.Dim("batch", min=1, max=64)
    program = sf.export(Net().eval(), (torch.randn(3, 8), True), dynamic_shapes={"x": {0: batch}})
    return program_facts(program, graph_limit=3)


def test_facts_of_a_program(found: ProgramFacts) -> None:
    assert found.inputs == [("x", "f32[batch, 8]"), ("flag", "True")]
    assert [kind for _, kind in found.outputs] == ["f32[batch, 8]", "3"]
    assert found.dims == [DimFacts("batch", 1, 64)]
    assert found.operators["aten.linear.default"] == found.operators["aten.relu.default"] == 2
    assert list(found.operators.values()) == sorted(found.operators.values(), reverse=True)
    assert len(found.graph) == 4 and found.graph[-1] == "..."


def test_tied_parameters_are_counted_once(found: ProgramFacts) -> None:
    assert found.parameters == StateFacts(tensors=1, elements=64, bytes=256)
    assert found.buffers == StateFacts(tensors=2, elements=16, bytes=64)
    assert found.constants == NOTHING


def test_facts_as_json(found: ProgramFacts) -> None:
    data = found.as_json()
    assert data["inputs"][0] == {"name": "x", "type": "f32[batch, 8]"}
    assert data["dims"] == [{"name": "batch", "min": 1, "max": 64}]
