"""Locals, globals and cells: the names that the program reads and writes."""

from __future__ import annotations

import _collections_abc
import collections
import functools
import sys
from collections.abc import Mapping
from types import CellType, FunctionType
from typing import Any

from stillframe.frames.frame import NULL, Frame
from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource, GlobalSource, LocalSource, ModuleSource, Source
from stillframe.variables.base import LazyVariableTracker
from stillframe.variables.behaviour import is_library_function
from stillframe.variables.translating.exposing import Exposing


class Names(Exposing):
    """A name is wrapped when it is read; where it is kept is put down when it is written."""

    # -- the frame's own locals -------------------------------------------------------------------

    def keep_back(self, frame: Frame, locals_: Mapping[str, Any]) -> None:
        """The locals of the root frame have their values at the first use only."""
        self._root = frame
        for index, name in enumerate(frame.decoded.local_names):
            if name in locals_ and frame.locals[index] is not NULL:
                self._pending[index] = LazyVariableTracker(locals_[name], LocalSource(name))
                frame.locals[index] = NULL

    def kept_back(self, frame: Frame, index: int) -> Any:
        lazy = self._pending.pop(index, None) if frame is self._root else None
        return NULL if lazy is None else lazy.realize(self.tx).value

    def unused_local(self, frame: Frame, index: int) -> LazyVariableTracker | None:
        """What was kept back of a local until now."""
        return self._pending.get(index) if frame is self._root else None

    # -- globals ----------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        value = super().load_global(frame, name)
        if self.effects.wrote(frame.globals, name) or _is_of_namedtuple(frame.globals):
            return self.here(value)
        if name == "_tuple_new" and str(frame.globals.get("__name__")).startswith("namedtuple_"):
            return value  # the globals of a function that collections.namedtuple has made
        if name in frame.globals:
            return self.wrap(value, self._global_source(frame.globals, name))
        return self.wrap(value, AttrSource(ModuleSource("builtins"), name))

    def store_global(self, frame: Frame, name: str, value: Any) -> None:
        self._note_global(frame, name)
        super().store_global(frame, name, value)

    def delete_global(self, frame: Frame, name: str) -> None:
        if name in frame.globals and not self.effects.wrote(frame.globals, name):
            module = self._table_source(frame.globals)
            table = ModuleSource(frame.globals["__name__"]) if module is None else module
            present = functools.partial(guard_kind("DICT_CONTAINS"), key=name)
            install_guard(AttrSource(table, "__dict__").make_guard(present))
        self._note_global(frame, name)
        super().delete_global(frame, name)

    def _note_global(self, frame: Frame, name: str) -> None:
        if self.bodies.is_inside:
            raise self.graph_break(
                f"A function that an operator is given sets the global {name}.",
                why="it is traced once, and may run never or many times when the graph runs",
            )
        module = self._table_source(frame.globals)
        table = ModuleSource(frame.globals["__name__"]) if module is None else module
        self.effects.entry(frame.globals, name, AttrSource(table, "__dict__"))

    def _table_source(self, table: dict[str, Any]) -> Source | None:
        """Where a module's table of globals is read; None for the frame's own."""
        if table is self.function.__globals__:
            return None
        known = self._globals.get(id(table))
        if known is None:
            name = table.get("__name__")
            if table is vars(_collections_abc):
                name = "_collections_abc"  # it calls itself collections.abc
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module is None or vars(module) is not table:
                raise self.graph_break(
                    f"A function reads globals that belong to no imported module ({name!r}).",
                    why="no guard could name them",
                )
            known = self._globals[id(table)] = table, ModuleSource(str(name))
        return known[1]

    def _global_source(self, table: dict[str, Any], name: str) -> Source:
        module = self._table_source(table)
        return GlobalSource(name) if module is None else AttrSource(module, name)

    def _table_of_globals(self) -> Any:
        """``globals()``: the names of the module, known by the module."""
        assert self.machine.current is not None
        table = self.machine.current.globals
        name = table.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is None or vars(module) is not table:
            raise self.graph_break("globals() of a function that belongs to no imported module.")
        return self.wrap(table, AttrSource(ModuleSource(module.__name__), "__dict__"))

    # -- cells ------------------------------------------------------------------------------------

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        value = super().load_cell(frame, cell, name)
        if value is NULL or id(cell) in self._own:
            return value
        if self.effects.is_written(cell):
            return self.here(value)
        if id(cell) not in self._cells and frame.decoded.code.co_filename == collections.__file__:
            return value  # the methods that collections.namedtuple makes share a few built-ins
        return self.wrap(value, self._cell_source(cell, name))

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        self._may_change(cell)
        if id(cell) not in self._own:
            source = self._cell_source(cell, name)
            if not isinstance(source, AttrSource):
                raise self.graph_break(
                    f"The frame sets the variable {name} of an enclosing function.",
                    why="the caller of the frame has no way to its cell",
                )
            self.wrote_cells = True
            self.effects.cell(cell, source.base)
        super().store_cell(frame, cell, name, value)

    def _cell_source(self, cell: CellType, name: str) -> Source:
        known = self._cells.get(id(cell))
        if known is None:
            raise self.graph_break(
                f"The variable {name} belongs to a function of which it is not known where it is.",
                why="no guard could name it",
            )
        return known[1]

    def place_of_cell(self, cell: CellType) -> Source | None:
        """Where a variable from outside is read; None for one of the program's own."""
        known = self._cells.get(id(cell))
        return None if known is None else known[1]

    def note_cells(self, function: FunctionType) -> None:
        """The variables around the frame's own function are locals of the frame."""
        if not is_library_function(function):
            self.behaviour.rely_on_function(function, None)
        self.note_constants(function.__code__.co_consts)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            self._cells[id(cell)] = cell, LocalSource(name, is_cell_or_freevar=True)

    def cells_from_outside(self) -> dict[int, Source]:
        """The variables of enclosing functions that may be read: where their cells are."""
        return {
            key: source.base
            for key, (_, source) in self._cells.items()
            if isinstance(source, AttrSource)
        }

    def _may_change(self, target: Any) -> None:
        """Refuse a write to what the function of an operator, which is traced once, shares."""
        refusal = self.bodies.refusal(target)
        if refusal is not None:
            raise refusal

    # -- the program's own ------------------------------------------------------------------------

    def new_cell(self, cell: CellType) -> None:
        self._own[id(cell)] = cell

    def new_function(self, function: FunctionType) -> None:
        self._own[id(function)] = function

    def is_own_function(self, function: FunctionType) -> bool:
        """Whether the program made a function."""
        return id(function) in self._own


def _is_of_namedtuple(table: dict[str, Any]) -> bool:
    """Whether globals are those of the code that makes a named tuple, which nobody can reach."""
    name = table.get("__name__")
    return isinstance(name, str) and name.startswith("namedtuple_") and name not in sys.modules
