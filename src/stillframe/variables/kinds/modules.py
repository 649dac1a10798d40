"""Modules of ``torch.nn``: objects whose tensors are inputs of the graph."""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch

from stillframe.context import ModuleContext, TracingContext
from stillframe.frames.lookup import MISSING, python_special, type_lookup
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import (
    AttrSource,
    FSDPNNModuleSource,
    GetItemSource,
    NNModuleSource,
    Source,
)
from stillframe.variables.base import ExistingMutable, MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.tables import ConstDictVariable
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.paths import MODULE_TABLES
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if
from stillframe.variables.translating.attributes import is_in_written_table
from stillframe.variables.translator import Translator


class UnspecializedNNModuleVariable(UserDefinedObjectVariable):
    """A module whose attributes are read as those of any object, and guarded when they are."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        source = self.source
        if source is None:
            return tx.read_attribute(self, name)
        if name == "forward" and _is_data_parallel(self.value):
            raise tx.graph_break(
                f"The frame calls a {type(self.value).__qualname__}.",
                why="it exchanges gradients with other processes in the backward, which no graph "
                "of the forward says",
                hints=["capture the module in it: model.module"],
            )
        if name == "__dict__":
            return _attributes_of(tx, self.value, source)
        table = _table_of(self.value, name)
        if table is None:
            return tx.read_attribute(self, name)
        # what ``nn.Module.__getattr__`` would find, without a run of it
        if is_in_written_table(tx.effects, self.value, name):
            return tx.here(table[name])
        return tx.wrap(table[name], AttrSource(source, name))


def _table_of(module: torch.nn.Module, name: str) -> dict[str, Any] | None:
    """The table in which the ``__getattr__`` of ``nn.Module`` finds an attribute."""
    cls, names = type(module), module.__dict__
    if name in names or type_lookup(cls, name) is not MISSING:
        return None
    if type_lookup(cls, "__getattr__") is not torch.nn.Module.__getattr__:
        return None
    if python_special(cls, "__getattribute__") is not None:
        return None
    tables = (names.get(table, {}) for table in MODULE_TABLES)
    return next((table for table in tables if name in table), None)


class InstanceDictVariable(ConstDictVariable):
    """The ``__dict__`` of a module. Its items are attributes: relied on one by one."""

    handles_items = True

    def __init__(self, value: dict[str, Any], owner: Any, place: Source) -> None:
        super().__init__(value, source=AttrSource(place, "__dict__"), mutable=ExistingMutable())
        self.owner = owner
        self.owner_place = place

    def load_item(self, tx: Translator, key: Any) -> Any:
        if not self.has(tx, key):
            raise KeyError(key)
        if tx.effects.wrote(self.owner, key):
            return tx.here(self.value[key])
        return tx.wrap(self.value[key], self._source_of(key))

    def has(self, tx: Translator, key: Any) -> bool:
        present = key in self.value
        is_known = present and key in MODULE_TABLES  # a module has these
        if not is_known and not tx.effects.wrote(self.owner, key):
            assert self.source is not None
            guard = functools.partial(guard_kind("DICT_CONTAINS"), key=key)
            install_guard(self.source.make_guard(guard))
        return present

    def note_item(self, tx: Translator, key: Any) -> None:
        tx.effects.attribute(self.owner, key, self.owner_place)

    def is_own(self, tx: Translator, place: Source) -> bool:
        return isinstance(place, GetItemSource) and tx.effects.wrote(self.owner, place.index)

    def _source_of(self, key: str) -> Source:
        cls = type(self.owner)
        hidden = hasattr(type(type_lookup(cls, key)), "__set__")
        if hidden or python_special(cls, "__getattribute__") is not None:
            assert self.source is not None
            return GetItemSource(self.source, key)
        return AttrSource(self.owner_place, key)


def _attributes_of(tx: Translator, module: torch.nn.Module, place: Source) -> dict[str, Any]:
    names = module.__dict__
    if tx.effects.tracker(names) is None:
        tx.effects.track(names, InstanceDictVariable(names, module, place))
    return names


class NNModuleVariable(UnspecializedNNModuleVariable):
    """A module that the capture is for: this very one, in this mode of training.

    What is read of it is guarded all the same, since anybody may set its attributes.
    """


class FSDPManagedNNModuleVariable(UnspecializedNNModuleVariable):
    """A module whose parameters FSDP gathers when they are needed."""


class CompiledNNModuleVariable(UserDefinedObjectVariable):
    """What ``torch.compile`` makes of a module. Within a capture it does what the module does."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        """The forward is a call of the module, hooks and all; the rest is Python of the wrapper."""
        if name == "forward" and self.source is not None:
            return tx.load_attr(tx.read_attribute(self, "_orig_mod"), "__call__")
        return tx.read_attribute(self, name)


class DelayGraphBreakVariable(CompiledNNModuleVariable):
    """A module that is not to be captured: reading it is harmless, calling it is not."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if name == "forward":
            raise tx.graph_break(
                f"The frame calls a module of class {type(self.value._orig_mod).__qualname__} "
                "that is kept from compilers.",
                why="torch.compiler.disable was applied to it",
                hints=["capture the parts before and after it"],
            )
        return tx.read_attribute(self, name)


