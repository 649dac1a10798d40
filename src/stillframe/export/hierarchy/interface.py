"""How bodies call each other: containers around flat values, and what goes beside the arguments.

The arguments of a module are what the user's code passed, or flat values. Sometimes a call needs
more: which of several bodies to run, values that the module's code took from elsewhere, and values
that others take from inside. These travel in a :class:`Captured`, which only a :class:`Captures`
module gets to see; another module in its place is called with the arguments alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import CallError, NotSupported

#: The keyword under which a module of the hierarchy gets what goes beside the arguments.
CAPTURED = "_stillframe_captured"


@dataclass
class Captured:
    """What goes beside the arguments of one call.

    Attributes:
        body: which body of the module is run.
        values: for it, from outside.
        expected: how many values the caller wants from inside.
        results: these values, once it has run.
    """

    body: int
    values: tuple[Any, ...] = ()
    expected: int = 0
    results: tuple[Any, ...] = field(default=())


class Captures:
    """Marks modules that take a :class:`Captured`."""


def call_captured(module: torch.nn.Module, captured: Captured, *args: Any, **kwargs: Any) -> Any:
    """Call a module of the hierarchy, or one that a user put in its place.

    Raises:
        NotSupported: another module cannot give the values that the caller takes from inside.
    """
    if isinstance(module, Captures):
        return module(*args, **kwargs, **{CAPTURED: captured})
    if captured.expected:
        raise NotSupported(
            f"A {type(module).__name__} stands where the program uses values from inside of the "
            "module that it captured, besides its result.",
            hints=["put the captured module back, or return these values from its forward"],
        )
    return module(*args, **kwargs)


def results_of(captured: Captured) -> tuple[Any, ...]:
    """The values from inside of the call."""
    return captured.results


class Rebuild:
    """Makes a container of flat values. It has a name, because graphs call functions by name."""

    def __init__(self, spec: pytree.TreeSpec) -> None:
        self.spec = spec
        self.__name__ = self.__qualname__ = f"make_{getattr(spec.type, '__name__', 'container')}"

    def __call__(self, leaves: Any) -> Any:
        return pytree.tree_unflatten(list(leaves), self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rebuild) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(self.__name__)


class Leaves:
    """The flat values of a container of a known structure.

    Args:
        spec: the structure.
        path: of the module whose result it is, for errors.
    """

    def __init__(self, spec: pytree.TreeSpec, path: str) -> None:
        self.spec = spec
        self.path = path
        self.__name__ = self.__qualname__ = "leaves_of_result"

    def __call__(self, value: Any) -> list[Any]:
        leaves, spec = pytree.tree_flatten(value)
        if spec != self.spec:
            raise CallError(
                f"self.{self.path} returned another structure than the module that was captured.",
                why=f"wanted {self.spec}, got {spec}",
            )
        return leaves

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Leaves) and (self.spec, self.path) == (other.spec, other.path)

    def __hash__(self) -> int:
        return hash(self.path)


def is_plain(spec: pytree.TreeSpec) -> bool:
    """Whether a structure is made of tuples, lists and dicts with text keys only."""
    if spec.is_leaf():
        return True
    if spec.type is dict and not all(isinstance(k, str) for k in spec.context):
        return False
    return spec.type in (tuple, list, dict) and all(is_plain(c) for c in spec.children())
