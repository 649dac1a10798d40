"""The world around a program under strict capture: what was reached in it, by which path.

An object that was there before the capture is known by its source, the path by which the program
reached it first (``self.config``, ``the global module.TABLE``). A picture of it is taken then,
before the program can change it. What the journal of writes does not see, because C code did it or
Python that ran natively, the pictures show at the end.
"""

from __future__ import annotations

import collections
import functools
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, GeneratorType, ModuleType
from typing import Any

import torch

from stillframe.export.holdings import Holdings
from stillframe.export.journal import refusal
from stillframe.frames.frame import NULL
from stillframe.frames.lookup import type_lookup

#: Values that cannot be changed, or whose changes are seen elsewhere.
_UNTRACKED = (
    int, float, complex, str, bytes, bool, type(None), torch.Tensor, torch.dtype, torch.device,
    BuiltinFunctionType, ModuleType,
)  # fmt: skip

#: Values that a program fixes and that a reader of its notes can compare.
_NOTED = (bool, int, float, str, bytes)

_LIBRARIES = (sys.stdlib_module_names | {"torch"}) - {"__main__"}


class Outside:
    """Objects from before the capture.

    Args:
        modules: the captured modules, whose own changes somebody else judges.

    Attributes:
        notes: sentences about the values from outside that the program relies on, in order.
    """

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        self.notes: dict[str, None] = {}
        self._sources: dict[int, tuple[Any, str]] = {}
        modules = list(modules)
        tables = [table for m in modules for table in (m.__dict__, *m.__dict__.values())
                  if type(table) in (dict, collections.OrderedDict)]  # fmt: skip
        self._pictures = Holdings(map(id, [*modules, *tables]))
        for module in modules:
            self.mark_class(type(module))

    def mark(self, value: Any, source: str) -> None:
        """Remember by which path an object was reached; the first one counts."""
        if isinstance(value, _UNTRACKED) or id(value) in self._sources:
            return
        if isinstance(value, _NAMED):
            source = _lasting_name(value) or source
        self._sources[id(value)] = (value, source)
        if isinstance(value, type):
            self._hold(f"the attribute {{}} of {source}", value)
            return
        self._hold(source, value)
        self.mark_class(type(value))

    def mark_class(self, cls: type) -> None:
        """The class of an object from outside, and what it inherits from."""
        for base in cls.__mro__:
            if id(base) not in self._sources and not is_library(base.__module__):
                self.mark(base, base.__qualname__)

    def _hold(self, path: str, value: Any) -> None:
        if path.endswith(".__dict__") or path.startswith("the globals of"):
            return  # another view of an object that has its picture, or of a module's names
        if not is_standard(path) and not is_library(getattr(value, "__module__", "")):
            self._pictures.hold_one(path, value)

    def mark_items(self, value: Any, source: str) -> None:
        """What a container holds is about to be seen."""
        if isinstance(value, dict):
            for key, item in value.items():
                self.mark(item, f"{source}[{key!r}]")
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            for index, item in enumerate(value):
                self.mark(item, f"{source}[{index}]")

    def source(self, value: Any) -> str | None:
        """The path by which an object was reached; None for one that the program made."""
        found = self._sources.get(id(value))
        if found is not None:
            return found[1]
        return _lasting_name(value) if isinstance(value, _NAMED) else None

    # -- what is fixed ----------------------------------------------------------------------------

    def read(self, source: str, value: Any) -> None:
        """A value was read from a place outside; of the module's own, everybody knows."""
        if type(value) in _NOTED and not is_standard(source) and not _is_own(source):
            self.notes[f"{source} is {value!r}, as it was at export"] = None
        self.mark(value, source)

    def note_answer(self, question: str, source: str, value: Any) -> None:
        """A question about an object outside was answered: ``len() of`` it, and the like."""
        if type(value) in _NOTED and not is_standard(source) and not _is_own(source):
            self.notes[f"{question} {source} was {value!r} at export"] = None

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Compare with the pictures, and put back what can be.

        Raises:
            SideEffectError: something changed that no instruction of the program wrote.
        """
        changed = [path for path, _ in self._pictures.changed()]
        self._pictures.restore()
        if changed:
            raise refusal(f"changes {changed[0]}", [])


#: Kinds of objects whose name tells where they are.
_NAMED = (type, ModuleType, FunctionType)


def is_standard(source: str) -> bool:
    """Whether a path leads into the standard library, or into torch."""
    return source.removeprefix("the global ").partition(".")[0] in _LIBRARIES


def _is_own(source: str) -> bool:
    return source == "self" or source.startswith(("self.", "self["))


def is_library(name: Any) -> bool:
    """Whether a module is one of the standard library, or of torch."""
    return isinstance(name, str) and name.partition(".")[0] in _LIBRARIES


def _lasting_name(value: Any) -> str | None:
    """The name of a module, or of a function or class that no function made; else None."""
    name: str = getattr(value, "__qualname__", value.__name__)
    return None if "<locals>" in name else name


def is_held(holder: Any, name: str, value: Any) -> bool:
    """Whether ``holder`` keeps ``value``, rather than computing it for this read."""
    names = getattr(holder, "__dict__", {})
    if names.get(name, NULL) is value:
        return True
    if type_lookup(holder if isinstance(holder, type) else type(holder), name) is value:
        return True
    return isinstance(holder, torch.nn.Module) and names.get("_modules", {}).get(name) is value


def is_spent_by_use(value: Any) -> bool:
    """Whether looking at the items of ``value`` uses them up: an iterator of C, a generator."""
    kind = type(value)
    return kind is GeneratorType or (
        hasattr(kind, "__next__") and kind.__module__ in ("builtins", "itertools")
    )


# -- caches of functions --------------------------------------------------------------------------


def is_warm(cached: functools._lru_cache_wrapper[Any], args: tuple[Any, ...]) -> bool:
    """Whether the answer of an ``lru_cache`` to these arguments, and no keywords, is known."""
    import gc

    kept = (part for part in gc.get_referents(cached) if type(part) is dict)
    tables = [part for part in kept if part is not vars(cached)]
    key = args[0] if len(args) == 1 and type(args[0]) in (int, str) else args
    try:
        return any(key in table for table in tables)
    except TypeError:  # unhashable
        return False


# -- the environment ------------------------------------------------------------------------------


def environment_note(key: Any, value: Any) -> str:
    """The sentence about a variable of the environment; None: it is not set."""
    if value is None:
        return f"the environment variable {key} is not set, as at export"
    return f"the environment variable {key} is {value!r}, as it was at export"
