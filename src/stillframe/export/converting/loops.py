"""A ``while`` on data, or a ``for`` over a range of unknown length: ``while_loop``.

Carried are a flag, which tells whether there is another step, and the variables that the loop
assigns and that a step or the code behind the loop may read. One step is run on a copy of the
frame, from the beginning of the loop until it comes there again, or leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe.export.converting.counted import Counted
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


def while_loop(policy: ConvertingPolicy, frame: Frame, header: int, goes_on: Any) -> int:
    """Record a loop that begins at ``header``; the instruction behind it.

    Args:
        goes_on: whether there is a first step.
    """
    loop = _Loop(policy, frame, header)

    def step(carried: list[Any]) -> list[Any]:
        fork = Fork(frame, loop.flow, loop.region, header)
        fork.skips = header
        outcome = loop.step(fork, carried)
        return [as_tensor(outcome.arrival.again), *outcome.packed.operands()]

    loop.record([as_tensor(goes_on)], step)
    return loop.end


def for_loop(policy: ConvertingPolicy, frame: Frame, target: int) -> int:
    """Record a ``for`` loop over the :class:`Counted` on the stack; the instruction behind it."""
    counted: Counted = frame.stack.pop()
    loop = _Loop(policy, frame, frame.pc)
    if loop.flow.same[target] != loop.end:
        raise refusal(
            frame, "else", "A for loop over a range of unknown length has an else (rule: else).",
            hint="keep in a variable whether the loop was left",
        )  # fmt: skip

    def step(carried: list[Any]) -> list[Any]:
        number, *rest = carried
        fork = Fork(frame, loop.flow, loop.region, frame.pc + 1)
        fork.stack += [counted, number]
        outcome = loop.step(fork, rest)
        within = as_tensor(counted.is_within(number + counted.step))
        again = outcome.arrival.again
        if again is not True:
            within = within.logical_and(as_tensor(again))
        return [within, number + counted.step, *outcome.packed.operands()]

    loop.record([as_tensor(counted.is_within(counted.start)), counted.start], step)
    return loop.end


class _Loop:
    """One loop of the code of a frame, which stands in front of it."""

    def __init__(self, policy: ConvertingPolicy, frame: Frame, header: int) -> None:
        self.policy, self.frame = policy, frame
        self.flow = policy.flow(frame)
        outer = region_of(frame).stops
        self.header = self.flow.same[header]
        self.end = self.flow.loop_end(self.header, outer - {self.header})
        if self.end == END:
            raise refusal(
                frame, "return", "A loop on data is left by return, or in several ways that do not "
                "meet (rule: return).",
                why="what the loop leaves must be the same variables every time",
                hint="end the loop with break, and return behind it",
            )  # fmt: skip
        self.region = Region(frozenset({self.header, self.end}), self.header, len(frame.stack))
        places = self._places()
        live = self.flow.live(self.header) | self.flow.live(self.end)
        self.assigned = self.flow.assigned(places)
        self.runner = Runner(policy, frame, live, self.assigned, self.region)
        self.runner.refuse_suspension(places)

    def _places(self) -> set[int]:
        starts = self.flow.loops()[self.header]
        return self.flow.places(starts, frozenset({self.end})) - {self.end}

    def record(self, first: list[Any], step: Callable[[list[Any]], list[Any]]) -> None:
        """Make the operator, and set the variables that it leaves.

        Args:
            first: the flag, and what is carried besides variables.
            step: runs one step on the carried values but the flag.
        """
        frame, runner = self.frame, self.runner
        self.before = Packed.of(runner.values(frame, {}), frame, self.policy.is_outside)
        self._check_before()
        extra = len(first)

        def call() -> Any:
            loop = torch.ops.higher_order.while_loop
            carried = (*first, *self.before.operands())
            return loop(lambda flag, *_: flag, lambda _, *rest: step(list(rest)), carried, ())

        results = list(recorded(frame, call))[extra:]
        operands = self.before.operands()
        runner.link(self.before, results, [(v, isinstance(v, torch.Tensor)) for v in operands])
        runner.link(self.before, results, self.outcome.raw)
        values = self.before.filled(results)
        for slot in self.assigned:
            if slot not in runner.cells:
                frame.locals[slot] = NULL
        runner.assign(frame, values)

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
        agree(self.before, self.outcome.packed, self.frame, _SIDES, sizes=True)
        return self.outcome

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
