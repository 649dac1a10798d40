"""Running a graph again: a captured ``fx.GraphModule`` keeps where its nodes came from.

The code of a graph module has no submodules and no user lines. Its nodes may say in their metadata
which module call and which line made them, and then so do the nodes that are recorded for them.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch

from stillframe.trace.recorder import Recorder

_Codegen = torch.fx.graph.CodeGen


def finish_code(root: torch.nn.Module) -> None:
    """Graph modules may write their code when first called; that is no effect of forward."""
    for module in root.modules():
        if isinstance(module, torch.fx.GraphModule):
            _ = module.code


def says_where_from(root: torch.nn.Module) -> TypeGuard[torch.fx.GraphModule]:
    """Whether ``root`` is a graph module with module stacks, that calls just its graph."""
    return (
        isinstance(root, torch.fx.GraphModule)
        and type(root.graph._codegen) is _Codegen
        and "forward" not in root.__dict__
        and not (root._forward_hooks or root._forward_pre_hooks)
        and any("nn_module_stack" in node.meta for node in root.graph.nodes)
    )


def run_graph(root: torch.fx.GraphModule, recorder: Recorder, args: tuple[Any, ...]) -> Any:
    """The result of ``root(*args)``, node by node."""
    return _plain(_Rerun(root, recorder).run(*args))


def _plain(value: Any) -> Any:
    """A result in the containers of the graph's own code: fx holds lists and dicts of its own."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if type(value) is tuple:
        return tuple(_plain(v) for v in value)
    return value


class _Rerun(torch.fx.Interpreter):
    """An interpreter that tells the recorder which node it is at."""

    def __init__(self, root: torch.fx.GraphModule, recorder: Recorder) -> None:
        super().__init__(root)
        self.recorder = recorder

    def run_node(self, n: torch.fx.Node) -> Any:
        """One node; what it records takes over its metadata."""
        with self.recorder.run_of(n):
            return super().run_node(n)
