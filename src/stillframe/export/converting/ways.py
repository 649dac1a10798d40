"""Running one way of a branch, or one step of a loop, on a copy of the frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CellType
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.errors import (
    ConversionError,
    FrameError,
    InternalError,
    InvalidInput,
    NotSupported,
    SideEffectError,
    StillframeError,
)
from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.results import Packed, is_same
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import forks
from stillframe.frames.flow import Flow
from stillframe.frames.forks import Arrival, Fork, Region
from stillframe.frames.frame import Frame
from stillframe.trace.subgraphs import WritesOutside

if TYPE_CHECKING:
    from stillframe.export.converting.policy import ConvertingPolicy

#: So many ways may be open at once: each is one branch in another.
MOST_NESTED = 60

#: So many ways are captured in all: what follows ways that meet only at the end is captured twice.
MOST_WAYS = 1000


@dataclass(eq=False)
class Way:
    """A way that is being run.

    Attributes:
        frame: the frame that branches.
        fork: its copy, which runs.
        cells: closure variables that were made on the way, by identity.
        before: the ids of what was there before, once somebody asked.
    """

    frame: Frame
    fork: Fork
    cells: dict[int, CellType]
    before: set[int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What one way left.

    Attributes:
        arrival: where it came to.
        packed: the values that count behind it.
        raw: the tensors among the operands, with whether somebody else may hold their memory.
        stack: the whole stack.
    """

    arrival: Arrival
    packed: Packed
    raw: list[tuple[Any, bool]]
    stack: list[Any]


def region_of(frame: Frame) -> Region:
    """What a frame runs: all of the function, if it is no fork."""
    return frame.region if isinstance(frame, Fork) else Region()


class Runner:
    """Runs ways from one place of a frame.

    Args:
        policy: the policy of the machine.
        frame: the frame; its stack is that on which every way begins.
        slots: the local variables that count behind the ways.
        assigned: those that the ways set; all others stay as they are.
        region: where the ways end.
    """

    def __init__(
        self,
        policy: ConvertingPolicy,
        frame: Frame,
        slots: frozenset[int],
        assigned: frozenset[int],
        region: Region,
    ) -> None:
        self.policy = policy
        self.frame = frame
        self.flow: Flow = policy.flow(frame)
        self.region = region
        self.cells = forks.cells(frame)
        self.slots = sorted((slots & assigned) - self.cells.keys())
        self.known = assigned | self.cells.keys()
        self._made = [(v, _items(v)) for v in frame.stack if type(v) in (list, set, dict)]

    # -- values -------------------------------------------------------------------------------

    def name(self, slot: int) -> str:
        """What a variable is called in errors."""
        return f"the variable {self.frame.decoded.local_names[slot]}"

    def values(self, frame: Frame, extra: dict[str, Any]) -> dict[str, Any]:
        """What counts in ``frame``, by name."""
        found = {self.name(slot): frame.locals[slot] for slot in self.slots}
        found |= {self.name(slot): forks.contents(cell) for slot, cell in self.cells.items()}
        return found | extra

    def assign(self, frame: Frame, values: dict[str, Any]) -> None:
        """Give variables values."""
        for slot in self.slots:
            frame.locals[slot] = values[self.name(slot)]
        for slot, cell in self.cells.items():
            if values[self.name(slot)] is not forks.contents(cell):
                forks.fill(cell, values[self.name(slot)])

    # -- running ------------------------------------------------------------------------------

    def run(self, fork: Fork, collect: Callable[[Arrival, Fork], dict[str, Any]]) -> Outcome:
        """Run a fork, and put everything back as it was.

        Args:
            collect: what counts besides variables.
        """
        way = Way(self.frame, fork, {})
        with self._alone(way):
            try:
                arrival = self._arrive(fork)
            except (StillframeError, InternalError):
                raise
            except Exception as e:  # the program's own handlers must not see it
                raise _raised(fork, e) from e
            self._check_end(fork)
            values = self.values(fork, collect(arrival, fork))
            packed = Packed.of(values, fork, self.policy.is_outside)
            return Outcome(arrival, packed, self._raw(packed), list(fork.stack))

    def raised(self, fork: Fork) -> Exception | None:
        """The exception that a fork ends with, if it does."""
        with self._alone(Way(self.frame, fork, {})):
            try:
                self._arrive(fork)
            except (StillframeError, InternalError):
                raise
            except Exception as e:
                return e
        return None

    def _arrive(self, fork: Fork) -> Arrival:
        from stillframe.export.converting.loops import while_loop

        arrival = fork.arrive()
        while fork.loop is not None and arrival.place == fork.loop:
            arrival = fork.arrive_from(while_loop(self.policy, fork, fork.loop, True))
        return arrival

    @contextmanager
    def _alone(self, way: Way) -> Iterator[None]:
        policy, frame = self.policy, self.frame
        if len(policy.ways) >= MOST_NESTED:
            raise refusal(
                frame, "depth", f"More than {MOST_NESTED} branches on data are nested (rule: "
                "depth).",
                why="a loop of Python with a branch that leaves it, or a recursion, nests one in "
                "another",
                hint="loop with while, on a condition of tensors",
            )  # fmt: skip
        policy.count += 1
        if policy.count > MOST_WAYS:
            raise refusal(
                frame, "size", f"The branches on data have more than {MOST_WAYS} ways (rule: "
                "size).",
                why="behind a return on one way the rest of the function is captured for each of "
                "the others",
                hint="keep in a variable what is to be returned, and return at the end",
            )  # fmt: skip
        before = {slot: forks.contents(cell) for slot, cell in self.cells.items()}
        handled = frame.handled.value
        self._modes = modes_of_torch()
        policy.ways.append(way)
        try:
            with forks.in_place_of(frame):
                yield
        finally:
            policy.ways.pop()
            frame.handled.value = handled
            for slot, value in before.items():
                forks.fill(self.cells[slot], value)

    def _check_end(self, fork: Fork) -> None:
        if modes_of_torch() != self._modes:
            raise refusal(
                fork, "with", "A way of a branch on data leaves a mode of torch switched (rule: "
                "with).",
                why="what follows would run in one mode after one way and in another after the "
                "other",
                hint="switch modes with a with block on the way",
            )  # fmt: skip
        if any(_differ(_items(value), before) for value, before in self._made):
            raise refusal(
                fork, "effect", "A way of a branch on data adds to a list, set or dict that is "
                "being made (rule: effect).",
                why="how many items there are would depend on the data",
                hint="make the items first, and choose among them with torch.where",
            )  # fmt: skip
        for slot, value in enumerate(fork.locals):
            if slot not in self.known and value is not self.frame.locals[slot]:
                raise refusal(
                    fork, "exception", f"A way of a branch on data sets {self.name(slot)} while it "
                    "handles an exception (rule: exception).",
                    why="which variables a way sets is told by the lines that run without one",
                    hint="set it before the branch, or handle the exception behind it",
                )  # fmt: skip
        if fork.handled.value is not self.frame.handled.value:
            raise refusal(
                fork, "exception", "A way of a branch on data ends in the middle of handling an "
                "exception (rule: exception).",
            )  # fmt: skip

    def _raw(self, packed: Packed) -> list[tuple[Any, bool]]:
        """The operands that are tensors, and whether each shares memory with anything else."""
        subgraph = self.policy.recorder.subgraph
        assert subgraph is not None
        seen: set[int] = set()
        found: list[tuple[Any, bool]] = []
        for place in packed.places():
            leaf = packed.leaves[place]
            if not isinstance(leaf, torch.Tensor):
                found.append((leaf, False))
                continue
            fake = self.policy.recorder.fake_mode.adopt(leaf)
            shared = subgraph.is_from_outside(leaf) or id(fake.storage_) in seen
            seen.add(id(fake.storage_))
            found.append((leaf, shared))
        return found

    def link(
        self,
        packed: Packed,
        results: list[Any],
        raw: list[tuple[Any, bool]],
        other: Packed | None = None,
    ) -> None:
        """Results may be the tensors that a way left.

        Args:
            other: what another way left: a tensor that is the same there stays what it is.
        """
        adopt = self.policy.recorder.fake_mode.adopt
        pairs = zip(packed.places(), results, raw, strict=True)
        for place, result, (source, shared) in pairs:
            if other is not None and is_same(source, other.leaves[place]):
                continue
            if isinstance(result, FakeTensor) and isinstance(source, torch.Tensor):
                name = packed.name_of(place)
                self.policy.aliases.link(name, result, adopt(source), shared, self.frame)

    def refuse_suspension(self, places: set[int]) -> None:
        """Generators do not wait on a way of a branch.

        Raises:
            ConversionError: they would; or the code is that of a class or a module.
        """
        frame = self.frame
        if self.flow.suspends(places):
            raise refusal(
                frame, "yield", "A generator yields on a way of a branch on data (rule: yield).",
                why="whoever asked for the value would have to run both ways, too",
                hint="make a list of the values",
            )  # fmt: skip
        if frame.names is not None:
            raise refusal(
                frame, "class", "The body of a class branches on data (rule: class).",
                hint="do it in a function",
            )  # fmt: skip


