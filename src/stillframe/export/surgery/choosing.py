"""Which nodes of a program a helper is for: by operator, by name, or by a function of the node."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any

import torch

from stillframe.errors import InvalidInput

#: An operator overload, node names, or a function that says yes or no to a node.
Where = Any


def chooser(where: Where, graph: torch.fx.Graph) -> Callable[[torch.fx.Node], bool]:
    """The function of a node that ``where`` stands for.

    Raises:
        InvalidInput: a name that no node has; or something that chooses no nodes.
    """
    if isinstance(where, torch._ops.OpOverload):
        return lambda node: node.target is where
    if isinstance(where, str):
        where = {where}
    if isinstance(where, Collection) and all(isinstance(name, str) for name in where):
        names = set(where)
        _check_names(names, graph)
        return lambda node: node.name in names
    if isinstance(where, torch._ops.OpOverloadPacket) or not callable(where):
        raise InvalidInput(
            f"where must choose nodes, got {where!r}.",
            hints=[
                "an operator overload: torch.ops.aten.linear.default",
                "node names, or a function of the fx.Node that returns True or False",
            ],
        )
    return lambda node: bool(where(node))


def _check_names(names: set[str], graph: torch.fx.Graph) -> None:
    known = [node.name for node in graph.nodes if node.op != "output"]
    for name in sorted(names - set(known)):
        near = difflib.get_close_matches(name, known, 3)
        raise InvalidInput(
            f"The program has no node {name!r}.",
            hints=[f"did you mean {', '.join(near)}?"] if near else ["print(program) lists them"],
        )
