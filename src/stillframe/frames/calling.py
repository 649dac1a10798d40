"""Calling what is not a plain Python function: C functions, classes, objects with ``__call__``."""

from __future__ import annotations

import functools
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from stillframe.frames.attributes import bind_raw
from stillframe.frames.lookup import (
    C_KINDS,
    MISSING,
    Builtin,
    BuiltinMethod,
    ClassMethodDescriptor,
    MethodDescriptor,
    MethodWrapper,
    WrapperDescriptor,
    python_special,
    type_lookup,
)

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine

_C_FUNCTIONS = frozenset(
    {
        Builtin,
        BuiltinMethod,
        MethodDescriptor,
        WrapperDescriptor,
        MethodWrapper,
        ClassMethodDescriptor,
    }
)
_DESCRIPTORS = frozenset({MethodDescriptor, WrapperDescriptor, ClassMethodDescriptor})
_RAW_METHODS = _DESCRIPTORS | {Builtin, staticmethod}


def is_native(function: Any) -> bool:
    """Whether C code may call ``function`` as it is: a C function that belongs to no object, whose
    calls no policy needs to see."""
    from stillframe.frames.natives import find

    if type(function) is not Builtin or find(function) is not None:
        return False
    return type(function.__self__) is ModuleType


def is_handled(function: Any) -> bool:
    """Whether a C function has a handler of ours, by itself or as a method that is bound."""
    from stillframe.frames.natives import METHOD_NAMES, find

    if find(function) is not None:
        return True
    if type(function) not in _C_FUNCTIONS or function.__name__ not in METHOD_NAMES:
        return False
    return find(_descriptor(function)) is not None


def call(machine: Machine, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call anything but a Python function or a bound method."""
    kind = type(function)
    if kind in _C_FUNCTIONS:
        return _call_c(machine, function, args, kwargs)
    if isinstance(function, type):
        return instantiate(machine, function, args, kwargs)
    if kind is functools.partial:
        merged = {**function.keywords, **kwargs}
        return machine.policy.call(function.func, (*function.args, *args), merged)
    method = type_lookup(kind, "__call__")
    if method is MISSING:
        raise TypeError(f"'{kind.__name__}' object is not callable")
    if type(method) is FunctionType:
        return machine.policy.call(method, (function, *args), kwargs)
    if type(method) not in C_KINDS:
        return machine.policy.call(bind_raw(machine.policy, method, function), args, kwargs)
    _check_allowed(machine, kind.__module__, function)
    return function(*args, **kwargs)


def _call_c(machine: Machine, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from stillframe.frames.natives import METHOD_NAMES, find

    handler = find(function)
    if handler is not None:
        return handler(machine, *args, **kwargs)
    if function.__name__ in METHOD_NAMES:
        handler = find(_descriptor(function))
        if handler is not None:
            return handler(machine, function.__self__, *args, **kwargs)
    _check_allowed(machine, _module_of(function), function)
    return function(*args, **kwargs)


def _descriptor(function: Any) -> Any:
    """The unbound method of C behind a bound one, if it has a handler."""
    from stillframe.frames.natives import find

    owner = getattr(function, "__self__", None)
    if owner is None or type(owner) is ModuleType:
        return None
    name = function.__name__
    kinds = owner.__mro__ if issubclass(type(owner), type) else ()
    for base in (*kinds, *type(owner).__mro__):
        found = base.__dict__.get(name)
        if type(found) in _DESCRIPTORS and find(found) is not None:
            if (
                type(found) is ClassMethodDescriptor
                or found.__get__(owner, type(owner)) == function
            ):
                return found
    return None


def _module_of(function: Any) -> str:
    """The module of a C function, or of the C class that has it as a method."""
    owner = getattr(function, "__objclass__", None)
    if owner is not None:
        return owner.__module__  # type: ignore[no-any-return]
    owner = getattr(function, "__self__", None)
    if type(owner).__module__ == "pybind11_builtins":  # its record of the function
        owner = None
    if owner is None or type(owner) is ModuleType:
        return function.__module__ or "builtins"
    kinds = owner.__mro__ if issubclass(type(owner), type) else ()
    for base in (*kinds, *type(owner).__mro__):
        if type(base.__dict__.get(function.__name__, MISSING)) in _RAW_METHODS:
            return base.__module__  # type: ignore[no-any-return]
    return type(owner).__module__


def _check_allowed(machine: Machine, module: str, function: Any) -> None:
    if machine.policy.may_call(module, function):
        return
    root = module.partition(".")[0]
    if root != module and machine.policy.may_call(root, function):
        return
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    raise machine.refuse(
        f"{module}.{name} is not known to the frame machine.",
        why="it is compiled code: what it reads, changes or calls cannot be seen",
        hints=[
            f'if it has no side effects and calls no Python code, pass allow=("{root}",)',
            "or call it outside of the function and pass its result in",
        ],
    )


# -- classes ----------------------------------------------------------------------------------


def instantiate(machine: Machine, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``cls(*args, **kwargs)``."""
    from stillframe.frames.natives import find

    handler = find(cls)
    if handler is not None:
        return handler(machine, *args, **kwargs)
    meta = type(cls)
    if meta is not type:
        own = python_special(meta, "__call__")
        if own is not None:
            return machine.policy.call(bind_raw(machine.policy, own, cls), args, kwargs)
    return construct(machine, cls, args, kwargs)


def construct(machine: Machine, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``type.__call__`` does: ``__new__``, then ``__init__``."""
    policy = machine.policy
    new, init = type_lookup(cls, "__new__"), type_lookup(cls, "__init__")
    if isinstance(new, staticmethod):
        new = new.__func__
    if type(new) is Builtin and type(init) in C_KINDS:
        _check_allowed(machine, _maker_module(new, cls), cls)
        handler = _inherited(cls)
        if handler is not None:
            args = handler(machine, args)
        return type.__call__(cls, *args, **kwargs)
    if type(new) is Builtin:
        handler = _new_handler(new)
        if handler is not None:
            made = handler(machine, cls, *args, **kwargs)
        else:
            _check_allowed(machine, _maker_module(new, cls), cls)
            made = new(cls, *args, **kwargs)
    else:
        made = policy.call(new, (cls, *args), kwargs)
    if cls in type(made).__mro__:
        _initialise(machine, made, args, kwargs)
    return made


def _maker_module(new: Any, cls: type) -> str:
    maker = new.__self__
    return maker.__module__ if isinstance(maker, type) else cls.__module__


def _new_handler(new: Any) -> Any:
    from stillframe.frames.natives import find

    return find(new)


def _inherited(cls: type) -> Any:
    """How the arguments of a C container's subclass are made ready for C code."""
    from stillframe.frames.natives import CONTAINER_ARGUMENTS

    for base in cls.__mro__:
        if base in CONTAINER_ARGUMENTS:
            return CONTAINER_ARGUMENTS[base]
    return None


def _initialise(machine: Machine, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    init = type_lookup(type(made), "__init__")
    if type(init) in C_KINDS:
        init.__get__(made, type(made))(*args, **kwargs)
        return
    bound = (
        MethodType(init, made) if type(init) is FunctionType
        else bind_raw(machine.policy, init, made)
    )  # fmt: skip
    result = machine.policy.call(bound, args, kwargs)
    if result is not None:
        raise TypeError(f"__init__() should return None, not '{type(result).__name__}'")
