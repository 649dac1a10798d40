"""Calls of code that the machine does not run: of C, and of torch's own Python."""

from __future__ import annotations

import collections
import operator
import sys
from types import BuiltinFunctionType, MethodType
from typing import Any

import torch

from stillframe.variables.c_code import (
    CHANGE_ARGUMENTS,
    COMPARED,
    COMPARING,
    COPIES_STATE,
    DICTS,
    FORMATTING,
    HOLDERS,
    KEEPING,
    LOOKS_AWAY,
    MUTATORS,
    SEARCHING,
    TEXT,
    hashed_items,
    is_of_c,
    owner_of,
)
from stillframe.variables.callbacks import Callback, calls_modules, is_callback
from stillframe.variables.foreign import ALONE, check, check_result
from stillframe.variables.numpy_link import array_class
from stillframe.variables.paths import is_torch, name_of
from stillframe.variables.side_effects import CONTAINERS
from stillframe.variables.stand_ins import NATIVE, NUMBERS
from stillframe.variables.translating.operators import Operators

_ARRAY: Any = array_class()

#: Methods of a dict that take a key. (The default that some take, too, comes back as it is here.)
_BY_KEY = frozenset("get pop setdefault move_to_end __contains__ __getitem__ fromkeys".split())

#: What a ``__torch_function__`` of the user's calls to have the function done.
_BASE_TORCH_FUNCTION = vars(torch.Tensor)["__torch_function__"].__func__

#: What a stand-in answers otherwise than the object itself.
_OF_THE_OBJECT = (id, hash, dir)

#: What abstract classes do for ``isinstance`` and ``issubclass``.
_ABSTRACT_CHECKS = frozenset({"_abc_instancecheck", "_abc_subclasscheck"})

#: ``is`` as functions.
_IDENTITY = (operator.is_, operator.is_not)


