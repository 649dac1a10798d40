"""What differs between two programs: for people, and as data.

Names of nodes and of symbols do not count. Two graphs are aligned by the sequence of their
operators, each with its literal arguments and the state and inputs that it reads; then the data
flow between aligned nodes is compared.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput
from stillframe.export.decompose import outputs_of
from stillframe.export.listing import range_text, value_text
from stillframe.export.program import ExportedProgram
from stillframe.export.signature import OutputKind
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.shapes.layout import contiguous_strides
from stillframe.symbolic import Expr, substitute, symbol, to_python

_OF_INPUTS = (
    OutputKind.USER_INPUT_MUTATION, OutputKind.USER_INPUT_ATTRIBUTE,
    OutputKind.GRADIENT_TO_USER_INPUT,
)  # fmt: skip

_LINE = re.compile(r'File "([^"]*)", line (\d+)')


@dataclass(frozen=True)
class Change:
    """One thing that is not the same.

    Attributes:
        what: what it is about: an input, a parameter, an operator.
        before: as it is in the first program; empty if it is not there.
        after: as it is in the second program; empty if it is not there.
    """

    what: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.before and self.after:
            return f"~ {self.what}: {self.before} -> {self.after}"
        sign, text = ("-", self.before) if self.before else ("+", self.after)
        return f"{sign} {self.what}: {text}" if text else f"{sign} {self.what}"


@dataclass(frozen=True)
class NodeChange:
    """A node that only one graph has, or that gets other operands.

    Attributes:
        sign: ``"-"`` only in the first program, ``"+"`` only in the second, ``"~"`` in both, with
            other operands.
        text: the node as a listing shows it.
        path: of the module it was recorded in.
        line: the user's line.
    """

    sign: str
    text: str
    path: str = ""
    line: str = ""

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.path, self.line) if part)
        return f"{self.sign} {self.text}" + (f"  # {place}" if place else "")


@dataclass(frozen=True)
class ProgramDiff:
    """What differs between two programs; false if nothing does.

    Attributes:
        form: the dialect, the mode (training or evaluation), and whether conditions on data are
            checked.
        inputs: parameters, types of the inputs, and how calls are structured.
        conditions: ranges of dims, guards on sizes, and assumptions of calls.
        outputs: what is returned and written back, and its structure.
        state: parameters, buffers and constants by FQN: added, removed, another shape or dtype, or
            other values with the largest absolute difference.
        operators: operators that are called more or less often.
        graph: nodes that differ, in the order of the graphs.
    """

    form: list[Change] = field(default_factory=list)
    inputs: list[Change] = field(default_factory=list)
    conditions: list[Change] = field(default_factory=list)
    outputs: list[Change] = field(default_factory=list)
    state: list[Change] = field(default_factory=list)
    operators: list[Change] = field(default_factory=list)
    graph: list[NodeChange] = field(default_factory=list)

    @property
    def sections(self) -> dict[str, list[Change] | list[NodeChange]]:
        """Title -> what differs there, without those that are empty."""
        titles = ("form", "inputs", "conditions", "outputs", "state", "operators", "graph")
        return {title: found for title in titles if (found := getattr(self, title))}

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.sections

    def __bool__(self) -> bool:
        return not self.same

    def __str__(self) -> str:
        if self.same:
            return "the programs are the same"
        lines = []
        for title, changes in self.sections.items():
            lines += [title, *(f"  {change}" for change in changes)]
        return "\n".join(lines)


def compare(a: ExportedProgram, b: ExportedProgram) -> ProgramDiff:
    """What is different in ``b``, seen from ``a``.

    Names of nodes, and of symbols that the user has not named, do not count, nor do example
    inputs, notes and stack traces. Values of state are compared exactly, NaN being equal to NaN.

    Raises:
        InvalidInput: one of them is no program.
    """
    for program in (a, b):
        if not isinstance(program, ExportedProgram):
            raise InvalidInput(
                f"compare takes two programs, got {type(program).__name__}.",
                hints=["program = stillframe.load(path)"],
            )
    one, other = _Side(a), _Side(b)
    alignment = _Alignment(one, other)
    found = ProgramDiff(
        form=_entries(one.form(), other.form()),
        inputs=_entries(one.inputs(), other.inputs()),
        conditions=_listed(one.conditions(), other.conditions())
        + _entries(one.ranges(), other.ranges()),
        outputs=_entries(one.outputs(), other.outputs()) + alignment.outputs(),
        state=_state(one, other),
        operators=_entries(one.operators(), other.operators()),
        graph=alignment.changes(),
    )
    return found if found else replace(found, graph=alignment.other_types())


def _entries(a: Mapping[str, str], b: Mapping[str, str]) -> list[Change]:
    """What two tables do not have in common."""
    names = [*a, *(name for name in b if name not in a)]
    return [
        Change(name, a.get(name, ""), b.get(name, ""))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _listed(a: Sequence[str], b: Sequence[str]) -> list[Change]:
    """What only one of two lists has, repetitions counted."""
    left, right = collections.Counter(a), collections.Counter(b)
    removed = [Change("condition", before=text) for text in (left - right).elements()]
    return removed + [Change("condition", after=text) for text in (right - left).elements()]


# -- one program ----------------------------------------------------------------------------------


class _Side:
    """One of the two programs, in texts that do not depend on names of nodes and symbols."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.nodes = list(program.graph.nodes)
        self.numbers = self._number_symbols()
        self.names = {**self.numbers, **program.dim_names}
        specs = program.graph_signature.input_specs
        paths = iter(program.call_spec.leaf_paths)
        self.places: dict[torch.fx.Node, str] = {}
        placeholders = [n for n in self.nodes if n.op == "placeholder"]
        for node, spec in zip(placeholders, specs, strict=True):
            self.places[node] = next(paths) if spec.target is None else f"self.{spec.target}"
        self.by_name = {n.name: n for n in self.nodes}
        self.calls = [n for n in self.nodes if n.op == "call_function"]

    def _number_symbols(self) -> dict[str, str]:
        """Symbol -> its number in the order of appearance."""
        numbers: dict[str, str] = {}
        for node in self.nodes:
            for found in _symbols(node.meta.get("val")):
                numbers.setdefault(str(found), f"_{len(numbers)}")
        return numbers

    def type_of(self, node: torch.fx.Node) -> str:
        """The type of a result; what the user calls the dims does not count."""
        return value_text(node.meta.get("val"), self.numbers)

    def text(self, value: Any) -> str:
        """A type or a number."""
        return value_text(value, self.names)

    def size(self, expr: Expr) -> str:
        """A size, its symbols by name."""
        renamed = {s: symbol(self.names.get(str(s), str(s)), s.sort) for s in expr.free_symbols}
        return to_python(substitute(expr, renamed))

    # -- tables -----------------------------------------------------------------------------------

    def form(self) -> dict[str, str]:
        """Dialect and mode."""
        mode = "training" if self.program.training else "evaluation"
        asserts = "checked" if self.program.runtime_asserts else "believed"
        return {"dialect": self.program.dialect, "mode": mode, "conditions on data": asserts}

    def inputs(self) -> dict[str, str]:
        """Path of an input -> its type."""
        specs = self.program.graph_signature.input_specs
        found = {"parameters": str(self.program.call_spec)}
        for node, spec in zip(self.places, specs, strict=True):
            if spec.target is None:
                found[self.places[node]] = self._input_text(node.meta["val"])
        found["structure"] = str(self.program.call_spec.in_spec)
        return found

    def _input_text(self, value: Any) -> str:
        """A type, with what else of it a call must or may have: device, layout, gradient."""
        parts = [self.text(value)]
        if isinstance(value, FakeTensor):
            parts += [f"on {value.device}"] if value.device.type != "cpu" else []
            if value.strides != contiguous_strides(value.sizes):
                strides = [self.size(s) if isinstance(s, Expr) else str(s) for s in value.strides]
                parts.append(f"strides [{', '.join(strides)}]")
            parts += ["requires grad"] if value.requires_grad else []
        return ", ".join(parts)

    def ranges(self) -> dict[str, str]:
        """Dim -> its range."""
        found = self.program.range_constraints.items()
        told = {s for n in self.places for s in _symbols(n.meta.get("val"))}
        return {self.size(e): range_text(r) for e, r in found if e.free_symbols <= told}

    def conditions(self) -> list[str]:
        """Guards and assumptions."""
        found = [self.size(g.expr) for g in self.program.guards]
        for assumption in self.program.assumptions:
            node = self.by_name.get(assumption.about)
            about = self.places[node] if node is not None else "torch"
            found.append(f"{about}: {assumption.what} = {assumption.value}")
        return found

    def outputs(self) -> dict[str, str]:
        """What each output is for -> its type."""
        results = outputs_of(self.nodes[-1])
        specs = self.program.graph_signature.output_specs
        found: dict[str, str] = {}
        for value, spec in zip(results, specs, strict=True):
            shown = value.meta["val"] if isinstance(value, torch.fx.Node) else value
            found[self.role(spec, len(found))] = self.text(shown)
        found["structure"] = str(self.program.out_spec)
        return found

    def role(self, spec: Any, index: int) -> str:
        """How a person names an output."""
        if spec.kind is OutputKind.USER_OUTPUT:
            return f"output {index}"
        target = spec.target
        if spec.kind in _OF_INPUTS:
            target = self.places[self.by_name[target]]
        if spec.attribute is not None:
            return f"the attribute {spec.attribute} of {target}"
        return f"{spec.kind.name.lower()} {index if target is None else target}"

    def operators(self) -> dict[str, str]:
        """Operator -> how often it is called."""
        counts = collections.Counter(_target_text(n.target) for n in self.calls)
        return {name: str(count) for name, count in sorted(counts.items())}

    def state(self) -> dict[str, tuple[str, Any]]:
        """FQN -> kind and value."""
        specs = self.program.graph_signature.input_specs
        kinds = {s.target: s.kind.name.lower() for s in specs if s.target is not None}
        tables = {**self.program.state_dict, **self.program.constants}
        return {fqn: (kinds.get(fqn, "unused"), value) for fqn, value in tables.items()}

    # -- nodes ------------------------------------------------------------------------------------

    def label(self, node: torch.fx.Node) -> str:
        """What aligned nodes have in common: all but the operands that other nodes compute.

        Types of results follow from it and from the inputs, so they are no part of it: an input of
        another size is one difference, and not one for each node.
        """
        operands = [self._operand(a) for a in node.args]
        operands += [f"{k}={self._operand(v)}" for k, v in sorted(node.kwargs.items())]
        return f"{_target_text(node.target)}({', '.join(operands)})"

    def _operand(self, value: Any) -> str:
        if isinstance(value, torch.fx.Node):
            if value.op == "get_attr":
                return self._subgraph(value, self.program.graph_module)
            return self.places.get(value, "*")
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._operand(v) for v in value)}]"
        return repr(value)

    def _subgraph(self, node: torch.fx.Node, owner: torch.nn.Module) -> str:
        """A subgraph as text, its nodes by number."""
        module: Any = getattr(owner, str(node.target))
        numbers: dict[torch.fx.Node, int] = {}

        def text(value: Any) -> str:
            if isinstance(value, torch.fx.Node):
                is_graph = value.op == "get_attr"
                return self._subgraph(value, module) if is_graph else f"%{numbers[value]}"
            if isinstance(value, (list, tuple)):
                return f"[{', '.join(map(text, value))}]"
            return repr(value)

        lines = []
        for inner in module.graph.nodes:
            numbers[inner] = len(numbers)
            if inner.op != "get_attr":
                named = [f"{k}={text(v)}" for k, v in sorted(inner.kwargs.items())]
                operands = ", ".join([*map(text, inner.args), *named])
                what = inner.op if inner.op != "call_function" else _target_text(inner.target)
                lines.append(f"{what}({operands}): {self.text(inner.meta.get('val'))}")
        return "{" + "; ".join(lines) + "}"

    def change(self, sign: str, node: torch.fx.Node) -> NodeChange:
        """A node in the report."""
        operands = [_shown(a) for a in node.args]
        operands += [f"{k}={_shown(v)}" for k, v in node.kwargs.items()]
        call = f"{_target_text(node.target)}({', '.join(operands)})"
        text = f"{node.name}: {self.text(node.meta.get('val'))} = {call}"
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return NodeChange(sign, text, stack[-1][0] if stack else "", _user_line(node))


