"""Which operators are taken apart, and into what.

A table is a plain dict: operator overload -> a function of the same arguments. The default table
leaves the operators that torch tags as core: composite operators take themselves apart, torch's
own Python decompositions are taken as data, and a few of this package come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from stillframe import torch_private
from stillframe.trace.decomposition_rules import RULES
from stillframe.trace.templates import Template

aten = torch.ops.aten

Entry = Callable[..., Any]


class Composite:
    """An operator that takes itself apart.

    Attributes:
        op: the operator.
        ways: what to try, in order: Python code that torch registered for it, then the C++ code.
    """

    def __init__(self, op: Any) -> None:
        self.op = op
        python = torch_private.python_kernel(op, "CompositeImplicitAutograd")
        self.ways: tuple[Entry, ...] = (op.decompose,) if python is None else (python, op.decompose)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.ways[0](*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.op} takes itself apart>"


def default_decompositions() -> dict[Any, Entry]:
    """The table that :meth:`ExportedProgram.run_decompositions` uses: a new dict, to be edited.

    Remove an operator to keep it whole, or give it another function:

        table = stillframe.default_decompositions()
        del table[torch.ops.aten.linear.default]
        program.run_decompositions(table)
    """
    return dict(_default_entries())


@lru_cache(None)
def _default_entries() -> Mapping[Any, Entry]:
    composite = {op: Composite(op) for op in torch_private.composite_operators()}
    entries: dict[Any, Entry] = {**composite, **torch_private.core_decompositions(), **RULES}
    return {op: entry for op, entry in entries.items() if not _stays(op)}


def is_core(op: Any) -> bool:
    """Whether torch tags the operator as core."""
    return torch.Tag.core in op.tags


def _stays(op: Any) -> bool:
    """Core operators, and questions about sizes, whose answers are symbols."""
    return is_core(op) or op in _KEPT


_KEPT: frozenset[Any] = frozenset(
    {
        aten.size.default, aten.size.int, aten.stride.default, aten.stride.int,
        aten.is_nonzero.default, aten.item.default,
        aten.detach.default,  # not the same as an alias: no gradient goes through
    }
)  # fmt: skip


class Decompositions:
    """A table in use.

    Attributes:
        templates: what operators were taken apart into, for metadata without symbols.
    """

    def __init__(self, entries: Mapping[Any, Entry]) -> None:
        self.entries = dict(entries)
        self.templates: dict[Any, Template | None] = {}

    def get(self, func: Any) -> Entry | None:
        """What is run in the place of ``func``, or None if it stays."""
        entry = self.entries.get(func)
        if entry is None and func.namespace == "prims":
            entry = self.entries[func] = torch_private.primitive_body(func)
        return entry

    def ways(self, func: Any) -> Sequence[Entry]:
        """What to try in the place of ``func``, in order; also where no table names it.

        An operator that writes without a functional form is such a case.
        """
        entry = self.get(func) or RULES.get(func)
        if entry is None:
            return Composite(func).ways if torch_private.is_composite_implicit(func) else ()
        return entry.ways if isinstance(entry, Composite) else (entry,)


@lru_cache(None)
def default_table() -> Decompositions:
    """The default table in use; what it remembers serves all programs."""
    return Decompositions(_default_entries())
