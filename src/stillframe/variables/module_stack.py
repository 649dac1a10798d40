"""Which module call a node of a captured frame is in, by the places where the modules were read."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from stillframe.source import Source
from stillframe.trace.scope import ModuleScope

_TABLE = re.compile(r"\._modules\['([^']*)'\]")
_ROOT = re.compile(r"^([LG])\['(\w+)'\]")


class FrameModuleScope(ModuleScope):
    """The module calls in progress.

    A module is called what its source is called, without the tables in between: a layer read at
    ``L['self'].layers._modules['0']`` has the path ``L['self'].layers.0`` and, in the stack, the
    key ``L__self__.layers.0``. A module that the program made itself has no place and no entry.

    Args:
        source_of: where a module was read; None for one of the program's own.
    """

    def __init__(self, source_of: Callable[[torch.nn.Module], Source | None]) -> None:
        super().__init__([])
        self._source_of = source_of

    def enter(self, module: torch.nn.Module) -> None:
        source = self._source_of(module)
        if source is None:
            super().enter(module)
        else:
            self.enter_at(path_of(source), module)

    def enter_at(self, path: str, module: torch.nn.Module) -> None:
        """A call of a module begins that is read at a place."""
        stack = dict(self._stacks[-1])
        stack[self._key(path)] = path, self._class_name(type(module))
        self._stacks.append(stack)
        self._open.append(path)

    def _key(self, path: str) -> str:
        count = self._calls.get(path, 0)
        self._calls[path] = count + 1
        key = _ROOT.sub(r"\1__\2__", path)
        return f"{key}@{count}" if count else key


def path_of(source: Source) -> str:
    """The name of a module's source without the tables of modules on the way."""
    return _TABLE.sub(r".\1", source.name())