# -- both -----------------------------------------------------------------------------------------


class _Alignment:
    """Which node of one graph is which of the other."""

    def __init__(self, a: _Side, b: _Side) -> None:
        self.a, self.b = a, b
        left, right = [a.label(n) for n in a.calls], [b.label(n) for n in b.calls]
        self.blocks = _opcodes(left, right)
        self.partner: dict[torch.fx.Node, torch.fx.Node] = {}
        for tag, i, j, k, _ in self.blocks:
            if tag == "equal":
                self.partner.update(zip(a.calls[i:j], b.calls[k : k + j - i], strict=True))
        self.partners = set(self.partner.values())

    def changes(self) -> list[NodeChange]:
        """Removed, added and rewired nodes, where they stand."""
        found: list[NodeChange] = []
        for tag, i, j, k, m in self.blocks:
            if tag == "equal":
                for one, other in zip(self.a.calls[i:j], self.b.calls[k:m], strict=True):
                    if self._is_rewired(one.args, other.args, one.kwargs, other.kwargs):
                        found.append(self.b.change("~", other))
            else:
                found += [self.a.change("-", node) for node in self.a.calls[i:j]]
                found += [self.b.change("+", node) for node in self.b.calls[k:m]]
        return found

    def other_types(self) -> list[NodeChange]:
        """Aligned nodes whose results have other types."""
        pairs = self.partner.items()
        return [self.b.change("~", y) for x, y in pairs if self.a.type_of(x) != self.b.type_of(y)]

    def outputs(self) -> list[Change]:
        """Outputs that are another value than before."""
        pairs = zip(
            outputs_of(self.a.nodes[-1]),
            self.a.program.graph_signature.output_specs,
            outputs_of(self.b.nodes[-1]),
            self.b.program.graph_signature.output_specs,
            strict=False,
        )
        return [
            Change(self.a.role(spec, i), str(one), str(other))
            for i, (one, spec, other, its) in enumerate(pairs)
            if spec.kind is its.kind and self._differ(one, other)
        ]

    def _is_rewired(self, *operands: Any) -> bool:
        one, other, named, others = operands
        return self._differ(one, other) or self._differ(
            [named[k] for k in sorted(named)], [others[k] for k in sorted(others)]
        )

    def _differ(self, one: Any, other: Any) -> bool:
        """Whether two operands are certainly different values, both of which are in both graphs."""
        if isinstance(one, torch.fx.Node) and isinstance(other, torch.fx.Node):
            places = self.a.places.get(one), self.b.places.get(other)
            if places != (None, None):
                return places[0] != places[1] and all(
                    n.op == "placeholder" or n in self.partner or n in self.partners
                    for n in (one, other)
                )
            is_known = one in self.partner and other in self.partners
            return is_known and self.partner[one] is not other
        if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
            return any(self._differ(x, y) for x, y in zip(one, other, strict=False))
        return False


