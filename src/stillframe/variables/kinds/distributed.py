"""Values of ``torch.distributed``, which may not be loaded, or not be there at all.

Who has a value has loaded its module, so classes are looked up among the loaded modules when a
value is met. Of a collective the functional forms are imported when it is.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import FunctionType
from typing import Any

import torch

from stillframe.source import AttrSource, ModuleSource
from stillframe.variables.base import LastingVariable, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.paths import is_plain
from stillframe.variables.registry import wraps_if
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translator import Translator

_C10D = "torch.distributed.distributed_c10d"
_MESH = "torch.distributed.device_mesh"
_PLACEMENTS = "torch.distributed.tensor.placement_types"


def _found(module: str, name: str) -> Any:
    """An attribute of a module if it is loaded; else None."""
    return getattr(sys.modules.get(module), name, None)


def _is_instance(value: Any, module: str, name: str) -> bool:
    cls = _found(module, name)
    return isinstance(cls, type) and isinstance(value, cls)


# -- collectives -----------------------------------------------------------------------------------


class CollectiveFunctionRewriteVariable(LastingVariable):
    """A collective that writes into its argument: its functional form is called, and copied."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        form = _FORMS[self.value.__name__]
        bound = inspect.signature(form).bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: tx.here(value) for name, value in bound.arguments.items()}
        if given.pop("async_op"):
            raise tx.graph_break(
                f"The frame calls {self.value.__name__} with async_op=True.",
                why="a graph has no place for what is waited for later",
                hints=["leave async_op out"],
            )
        group = given["group"]
        if group is None:
            group = given["group"] = tx.wrap(_found(_C10D, "group").WORLD, _WORLD)
        if _found(_C10D, "get_rank")(group) < 0:
            raise tx.graph_break(
                f"The frame calls {self.value.__name__} of a group that it does not belong to."
            )
        if "op" in given:
            given["op"] = _name_of_reduction(tx, given["op"])
        return form(**given, async_op=False)


#: Where the default group is read.
_WORLD = AttrSource(ModuleSource(_C10D), "group.WORLD")


def _name_of_reduction(tx: Translator, op: Any) -> str:
    """A reduction as the functional forms call it."""
    if op is None:
        return "sum"
    name = getattr(op, "name", "").lower()
    if name not in ("sum", "avg", "product", "min", "max", "band", "bor", "bxor"):
        raise tx.graph_break(f"The frame reduces by {op!r}, which has no functional form.")
    return str(name)


def _done(result: torch.Tensor) -> torch.Tensor:
    """The result of a collective, when it is there."""
    return torch.ops._c10d_functional.wait_tensor(result)  # type: ignore[no-any-return]


def _all_reduce(tensor: Any, op: Any = None, group: Any = None, async_op: bool = False) -> None:
    functional = torch.ops._c10d_functional
    tensor.copy_(_done(functional.all_reduce(tensor, op, group.group_name)))


def _all_gather_into(
    output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False
) -> None:
    output_tensor.copy_(_gathered(input_tensor, group).view(output_tensor.shape))


def _gathered(tensor: Any, group: Any) -> torch.Tensor:
    functional = torch.ops._c10d_functional
    return _done(functional.all_gather_into_tensor(tensor, group.size(), group.group_name))


def _all_gather(tensor_list: Any, tensor: Any, group: Any = None, async_op: bool = False) -> None:
    parts = _gathered(tensor.contiguous(), group).chunk(group.size())
    for held, part in zip(tensor_list, parts, strict=True):
        held.copy_(part)


def _reduce_scatter(
    output: Any, input: Any, op: Any = None, group: Any = None, async_op: bool = False
) -> None:
    functional = torch.ops._c10d_functional
    result = functional.reduce_scatter_tensor(input, op, group.size(), group.group_name)
    output.copy_(_done(result).view(output.shape))


#: The collectives, by name, with the parameters that they have.
_FORMS: dict[str, Any] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    **dict.fromkeys(
        ("all_gather_into_tensor", "all_gather_single", "_all_gather_base"), _all_gather_into
    ),
    **dict.fromkeys(
        ("reduce_scatter_tensor", "reduce_scatter_single", "_reduce_scatter_base"),
        _reduce_scatter,
    ),
}


