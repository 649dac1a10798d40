"""``dataclasses.fields``, known by itself: the fields of an object from outside have sources."""

from __future__ import annotations

import dataclasses
from typing import Any

from stillframe.source import AttrSource, GetItemSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.tables import CustomizedDictVariable
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.registry import wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.translator import Translator


class DataclassFieldsVariable(VariableTracker):
    """The function; its result is a tuple of the fields, each read in the object's class."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) != 1 or kwargs:
            return tx.call_plainly(self.value, args, kwargs)
        variable = tx.variable(tx.here(args[0]))
        known = isinstance(variable, UserDefinedObjectVariable | CustomizedDictVariable)
        if variable is None or not known or variable.source is None:
            return tx.call_plainly(self.value, args, kwargs)
        table = tx.load_attr(variable.value, "__dataclass_fields__")
        place = AttrSource(variable.source, "__dataclass_fields__")
        names = [field.name for field in dataclasses.fields(variable.value)]
        return tuple(tx.wrap(table[name], GetItemSource(place, name)) for name in names)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


@wraps_object(dataclasses.fields)
def wrap_fields(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The function itself."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, DataclassFieldsVariable(value))
