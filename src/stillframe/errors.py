"""Every public error of stillframe.

A message has three parts: what could not be done (with the user's file and line where there is
one), why, and what to change. The parts are fields, so that the command line and tests can read
them apart; the text is put together only when somebody asks for it.

Two families, never confused: a :class:`StillframeError` is about the program or the input that the
user gave; an :class:`InternalError` is a broken invariant of stillframe itself.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class StillframeError(Exception):
    """Base of all errors that a user's program, input or file can cause.

    Args:
        what: one sentence: what could not be done.
        why: the reason, in the user's terms; may be empty.
        where: user source lines, outermost first, each ``file:line in function: source``.
        hints: what to change; each entry is a sentence or text to paste.
    """

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        where: Sequence[str] = (),
        hints: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.where = tuple(where)
        self.hints = tuple(hints)

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"  why: {self.why}")
        if self.where:
            parts.append("  at:")
            parts.extend(f"    {line}" for line in self.where)
        for hint in self.hints:
            first, *rest = hint.splitlines() or [""]
            parts.append(f"  fix: {first}")
            parts.extend(f"       {line}" for line in rest)
        return "\n".join(parts)


class UserErrorKind(enum.Enum):
    """What a :class:`UserError` is about (the field's names)."""

    INVALID_INPUT = "invalid_input"
    CONSTRAINT_VIOLATION = "constraint_violation"
    ANTI_PATTERN = "anti_pattern"
    DYNAMIC_CONTROL_FLOW = "dynamic_control_flow"
    UNSUPPORTED = "unsupported"


class UserError(StillframeError):
    """An error in what the caller passed or in the captured program, by ``kind``."""

    kind: UserErrorKind

    def __init__(
        self,
        kind: UserErrorKind,
        what: str,
        *,
        why: str = "",
        where: Sequence[str] = (),
        hints: Sequence[str] = (),
        case_name: str | None = None,
    ) -> None:
        super().__init__(what, why=why, where=where, hints=hints)
        self.kind = kind
        self.case_name = case_name


class InvalidInput(UserError, ValueError):
    """Bad arguments to ``export`` and friends; raised before anything is traced."""

    def __init__(self, what: str, **parts: object) -> None:
        super().__init__(UserErrorKind.INVALID_INPUT, what, **parts)  # type: ignore[arg-type]


class ConstraintViolationError(UserError):
    """The declared dynamic shapes and the guards of the program do not agree.

    Attributes:
        spec: Python text that declares the sizes for which the program works: definitions of
            ``Dim``s, ``dynamic_shapes``, and ``assume`` where relations are needed.
    """

    def __init__(self, what: str, *, spec: str = "", **parts: object) -> None:
        super().__init__(UserErrorKind.CONSTRAINT_VIOLATION, what, **parts)  # type: ignore[arg-type]
        self.spec = spec


class DataDependentError(UserError):
    """The program asked Python to decide on a value that only the data can tell."""

    def __init__(self, what: str, **parts: object) -> None:
        super().__init__(UserErrorKind.ANTI_PATTERN, what, **parts)  # type: ignore[arg-type]


class ConversionError(DataDependentError):
    """Control flow on data that no operator can stand for.

    Attributes:
        rule: the name of the rule that does not hold: ``"dtype"``, ``"effect"``, ...
    """

    def __init__(self, what: str, *, rule: str, **parts: object) -> None:
        super().__init__(what, **parts)
        self.rule = rule


class SideEffectError(UserError):
    """Forward changed something that the program cannot express."""

    def __init__(self, what: str, **parts: object) -> None:
        super().__init__(UserErrorKind.ANTI_PATTERN, what, **parts)  # type: ignore[arg-type]


class NotSupported(UserError, NotImplementedError):
    """A construct that stillframe does not capture (yet); the message names it."""

    def __init__(self, what: str, **parts: object) -> None:
        super().__init__(UserErrorKind.UNSUPPORTED, what, **parts)  # type: ignore[arg-type]


class FrameError(NotSupported):
    """The frame machine met a construct or a function that it does not run; the message names it.

    A program that is interpreted cannot catch it.
    """


class CustomOperatorError(UserError):
    """What somebody registered for a custom operator fails, or is not what its schema says.

    Attributes:
        operator: the qualified name, ``"library::name"``.
    """

    def __init__(self, what: str, *, operator: str, **parts: object) -> None:
        super().__init__(UserErrorKind.INVALID_INPUT, what, **parts)  # type: ignore[arg-type]
        self.operator = operator


class CallError(StillframeError, ValueError):
    """A call of an exported program with inputs that the program was not made for.

    The message names the argument, what it is and what the program takes.
    """


class VerificationError(StillframeError):
    """An exported program and the module it came from disagree."""


class SpecViolationError(StillframeError):
    """A graph or a signature breaks a rule of its dialect; the message names the node."""


class ArtifactError(StillframeError):
    """A file cannot be read as a stillframe artifact: truncated, altered, foreign or too new."""


class InternalError(AssertionError):
    """A broken invariant inside stillframe: a defect of ours, never the user's fault."""
