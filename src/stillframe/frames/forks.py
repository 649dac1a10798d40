"""Running a part of a frame on a copy of it, up to given places.

For a policy that runs both ways of a branch: each way is run by a :class:`Fork`, which has the
variables and the stack of the frame as they are, and says where it came to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CellType
from typing import Any

from stillframe.frames.flow import END, Flow
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.opcodes.registry import LEAVE

_HERE: Any = object()


@dataclass(frozen=True)
class Region:
    """What a fork runs.

    Attributes:
        stops: where it ends, besides returns.
        header: of the stops, the one that means another step of a loop; None if it runs no loop.
        depth: the height of the stack where a loop has ended.
        second: of the stops, the other place to which a loop may be left, if there are two.
    """

    stops: frozenset[int] = frozenset()
    header: int | None = None
    depth: int = 0
    second: int | None = None


@dataclass(frozen=True)
class Arrival:
    """Where a fork came to.

    Attributes:
        place: a stop; :data:`END` for a return; None if the header or the end of a loop, by data.
        value: what was returned.
        again: in the body of a loop, whether it goes on: a bool, or what tells it.
        second: if it does not, whether it is left to the second place: a bool, or what tells it.
        kept: what is on the stack at the second place besides what was there before the loop: the
            iterator. None where the way does not come there.
    """

    place: int | None
    value: Any = None
    again: Any = None
    second: Any = False
    kept: tuple[Any, ...] | None = None


class Fork(Frame):
    """A copy of a frame that runs until a stop.

    Attributes:
        region: what it runs.
        flow: the ways through the code.
        loop: where a loop begins that is left to the caller: it stops there, too.
        skips: a stop where it begins, which does not count once.
    """

    __slots__ = ("region", "flow", "loop", "skips")

    def __init__(
        self, frame: Frame, flow: Flow, region: Region, start: int, loop: int | None = None
    ) -> None:
        stops = region.stops if loop is None else region.stops | {loop}
        code = flow.stopping(stops, _stop)
        super().__init__(
            frame.machine, code, list(frame.locals), frame.globals, frame.builtins, frame.names,
            frame.closure,
        )  # fmt: skip
        self.stack = list(frame.stack)
        self.pc = start
        self.handled = frame.handled
        self.label = frame.label
        self.region = region
        self.flow = flow
        self.loop = loop
        self.skips = END

    def arrive(self) -> Arrival:
        """Run until a stop or a return. The calls to it are those to the frame it was made of."""
        return self._arrival(self.machine.run(self))

    def arrive_from(self, place: int) -> Arrival:
        """The same from an instruction on; ``LEAVE`` if one that was run from outside left."""
        if place == LEAVE:
            return self._arrival(self.stack.pop())
        self.pc = place
        return self.arrive()

    def _arrival(self, result: Any) -> Arrival:
        if isinstance(result, Arrival):
            return result
        if result is not _HERE:
            return Arrival(END, result)
        self.pc -= 1
        place, region = self.flow.same[self.pc], self.region
        second = place == region.second
        kept = tuple(self.stack[region.depth :]) if second else None
        return Arrival(place, again=place == region.header, second=second, kept=kept)


def _stop(frame: Fork, instruction: tuple[Any, Any]) -> Any:
    if frame.skips == frame.pc:
        frame.skips = END
        return instruction[0](frame, instruction[1])
    frame.stack.append(_HERE)
    return LEAVE


def leave_at(frame: Frame, arrival: Arrival) -> int:
    """Have a fork end, as its ways did; the answer of the handler that found out."""
    frame.stack.append(arrival)
    return LEAVE


@contextmanager
def in_place_of(frame: Frame) -> Iterator[None]:
    """What runs inside has the caller of ``frame`` as its caller."""
    machine = frame.machine
    before, machine.current = machine.current, frame.back
    try:
        yield
    finally:
        machine.current = before


def cells(frame: Frame) -> dict[int, CellType]:
    """The variables of a frame that closures share, by slot."""
    return {i: value for i, value in enumerate(frame.locals) if type(value) is CellType}


def contents(cell: CellType) -> Any:
    """The value of a closure's variable; :data:`NULL` if it has none."""
    try:
        return cell.cell_contents
    except ValueError:
        return NULL


def fill(cell: CellType, value: Any) -> None:
    """Set a closure's variable; :data:`NULL` empties it."""
    if value is not NULL:
        cell.cell_contents = value
    elif contents(cell) is not NULL:
        del cell.cell_contents
