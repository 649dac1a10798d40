"""pkg.module:factory on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stillframe.cli.factory import make
from stillframe.errors import InvalidInput, StillframeError

FACTORIES = """
import torch
linear = torch.nn.Linear(4, 2)
x = torch.zeros(3, 4)
number = 3
def alone(): return linear
def single(): return (linear,)
def with_args(): return linear, (x,)
def with_both(): return linear, (), {"input": x}
def with_none(): return linear, (x,), None
def with_kwargs(): return linear, {"input": x}
def with_tensor(): return linear, x
def with_text(): return "text"
def needs(size): return linear
def broken():
    return helper()
def helper():
    raise RuntimeError("no weights")
class Space:
    made = staticmethod(alone)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder with ``factories.py``, and nothing of it left behind."""
    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "wants.py").write_text("import not_installed_anywhere")
    (tmp_path / "wrong.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("factories", "wants", "wrong"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["linear", "alone", "single", "Space.made"])
def test_only_a_module(name: str) -> None:
    made = make(f"factories:{name}")
    assert isinstance(made.module, torch.nn.Linear) and made.args is None


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("with_args", 1, []),
        ("with_none", 1, []),
        ("with_both", 0, ["input"]),
        ("with_kwargs", 0, ["input"]),
    ],
)
def test_module_and_inputs(name: str, args: int, kwargs: list[str]) -> None:
    made = make(f"factories:{name}")
    assert made.args is not None
    assert (len(made.args), list(made.kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("factories", "'factories' does not name a factory."),
        (":alone", "':alone' does not name a factory."),
        ("nowhere:f", "There is no module 'nowhere'."),
        ("factories.sub:f", "There is no module 'factories.sub'."),
        ("factories:alon", "factories has no 'alon'.(.*)did you mean 'alone'?"),
        ("factories:number", "factories:number is no function: int."),
        ("factories:with_text", "factories:with_text returned str."),
        (
            "factories:with_tensor",
            "returned (Linear, Tensor).(.*)args a tuple",
        ),
        ("factories:needs", "factories:needs raised TypeError: needs() missing 1 required"),
        ("wants:f", "Importing wants failed: No module named 'not_installed_anywhere'"),
        ("wrong:f", "Importing wrong raised ZeroDivisionError"),
    ],
)
def test_errors(target: str, text: str) -> None:
    with pytest.raises(StillframeError) as raised:
        make(target)
    at = 0
    for part in text.split("(.*)"):
        at = str(raised.value).find(part, at)
        assert at >= 0, f"{part!r} is not in:\n{raised.value}"


def test_the_users_lines() -> None:
    with pytest.raises(StillframeError) as raised:
        make("factories:broken")
    assert raised.value.what == "factories:broken raised RuntimeError: no weights"
    assert [line.partition(" in ")[2] for line in raised.value.where] == [
        "broken: return helper()",
        'helper: raise RuntimeError("no weights")',
    ]


def test_our_own_errors_pass_through(tmp_path: Path) -> None:
    (tmp_path / "factories.py").write_text("import stillframe as sf\ndef f(): sf.Dim('')")
    with pytest.raises(InvalidInput, match="must be an identifier"):
        make("factories:f")
