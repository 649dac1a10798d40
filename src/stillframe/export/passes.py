"""Passes over a recorded graph, run in order by one runner.

A pass is a function that changes a graph in place. Set ``STILLFRAME_DUMP_PASSES=1`` to print the
graph before and after each.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from stillframe.trace.operators import has_effect

Pass = Callable[[torch.fx.Graph], None]

#: Metadata of nodes that stay although nobody uses them: a call signature speaks of them.
KEPT = "kept"


def remove_dead_nodes(graph: torch.fx.Graph) -> None:
    """Erase nodes whose result nobody uses, unless they write, check, draw, or are kept."""
    for node in reversed(graph.nodes):
        if not node.users and KEPT not in node.meta and not has_effect(node):
            graph.erase_node(node)


def clean_boundaries(graph: torch.fx.Graph) -> None:
    """Placeholders and outputs carry no module stack and no stack trace."""
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            node.meta.pop("nn_module_stack", None)
            node.meta.pop("stack_trace", None)


PASSES: tuple[Pass, ...] = (remove_dead_nodes, clean_boundaries)


def run(graph: torch.fx.Graph) -> None:
    """All passes, in order."""
    dump = os.environ.get("STILLFRAME_DUMP_PASSES") == "1"
    for step in PASSES:
        if dump:
            print(f"-- before {step.__name__}\n{graph}")
        step(graph)
    if dump:
        print(f"-- after all passes\n{graph}")
