"""Rich tables over the facts of a program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stillframe.report.facts import ProgramFacts, StateFacts, dim_facts

if TYPE_CHECKING:
    from stillframe.export.several import ProgramSet


def program_report(
    facts: ProgramFacts, *, file_bytes: int | None = None, title: str = ""
) -> RenderableType:
    """Everything about a program: what ``stillframe inspect`` prints."""
    title = title or f"program of {facts.root_class}"
    parts: list[RenderableType] = [Text(title, style="bold")]
    parts += [_section("signature", signature_table(facts))]
    if facts.dims:
        parts += [_section("dims", dims_table(facts))]
    if facts.guards:
        parts += [_section("guards", _lines(facts.guards))]
    parts += [_section("sizes", sizes_table(facts, file_bytes=file_bytes))]
    parts += [_section(f"operators ({facts.calls} calls)", operators_table(facts))]
    if facts.notes:
        parts += [_section("notes", _lines(facts.notes))]
    parts += [_section("graph", _lines(facts.graph))]
    return Group(*parts)


def methods_table(programs: ProgramSet, file_bytes: int) -> RenderableType:
    """The methods of several programs, and of each graph the mode and the dims."""
    table = _grid()
    for title, program in programs.titles().items():
        dims = ", ".join(str(dim) for dim in dim_facts(program))
        table.add_row(escape(title), "train" if program.training else "eval", escape(dims))
    table.add_row("file", "", bytes_text(file_bytes))
    heading = f"programs of {programs.root_class}"
    return Group(Text(heading, style="bold"), Padding(table, (0, 0, 0, 2)))


def signature_table(facts: ProgramFacts) -> Table:
    """Names and types of inputs and outputs."""
    table = _grid()
    for name, kind in facts.inputs:
        table.add_row("in", escape(name), escape(kind))
    for name, kind in facts.outputs:
        table.add_row("out", escape(name), escape(kind))
    return table


def dims_table(facts: ProgramFacts) -> Table:
    """Dynamic dims with their ranges."""
    table = _grid()
    for dim in facts.dims:
        high = "no limit" if dim.max is None else str(dim.max)
        table.add_row(escape(dim.name), f"{'' if dim.min is None else dim.min}", "to", high)
    return table


def operators_table(facts: ProgramFacts, limit: int = 15) -> Table:
    """Operators with the number of calls, most frequent first."""
    table = _grid(justify_first="right")
    for name, count in list(facts.operators.items())[:limit]:
        table.add_row(str(count), escape(name))
    if len(facts.operators) > limit:
        table.add_row("", f"... and {len(facts.operators) - limit} more")
    return table


def sizes_table(facts: ProgramFacts, *, file_bytes: int | None = None) -> Table:
    """Nodes, and what the program carries."""
    table = _grid()
    table.add_row("nodes", f"{facts.nodes:,}", "")
    for name in ("parameters", "buffers", "constants"):
        state: StateFacts = getattr(facts, name)
        if state.tensors:
            many = "tensor" if state.tensors == 1 else "tensors"
            counted = f"{state.elements:,} in {state.tensors} {many}"
            table.add_row(name, counted, bytes_text(state.bytes))
    if file_bytes is not None:
        table.add_row("file", "", bytes_text(file_bytes))
    return table


def summary_table(
    facts: ProgramFacts,
    *,
    export_seconds: float | None = None,
    verification: str | None = None,
    file_name: str = "",
    file_bytes: int | None = None,
) -> Table:
    """The few lines at the end of an export."""
    table = Table(show_header=False, title=f"program of {facts.root_class}", title_justify="left")
    table.add_row("nodes", f"{facts.nodes:,} ({facts.calls:,} operator calls)")
    table.add_row("dynamic dims", escape("\n".join(map(str, facts.dims)) or "none"))
    if facts.guards:
        table.add_row("guards", escape("\n".join(facts.guards)))
    if export_seconds is not None:
        table.add_row("export time", f"{export_seconds:.2f} s")
    if verification is not None:
        table.add_row("verification", escape(verification))
    if file_bytes is not None:
        table.add_row("file", f"{escape(file_name)} {bytes_text(file_bytes)}".strip())
    return table


def bytes_text(count: int) -> str:
    """``90.9 MB``, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _grid(justify_first: str = "left") -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right" if justify_first == "right" else "left")
    return table


def _section(title: str, content: RenderableType) -> RenderableType:
    return Group(Text(""), Text(title, style="bold cyan"), Padding(content, (0, 0, 0, 2)))


def _lines(lines: Iterable[str]) -> Text:
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
