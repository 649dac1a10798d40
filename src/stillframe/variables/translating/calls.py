"""Calls: whether the machine runs a function, and what becomes of a call that it does not."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

import torch

from stillframe.frames.lookup import C_KINDS
from stillframe.source import AttrSource, DefaultsSource, GetItemSource
from stillframe.variables.behaviour import is_library_function
from stillframe.variables.foreign import refuse_hidden_code, refuse_opaque
from stillframe.variables.getters import GETTERS, call_getter
from stillframe.variables.inlined import call_of_module, is_inlined, is_module_call
from stillframe.variables.paths import is_plain, is_torch, lasting_source, library_source, name_of
from stillframe.variables.registry import is_known_object
from stillframe.variables.texts import TEXTS, told_value
from stillframe.variables.translating.native_calls import NativeCalls

#: Packages whose compiled functions may be called: they work on tensors, which are recorded.
_TRUSTED = frozenset({"torch", "torchvision", "stillframe", "numpy"})


class Calls(NativeCalls):
    """A call goes to what goes with the function, to the machine, or to code that is not run."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        variable = self.variable(function)
        if variable is None and is_known_object(function):
            variable = self.build(function, library_source(function))
        if variable is not None and variable.handles_calls:
            return variable.call_function(self.tx, args, kwargs)
        return self.call_plainly(function, args, kwargs)

    def call_plainly(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose function has no way of its own."""
        name = name_of(function)
        refuse_opaque(self.tx, function, "A call")
        refuse_hidden_code(self.tx, function, args)
        if args and name in TEXTS:
            told = told_value(self.tx, args[0])
            if told is not args[0]:
                of_class = function.__name__.startswith("__")
                function = getattr(type(told), function.__name__) if of_class else function
                return function(told, *args[1:])
        if name == "__getattribute__" and type(function) in C_KINDS:
            owner = getattr(function, "__self__", None)
            asked = args if owner is None else (owner, *args)
            if len(asked) == 2 and self.source(asked[0]) is not None:
                return self.behaviour.read_past_hooks(function, args, *asked)
        kind = type(function)
        if kind in GETTERS:
            return call_getter(self.tx, function, *args)
        if kind is MethodType and _is_own_apply(function):
            from stillframe.variables.kinds.autograd import apply

            return apply(self.tx, function.__self__, args, kwargs)
        if kind is MethodType and (
            _has_own_way(function.__func__) or self._is_run(function.__func__)
        ):
            return self.call(function.__func__, (function.__self__, *args), kwargs)
        if kind is FunctionType or kind is MethodType:
            if is_module_call(function) and args:
                return self._call_module(args[0], args[1:], kwargs)
            if kind is MethodType or not self.inline(function):
                return self._call_native(function, args, kwargs)
            return super().call(function, args, kwargs)
        if function is type and len(args) == 1:
            return self.class_of(self.here(args[0]))
        if isinstance(function, torch.nn.Module):
            if call_of_module(type(function)) is not type(function)._call_impl:
                return self.call(self.load_attr(function, "__call__"), args, kwargs)
            return self._call_module(function, args, kwargs)
        return self._call_native(function, args, kwargs)

    def _call_module(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``nn.Module.__call__`` in Python; what it reads of the module is read here."""
        self.scope.enter(module)
        try:
            return self.call(type(module)._call_impl, (module, *args), kwargs)
        finally:
            self.scope.leave()

    def may_call(self, module: str, function: Any) -> bool:
        return module.partition(".")[0] in _TRUSTED or super().may_call(module, function)

    # -- functions that the machine runs ----------------------------------------------------------

    def inline(self, function: FunctionType) -> bool:
        """Whether the machine runs a function; else it is called."""
        code = function.__code__
        known = self._inlined.get(code)
        if known is None:
            self.note_constants(code.co_consts)
            known = self._inlined[code] = is_inlined(function)
        if known:
            self._enter(function)
        return known

    def _is_run(self, function: Any) -> bool:
        """Whether what a method is made of is run by the machine, or has its own way of calls."""
        if type(function) is FunctionType:
            return self.inline(function)
        variable = self.variable(function)
        return not is_torch(function) or (variable is not None and variable.handles_calls)

    def _enter(self, function: FunctionType) -> None:
        """A function from outside is about to be run: its cells and defaults have sources."""
        if id(function) in self._own or id(function) in self._entered:
            return
        self._entered[id(function)] = function
        source = self.source(function) or lasting_source(function)
        if not is_library_function(function):
            self.behaviour.rely_on_function(function, source)
        if source is None:
            return
        for index, cell in enumerate(function.__closure__ or ()):
            place = GetItemSource(AttrSource(source, "__closure__"), index)
            known = self._cells.setdefault(id(cell), (cell, AttrSource(place, "cell_contents")))
            if isinstance(known[1], AttrSource) and known[1].base != place:
                self.builder(place).one_object(known[1].base)
        defaults = enumerate(function.__defaults__ or ())
        named = (function.__kwdefaults__ or {}).items()
        found: list[tuple[Any, Any]] = [*defaults, *named]
        for key, value in found:
            place_of_default = DefaultsSource(source, key, isinstance(key, str))
            if not is_plain(value):
                self.expose_item(value, place_of_default)
            elif isinstance(key, str) or not self.behaviour.knows_defaults(function):
                self.build(value, place_of_default)


def _has_own_way(function: Any) -> bool:
    return is_known_object(function) or is_module_call(function)


def _is_own_apply(method: MethodType) -> bool:
    """``apply`` of a ``torch.autograd.Function`` that is not tracked: the program made it."""
    owner = method.__self__
    if not isinstance(owner, type) or not issubclass(owner, torch.autograd.Function):
        return False
    return method.__name__ == "apply"
