"""The functions that the names of sources call: reads that no plain expression can say."""

from __future__ import annotations

import collections
import gc
import sys
from typing import Any

import torch

from stillframe import torch_private


def dict_key(table: dict[Any, Any], index: int) -> Any:
    """The ``index``-th key."""
    return list(dict.keys(table))[index]


def tuple_iterator_item(iterator: Any, index: int) -> Any:
    """The ``index``-th of the items that are left; the iterator stays where it is.

    Raises:
        IndexError: there are not so many.
    """
    _, arguments, *position = iterator.__reduce__()
    return arguments[0][(position[0] if position else 0) + index]


def content(container: Any, index: int) -> Any:
    """The ``index``-th of what a container holds, values of a dict, in the order of iteration.

    The container's own class may answer ``[]`` in its own way, or not at all.
    """
    if isinstance(container, collections.OrderedDict):
        return list(collections.OrderedDict.values(container))[index]
    if isinstance(container, dict):
        return list(dict.values(container))[index]
    base = next(c for c in (list, tuple, collections.deque, set, frozenset, object)
                if isinstance(container, c))  # fmt: skip
    return list(base.__iter__(container))[index]  # type: ignore[attr-defined]


def viewed_dict(view: Any) -> Any:
    """The dict that a view of keys, values or items shows, or a read-only mapping."""
    return gc.get_referents(view)[0]


def array_as_tensor(array: Any) -> torch.Tensor:
    """A tensor that shares the memory of a NumPy array."""
    return torch.as_tensor(array)


def number_as_tensor(number: Any) -> torch.Tensor:
    """A tensor of Python's precision: float64 for a float, whatever the default dtype is."""
    dtypes = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}
    return torch.tensor(number, dtype=dtypes[type(number)])


def bool_as_int(value: Any) -> Any:
    """0 or 1; a symbolic boolean becomes a symbolic integer without being asked.

    Raises:
        TypeError: it is no boolean.
    """
    if isinstance(value, torch.SymBool):
        return torch.sym_ite(value, 1, 0)
    if type(value) is not bool:
        raise TypeError(f"no boolean: {type(value).__name__}")
    return int(value)


def inner_tensor_names(tensor: Any) -> list[str]:
    """The names of the inner tensors of a wrapper subclass."""
    names: list[str] = tensor.__tensor_flatten__()[0]
    return names


def inner_tensor_context(tensor: Any) -> Any:
    """What a wrapper subclass keeps beside its inner tensors."""
    return tensor.__tensor_flatten__()[1]


def script_class_name(script_object: Any) -> str:
    """The qualified name of the class of a script object."""
    return torch_private.script_class_name(script_object)


def flattened_script_object(script_object: Any) -> Any:
    """What a script object is made of."""
    return script_object.__obj_flatten__()


def class_of(value: Any) -> type:
    """The class of a value, whatever the value says of it."""
    return type(value)


def instance_dict(value: Any) -> Any:
    """The ``__dict__`` of an object, past any code of its class."""
    return object.__getattribute__(value, "__dict__")


def imported(name: str) -> Any:
    """A module that has been imported."""
    return sys.modules[name]


HELPERS: dict[str, Any] = {
    function.__name__: function
    for function in (
        dict_key, tuple_iterator_item, content, viewed_dict, array_as_tensor, number_as_tensor,
        bool_as_int, inner_tensor_names, inner_tensor_context, script_class_name,
        flattened_script_object, class_of, instance_dict, imported,
    )
}  # fmt: skip
