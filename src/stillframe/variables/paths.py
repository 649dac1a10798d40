"""From a value to what it holds: which places can be named, and which values last."""

from __future__ import annotations

import contextlib
import enum
import operator
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from stillframe.frames.lookup import C_KINDS, MISSING, type_lookup
from stillframe.source import (
    AttrSource,
    ModuleSource,
    Source,
    chain,
)

#: The flag of classes that are made when a program runs, and not by C.
HEAP_TYPE = 1 << 9

#: Classes whose values have no identity that counts.
CONSTANTS = (int, float, complex, bool, str, bytes, type(None), type(...), CodeType)

#: Sequences of exactly these classes are read item by item.
SEQUENCES = (tuple, list)

TUPLE_ITERATOR: type = type(iter(()))

#: Attributes of a module that hold what it finds by ``__getattr__``.
MODULE_TABLES = ("_parameters", "_buffers", "_modules")

#: Modules that nobody changes: what is read of them is not checked.
_LIBRARIES = (sys.stdlib_module_names | {"torch", "numpy", "stillframe"}) - {"__main__"}


def is_library(source: Source) -> bool:
    """Whether a path leads into a module that nobody changes."""
    *path, root = chain(source)
    if not isinstance(root, ModuleSource):
        return False
    if any(isinstance(s, AttrSource) and _is_set_by_users(s.member) for s in path):
        return False
    return root.module_name.partition(".")[0] in _LIBRARIES


def is_private(source: Source) -> bool:
    """Whether a path goes through a private name of a module: its own business, such as a cache."""
    return any(
        isinstance(s, AttrSource) and isinstance(s.base, ModuleSource) and s.member.startswith("_")
        for s in chain(source)
    )


def _is_set_by_users(name: str) -> bool:
    """Whether an attribute of a library holds what its users register: hooks for all modules or
    optimizers, the default group of processes."""
    return name.startswith("_global_") or name == "WORLD"


def is_library_name(module: str) -> bool:
    """Whether nobody changes the module of a name."""
    return module.partition(".")[0] in _LIBRARIES


def is_plain(value: Any) -> bool:
    """Whether a value has no identity that counts."""
    if type(value) in CONSTANTS or isinstance(value, torch.dtype | torch.device | torch.layout):
        return True
    return type(value) in (tuple, frozenset) and all(map(is_plain, value))


def is_pinned(value: Any) -> bool:
    """Whether the guards on a value know it by its identity."""
    return isinstance(value, type | ModuleType | FunctionType | BuiltinFunctionType | enum.Enum)


def instance_dict(value: Any) -> Any:
    """The ``__dict__`` of an object, past any code of its class; nothing if it has none."""
    place = type_lookup(type(value), "__dict__")
    return place.__get__(value) if hasattr(type(place), "__get__") else {}


def lasts(holder: Any, name: str, value: Any) -> bool:
    """Whether an attribute is kept by its holder, or the same at every read by C code."""
    names = instance_dict(holder)
    if name in names:
        return names[name] is value
    found = type_lookup(holder if isinstance(holder, type) else type(holder), name)
    if found is MISSING and isinstance(holder, type):
        found = type_lookup(type(holder), name)
    if found is value:
        return True
    if isinstance(holder, torch.nn.Module):
        tables = (names.get(table, {}) for table in MODULE_TABLES)
        if any(table.get(name) is value for table in tables):
            return True
    if hasattr(type(found), "__get__") and type(found).__module__ == "builtins":
        if type(found) in (property, FunctionType, classmethod, staticmethod):
            return False
        with contextlib.suppress(AttributeError):
            return getattr(holder, name) is value
    return False


def lasting_source(value: Any) -> Source | None:
    """The place of a function or class by its module and name."""
    module = sys.modules.get(value.__module__)
    name = value.__qualname__
    if module is None or "<locals>" in name:
        return None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
        found = (
            getattr(found, "__func__", found)
            if isinstance(found, classmethod | staticmethod)
            else found
        )
    return AttrSource(ModuleSource(value.__module__), name) if found is value else None


def library_source(value: Any) -> Source:
    """The place of an object that is known by itself."""
    return AttrSource(ModuleSource("builtins"), getattr(value, "__name__", "object"))


def name_of(function: Any) -> str:
    """The name of a function or method; of other objects nobody is asked."""
    return function.__name__ if type(function) in _NAMED else ""


_NAMED = frozenset(
    {FunctionType, MethodType, *C_KINDS}
    - {type(None), int, str, float, bool, tuple, type(MISSING)}
    - {operator.attrgetter, operator.itemgetter, operator.methodcaller}
)


def is_torch(function: Any) -> bool:
    """Whether a function is one of torch's, or a method of a tensor."""
    module = getattr(function, "__module__", None)
    if isinstance(module, str) and module.partition(".")[0] in ("torch", "torchvision"):
        return True
    owner = getattr(function, "__self__", None)
    if isinstance(owner, torch.Tensor):
        return True
    return type(function).__module__.partition(".")[0] == "torch"
