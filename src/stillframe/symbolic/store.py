"""What is known of the unknowns: plain data, kept by :class:`~stillframe.symbolic.facts.Facts`.

Everything in a :class:`Store` is a statement about integers that holds for every admitted input:

- ``ranges``: a symbol, or another monomial, lies in a range;
- ``values``: a symbol equals an expression without it (its representative), or an atom equals a
  constant;
- ``congruences``: a linear form ``x`` without constant is ``r`` modulo ``k``;
- ``inequalities``: ``d <= 0``; ``nonzero``: ``d != 0``;
- ``literals``: booleans that fit nowhere else, and their truth.

The memos hold answers that were derived from these statements; each change empties them.
"""

from __future__ import annotations

from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import Range


class Store:
    """Statements and memos; see the module's text for what each holds."""

    __slots__ = (
        "congruences",
        "decided",
        "generation",
        "inequalities",
        "known_ranges",
        "literals",
        "nonzero",
        "ranges",
        "simplified",
        "values",
    )

    def __init__(self) -> None:
        self.ranges: dict[Expr, Range] = {}
        self.values: dict[Expr, Expr] = {}
        self.congruences: dict[Expr, tuple[int, int]] = {}
        self.inequalities: dict[Expr, None] = {}
        self.nonzero: dict[Expr, None] = {}
        self.literals: dict[Expr, bool] = {}
        self.generation = 0
        self.forget()

    def forget(self) -> None:
        """Empty the memos: a statement has changed."""
        self.generation += 1
        self.known_ranges: dict[Expr, Range] = {}
        self.simplified: dict[Expr, Expr] = {}
        self.decided: dict[Expr, bool | None] = {}

    def load(self, other: Store) -> None:
        """Take over the statements of ``other``; both can change on their own afterwards."""
        self.ranges = dict(other.ranges)
        self.values = dict(other.values)
        self.congruences = dict(other.congruences)
        self.inequalities = dict(other.inequalities)
        self.nonzero = dict(other.nonzero)
        self.literals = dict(other.literals)
        self.forget()
