"""Making classes, asking about classes."""

from __future__ import annotations

import builtins
import types
from typing import TYPE_CHECKING, Any

from stillframe.frames import attributes
from stillframe.frames.binding import bind
from stillframe.frames.calling import construct
from stillframe.frames.decode import decode
from stillframe.frames.frame import Frame
from stillframe.frames.lookup import MISSING, python_special
from stillframe.frames.natives.registry import native

if TYPE_CHECKING:
    from stillframe.frames.machine import Machine


@native(builtins.__build_class__)
def _build_class(machine: Machine, body: Any, name: str, /, *bases: Any, **keywords: Any) -> Any:
    """A class statement: metaclass, namespace, body, class."""
    policy = machine.policy
    resolved = _resolve_bases(machine, bases)
    meta = keywords.pop("metaclass", None)
    if meta is None:
        meta = type(resolved[0]) if resolved else type
    if isinstance(meta, type):
        meta = _most_derived(meta, resolved)
    prepare = policy.load_attr_or(meta, "__prepare__", None)
    names = {} if prepare is None else policy.call(prepare, (name, resolved), keywords)
    if not hasattr(type(names), "__getitem__"):
        shown = meta.__name__ if isinstance(meta, type) else "<metaclass>"
        raise TypeError(f"{shown}.__prepare__() must return a mapping, not {type(names).__name__}")
    cell = _run_body(machine, body, names)
    if resolved is not bases:
        policy.store_item(names, "__orig_bases__", bases)
    cls = policy.call(meta, (name, resolved, names), keywords)
    if isinstance(cls, type) and isinstance(cell, types.CellType):
        _check_cell(cell, cls, name)
    return cls


def _run_body(machine: Machine, body: Any, names: Any) -> Any:
    decoded = decode(body.__code__)
    frame = Frame(
        machine,
        decoded,
        bind(body, decoded, (), {}),
        body.__globals__,
        body.__builtins__,
        names,
        body.__closure__,
    )
    return machine.run(frame)


def _check_cell(cell: Any, cls: type, name: str) -> None:
    """The ``__class__`` of the methods is set by ``type.__new__``."""
    try:
        owner = cell.cell_contents
    except ValueError:
        owner = None
    if owner is None:
        raise RuntimeError(
            f"__class__ not set defining {name!r} as {cls!r}. "
            "Was __classcell__ propagated to type.__new__?"
        )
    if owner is not cls:
        raise TypeError(f"__class__ set to {owner!r} defining {name!r} as {cls!r}")


def _resolve_bases(machine: Machine, bases: tuple[Any, ...]) -> tuple[Any, ...]:
    """``__mro_entries__`` of bases that are not classes."""
    if all(isinstance(base, type) for base in bases):
        return bases
    found: list[Any] = []
    for base in bases:
        if isinstance(base, type) or not hasattr(base, "__mro_entries__"):
            found.append(base)
            continue
        entries = machine.policy.load_attr(base, "__mro_entries__")
        found.extend(machine.policy.call(entries, (bases,), {}))
    return tuple(found) if len(found) != len(bases) or any(
        a is not b for a, b in zip(found, bases, strict=True)
    ) else bases  # fmt: skip


def _most_derived(meta: type, bases: tuple[Any, ...]) -> type:
    winner = meta
    for base in bases:
        kind = type(base)
        if issubclass(winner, kind):
            continue
        if not issubclass(kind, winner):
            raise TypeError(
                "metaclass conflict: the metaclass of a derived class must be a (non-strict) "
                "subclass of the metaclasses of all its bases"
            )
        winner = kind
    return winner


@native(type)
def _type(machine: Machine, *args: Any, **kwargs: Any) -> Any:
    if len(args) == 1 and not kwargs:
        return type(args[0])
    made = _type_new(machine, type, *args, **kwargs)
    return made


@native(type.__new__)
def _type_new(machine: Machine, meta: Any, *args: Any, **kwargs: Any) -> Any:
    """Make the class with ``__set_name__`` of its attributes run on the machine.

    C calls them with a class that is complete. So stand-ins are put in their place, and the first
    of them to be called puts all the real attributes back.
    """
    if len(args) != 3 or not isinstance(args[2], dict):
        return type.__new__(meta, *args, **kwargs)
    name, bases, names = args
    if machine.current is not None and "__module__" not in names:
        # C would take the globals of the frame that calls it, which is ours
        names = {**names, "__module__": machine.current.globals.get("__name__", "builtins")}
    named = {
        key: value for key, value in names.items()
        if python_special(type(value), "__set_name__") is not None
    }  # fmt: skip
    if not named:
        return type.__new__(meta, name, bases, names, **kwargs)
    names = {**names, **{key: _StandIn(machine, key, named) for key in named}}
    return type.__new__(meta, name, bases, names, **kwargs)


class _StandIn:
    """Stands for an attribute while its class is made."""

    def __init__(self, machine: Machine, name: str, named: dict[str, Any]) -> None:
        self.machine, self.name, self.named = machine, name, named

    def __set_name__(self, owner: type, name: str) -> None:
        for key, value in self.named.items():
            if isinstance(owner.__dict__.get(key), _StandIn):
                type.__setattr__(owner, key, value)
        value = self.named[self.name]
        attributes.call_special(self.machine.policy, value, "__set_name__", owner, name)


@native(type.__call__)
def _type_call(machine: Machine, cls: Any, *args: Any, **kwargs: Any) -> Any:
    return construct(machine, cls, args, kwargs)


@native(isinstance)
def _isinstance(machine: Machine, value: Any, kinds: Any, /) -> bool:
    policy = machine.policy
    if isinstance(kinds, tuple):
        return any(_isinstance(machine, value, kind) for kind in kinds)
    if type(value) is kinds:
        return True
    answer = attributes.call_special(policy, kinds, "__instancecheck__", value)
    return isinstance(value, kinds) if answer is MISSING else policy.truth(answer)


@native(issubclass)
def _issubclass(machine: Machine, cls: Any, kinds: Any, /) -> bool:
    policy = machine.policy
    if isinstance(kinds, tuple):
        return any(_issubclass(machine, cls, kind) for kind in kinds)
    answer = attributes.call_special(policy, kinds, "__subclasscheck__", cls)
    return issubclass(cls, kinds) if answer is MISSING else policy.truth(answer)
