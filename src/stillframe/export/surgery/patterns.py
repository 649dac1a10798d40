"""Replacing what a program does in places: find a pattern, run something else there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput
from stillframe.export.program import ExportedProgram
from stillframe.export.surgery.choosing import Where, chooser
from stillframe.export.surgery.editing import Editor
from stillframe.export.surgery.matching import Found, Matcher, canonical, count_parameters
from stillframe.export.surgery.memory import Memory, written_storages
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr


@dataclass(frozen=True)
class PatternMatch:
    """One place where a pattern was found, by names of nodes.

    Attributes:
        nodes: the operators that the pattern calls, in the order of the graph.
        inputs: what is given for the parameters of the pattern, in order.
        outputs: what the pattern returns, in order; empty text for a result that nobody uses.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def find_pattern(
    program: ExportedProgram,
    pattern: Callable[..., Any],
    *,
    where: Where | None = None,
    commutative: bool = False,
) -> list[PatternMatch]:
    """The places that :func:`replace_pattern` would replace, with the same arguments."""
    places = _places(program, pattern, where, commutative)[0]
    return [place.as_match() for place in places]


def replace_pattern(
    program: ExportedProgram,
    pattern: Callable[..., Any],
    replacement: Callable[..., Any],
    *,
    where: Where | None = None,
    commutative: bool = False,
    missing_ok: bool = False,
) -> ExportedProgram:
    """A program in which ``replacement`` is run wherever ``pattern`` was.

    Both are functions of the same number of tensors, written with torch's functions or with
    ``torch.ops``, that return a tensor or a tuple of them. A pattern is found where the program
    calls the same operators on the same data, with equal other arguments: a number in the pattern
    (a size, a dim, an epsilon) must be that number, ``x.size(0)`` the size that is there. Tensors
    that the pattern closes over must be state of the program with equal values. What the pattern
    computes and does not return may not be used elsewhere, and nothing may write the memory that
    it reads between its operators. Where two places overlap, the first one is replaced.

    The replacement may bring tensors along, which become constants; if it is a module, its state
    is in the new program under ``replacement.``. Whether it computes the same is the caller's
    business.

    Args:
        program: is not changed.
        pattern: what to look for.
        replacement: what to run instead, on the same tensors.
        where: only where the first result of the pattern is such a node: an operator overload,
            node names, or a function of the ``fx.Node``.
        commutative: operands of ``add``, ``mul`` and the like may be in any order.
        missing_ok: return the program as it is if the pattern is not there.

    Returns:
        The new program.

    Raises:
        InvalidInput: the pattern is nowhere; or the functions do not fit each other.
        NotSupported: the pattern does what cannot be looked for; the replacement has other sizes,
            another dtype or device, or writes what it is given; or memory is shared such that a
            later write would no longer show where it did.
    """
    wanted, given = count_parameters(pattern), count_parameters(replacement)
    if wanted != given:
        raise InvalidInput(
            f"The pattern takes {wanted} tensors and the replacement {given}.",
            hints=["give both the same parameters, in the same order"],
        )
    places, error = _places(program, pattern, where, commutative)
    if not places:
        if missing_ok:
            return program
        raise InvalidInput(
            "The pattern is nowhere in the program.",
            why=f"on a value of the program it raised {type(error).__name__}: {error}"
            if error is not None
            else "",
            hints=[
                "print(program) shows its operators, print(stillframe.export(pattern, tensors)) "
                "those of the pattern",
                "missing_ok=True returns the program as it is",
            ],
        )
    return _Replacing(program, replacement, places).run()


