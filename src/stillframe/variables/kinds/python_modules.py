"""Modules of Python."""

from __future__ import annotations

import sys
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
        name: str = self.value.__name__
        if sys.modules.get(name) is not self.value:
            raise NotImplementedError("no module of this name has been imported")
        residue.load(ModuleSource(name))


#: Where a class is found whose objects stand for modules of a recorded run.
_STAND_IN = ("torch._dynamo.replay_record", "DummyModule")


def _is_module(value: Any) -> bool:
    """A module of whatever class, or what stands for one in a record of a run."""
    if isinstance(value, ModuleType):
        return True
    place, name = _STAND_IN
    stand_in: Any = getattr(sys.modules.get(place), name, None)
    return isinstance(stand_in, type) and type(value) is stand_in


@wraps_if(89, "module", _is_module)
def wrap_module(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A module, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, PythonModuleVariable(value))


@makes_type(ModuleType)
def make_module(tx: Translator, value: Any) -> VariableTracker:
    """A module that the program has imported."""
    return PythonModuleVariable(value)
