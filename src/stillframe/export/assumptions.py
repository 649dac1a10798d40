"""What the captured run asked besides sizes and dtypes, as conditions of every call.

A question to an input is a condition on that input. One to a result is a condition on all that the
answer can follow from: the same property of every tensor input, and for gradients the grad mode.
Where grad is enabled, a result that requires grad could lose that only by an input that does, or by
the mode; one that does not could get it only by an input that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.trace.reads import OF_MODES, SAME, Read, of_tensor, sparse_pattern

_GRADIENT = ("requires_grad", "is_leaf")
_LAYOUT = ("stride()", "is_contiguous()", "is_contiguous(channels_last)",
           "is_contiguous(channels_last_3d)", "storage_offset()")  # fmt: skip


@dataclass(frozen=True)
class Assumption:
    """A question whose answer may not change.

    Attributes:
        about: the placeholder that it is about; empty for a mode of torch.
        what: the question, a key of :data:`~stillframe.trace.reads.OF_TENSORS` or
            :data:`~stillframe.trace.reads.OF_MODES`, or :data:`~stillframe.trace.reads.SAME`.
        value: the answer of the captured run; None for strides and offsets, which are those of
            the placeholder; for ``SAME`` the other placeholder and whether it is the same tensor.
        where: the user's line that asked.
    """

    about: str
    what: str
    value: Any
    where: tuple[str, ...] = ()


def assumptions(
    reads: Iterable[Read], inputs: Mapping[str, Any], state: Mapping[str, FakeTensor]
) -> list[Assumption]:
    """The conditions that follow from what was asked.

    Args:
        reads: the questions of the run.
        inputs: placeholder name -> fake or other value, of the user's inputs.
        state: the same of parameters and buffers.
    """
    tensors = {name: fake for name, fake in inputs.items() if isinstance(fake, FakeTensor)}
    owners = {id(fake): name for name, fake in (*state.items(), *tensors.items())}
    found: dict[tuple[str, str, str], Assumption] = {}

    def add(about: str, what: str, value: Any, where: tuple[str, ...]) -> None:
        other = value[0] if what == SAME else ""
        found.setdefault((about, what, other), Assumption(about, what, value, where))

    for name, fake in tensors.items():
        if fake.sparse is not None:
            add(name, "sparse pattern", sparse_pattern(fake), ())
    for read in reads:
        owner = owners.get(id(read.tensor))
        if read.tensor is None:
            add("", read.what, mode_answer(read.what), read.where)
        elif read.what == SAME:
            add(owners[id(read.tensor)], SAME, (owners[id(read.other)], read.value), read.where)
        elif owner is not None:
            add(owner, read.what, _answer(read.what, read.tensor), read.where)
        elif read.what in _GRADIENT:
            enabled = torch.is_grad_enabled()
            answer = not read.value if read.what == "is_leaf" else read.value
            if answer or not enabled:
                add("", "grad mode", enabled, read.where)
            for name, fake in tensors.items():
                if fake.requires_grad is answer or not enabled:
                    add(name, "requires_grad", fake.requires_grad, read.where)
        elif read.what in _LAYOUT:
            for name in tensors:
                add(name, "stride()", None, read.where)
    return list(found.values())


def mode_answer(what: str) -> Any:
    """The wanted answer of a mode. Casts of an autocast around export are operators of the program.

    So it runs outside of autocast, wherever it was exported.
    """
    return False if what == "autocast" else OF_MODES[what]()


def _answer(what: str, fake: FakeTensor) -> Any:
    return None if what in ("stride()", "storage_offset()") else of_tensor(what)(fake)


def wanted_answer(assumption: Assumption, val: FakeTensor) -> Any:
    """The wanted answer, with expressions, of the placeholder with this ``val``."""
    if assumption.what == "stride()":
        return val.strides
    return val.offset if assumption.what == "storage_offset()" else assumption.value
