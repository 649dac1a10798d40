"""The guards of one capture: a set of them, and snapshots of the set. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stillframe import stack
from stillframe.context import Checkpointable, TracingContext, check_snapshot
from stillframe.source import Guard, GuardEnvExpr, Source


class GuardsSet:
    """Guards, each once, in the order in which they were added."""

    def __init__(self, guards: Iterable[Guard] = ()) -> None:
        self._guards: dict[Guard, None] = dict.fromkeys(guards)

    def __iter__(self) -> Iterator[Guard]:
        return iter(self._guards)

    def __len__(self) -> int:
        return len(self._guards)

    def __contains__(self, guard: Guard) -> bool:
        return guard in self._guards

    def __sub__(self, other: GuardsSet) -> GuardsSet:
        """A new set: the guards here that are not in ``other``."""
        return GuardsSet(guard for guard in self if guard not in other)

    def add(self, guard: Guard, *, collect_debug_stack: bool = True, skip: int = 0) -> None:
        """Add a guard; one that is there already stays as it was first added.

        Args:
            collect_debug_stack: note where the guard was made, unless it knows.
            skip: how many callers are helpers, which the stack leaves out.
        """
        if guard in self._guards:
            return
        if collect_debug_stack:
            if guard.stack is None:
                guard.stack = stack.whole_stack(skip)
            if guard.user_stack is None:
                guard.user_stack = TracingContext.extract_stack()
        self._guards[guard] = None

    def update(self, *others: Iterable[Guard], skip: int = 0) -> None:
        """Add the guards of other sets."""
        for other in others:
            for guard in other:
                self.add(guard, skip=skip + 1)

    def remove_guards_with_source(self, source: Source) -> None:
        """Drop all guards on this very place."""
        kept = [g for g in self if g.originating_source != source]
        self._guards = dict.fromkeys(kept)

    def __repr__(self) -> str:
        """A line for each guard, in the order of the checks."""
        return "\n".join(_line(guard) for guard in sorted(self)) or "no guards"


def _line(guard: Guard) -> str:
    where = user_line(guard)
    return f"{guard.kind} {guard.name}".rstrip() + (f"  # {where}" if where else "")


def user_line(guard: Guard) -> str:
    """Where in user code the guard comes from: ``file:line in function: source``, or nothing."""
    if not guard.user_stack:
        return ""
    frame = guard.user_stack[-1]
    place = f"{frame.filename}:{frame.lineno} in {frame.name}"
    return f"{place}: {frame.line}" if frame.line else place


@dataclass(frozen=True)
class GuardsCheckpointState:
    """The guards at some moment."""

    dynamo_guards: frozenset[Guard]
    order: tuple[Guard, ...] = ()

    def diff(self, other: GuardsCheckpointState) -> set[Guard] | None:
        """The guards here and not in ``other``; None if there is none. One-sided."""
        return set(self.dynamo_guards - other.dynamo_guards) or None

    def __eq__(self, other: object) -> bool:
        """The same guards, in whatever order."""
        if not isinstance(other, GuardsCheckpointState):
            return NotImplemented
        return self.dynamo_guards == other.dynamo_guards

    def __hash__(self) -> int:
        return hash(self.dynamo_guards)


class GuardsContext(Checkpointable[GuardsCheckpointState]):
    """The guards of a tracing context: ``TracingContext.part(GuardsContext)``.

    Attributes:
        dynamo_guards: those on values of the frame.
        aotautograd_guards: conditions that later stages record; no part of snapshots.
    """

    def __init__(self) -> None:
        self.dynamo_guards = GuardsSet()
        self.aotautograd_guards: list[GuardEnvExpr] = []

    def copy_graphstate(self) -> GuardsCheckpointState:
        """The guards as they are now."""
        order = tuple(self.dynamo_guards)
        return GuardsCheckpointState(frozenset(order), order)

    def restore_graphstate(self, state: GuardsCheckpointState) -> None:
        """The guards as they were."""
        check_snapshot(state, GuardsCheckpointState)
        self.dynamo_guards = GuardsSet(state.order)
