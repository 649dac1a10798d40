"""VariableBuilder: what goes with a value that was there before the capture, and its guards."""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING, Any

from stillframe.context import TracingContext
from stillframe.errors import InternalError
from stillframe.guards import install_guard, make_dupe_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import Source, TypeSource, is_constant_source
from stillframe.source.base import GuardSource
from stillframe.variables.base import (
    ExistingMutable,
    ExistingObject,
    LazyVariableTracker,
    MutableLocal,
    VariableTracker,
)
from stillframe.variables.behaviour import is_library_class, is_method
from stillframe.variables.paths import is_library, is_private
from stillframe.variables.registry import wrapper_of

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator


#: Kinds that say which object or class it is.
_IDENTITY_KINDS = frozenset(
    {"ID_MATCH", "TYPE_MATCH", "FUNCTION_MATCH", "BUILTIN_MATCH", "CLOSURE_MATCH"}
)


_DATA = (int, float, str, bytes, list, dict, set, collections.deque)


class VariableBuilder:
    """Wraps values from one source.

    Args:
        tx: the translator whose program reads them.
        source: where they are read.

    Raises:
        InternalError: without a source; ``SourcelessBuilder`` is for values of the program's own.
        RuntimeError: there is no tracing context.
    """

    def __init__(self, tx: Translator, source: Source) -> None:
        if source is None:
            raise InternalError("a value without a source is wrapped by SourcelessBuilder")
        TracingContext.get()
        self.tx = tx
        self.source = source
        self._is_covered = False
        self._is_data = False  # also of a library, where somebody may change it

    def __call__(self, value: Any) -> VariableTracker:
        """What goes with ``value``; the object itself if it is known already."""
        self._is_data = not is_private(self.source) and (
            isinstance(value, _DATA) or not is_library_class(type(value))
        )
        known = self.tx.effects.tracker(value)
        if isinstance(known, LazyVariableTracker) and known.source == self.source:
            known = None if not known.is_realized else known
        if known is not None:
            found = known.realize(self.tx) if isinstance(known, LazyVariableTracker) else known
            self.same_object(value, found)
            return found
        key = id(value), self.source
        cached = self.tx.wrapped.get(key)
        if cached is None:
            cached = self.tx.wrapped[key] = value, self._wrap(value)
        return cached[1]

    def same_object(self, value: Any, known: VariableTracker) -> None:
        """The program was captured under "these two are one object"."""
        if known.source is not None and not self._is_constant():
            self.one_object(known.source)

    def one_object(self, other: Source) -> None:
        """The object here is the one that is read at another source."""
        if other == self.source or is_constant_source(other):
            return
        duplicate = make_dupe_guard(self.source, other)
        if duplicate is not None:
            self._install(duplicate)
            return
        for source in (self.source, other):  # no check sees both: each is this very object
            install_guard(source.make_guard(guard_kind("ID_MATCH")))

    def _wrap(self, value: Any) -> VariableTracker:
        self._is_covered = is_method(self.source, value)
        if self.tx.is_code_constant(value):
            self.install_guards("ID_MATCH")  # the same object comes from the program's own code
        wrapper = wrapper_of(value)
        if wrapper is None:
            from stillframe.variables.kinds.user_objects import wrap_user_object

            wrapper = wrap_user_object
        made = wrapper(self, value)
        if made.source is None and not made.is_python_constant():
            made.source = self.source
        if isinstance(made.mutable, ExistingMutable | ExistingObject) or made.handles_calls:
            self.tx.effects.track(value, made)
        self.tx.behaviour.rely_on_class(type(value), TypeSource(self.source))
        return made

    # -- what wrappers use --------------------------------------------------------------------

    def _is_constant(self) -> bool:
        if self.source.guard_source() is GuardSource.CONSTANT:
            return True
        return is_library(self.source) and not self._is_data

    def install_guards(self, *kinds: str, **parameters: Any) -> dict[str, Any]:
        """Rely on what the source reads, in these ways.

        Args:
            parameters: of the kinds.

        Returns:
            Options for the tracker, the same whether or not a guard was needed.
        """
        if not self._is_constant():
            for name in kinds:
                if self._is_covered and name in _IDENTITY_KINDS:
                    continue
                make = guard_kind(name)
                self._install(functools.partial(make, **parameters) if parameters else make)
        return {"source": self.source}

    def rely(self, create_fn: Any) -> None:
        """Rely on what the source reads, by a kind of guard with its parameters."""
        if not self._is_constant():
            self._install(create_fn)

    def _install(self, create_fn: Any) -> None:
        self.tx.tell_place()
        install_guard(self.source.make_guard(create_fn), skip=1)

    def track_object(self, value: Any, made: VariableTracker) -> VariableTracker:
        """An object that was there before, known from now on by its identity."""
        return self.set_source_and_track_mutable(value, made, ExistingObject())

    def set_source_and_track_mutable(
        self, value: Any, made: VariableTracker, mutable: MutableLocal | None = None
    ) -> VariableTracker:
        """A container that was there before: its source is this one, and its changes are seen."""
        made.mutable = mutable or ExistingMutable()
        return self.set_source_and_track(value, made)

    def set_source_and_track(self, value: Any, made: VariableTracker) -> VariableTracker:
        """A value that was there before, and cannot change: known by its identity."""
        made.source = self.source
        self.tx.effects.track(value, made)
        if made.value is not value:
            self.tx.effects.track(made.value, made)
        return made

    def at(self, source: Source) -> VariableBuilder:
        """The builder for another source."""
        return VariableBuilder(self.tx, source)
