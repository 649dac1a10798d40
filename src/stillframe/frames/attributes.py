"""Reading and writing attributes, with Python descriptors and hooks run on the machine."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.lookup import C_KINDS, MISSING, python_special, type_lookup

if TYPE_CHECKING:
    from stillframe.frames.policy import Policy

#: Exact types whose attributes run no Python code. (A class's may: its metaclass, or descriptors.)
_PLAIN_HOLDERS = frozenset(
    {
        int, float, complex, bool, str, bytes, bytearray, type(None), list, tuple, dict, set,
        frozenset, range, slice, types.FunctionType, types.MethodType, types.GeneratorType,
        types.BuiltinFunctionType, types.CodeType, types.CellType,
    }
)  # fmt: skip

#: Exact types of class attributes that C code binds without running Python code.
_C_BOUND = C_KINDS | {types.FunctionType, staticmethod, classmethod, list, dict, set, bytes, type}


def load(policy: Policy, value: Any, name: str) -> Any:
    """``value.name``."""
    kind = type(value)
    if kind in _PLAIN_HOLDERS:
        return getattr(value, name)
    if kind is super:
        return _load_super(policy, value, name)
    own = python_special(kind, "__getattribute__")
    if own is None:
        fallback = python_special(kind, "__getattr__")
        if fallback is None:
            return generic_load(policy, value, name)
        try:
            return generic_load(policy, value, name)
        except AttributeError:
            pass
        return _call_special(policy, fallback, value, name)
    try:
        return _call_special(policy, own, value, name)
    except AttributeError:
        fallback = python_special(kind, "__getattr__")
        if fallback is None:
            raise
    return _call_special(policy, fallback, value, name)


def generic_load(policy: Policy, value: Any, name: str) -> Any:
    """What the ``__getattribute__`` of C does, without ``__getattr__``."""
    kind = type(value)
    found = type_lookup(kind, name)
    if type(found) not in _C_BOUND:
        bound = _load_descriptor(policy, value, name, found, kind)
        if bound is not MISSING:
            return bound
    if issubclass(kind, type):
        bound = _load_class_descriptor(policy, value, name)
        if bound is not MISSING:
            return bound
    elif kind is types.ModuleType:
        return _load_module(policy, value, name)
    if python_special(kind, "__getattr__") is None:
        if python_special(kind, "__getattribute__") is None:
            return getattr(value, name)
    base = next(
        b for b in kind.__mro__
        if type(b.__dict__.get("__getattribute__")) in C_KINDS
    )  # fmt: skip
    lookup: Any = base.__getattribute__
    return lookup(value, name)


def _load_descriptor(policy: Policy, value: Any, name: str, found: Any, kind: type) -> Any:
    """Bind a descriptor whose ``__get__`` may run Python code; MISSING: C can do it."""
    how = type(found)
    if how is property:
        if found.fget is None:
            return MISSING
        return policy.call(found.fget, (value,), {})
    getter = python_special(how, "__get__")
    if getter is None:
        return MISSING
    if python_special(how, "__set__") is None and python_special(how, "__delete__") is None:
        if issubclass(kind, type):
            if type_lookup(value, name) is not MISSING:
                return MISSING
        else:
            names = _instance_names(value)
            if name in names:
                return names[name]
    return _call_special(policy, getter, found, value, kind)


def _instance_names(value: Any) -> Any:
    """The ``__dict__`` of an object, past any ``__getattribute__``."""
    place = type_lookup(type(value), "__dict__")
    return {} if place is MISSING else place.__get__(value)


def _load_class_descriptor(policy: Policy, cls: type, name: str) -> Any:
    found = type_lookup(cls, name)
    getter = python_special(type(found), "__get__")
    if getter is None or type(found) is property:
        return MISSING
    over = type_lookup(type(cls), name)
    if over is not MISSING and hasattr(type(over), "__set__"):
        return MISSING  # a data descriptor of the metaclass comes first
    return _call_special(policy, getter, found, None, cls)


def _load_module(policy: Policy, module: types.ModuleType, name: str) -> Any:
    names = module.__dict__
    if name in names:
        return names[name]
    hook = names.get("__getattr__")
    if hook is None or hasattr(types.ModuleType, name):
        return getattr(module, name)
    return policy.call(hook, (name,), {})


def _load_super(policy: Policy, proxy: Any, name: str) -> Any:
    """``super().name``: properties and Python descriptors run on the machine."""
    start, instance, cls = proxy.__thisclass__, proxy.__self__, proxy.__self_class__
    if cls is None or name == "__class__":
        return getattr(proxy, name)
    mro = cls.__mro__
    rest = mro[mro.index(start) + 1 :] if start in mro else ()
    found = next((base.__dict__[name] for base in rest if name in base.__dict__), MISSING)
    if type(found) is property and instance is not cls and found.fget is not None:
        return policy.call(found.fget, (instance,), {})
    getter = python_special(type(found), "__get__")
    if getter is None or type(found) is property:
        return getattr(proxy, name)
    return _call_special(policy, getter, found, None if instance is cls else instance, cls)


def _call_special(policy: Policy, method: Any, value: Any, *args: Any) -> Any:
    """Call a special method as found on the type of ``value``."""
    if type(method) is types.FunctionType:
        return policy.call(method, (value, *args), {})
    bound = bind_raw(policy, method, value)
    return policy.call(bound, args, {})


def bind_raw(policy: Policy, found: Any, value: Any) -> Any:
    """Bind a raw class attribute to ``value``."""
    kind = type(found)
    getter = python_special(kind, "__get__")
    if getter is not None:
        return policy.call(getter, (found, value, type(value)), {})
    if kind is property:
        return policy.call(found.fget, (value,), {})
    bind = getattr(kind, "__get__", None)
    return found if bind is None else bind(found, value, type(value))


def special(policy: Policy, value: Any, name: str) -> Any:
    """The special method ``name`` of ``value``'s type, bound."""
    found = type_lookup(type(value), name)
    if found is MISSING:
        raise AttributeError(f"'{type(value).__name__}' object has no attribute '{name}'")
    return bind_raw(policy, found, value)


