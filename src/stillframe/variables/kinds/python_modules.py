"""Modules of Python."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from stillframe.source import ModuleSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class PythonModuleVariable(VariableTracker):
    """A module; what is read of it has its own name for a source."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load(ModuleSource(self.value.__name__))


@wraps_if(89, "module", lambda value: isinstance(value, ModuleType))
def wrap_module(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A module, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, PythonModuleVariable(value))


@makes_type(ModuleType)
def make_module(tx: Translator, value: Any) -> VariableTracker:
    """A module that the program has imported."""
    return PythonModuleVariable(value)
