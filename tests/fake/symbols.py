"""A rule context with symbolic sizes, for tests that look at the expressions in an answer."""

from __future__ import annotations

import math
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES, load_rules
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Expr, Range

load_rules()


class Symbols:
    """Makes symbols and fakes, runs rules, and shows their answers as text."""

    def __init__(self) -> None:
        self.env = ShapeEnv()
        self.ctx = RuleContext(self.env)

    def size(self, hint: int, lower: int = 0, upper: float = math.inf) -> Expr:
        """A new backed size."""
        return self.env.new_symbol(f"d{len(self.env.symbols)}", hint, Range(lower, upper))

    def fake(self, *sizes: Any, dtype: torch.dtype = torch.float32) -> FakeTensor:
        """A row-major fake."""
        return self.ctx.empty(sizes, dtype=dtype)

    def run(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """The answer of the rule."""
        return RULES[op](self.ctx, *args, **kwargs)

    def sizes(self, op: Any, *args: Any, **kwargs: Any) -> str:
        """The sizes of the answer (of the first tensor of several) as text."""
        answer = self.run(op, *args, **kwargs)
        first = answer if isinstance(answer, FakeTensor) else answer[0]
        return "[" + ", ".join(str(s) for s in first.sizes) + "]"

    def guards(self) -> list[str]:
        """The guards so far."""
        return [str(g.expr) for g in self.env.guards]
