"""Observers: look at values of a program when it runs, and keep what is seen in buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stillframe.errors import InvalidInput
from stillframe.export.program import ExportedProgram
from stillframe.export.surgery.choosing import Where, chooser
from stillframe.export.surgery.editing import Editor
from stillframe.fake.tensor import FakeTensor

#: What looks at a value: a module, or a function of a tensor.
Observer = Callable[[Any], Any]


def insert_observer(
    program: ExportedProgram, where: Where, observer: Callable[[torch.fx.Node], Observer | None]
) -> ExportedProgram:
    """A program that also runs an observer on the values of some nodes.

    For each chosen node, ``observer(node)`` makes a module or a function, which is run on the
    value, right after the node. If it returns None, the value stays; if it returns a tensor of the
    same sizes, dtype and device, whoever uses the value uses that tensor (fake quantisation). The
    state of modules is in the new program under ``observers.<node name>.``; buffers that they write
    (a running maximum) are written when the program runs. One module for several nodes is there
    once.

    Args:
        program: is not changed.
        where: an operator overload, node names, or a function of the ``fx.Node``. Inputs of the
            program can be chosen by name or function.
        observer: gives what is run on the value of a node; None leaves the node alone.

    Returns:
        The new program.

    Raises:
        InvalidInput: ``where`` names a node that is not there or chooses none; a chosen node does
            not return one tensor; the observer returns no tensor.
        NotSupported: the observer writes the value, or returns another shape, dtype or device.
        SideEffectError: a module changes itself other than by buffers.
    """
    is_chosen = chooser(where, program.graph)
    chosen = [n for n in program.graph.nodes if n.op != "output" and is_chosen(n)]
    if not chosen:
        raise InvalidInput("No node was chosen for an observer.", hints=["print(program)"])
    for node in chosen:
        _check_tensor(node)
    editor = Editor(program)
    inputs = [n for n in chosen if n.op == "placeholder"]
    for node in inputs:
        _observe(editor, node, observer, last_of_inputs(program.graph))
    for node in program.graph.nodes:
        if node.op not in ("placeholder", "output"):
            editor.copy(node)
            if node in chosen:
                _observe(editor, node, observer, editor.memory.position[node])
    return editor.finish()


def last_of_inputs(graph: torch.fx.Graph) -> int:
    """The place of the last placeholder."""
    return sum(1 for node in graph.nodes if node.op == "placeholder") - 1


def _check_tensor(node: torch.fx.Node) -> None:
    value = node.meta.get("val")
    if not isinstance(value, FakeTensor):
        raise InvalidInput(
            f"The node {node.name} does not return one tensor, so there is nothing to observe.",
            hints=["choose the nodes that take its elements (getitem), or other nodes"],
        )


def _observe(
    editor: Editor,
    node: torch.fx.Node,
    observer: Callable[[torch.fx.Node], Observer | None],
    position: int,
) -> None:
    run: Any = observer(node)
    if run is None:
        return
    if not callable(run):
        raise InvalidInput(
            f"observer({node.name}) must return a module or a function, got {run!r}."
        )
    if isinstance(run, torch.nn.Module):
        editor.state.add_module(run, f"observers.{node.name}")
    results = editor.run(run, [node], node)
    if len(results) != 1:
        raise InvalidInput(f"The observer of {node.name} returned {len(results)} values.")
    if results[0] is not None and results[0] is not editor.values[node]:
        editor.replace(node, results[0], position)
