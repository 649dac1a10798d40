"""From a code object to a list of ``(handler, argument)``, once per code object.

Arguments are resolved here (a constant, a name, the index of a jump's target), so that a handler
does no look-ups, and so that differences between Python versions end here. Instructions that do
nothing are dropped; a jump to one leads to the next that does something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

from stillframe.errors import InternalError
from stillframe.frames import checking
from stillframe.frames.versions import DROPPED, Entry, opnames, table

Handler = Callable[[Any, Any], "int | None"]
_Position = tuple[int | None, int | None, int | None, int | None]


class Target(NamedTuple):
    """Where the table of exceptions sends a range: instruction, stack depth, whether the position
    of the raising instruction is pushed too."""

    instruction: int
    depth: int
    push_position: bool


class Decoded:
    """A code object, ready to run.

    Attributes:
        instructions: ``(handler, argument)`` in order.
        opnames: CPython's names of the same.
        offsets: byte offsets of the same.
        targets: per instruction, where an exception goes; None: out of the frame.
        size: number of local slots.
        local_names: their names.
        signature: ``(positional count, keyword-only count, takes *args, takes **kwargs)``.
        is_simple: no keyword-only arguments, ``*args`` or ``**kwargs``.
        is_delegating: indices of the ``YIELD_VALUE`` that belong to ``yield from`` or ``await``,
            with the index behind their loop.
        stubs: real frame objects that stand for this code in tracebacks, by id of globals.
    """

    __slots__ = (
        "code", "instructions", "opnames", "offsets", "targets", "size", "local_names",
        "positional", "keyword_only", "has_varargs", "has_varkw", "is_simple", "is_generator",
        "is_delegating", "stubs", "_positions",
    )  # fmt: skip

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.instructions: list[tuple[Handler, Any]] = []
        self.opnames: list[str] = []
        self.offsets: list[int] = []
        self.local_names = _local_names(code)
        self.size = len(self.local_names)
        self.positional = code.co_argcount
        self.keyword_only = code.co_kwonlyargcount
        self.has_varargs = bool(code.co_flags & 4)
        self.has_varkw = bool(code.co_flags & 8)
        self.is_simple = not (self.keyword_only or self.has_varargs or self.has_varkw)
        self.is_generator = bool(code.co_flags & (0x20 | 0x80 | 0x200))
        self._positions: list[_Position] | None = None
        self.is_delegating: dict[int, int] = {}
        self.stubs: dict[int, Any] = {}
        self._fill()

    def _fill(self) -> None:
        code = self.code
        entries = table()
        raw = list(_instructions(code))
        index_of: dict[int, int] = {}
        kept: list[_Raw] = []
        for instruction in raw:
            index_of[instruction.start] = len(kept)
            if instruction.name not in DROPPED:
                kept.append(instruction)
        handlers = _handlers()
        for instruction in kept:
            entry = entries.get(instruction.name)
            if entry is None:
                entry = Entry("UNKNOWN", lambda arg, raw: raw.name)
            argument = entry.argument(instruction.arg, instruction)
            if entry.is_jump:
                argument = index_of[argument] + entry.skip
            handler = handlers[entry.handler]
            if checking.IS_ON:
                handler = checking.checked(handler, instruction.name, instruction.arg)
            self.instructions.append((handler, argument))
            self.opnames.append(instruction.name)
            self.offsets.append(instruction.offset)
        self.targets = self._targets(index_of)
        self._find_delegation(raw, index_of)

    def _targets(self, index_of: dict[int, int]) -> list[Target | None]:
        found: list[Target | None] = [None] * len(self.offsets)
        ranges = list(_exception_table(self.code.co_exceptiontable))
        for i, offset in enumerate(self.offsets):
            for start, end, target, depth, push in ranges:
                if start <= offset < end:
                    found[i] = Target(index_of[target], depth, push)
                    break
        return found

    def _find_delegation(self, raw: list[_Raw], index_of: dict[int, int]) -> None:
        """``RESUME`` after a yield tells what kind of yield it was (2: yield from, 3: await)."""
        sends: list[int] = []
        for before, after in zip(raw, raw[1:], strict=False):
            if before.name == "SEND":
                sends.append(index_of[before.after + 2 * before.arg])
            if before.name == "YIELD_VALUE" and after.name == "RESUME" and after.arg & 3 >= 2:
                self.is_delegating[index_of[before.start]] = sends[-1]

    def line(self, index: int) -> int:
        """The line of the user's file that instruction ``index`` belongs to."""
        line = self.position(index)[0]
        return self.code.co_firstlineno if line is None else line

    def position(self, index: int) -> _Position:
        """``(line, end line, column, end column)`` of an instruction."""
        if not self.offsets:
            return (None, None, None, None)
        unit = self.offsets[min(index, len(self.offsets) - 1)] // 2
        if self._positions is None:
            self._positions = list(self.code.co_positions())
        known = self._positions
        return known[unit] if unit < len(known) else (None, None, None, None)


class _Raw(NamedTuple):
    """An instruction of the code object.

    ``start`` is where a jump to it lands (its first ``EXTENDED_ARG``); ``after`` the offset behind
    its inline cache, from which relative jumps count.
    """

    name: str
    arg: int
    start: int
    offset: int
    after: int
    code: CodeType


def _instructions(code: CodeType) -> Iterator[_Raw]:
    names = opnames()
    data = code.co_code
    extended, start, i = 0, 0, 0
    while i < len(data):
        name, arg = names[data[i]], data[i + 1] | extended
        offset = i
        i += 2
        if name == "EXTENDED_ARG":
            extended = arg << 8
            continue
        while i < len(data) and data[i] == 0:  # the inline cache
            i += 2
        yield _Raw(name, arg, start, offset, i, code)
        extended, start = 0, i


def _varint(data: Iterator[int]) -> int:
    byte = next(data)
    value = byte & 63
    while byte & 64:
        byte = next(data)
        value = value << 6 | byte & 63
    return value


def _exception_table(data: bytes) -> Iterator[tuple[int, int, int, int, bool]]:
    """``(start, end, target, depth, push position)`` in byte offsets.

    The format is in CPython's ``Objects/exception_handling_notes.txt``: numbers of six bits a byte,
    most significant first, in units of two bytes.
    """
    stream = iter(data)
    while True:
        try:
            start = _varint(stream) * 2
        except StopIteration:
            return
        end = start + _varint(stream) * 2
        target = _varint(stream) * 2
        depth_and_flag = _varint(stream)
        yield start, end, target, depth_and_flag >> 1, bool(depth_and_flag & 1)


def _local_names(code: CodeType) -> tuple[str, ...]:
    own_cells = tuple(name for name in code.co_cellvars if name not in code.co_varnames)
    return (*code.co_varnames, *own_cells, *code.co_freevars)


def _handlers() -> dict[str, Handler]:
    from stillframe.frames.opcodes import HANDLERS

    return HANDLERS


_cache: dict[int, Decoded] = {}
_CACHE_LIMIT = 20_000


def decode(code: CodeType) -> Decoded:
    """The decoded form of ``code``. Found by identity: hashing a code object is slow."""
    found = _cache.get(id(code))
    if found is None:
        if len(_cache) >= _CACHE_LIMIT:
            _cache.clear()
        found = _cache[id(code)] = Decoded(code)
    if found.code is not code:
        raise InternalError("the cache of decoded code is keyed by a dead code object")
    return found


__all__ = ["Decoded", "Handler", "Target", "decode"]
