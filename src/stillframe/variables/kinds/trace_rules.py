"""Functions that are not run by the machine: torch's, C's, and those for which users set a rule."""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.descriptors import BoundBuiltinVariable, wrap_bound
from stillframe.variables.kinds.functions import BuiltinVariable
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.rules import Rule, owner_of, rule_of
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator


class TorchInGraphFunctionVariable(VariableTracker):
    """A function of torch, or one that the user allows in the graph.

    Attributes:
        user_allowed: the user has set the rule; a call is one node.
    """

    def __init__(self, value: Any, *, user_allowed: bool = False, **options: Any) -> None:
        super().__init__(value, **options)
        self.user_allowed = self.handles_calls = user_allowed

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One node. What the function does on tensors without data tells what it returns."""
        args = tuple(_argument(tx, value) for value in args)
        kwargs = {name: _argument(tx, value) for name, value in kwargs.items()}
        recorder, graph = tx.recorder, tx.recorder.graph
        operands = recorder.operand(args), {k: recorder.operand(v) for k, v in kwargs.items()}
        known = set(graph.nodes)
        result = self.value(*args, **kwargs)
        inside = [node for node in graph.nodes if node not in known]
        _check(tx, self.value, result, inside)
        for node in reversed(inside):
            graph.erase_node(node)
        node = recorder.create(self.value, tuple(operands[0]), operands[1])
        node.meta["val"] = result
        recorder.track(result, node)
        return result


def _argument(tx: Translator, value: Any) -> Any:
    """An argument of a node: tensors, numbers, and lists and tuples of them."""
    value = tx.here(value)
    if type(value) in (list, tuple):
        return type(value)(_argument(tx, item) for item in tx.elements(value))
    if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool | str):
        return value
    if value is None or type(value) in (int, float, bool, torch.dtype, torch.device):
        return value
    raise tx.graph_break(
        f"A function that is allowed in the graph gets an object of class {type(value).__name__}.",
        why="a node of the graph cannot hold it",
    )


def _check(tx: Translator, function: Any, result: Any, inside: list[torch.fx.Node]) -> None:
    """One node can stand for the call: it returns new tensors, and writes to none."""
    results = list(result) if type(result) in (list, tuple) else [result]
    made = {id(node) for node in inside}
    why = ""
    if not all(type(item) is FakeTensor and _made_by(item, made) for item in results):
        why = "it returns something else than new tensors"
    elif any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in inside
    ):
        why = "it writes to a tensor"
    elif any("unbacked_bindings" in node.meta for node in inside):
        why = "a size of its result depends on data"
    elif any(node.op != "call_function" for node in inside):
        why = "it reads tensors that are no arguments"
    if why:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise tx.graph_break(f"{name} is allowed in the graph, but is not one node.", why=why)


def _made_by(fake: FakeTensor, nodes: set[int]) -> bool:
    node = fake.fx_node
    return id(getattr(node, "node", node)) in nodes


class SkipFunctionVariable(VariableTracker):
    """A function that must not be captured."""

    handles_calls = True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(self.value, "__qualname__", type(self.value).__name__)
        raise tx.graph_break(
            f"The frame calls {name}, which is not to be captured.",
            why="disallow_in_graph, or torch.compiler.disable, was called for it",
        )


def variable_of_rule(tx: Translator, value: Any, rule: Rule) -> VariableTracker:
    """What goes with a function of a rule."""
    if rule is Rule.ALLOWED:
        tx.has_user_defined_allowed_in_graph = True
        return TorchInGraphFunctionVariable(value, user_allowed=True)
    if rule is Rule.DISALLOWED:
        return SkipFunctionVariable(value)
    if rule is Rule.TORCH:
        return TorchInGraphFunctionVariable(value)
    return BuiltinVariable(value) if owner_of(value) is None else BoundBuiltinVariable(value)


@wraps_if(66, "function with a rule", lambda value: rule_of(value) is not None)
def wrap_by_rule(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that the machine does not run, or that a user has a rule for."""
    rule = rule_of(value)
    assert rule is not None
    if rule is Rule.BUILT_IN and owner_of(value) is not None:
        return wrap_bound(builder, value)
    builder.install_guards("BUILTIN_MATCH" if rule is Rule.BUILT_IN else "FUNCTION_MATCH")
    made = variable_of_rule(builder.tx, value, rule)
    made.source = builder.source
    builder.tx.effects.track(value, made)
    return made


@makes_if(30, "function with a rule", lambda value: rule_of(value) is not None)
def make_by_rule(tx: Translator, value: Any) -> VariableTracker:
    """A function that lasts."""
    rule = rule_of(value)
    assert rule is not None
    return variable_of_rule(tx, value, rule)
