"""Functions, methods and built-ins."""

from __future__ import annotations

import contextlib
import sys
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from stillframe.source import AttrSource
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.paths import lasting_source
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.rules import rule_of
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class UserFunctionVariable(VariableTracker):
    """A function in Python."""

    def reconstruct(self, residue: Residue) -> None:
        """A function of the program's own: its code over what it holds, made again."""
        function: FunctionType = self.value
        residue.load_object(_make_function)
        residue.load_object(function.__code__)
        residue.load_object(_globals_of_module(function))
        for cell in function.__closure__ or ():
            residue.value(cell)
        residue.build("[{}]", len(function.__closure__ or ()))
        residue.call(3)
        residue.keep(function)
        for name in ("__defaults__", "__kwdefaults__"):
            if getattr(function, name) is not None:
                self._part(residue, name, getattr(function, name))
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            self._part(residue, name, getattr(function, name))
        if function.__annotations__:
            self._part(residue, "__annotations__", function.__annotations__)
        for name, value in vars(function).items():
            self._part(residue, name, value)

    def _part(self, residue: Residue, name: str, value: Any) -> None:
        residue.dup()
        residue.value(value)
        residue.do(f"setattr({{0}}, {name!r}, {{1}})", 2)


class UserMethodVariable(UserFunctionVariable):
    """A method, bound to its object."""

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(MethodType)
        residue.value(self.value.__func__)
        residue.value(self.value.__self__)
        residue.call(2)


class BuiltinVariable(VariableTracker):
    """A function or class of C."""

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


class CellVariable(VariableTracker):
    """A variable of a function that inner functions share."""

    def reconstruct(self, residue: Residue) -> None:
        cell = self.value
        residue.load_object(type(cell))
        residue.call(0)
        residue.keep(cell)
        with contextlib.suppress(ValueError):  # it is empty
            residue.fill("{0}.cell_contents = {1}", cell.cell_contents)


def _make_function(code: CodeType, globals_: dict[str, Any], cells: list[CellType]) -> FunctionType:
    return FunctionType(code, globals_, closure=tuple(cells))


def _globals_of_module(function: FunctionType) -> dict[str, Any]:
    """The globals of a function: those of a module, which last."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or vars(module) is not function.__globals__:
        raise NotImplementedError(f"{function.__qualname__} has the globals of no module")
    return function.__globals__


@wraps_if(88, "function", lambda value: type(value) is FunctionType)
def wrap_function(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function: one that another function made is new each time, its code is not."""
    if value.__closure__ is not None or "<locals>" in value.__qualname__:
        builder.install_guards("CLOSURE_MATCH")
    else:
        builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, UserFunctionVariable(value))


@wraps_if(90, "method", lambda value: type(value) is MethodType)
def wrap_method(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A method that somebody keeps: its function and its object."""
    builder.install_guards("TYPE_MATCH")
    for part in ("__func__", "__self__"):
        builder.at(AttrSource(builder.source, part))(getattr(value, part))
    made = UserMethodVariable(value, source=builder.source)
    builder.tx.effects.track(value, made)
    return made


@makes_type(FunctionType)
def make_function(tx: Translator, value: Any) -> VariableTracker:
    """A function: of the program's own, or of a library, which lasts."""
    if tx.is_own_function(value):
        return UserFunctionVariable(value, mutable=MutableLocal())
    rule = rule_of(value)
    if rule is not None:
        from stillframe.variables.kinds.trace_rules import make_by_rule

        return make_by_rule(tx, value)
    if lasting_source(value) is None:
        raise tx.graph_break(
            f"The function {value.__qualname__} is from an unknown place.",
            why="code that was not watched has made it, or has kept it",
        )
    return BuiltinVariable(value)


@makes_type(MethodType)
def make_method(tx: Translator, value: Any) -> VariableTracker:
    """A method, bound by the program."""
    return UserMethodVariable(value)


@makes_type(CellType)
def make_cell(tx: Translator, value: Any) -> VariableTracker:
    """A variable of the program's own, or of a function from outside, which shares it."""
    place = tx.place_of_cell(value)
    if place is None:
        return CellVariable(value, mutable=MutableLocal())
    if isinstance(place, AttrSource):
        return CellVariable(value, source=place.base)
    return BuiltinVariable(value)  # of the frame's own function: it lasts as long as that
