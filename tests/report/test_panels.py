"""Errors as a person sees them."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from stillframe.errors import InternalError, StillframeError
from stillframe.report.panels import error_panel, internal_error_panel
from stillframe.report.tables import bytes_text


def shown(renderable: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=60)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return [line.strip("│╭╮╰╯─ ") for line in console.file.getvalue().splitlines()]


def test_what_at_why_fix_in_order() -> None:
    error = StillframeError(
        "x[0] cannot be [bold]captured[/].",
        why="it is a list",
        where=["model.py:3 in forward: y = x[0]", "          ^"],
        hints=["pass a tensor", "or two"],
    )
    assert shown(error_panel(error)) == [
        "error",
        "x[0] cannot be [bold]captured[/].",
        "",
        "at  model.py:3 in forward: y = x[0]",
        "^",
        "why it is a list",
        "fix pass a tensor",
        "fix or two",
        "",
    ]


def test_only_what() -> None:
    assert shown(error_panel(StillframeError("No."))) == ["error", "No.", ""]


def test_internal_errors_say_whose_defect_it_is() -> None:
    text = shown(internal_error_panel(InternalError("lost [a] node")))
    assert text[0] == "internal error"
    assert text[1] == "This is a defect of stillframe, not of your program."
    assert "what   InternalError: lost [a] node" in text
    assert any("--traceback" in line for line in text)


def test_bytes() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 90_868_376, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "90.9 MB",
        "3000.0 GB",
    ]
