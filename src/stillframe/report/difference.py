"""What differs between two programs, as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stillframe.export.surgery.comparison import Change, NodeChange, ProgramDiff

_STYLES = {"-": "red", "+": "green", "~": "yellow"}


def difference_report(diff: ProgramDiff) -> RenderableType:
    """One section for each part of the programs that differs: what ``stillframe diff`` prints."""
    if diff.same:
        return Text("the programs are the same")
    parts: list[RenderableType] = []
    for title, changes in diff.sections.items():
        table = Table.grid(padding=(0, 2))
        for change in changes:
            table.add_row(*_row(change))
        parts += [Text(title, style="bold cyan"), Padding(table, (0, 0, 0, 2))]
    return Group(*parts)


def _row(change: Change | NodeChange) -> list[Text]:
    """Sign, what it is about, and how it is and was."""
    if isinstance(change, NodeChange):
        place = ", ".join(part for part in (change.path, change.line) if part)
        cells = [change.sign, change.text, place]
    else:
        before, after = change.before, change.after
        sign = "~" if before and after else "-" if before else "+"
        cells = [sign, change.what, f"{before} -> {after}" if sign == "~" else before or after]
    style = _STYLES[cells[0]]
    return [Text(cells[0], style=style), Text(cells[1], overflow="fold"), Text(cells[2], "dim")]
