"""Making containers of the user's classes again, without running the code of their classes."""

from __future__ import annotations

from typing import Any

from stillframe.frames.lookup import type_lookup
from stillframe.variables.residue import Residue

_ATTRIBUTES = ("__dict__", "__weakref__")


def slots_of(cls: type) -> list[str]:
    """The names of the slots of a class and its bases.

    Raises:
        NotImplementedError: one is private, and has another name outside of its class.
    """
    names: list[str] = []
    for base in cls.__mro__:
        found = vars(base).get("__slots__", ())
        names += [found] if isinstance(found, str) else list(found)
    if any(name.startswith("__") and not name.endswith("__") for name in names):
        raise NotImplementedError(f"{cls.__qualname__} has private slots")
    return [name for name in names if name not in _ATTRIBUTES]


def make_empty(residue: Residue, value: Any, base: type) -> None:
    """Push a new, empty container of the value's class, made as ``base`` makes it."""
    _push_maker(residue, value, base)
    residue.call(1)


def make_from_items(residue: Residue, value: Any, base: type, items: list[Any]) -> None:
    """Push a new container of the value's class, which is made with its items."""
    _push_maker(residue, value, base)
    for item in items:
        residue.value(item)
    residue.build("[{}]", len(items))
    residue.call(2)


def _push_maker(residue: Residue, value: Any, base: type) -> None:
    residue.load_object(base.__new__)
    residue.value(type(value))


def fill_attributes(residue: Residue, value: Any) -> None:
    """Give the container on top the attributes that the value has; it stays on top.

    Raises:
        NotImplementedError: the class keeps them in its own way.
    """
    cls = type(value)
    for name in slots_of(cls):
        if type_lookup(cls, name).__class__.__name__ != "member_descriptor":
            raise NotImplementedError(f"{cls.__qualname__} hides its slot {name}")
        try:
            held = object.__getattribute__(value, name)
        except AttributeError:
            continue
        store = residue.bind("setattr", object.__setattr__)
        residue.fill(f"{store}({{0}}, {name!r}, {{1}})", held)
    names = getattr(value, "__dict__", None)
    for name, held in (names or {}).items():
        residue.fill(f"{{0}}.__dict__[{name!r}] = {{1}}", held)
