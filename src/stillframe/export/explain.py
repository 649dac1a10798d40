"""Why each size of a program is as it is: ``program.explain()``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import InvalidInput
from stillframe.export.assumptions import wanted_answer
from stillframe.export.listing import range_text, size_text
from stillframe.export.verdicts import Reason, Verdict
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, Range
from stillframe.trace.reads import SAME

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram


@dataclass(frozen=True)
class DataSize:
    """A number that only the data can tell: its range, and the operator and line it comes from."""

    name: str
    range: str
    operator: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}: {self.range}   from {self.operator}, {self.where or 'a library'}"


@dataclass(frozen=True)
class Explanation:
    """What the capture decided about sizes, and because of which lines.

    Attributes:
        title: of which program.
        sizes: what became of every size and varying number of the inputs.
        conditions: what every call is checked for, besides the ranges: relations of sizes, and
            what forward asked of its inputs and of torch's modes.
        data_sizes: numbers that depend on the data.
        checks: conditions on these, checked while the program runs.
    """

    title: str
    sizes: tuple[Verdict, ...]
    conditions: tuple[Reason, ...]
    data_sizes: tuple[DataSize, ...]
    checks: tuple[Reason, ...]

    def about(self, text: str) -> Explanation:
        """Only what concerns one input, size or dim, by its name.

        Raises:
            InvalidInput: nothing of that name.
        """
        sizes = tuple(v for v in self.sizes if _names(text, v.place, v.result, v.declared))
        data = tuple(d for d in self.data_sizes if _names(text, d.name))
        conditions = tuple(c for c in self.conditions if _names(text, c.condition))
        checks = tuple(c for c in self.checks if _names(text, c.condition))
        if not (sizes or data or conditions or checks):
            known = ", ".join(dict.fromkeys(v.place for v in self.sizes)) or "no sizes"
            raise InvalidInput(f"{self.title} has no size called {text!r}.", why=f"it has {known}")
        return Explanation(self.title, sizes, conditions, data, checks)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.title
        yield from _section("sizes of the inputs", (_size_lines(v) for v in self.sizes))
        yield from _section("conditions of every call", ([str(c)] for c in self.conditions))
        yield from _section("numbers that depend on the data", ([str(d)] for d in self.data_sizes))
        yield from _section("checks while it runs", ([str(c)] for c in self.checks))


def explain(program: ExportedProgram) -> Explanation:
    """The explanation of a program, made or loaded."""
    return Explanation(
        f"ExportedProgram of {program.root_class}",
        program.verdicts,
        (
            *(
                Reason(size_text(g.expr, program.dim_names), g.where, g.kind)
                for g in program.guards
            ),
            *_asked(program),
        ),
        tuple(_data_sizes(program)),
        tuple(_checks(program)),
    )


def _guards(program: ExportedProgram) -> Iterator[Reason]:
    for guard in program.guards:
        yield Reason(size_text(guard.expr, program.dim_names), guard.where, guard.kind)


def _asked(program: ExportedProgram) -> Iterator[Reason]:
    specs = program.graph_signature.input_specs
    names = {s.arg.name: f"self.{s.target}" if s.target else s.arg.name for s in specs}
    vals = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    for assumption in program.assumptions:
        about = assumption.about
        if assumption.what == SAME:
            other, same = assumption.value
            text = f"{names[about]} is {'' if same else 'not '}{names[other]}"
            yield Reason(text, assumption.where, "asked")
            continue
        wanted: Any = wanted_answer(assumption, vals[about]) if about else assumption.value
        parts = wanted if isinstance(wanted, tuple) else (wanted,)
        texts = [size_text(p, program.dim_names) if isinstance(p, Expr) else str(p) for p in parts]
        text = f"({', '.join(texts)})" if isinstance(wanted, tuple) else texts[0]
        name = f"{names[about]}: " if about else ""
        yield Reason(f"{name}{assumption.what} is {text}", assumption.where, "asked")


def _names(text: str, *places: str) -> bool:
    """Whether ``text`` occurs as a whole name (``x`` in ``x.size(0)``, not in ``max``)."""
    pattern = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
    return any(pattern.search(place) for place in places)


def _section(title: str, entries: Iterable[list[str]]) -> Iterator[str]:
    first = True
    for lines in entries:
        if first:
            yield f"{title}:"
            first = False
        yield from (f"  {line}" for line in lines)


def _size_lines(verdict: Verdict) -> list[str]:
    if not verdict.declared:
        return [f"{verdict}   (not declared)"]
    outcome = "" if verdict.outcome == "as declared" else f"; {verdict.outcome}"
    return [
        f"{verdict}   (declared {verdict.declared}{outcome})",
        *(f"    {reason}" for reason in verdict.reasons),
    ]


def _data_sizes(program: ExportedProgram) -> Iterator[DataSize]:
    for node in program.graph.nodes:
        for sym in node.meta.get("unbacked_bindings") or {}:
            bounds = program.range_constraints.get(sym, Range())
            name = size_text(sym, program.dim_names)
            yield DataSize(name, range_text(bounds), str(node.target), _line(node))


def _checks(program: ExportedProgram) -> Iterator[Reason]:
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_scalar.default:
            condition = to_size(_value(node.args[0]))
            if isinstance(condition, Expr):
                where = _line(node)
                text = size_text(condition, program.dim_names)
                yield Reason(text, (where,) if where else (), "asserted")


def _value(argument: Any) -> Any:
    return argument.meta.get("val") if isinstance(argument, torch.fx.Node) else argument


def _line(node: torch.fx.Node) -> str:
    """The innermost user line of a node, in the form of a guard's: ``file:line in f: source``."""
    found = _FRAMES.findall(node.meta.get("stack_trace") or "")
    if not found:
        return ""
    file, line, function, source = found[-1]
    return f"{file}:{line} in {function}" + (f": {source}" if source else "")


_FRAMES = re.compile(r'File "(.*)", line (\d+), in (.*)(?:\n {4}(.*))?')
