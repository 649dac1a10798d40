"""``comptime``: code that is run while a frame is captured, to look at the capture.

    def step(x):
        y = x.relu()
        sf.comptime(lambda context: context.print_graph())
        return y

Outside of a capture such a call does nothing, and a captured frame has no trace of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class ComptimeContext(Protocol):
    """The capture at the moment of the call."""

    def graph(self) -> str:
        """The graph so far, as text."""

    def guards(self) -> list[str]:
        """The guards so far: kind and place."""

    def locals(self) -> dict[str, str]:
        """The variables of the frame that calls, each with what is known of its value. A value
        that the program has not used yet stays unused."""

    def stack(self) -> list[str]:
        """The program's frames, the outermost first: ``file:line in name``."""

    def print_graph(self) -> None:
        """Print :meth:`graph`."""

    def print_guards(self) -> None:
        """Print :meth:`guards`, a line each."""

    def print_locals(self) -> None:
        """Print :meth:`locals`, a line each."""

    def print_stack(self) -> None:
        """Print :meth:`stack`, a line each."""


Action = Callable[[ComptimeContext], Any]


class Comptime:
    """Callable with a function of the context; its attributes need none.

    Args:
        action: what a call without arguments does.
    """

    def __init__(self, action: Action | None = None) -> None:
        self.action = action

    def __call__(self, function: Action | None = None, /) -> None:
        """Nothing: no frame is being captured."""

    @property
    def print_graph(self) -> Comptime:
        """Prints the graph so far."""
        return Comptime(lambda context: context.print_graph())

    @property
    def print_guards(self) -> Comptime:
        """Prints the guards so far."""
        return Comptime(lambda context: context.print_guards())

    @property
    def print_locals(self) -> Comptime:
        """Prints the variables of the frame."""
        return Comptime(lambda context: context.print_locals())

    @property
    def print_stack(self) -> Comptime:
        """Prints the frames of the program."""
        return Comptime(lambda context: context.print_stack())


comptime = Comptime()
