"""The commands from end to end: what they write, print, and how they exit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import stillframe
from stillframe.cli.app import app
from stillframe.cli.guarded import ExitCode

MODELS = """
import torch

class Scale(torch.nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)
        torch.nn.init.constant_(self.linear.weight, factor / 8)
        self.register_buffer("shift", torch.ones(4))

    def encode(self, x):
        return self.linear(x)

    def forward(self, x, mask=None, scale=1.0):
        y = torch.relu(self.linear(x)) * scale + self.shift
        return {"y": y if mask is None else y * mask, "sum": y.sum()}

class Picky(torch.nn.Module):
    def forward(self, x):
        if x.shape[0] > 100:
            return x + 1
        raise ValueError("too few rows")

def module(): return Scale()
def positional(): return Scale(), (torch.randn(3, 8),)
def keywords(): return Scale(), {"mask": torch.ones(3, 1), "x": torch.randn(3, 8)}
def other(): return Scale(factor=3.0), (torch.randn(3, 8),)
def picky(): return Picky(), (torch.randn(3, 8),)
def scripted(): return torch.jit.script(torch.nn.Linear(8, 2)), (torch.randn(3, 8),)
def fixed():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.view(3, 8) + 1
    return Fixed(), (torch.randn(3, 8),)
"""

DYNAMIC = "x=0:batch:1..64"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with ``models.py`` in it."""
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path
    sys.modules.pop("models", None)


def call(*arguments: str, exits: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == exits, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    return result


@pytest.fixture
def program(folder: Path) -> str:
    call("export", "models:positional", "-d", DYNAMIC, "-o", "m.still")
    return "m.still"


# -- export ---------------------------------------------------------------------------------------


def test_export_writes_a_program_and_a_table(folder: Path) -> None:
    result = call(
        "export", "models:positional", "--dynamic", DYNAMIC, "--verify", "2", "-o", "m.still"
    )
    for text in ("nodes", "batch 1..64", "export time", "verification", "m.still"):
        assert text in result.stdout
    module = stillframe.load(folder / "m.still").module()
    x = torch.randn(7, 8)
    sys.path.insert(0, str(folder))
    from models import Scale  # type: ignore[import-not-found]

    original = Scale()
    original.load_state_dict(stillframe.load(folder / "m.still").state_dict)
    torch.testing.assert_close(module(x)["y"], original(x)["y"])


def test_export_strict(folder: Path) -> None:
    call("export", "models:positional", "--strict", "--verify", "1", "-o", "m.still")
    assert (folder / "m.still").exists()


def test_export_of_torchscript(folder: Path) -> None:
    call("export", "models:scripted", "-d", "input=0:batch", "-o", "s.still", "--verify", "2")
    program = stillframe.load(folder / "s.still")
    assert program.module()(torch.randn(7, 8)).shape == (7, 2)
    refused = call(
        "export", "models:scripted", "--strict", "-o", "s.still", exits=ExitCode.USER_ERROR
    )
    assert "--strict is for Python" in refused.output


def test_export_of_keywords_with_one_dim_in_two_inputs() -> None:
    result = call("export", "models:keywords", "-d", DYNAMIC, "-d", "mask=0:batch", "-o", "m.still")
    assert "batch 1..64" in result.stdout


def test_export_with_a_relation() -> None:
    call(
        "export", "models:positional", "-d", DYNAMIC, "--assume", "batch % 3 == 0", "-o", "m.still"
    )
    text = call("explain", "m.still", "--about", "batch").stdout
    assert "x.size(0): 3*_batch" in text and "batch % 3 == 0   as assumed" in text
    result = call("explain", "m.still", "--about", "nothing", exits=ExitCode.USER_ERROR)
    assert "has no size called 'nothing'" in result.stderr


def test_export_with_open_sizes_prints_what_is_admitted() -> None:
    result = call("export", "models:positional", "-d", "auto", "-o", "m.still")
    assert "x_dim0 = Dim('x_dim0')\ndynamic_shapes = {'x': {0: x_dim0}}" in result.stdout
    assert "x.size(1): static, 8" in call("explain", "m.still").stdout


def test_export_with_inputs_from_a_file(folder: Path) -> None:
    safetensors.torch.save_file({"x": torch.randn(3, 8)}, folder / "in.safetensors")
    call("export", "models:module", "--inputs", "in.safetensors", "-d", DYNAMIC, "-o", "m.still")
    assert (folder / "m.still").is_file()


def test_a_module_without_inputs() -> None:
    result = call("export", "models:module", "-o", "m.still", exits=ExitCode.USER_ERROR)
    assert "models:module returned a module without example inputs." in result.stderr
    assert "--inputs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["models:positional", "-d", "x=0"], "expected ':' after the dim."),
        (["models:positional", "-d", "y=0:b"], "--dynamic names 'y', which is no input."),
        (["models:positional", "-d", "x=0:b:4.."], "x.size(0) is 3 in the example, outside"),
        (["models:nothing"], "models has no 'nothing'."),
        (["models:picky"], "The module raises ValueError on the example inputs: too few rows"),
        (["models:positional", "-o", "no/folder/m.still"], "there is no folder no/folder."),
    ],
)
def test_errors_of_the_user_are_one_panel(folder: Path, arguments: list[str], text: str) -> None:
    result = call("export", "-o", "m.still", *arguments, exits=ExitCode.USER_ERROR)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert text in result.stderr and "─ error ─" in result.stderr
    assert not list(folder.glob("**/*.still"))


