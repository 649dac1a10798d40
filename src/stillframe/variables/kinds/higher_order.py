"""Operators that take functions: ``cond``, ``while_loop``, ``map``, ``scan``, checkpointing."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.checkpoint

from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator


class TorchHigherOrderOperatorVariable(VariableTracker):
    """An operator that takes functions: a node with a graph for each of them."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tuple(tx.callback(value, modules=True) for value in args)
        named = {key: tx.callback(value, modules=True) for key, value in kwargs.items()}
        return tx.call_plainly(self.value, given, named)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


def _is_operator(value: Any) -> bool:
    return isinstance(value, torch._ops.HigherOrderOperator)


@wraps_if(68, "higher-order operator", _is_operator)
def wrap_operator(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``torch.ops.higher_order.cond`` and the like: there is one of each name."""
    builder.install_guards("TYPE_MATCH", "NAME_MATCH")
    return TorchHigherOrderOperatorVariable(value, source=builder.source)


class CondVariable(TorchHigherOrderOperatorVariable):
    """``torch.cond``, which a trace answers in its place."""

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tuple(tx.callback(value, modules=True) for value in args)
        named = {key: tx.callback(value, modules=True) for key, value in kwargs.items()}
        return tx.call_plainly(torch.cond, given, named)


@wraps_object(torch.cond)
def wrap_cond(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The function of that name, wherever it was imported to."""
    builder.install_guards("FUNCTION_MATCH")
    return CondVariable(value, source=builder.source)


# -- activation checkpointing ----------------------------------------------------------------------

_OPTIONS = frozenset({"determinism_check", "debug", "early_stop", "preserve_rng_state"})


class CheckpointVariable(TorchHigherOrderOperatorVariable):
    """``torch.utils.checkpoint.checkpoint``: it computes what its function computes.

    The function is run in place of the call. What a backward keeps and what it computes again is
    for the compiler of the graph to choose.
    """

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = dict(kwargs)
        function, *operands = (named.pop("function"),) if "function" in named else args
        reentrant = named.pop("use_reentrant", None) is not False
        policy = named.pop("context_fn", None)
        if policy not in (None, torch.utils.checkpoint.noop_context_fn):
            raise tx.graph_break(
                "A checkpoint with contexts of its own (context_fn).",
                why="what they do to the operators inside is not recorded",
            )
        named = {key: value for key, value in named.items() if key not in _OPTIONS}
        if not reentrant:
            return tx.call(function, tuple(operands), named)
        if named:
            raise ValueError("Unexpected keyword arguments: " + ",".join(named))
        return _reentrant(tx, function, operands)


def _reentrant(tx: Translator, function: Any, operands: list[Any]) -> Any:
    """Where no operand needs a gradient, eager computes none, not even for what is closed over."""
    tensors = [tx.here(value) for value in operands]
    if any(isinstance(t, torch.Tensor) and t.requires_grad for t in tensors):
        return tx.call(function, tuple(operands), {})
    with torch.no_grad():
        return tx.call(function, tuple(operands), {})


def build_checkpoint_variable(value: Any, **options: Any) -> CheckpointVariable:
    """What goes with the checkpoint function."""
    return CheckpointVariable(value, **options)


@wraps_if(52, "checkpoint", lambda value: value is torch.utils.checkpoint.checkpoint)
def wrap_checkpoint(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The checkpoint function. The name that a program has for it may be given to another."""
    return build_checkpoint_variable(value, **builder.install_guards("FUNCTION_MATCH"))
