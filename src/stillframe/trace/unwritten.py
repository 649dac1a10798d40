"""Memory that C++ code fills without any operator, while a trace runs on real tensors.

``at::empty`` is an operator, what the code behind it then writes by address is not: the graph would
read memory that nobody wrote. So small new memory is filled with a pattern. If the pattern is gone
when an operator reads it, and no operator wrote there, the trace is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.trace.operators import OperatorFacts, written_arguments
from stillframe.trace.real_tensors import memory_of

_PATTERN = 0xA5
_BYTES_LIMIT = 1 << 16


class UnwrittenMemory:
    """The new memory of one trace that no operator has written yet."""

    def __init__(self) -> None:
        self._found: dict[int, StorageWeakRef] = {}

    def add(self, result: torch.Tensor) -> None:
        """``result`` is of ``aten.empty``: whatever it holds, it may as well hold the pattern."""
        key = memory_of(result)
        if key is None or result.device.type != "cpu":
            return
        storage = torch_private.storage_of(result)
        if 0 < storage.nbytes() <= _BYTES_LIMIT:
            _bytes(storage).fill_(_PATTERN)
            self._found[key] = StorageWeakRef(storage)

    def is_filled_unseen(
        self, facts: OperatorFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether an operator is about to read what no operator wrote. Notes what it writes."""
        if not self._found:
            return False
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        filled = any(self._has_lost_pattern(t) for t in tensors)
        for target in written_arguments(facts, args, kwargs):
            key = memory_of(target)
            if key is not None:
                self._found.pop(key, None)
        return filled

    def _has_lost_pattern(self, tensor: torch.Tensor) -> bool:
        key = memory_of(tensor)
        known = None if key is None else self._found.get(key)
        if known is None or known.expired():
            return False
        return not bool((_bytes(torch_private.storage_of(tensor)) == _PATTERN).all())


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)
