"""A guard: something that the capture saw at a place and relied on.

What exactly is the business of its ``create_fn``, which turns the guard into a check. Nothing here
knows how: guards are compared, ordered and printed without looking at a value.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from traceback import StackSummary
from typing import Any

from stillframe import stack
from stillframe.errors import InternalError
from stillframe.source.base import GuardSource, Source
from stillframe.source.exact import NoExactForm, exact_form

logger = logging.getLogger("stillframe.guards")


class GuardBuilderBase:
    """The scope in which guards become checks; the floor above says what is in it."""


# Turns a guard into a check: a function, or a ``functools.partial`` of one.
CreateFn = Callable[[Any, "Guard"], Any]

#: The name of the kind that goes last: it has two sources, and the guard names only one.
DUPLICATE_INPUT = "DUPLICATE_INPUT"


class Guard:
    """A condition on what a source reads.

    Two guards are the same if they name the same place in the same way and have the same
    ``create_fn`` (a partial of the same function with the same arguments). Stacks and what
    :meth:`set_export_info` notes take no part, so a second guard is recognised.

    Attributes:
        originating_source: the place.
        create_fn: makes the check.
        guard_types, code_list, guarded_class_weakref, obj_weakref: for reports, written while
            the check is made.
        stack: where the system made the guard, all frames.
        user_stack: where in user code.
    """

    def __init__(self, originating_source: Source, create_fn: CreateFn) -> None:
        self.originating_source = originating_source
        self.create_fn = create_fn
        self.guard_types: list[str] | None = None
        self.code_list: list[str] | None = None
        self.guarded_class_weakref: Any = None
        self.obj_weakref: Any = None
        self.stack: stack.RawStack | None = None
        self.user_stack: StackSummary | None = None

    # -- what it is about ---------------------------------------------------------------------

    @functools.cached_property
    def name(self) -> str:
        """The expression that reads the place; empty for conditions on global state."""
        return self.originating_source.name()

    @functools.cached_property
    def source(self) -> GuardSource:
        """Where the place begins."""
        return self.originating_source.guard_source()

    def is_nn_module(self) -> bool:
        """See :meth:`GuardSource.is_nn_module`."""
        return self.source.is_nn_module()

    def is_fsdp_module(self) -> bool:
        """See :meth:`GuardSource.is_fsdp_module`."""
        return self.source.is_fsdp_module()

    def is_local(self) -> bool:
        """See :meth:`GuardSource.is_local`."""
        return self.source.is_local()

    def inner_create_fn(self) -> Any:
        """``create_fn`` without the arguments that a partial gives it."""
        function: Any = self.create_fn
        while isinstance(function, functools.partial):
            function = function.func
        return function

    @property
    def kind(self) -> str:
        """The name of the kind: that of the inner create function."""
        return str(getattr(self.inner_create_fn(), "__name__", self.inner_create_fn()))

    # -- identity and order -------------------------------------------------------------------

    @functools.cached_property
    def _identity(self) -> tuple[Hashable, ...]:
        return self.name, self.source, id(self.inner_create_fn())

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._identity)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Guard):
            return NotImplemented
        if self._hash != other._hash or self._identity != other._identity:
            return False
        return _same_function(self.create_fn, other.create_fn)

    def sort_key(self) -> tuple[bool, int, int, str, int]:
        """Orders guards: short paths before what hangs off them, those of two sources last."""
        return (
            self.kind == DUPLICATE_INPUT,
            self.source.value if self.source is not None else -1,
            len(self.name),
            self.name,
            definition_line(self.inner_create_fn()),
        )

    def __lt__(self, other: Guard) -> bool:
        return self.sort_key() < other.sort_key()

    # -- becoming a check ---------------------------------------------------------------------

    def create(self, builder: GuardBuilderBase) -> Any:
        """Make the check. An exception is logged with the guard and where it was made."""
        try:
            return self.create_fn(builder, self)
        except Exception:
            frames = stack.summary(self.stack or (), 4)
            made = "\n".join(("made at:", *frames)) if frames else "made at an unknown place"
            logger.exception("no check could be made of this guard:\n%s\n%s", self, made)
            raise

    def set_export_info(
        self, guard_type: str, guarded_class: Any, code_list: list[str], obj_weakref: Any
    ) -> None:
        """Note for reports what was checked. A guard may be noted more than once.

        Raises:
            InternalError: the guard was made for another class or object before. An object that
                has died in between may have been a slice of a list, which is made anew.
        """
        self.guard_types = [*(self.guard_types or ()), guard_type]
        self.code_list = [*(self.code_list or ()), *code_list]
        known = self.guarded_class_weakref
        if known is not None and _referent(known) is not _referent(guarded_class):
            raise InternalError(f"a guard on {self.name} of two classes")
        self.guarded_class_weakref = guarded_class
        earlier = _referent(self.obj_weakref)
        if earlier is not None and earlier is not _referent(obj_weakref):
            raise InternalError(f"a guard on {self.name} of two objects")
        self.obj_weakref = obj_weakref

    # -- printing -----------------------------------------------------------------------------

    def __repr__(self) -> str:
        return (
            f"{self.source.name.lower()} {self.name!r} {self.kind}\n"
            f"    guard_types={self.guard_types}\n"
            f"    code={self.code_list}\n"
            f"    object={shown_reference(self.obj_weakref)}\n"
            f"    class={shown_reference(self.guarded_class_weakref)}"
        )

    def __str__(self) -> str:
        rows = {
            "Name": self.name,
            "Source": self.source.name.lower(),
            "Create Function": self.kind,
            "Guard Types": self.guard_types,
            "Code List": self.code_list,
            "Object Weakref": shown_reference(self.obj_weakref),
            "Guarded Class Weakref": shown_reference(self.guarded_class_weakref),
        }
        return "\n".join(f"{label}: {value}" for label, value in rows.items())


def definition_line(function: Any) -> int:
    """The line where a create function is defined; 0 if it does not say."""
    return int(getattr(getattr(function, "__code__", None), "co_firstlineno", 0))


def shown_reference(reference: Any) -> str:
    """A weak reference by class and address of its referent; never by the referent's own text."""
    if reference is None:
        return "None"
    if not isinstance(reference, weakref.ref):
        return f"<{type(reference).__name__} at {id(reference):#x}>"
    referent = reference()
    if referent is None:
        return "dead"
    return f"<weakref to {type(referent).__name__} at {id(referent):#x}>"


