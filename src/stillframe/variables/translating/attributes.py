"""Attributes: read where they are kept, written with the old value put down."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.frames.lookup import python_special
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource, ModuleSource, Source
from stillframe.variables.base import VariableTracker
from stillframe.variables.foreign import refuse_traceback
from stillframe.variables.numpy_link import array_class
from stillframe.variables.paths import MODULE_TABLES, instance_dict, is_library, is_plain, lasts
from stillframe.variables.side_effects import SideEffects
from stillframe.variables.translating.names import Names

_ARRAY: Any = array_class()


class Attributes(Names):
    """What an attribute gives has a source, or is what code run by the machine has read."""

    def load_attr(self, value: Any, name: str) -> Any:
        value = self.here(value)
        if isinstance(value, FakeTensor):
            return self.tensors.load(value, name)
        if name == "__traceback__":
            refuse_traceback(self.tx)
        variable = self.variable(value)
        if variable is None:
            return self._attribute_of_own(value, name)
        return variable.var_getattr(self.tx, name)

    def _attribute_of_own(self, value: Any, name: str) -> Any:
        """An attribute of an object that the program made: its class may be from outside."""
        found = super().load_attr(value, name)
        if is_plain(found):
            source = self.behaviour.entry(value, name, found)
            if source is not None:
                return self.wrap(found, source)
        return self.here(found)

    def read_attribute(self, variable: VariableTracker, name: str) -> Any:
        """An attribute of a value from outside; Python code behind it is run by the machine."""
        value, source = variable.value, variable.source
        if source is None:
            return self.here(super().load_attr(value, name))
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
            source = ModuleSource(value.__name__)
        if name == "__dict__" and isinstance(value, type):
            self.behaviour.expose(value)
        elif name == "__dict__" and self.effects.has_attributes_of(value):
            raise self.graph_break(
                f"The frame reads the __dict__ of {source.name()}, whose attributes it has set.",
                why="each shows what is written to the other",
                hints=["use getattr and hasattr"],
            )
        writes = self.effects.count
        try:
            found = super().load_attr(value, name)
            self._refuse_reads_that_write(value, source, writes)
        except AttributeError:
            if not is_library(source):
                absent = functools.partial(guard_kind("HASATTR"), attr=name)
                install_guard(source.make_guard(absent))
            raise
        if isinstance(found, FakeTensor) or self._has_written(value, name):
            return self.here(found)  # of the program's own
        if is_in_written_table(self.effects, value, name):
            return self.here(found)
        if not lasts(value, name, found):
            if not is_library(source):
                self.behaviour.rely_on_absence(value, name, source)
            return self.here(found)
        return self.wrap(found, AttrSource(source, name))

    def _has_written(self, value: Any, name: str) -> bool:
        """Whether the program has set an attribute of an object, or of its class."""
        classes = value.__mro__ if isinstance(value, type) else type(value).__mro__
        return any(self.effects.wrote(owner, name) for owner in (value, *classes))

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        target = self.here(target)
        if isinstance(target, FakeTensor):
            self.tensors.store(target, name, self.here(value))
            return
        if isinstance(target, _ARRAY):
            raise self.graph_break(f"The frame sets the attribute {name} of an array.")
        super().store_attr(target, name, value)

    def delete_attr(self, target: Any, name: str) -> None:
        target = self.here(target)
        if isinstance(target, FakeTensor):
            self.tensors.delete(target, name)
            return
        super().delete_attr(target, name)

    def _refuse_reads_that_write(self, value: Any, source: Source, writes: int) -> None:
        """The guards run a ``__getattribute__`` in Python at every call."""
        if self.effects.count != writes and python_special(type(value), "__getattribute__"):
            raise self.graph_break(
                f"The __getattribute__ of {source.name()} changes something.",
                why="the guards would run it at every call",
            )

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        self._note_attribute(target, name)
        super().set_attribute(target, name, value)

    def unset_attribute(self, target: Any, name: str) -> None:
        self._note_attribute(target, name)
        super().unset_attribute(target, name)

    def _note_attribute(self, target: Any, name: str) -> None:
        self._may_change(target)
        variable = self.variable(target)
        if variable is None or variable.source is None:
            return
        if variable.mutable is None:
            raise self.graph_break(
                f"The frame sets the attribute {name} of {variable.source.name()}.",
                why=f"{type(target).__qualname__} has its own way of setting attributes",
            )
        self._refuse_own_dict(target, variable.source)
        self.effects.attribute(target, name, variable.source)
        self.written_objects.append(target)

    def _refuse_own_dict(self, target: Any, source: Source) -> None:
        """An object is written whose ``__dict__`` was read as a dict, from elsewhere."""
        names = instance_dict(target)
        known = self.effects.tracker(names) if isinstance(names, dict) else None
        if known is not None and not known.handles_items and not isinstance(target, type):
            raise self.graph_break(
                f"The frame changes attributes of {source.name()}, of which it has the __dict__.",
                why="each shows what is written to the other, in ways that no guard could tell",
                hints=["use getattr and setattr"],
            )


def is_in_written_table(effects: SideEffects, holder: Any, name: str) -> bool:
    """Whether an attribute is in a table of an object that the program has written to."""
    names = getattr(holder, "__dict__", {})
    tables = [names]
    if isinstance(holder, torch.nn.Module):
        tables += [names.get(table, {}) for table in MODULE_TABLES]
    return any(name in table and effects.is_written(table) for table in tables)
