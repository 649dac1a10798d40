"""The Python state around forward that its code can reach: globals, class attributes, closures.

Plain tracing does not see Python run. What the code of a module names tells which state it could
change: the globals and classes of its own file, the variables of enclosing functions, default
arguments, the attributes of its class. Library code is followed only through closures (decorators).
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from stillframe.export.holdings import Holdings, cell_contents, class_attributes

# code of TorchScript (in __torch__) has no Python state
_LIBRARIES = {"torch", "__torch__", "stillframe", *sys.stdlib_module_names} - {"__main__"}


def hold_surroundings(
    holdings: Holdings, modules: list[torch.nn.Module], method: Any = None
) -> None:
    """Take pictures of all that the code of these modules, and of ``method``, names."""
    walk = _Walk(holdings)
    for module in modules:
        walk.visit_classes(type(module))
        walk.visit(vars(module).get("forward"))
        for hook in _hooks(module):
            walk.visit(hook)
    walk.visit(method)
    walk.visit_met_classes()
    walk.hold_globals()


def _hooks(module: torch.nn.Module) -> Iterator[Any]:
    yield from module._forward_hooks.values()
    yield from module._forward_pre_hooks.values()


def _is_library(name: str | None) -> bool:
    return name is None or name.partition(".")[0] in _LIBRARIES


class _Walk:
    """Visits functions and classes, each once."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._seen: set[int] = set()
        self._globals: dict[str | None, tuple[dict[str, Any], dict[str, None]]] = {}

    def visit_classes(self, cls: type) -> None:
        """A class and what it inherits from, but for classes of libraries."""
        for base in cls.__mro__:
            if not _is_library(base.__module__):
                self.visit_class(base)

    def visit_met_classes(self) -> None:
        """The classes of all objects that are held: their methods may run."""
        done: set[type] = set()
        while new := [cls for cls in self._holdings.classes if cls not in done]:
            done.update(new)
            for cls in new:
                self.visit_classes(cls)

    def visit_class(self, cls: type) -> None:
        if id(cls) in self._seen:
            return
        self._seen.add(id(cls))
        path = f"the attribute {{}} of class {cls.__qualname__}"
        self._holdings.hold_class(path, cls)
        for name, value in class_attributes(cls).items():
            self._holdings.hold(path.format(name), value)
        for value in vars(cls).values():
            self.visit(value)

    def visit(self, value: Any) -> None:
        """A function, or something that stands for one."""
        for function in _functions(value):
            if id(function) not in self._seen and not _is_library(function.__module__):
                self._seen.add(id(function))
                self._visit_function(function)

    def _visit_function(self, function: types.FunctionType) -> None:
        name = function.__qualname__
        self._holdings.hold_function(f"the function {name}", function)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._holdings.hold(f"a default argument of {name}", default)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for variable, cell in cells:
            path = f"the variable {variable} around {name}"
            self._holdings.hold_cell(path, cell)
            for value in cell_contents(cell).values():
                self._hold(path, value)
        self._visit_globals(function)

    def _hold(self, path: str, value: Any) -> None:
        """What a variable around a function holds."""
        if isinstance(value, type):
            self.visit_classes(value)
        elif isinstance(value, functools.partial):
            self._holdings.hold(f"{path}.args", value.args)
            self._holdings.hold(f"{path}.keywords", value.keywords)
        else:
            self._holdings.hold(path, value)
        self.visit(value)

    def _visit_globals(self, function: types.FunctionType) -> None:
        file, table = function.__module__, function.__globals__
        _, watched = self._globals.setdefault(file, (table, {}))
        for name in _names(function.__code__):
            value = table.get(name)
            if name not in table or isinstance(value, types.ModuleType):
                continue
            watched[name] = None
            if not isinstance(value, (type, types.FunctionType)):
                self._holdings.hold(f"the global {name} of {file}", value)
            elif value.__module__ == file:
                if isinstance(value, type):
                    self.visit_class(value)
                else:
                    self.visit(value)

    def hold_globals(self) -> None:
        """The names themselves, once it is known which."""
        for file, (table, names) in self._globals.items():
            self._holdings.hold_names(f"the global {{}} of {file}", table, names)


def _functions(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, (types.MethodType, classmethod, staticmethod)):
        yield from _functions(value.__func__)
    elif isinstance(value, property):
        for accessor in (value.fget, value.fset):
            yield from _functions(accessor)
    elif isinstance(value, functools.partial):
        yield from _functions(value.func)
    elif isinstance(value, functools._lru_cache_wrapper):
        yield from _functions(value.__wrapped__)


@functools.lru_cache(maxsize=8192)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Names that the code, or code inside of it, may look up among its globals."""
    found = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(_names(constant)))
    return tuple(found)
