"""Copies of iterators, for ways that go through the rest of a loop."""

from __future__ import annotations

import copy
from typing import Any

#: Iterators whose copies go on by themselves.
_PLAIN: frozenset[type] = frozenset(
    {type(iter([])), type(iter(())), type(iter(range(0))), type(iter("")), type(reversed([]))}
)


def copied(value: Any) -> Any:
    """An iterator at the same place, or None for what is none or cannot be copied."""
    if type(value) in _PLAIN:
        return copy.copy(value)
    if type(value) in (enumerate, zip):
        make, (*parts,) = value.__reduce__()[:2]
        copies = [copied(p) if hasattr(type(p), "__next__") else p for p in parts]
        return None if any(p is None for p in copies) else make(*copies)
    return None