def _opcodes(a: list[str], b: list[str]) -> Iterable[tuple[str, int, int, int, int]]:
    """As :meth:`SequenceMatcher.get_opcodes`, with what both begin and end with taken off first."""
    start = _common(a, b)
    end = _common(a[start:][::-1], b[start:][::-1])
    stop_a, stop_b = len(a) - end, len(b) - end
    codes = [("equal", 0, start, 0, start)] if start else []
    inner = SequenceMatcher(None, a[start:stop_a], b[start:stop_b], autojunk=False)
    codes += [
        (tag, i + start, j + start, k + start, m + start) for tag, i, j, k, m in inner.get_opcodes()
    ]
    return codes + ([("equal", stop_a, len(a), stop_b, len(b))] if end else [])


def _common(a: list[str], b: list[str]) -> int:
    """How many elements two lists begin with that are the same."""
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count


# -- state ----------------------------------------------------------------------------------------


def _state(a: _Side, b: _Side) -> list[Change]:
    one, other = a.state(), b.state()
    found: list[Change] = []
    for fqn in [*one, *(f for f in other if f not in one)]:
        before = _state_text(one[fqn]) if fqn in one else ""
        after = _state_text(other[fqn]) if fqn in other else ""
        if before != after:
            found.append(Change(fqn, before, after))
        elif isinstance(one[fqn][1], torch.Tensor):
            difference = _difference(one[fqn][1], other[fqn][1])
            if difference:
                found.append(Change(fqn, before, difference))
    return found


