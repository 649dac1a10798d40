"""The table of kinds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, Protocol, TypeVar

from stillframe.errors import InternalError
from stillframe.source import Guard, Source
from stillframe.source.base import shown

# Gives the name under which generated code finds an object.
Bind = Callable[[str, Any], str]

_FILES = ("identity", "values", "containers", "tensors", "shapes", "ambient", "behaviour")


class Builder(Protocol):
    """What a kind asks of the scope in which checks are made.

    Attributes:
        guards: all guards that become checks.
    """

    guards: Sequence[Guard]

    def value(self, source: Source) -> Any:
        """What the source reads now."""

    def read(self, source: Source) -> str:
        """The variable that holds what the source reads when the check runs."""

    def bind(self, wanted: str, value: Any) -> str:
        """The name under which the check finds an object."""

    def require(
        self,
        guard: Guard,
        conditions: Sequence[str],
        expected: str,
        sees: Callable[..., str] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        """Add conditions, which must hold from here on.

        Args:
            expected: how the place was, for a message: ``is None``.
            sees: makes text of what ``sources`` read instead.
        """

    def tensor(self, guard: Guard) -> None:
        """The guard is on a tensor: it aliases the others as it did."""

    def require_globally(self, guard: Guard, probe: Callable[[], Any], memory: Any) -> None:
        """The probe, a function of global state, must give the same again."""


class Kind:
    """A kind of guard on one value.

    Attributes:
        name: the field's name.
        remember: ``(value, **parameters)`` -> what the guard remembers.
        conditions: ``(variable, memory, bind)`` -> Python expressions that must be true.
        says: memory -> what was expected, to go on a sentence that begins with the place.
        sees: ``(value, memory)`` -> what was found instead.
    """

    def __init__(
        self,
        name: str,
        remember: Callable[..., Any],
        conditions: Callable[[str, Any, Bind], list[str]],
        says: Callable[[Any], str],
        sees: Callable[[Any, Any], str] | None = None,
    ) -> None:
        self.name = self.__name__ = name
        self.remember = remember
        self.conditions = conditions
        self.says = says
        self.sees = sees or (lambda value, memory: describe(value))

    @property
    def __code__(self) -> CodeType | None:
        """Where the kind is defined: guards on one place are ordered by it."""
        return getattr(self.remember, "__code__", None)

    def __call__(self, builder: Builder, guard: Guard, **parameters: Any) -> None:
        source = guard.originating_source
        value = builder.value(source)
        memory = self.remember(value, **parameters)
        variable = builder.read(source)
        builder.require(
            guard,
            self.conditions(variable, memory, builder.bind),
            self.says(memory),
            lambda found: self.sees(found, memory),
            (source,),
        )

    def __repr__(self) -> str:
        return self.name


KINDS: dict[str, Callable[..., None]] = {}
K = TypeVar("K", bound=Callable[..., None])


def register(kind: K) -> K:
    """Put a kind into the table under its name.

    Raises:
        InternalError: the name is taken.
    """
    name: str = kind.__name__
    if name in KINDS:
        raise InternalError(f"there is a guard kind {name} already")
    KINDS[name] = kind
    return kind


def kind(name: str) -> Callable[..., None]:
    """The kind of a name.

    Raises:
        InternalError: there is none.
    """
    if name not in KINDS:
        for file in _FILES:
            importlib.import_module(f"stillframe.guards.kinds.{file}")
    if name not in KINDS:
        raise InternalError(f"no guard kind {name!r} in stillframe.guards.kinds.registry")
    return KINDS[name]


def describe(value: Any) -> str:
    """A value for a message: its class, and its text where that is short and plain."""
    cls = type(value)
    if value is None or cls in (bool, int, float, complex, str, bytes):
        text = shown(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if cls in (list, tuple, dict, set, frozenset):
        return f"a {cls.__name__} of length {len(value)}"
    return f"an object of class {class_name(cls)}"


def class_name(cls: type) -> str:
    """The name of a class, with its module unless that is builtins."""
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
