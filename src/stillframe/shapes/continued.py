"""ContinuedEnv: the symbols of a finished capture, for another run over its graph.

What is known of the symbols stays known, and nothing may be assumed on top of it: the conditions
of a program's calls were settled when it was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stillframe.errors import NotSupported
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Expr, Range, to_python


class ContinuedEnv(ShapeEnv):
    """An environment that starts with all that ``env`` knows.

    Attributes:
        planned: unbacked symbols that the next data-dependent operators return, in order; so that
            a run again gives the names of the first.
    """

    def __init__(self, env: ShapeEnv) -> None:
        super().__init__()
        self.facts = env.facts.copy()
        self.symbols = dict(env.symbols)
        self.hints = dict(env.hints)
        self.emits_asserts = env.emits_asserts
        self.planned: list[Expr] = []

    def plan(self, symbols: Sequence[Expr]) -> None:
        """The next data-dependent operators return these symbols."""
        self.planned[:] = symbols

    def new_unbacked(self, lower: float = 0, upper: float = math.inf, *, sort: str = "int") -> Expr:
        """The next planned symbol, if it is of that sort; else a new one."""
        if self.planned and self.planned[0].sort == sort:
            symbol = self.planned.pop(0)
            if sort == "int":
                self._narrow(symbol, Range(lower, upper))
            self._fresh_unbacked.append(symbol)
            self.given_out.append(symbol)
            return symbol
        return super().new_unbacked(lower, upper, sort=sort)

    def _narrow(self, symbol: Expr, bounds: Range) -> None:
        """What was known of the symbol of a subgraph was forgotten at its end."""
        known = self.facts.range_of(symbol)
        lower, upper = max(known.lower, bounds.lower), min(known.upper, bounds.upper)
        if (lower, upper) != (known.lower, known.upper) and lower <= upper:
            self.facts.set_range(symbol, Range(lower, upper))

    def know(self, symbols: Iterable[Expr]) -> None:
        """Symbols that a subgraph takes in have the ranges that they were made with."""
        for symbol in symbols:
            info = self.symbols.get(symbol)
            if info is not None and info.policy == "unbacked" and symbol.sort == "int":
                self._narrow(symbol, info.declared)

    def _record(self, cond: Expr, kind: str) -> None:
        raise NotSupported(
            f"Whether `{to_python(cond)}` holds is open in this program, and the form that it is "
            "brought into depends on it.",
            hints=["narrow the declared range of the dims, so that it is decided"],
        )
