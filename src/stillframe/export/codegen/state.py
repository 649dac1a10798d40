"""How the code reads state: from the module's own tables, so that replaced parameters are seen."""

from __future__ import annotations

from dataclasses import dataclass

from stillframe.export.signature import InputKind
from stillframe.export.source_text import Namespace

# Where lifted state sits in its module, by kind: the attribute that holds the table, and a prefix.
TABLES: dict[InputKind, tuple[str, str]] = {
    InputKind.PARAMETER: ("_parameters", "p"),
    InputKind.BUFFER: ("_buffers", "b"),
    InputKind.CONSTANT_TENSOR: ("__dict__", "c"),
    InputKind.CUSTOM_OBJ: ("__dict__", "obj"),
}


@dataclass(frozen=True)
class StateTable:
    """A table of a submodule that the code reads: global name, path of the module, attribute."""

    name: str
    path: str
    attribute: str


class StateCode:
    """Writes reads of state; the tables are globals of the code.

    Args:
        names: of the code.
    """

    def __init__(self, names: Namespace) -> None:
        self.names = names
        self._tables: dict[tuple[str, str], StateTable] = {}

    @property
    def tables(self) -> tuple[StateTable, ...]:
        """Those that were read, in order."""
        return tuple(self._tables.values())

    def text(self, kind: InputKind, fqn: str) -> str:
        """A read of one entry."""
        attribute, prefix = TABLES[kind]
        path, _, name = fqn.rpartition(".")
        table = self._tables.get((path, attribute))
        if table is None:
            local = self.names.local(f"{prefix}_{path}" if path else prefix)
            table = self._tables[path, attribute] = StateTable(local, path, attribute)
        return f"{table.name}[{name!r}]"
