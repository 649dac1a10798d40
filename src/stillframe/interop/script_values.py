"""Values of TorchScript as Python values: types of arguments, named tuples, dtypes as numbers.

In TorchScript a dtype, a layout and a memory format are integers, and stay integers here. Text made
of numbers that Python and TorchScript write differently is marked, so that it cannot leave.
"""

from __future__ import annotations

import collections
import functools
import inspect
import keyword
import warnings
from collections.abc import Callable
from typing import Any

import torch

from stillframe.errors import InvalidInput, NotSupported

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class InexactText(str):
    """Text that TorchScript may write with other digits, good enough for messages only."""


class Instance:
    """An object of a TorchScript class that the program made itself."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


def is_symbolic(value: Any) -> bool:
    """Whether a value is, or a container holds, a symbolic number."""
    if isinstance(value, (list, tuple)):
        return any(is_symbolic(v) for v in value)
    if isinstance(value, dict):
        return any(is_symbolic(v) for v in value.values())
    return isinstance(value, SYMBOLIC)


def holds_tensor(value: Any) -> bool:
    """Whether a value is, or a container holds, a tensor."""
    if isinstance(value, (list, tuple)):
        return any(holds_tensor(v) for v in value)
    if isinstance(value, dict):
        return any(holds_tensor(v) for pair in value.items() for v in pair)
    return isinstance(value, torch.Tensor)


# -- numbers that stand for things of torch --------------------------------------------------------


@functools.cache
def dtypes() -> dict[int, torch.dtype]:
    """Number -> dtype. Asked of torch, with the warnings of experimental dtypes left out."""
    found: dict[int, torch.dtype] = {}
    with warnings.catch_warnings(), torch.utils._python_dispatch._disable_current_modes():
        warnings.simplefilter("ignore")
        for dtype in {v for v in vars(torch).values() if isinstance(v, torch.dtype)}:
            found[int(torch.ops.prim.dtype(torch.empty(0, dtype=dtype, device="meta")))] = dtype
    return found


#: The numbers of ``c10::MemoryFormat``.
MEMORY_FORMATS = {
    0: torch.contiguous_format,
    1: torch.preserve_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
}


def dtype_of(number: int | None) -> torch.dtype | None:
    """The dtype that a number stands for."""
    return None if number is None else dtypes()[number]


def number_of(dtype: torch.dtype) -> int:
    """The number that stands for a dtype."""
    return next(number for number, known in dtypes().items() if known is dtype)


# -- results --------------------------------------------------------------------------------------


def make_tuple(type_: Any, values: list[Any]) -> tuple[Any, ...]:
    """A tuple of the TorchScript type ``type_``, which may be a named one."""
    text = type_.str() if type_ is not None and type_.kind() == "TupleType" else ""
    name = str(type_.annotation_str).rpartition(".")[2] if text else ""
    if not text.startswith("NamedTuple("):
        return tuple(values)
    return _named_tuple(name, tuple(_field_names(text)))(*values)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1024)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    return collections.namedtuple(name, fields, module="__torch__")


def _field_names(text: str) -> list[str]:
    """``["a", "b"]`` of ``NamedTuple(a : Tensor, b : (int, int))``."""
    names, depth, start = [], 0, len("NamedTuple(")
    for i, letter in enumerate(text):
        depth += letter in "([{"
        depth -= letter in ")]}"
        if (letter == "," and depth == 1) or (depth == 0 and i > start and letter == ")"):
            names.append(text[start:i].partition(":")[0].strip())
            start = i + 1
    return names


def check_result(value: Any) -> Any:
    """Raise for text whose exact form only TorchScript knows."""
    if isinstance(value, InexactText):
        raise NotSupported(
            "A text with numbers in it reaches a result of the TorchScript program.",
            why="TorchScript writes numbers in a way of its own, so the text would differ",
            hints=["return the numbers themselves"],
        )
    if isinstance(value, Instance):
        raise NotSupported(
            "An object of a TorchScript class is a result, which a program cannot return."
        )
    if isinstance(value, (list, tuple)):
        for part in value:
            check_result(part)
    if isinstance(value, dict):
        for pair in value.items():
            check_result(pair)
    return value


# -- arguments ------------------------------------------------------------------------------------


def signature_of(schema: Any, *, is_method: bool) -> inspect.Signature:
    """The parameters of a TorchScript schema, as Python shows them."""
    parameters = []
    for i, argument in enumerate(schema.arguments[1 if is_method else 0 :]):
        name = argument.name
        if not name.isidentifier() or keyword.iskeyword(name):
            name = f"arg{i}"
        default = (
            argument.default_value if argument.has_default_value() else inspect.Parameter.empty
        )
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def to_script(value: Any, type_: Any, path: str) -> Any:
    """What TorchScript makes of an argument: containers are copied, an int may become a float.

    Raises:
        InvalidInput: the value is not of the type.
        NotSupported: the type is one that a program cannot take.
    """
    kind = type_.kind()
    if kind == "OptionalType":
        inner = type_.containedTypes()[0]
        return None if value is None else to_script(value, inner, path)
    convert = _SCALARS.get(kind)
    if convert is not None:
        found = convert(value)
    elif kind in _CONTAINERS:
        found = _CONTAINERS[kind](value, type_, path)
    else:
        raise NotSupported(f"{path} is of the TorchScript type {type_}, which no program takes.")
    if found is None and kind != "NoneType":
        raise InvalidInput(f"{path} must be a {type_}, got {type(value).__name__}.")
    return found


def _only(*kinds: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kinds) else None


def _to_int(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (int, torch.SymInt)) else None


def _to_float(value: Any) -> Any:
    if isinstance(value, torch.SymInt):
        return torch.sym_float(value)
    if isinstance(value, int):
        return float(value)
    return value if isinstance(value, (float, torch.SymFloat)) else None


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "TensorType": _only(torch.Tensor),
    "IntType": _to_int,
    "FloatType": _to_float,
    "BoolType": _only(bool, torch.SymBool),
    "StringType": _only(str),
    "NumberType": _only(int, float, bool, *SYMBOLIC),
    "NoneType": lambda value: value,
}


def _list(value: Any, type_: Any, path: str) -> list[Any] | None:
    inner = type_.containedTypes()[0]
    if not isinstance(value, (list, tuple)):
        return None
    return [to_script(v, inner, f"{path}[{i}]") for i, v in enumerate(value)]


def _tuple(value: Any, type_: Any, path: str) -> tuple[Any, ...] | None:
    inner = type_.containedTypes()
    if not isinstance(value, tuple) or len(value) != len(inner):
        return None
    parts = zip(value, inner, strict=True)
    return make_tuple(type_, [to_script(v, t, f"{path}[{i}]") for i, (v, t) in enumerate(parts)])


def _dict(value: Any, type_: Any, path: str) -> dict[Any, Any] | None:
    key, inner = type_.containedTypes()
    if not isinstance(value, dict):
        return None
    return {
        to_script(k, key, f"a key of {path}"): to_script(v, inner, f"{path}[{k!r}]")
        for k, v in value.items()
    }


_CONTAINERS: dict[str, Callable[[Any, Any, str], Any]] = {
    "ListType": _list,
    "TupleType": _tuple,
    "DictType": _dict,
}
