"""Modules of ``torch.nn``: objects whose tensors are inputs of the graph."""

from __future__ import annotations

import sys
from typing import Any

import torch

from stillframe.context import ModuleContext, TracingContext
from stillframe.source import AttrSource, FSDPNNModuleSource, NNModuleSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.registry import wraps_if, wraps_object
from stillframe.variables.translator import Translator


class UnspecializedNNModuleVariable(UserDefinedObjectVariable):
    """A module whose attributes are read as those of any object, and guarded when they are."""


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
    is_parallel = isinstance(module, torch.nn.parallel.DistributedDataParallel)
    if is_parallel or builder.tx.options.inline_inbuilt_nn_modules:
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


class ModuleBackwardHookVariable(VariableTracker):
    """What puts the backward hooks of a module around its call."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise tx.graph_break(
            "The frame calls a module that has backward hooks.",
            why="a graph of the forward has no place for what runs in its backward",
            hints=["remove them before the capture"],
        )


@wraps_object(torch.utils.hooks.BackwardHook)
def wrap_backward_hook(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The class that ``nn.Module`` uses for backward hooks."""
    return ModuleBackwardHookVariable(value, source=builder.source)