def call_special(policy: Policy, value: Any, name: str, *args: Any) -> Any:
    """Call the Python special method ``name`` of ``value``; MISSING if it has none in Python."""
    method = python_special(type(value), name)
    if method is None:
        return MISSING
    return _call_special(policy, method, value, *args)


def store(policy: Policy, target: Any, name: str, value: Any) -> None:
    """``target.name = value``."""
    hook = python_special(type(target), "__setattr__")
    if hook is not None:
        _call_special(policy, hook, target, name, value)
    else:
        generic_store(policy, target, name, value)


def generic_store(policy: Policy, target: Any, name: str, value: Any) -> None:
    """What the ``__setattr__`` of C does."""
    kind = type(target)
    found = type_lookup(kind, name)
    if type(found) is property and found.fset is not None:
        policy.call(found.fset, (target, value), {})
        return
    setter = python_special(type(found), "__set__")
    if setter is not None and type(found) is not property:
        _call_special(policy, setter, found, target, value)
        return
    policy.set_attribute(target, name, value)


def delete(policy: Policy, target: Any, name: str) -> None:
    """``del target.name``."""
    hook = python_special(type(target), "__delattr__")
    if hook is not None:
        _call_special(policy, hook, target, name)
    else:
        generic_delete(policy, target, name)


def generic_delete(policy: Policy, target: Any, name: str) -> None:
    """What the ``__delattr__`` of C does."""
    kind = type(target)
    found = type_lookup(kind, name)
    if type(found) is property and found.fdel is not None:
        policy.call(found.fdel, (target,), {})
        return
    deleter = python_special(type(found), "__delete__")
    if deleter is not None and type(found) is not property:
        _call_special(policy, deleter, found, target)
        return
    policy.unset_attribute(target, name)


def native_store(target: Any, name: str, value: Any) -> None:
    """Set an attribute in C, past hooks in Python."""
    _c_base(type(target), "__setattr__").__setattr__(target, name, value)


def native_delete(target: Any, name: str) -> None:
    """Delete an attribute in C, past hooks in Python."""
    _c_base(type(target), "__delattr__").__delattr__(target, name)


def own_value(target: Any, name: str) -> Any:
    """What an object itself has as an attribute: in its ``__dict__``, in a slot, or in C.

    :data:`NULL` if it has none; what its class has does not count.
    """
    names = getattr(target, "__dict__", {})
    place = type_lookup(type(target), name)
    if name in names or not hasattr(type(place), "__set__"):
        return names.get(name, NULL)
    return getattr(target, name, NULL)


def set_own_value(target: Any, name: str, value: Any) -> None:
    """Give an object the attribute that :func:`own_value` has told; :data:`NULL` deletes it."""
    if value is not NULL:
        native_store(target, name, value)
    elif own_value(target, name) is not NULL:
        native_delete(target, name)


def _c_base(kind: type, name: str) -> Any:
    """The nearest class of ``kind``'s order that has ``name`` in C, to call it unbound."""
    return next(b for b in kind.__mro__ if type(b.__dict__.get(name)) in C_KINDS - {type(None)})


def import_from(module: Any, name: str) -> Any:
    """``from module import name``, a submodule included."""
    try:
        return getattr(module, name)
    except AttributeError:
        pass
    own_name = getattr(module, "__name__", "<unknown module name>")
    found = sys.modules.get(f"{own_name}.{name}")
    if found is not None:
        return found
    place = getattr(module, "__file__", None) or "unknown location"
    raise ImportError(
        f"cannot import name {name!r} from {own_name!r} ({place})", name=own_name, path=place
    )
