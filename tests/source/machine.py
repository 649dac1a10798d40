"""A code generator that runs what it is told, on a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillframe.source import Source


class StackMachine:
    """Runs the code that a source emits."""

    def __init__(
        self,
        f_locals: Mapping[str, Any],
        f_globals: Mapping[str, Any],
        helpers: Mapping[str, Any],
        random_values: Sequence[float] = (),
    ) -> None:
        self.locals, self.globals, self.helpers = f_locals, f_globals, helpers
        self.random_values = random_values
        self.cells_loaded: list[str] = []
        self.stack: list[Any] = []

    def run(self, source: Source) -> Any:
        """The value; the stack must be as it was."""
        before = len(self.stack)
        self.load(source)
        value = self.stack.pop()
        assert len(self.stack) == before
        return value

    def load(self, source: Source) -> None:
        source.reconstruct(self)

    def load_local(self, name: str, is_cell: bool) -> None:
        if is_cell:
            self.cells_loaded.append(name)
        self.stack.append(self.locals[name])

    def load_global(self, name: str) -> None:
        self.stack.append(self.globals[name])

    def load_constant(self, value: Any) -> None:
        self.stack.append(value)

    def load_helper(self, name: str) -> None:
        self.stack.append(self.helpers[name])

    def load_random_value(self, index: int) -> None:
        self.stack.append(self.random_values[index])

    def load_attr(self, name: str) -> None:
        self.stack.append(getattr(self.stack.pop(), name))

    def load_item(self) -> None:
        key, container = self.stack.pop(), self.stack.pop()
        self.stack.append(container[key])

    def call(self, count: int) -> None:
        arguments = [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(self.stack.pop()(*arguments))