def _state_text(entry: tuple[str, Any]) -> str:
    kind, value = entry
    if not isinstance(value, torch.Tensor):
        return f"{kind} {type(value).__name__}"
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{kind} {dtype}{list(value.shape)} on {value.device}"


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """How two tensors of the same kind differ, or empty text."""
    with torch_private.ambient_modes_off(), torch.no_grad():
        if one is other or one.device.type == "meta":
            return ""
        if one.dtype.is_floating_point and one.element_size() == 1:
            one, other = one.float(), other.float()  # too small to be compared itself
        same = (one == other) | ((one != one) & (other != other))
        count = int((~same).sum())
        if not count:
            return ""
        wide = torch.complex128 if one.is_complex() else torch.float64
        gaps = (one.to(wide) - other.to(wide)).abs()[~same]
        return f"{count} of {one.numel()} values differ, by up to {float(gaps.max()):.3g}"


# -- texts ----------------------------------------------------------------------------------------


def _symbols(value: Any) -> list[Expr]:
    """The symbols of a type, in the order in which they are shown."""
    if isinstance(value, FakeTensor):
        return [s for size in value.sizes for s in _in_order(size)]
    if isinstance(value, (list, tuple)):
        return [s for item in value for s in _symbols(item)]
    return _in_order(to_size(value))


def _in_order(size: Any) -> list[Expr]:
    return sorted(size.free_symbols, key=str) if isinstance(size, Expr) else []


def _target_text(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    name: str = getattr(target, "__name__", str(target))
    return name


def _shown(value: Any) -> str:
    if isinstance(value, torch.fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)


def _user_line(node: torch.fx.Node) -> str:
    """``file.py:12`` of the innermost user line."""
    found = _LINE.findall(node.meta.get("stack_trace") or "")
    return f"{found[-1][0].rpartition('/')[2]}:{found[-1][1]}" if found else ""
