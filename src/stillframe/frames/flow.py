"""Which instructions can follow which: where the ways of a branch meet, loops, live variables.

Paths that raise are no ways on: an arm of an ``if`` that only raises does not move the place where
the others meet. Instructions are named by their index. The compiler copies short endings
(``return x``) to every jump that leads there; equal endings count as one, see :attr:`Flow.same`.
"""

from __future__ import annotations

import copy
import dis
from collections.abc import Callable, Iterable
from typing import Any

from stillframe.frames.checking import expected
from stillframe.frames.decode import Decoded
from stillframe.frames.versions import table

#: Behind every return.
END = -1

_CONDITIONAL = frozenset(
    """POP_JUMP_IF_TRUE POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE JUMP_IF_TRUE_OR_POP
    JUMP_IF_FALSE_OR_POP FOR_ITER SEND SEND_12""".split()
)
_RETURNS = frozenset({"RETURN_VALUE", "RETURN_CONST"})
_RAISES = frozenset({"RAISE_VARARGS", "RERAISE"})
_SUSPENDS = frozenset({"YIELD_VALUE", "SEND", "SEND_12", "RETURN_GENERATOR"})

#: Handler -> which of its local slots it reads, and which it sets.
_READS: dict[str, Callable[[Any], tuple[int, ...]]] = {
    "LOAD_FAST": lambda a: (a,),
    "LOAD_FAST_CHECK": lambda a: (a,),
    "LOAD_FAST_AND_CLEAR": lambda a: (a,),
    "DELETE_FAST": lambda a: (a,),
    "LOAD_FAST_LOAD_FAST": lambda a: a,
    "STORE_FAST_LOAD_FAST": lambda a: (a[1],),
}
_SETS: dict[str, Callable[[Any], tuple[int, ...]]] = {
    "STORE_FAST": lambda a: (a,),
    "DELETE_FAST": lambda a: (a,),
    "LOAD_FAST_AND_CLEAR": lambda a: (a,),
    "STORE_FAST_LOAD_FAST": lambda a: (a[0],),
    "STORE_FAST_STORE_FAST": lambda a: a,
}

#: Functions that read all local variables, whatever the code names.
_READ_ALL = frozenset({"locals", "vars", "dir", "eval", "exec", "_getframe"})