def recorded(frame: Frame, call: Callable[[], Any]) -> Any:
    """The result of recording an operator; errors about its functions speak of the branch.

    Raises:
        ConversionError: a function of it breaks a rule of the operator.
    """
    try:
        return call()
    except (ConversionError, FrameError):
        raise
    except (InvalidInput, NotSupported, SideEffectError) as e:
        if not _is_about_functions(e):
            raise
        rule = "effect" if isinstance(e, SideEffectError) else "operator"
        error = ConversionError(
            f"Control flow on data cannot be converted (rule: {rule}). {e.what}",
            rule=rule,
            why=e.why,
            where=e.where or refusal(frame, rule, "").where,
            hints=[_IN_PLACE] if isinstance(e, WritesOutside) else e.hints,
        )
        raise error from e


_IN_PLACE = "make a new tensor and assign it: y = y + 1 in place of y += 1, torch.where or cat"


def _raised(fork: Fork, error: Exception) -> ConversionError:
    return refusal(
        fork, "raise", f"A way of a branch or loop on data raises {type(error).__name__}: {error} "
        "(rule: raise).",
        why="only a way whose own lines end in raise or assert becomes a check",
        hint="raise where the branch is, or check before it",
    )  # fmt: skip


def _items(value: Any) -> list[Any]:
    """What a container holds now."""
    return [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)


def _differ(items: list[Any], before: list[Any]) -> bool:
    return len(items) != len(before) or any(a is not b for a, b in zip(items, before, strict=True))


def _is_about_functions(error: StillframeError) -> bool:
    return any(owner in error.what for owner in ("torch.cond", "while_loop"))


def modes_of_torch() -> tuple[Any, ...]:
    """What the ways of a branch must leave as it is."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch_private.any_autocast_enabled(), len(torch_private.function_modes()),
        len(torch_private.dispatch_modes()),
    )  # fmt: skip