# -- places ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A match that can be replaced.

    Attributes:
        found: the match.
        removed: all nodes that go, elements of containers included.
        outputs: the nodes of the results; None for one that nobody uses.
        position: the replacement is run after the node at this place.
    """

    found: Found
    removed: frozenset[torch.fx.Node]
    outputs: tuple[torch.fx.Node | None, ...]
    position: int

    @property
    def origin(self) -> torch.fx.Node:
        """The node that says where the new nodes come from."""
        return self.outputs[0] or self.found.outputs[0][0]

    def as_match(self) -> PatternMatch:
        """By names."""
        order = list(self.found.nodes[0].graph.nodes)
        return PatternMatch(
            tuple(n.name for n in order if n in self.found.nodes),
            tuple(n.name for n in self.found.inputs),
            tuple("" if n is None else n.name for n in self.outputs),
        )


def _places(
    program: ExportedProgram, pattern: Callable[..., Any], where: Where | None, commutative: bool
) -> tuple[list[_Place], Exception | None]:
    """The places that do not overlap, and what the pattern raised on values it does not fit."""
    is_chosen = chooser(where, program.graph) if where is not None else lambda node: True
    memory = Memory(program.graph)
    matcher = Matcher(program, pattern, commutative)
    taken: set[torch.fx.Node] = set()
    places: list[_Place] = []
    for found in matcher.find():
        place = _place(found, memory)
        if place is not None and is_chosen(place.origin) and taken.isdisjoint(place.removed):
            taken |= place.removed
            places.append(place)
    places.sort(key=lambda place: place.position)
    return places, matcher.error


def _place(found: Found, memory: Memory) -> _Place | None:
    """The place of a match, or None if it cannot be taken out of the program."""
    removed = frozenset(_with_elements(found.nodes))
    users = [u for n in removed for u in n.users if u not in removed]
    results = [n for n in removed if canonical(n) in found.outputs]
    for node in removed:
        if node not in results and any(u not in removed for u in node.users):
            return None
    place = memory.position
    first, last = min(map(place.__getitem__, removed)), max(map(place.__getitem__, removed))
    position = min([last, *(place[u] - 1 for u in users)])
    if any(place[node] > position or node in removed for node in found.inputs):
        return None
    if not _may_move(found, removed, memory, first, last):
        return None
    by_ref = {canonical(node): node for node in results}
    outputs = tuple(by_ref.get(ref) for ref in found.outputs)
    return _Place(found, removed, outputs, position)


def _with_elements(nodes: tuple[torch.fx.Node, ...]) -> Iterator[torch.fx.Node]:
    for node in nodes:
        yield node
        yield from _with_elements(tuple(u for u in node.users if u.target is getitem))


def _may_move(
    found: Found, removed: frozenset[torch.fx.Node], memory: Memory, first: int, last: int
) -> bool:
    """Whether all operators of a match may as well run at one place."""
    given = {group for node in found.inputs for group in memory.groups(node)}
    for node in found.nodes:
        if any(memory.group(storage) in given for storage in written_storages(node)):
            return False  # others see what it writes
    used = given | {group for node in removed for group in memory.groups(node)}
    if memory.writer(used, first, last, removed) is not None:
        return False
    for node, place in memory.position.items():
        if first < place < last and node.target is torch_private.set_grad_enabled:
            return False
    return not _tell_symbols(found.nodes, removed)


def _tell_symbols(nodes: tuple[torch.fx.Node, ...], removed: Set[torch.fx.Node]) -> bool:
    """Whether a number that one of the nodes reads from the data is used by others."""
    symbols = {s for node in nodes for s in node.meta.get("unbacked_bindings", {})}
    return bool(symbols) and any(
        not symbols.isdisjoint(_symbols(node.meta.get("val")))
        for node in nodes[0].graph.nodes
        if node not in removed
    )


def _symbols(value: Any) -> Iterator[Expr]:
    if isinstance(value, FakeTensor):
        for size in (*value.sizes, *value.strides, value.offset):
            yield from size.free_symbols if isinstance(size, Expr) else ()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _symbols(item)
    else:
        size = to_size(value)
        yield from size.free_symbols if isinstance(size, Expr) else ()


# -- replacing ------------------------------------------------------------------------------------


class _Replacing:
    """One replacement in all places of a program."""

    def __init__(
        self, program: ExportedProgram, replacement: Callable[..., Any], places: list[_Place]
    ) -> None:
        self.editor = Editor(program)
        self.replacement = replacement
        self.places: dict[int, list[_Place]] = {}
        for place in places:
            self.places.setdefault(place.position, []).append(place)
        self.removed = frozenset[torch.fx.Node]().union(*(p.removed for p in places))
        if isinstance(replacement, torch.nn.Module):
            self.editor.state.add_module(replacement, "replacement")

    def run(self) -> ExportedProgram:
        """The new program."""
        inputs = [n for n in self.editor.graph.nodes if n.op == "placeholder"]
        for position in range(len(inputs)):
            self._replace_at(position)
        for position, node in enumerate(self.editor.graph.nodes):
            if node.op in ("placeholder", "output"):
                continue
            if node not in self.removed:
                self.editor.copy(node)
            self._replace_at(position)
        return self.editor.finish()

    def _replace_at(self, position: int) -> None:
        for place in self.places.get(position, ()):
            results = self.editor.run(self.replacement, place.found.inputs, place.origin)
            if len(results) != len(place.outputs) or any(r is None for r in results):
                raise InvalidInput(
                    f"The replacement returned {len(results)} values for the "
                    f"{len(place.outputs)} of the pattern.",
                    hints=["return as many tensors as the pattern does"],
                )
            for node, new in zip(place.outputs, results, strict=True):
                if node is not None:
                    self.editor.replace(node, new, position, self.removed)
