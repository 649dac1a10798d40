"""Errors as one panel: what, where, why, and what to change."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stillframe.errors import StillframeError


def error_panel(error: StillframeError) -> Panel:
    """A user's error: the fields of ``error``, each where it is expected."""
    table = _rows()
    if error.where:
        lines = Text("\n".join(error.where), style="dim", no_wrap=True, overflow="fold")
        table.add_row("at", lines)
    if error.why:
        table.add_row("why", Text(error.why))
    for hint in error.hints:
        table.add_row("fix", Text(hint, style="green"))
    parts: list[RenderableType] = [Text(error.what, style="bold")]
    if table.row_count:
        parts += [Text(""), table]
    return Panel(Group(*parts), title="error", title_align="left", border_style="red")


def internal_error_panel(error: BaseException) -> Panel:
    """A defect of stillframe: says so, and how to report it."""
    table = _rows()
    table.add_row("what", Text(f"{type(error).__name__}: {error}"))
    table.add_row("report", Text("send us what the same command prints with --traceback,"))
    table.add_row("", Text("and the versions that stillframe --version prints"))
    text = Text("This is a defect of stillframe, not of your program.", style="bold")
    return Panel(
        Group(text, Text(""), table), title="internal error", title_align="left", border_style="red"
    )


def _rows() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table
