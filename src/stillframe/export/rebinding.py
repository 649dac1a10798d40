"""``self.buffer = new`` in forward, as a copy into the buffer.

A program keeps one tensor for each buffer, and copies into it what forward assigned. That equals
the assignment as long as nobody can tell the two tensors apart: nothing else holds the memory that
is copied into, and the assigned tensor is not the memory of something that a later call writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stillframe.errors import NotSupported, SideEffectError
from stillframe.export.state import Change, Modules, memory_of
from stillframe.fake.tensor import FakeTensor

Slot = tuple[int, str]

_CALL_IT_ONCE = "if only the first call does this: call the module once, then export it"


@dataclass(frozen=True)
class Holder:
    """Something that still holds memory when the call is over: a name for it, and its fakes.

    Attributes:
        text: how a person names it.
        before: what it was when forward began; None for results.
        after: what it is when forward is done.
    """

    text: str
    before: FakeTensor | None
    after: FakeTensor

    @property
    def is_written(self) -> bool:
        """Whether an in-place operator of forward writes what it was at the beginning."""
        return self.before is not None and self.before.storage_.written > 0


class Rebinding:
    """The rebound buffers of one capture.

    Args:
        modules: of the captured module, with their paths.
        state: FQN -> parameter or buffer.
        fakes: identity of each of these -> its fake.
        constants: FQN -> the constants that forward used.
        changes: the rebound buffers.

    Raises:
        SideEffectError: a buffer that held no tensor before the run.
    """

    def __init__(
        self,
        modules: Modules,
        state: Mapping[str, torch.Tensor],
        fakes: Mapping[int, FakeTensor],
        constants: Mapping[str, torch.Tensor],
        changes: Sequence[Change],
    ) -> None:
        _refuse_new_buffers(state, changes)
        self.changes = changes
        self.state = state
        self.constants = constants
        self.old = {c.path: fakes[id(state[c.path])] for c in changes}
        owners = dict(modules)
        self.slots: dict[str, Slot] = {}
        for fqn in state:
            path, _, name = fqn.rpartition(".")
            self.slots[fqn] = (id(owners[path]), name)
        rebound = {self.slots[c.path]: c.value for c in changes}
        self.holders: dict[Slot, Holder] = {}
        for fqn, slot in self.slots.items():
            before = fakes[id(state[fqn])]
            self.holders.setdefault(slot, Holder(f"self.{fqn}", before, rebound.get(slot, before)))

    def check(self, inputs: Iterable[tuple[str, Any]], outputs: Iterable[Any]) -> None:
        """Whether each assignment equals a copy.

        Raises:
            SideEffectError: the new value has another shape or dtype.
            NotSupported: memory is shared in a way that a copy would show.
        """
        outputs = [value for value in outputs if isinstance(value, FakeTensor)]
        others = [Holder(name, x, x) for name, x in inputs if isinstance(x, FakeTensor)]
        others += [Holder("a result", None, value) for value in outputs]
        for change in self.changes:
            old = self.old[change.path]
            _check_metadata(change, old)
            _check_results(change, old, outputs)
            self._check_old_memory(change)
            self._check_new_memory(change, [*self.holders.values(), *others])

    def _check_old_memory(self, change: Change) -> None:
        mine, memory = self.slots[change.path], memory_of(self.state[change.path])
        for fqn, real in [*self.state.items(), *self.constants.items()]:
            if self.slots.get(fqn) != mine and memory_of(real) == memory:
                raise NotSupported(
                    f"forward assigns self.{change.path}, which shares memory with self.{fqn}.",
                    why="the assignment is captured as a copy, which would change both",
                    hints=["give one of them memory of its own (clone it)"],
                )

    def _check_new_memory(self, change: Change, holders: Iterable[Holder]) -> None:
        mine = self.holders[self.slots[change.path]]
        for other in holders:
            if other is mine or other.after.storage_ is not mine.after.storage_:
                continue
            if mine.is_written or other.is_written:
                raise NotSupported(
                    f"forward assigns self.{change.path} a tensor that shares memory with "
                    f"{other.text}, and writes one of them in place.",
                    why="from the next call on, the write would show in both",
                    hints=[f"assign a clone: self.{change.path} = value.clone()"],
                )

    def record(self) -> None:
        """Copy; values that are the memory of a rebound buffer are read before any is written."""
        overwritten = [old.storage_ for old in self.old.values()]
        values = [
            c.value.clone() if any(c.value.storage_ is s for s in overwritten) else c.value
            for c in self.changes
        ]
        for change, value in zip(self.changes, values, strict=True):
            self.old[change.path].copy_(value)


def _refuse_new_buffers(state: Mapping[str, torch.Tensor], changes: Iterable[Change]) -> None:
    for change in changes:
        if change.path not in state:
            name = change.path.rpartition(".")[2]
            raise SideEffectError(
                f"forward makes the buffer self.{change.path}, which held no tensor before.",
                why="the state of a program is that of the module before the run",
                hints=[
                    f"in __init__: self.register_buffer({name!r}, initial_value)",
                    _CALL_IT_ONCE,
                ],
            )


def _check_metadata(change: Change, old: FakeTensor) -> None:
    new = change.value
    if new.sizes != old.sizes or new.dtype != old.dtype or new.device != old.device:
        raise SideEffectError(
            f"forward assigns self.{change.path} a tensor of another shape or dtype: "
            f"{old!r} becomes {new!r}.",
            why="the buffers of a program have fixed metadata",
            hints=["keep the shape, and write with self.buffer.copy_(new)", _CALL_IT_ONCE],
        )


def _check_results(change: Change, old: FakeTensor, outputs: Iterable[FakeTensor]) -> None:
    for output in outputs:
        if output.storage_ is old.storage_:
            what = "its old value" if output is old else "a view of its old value"
            raise NotSupported(
                f"forward assigns self.{change.path} and returns {what}.",
                hints=["return a clone"],
            )