def test_a_program_that_fixes_a_declared_dim(folder: Path) -> None:
    result = call("export", "models:fixed", "-d", DYNAMIC, "-o", "m.still", exits=2)
    assert "batch" in result.stderr and "fix" in result.stderr
    assert not (folder / "m.still").exists()


def test_traceback_on_request() -> None:
    result = call("export", "models:picky", "-o", "m.still", "--traceback", exits=2)
    assert "Traceback" in result.stderr and "too few rows" in result.stderr


def test_defects_of_ours_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a node was lost")

    monkeypatch.setattr(stillframe, "export", broken)
    result = call("export", "models:positional", "-o", "m.still", exits=ExitCode.INTERNAL_ERROR)
    assert "This is a defect of stillframe, not of your program." in result.stderr
    assert "a node was lost" in result.stderr


def test_usage_errors_and_help() -> None:
    assert "No such option" in call("export", "--bad", exits=ExitCode.USER_ERROR).stderr
    help_text = call("--help").stdout
    for command in ("export", "inspect", "run", "verify"):
        assert command in help_text
        assert "--traceback" in call(command, "--help").stdout
    assert stillframe.__version__ in call("--version").stdout


# -- inspect --------------------------------------------------------------------------------------


def test_inspect(program: str) -> None:
    text = call("inspect", program).stdout
    for part in (
        "program of Scale", "signature", "f32[batch, 8]", "dims", "sizes", "parameters",
        "36 in 2 tensors", "buffers", "operators", "aten.linear.default", "graph",
    ):  # fmt: skip
        assert part in text, f"{part!r} is not in:\n{text}"


def test_inspect_as_json(program: str, folder: Path) -> None:
    data = json.loads(call("inspect", program, "--json").stdout)
    assert data["inputs"] == [{"name": "x", "type": "f32[batch, 8]"}]
    assert data["dims"] == [{"name": "batch", "min": 1, "max": 64}]
    assert data["operators"]["aten.linear.default"] == 1
    assert data["parameters"] == {"tensors": 2, "elements": 36, "bytes": 144}
    assert data["file_bytes"] == (folder / program).stat().st_size


@pytest.mark.parametrize("command", ["inspect", "run", "verify"])
def test_files_that_are_no_programs(command: str, folder: Path) -> None:
    (folder / "foreign.still").write_bytes(b"PK\x03\x04 not one of ours")
    rest = {
        "inspect": [],
        "run": ["-i", "in.safetensors", "-o", "out.safetensors"],
        "verify": ["models:positional"],
    }[command]
    assert "─ error ─" in call(command, "foreign.still", *rest, exits=2).stderr
    assert "There is no file none.still." in call(command, "none.still", *rest, exits=2).stderr


# -- run and verify -------------------------------------------------------------------------------


def test_run(program: str, folder: Path) -> None:
    x = torch.randn(5, 8)
    safetensors.torch.save_file({"x": x}, folder / "in.safetensors")
    result = call("run", program, "--inputs", "in.safetensors", "--out", "out.safetensors")
    assert result.stdout.splitlines()[0] == "y: float32 (5, 4)"
    found = safetensors.torch.load_file(folder / "out.safetensors")
    want = stillframe.load(folder / program).module()(x)
    torch.testing.assert_close(found, {"y": want["y"], "sum": want["sum"]})


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({}, "missing: x"),
        ({"x": (3, 8), "z": (1,)}, "not an input: z"),
        ({"x": (65, 8)}, "x"),
        ({"x": (3, 9)}, "x"),
    ],
)
def test_run_with_wrong_inputs(
    program: str, folder: Path, tensors: dict[str, tuple[int, ...]], text: str
) -> None:
    made = {name: torch.zeros(shape) for name, shape in tensors.items()}
    safetensors.torch.save_file(made, folder / "in.safetensors")
    result = call("run", program, "-i", "in.safetensors", "-o", "out.safetensors", exits=2)
    assert text in result.stderr
    assert not (folder / "out.safetensors").exists()


def test_verify(program: str) -> None:
    result = call("verify", program, "models:other", "--samples", "1", exits=ExitCode.NOT_VERIFIED)
    assert "differs" in result.stderr


