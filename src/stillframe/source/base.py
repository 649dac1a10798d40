"""What a source is: the path by which a value was reached, from a frame's locals or globals.

A source has two readings. As text, its name is a Python expression over the mappings ``L`` (the
frame's locals) and ``G`` (its globals); guards are named by it and checked through it. As code, it
tells a code generator how to load the value (:meth:`Source.reconstruct`).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stillframe.errors import InternalError

if TYPE_CHECKING:
    from stillframe.source.guard import CreateFn, Guard

# Writes a key into an expression: as a person would (:func:`shown`), or as the name of a variable
# that holds it. The key may be a source itself.
WriteConstant = Callable[[Any], str]


def shown(value: Any) -> str:
    """``value`` as text, whatever its class makes of ``repr``; a source by its name."""
    if isinstance(value, Source):
        return value.name()
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__qualname__} at {id(value):#x}>"


class GuardSource(enum.Enum):
    """Where a source begins, and what it goes through. The values order guards."""

    LOCAL = 0
    GLOBAL = 1
    LOCAL_NN_MODULE = 2
    GLOBAL_NN_MODULE = 3
    CONSTANT = 4
    RANDOM_VALUE = 5
    SHAPE_ENV = 6
    LOCAL_FSDP_MODULE = 7
    GLOBAL_FSDP_MODULE = 8
    BACKWARD_STATE = 9
    EPHEMERAL = 10
    SYNTHETIC_LOCAL = 11

    def is_fsdp_module(self) -> bool:
        """Whether it goes through a module that FSDP manages."""
        return self in (GuardSource.LOCAL_FSDP_MODULE, GuardSource.GLOBAL_FSDP_MODULE)

    def is_nn_module(self) -> bool:
        """Whether it goes through a module of the graph, or one that FSDP manages."""
        modules = (GuardSource.LOCAL_NN_MODULE, GuardSource.GLOBAL_NN_MODULE)
        return self in modules or self.is_fsdp_module()

    def is_local(self) -> bool:
        """Whether it begins at a local of the frame."""
        return self in (
            GuardSource.LOCAL,
            GuardSource.LOCAL_NN_MODULE,
            GuardSource.LOCAL_FSDP_MODULE,
        )


class Codegen(Protocol):
    """What a source asks of a code generator: each call pushes a value, from those on the stack."""

    def load(self, source: Source) -> None:
        """Push the value of a source; the generator may have it at hand already."""

    def load_local(self, name: str, is_cell: bool) -> None:
        """Push a local, or what is in a cell or free variable."""

    def load_global(self, name: str) -> None:
        """Push a global of the frame."""

    def load_constant(self, value: Any) -> None:
        """Push a value that is known now."""

    def load_helper(self, name: str) -> None:
        """Push a function of ``stillframe.guards.helpers``."""

    def load_random_value(self, index: int) -> None:
        """Push the ``index``-th number that this call has drawn."""

    def load_attr(self, name: str) -> None:
        """Replace the top by one of its attributes."""

    def load_item(self) -> None:
        """Replace container and key by the item."""

    def call(self, count: int) -> None:
        """Replace a function and ``count`` arguments by the result."""


class Source:
    """Where a value came from. Immutable and hashable: equal sources read the same place.

    The classes are dataclasses without a comparison of their own: paths are long, and their hash is
    asked for often.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()

    @functools.cached_property
    def _fields(self) -> tuple[Any, ...]:
        return type(self), *(getattr(self, name) for name in self.__match_args__)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._fields)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Source):
            return NotImplemented
        return self._hash == other._hash and self._fields == other._fields

    def name(self) -> str:
        """An expression over ``L`` and ``G``; for sources that no expression reads, a marker."""
        return self._name

    @functools.cached_property
    def _name(self) -> str:
        return self.expression("", shown)

    def expression(self, base: str, constant: WriteConstant) -> str:
        """The text that reads the value.

        Args:
            base: the text of the base's value, for a :class:`ChainedSource`.
            constant: writes the constants in the text.
        """
        raise NotImplementedError(f"{type(self).__name__} has no name")

    def guard_source(self) -> GuardSource:
        """Where it begins."""
        raise NotImplementedError(f"{type(self).__name__} does not say where it begins")

    def reconstruct(self, codegen: Codegen) -> None:
        """Emit code that pushes the value."""
        raise NotImplementedError(f"no code loads {self!r}")

    def make_guard(self, create_fn: CreateFn) -> Guard:
        """A guard on this place.

        Raises:
            NotImplementedError: there is nothing to check here: a constant, or a place that does
                not exist when the check is made.
        """
        from stillframe.source.guard import Guard

        if self.guard_source() is GuardSource.CONSTANT:
            raise NotImplementedError(f"a constant needs no guard: {self.name()}")
        if self.is_ephemeral():
            raise NotImplementedError(f"an ephemeral source cannot be guarded: {self.name()}")
        return Guard(self, create_fn)

    def is_nn_module(self) -> bool:
        """Whether it goes through a module."""
        return self.guard_source().is_nn_module()

    def is_dict_key(self) -> bool:
        """Whether the value is a key of a dictionary."""
        return False

    def is_ephemeral(self) -> bool:
        """Whether the value exists only while the capture runs."""
        return False

    def subguards_allowed(self) -> bool:
        """Whether there may be guards on this place, and on what hangs off it."""
        return self.guard_source() is not GuardSource.SYNTHETIC_LOCAL


@dataclass(frozen=True, eq=False)
class ChainedSource(Source):
    """A source that is reached from another one."""

    base: Source

    def __post_init__(self) -> None:
        if not isinstance(self.base, Source):
            raise InternalError(f"{type(self).__name__} without a base: {self.base!r}")

    @functools.cached_property
    def _name(self) -> str:
        return self.expression(self.base.name(), shown)

    def guard_source(self) -> GuardSource:
        """That of the base."""
        return self._origin

    @functools.cached_property
    def _origin(self) -> GuardSource:
        return self.base.guard_source()

    def is_dict_key(self) -> bool:
        """What the base says."""
        return self.base.is_dict_key()

    def is_ephemeral(self) -> bool:
        """What the base says."""
        return self.base.is_ephemeral()