class NativeCalls(Operators):
    """Such code gets what stands for the values; what it reads and changes is put down first."""

    def call_c(self, function: Any, *args: Any) -> Any:
        """A call of a function of C, whatever it reads."""
        return self._call_native(function, args, {})

    def _call_native(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Code that is not run by the machine gets what stands for the values."""
        if function in _OF_THE_OBJECT:
            self._refuse_address(function, args)
        if getattr(function, "__func__", None) is _BASE_TORCH_FUNCTION:
            return self.tensors.base_torch_function(function.__self__, *_operands(*args, **kwargs))
        if function in _IDENTITY and len(args) == 2:
            return self.same(*args) is (function is operator.is_)
        if function is globals:
            return self._table_of_globals()
        if type(function) in (type, BuiltinFunctionType) and function in LOOKS_AWAY:
            return self._look_away(function, args, kwargs)
        owner, given = owner_of(function, args)
        owner = self.here(owner)
        name = name_of(function)
        check(self.tx, function, owner, args, kwargs)
        if function in TEXT or (isinstance(owner, str) and name in FORMATTING):
            args = tuple(self.definite(value) for value in args)
            kwargs = {key: self.definite(value) for key, value in kwargs.items()}
        self._note_changes(function, owner, name, args)
        if isinstance(owner, HOLDERS) and is_of_c(function):
            if name == "get" and len(given) in (1, 2) and not kwargs and isinstance(owner, dict):
                return self._get(owner, *given)
            if name in COMPARING:
                self._settle_method(owner, name, given)
            if name not in MUTATORS:
                self.expose(owner, deep=False)
            if name in KEEPING:
                return self.here(super().call(function, tuple(map(self.here, args)), kwargs))
        else:
            self.expose(owner)
        if name in COPIES_STATE and self.source(owner) is not None:
            self.expose(self.load_attr(owner, "__dict__"))
        of_torch = is_torch(function)
        if of_torch:
            args, kwargs = self._given_to_torch(function, args, kwargs)
        else:
            args = tuple(map(self._given, args))
            kwargs = {key: self._given(value) for key, value in kwargs.items()}
        if isinstance(owner, dict) and name in _BY_KEY:
            args = tuple(self._key(owner, value) for value in args)
        if not of_torch:
            self.arrays.refuse_reader(name, (owner, *args, *kwargs.values()))
        elif any(isinstance(value, _ARRAY) for value in args):
            return self.arrays.torch_call(function, args, kwargs)
        if args and isinstance(args[0], _ARRAY) and hasattr(function, "__objclass__"):
            return self.arrays.unbound(function, args, kwargs)
        found = super().call(function, args, kwargs)
        self._note_region(function, args)
        is_alone = sys.getrefcount(found) <= ALONE
        check_result(self.tx, function, (owner, *args, *kwargs.values()), found, is_alone)
        result = self.here(found)
        self._note_answer(function, name, args, result)
        return result

    def _refuse_address(self, function: Any, args: tuple[Any, ...]) -> None:
        """``id``, ``hash`` or ``dir`` of what stands for a tensor would be another in the frame."""
        if any(isinstance(value, torch.Tensor) for value in map(self.here, args)):
            raise self.graph_break(
                f"The frame asks for the {function.__name__} of a tensor.",
                why="it is an address, another one at each call",
                hints=["compare tensors by `is`, or keep them in a dict or a set"],
            )

    def _note_changes(self, function: Any, owner: Any, name: str, args: tuple[Any, ...]) -> None:
        """What the function is about to change is put down first."""
        if isinstance(owner, CONTAINERS) and name in MUTATORS:
            self._note_contents(owner)
        if getattr(function, "__module__", None) in CHANGE_ARGUMENTS and is_of_c(function):
            for value in args:
                if isinstance(value, CONTAINERS):
                    self._note_contents(value)

    def _note_answer(self, function: Any, name: str, args: tuple[Any, ...], result: Any) -> None:
        """A guard for what an abstract class has said; no text of what stands for a tensor."""
        if name in _ABSTRACT_CHECKS and getattr(function, "__module__", None) == "_abc":
            cls = args[1] if name == "_abc_subclasscheck" else self.class_of(args[1])
            self.behaviour.rely_on_subclass(cls, args[0], bool(result))
        if type(result) is str and "FakeTensor(" in result:  # of a container that C shows
            raise self.graph_break("The frame makes text of a tensor in a container.")

    def _look_away(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of C that does not look into containers, or reads them by the policy."""
        args = tuple(map(self.here, args))
        kwargs = {key: self.here(value) for key, value in kwargs.items()}
        if function is isinstance and type(args[0]) in NUMBERS:
            return issubclass(NUMBERS[type(args[0])], args[1])
        if function is isinstance and self.tensors.subclass_of(args[0]) is not None:
            return issubclass(self.class_of(args[0]), args[1])
        if function in (tuple, frozenset) and len(args) == 1 and type(args[0]) is function:
            return args[0]
        if function is reversed and args:
            self.expose(args[0], deep=False)
        if function in (set, frozenset) and args and self.is_iterable(args[0]):
            found = [self.here(item) for item in self.native_iterable(args[0])]
            self.settle(*found)
            args = (found, *args[1:])
        return self.here(super().call(function, args, kwargs))

    def _given(self, value: Any) -> Any:
        """An argument for code that is not watched."""
        value = self.here(value)
        self.expose(value)
        return value

    def _given_to_torch(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for a function of torch."""
        modules = calls_modules(function)
        args = tuple(self.callback(value, modules) for value in args)
        kwargs = {key: self.callback(value, modules) for key, value in kwargs.items()}
        args = tuple(map(self.for_torch, args))
        return args, {key: self.for_torch(value) for key, value in kwargs.items()}

    def callback(self, value: Any, modules: bool) -> Any:
        """An argument for torch's code; a function of the program's runs on the machine."""
        return Callback(self.tx, value) if is_callback(self.tx, value, modules) else value

    # -- methods of containers --------------------------------------------------------------------

    def _get(self, table: Any, key: Any, default: Any = None) -> Any:
        """``dict.get``: one item is read."""
        key = self._key(table, self.here(key))
        self.hash_key(table, key)
        variable = self.variable(table)
        if variable is not None and variable.handles_items:
            has_it = variable.has(self.tx, key)
            return variable.load_item(self.tx, key) if has_it else self.here(default)
        if not dict.__contains__(table, key):
            return self.here(default)
        if variable is None or variable.source is None:
            return self.here(dict.__getitem__(table, key))
        if type(table) in DICTS:
            return variable.load_item(self.tx, key)
        self.expose(table, deep=False)
        return self.here(dict.__getitem__(table, key))

    def _settle_method(self, owner: Any, name: str, given: tuple[Any, ...]) -> None:
        if isinstance(owner, (list, tuple, collections.deque)) and name in SEARCHING:
            if isinstance(self.here(given[0]) if given else None, NATIVE):
                raise self.graph_break(
                    f"C code looks for a tensor or a symbolic number in a list ({name}).",
                    why="it compares by values, which are not known",
                    hints=["compare in Python: any(item is x for item in items)"],
                )
            self.settle(owner, *given[:1])
        elif isinstance(owner, dict) and name != "update":
            self.hash_key(owner, self.here(given[0]) if given else None)
        elif isinstance(owner, (set, frozenset)):
            for value in given:
                for item in (value, *hashed_items(self.here(value))):
                    if type(item) not in COMPARED:
                        self.hash_key(owner, self.here(item))

    # -- blocks of torch --------------------------------------------------------------------------

    def _note_region(self, function: Any, args: tuple[Any, ...]) -> None:
        """A block of torch, such as ``autocast``, was entered or left."""
        name = name_of(function)
        if name not in ("__enter__", "__exit__") or type(function) is MethodType:
            return  # of a method the function is called next
        region = getattr(function, "__self__", args[0] if args else None)
        if name == "__enter__":
            self._regions.append(region)
        else:
            self._regions = [entered for entered in self._regions if entered is not region]

    def leave_regions(self) -> None:
        """The capture has failed: its error passes the program's blocks by, so that those of torch
        are left here."""
        while self._regions:
            self._regions.pop().__exit__(None, None, None)


def _operands(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> tuple[Any, Any, Any]:
    return func, args, kwargs
