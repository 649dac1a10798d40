"""The state of torch's generator: read, set and seeded by nodes of the graph.

Random operators draw when the graph runs. A state that the capture reads, or sets, would be that of
the capture, so these functions stand in the graph, in their order with the operators.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch

from stillframe.source import AttrSource, ModuleSource, Source
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.wrappers import LambdaVariable
from stillframe.variables.registry import wraps_if, wraps_object, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class GeneratorFunctionVariable(VariableTracker):
    """A function of torch that is called by a node of its own."""

    handles_calls = True

    def __init__(self, value: Any, *, source: Source | None = None) -> None:
        super().__init__(value, source=source)
        self.answer = _ANSWERS[value.__name__]

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.answer(tx, *args, **kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


def _node(tx: Translator, function: Any, *args: Any) -> torch.fx.Node:
    if tx.bodies.is_inside:
        raise tx.graph_break(
            f"A function that an operator is given calls torch.{function.__name__}().",
            why="it may run never or many times when the graph runs",
        )
    recorder = tx.recorder
    node = recorder.create(function, tuple(recorder.operand(tx.here(a)) for a in args), {})
    node.meta["val"] = None
    return node


def _get_state(tx: Translator) -> Any:
    recorder = tx.recorder
    size = torch.default_generator.get_state().numel()
    result = recorder.fake_mode.ctx.empty((size,), dtype=torch.uint8)
    node = _node(tx, torch.random.get_rng_state)
    node.meta["val"], result.fx_node = result, node
    return result


def _set_state(tx: Translator, new_state: Any) -> None:
    _node(tx, torch.random.set_rng_state, new_state)


def _seed(tx: Translator, seed: Any) -> Any:
    _node(tx, torch.random.manual_seed, seed)
    return torch.default_generator


def _refuse(tx: Translator, *args: Any, **kwargs: Any) -> Any:
    raise tx.graph_break(
        "The frame asks torch's generator for a seed.",
        why="it is another one at every call",
        hints=["seed with a number that the frame is given: torch.manual_seed(seed)"],
    )


_ANSWERS: dict[str, Any] = {
    "get_rng_state": _get_state,
    "set_rng_state": _set_state,
    "manual_seed": _seed,
    "seed": _refuse,
    "initial_seed": _refuse,
}


def _is_state_function(value: Any) -> bool:
    """By name: torch puts another function in the place of one of these when it is compiling."""
    if type(value) is not FunctionType or value.__module__ != "torch.random":
        return False
    return value.__name__ in _ANSWERS


@wraps_if(38.2, "function of the generator", _is_state_function)
def wrap_state_function(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that reads or sets the generator."""
    builder.install_guards("FUNCTION_MATCH")
    return GeneratorFunctionVariable(value, source=builder.source)


class GeneratorVariable(VariableTracker):
    """A generator of random numbers. What torch's own is asked becomes a node."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        by_name = {"get_state": "get_rng_state", "set_state": "set_rng_state"}
        function = by_name.get(name, name)
        if name == "device":
            return self.value.device
        if function not in _ANSWERS or self.value is not torch.default_generator:
            raise tx.graph_break(
                f"The frame uses .{name} of a torch.Generator.",
                why="its state is no part of a graph, and the capture would change it",
                hints=["draw outside of the frame", "use torch's own generator"],
            )
        place = AttrSource(ModuleSource("torch.random"), function)
        return tx.wrap(getattr(torch.random, function), place)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


@wraps_type(torch.Generator)
def wrap_generator(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A generator: the very object."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, GeneratorVariable(value))


class TransformsOff:
    """Stands for the object that switches transforms off while it lives. There are none in a frame,
    and the object itself would put torch's dispatch keys back when it dies, which may be later."""


def _guard_object(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return TransformsOff()


@makes_type(TransformsOff)
def make_functorch_guard(tx: Translator, value: Any) -> VariableTracker:
    """Nobody gets it."""
    raise tx.graph_break("The frame gives away an object of torch._C._DisableFuncTorch.")


# -- functions of torch's inside that give plain objects ------------------------------------------

_DISABLE: Any = torch._C._DisableFuncTorch
_BAD_FORK: Any = torch.cuda._is_in_bad_fork


def _in_bad_fork(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _BAD_FORK()


@wraps_object(_DISABLE)
def wrap_functorch_guard(builder: VariableBuilder, value: Any) -> VariableTracker:
    """What switches transforms off while it lives: an object of the capture, no node."""
    builder.install_guards("FUNCTION_MATCH")
    return LambdaVariable(value, _guard_object, source=builder.source)


@wraps_object(_BAD_FORK)
def wrap_bad_fork(builder: VariableBuilder, value: Any) -> VariableTracker:
    """Whether this process was forked from one that used the device: no node either."""
    builder.install_guards("FUNCTION_MATCH")
    return LambdaVariable(value, _in_bad_fork, source=builder.source)
