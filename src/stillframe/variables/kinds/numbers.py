"""Numbers from outside: constants, or symbols where they vary."""

from __future__ import annotations

import math
from typing import Any

import torch

from stillframe.context import TracingContext
from stillframe.errors import InternalError
from stillframe.shapes.node import SymNode
from stillframe.source import (
    ConvertIntSource,
    LocalSource,
    is_cell_contents,
    is_constant_source,
    is_from_defaults,
)
from stillframe.symbolic import Range, eq
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import COMMON, ConstantVariable
from stillframe.variables.paths import is_library
from stillframe.variables.proxies import EXAMPLE, wrap_fx_proxy, wraps_result
from stillframe.variables.registry import wraps_if, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.stand_ins import NUMBERS
from stillframe.variables.translator import Translator

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class SymNodeVariable(VariableTracker):
    """A symbolic number: what the graph computes, or an input of it."""

    def as_proxy(self) -> Any:
        return self.value

    def python_type(self) -> type:
        return NUMBERS[type(self.value)]

    def reconstruct(self, residue: Residue) -> None:
        residue.graph_output(self.value)


@wraps_type(int)
def wrap_int(builder: VariableBuilder, value: int) -> VariableTracker:
    """An integer: a constant, or a symbol if it was seen with another value before."""
    known = builder.tx.numbers.get(builder.source.name())
    if known is not None:  # it was made a symbol while the context said so
        return known
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
    refuse_new_input(builder, value)
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


def refuse_new_input(builder: VariableBuilder, value: Any) -> None:
    """An exported program takes what its caller gives, and nothing beside.

    Raises:
        InternalError: in export a number that is no plain local would be an input.
    """
    source = builder.source
    plain = isinstance(source, LocalSource) and not source.is_cell_or_freevar
    if builder.tx.options.export and not plain:
        raise InternalError(f"a new input in export: {value!r} at {source.name()}")


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
    refuse_new_input(builder, value)
    builder.install_guards("TYPE_MATCH")
    made = SymNodeVariable(tx.inputs.float(source, value), source=source)
    tx.numbers[source.name()] = made
    return made


@wraps_if(84, "symbolic boolean", lambda value: type(value) is torch.SymBool)
def wrap_symbolic_bool(builder: VariableBuilder, value: torch.SymBool) -> VariableTracker:
    """A boolean of another trace: an input as 0 or 1, which is not asked for its value."""
    tx, source = builder.tx, ConvertIntSource(builder.source)
    known = tx.numbers.get(source.name())
    if known is not None:
        return known
    refuse_new_input(builder, value)
    hint = _hint_of(value)
    if hint is None:
        expr = tx.env.new_unbacked(0, 1)
        tx.env.take_fresh_unbacked()  # the input binds it
    else:
        expr = tx.env.new_symbol(
            source.name(), int(hint), Range(0, 1), policy="auto", source=source.name()
        )
    tx.inputs.number(source, tx.env.wrap(expr))
    made = tx.numbers[source.name()] = SymNodeVariable(
        tx.env.wrap(eq(expr, 1)), source=builder.source
    )
    tx.effects.track(value, made)
    return made


def _hint_of(value: torch.SymBool) -> bool | None:
    node = value.node
    if isinstance(node, SymNode):
        hint = node.env.hint_of(node.expr)
        return None if hint is None else bool(hint)
    return bool(node.require_hint()) if node.has_hint() else None


@wraps_result(108, "symbolic number", lambda node, value: isinstance(value, _SYMBOLIC))
def wrap_symbolic_result(
    tx: Translator, node: torch.fx.Node, value: Any, **options: Any
) -> VariableTracker:
    """A number that a node gives."""
    return SymNodeVariable(value, **options)


@makes_type(*_SYMBOLIC)
def make_symbolic(tx: Translator, value: Any) -> VariableTracker:
    """A number that the graph computes."""
    node = tx.recorder.operand(value)
    if isinstance(node, torch.fx.Node) and EXAMPLE not in node.meta:
        return wrap_fx_proxy(tx, node)
    return SymNodeVariable(value)
