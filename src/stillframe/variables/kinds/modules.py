"""Modules of ``torch.nn``: objects whose tensors are inputs of the graph."""

from __future__ import annotations

import torch

from stillframe.source import NNModuleSource
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.registry import wraps_if


class UnspecializedNNModuleVariable(UserDefinedObjectVariable):
    """A module whose attributes are read as those of any object, and guarded when they are."""


@wraps_if(45, "nn.Module", lambda value: isinstance(value, torch.nn.Module))
def wrap_nn_module(
    builder: VariableBuilder, value: torch.nn.Module
) -> UnspecializedNNModuleVariable:
    """A module. What hangs off it is read through a module's source."""
    tx = builder.tx
    if not value.__dict__:
        raise tx.graph_break(
            f"A module of class {type(value).__qualname__} without attributes.",
            why="its __init__ has not been run",
            hints=["call super().__init__() first"],
        )
    if isinstance(value, torch.nn.RNNBase) and not tx.options.allow_rnn:
        raise tx.graph_break(
            f"A module of class {type(value).__qualname__}.",
            why="recurrent layers are captured only where it is asked for",
            hints=["Options(allow_rnn=True)"],
        )
    builder.install_guards("TYPE_MATCH")
    made = UnspecializedNNModuleVariable(value)
    builder.track_object(value, made)
    if not builder.source.is_nn_module():
        made.source = NNModuleSource(builder.source)
    return made
