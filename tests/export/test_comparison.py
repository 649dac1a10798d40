"""What differs between two programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import stillframe as sf
from stillframe.export.program import ExportedProgram


class Net(torch.nn.Module):
    def __init__(self, activation: Callable[..., Any] = F.gelu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(8, 8)
        self.second = torch.nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(8))
        self.activation = activation

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> Any:
        y = self.second(self.activation(self.first(x)))
        return y * weight + self.seen, {"w": weight + 1}


def program_of(module: torch.nn.Module, name: str = "b", **bounds: int) -> ExportedProgram:
    args = torch.randn(5, 8), torch.randn(8)
    dims = {"x": {0: sf.Dim(name, **bounds)}, "weight": None}
    return sf.export(module.eval(), args, dynamic_shapes=dims)


def texts(diff: sf.ProgramDiff, title: str) -> list[str]:
    return [str(change) for change in diff.sections.get(title, [])]


def test_two_exports_of_one_module_are_the_same(tmp_path: Path) -> None:
    program = program_of(Net())
    again = sf.compare(program, program_of(Net()))
    assert again.same and not again and str(again) == "the programs are the same"
    sf.save(program, tmp_path / "p.still")
    assert sf.compare(program, sf.load(tmp_path / "p.still")).same
    core = program.run_decompositions()
    assert sf.compare(core, core.run_decompositions()).same


def test_names_of_nodes_do_not_count() -> None:
    program = program_of(Net())
    renamed = sf.replace_pattern(program, lambda x: F.gelu(x), lambda x: F.gelu(x))
    assert "gelu_1" in str(renamed)
    assert sf.compare(program, renamed).same


def test_another_operator() -> None:
    diff = sf.compare(program_of(Net()), program_of(Net(F.relu)))
    assert diff and not diff.same
    assert texts(diff, "operators") == ["- aten.gelu.default: 1", "+ aten.relu.default: 1"]
    removed, added = diff.graph
    assert removed.text == "gelu: f32[b, 8] = aten.gelu.default(linear)"
    assert added.sign == "+" and added.text.startswith("relu: f32[b, 8] = aten.relu.default")
    assert removed.line.startswith("test_comparison.py:")
    assert list(diff.sections) == ["operators", "graph"]


def test_module_paths_of_nodes() -> None:
    without = Net()
    without.first.register_parameter("bias", None)
    diff = sf.compare(program_of(Net()), program_of(without))
    assert [(c.sign, c.path) for c in diff.graph] == [("-", "first"), ("+", "first")]
    assert texts(diff, "state") == ["- first.bias: parameter float32[8] on cpu"]


def test_values_of_state() -> None:
    module = Net()
    before = program_of(module)
    changed = Net()
    with torch.no_grad():
        changed.first.weight[0, 0] += 2
        changed.seen[3] = float("nan")
    diff = sf.compare(before, program_of(changed))
    assert list(diff.sections) == ["state"]
    first, second = texts(diff, "state")
    assert first == "~ first.weight: parameter float32[8, 8] on cpu -> " \
        "1 of 64 values differ, by up to 2"  # fmt: skip
    assert "1 of 8 values differ, by up to nan" in second
    assert sf.compare(program_of(changed), program_of(changed)).same


def test_inputs_and_their_conditions() -> None:
    base = program_of(Net())
    wider = sf.export(
        Net().eval(), (torch.randn(5, 8).double().float(), torch.randn(1)),
        dynamic_shapes={"x": {0: sf.Dim("b", min=2, max=9)}, "weight": None},
    )  # fmt: skip
    diff = sf.compare(base, wider)
    assert texts(diff, "inputs") == ["~ weight: f32[8] -> f32[1]"]
    assert texts(diff, "conditions") == ["~ b: 0.. -> 2..9"]
    assert texts(diff, "outputs") == ["~ output 1: f32[8] -> f32[1]"]
    assert not diff.graph  # only the types follow
    renamed = sf.compare(base, program_of(Net(), "batch"))
    assert texts(renamed, "inputs") == ["~ x: f32[b, 8] -> f32[batch, 8]"]
    assert not renamed.graph


def test_guards_and_assumptions() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    x = torch.randn(4)
    b = sf.Dim("b")
    free = sf.export(forward, (x,), dynamic_shapes={"x": {0: b}})
    even = sf.export(forward, (x,), dynamic_shapes={"x": {0: b}}, assume=["b % 2 == 0"])
    diff = sf.compare(free, even)
    assert texts(diff, "conditions") == ["+ condition: b % 2 == 0"]

    def asks(x: torch.Tensor) -> torch.Tensor:
        return x + (1 if x.is_contiguous() else 2)

    asking = sf.compare(free, sf.export(asks, (x,), dynamic_shapes={"x": {0: b}}))
    (text,) = texts(asking, "conditions")
    assert text.startswith("+ condition: x: is_contiguous()")


def test_other_operands_of_the_same_operators() -> None:
    def one(x: torch.Tensor) -> Any:
        a, b = torch.sin(x), torch.cos(x)
        return torch.sub(a, b)

    def other(x: torch.Tensor) -> Any:
        a, b = torch.sin(x), torch.cos(x)
        return torch.sub(b, a)

    def swapped(x: torch.Tensor) -> Any:
        a, b = torch.sin(x), torch.cos(x)
        torch.sub(a, b)
        return a

    x = torch.randn(3)
    diff = sf.compare(sf.export(one, (x,)), sf.export(other, (x,)))
    assert [(c.sign, c.text.partition(":")[0]) for c in diff.graph] == [("~", "sub")]
    assert list(diff.sections) == ["graph"]
    both = [
        sf.export(lambda x: (torch.sin(x), torch.cos(x)), (x,)),
        sf.export(lambda x: (torch.sin(x), torch.cos(x))[::-1], (x,)),
    ]
    assert [str(c) for c in sf.compare(*both).outputs] == [
        "~ output 0: sin -> cos",
        "~ output 1: cos -> sin",
    ]
    inputs = [sf.export(lambda x, y: x - y, (x, x)), sf.export(lambda x, y: y - x, (x, x))]
    assert len(sf.compare(*inputs).graph) == 2
    assert sf.compare(sf.export(one, (x,)), sf.export(swapped, (x,)))


def test_dialect_mode_and_written_state() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x * self.count

    program = sf.export(Counting(), (torch.randn(3),))
    diff = sf.compare(program, program.run_decompositions())
    assert texts(diff, "form") == ["~ dialect: training -> core"]
    assert "+ buffer_mutation count: f32[]" in texts(diff, "outputs")
    evaluated = sf.export(Counting().eval(), (torch.randn(3),))
    assert texts(sf.compare(program, evaluated), "form") == ["~ mode: training -> evaluation"]


def test_branches_are_compared() -> None:
    def choose(step: float) -> Any:
        def forward(x: torch.Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda t: t + step, lambda t: t - 1, (x,))

        return sf.export(forward, (torch.randn(3),))

    assert sf.compare(choose(1.0), choose(1.0)).same
    diff = sf.compare(choose(1.0), choose(2.0))
    assert [change.sign for change in diff.graph] == ["-", "+"]


def test_only_programs_are_compared() -> None:
    with pytest.raises(sf.InvalidInput, match="got Net"):
        sf.compare(program_of(Net()), Net())  # type: ignore[arg-type]
