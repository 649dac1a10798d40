"""Which values of a program share memory, and where that memory is written.

Two values share memory if their metadata says so, or if an operator's schema says that its result
may be a view of an argument. "May" is enough here: who asks is about to move or drop a node.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Set
from typing import Any

import torch

from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.trace.operators import facts_of, write_targets


class Memory:
    """The memory of the values of one graph.

    Pieces of memory that may be the same are one *group*; a group is named by a number.

    Attributes:
        position: node -> its place in the graph.
    """

    def __init__(self, graph: torch.fx.Graph) -> None:
        self.position = {node: i for i, node in enumerate(graph.nodes)}
        self._parent: dict[int, int] = {}
        self._writers: list[tuple[int, torch.fx.Node, set[int]]] = []
        for node in graph.nodes:
            self._join(node)
        for node in graph.nodes:
            written = {self._find(id(s)) for s in written_storages(node)}
            if written:
                self._writers.append((self.position[node], node, written))
        self._members: dict[int, list[torch.fx.Node]] = {}
        for node in graph.nodes:
            if node.op != "output":
                for group in self.groups(node):
                    self._members.setdefault(group, []).append(node)

    def groups(self, node: torch.fx.Node) -> set[int]:
        """The groups of what a node returns."""
        return {self._find(id(s)) for s in storages(node.meta.get("val"))}

    def group(self, storage: FakeStorage) -> int:
        """The group of a piece of memory."""
        return self._find(id(storage))

    def members(self, groups: set[int]) -> Iterator[torch.fx.Node]:
        """The nodes whose values are in these groups."""
        for group in groups:
            yield from self._members.get(group, ())

    def begins_at(self, node: torch.fx.Node) -> bool:
        """Whether an operator makes the memory of its result: nobody shows it before."""
        place = self.position
        return node.op == "call_function" and all(
            place[other] >= place[node] for other in self.members(self.groups(node))
        )

    def writer(
        self,
        groups: set[int],
        after: int,
        before: float = math.inf,
        without: Set[torch.fx.Node] = frozenset(),
    ) -> torch.fx.Node | None:
        """The first node strictly between two places that writes memory of these groups."""
        for position, node, written in self._writers:
            if after < position < before and written & groups and node not in without:
                return node
        return None

    def _join(self, node: torch.fx.Node) -> None:
        for storage in storages(node.meta.get("val")):
            for source in may_view(node):
                for other in storages(source.meta.get("val")):
                    self._parent[self._find(id(storage))] = self._find(id(other))

    def _find(self, key: int) -> int:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            parent = self._parent[parent]
        self._parent[key] = parent
        return parent


def storages(value: Any) -> Iterator[FakeStorage]:
    """The memory of a tensor, or of the tensors in a container."""
    if isinstance(value, FakeTensor):
        yield value.storage_
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from storages(item)


def may_view(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The operands whose memory the result may show, by the operator's schema."""
    target = node.target
    if target is operator.getitem:
        return node.all_input_nodes
    if not isinstance(target, torch._ops.OpOverload):
        return []
    schema = target._schema
    if not any(r.alias_info is not None for r in schema.returns):
        return []
    found: list[torch.fx.Node] = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None:
            given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            torch.fx.node.map_arg(given, found.append)
    return found


def written_operands(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The operands that a node writes in place."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    found = write_targets(facts_of(node.target), node.args, node.kwargs)
    return [n for n in found if isinstance(n, torch.fx.Node)]


def written_tensor(node: torch.fx.Node) -> torch.fx.Node:
    """The tensor that a node is, before the in-place operators that return it."""
    while isinstance(node.target, torch._ops.OpOverload):
        returns = node.target._schema.returns
        if len(returns) != 1 or returns[0].alias_info is None or not returns[0].alias_info.is_write:
            break
        (written,) = written_operands(node)
        node = written
    return node


def written_storages(node: torch.fx.Node) -> list[FakeStorage]:
    """The memory that a node writes."""
    return [s for n in written_operands(node) for s in storages(n.meta.get("val"))]
