"""Functions, methods and built-ins."""

from __future__ import annotations

from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any

from stillframe.source import AttrSource
from stillframe.variables.base import MutableLocal, VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.registry import wraps_if
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

_C_KINDS = (
    BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType,
    ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType,
)  # fmt: skip


class UserFunctionVariable(VariableTracker):
    """A function in Python."""

    def reconstruct(self, residue: Residue) -> None:
        """A function of the program's own: its code over what it holds, made again."""
        function: FunctionType = self.value
        residue.load_object(_make_function)
        residue.load_object(function)
        cells = list(function.__closure__ or ())
        for cell in cells:
            residue.value(cell)
        residue.build("[{}]", len(cells))
        residue.value(function.__defaults__)
        residue.value(function.__kwdefaults__)
        residue.call(4)


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
        try:
            contents = cell.cell_contents
        except ValueError:
            return
        residue.dup()
        residue.value(contents)
        residue.do("{0}.cell_contents = {1}", 2)


def _make_function(
    pattern: FunctionType, cells: list[Any], defaults: Any, keyword_defaults: Any
) -> FunctionType:
    made = FunctionType(
        pattern.__code__, pattern.__globals__, pattern.__name__, defaults, tuple(cells)
    )
    made.__kwdefaults__ = keyword_defaults
    made.__qualname__, made.__module__ = pattern.__qualname__, pattern.__module__
    made.__annotations__, made.__doc__ = dict(pattern.__annotations__), pattern.__doc__
    return made


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
    return UserMethodVariable(value, source=builder.source)


@wraps_if(66, "built-in", lambda value: type(value) in _C_KINDS)
def wrap_builtin(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A function of C."""
    if type(value) is BuiltinFunctionType:
        builder.install_guards("BUILTIN_MATCH")
    else:
        builder.install_guards("TYPE_MATCH")
    return BuiltinVariable(value, source=builder.source)


@makes_type(FunctionType)
def make_function(tx: Translator, value: Any) -> VariableTracker:
    """A function: of the program's own, or of a library, which lasts."""
    if tx.is_own_function(value):
        return UserFunctionVariable(value, mutable=MutableLocal())
    return BuiltinVariable(value)


@makes_type(MethodType)
def make_method(tx: Translator, value: Any) -> VariableTracker:
    """A method, bound by the program."""
    return UserMethodVariable(value)


@makes_type(CellType)
def make_cell(tx: Translator, value: Any) -> VariableTracker:
    """A variable of the program's own."""
    return CellVariable(value, mutable=MutableLocal())


@makes_type(*_C_KINDS)
def make_builtin(tx: Translator, value: Any) -> VariableTracker:
    """A function of C."""
    return BuiltinVariable(value)
