"""Numbers from outside: constants, or symbols where they vary."""

from __future__ import annotations

import math
from typing import Any

import torch

from stillframe.context import TracingContext
from stillframe.errors import InternalError
from stillframe.source import is_cell_contents, is_constant_source, is_from_defaults
from stillframe.symbolic import Range
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import COMMON, ConstantVariable
from stillframe.variables.paths import is_library
from stillframe.variables.registry import wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class SymNodeVariable(VariableTracker):
    """A symbolic number: what the graph computes, or an input of it."""

    def as_proxy(self) -> Any:
        return self.value

    def python_type(self) -> type:
        return {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(self.value)]

    def reconstruct(self, residue: Residue) -> None:
        residue.graph_output(self.value)


@wraps_type(int)
def wrap_int(builder: VariableBuilder, value: int) -> VariableTracker:
    """An integer: a constant, or a symbol if it was seen with another value before."""
    if _is_fixed(builder, value) or not _has_varied(builder, value):
        builder.install_guards("CONSTANT_MATCH")
        return ConstantVariable(value)
    return _symbolic_int(builder, value)


def _is_fixed(builder: VariableBuilder, value: int) -> bool:
    source, options = builder.source, builder.tx.options
    if options.specialize_int:
        return True
    if TracingContext.get().force_unspec_int_unbacked_size_like:
        return False
    return (
        value in COMMON
        or not source.guard_source().is_local()
        or source.is_nn_module()
        or is_from_defaults(source)
        or is_cell_contents(source)
        or is_constant_source(source)
    )


def _has_varied(builder: VariableBuilder, value: int) -> bool:
    if TracingContext.get().force_unspec_int_unbacked_size_like:
        return True
    tx = builder.tx
    entry = tx.frame_state.see_number(builder.source.name(), value)
    if not tx.options.assume_static_by_default:
        return True
    return tx.options.automatic_dynamic_shapes and entry.scalar is None


def _symbolic_int(builder: VariableBuilder, value: int) -> VariableTracker:
    tx, source = builder.tx, builder.source
    known = tx.numbers.get(source.name())
    if known is not None:
        return known
    if tx.options.export and not source.guard_source().is_local():
        raise InternalError(f"a new input in export: {value} at {source.name()}")
    if TracingContext.get().force_unspec_int_unbacked_size_like:
        expr = tx.env.new_unbacked()
        tx.env.take_fresh_unbacked()
    else:
        expr = tx.env.new_symbol(
            source.name(), value, Range(-math.inf, math.inf), policy="auto", source=source.name()
        )
    builder.install_guards("TYPE_MATCH")
    symbol = tx.env.wrap(expr)
    tx.inputs.number(source, symbol)
    made = tx.numbers[source.name()] = SymNodeVariable(symbol, source=source)
    return made


@wraps_type(float)
def wrap_float(builder: VariableBuilder, value: float) -> VariableTracker:
    """A float: a constant, or an input of the graph where floats are left open."""
    tx, source = builder.tx, builder.source
    fixed = tx.options.specialize_float or is_constant_source(source) or math.isnan(value)
    if fixed or is_library(source):
        builder.install_guards("CONSTANT_MATCH")
        return ConstantVariable(value)
    known = tx.numbers.get(source.name())
    if known is not None:
        return known
    builder.install_guards("TYPE_MATCH")
    made = SymNodeVariable(tx.inputs.float(source, value), source=source)
    tx.numbers[source.name()] = made
    return made


@makes_type(*_SYMBOLIC)
def make_symbolic(tx: Translator, value: Any) -> VariableTracker:
    """A number that the graph computes."""
    return SymNodeVariable(value)
