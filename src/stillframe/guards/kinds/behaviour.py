"""The kind BEHAVIOUR: the classes and functions that a capture has run are made of what they were.

A class is pinned by the guard on a value's type, a function by the guard on its identity; but
somebody may set another method on the class, or other code on the function. No torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from stillframe.guards.kinds.registry import Builder, class_name, register
from stillframe.source import Guard

#: What Python keeps in a class beside its behaviour.
_RECORDS = frozenset(
    """__module__ __qualname__ __doc__ __dict__ __weakref__ __annotations__ __slots__
    __slotnames__ __match_args__ __orig_bases__ __parameters__ __abstractmethods__ __firstlineno__
    __static_attributes__ __type_params__ __dataclass_fields__ __dataclass_params__""".split()
)


def is_behaviour(name: str, entry: Any) -> bool:
    """Whether an entry of a class does something when it is looked up: it binds, or Python asks it
    by its name. All other entries are data, which are relied on where they are read."""
    if name in _RECORDS:
        return False
    return hasattr(type(entry), "__get__") or (name.startswith("__") and name.endswith("__"))


def behaviour_of(cls: type) -> Iterator[tuple[str, Any]]:
    """The entries of one class that do something."""
    return ((name, entry) for name, entry in vars(cls).items() if is_behaviour(name, entry))


class ClassEntries:
    """What one class does, to be met again.

    Args:
        exact: the names of its data count, too.
        absent: names that were looked for and not found.
    """

    def __init__(self, cls: type, exact: bool = False, absent: Iterable[str] = ()) -> None:
        self.cls, self.exact, self.absent = cls, exact, tuple(absent)
        self.names = vars(cls)
        self.order, self.bases = list(self.names), cls.__bases__
        self.known = dict(behaviour_of(cls))
        # the first twice: one entry alone would not come as a tuple
        first = next(iter(self.known), "")
        self._take = operator.itemgetter(first, *self.known) if self.known else None
        self._taken = self._take(self.names) if self._take else ()

    def are_there(self) -> bool:
        """Whether the class has the same entries, and no others that do something."""
        names = self.names
        if len(names) != len(self.order) or self.exact:
            return not self.different()
        if self.cls.__bases__ is not self.bases:
            return False
        if self._take is None:
            return True
        try:
            return all(map(operator.is_, self._take(names), self._taken))
        except KeyError:
            return False

    def different(self) -> list[str]:
        """The names of the entries that differ."""
        found = dict(behaviour_of(self.cls))
        names = [
            name for name in {**self.known, **found}
            if name not in found or found[name] is not self.known.get(name, found)
        ]  # fmt: skip
        new = [name for name in self.names if name not in self.order]
        names += [name for name in new if name not in names and self._matters(name)]
        if self.exact and not names and list(self.names) != self.order:
            names = sorted(set(self.names) ^ set(self.order)) or ["the order"]
        return [*names, *(["__bases__"] if self.cls.__bases__ != self.bases else [])]

    def _matters(self, name: str) -> bool:
        """Whether a new name was looked for, or hides what a base has."""
        return name in self.absent or any(name in vars(base) for base in self.cls.__mro__[1:])


class FunctionParts:
    """The code and default arguments of functions, to be met again."""

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        self.functions = list(functions)
        self._parts = [list(map(get, self.functions)) for get in _PARTS]

    def are_there(self) -> bool:
        """Whether each function has its code and defaults."""
        return all(
            all(map(operator.is_, map(get, self.functions), known))
            for get, known in zip(_PARTS, self._parts, strict=True)
        )

    def different(self) -> list[str]:
        """The names of the functions that differ."""
        return [
            function.__qualname__ for index, function in enumerate(self.functions)
            if any(get(function) is not known[index]
                   for get, known in zip(_PARTS, self._parts, strict=True))
        ]  # fmt: skip


_PARTS = tuple(map(operator.attrgetter, ("__code__", "__defaults__", "__kwdefaults__")))


def BEHAVIOUR(
    builder: Builder,
    guard: Guard,
    classes: Iterable[tuple[type, bool, Iterable[str]]],
    functions: Iterable[FunctionType],
    subclasses: Iterable[tuple[type, type, bool]] = (),
) -> None:
    """Every class has the methods that it had, every function the code.

    Args:
        classes: the arguments of :class:`ClassEntries`.
        functions: those whose identity other guards tell.
        subclasses: ``(cls, abstract, answer)``: what abstract classes say of others, which
            changes when somebody registers one.
    """
    for cls, exact, absent in classes:
        entries = ClassEntries(cls, exact, absent)
        says = f"the class {class_name(cls)} has the methods that it had"
        _require(builder, guard, f"same_{cls.__name__}", entries.are_there, entries.different, says)
    for cls, abstract, answer in subclasses:
        name, other = builder.bind(cls.__name__, cls), builder.bind(abstract.__name__, abstract)
        is_one = "is" if answer else "is not"
        says = f"{class_name(cls)} {is_one} a subclass of {class_name(abstract)}"
        builder.require(guard, [f"issubclass({name}, {other}) is {answer}"], says)
    parts = FunctionParts(functions)
    if parts.functions:
        says = "the functions have the code and defaults that they had"
        _require(builder, guard, "same_functions", parts.are_there, parts.different, says)


def _require(
    builder: Builder,
    guard: Guard,
    name: str,
    holds: Callable[[], bool],
    different: Callable[[], list[str]],
    says: str,
) -> None:
    def sees() -> str:
        return f"different: {', '.join(different())}"

    builder.require(guard, [f"{builder.bind(name, holds)}()"], says, sees)


register(BEHAVIOUR)
