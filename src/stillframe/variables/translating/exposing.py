"""What code in C sees: all that a container holds is relied on before it is handed over."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch

from stillframe.source import Source
from stillframe.variables.base import LazyVariableTracker
from stillframe.variables.c_code import COMPARED, HOLDERS, is_compared_by_c, raw_items, with_items
from stillframe.variables.paths import CONSTANTS, SEQUENCES
from stillframe.variables.side_effects import contents_of
from stillframe.variables.stand_ins import NATIVE, NUMBERS
from stillframe.variables.translating.values import Values


class Exposing(Values):
    """Values are made ready for code that is not run by the machine."""

    def expose(self, value: Any, *, deep: bool = True) -> None:
        """C code sees all that a container from outside holds: what is constant is relied on, the
        rest is known by its identity.

        Args:
            deep: it looks into containers in the container, too.
        """
        variable = self.variable(value)
        if variable is None or variable.source is None:
            return
        exposed = self._exposed.get(id(value))
        if exposed is not None and (exposed[1] or not deep):
            return
        self._exposed[id(value)] = value, deep
        variable.rely_on_order(self.tx)
        if self.effects.has_other_contents(value):
            if deep:  # what was there before is known
                for item in contents_of(value):
                    self.expose(item)
            return
        for item, place in variable.contents():
            if variable.handles_items and variable.is_own(self.tx, place):
                continue
            self.expose_item(item, place)
            if deep:
                self.expose(item)
            self.arrays.note_held(value, item)

    def expose_item(self, item: Any, place: Source) -> None:
        """C code sees what is read at a place."""
        if type(item) in CONSTANTS or isinstance(item, torch.dtype | torch.device | torch.layout):
            self.builder(place).install_guards("CONSTANT_MATCH")
            return
        known = self.effects.tracker(item)
        if known is None:
            self.effects.track(item, LazyVariableTracker(item, place))
        else:
            self.builder(place).same_object(item, known)

    def settle(self, *values: Any) -> None:
        """C code is about to compare or hash values: it must not meet Python code, and what it sees
        of objects from outside is relied on.

        Raises:
            FrameError: it would run a comparison in Python.
        """
        met: set[int] = set()
        pending = list(values)
        while pending:
            value = pending.pop()
            is_nan = type(value) is float and value != value  # C takes one NaN for itself
            if (type(value) in CONSTANTS and not is_nan) or isinstance(value, NATIVE):
                continue
            if id(value) in met:
                continue
            met.add(id(value))
            if not isinstance(value, set):  # its elements are known, their order is not seen
                self.expose(value)
            variable = self.variable(value)
            cls = type(value) if variable is None else variable.python_type()
            if isinstance(value, HOLDERS):
                pending += raw_items(value)
            if not is_nan and is_compared_by_c(cls):
                continue
            raise self.graph_break(
                f"C code compares or hashes a value of class {cls.__qualname__}.",
                why="the class has a comparison of its own, and what it reads would not be seen",
                hints=["compare in Python: any(item == value for item in items)"],
            )

    # -- constants --------------------------------------------------------------------------------

    def is_code_constant(self, value: Any) -> bool:
        """Whether a tuple or frozenset is one that the program's code, or a key, may give, too."""
        return id(value) in self._code_constants

    def note_constants(self, values: Iterable[Any]) -> None:
        """The program gets these constants without reading a place."""
        for value in values:
            if type(value) not in (tuple, frozenset) or id(value) in self._code_constants:
                continue
            self._code_constants[id(value)] = value
            self.note_constants(value)
            known = self.effects.tracker(value)
            if known is not None and known.source is not None:
                self.builder(known.source).install_guards("ID_MATCH")

    # -- what is handed over ----------------------------------------------------------------------

    def for_torch(self, value: Any) -> Any:
        """A container for a function of torch, with what stands for the items in place of them.

        One in which nothing is replaced is given as it is, which a function may fill.
        """
        value = self.here(value)
        if isinstance(value, dict):
            held = list(dict.values(value))
        elif isinstance(value, (list, tuple)):
            held = raw_items(value)
        else:
            self.expose(value)
            return value
        variable = self.variable(value)
        is_outside = variable is not None and variable.source is not None
        if is_outside and type(value) in SEQUENCES:
            items = [self.for_torch(item) for item in self.tx.each(value)]
        else:
            self.expose(value)
            items = [self.for_torch(item) for item in held]
        if all(map(operator.is_, items, held)):
            return value
        return with_items(value, items)

    def definite(self, value: Any, inside: tuple[Any, ...] = ()) -> Any:
        """A value of which C code makes text: symbolic numbers are fixed.

        Args:
            inside: the containers that it is in, one of which it may be.

        Raises:
            FrameError: the text would show what is in a tensor.
        """
        value = self.here(value)
        if isinstance(value, torch.Tensor):
            raise self.graph_break(
                "The frame makes text of a tensor.",
                why="what is in it is not known",
                hints=["use its shape or dtype"],
            )
        if type(value) in NUMBERS:
            return NUMBERS[type(value)](value)
        variable = self.variable(value)
        if variable is not None and variable.source is not None:
            self.expose(value)
        if isinstance(value, COMPARED) and not any(value is outer for outer in inside):
            inside = (*inside, value)
            held = list(dict.values(value)) if isinstance(value, dict) else raw_items(value)
            items = [self.definite(item, inside) for item in held]
            same = all(map(operator.is_, items, held))
            return value if same else with_items(value, items)
        return value
