"""The door of a program: which calls it takes.

:class:`Door` is what a call must fulfil, as data: parameters, a :class:`LeafRule` for each leaf,
and the conditions on sizes. It has two readers: :mod:`~stillframe.export.door_code` turns it into
straight-line Python that costs a microsecond, and :mod:`~stillframe.export.refusal` explains,
slowly and in words, why a call was turned away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import SpecViolationError
from stillframe.export.assumptions import Assumption, wanted_answer
from stillframe.export.call_spec import CallSpec
from stillframe.export.containers import same_float
from stillframe.export.signature import CustomObjArgument, InputKind
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Guard, Size, to_size
from stillframe.symbolic import Expr, Facts, Range, evaluate, unwrap
from stillframe.trace.reads import SAME

TENSOR, SYMBOL, CONSTANT, OBJECT = "tensor", "symbol", "constant", "object"


@dataclass(frozen=True)
class LeafRule:
    """What one leaf must be.

    Attributes:
        node: name of its placeholder.
        path: how a person names it.
        kind: ``"tensor"``, ``"symbol"`` (a number that varies), ``"object"`` (a script object) or
            ``"constant"``.
        sizes, dtype, device, layout: of tensors.
        value: the constant, the symbol's expression, or the qualified name of the object's class.
    """

    node: str
    path: str
    kind: str
    sizes: tuple[Size, ...] = ()
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    layout: torch.layout = torch.strided
    value: Any = None

    @property
    def number(self) -> type:
        """The type of a number that varies."""
        return float if self.value.sort == "float" else int


@dataclass(frozen=True)
class Condition:
    """A condition on the sizes: a range of an expression, or a guard."""

    expr: Expr
    bounds: Range | None = None
    guard: Guard | None = None


@dataclass(frozen=True)
class Solution:
    """``symbol`` follows from a size that is ``scale * symbol + offset``."""

    symbol: Expr
    scale: int
    offset: int


@dataclass
class Door:
    """All that a call must fulfil.

    Attributes:
        call_spec: parameters and structures.
        leaves: one rule for each leaf, in flatten order.
        bare: symbol -> (leaf index, dim): where it is read off first.
        solved: (leaf index, dim) -> how a symbol that is nowhere bare follows from that size.
        conditions: ranges and guards over these symbols.
        dim_names: symbol name -> the user's name.
        separate: leaf indices, the first of each pair written by the program, that may not share
            memory.
        asked: leaf index, and what forward asked of that leaf.
        asked_elsewhere: what it asked of state and of torch's modes.
        compared: two leaf indices, and whether they must be one tensor.
    """

    call_spec: CallSpec
    leaves: list[LeafRule]
    bare: dict[Expr, tuple[int, int]] = field(default_factory=dict)
    solved: dict[tuple[int, int], Solution] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)
    dim_names: Mapping[str, str] = field(default_factory=dict)
    separate: list[tuple[int, int]] = field(default_factory=list)
    asked: list[tuple[int, Assumption]] = field(default_factory=list)
    asked_elsewhere: list[Assumption] = field(default_factory=list)
    compared: list[tuple[int, int, Assumption]] = field(default_factory=list)

    @classmethod
    def of(cls, program: Any) -> Door:
        """The door of a program.

        Raises:
            SpecViolationError: the inputs do not tell the value of a symbol in their sizes.
        """
        leaves, fakes = _leaf_rules(program)
        door = cls(program.call_spec, leaves, dim_names=program.dim_names)
        door._bind_symbols()
        door.conditions = _conditions(program.range_constraints, program.guards, door.symbols)
        door.separate = _separate(fakes)
        door._take(program.assumptions, fakes)
        return door

    @property
    def symbols(self) -> set[Expr]:
        """The symbols whose values a call tells."""
        solved = {s.symbol for s in self.solved.values()}
        return {*self.bare, *solved}

    def _take(self, assumptions: Iterable[Assumption], fakes: list[Any]) -> None:
        index = {leaf.node: i for i, leaf in enumerate(self.leaves)}
        for assumption in assumptions:
            place = index.get(assumption.about)
            if assumption.what == SAME and place is not None:
                self.compared.append((place, index[assumption.value[0]], assumption))
            elif place is None:
                self.asked_elsewhere.append(assumption)
            else:
                wanted = wanted_answer(assumption, fakes[place])
                self.asked.append((place, replace(assumption, value=wanted)))

    def _bind_symbols(self) -> None:
        derived: list[tuple[int, int, Expr]] = []
        for i, leaf in enumerate(self.leaves):
            if leaf.kind == SYMBOL:
                self.bare.setdefault(leaf.value, (i, -1))
            for dim, size in enumerate(leaf.sizes):
                if isinstance(size, Expr):
                    if size.op == "symbol":
                        self.bare.setdefault(size, (i, dim))
                    else:
                        derived.append((i, dim, size))
        for i, dim, size in derived:
            self._solve(i, dim, size)
        known = self.symbols
        for i, dim, size in derived:
            unknown = [s for s in size.free_symbols if s not in known]
            if unknown:
                raise SpecViolationError(
                    f"the inputs do not tell the value of {unknown[0]}: it shows only in "
                    f"{self.leaves[i].path}.size({dim}), which is {size}."
                )

    def _solve(self, index: int, dim: int, size: Expr) -> None:
        unknown = [s for s in size.free_symbols if s not in self.symbols]
        if len(unknown) != 1 or len(size.free_symbols) != 1:
            return
        (symbol,) = unknown
        offset = int(evaluate(size, {symbol: 0}))
        scale = int(evaluate(size, {symbol: 1})) - offset
        if scale > 0 and unwrap(symbol * scale + offset) is size:
            self.solved[index, dim] = Solution(symbol, scale, offset)


def _leaf_rules(program: Any) -> tuple[list[LeafRule], list[Any]]:
    names = [
        s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT
    ]
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    paths = program.call_spec.leaf_paths
    if len(names) != len(paths):
        raise SpecViolationError(
            f"{len(names)} user inputs in the signature, {len(paths)} in call_spec."
        )
    fakes = [values[name] for name in names]
    rules = [_leaf_rule(*leaf) for leaf in zip(names, paths, fakes, strict=True)]
    return rules, fakes


def _leaf_rule(node: str, path: str, val: Any) -> LeafRule:
    if isinstance(val, torch.Tensor):
        sizes = val.sizes if isinstance(val, FakeTensor) else tuple(to_size(s) for s in val.shape)
        return LeafRule(node, path, TENSOR, sizes, val.dtype, val.device, val.layout)
    if isinstance(val, CustomObjArgument):
        return LeafRule(node, path, OBJECT, value=val.class_fqn)
    size = to_size(val)
    if isinstance(size, Expr):
        return LeafRule(node, path, SYMBOL, value=size)
    return LeafRule(node, path, CONSTANT, value=val)


def _conditions(
    ranges: Mapping[Expr, Range], guards: Iterable[Guard], known: set[Expr]
) -> list[Condition]:
    """Ranges, then guards; those that follow from the symbols' ranges are left out."""
    facts = Facts()
    found: list[Condition] = []
    for expr in sorted(ranges, key=lambda e: e.op != "symbol"):
        bounds = ranges[expr]
        if not expr.free_symbols <= known or expr.is_constant:
            continue
        if expr.op == "symbol":
            facts.set_range(expr, bounds)
            if bounds.lower > 0 or bounds.upper < float("inf"):
                found.append(Condition(expr, bounds))
            continue
        implied = facts.range_of(expr)
        if implied.lower < bounds.lower or implied.upper > bounds.upper:
            found.append(Condition(expr, bounds))
    for guard in guards:
        if guard.expr.free_symbols <= known and facts.decide(guard.expr) is not True:
            found.append(Condition(guard.expr, guard=guard))
    return found


