"""Which tensors a program holds: the module's own, or copies of those that it writes.

Running a program leaves the module that it was made from alone, so buffers and constants whose
memory the program writes are copied. Memory is copied as a whole: tensors that are views of one
another stay so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from stillframe.errors import NotSupported
from stillframe.export.state import memory_of

Tensors = Mapping[str, torch.Tensor]


def own_tensors(
    state: Tensors, constants: Tensors, written: Iterable[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The same two tables as the program holds them.

    Args:
        state: FQN -> parameter or buffer.
        constants: FQN -> tensor.
        written: the FQNs of those that an in-place operator of the program changes.

    Raises:
        NotSupported: written memory is shared by a parameter and something else.
    """
    tables = {**state, **constants}
    parameters = [fqn for fqn, real in tables.items() if isinstance(real, torch.nn.Parameter)]
    changed: dict[int, str] = {}
    for fqn in written:
        changed.setdefault(memory_of(tables[fqn]), fqn)
    _refuse_shared_parameters(tables, parameters, changed)
    copies = _Copies()
    kept = {memory_of(tables[fqn]) for fqn in parameters}

    def owned(real: torch.Tensor) -> torch.Tensor:
        memory = memory_of(real)
        return copies.of(real) if memory in changed and memory not in kept else real

    return (
        {fqn: owned(real) for fqn, real in state.items()},
        {fqn: owned(real) for fqn, real in constants.items()},
    )


def _refuse_shared_parameters(
    tables: Tensors, parameters: Sequence[str], changed: Mapping[int, str]
) -> None:
    """A parameter stays the module's own tensor, so it may not share memory with a copy."""
    by_memory = {memory_of(tables[fqn]): fqn for fqn in parameters}
    for fqn, real in tables.items():
        memory = memory_of(real)
        parameter = by_memory.get(memory)
        if memory in changed and parameter is not None and fqn not in parameters:
            raise NotSupported(
                f"forward writes self.{changed[memory]}, and the parameter {parameter} shares "
                f"memory with {fqn}.",
                hints=[f"give {fqn} memory of its own (clone it)"],
            )


class _Copies:
    """Copies of tensors; one memory is copied once, and one tensor too."""

    def __init__(self) -> None:
        self._memories: dict[int, torch.UntypedStorage] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def of(self, real: torch.Tensor) -> torch.Tensor:
        """The copy of ``real``."""
        memory = memory_of(real)
        if memory not in self._memories:
            self._memories[memory] = real.untyped_storage().clone()
        if id(real) not in self._tensors:
            self._tensors[id(real)] = torch.empty(0, dtype=real.dtype, device=real.device).set_(
                self._memories[memory], real.storage_offset(), real.shape, real.stride()
            )
        return self._tensors[id(real)]