def _is_collective(value: Any) -> bool:
    """Whether a function is a collective with a functional form."""
    if type(value) is not FunctionType or value.__module__ != _C10D:
        return False
    return value.__name__ in _FORMS and _found(_C10D, value.__name__) is value


@wraps_if(60, "collective", _is_collective)
def wrap_collective(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A collective with a functional form."""
    importlib.import_module("torch.distributed._functional_collectives")  # registers the shapes
    builder.install_guards("FUNCTION_MATCH")
    made = CollectiveFunctionRewriteVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


class GroupQueryVariable(LastingVariable):
    """A question about a group: the answer is the same as long as the group is."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not any(value is not None for value in (*args, *kwargs.values())):
            world = _found(_C10D, "group").WORLD
            if world is None:
                raise tx.graph_break(
                    f"The frame calls {self.value.__name__} before there is a group of processes."
                )
            tx.wrap(world, _WORLD)
        return tx.call_plainly(self.value, args, kwargs)


def _is_group_query(value: Any) -> bool:
    name = getattr(value, "__name__", None)
    return name in ("get_rank", "get_world_size") and _found(_C10D, name) is value


@wraps_if(60.5, "group query", _is_group_query)
def wrap_group_query(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function that tells the rank, or the size, of a group."""
    builder.install_guards("FUNCTION_MATCH")
    made = GroupQueryVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


# -- groups ----------------------------------------------------------------------------------------


class WorldMetaClassVariable(LastingVariable):
    """``torch.distributed.group``: a class whose attribute ``WORLD`` is the default group."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name == "WORLD" and self.value.WORLD is not None:
            return tx.wrap(self.value.WORLD, _WORLD)
        return tx.read_attribute(self, name)


class ProcessGroupVariable(LastingVariable):
    """A group of processes. Its rank and size are constants of it."""


@wraps_if(78, "default group", lambda value: _is_instance(value, _C10D, "_WorldMeta"))
def wrap_world_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The class; the group that it gives is relied on when it is read."""
    made = WorldMetaClassVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@wraps_if(79, "process group", lambda value: _is_instance(value, _C10D, "ProcessGroup"))
def wrap_process_group(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A group of processes, known by its identity."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, ProcessGroupVariable(value))


# -- meshes and placements -------------------------------------------------------------------------


class DeviceMeshVariable(LastingVariable):
    """A mesh of devices: equal ones are the same to a program."""


class PlacementClassVariable(LastingVariable):
    """A class of placements."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A placement is made of constants, by compiled code."""
        if not all(map(is_plain, (*args, *kwargs.values()))):
            raise tx.graph_break(
                f"The frame makes a {self.value.__qualname__} of what is no constant.",
                why="a placement is a constant of the graph",
            )
        return self.value(*args, **kwargs)


class PlacementVariable(LastingVariable):
    """How a tensor lies on a mesh: equal ones are the same to a program."""


def _is_mesh(value: Any) -> bool:
    return _is_instance(value, _MESH, "DeviceMesh")


def _is_placement(value: Any) -> bool:
    return _is_instance(value, _PLACEMENTS, "Placement")


def _is_placement_class(value: Any) -> bool:
    base = _found(_PLACEMENTS, "Placement")
    return isinstance(value, type) and isinstance(base, type) and issubclass(value, base)


@wraps_if(80, "device mesh", _is_mesh)
def wrap_mesh(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A mesh, known by what it is equal to."""
    builder.install_guards("EQUALS_MATCH")
    return builder.track_object(value, DeviceMeshVariable(value))


@wraps_if(81, "placement class", _is_placement_class)
def wrap_placement_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class of placements, known by its identity."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, PlacementClassVariable(value))


@wraps_if(82, "placement", _is_placement)
def wrap_placement(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A placement, known by what it is equal to."""
    builder.install_guards("EQUALS_MATCH")
    return builder.track_object(value, PlacementVariable(value))


@makes_if(80, "device mesh", _is_mesh)
def make_mesh(tx: Translator, value: Any) -> VariableTracker:
    """A mesh that the program has got from a library."""
    return DeviceMeshVariable(value)


@makes_if(82, "placement", _is_placement)
def make_placement(tx: Translator, value: Any) -> VariableTracker:
    """A placement that the program made."""
    return PlacementVariable(value)
