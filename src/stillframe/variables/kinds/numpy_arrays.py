"""NumPy: arrays and scalars are tensors of the graph, functions are those on tensors."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import numpy as np
import torch

from stillframe.source import AttrSource, NumpyTensorSource
from stillframe.variables.arrays import FakeArray, FakeScalar, torch_dtype_of
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.user_objects import UserDefinedClassVariable
from stillframe.variables.kinds.wrappers import LambdaVariable
from stillframe.variables.registry import wraps_if, wraps_object, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_if, makes_type
from stillframe.variables.translator import Translator

# -- arrays ----------------------------------------------------------------------------------------


class NumpyNdarrayVariable(VariableTracker):
    """An array; its value is what stands for it, over a tensor of the graph."""

    def as_proxy(self) -> Any:
        return self.value.tensor.fx_node

    def python_type(self) -> type:
        found: type = self.value.numpy_class
        return found

    def var_getattr(self, tx: Translator, name: str) -> Any:
        return getattr(self.value, name)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(_as_scalar if type(self.value) is FakeScalar else _as_array)
        residue.graph_output(self.value.tensor)
        residue.load_constant(self.value.writeable)
        residue.call(2)


class UnspecializedPythonVariable(NumpyNdarrayVariable):
    """A number of NumPy: a 0-dim tensor of the graph. It is not fixed.

    Args:
        raw_value: the number of the capture.
    """

    def __init__(self, value: Any, raw_value: Any, **options: Any) -> None:
        super().__init__(value, **options)
        self.raw_value = raw_value


def _as_array(tensor: torch.Tensor, writeable: bool) -> Any:
    array = tensor.resolve_conj().resolve_neg().numpy()
    if not writeable:
        array.setflags(write=False)
    return array


def _as_scalar(tensor: torch.Tensor, writeable: bool) -> Any:
    return tensor.resolve_conj().resolve_neg().numpy()[()]


def _check(builder: VariableBuilder, value: Any) -> None:
    if not builder.tx.options.trace_numpy:
        raise builder.tx.graph_break(
            f"The frame uses a value of NumPy ({builder.source.name()}).",
            why="the capture was asked to leave NumPy alone",
            hints=["Options(trace_numpy=True)"],
        )
    if torch_dtype_of(value.dtype) is None:
        raise builder.tx.graph_break(
            f"An array of dtype {value.dtype} ({builder.source.name()}).",
            why="tensors have no such dtype",
        )


@wraps_type(np.ndarray)
def wrap_array(builder: VariableBuilder, value: Any) -> VariableTracker:
    """An array from outside: a graph input that shares its memory."""
    _check(builder, value)
    tx, source = builder.tx, builder.source
    if any(stride < 0 or stride % value.itemsize for stride in value.strides):
        raise tx.graph_break(
            f"An array with negative or odd strides ({source.name()}).",
            why="tensors have no such layout",
            hints=["copy it first: np.ascontiguousarray(array)"],
        )
    builder.install_guards("TYPE_MATCH")
    flags = AttrSource(source, "flags")
    builder.at(AttrSource(flags, "writeable"))(value.flags.writeable)
    fake = tx.inputs.tensor(NumpyTensorSource(source), tx.arrays.real_tensor(value))
    array = FakeArray(tx.arrays, fake, value.flags.writeable)
    made = NumpyNdarrayVariable(array, source=source)
    tx.effects.track(value, made)
    tx.effects.track(array, made)
    return made


@makes_type(FakeArray, FakeScalar)
def make_array(tx: Translator, value: Any) -> VariableTracker:
    """An array that the graph computes."""
    return NumpyNdarrayVariable(value)


@makes_type(np.ndarray)
def make_unwatched_array(tx: Translator, value: Any) -> VariableTracker:
    """An array that code made which is not watched: it may hold what varies."""
    raise tx.graph_break(
        "The frame gives away an array that was not made by functions of NumPy that are captured."
    )


# -- scalars and dtypes ----------------------------------------------------------------------------


@wraps_if(56, "scalar of NumPy", lambda value: isinstance(value, np.generic))
def wrap_scalar(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A scalar from outside: a graph input of no dims."""
    _check(builder, value)
    tx, source = builder.tx, builder.source
    known = tx.numbers.get(source.name())
    if known is not None:
        return known
    builder.install_guards("TYPE_MATCH")
    fake = tx.inputs.tensor(NumpyTensorSource(source), tx.arrays.real_tensor(value))
    scalar = FakeScalar(tx.arrays, fake)
    made = UnspecializedPythonVariable(scalar, value, source=source)
    tx.numbers[source.name()] = made
    tx.effects.track(scalar, made)
    return made


@makes_if(56, "scalar of NumPy", lambda value: isinstance(value, np.generic))
def make_scalar(tx: Translator, value: Any) -> VariableTracker:
    """A scalar that NumPy computed from what is known now."""
    return ConstantVariable(value)