class Flow:
    """The ways through one code object.

    Attributes:
        decoded: the code.
        handlers: the name of the handler of each instruction.
        same: for each instruction the one that stands for it: the last of those that do the same
            from there on until they return. Places below are such ones.
    """

    def __init__(self, decoded: Decoded) -> None:
        self.decoded = decoded
        entries = table()
        self.handlers = [
            entries[name].handler if name in entries else "UNKNOWN" for name in decoded.opnames
        ]
        self._arguments = {i.offset: i.arg or 0 for i in dis.get_instructions(decoded.code)}
        self.same = self._endings()
        self._next = [self._successors(i) for i in range(len(self.handlers))]
        self._live: list[frozenset[int]] | None = None
        self._loops: dict[int, frozenset[int]] | None = None
        self._stopping: dict[frozenset[int], Decoded] = {}

    # -- the graph ----------------------------------------------------------------------------

    def _endings(self) -> list[int]:
        """Only statements can stand for each other: in an expression the stack differs."""
        same = list(range(len(self.handlers)))
        known: dict[Any, int] = {}
        first: dict[int, int] = {}
        kinds: dict[int, tuple[int, int]] = {}  # of an ending: which one, and the stack's height
        for i in reversed(range(len(same))):
            handler, argument = self.handlers[i], self.decoded.instructions[i][1]
            if handler == "JUMP" and argument > i:
                same[i] = same[argument]
                if argument in kinds:
                    kinds[i] = kinds[argument]
                continue
            if handler in _RETURNS:
                after, height = END, 1 if handler == "RETURN_VALUE" else 0
            elif handler in _CONDITIONAL or handler in _RAISES or i + 1 not in kinds:
                continue
            else:
                after, height = kinds[i + 1]
                height -= self._effect(i)
            value = argument if type(argument) in (int, str) else id(argument)
            key = (handler, value, self.decoded.targets[i], after)
            kinds[i] = known.setdefault(key, len(known)), height
            if height == 0:
                same[i] = first.setdefault(kinds[i][0], i)
        return same

    def _effect(self, i: int) -> int:
        return expected(self.decoded.opnames[i], self._arguments[self.decoded.offsets[i]], False)

    def _successors(self, i: int) -> tuple[int, ...]:
        handler, argument = self.handlers[i], self.decoded.instructions[i][1]
        if handler in _RETURNS:
            return (END,)
        if handler in _RAISES:
            return ()
        if handler == "JUMP":
            return (self.same[argument],)
        if i + 1 >= len(self.same):
            return ()
        following = self.same[i + 1]
        return (following, self.same[argument]) if handler in _CONDITIONAL else (following,)

    def _after(self, place: int, stops: frozenset[int]) -> tuple[int, ...]:
        return (END,) if place in stops else self._next[place]

    def places(
        self, starts: Iterable[int], stops: frozenset[int], without: int | None = None
    ) -> set[int]:
        """All places on the ways from ``starts`` to a stop or a return (:data:`END`)."""
        pending = [self.same[s] if s != END else END for s in starts]
        found: set[int] = set()
        while pending:
            place = pending.pop()
            if place == without or place in found:
                continue
            found.add(place)
            if place != END:
                pending.extend(self._after(place, stops))
        return found

    def ends(self, start: int, stops: frozenset[int]) -> bool:
        """Whether a way leads from ``start`` to a stop or a return: else it raises, or never
        ends."""
        return END in self.places((start,), stops)

    def join(self, starts: Iterable[int], stops: frozenset[int] = frozenset()) -> int:
        """The first place that all ways from ``starts`` come to: :data:`END` if they meet nowhere
        before they stop or return."""
        starts = tuple(starts)
        for place in self._way(starts, stops):
            if place != END and END not in self.places(starts, stops, without=place):
                return place
        return END

    def _way(self, starts: tuple[int, ...], stops: frozenset[int]) -> list[int]:
        """Some way from a start to the end."""
        before: dict[int, int | None] = dict.fromkeys((self.same[s] for s in starts), None)
        pending = list(before)
        for place in pending:  # grows
            if place == END:
                break
            for following in self._after(place, stops):
                if following not in before:
                    before[following] = place
                    pending.append(following)
        way: list[int] = []
        step: int | None = END if END in before else None
        while step is not None:
            way.append(step)
            step = before[step]
        return way[::-1]

    def suspends(self, places: Iterable[int]) -> bool:
        """Whether a generator or coroutine would be suspended at one of the places."""
        return any(p != END and self.handlers[p] in _SUSPENDS for p in places)

    # -- loops --------------------------------------------------------------------------------

    def loops(self) -> dict[int, frozenset[int]]:
        """Where a loop begins -> its places. A ``for`` loop begins at its ``FOR_ITER``."""
        if self._loops is None:
            self._loops = self._find_loops()
        return self._loops

    def _find_loops(self) -> dict[int, frozenset[int]]:
        before: dict[int, list[int]] = {}
        for place, following in enumerate(self._next):
            for f in following:
                before.setdefault(f, []).append(place)
        found: dict[int, frozenset[int]] = {}
        for place, following in enumerate(self._next):
            for header in following:
                # code that handles exceptions lies behind the rest and jumps back into it
                if END != header <= place and place in self.places((header,), frozenset()):
                    body = found.get(header, frozenset())
                    found[header] = body | _natural(header, place, before)
        return found

    def is_for(self, header: int) -> bool:
        """Whether a loop is a ``for`` loop."""
        return self.handlers[header] == "FOR_ITER"

    def loop_around(self, place: int, stops: frozenset[int]) -> int | None:
        """Where the innermost ``while`` loop around a place begins, of those without a stop."""
        place = self.same[place]
        around = [
            (len(body), header)
            for header, body in self.loops().items()
            if place in body and body.isdisjoint(stops) and not self.is_for(header)
        ]
        return min(around)[1] if around else None

    def exits(self, header: int, stops: frozenset[int]) -> list[int]:
        """The places to which a loop is left."""
        body = self.loops()[header]
        return sorted(
            f for f in {f for p in body for f in self._after(p, stops - {header})}
            if f not in body and END in self.places((f,), stops)
        )  # fmt: skip

    def loop_ends(self, header: int, stops: frozenset[int]) -> tuple[int, ...]:
        """Where the ways out of a loop meet: one place, or two, or nothing if they are more.

        The first one of a ``for`` loop is where it goes on when there is no other item.
        """
        exits = self.exits(header, stops)
        if END in exits or not exits:
            return ()
        end = self.join(exits, stops)
        own = [self.exhausted(header)] if self.is_for(header) else exits
        if end != END and (end in own or not self.is_for(header)):
            return (end,)
        pairs = ((e, self.join([x for x in exits if x != e], stops)) for e in own)
        return next((pair for pair in pairs if END not in pair), ())

    def loop_variable(self, header: int) -> int | None:
        """The local slot that a ``for`` loop sets at the beginning of a step, if it is one."""
        handler, argument = self.handlers[header + 1], self.decoded.instructions[header + 1][1]
        slot: int | None = _SETS[handler](argument)[0] if handler.startswith("STORE_FAST") else None
        return slot

    def exhausted(self, header: int) -> int:
        """Where a ``for`` loop goes on when there is no other item."""
        target: int = self.decoded.instructions[header][1]
        return self.same[target]

    # -- variables ----------------------------------------------------------------------------

    def assigned(self, places: Iterable[int]) -> frozenset[int]:
        """The local slots that are set, or deleted, at ``places``."""
        found: set[int] = set()
        for place in places:
            sets = None if place == END else _SETS.get(self.handlers[place])
            if sets is not None:
                found.update(sets(self.decoded.instructions[place][1]))
        return frozenset(found)

    def live(self, place: int) -> frozenset[int]:
        """The local slots whose values may be read from ``place`` on."""
        if place == END:
            return frozenset()
        if _READ_ALL.intersection(self.decoded.code.co_names):
            return frozenset(range(self.decoded.size))
        if self._live is None:
            self._live = self._liveness()
        return self._live[place]

    def _liveness(self) -> list[frozenset[int]]:
        count = len(self.handlers)
        live: list[frozenset[int]] = [frozenset()] * count
        changed = True
        while changed:
            changed = False
            for i in reversed(range(count)):
                new = self._live_before(i, live)
                if new != live[i]:
                    live[i], changed = new, True
        return live

    def _live_before(self, i: int, live: list[frozenset[int]]) -> frozenset[int]:
        handler, argument = self.handlers[i], self.decoded.instructions[i][1]
        new: frozenset[int] = frozenset()
        for following in self._next[i]:
            if following != END:
                new |= live[following]
        if handler in _SETS:
            new -= frozenset(_SETS[handler](argument))
        if handler in _READS:
            new |= frozenset(_READS[handler](argument))
        target = self.decoded.targets[i]
        return new if target is None else new | live[target.instruction]

    # -- running a part -----------------------------------------------------------------------

    def stopping(self, stops: frozenset[int], stop: Callable[..., int]) -> Decoded:
        """The code with ``stop(frame, (handler, argument))`` run at each stop in its place."""
        made = self._stopping.get(stops)
        if made is None:
            made = self._stopping[stops] = copy.copy(self.decoded)
            made.instructions = [
                (stop, instruction) if self.same[i] in stops else instruction
                for i, instruction in enumerate(self.decoded.instructions)
            ]
        return made


def _natural(header: int, back: int, before: dict[int, list[int]]) -> frozenset[int]:
    """The loop that the jump ``back`` to ``header`` makes."""
    found = {header}
    pending = [back]
    while pending:
        place = pending.pop()
        if place not in found:
            found.add(place)
            pending.extend(before.get(place, ()))
    return frozenset(found)