def _referent(reference: Any) -> Any:
    """What a weak reference refers to, None if that has died; anything else stands for itself."""
    return reference() if isinstance(reference, weakref.ref) else reference


def _same_function(a: Any, b: Any) -> bool:
    """The same function; or partials of the same one with the same arguments."""
    if a is b:
        return True
    if not (isinstance(a, functools.partial) and isinstance(b, functools.partial)):
        return False
    if not _same_function(a.func, b.func) or len(a.args) != len(b.args):
        return False
    if a.keywords.keys() != b.keywords.keys():
        return False
    pairs = [*zip(a.args, b.args, strict=True)]
    pairs += [(value, b.keywords[name]) for name, value in a.keywords.items()]
    return all(_same_argument(x, y) for x, y in pairs)


def _same_argument(a: Any, b: Any) -> bool:
    """By identity, or by value where that can be trusted: ``1`` is not ``True``."""
    if a is b:
        return True
    if isinstance(a, Source) and isinstance(b, Source):
        return a == b
    if isinstance(a, weakref.ref) and isinstance(b, weakref.ref):
        return a() is not None and a() is b()
    try:
        return exact_form(a) == exact_form(b)
    except NoExactForm:
        return False


@dataclass(frozen=True)
class ShapeGuard:
    """A condition on sizes: a symbolic expression and the stack that asked it."""

    expr: Any
    stack: stack.RawStack = ()


@dataclass(frozen=True)
class GuardEnvExpr:
    """Base of conditions over the whole environment, which later stages record.

    Whoever turns them into checks must know every subclass; an unknown one is an error.
    """


@dataclass(frozen=True)
class DuplicateInputs(GuardEnvExpr):
    """Two different places that hold one object."""

    input_source_a: Source
    input_source_b: Source

    def __post_init__(self) -> None:
        if self.input_source_a == self.input_source_b:
            raise InternalError(f"one place twice: {self.input_source_a.name()}")
