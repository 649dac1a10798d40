"""A ``while`` on data, or a ``for`` over a range of unknown length: ``while_loop``.

Carried are a flag, which tells whether there is another step, and the variables that the loop
assigns and that a step or the code behind the loop may read. One step is run on a copy of the
frame, from the beginning of the loop until it comes there again, or leaves. A loop that is left to
two places (``return``, or ``break`` where there is an ``else``) carries a second flag, which tells
to which one: behind it is a branch on that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe.export.converting.counted import Counted
from stillframe.export.converting.iterators import copied
from stillframe.export.converting.predicates import as_tensor
from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.results import Packed, agree
from stillframe.export.converting.ways import Outcome, Runner, recorded, region_of
from stillframe.frames.flow import END
from stillframe.frames.forks import Arrival, Fork, Region, fill
from stillframe.frames.frame import NULL, Frame

if TYPE_CHECKING:
    from stillframe.export.converting.policy import ConvertingPolicy

_SIDES = ("before a step of the loop", "after it")


def while_loop(
    policy: ConvertingPolicy, frame: Frame, header: int, goes_on: Any, otherwise: int | None = None
) -> int:
    """Record a loop that begins at ``header``; the instruction behind it, or ``LEAVE``.

    Args:
        goes_on: whether there is a first step.
        otherwise: where the frame goes on if there is none.
    """
    loop = _Loop(policy, frame, header, otherwise)

    def step(carried: list[Any]) -> list[Any]:
        fork = Fork(frame, loop.flow, loop.region, header)
        fork.skips = header
        outcome = loop.step(fork, carried)
        again = as_tensor(outcome.arrival.again)
        return [again, *loop.flag(outcome), *outcome.packed.operands()]

    return loop.leave(loop.record(as_tensor(goes_on), [], step))


def for_loop(policy: ConvertingPolicy, frame: Frame, target: int) -> int:
    """Record a ``for`` loop over the :class:`Counted` on the stack; what follows, as above."""
    counted: Counted = frame.stack.pop()
    loop = _Loop(policy, frame, frame.pc, policy.flow(frame).same[target])
    loop.begin(counted.start)

    def step(carried: list[Any]) -> list[Any]:
        number, *rest = carried
        fork = Fork(frame, loop.flow, loop.region, frame.pc + 1)
        fork.stack += [counted, number]
        outcome = loop.step(fork, rest)
        within = as_tensor(counted.is_within(number + counted.step))
        again = outcome.arrival.again
        if again is not True:
            within = within.logical_and(as_tensor(again))
        operands = outcome.packed.operands()
        return [within, *loop.flag(outcome), number + counted.step, *operands]

    first = as_tensor(counted.is_within(counted.start))
    return loop.leave(loop.record(first, [counted.start], step))


class _Loop:
    """One loop of the code of a frame, which stands in front of it.

    Args:
        otherwise: where the frame goes on if the loop has no step.
    """

    def __init__(
        self, policy: ConvertingPolicy, frame: Frame, header: int, otherwise: int | None
    ) -> None:
        self.policy, self.frame = policy, frame
        self.flow = policy.flow(frame)
        outer = region_of(frame).stops
        self.header = self.flow.same[header]
        self.ends = self.flow.loop_ends(self.header, outer - {self.header})
        if otherwise in self.ends[1:]:
            self.ends = self.ends[::-1]
        if not self.ends or otherwise not in (None, self.ends[0]):
            raise refusal(
                frame, "return", "A loop on data is left in more than two ways that do not meet "
                "(rule: return).",
                why="each return is a way of its own, and so is the end of the loop",
                hint="keep in a variable what is to be returned, end the loop with break, and "
                "return behind it",
            )  # fmt: skip
        second = self.ends[1] if len(self.ends) > 1 else None
        stops = frozenset({self.header, *self.ends})
        self.region = Region(stops, self.header, len(frame.stack), second)
        self.kept: tuple[Any, ...] | None = None
        places = self._places()
        live = self.flow.live(self.header).union(*map(self.flow.live, self.ends))
        self.assigned = self.flow.assigned(places)
        self.runner = Runner(policy, frame, live, self.assigned, self.region)
        self.runner.refuse_suspension(places)

    def _places(self) -> set[int]:
        starts = self.flow.loops()[self.header]
        return self.flow.places(starts, frozenset(self.ends)).difference(self.ends)

    def begin(self, number: Any) -> None:
        """The loop variable has some value, if only steps read it, or who leaves from one."""
        slot = self.flow.loop_variable(self.header)
        unread = slot is not None and slot not in self.flow.live(self.ends[0])
        if slot in self.runner.slots and unread and self.frame.locals[slot] is NULL:
            self.frame.locals[slot] = number

    def flag(self, outcome: Outcome) -> list[Any]:
        """The second flag, where there is one."""
        return [] if self.region.second is None else [as_tensor(outcome.arrival.second)]

    def record(self, goes_on: Any, extra: list[Any], step: Callable[[list[Any]], list[Any]]) -> Any:
        """Make the operator, and set the variables that it leaves; the second flag.

        Args:
            goes_on: the first value of the flag.
            extra: what is carried besides flags and variables.
            step: runs one step on the carried values but the flags.
        """
        flags = [goes_on] if self.region.second is None else [goes_on, as_tensor(False)]
        frame, runner = self.frame, self.runner
        self.before = Packed.of(runner.values(frame, {}), frame, self.policy.is_outside)
        self._check_before()

        def call() -> Any:
            loop = torch.ops.higher_order.while_loop
            carried = (*flags, *extra, *self.before.operands())
            return loop(lambda flag, *_: flag, lambda *c: step(list(c[len(flags) :])), carried, ())

        found = list(recorded(frame, call))
        results = found[len(flags) + len(extra) :]
        operands = self.before.operands()
        runner.link(self.before, results, [(v, isinstance(v, torch.Tensor)) for v in operands])
        runner.link(self.before, results, self.outcome.raw)
        values = self.before.filled(results)
        for slot in self.assigned:
            if slot not in runner.cells:
                frame.locals[slot] = NULL
        runner.assign(frame, values)
        return found[1] if len(flags) > 1 else None

    def leave(self, second: Any) -> int:
        """Where the frame goes on."""
        from stillframe.export.converting.branches import Branch

        if second is None or self.kept is None:  # no step comes to the second one
            return self.ends[0]
        stops = region_of(self.frame).stops
        around = [p for p in self.ends if self.flow.loop_around(p, stops) is not None]
        return Branch(
            self.policy, self.frame, None, second, self.ends[1], self.ends[0],
            True if self.kept else None, (*around, self.ends[0])[0], self.kept,
        ).go_on()  # fmt: skip

    def step(self, fork: Fork, carried: list[Any]) -> Outcome:
        """Run one step from the carried values."""
        names = len(self.before.places())
        values = self.before.filled(carried[len(carried) - names :])
        before = self.runner.values(self.frame, {})
        self.runner.assign(fork, values)
        try:
            self.outcome = self.runner.run(fork, self._collect)
        finally:
            for slot, cell in self.runner.cells.items():
                fill(cell, before[self.runner.name(slot)])
        self._keep(self.outcome.arrival.kept)
        agree(self.before, self.outcome.packed, self.frame, _SIDES, sizes=True)
        return self.outcome

    def _keep(self, kept: tuple[Any, ...] | None) -> None:
        """Iterators of loops that are left are still on the stack, where they are taken off.

        Raises:
            ConversionError: there is more than that, such as the end of a ``with`` block.
        """
        if not all(isinstance(v, Counted) or copied(v) is not None for v in kept or ()):
            raise refusal(
                self.frame, "with", "A loop on data is left in the middle of a with block, or of a "
                "loop over a generator (rule: with).",
                why="the block would end behind the loop",
                hint="end the loop with break, outside of the block",
            )  # fmt: skip
        self.kept = kept

    def _collect(self, arrival: Arrival, fork: Fork) -> dict[str, Any]:
        if arrival.place == END:
            raise refusal(
                fork, "return", "A step of a loop on data returns (rule: return).",
                hint="end the loop with break, and return behind it",
            )  # fmt: skip
        return {}

    def _check_before(self) -> None:
        for i, leaf in enumerate(self.before.leaves):
            if leaf is NULL:
                raise refusal(
                    self.frame, "unassigned", f"{self.before.name_of(i)} is assigned in a loop on "
                    "data, and not before it (rule: unassigned).",
                    why="the loop may have no step",
                    hint="assign it before the loop",
                )  # fmt: skip