def _separate(fakes: list[Any]) -> list[tuple[int, int]]:
    """Pairs of tensor inputs of which the program writes one, so that sharing memory matters."""
    tensors = [i for i, f in enumerate(fakes) if isinstance(f, FakeTensor)]
    written = {i for i in tensors if fakes[i].storage_.written}
    pairs = itertools.combinations(tensors, 2)
    return [(i, j) for i, j in pairs if i in written or j in written]


# -- constants ------------------------------------------------------------------------------------


def same_constant(value: Any, expected: Any) -> bool:
    """Equal in type and value, as a constant baked into a graph must be."""
    if value is expected:
        return True
    if type(value) is not type(expected):
        return False
    if isinstance(value, float):
        return same_float(value, expected)
    if isinstance(value, (tuple, list)):
        return len(value) == len(expected) and all(map(same_constant, value, expected))
    if isinstance(value, (int, str, complex, torch.device, torch.dtype, torch.layout)):
        return bool(value == expected)
    return False


def is_object_of(value: Any, class_name: str) -> bool:
    """Whether a value is a script object of a class, or the stand-in of one."""
    if isinstance(value, torch_private.FakeScriptObjectBase):
        return bool(value.script_class_name == class_name)
    found = torch_private.is_script_object(value)
    return found and torch_private.script_class_name(value) == class_name
