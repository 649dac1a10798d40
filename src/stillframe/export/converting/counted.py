"""``range`` over a number that only the data can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stillframe.errors import DataDependentError
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr


@dataclass(frozen=True)
class Counted:
    """``range(start, stop, step)``, of which at least one end is known only when the program runs.

    It is iterable, and its own iterator: a loop over it is one operator.
    """

    start: Any
    stop: Any
    step: int

    @staticmethod
    def of(args: tuple[Any, ...]) -> Counted | None:
        """The range of these arguments; None for one that Python can make."""
        if not 1 <= len(args) <= 3 or not all(isinstance(a, (int, torch.SymInt)) for a in args):
            return None
        if not any(_is_unbacked(a) for a in args):
            return None
        start, stop = (0, args[0]) if len(args) == 1 else args[:2]
        step = args[2] if len(args) == 3 else 1
        if type(step) is not int or step == 0:
            return None
        return Counted(start, stop, step)

    def __iter__(self) -> Any:
        raise DataDependentError(
            "A range whose length depends on the data is used otherwise than in a for loop.",
            why="its numbers are known only when the program runs",
            hints=["write the loop as a for statement, or use torch.arange"],
        )

    def is_within(self, value: Any) -> Any:
        """Whether the loop has a step for ``value``."""
        return value < self.stop if self.step > 0 else value > self.stop


def _is_unbacked(value: Any) -> bool:
    size = to_size(value)
    if not isinstance(size, Expr):
        return False
    env = value.node.env
    return bool(env.is_unbacked(size)) and not env.facts.simplify(size).is_constant