def _is_compiled(module: torch.nn.Module) -> bool:
    """Whether a module is the wrapper of ``torch.compile``; it is there only if dynamo is."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def _is_data_parallel(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.parallel.DistributedDataParallel)


def _is_managed_by_fsdp(module: Any) -> bool:
    return bool(module.__dict__.get("_is_fsdp_managed_module", False))


@wraps_if(45, "nn.Module", lambda value: isinstance(value, torch.nn.Module))
def wrap_nn_module(builder: VariableBuilder, value: torch.nn.Module) -> VariableTracker:
    """A module. What hangs off it is read through a module's source."""
    _refuse_unready(builder.tx, value)
    if _is_compiled(value):
        return _wrap_compiled(builder, value)
    kind = _kind_of(builder, value)
    builder.install_guards("NN_MODULE" if kind is NNModuleVariable else "TYPE_MATCH")
    made = builder.track_object(value, kind(value))
    if kind is FSDPManagedNNModuleVariable:
        made.source = FSDPNNModuleSource(builder.source)
    elif not builder.source.is_nn_module():
        made.source = NNModuleSource(builder.source)
    return made


def _kind_of(
    builder: VariableBuilder, module: torch.nn.Module
) -> type[UnspecializedNNModuleVariable]:
    if _is_managed_by_fsdp(module):
        return FSDPManagedNNModuleVariable
    if _is_data_parallel(module) or builder.tx.options.inline_inbuilt_nn_modules:
        return UnspecializedNNModuleVariable
    modules = TracingContext.get().part(ModuleContext).nn_modules
    modules[builder.source.name()] = module
    return NNModuleVariable


def _wrap_compiled(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The wrapper, and the module in it."""
    builder.install_guards("TYPE_MATCH")
    ctx = AttrSource(builder.source, "dynamo_ctx")
    builder.at(ctx).install_guards("TYPE_MATCH")
    disabled = type(value.dynamo_ctx).__name__ == "DisableContext"
    made = (DelayGraphBreakVariable if disabled else CompiledNNModuleVariable)(value)
    made.source = NNModuleSource(builder.source)
    builder.tx.effects.track(value, made)
    return made


def _refuse_unready(tx: Translator, module: torch.nn.Module) -> None:
    """Modules that cannot be run yet, or not here."""
    cls = type(module).__qualname__
    if not module.__dict__:
        raise tx.graph_break(
            f"A module of class {cls} without attributes.",
            why="its __init__ has not been run",
            hints=["call super().__init__() first"],
        )
    if isinstance(module, torch.nn.RNNBase) and not tx.options.allow_rnn:
        raise tx.graph_break(
            f"A module of class {cls}.",
            why="recurrent layers are captured only where it is asked for",
            hints=["Options(allow_rnn=True)"],
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise tx.graph_break(
            f"A module of TorchScript ({module.original_name}).",
            why="it runs no Python",
            hints=["capture the module that it was made from"],
        )
    lazy = isinstance(module, torch.nn.modules.lazy.LazyModuleMixin)
    if lazy and any(map(torch.nn.parameter.is_lazy, module.__dict__["_parameters"].values())):
        raise tx.graph_break(
            f"A module of class {cls} whose parameters have no sizes yet.",
            why="they are made by its first call",
            hints=["call it once before the capture"],
        )
    if _is_managed_by_fsdp(module) and not module.__dict__.get("_fsdp_use_orig_params", False):
        raise tx.graph_break(
            f"A module of class {cls} that FSDP manages, with parameters in one flat tensor.",
            why="the parameters of the module are views that FSDP makes for each call",
            hints=["FullyShardedDataParallel(..., use_orig_params=True)"],
        )


class SourcelessGraphModuleVariable(UnspecializedNNModuleVariable):
    """A graph module that the program, or the capture, made."""

    def reconstruct(self, residue: Residue) -> None:
        raise NotImplementedError("its graph is of the capture; another call would make its own")


@makes_if(59, "graph module", lambda value: isinstance(value, torch.fx.GraphModule))
def make_graph_module(tx: Translator, value: Any) -> VariableTracker:
    """A graph module of the program's own."""
    return SourcelessGraphModuleVariable(value, mutable=MutableLocal())