class NumpyDTypeVariable(VariableTracker):
    """A dtype of NumPy, or the class of its scalars."""

    handles_calls = True

    def is_python_constant(self) -> bool:
        return True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(isinstance(tx.here(value), FakeArray) for value in args):
            raise tx.arrays.refusal(
                f"An array is given to {self.value.__name__}().", ["array.astype(dtype)"]
            )
        return tx.call_plainly(self.value, args, kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


def _is_dtype(value: Any) -> bool:
    if isinstance(value, np.dtype):
        return True
    return isinstance(value, type) and issubclass(value, np.generic)


@wraps_if(58, "dtype of NumPy", _is_dtype)
def wrap_dtype(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A dtype: there is one object for each that tensors have."""
    builder.install_guards("ID_MATCH")
    return NumpyDTypeVariable(value, source=builder.source)


@makes_if(58, "dtype of NumPy", lambda value: isinstance(value, np.dtype))
def make_dtype(tx: Translator, value: Any) -> VariableTracker:
    """A dtype that was asked for."""
    return NumpyDTypeVariable(value)


class NumpyTypeInfoVariable(VariableTracker):
    """The limits of a dtype."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        return getattr(self.value, name)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(type(self.value))
        residue.value(self.value.dtype)
        residue.call(1)


@wraps_type(np.finfo)
def wrap_float_limits(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``np.finfo``: NumPy keeps one object for each dtype."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, NumpyTypeInfoVariable(value))


@wraps_type(np.iinfo)
def wrap_integer_limits(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``np.iinfo``: made anew each time, so its dtype counts."""
    builder.install_guards("TYPE_MATCH")
    builder.at(AttrSource(builder.source, "dtype")).install_guards("ID_MATCH")
    return builder.track_object(value, NumpyTypeInfoVariable(value))


@makes_type(np.finfo, np.iinfo)
def make_limits(tx: Translator, value: Any) -> VariableTracker:
    """Limits that the program asked for."""
    return NumpyTypeInfoVariable(value)


def _limits(cls: Any) -> Any:
    def answer(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return cls(*(tx.here(value) for value in args), **kwargs)

    return answer


@wraps_object(np.finfo, np.iinfo)
def wrap_limits_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The classes: their code is NumPy's, and keeps what it has made."""
    builder.install_guards("FUNCTION_MATCH")
    return LambdaVariable(value, _limits(value), source=builder.source)


# -- other objects and classes of NumPy ------------------------------------------------------------

_REFUSED = (np.ndarray, np.random.Generator, np.random.RandomState, np.random.BitGenerator)


@wraps_if(56.5, "other arrays, and generators", lambda value: isinstance(value, _REFUSED))
def wrap_refused(builder: VariableBuilder, value: Any) -> VariableTracker:
    """Matrices, masked arrays, and what draws random numbers: code of C would use their data."""
    raise builder.tx.graph_break(
        f"The frame uses a {type(value).__name__} of NumPy ({builder.source.name()}).",
        why="what C code makes of its data would be fixed",
        hints=["np.asarray(value) outside of the frame", "draw the numbers outside, or by torch"],
    )


class NumpyClassVariable(UserDefinedClassVariable):
    """A class of NumPy. Its objects would hold arrays that nobody watches."""

    handles_calls = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.value is np.errstate and _is_quiet(kwargs.values()) and not args:
            return contextlib.nullcontext()  # it says which warnings are shown
        raise tx.arrays.refusal(f"The frame makes a {self.value.__name__} of NumPy.")


def _is_quiet(modes: Any) -> bool:
    return all(mode in ("ignore", "warn") for mode in modes)


def _is_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__.partition(".")[0] == "numpy"


@wraps_if(58.5, "class of NumPy", _is_class)
def wrap_numpy_class(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A class of NumPy, known by its identity."""
    builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, NumpyClassVariable(value))


# -- modules and functions -------------------------------------------------------------------------


class NumpyVariable(VariableTracker):
    """A module or a function of NumPy."""

    @property
    def handles_calls(self) -> bool:  # type: ignore[override]
        return not isinstance(self.value, ModuleType)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tx.arrays.call(self.value, args, kwargs)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


_DISPATCHED = type(np.concatenate)


def _is_numpy(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] == "numpy"
    if isinstance(value, (np.ufunc, _DISPATCHED)):
        return True
    if isinstance(value, type) or not callable(value):
        return False
    module = getattr(value, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == "numpy"


@wraps_if(57, "NumPy", _is_numpy)
def wrap_numpy(builder: VariableBuilder, value: Any) -> VariableTracker:
    """NumPy itself, one of its modules, or a function of these."""
    if isinstance(value, ModuleType):
        builder.install_guards("TYPE_MATCH", "ID_MATCH")
    else:
        builder.install_guards("FUNCTION_MATCH")
    return builder.track_object(value, NumpyVariable(value))