def test_verify_agrees(program: str) -> None:
    (Path(program).parent / "models.py").write_text(
        MODELS + "\nimport stillframe\n"
        "def same():\n"
        "    module = Scale()\n"
        "    module.load_state_dict(stillframe.load('m.still').state_dict)\n"
        "    return module, (torch.randn(3, 8),)\n"
    )
    sys.modules.pop("models", None)
    assert "agree" in call("verify", program, "models:same", "-n", "2").stdout


# -- several graphs and methods -------------------------------------------------------------------


@pytest.fixture
def several(folder: Path) -> str:
    sys.path.insert(0, str(folder))
    from models import Scale

    torch.manual_seed(0)
    model, x = Scale(), torch.randn(3, 8)
    large = {"x": {0: stillframe.Dim("batch", min=2)}}
    programs = stillframe.combine(
        stillframe.export(model, (x[:1],)),
        stillframe.export(model, (x,), dynamic_shapes=large),
        encode=stillframe.export(model.encode, (x,), dynamic_shapes=large),
    )
    stillframe.save(programs, folder / "s.still")
    return "s.still"


def test_inspect_names_methods_and_graphs(several: str) -> None:
    shown = call("inspect", several).stdout
    for text in (
        "programs of Scale",
        "forward, graph 1 of 2",
        "forward, graph 2 of 2  train  batch 2..",
        "encode",
        "f32[1, 8]",
        "f32[batch, 8]",
    ):
        assert text in shown
    found = json.loads(call("inspect", several, "--json").stdout)
    assert found["root_class"] == "Scale" and found["file_bytes"] > 0
    assert [len(graphs) for graphs in found["methods"].values()] == [2, 1]
    assert found["methods"]["encode"][0]["inputs"] == [{"name": "x", "type": "f32[batch, 8]"}]


def test_diff_goes_through_the_graphs(several: str, program: str) -> None:
    shown = call("diff", several, several).stdout
    assert "forward, graph 2 of 2:" in shown and "encode:" in shown
    shown = call("diff", several, program, exits=1).stdout
    assert "encode: only in s.still" in shown and "a single program: only in" in shown


def test_explain_goes_through_the_graphs(several: str) -> None:
    shown = call("explain", several).stdout
    assert "forward, graph 1 of 2:" in shown and "x.size(0): static, 1" in shown
    only = call("explain", several, "--about", "batch").stdout
    assert "graph 1" not in only and "graph 2" in only and "encode:" in only
    assert "nothing" in call("explain", several, "--about", "nothing", exits=2).stderr


def test_run_chooses_the_graph_and_the_method(folder: Path, several: str) -> None:
    module = stillframe.load(folder / several).module()
    for rows in (1, 3):
        x = torch.randn(rows, 8)
        safetensors.torch.save_file({"x": x}, folder / "in.safetensors")
        call("run", several, "-i", "in.safetensors", "-o", "out.safetensors")
        found = safetensors.torch.load_file(folder / "out.safetensors")
        torch.testing.assert_close(found["y"], module(x)["y"])
    call("run", several, "-i", "in.safetensors", "-o", "out.safetensors", "--method", "encode")
    found = safetensors.torch.load_file(folder / "out.safetensors")
    torch.testing.assert_close(found["output"], module.encode(x))
    result = call(
        "run", several, "-i", "in.safetensors", "-o", "o.safetensors", "--method", "no", exits=2
    )
    assert "no method 'no'" in result.stderr and "forward, encode" in result.stderr


def test_verify_goes_through_the_graphs(several: str) -> None:
    torch.manual_seed(0)
    shown = call("verify", several, "models:module", "--samples", "1").stdout
    assert "forward, graph 2 of 2: 2 samples agree" in shown and "encode: 2 samples" in shown
    shown = call("verify", several, "models:other", "--samples", "1", exits=1)
    assert "differs" in shown.stderr


# -- diff -----------------------------------------------------------------------------------------


def test_diff_of_a_program_and_itself(program: str) -> None:
    assert "the programs are the same" in call("diff", program, program).output


def test_diff_shows_what_differs_and_exits_with_1(program: str) -> None:
    call("export", "models:other", "-d", "x=0:batch:2..64", "-o", "other.still")
    result = call("diff", program, "other.still", exits=ExitCode.DIFFERENT)
    assert "1..64 -> 2..64" in result.output
    assert "linear.weight" in result.output and "32 of 32 values differ" in result.output
    assert "operators" not in result.output


def test_diff_of_a_file_that_is_no_program(program: str, folder: Path) -> None:
    (folder / "bad.still").write_bytes(b"nothing")
    call("diff", program, "bad.still", exits=2)
    call("diff", "missing.still", program, exits=2)
