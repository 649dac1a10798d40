"""Why a captured program cannot be used for a frame: the guard, what it wanted, what it found."""

from __future__ import annotations

from dataclasses import dataclass

from stillframe.guards.guards_set import user_line
from stillframe.source import Guard


@dataclass(frozen=True)
class GuardFailure:
    """The first guard that does not hold.

    Attributes:
        guard: which; None for a condition that a later stage recorded.
        expected: how the place was when the program was captured: ``is of class int``; a sentence
            of its own where the guard is on no place.
        found: what is there now.
    """

    guard: Guard | None
    expected: str
    found: str

    @property
    def name(self) -> str:
        """The user's expression; empty where the guard is on no place."""
        return "" if self.guard is None else self.guard.name

    @property
    def where(self) -> str:
        """The user's line that the guard comes from, or nothing."""
        return "" if self.guard is None else user_line(self.guard)

    def __str__(self) -> str:
        kind = f" [{self.guard.kind}]" if self.guard is not None else ""
        at = f"\n  relied on at {self.where}" if self.where else ""
        return f"{self.name} {self.expected}".strip() + f"{kind}; found: {self.found}{at}"
