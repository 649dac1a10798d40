"""An ``if`` on data: both ways are captured, and ``cond`` runs one of them.

The ways end where they meet. Variables that are assigned on one of them and may be read afterwards,
and what the ways leave on the stack, are the results. Where the ways meet only at the end of the
function, the rest of it belongs to both, and what they return is the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import ConversionError
from stillframe.export.converting.checks import as_check
from stillframe.export.converting.iterators import copied
from stillframe.export.converting.loops import while_loop
from stillframe.export.converting.predicates import as_tensor, negation
from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.results import agree
from stillframe.export.converting.ways import Outcome, Runner, recorded, region_of
from stillframe.export.converting.written import Written
from stillframe.frames.flow import END
from stillframe.frames.forks import Arrival, Fork, Region, leave_at
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.opcodes.registry import LEAVE

if TYPE_CHECKING:
    from stillframe.export.converting.policy import ConvertingPolicy

_SIDES = ("if the condition holds", "if it does not")
_RETURNED = "the returned value"
_EXPRESSION = "the value of the expression"
_AGAIN = "whether the loop goes on"
_SECOND = "where the loop is left"


class Branch:
    """One conditional jump on data.

    Args:
        policy: the policy of the machine.
        frame: the frame that jumps; ``value`` is off its stack.
        condition: decides when the program runs.
        if_true, if_false: where the ways begin.
        keeps: the answer for which ``value`` is on the stack.
        place: where the branch stands; the present instruction by default.
        kept: what is on the stack for that answer, in place of ``value``.
    """

    def __init__(
        self,
        policy: ConvertingPolicy,
        frame: Frame,
        value: Any,
        condition: Any,
        if_true: int,
        if_false: int,
        keeps: bool | None,
        place: int | None = None,
        kept: tuple[Any, ...] | None = None,
    ) -> None:
        self.policy = policy
        self.frame = frame
        self.kept = (value,) if kept is None else kept
        self.condition = condition
        self.starts = (if_true, if_false)
        self.keeps = keeps
        self.place = frame.pc if place is None else place
        self.flow = policy.flow(frame)
        self.region = region_of(frame)

    def go_on(self) -> int:
        """Record the branch; the answer of the instruction that jumps."""
        ends = [self.flow.ends(start, self.region.stops) for start in self.starts]
        if not any(ends):
            raise refusal(
                self.frame, "raise", "Both ways of a branch on data raise, or never end (rule: "
                "raise).",
            )  # fmt: skip
        if not all(ends):
            return self._check(ends.index(False))
        return self._end_of_step() or self._loop() or self._cond()

    def _check(self, raising: int) -> int:
        """One way raises: the other one goes on, behind a check."""
        fork = Fork(self.frame, self.flow, self.region, self.starts[raising])
        self._keep(fork.stack, raising)
        condition = negation(self.condition) if raising == 0 else self.condition
        as_check(self.policy, self.frame, fork, condition)
        other = 1 - raising
        self._keep(self.frame.stack, other)
        return self.starts[other]

    def _keep(self, stack: list[Any], way: int) -> None:
        if self.keeps is (way == 0):
            stack += self.kept

    def _end_of_step(self) -> int | None:
        """The last test of a step: one way leads to the next step, the other one out."""
        places = [self.flow.same[start] for start in self.starts]
        if self.region.header is None or self.keeps is not None or places[0] == places[1]:
            return None
        if not self.region.stops.issuperset(places):
            return None
        again = self._leads_to(self.region.header, places)
        second = self._leads_to(self.region.second, places)
        kept = None if second is False else tuple(self.frame.stack[self.region.depth :])
        return leave_at(self.frame, Arrival(None, again=again, second=second, kept=kept))

    def _leads_to(self, place: int | None, places: list[int]) -> Any:
        """Whether the branch leads to one of the two places: a bool, or what tells it."""
        if place not in places:
            return False
        return self.condition if places[0] == place else negation(self.condition)

    def _loop(self) -> int | None:
        """A test in front of a loop, or at its end, with nothing between it and the loop."""
        if self.keeps is not None:
            return None
        stops = self.region.stops
        for way, start in enumerate(self.starts):
            place, other = self.flow.same[start], self.flow.same[self.starts[1 - way]]
            if place not in self.flow.loops() or self.flow.is_for(place) or place in stops:
                continue
            if other != END and other in self.flow.loop_ends(place, stops):
                goes_on = self.condition if way == 0 else negation(self.condition)
                return while_loop(self.policy, self.frame, place, goes_on, other)
        return None

    # -- cond ---------------------------------------------------------------------------------

    def _cond(self) -> int:
        flow, frame, stops = self.flow, self.frame, self.region.stops
        self.join = flow.join(self.starts, stops)
        region = self.region if self.join == END else Region(frozenset({self.join}))
        between = flow.places(self.starts, region.stops)
        around = flow.loop_around(self.place, stops)
        self.loop = around if around in between - region.stops else None
        self.assigned = flow.assigned(between)
        self.runner = Runner(self.policy, frame, self._live(region), self.assigned, region)
        self.runner.refuse_suspension(between - region.stops)
        self.written = Written(self.policy, frame)
        outcomes: list[Outcome] = []

        def way(index: int) -> list[Any]:
            with self.written.copied():
                outcome = self._run(index, region)
            outcomes.append(outcome)
            if index == 1:
                if self.join != END and len(outcome.stack) != len(outcomes[0].stack):
                    raise self._apart()
                agree(outcomes[0].packed, outcome.packed, frame, _SIDES, sizes=False)
            return outcome.packed.operands()

        def call() -> Any:
            outcomes.clear()
            cond = torch.ops.higher_order.cond
            return cond(self.condition, lambda: way(0), lambda: way(1), ())

        results = list(self.written.found_by(lambda: recorded(frame, call)))
        return self._meet(outcomes[0], outcomes[1], results)

    def _live(self, region: Region) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for stop in region.stops:
            found |= self.flow.live(stop)
        return found

    def _run(self, index: int, region: Region) -> Outcome:
        fork = Fork(self.frame, self.flow, region, self.starts[index], self.loop)
        self.iterators = {id(v): (made, v) for v in fork.stack if (made := copied(v)) is not None}
        fork.stack = [self.iterators.get(id(v), (v, v))[0] for v in fork.stack]
        self._keep(fork.stack, index)
        return self.runner.run(fork, lambda *a: {**self._collect(*a), **self.written.values()})

    def _collect(self, arrival: Arrival, fork: Fork) -> dict[str, Any]:
        """What a way leaves besides variables."""
        if self.join == END and not self.region.stops:
            return {_RETURNED: arrival.value}
        if arrival.place == END or (self.join != END and arrival.place != self.join):
            raise refusal(
                self.frame, "return", "A way of a branch on data returns, and the other one goes "
                "on in a loop (rule: return).",
                why="a loop on data ends in one place, with the same variables every time",
                hint="end the loop with break, and return behind it",
            )  # fmt: skip
        if self.join == END:
            del fork.stack[self.region.depth :]
            self._check_below(fork.stack)
            if self.region.second is None:
                return {_AGAIN: as_tensor(arrival.again)}
            return {_AGAIN: as_tensor(arrival.again), _SECOND: as_tensor(arrival.second)}
        base = len(self.frame.stack)
        self._check_below(fork.stack[:base])
        return {
            f"{_EXPRESSION} ({i})" if i else _EXPRESSION: v for i, v in enumerate(fork.stack[base:])
        }

    def _check_below(self, stack: list[Any]) -> None:
        """What the ways found on the stack is there as it was."""
        originals = {id(made): value for made, value in self.iterators.values()}
        for k, value in enumerate(stack):
            stack[k] = value = originals.get(id(value), value)
            if value is not self.frame.stack[k]:
                raise self._apart()

    def _apart(self) -> ConversionError:
        return refusal(
            self.frame, "join", "The ways of a branch on data do not meet (rule: join).",
            hint="write the rest of the function on both ways",
        )  # fmt: skip

    def _meet(self, one: Outcome, other: Outcome, results: list[Any]) -> int:
        """Go on behind the branch, with the results in place."""
        packed, frame = one.packed, self.frame
        self.written.write_back(packed, results)
        self.runner.link(packed, results, one.raw, other.packed)
        self.runner.link(packed, results, other.raw, one.packed)
        values = packed.filled(results, other.packed)
        for slot in self.assigned:
            if slot not in self.runner.cells:
                frame.locals[slot] = NULL
        self.runner.assign(frame, values)
        if self.join == END:
            if not self.region.stops:
                frame.stack.append(values[_RETURNED])
                frame.is_finished = True
                return LEAVE
            kept = [o.arrival.kept for o in (one, other) if o.arrival.kept is not None]
            if len({tuple(map(type, values)) for values in kept}) > 1:
                raise self._apart()
            arrival = Arrival(
                None,
                again=values[_AGAIN],
                second=values.get(_SECOND, False),
                kept=kept[0] if kept else None,
            )
            return leave_at(frame, arrival)
        del frame.stack[len(one.stack) :]  # a way that leaves a loop takes its iterator off
        frame.stack += [v for name, v in values.items() if name.startswith(_EXPRESSION)]
        return self.join
