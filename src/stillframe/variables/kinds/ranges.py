"""Slices and ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stillframe.source import AttrSource, Source
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

PARTS = ("start", "stop", "step")


class SliceVariable(VariableTracker):
    """A slice; its parts may be numbers that vary."""

    def as_proxy(self) -> Any:
        return self.value

    def contents(self) -> Iterator[tuple[Any, Source]]:
        assert self.source is not None
        for part in PARTS:
            yield getattr(self.value, part), AttrSource(self.source, part)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(type(self.value))
        for part in PARTS:
            residue.value(getattr(self.value, part))
        residue.call(len(PARTS))


class RangeVariable(SliceVariable):
    """A range. C code makes its integers, so they are fixed."""


@wraps_type(slice)
def wrap_slice(builder: VariableBuilder, value: slice) -> VariableTracker:
    """A slice, of the parts that the program sees."""
    builder.install_guards("TYPE_MATCH")
    tx, source = builder.tx, builder.source
    parts = [tx.wrap(getattr(value, part), AttrSource(source, part)) for part in PARTS]
    return builder.set_source_and_track(value, SliceVariable(slice(*parts)))


@wraps_type(range)
def wrap_range(builder: VariableBuilder, value: range) -> VariableTracker:
    """A range of fixed numbers."""
    builder.install_guards("TYPE_MATCH")
    for part in PARTS:
        builder.at(AttrSource(builder.source, part)).install_guards("CONSTANT_MATCH")
    return builder.set_source_and_track(value, RangeVariable(value))


@makes_type(slice)
def make_slice(tx: Translator, value: slice) -> VariableTracker:
    """A slice of the program's own."""
    return SliceVariable(value)


@makes_type(range)
def make_range(tx: Translator, value: range) -> VariableTracker:
    """A range of the program's own."""
    return RangeVariable(value)
