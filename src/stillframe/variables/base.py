"""What is known of a value: where it came from, whether it may change, how it is made again.

The machine runs on the program's values themselves; a :class:`VariableTracker` goes with one. It is
found by the value's identity (``SideEffects``), and answers what Python alone cannot: from which
source the value was read, what was relied on there, what an attribute of it is and where *that* one
came from, and the code that produces it again when the captured frame runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from stillframe.errors import InternalError
from stillframe.source import Source

if TYPE_CHECKING:
    from stillframe.variables.residue import Residue
    from stillframe.variables.translator import Translator


class MutableLocal:
    """Marks a mutable value that the program made itself, during the trace."""

    def __repr__(self) -> str:
        return "MutableLocal()"


class ExistingMutable(MutableLocal):
    """Marks a container that was there before, whose contents may change."""


class ExistingObject(MutableLocal):
    """Marks an object that was there before, whose attributes may change."""


class VariableTrackerMeta(type):
    """Keeps the table of all kinds; a lazy one counts as a tracker without being realised."""

    all_kinds: ClassVar[dict[str, type]] = {}

    def __init__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], **options: Any
    ) -> None:
        super().__init__(name, bases, names)
        if name in VariableTrackerMeta.all_kinds:
            raise InternalError(f"there is a kind of variable {name} already")
        VariableTrackerMeta.all_kinds[name] = cls


class VariableTracker(metaclass=VariableTrackerMeta):
    """What goes with one value of the program.

    Args:
        value: the value as the program sees it: itself, or what stands for it (a fake tensor).
        source: where it came from; None for a value made during the trace.
        mutable: whether and how it may change; None for a value that cannot.
    """

    #: Whether a call of such a value goes to :meth:`call_function`.
    handles_calls = False

    #: Whether nothing is known of the value but its class, and the attributes that were read.
    is_plain_object = False

    #: Whether there is state in C, which no guard sees and nobody is asked for.
    is_opaque = False

    #: Whether single items are read, tested and written by the methods for items.
    handles_items = False

    def __init__(
        self, value: Any, *, source: Source | None = None, mutable: MutableLocal | None = None
    ) -> None:
        self.value = value
        self.source = source
        self.mutable = mutable

    # -- what it is ---------------------------------------------------------------------------

    def python_type(self) -> type:
        """The class of the value, as the program is told."""
        return type(self.value)

    def is_python_constant(self) -> bool:
        """Whether the value is known now, and the same in every call that the guards admit."""
        return False

    def as_python_constant(self) -> Any:
        """The value, for a kind that is a constant.

        Raises:
            NotImplementedError: the value is none.
        """
        if not self.is_python_constant():
            raise NotImplementedError(f"{self!r} is not a constant")
        return self.value

    def as_proxy(self) -> Any:
        """The value as an argument of a graph node.

        Raises:
            NotImplementedError: a graph cannot hold such a value.
        """
        return self.as_python_constant()

    # -- what the program does with it --------------------------------------------------------

    def var_getattr(self, tx: Translator, name: str) -> Any:
        """``value.name``, tracked if it came from outside."""
        return tx.read_attribute(self, name)

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``value(*args, **kwargs)``."""
        return tx.call_plainly(self.value, args, kwargs)

    def call_method(
        self, tx: Translator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``value.name(*args, **kwargs)``."""
        return tx.call(tx.load_attr(self.value, name), args, kwargs)

    def load_item(self, tx: Translator, key: Any) -> Any:
        """``value[key]`` for a value from outside."""
        tx.expose(self.value)
        return tx.here(tx.plain_item(self.value, key))

    def contents(self) -> Iterable[tuple[Any, Source]]:
        """What a container holds, and where each item is read."""
        return ()

    def has(self, tx: Translator, value: Any) -> bool | None:
        """``value in container`` for a container from outside; None: nothing better than to look
        at all that it holds."""
        return None

    def note_item(self, tx: Translator, key: Any) -> None:
        """``value[key]`` is about to be set or deleted, where :attr:`handles_items`."""
        raise NotImplementedError(f"{self!r} has no items of its own kind")

    def is_own(self, tx: Translator, place: Source) -> bool:
        """Whether the program has set the item of a place, where :attr:`handles_items`."""
        raise NotImplementedError(f"{self!r} has no items of its own kind")

    def rely_on_order(self, tx: Translator) -> None:
        """The program, or C code, is about to see in which order a container holds its items."""

    def before_change(self, tx: Translator) -> None:
        """The contents are about to change: what the program may still get of them is known."""
        tx.expose(self.value, deep=False)

    def iterable(self, tx: Translator) -> Any:
        """What C code gets that iterates over the value, from outside, or copies it."""
        tx.expose(self.value, deep=False)
        return self.value

    def iterated(self, tx: Translator) -> Any:
        """What the program iterates over in place of the value."""
        return self.iterable(tx)

    # -- making it again ----------------------------------------------------------------------

    def reconstruct(self, residue: Residue) -> None:
        """Push the value, for a value that the program made; one with a source is read there.

        Raises:
            NotImplementedError: nothing can make such a value again.
        """
        if not self.is_python_constant():
            raise NotImplementedError(f"{typestr(self)} cannot be made again")
        residue.load_constant(self.value)

    def __repr__(self) -> str:
        where = "" if self.source is None else f", source={self.source.name()}"
        return f"{type(self).__name__}({type(self.value).__name__}{where})"


class LastingVariable(VariableTracker):
    """An object that lasts and never changes: the captured frame holds it."""

    def is_python_constant(self) -> bool:
        return True

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(self.value)


class LazyVariableTracker(VariableTracker):
    """A value and its source, not looked at yet: nothing is relied on until somebody uses it."""

    def __init__(self, value: Any, source: Source) -> None:
        super().__init__(value, source=source)
        self._realized: VariableTracker | None = None

    @property
    def is_realized(self) -> bool:
        """Whether somebody has used it."""
        return self._realized is not None

    def peek_type(self) -> type:
        """The class of the value. Does not realise it."""
        return type(self.value)

    def realize(self, tx: Translator) -> VariableTracker:
        """What goes with the value; installs its guards the first time."""
        if self._realized is None:
            assert self.source is not None
            self._realized = tx.build(self.value, self.source)
        return self._realized

    def reconstruct(self, residue: Residue) -> None:
        """Read it where it is: nobody has changed it."""
        assert self.source is not None
        residue.load(self.source)


def realize_all(tx: Translator, value: Any) -> Any:
    """Realise the lazy trackers in a tree of tuples, lists and dicts of trackers."""
    if isinstance(value, LazyVariableTracker):
        return value.realize(tx)
    if isinstance(value, (list, tuple)):
        return type(value)(realize_all(tx, item) for item in value)
    if isinstance(value, dict):
        return {key: realize_all(tx, item) for key, item in value.items()}
    return value


def typestr(*values: Any) -> str:
    """The kinds of values for a message: of a tracker what it tracks, else the class."""
    return " ".join(_typestr(value) for value in values)


def _typestr(value: Any) -> str:
    if isinstance(value, VariableTracker):
        return f"{type(value).__name__}({type(value.value).__name__})"
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
