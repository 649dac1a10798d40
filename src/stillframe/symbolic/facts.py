"""Facts: what is assumed of the unknowns, and the questions it answers.

``assume`` (``assume.py``) turns a boolean into statements of the
:class:`~stillframe.symbolic.store.Store`: ranges, representatives, congruences, inequalities.
``decide`` (``decide.py``), ``simplify`` (``simplify.py``) and, where a recorded disjunction leaves
several cases open, ``cases.py`` use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stillframe.errors import StillframeError
from stillframe.symbolic import assume as _assume
from stillframe.symbolic import cases as _cases
from stillframe.symbolic import decide as _decide
from stillframe.symbolic import simplify as _simplify
from stillframe.symbolic.arith import scaled_sum
from stillframe.symbolic.bounds import meet, range_of
from stillframe.symbolic.compare import (
    at_most_zero,
    differs_from_zero,
    eq,
    equals_zero,
    le,
    not_,
)
from stillframe.symbolic.expr import Expr, Number, const
from stillframe.symbolic.interval import FULL, INF, Range
from stillframe.symbolic.operators import mod
from stillframe.symbolic.residues import primitive_form
from stillframe.symbolic.store import Store


class Contradiction(StillframeError):
    """An assumption that cannot hold together with the facts."""


class Facts:
    """A store of facts about integer symbols (and what is built from them).

    Example::

        facts = Facts()
        facts.set_range(s, Range(2, 512))
        facts.assume(eq(mod(s, 8), 0))
        facts.decide(s > 1)            # True
        facts.simplify((s // 8) * 8)   # s
    """

    __slots__ = ("_store",)

    def __init__(self) -> None:
        self._store = Store()

    # -- asking -------------------------------------------------------------------------------

    def range_of(self, expr: Expr | Number) -> Range:
        """A range that holds the value of an integer expression for all admitted inputs."""
        node = const(expr)
        if node.sort != "int":
            raise TypeError(f"only integers have a range; `{node}` is a {node.sort}")
        store = self._store
        try:
            found = range_of(store, node)
            simple = _simplify.simplify(store, node)
            if simple is not node:
                found = meet(found, range_of(store, simple))
            return _cases.narrowed(store, node, found) if store.splits else found
        except RecursionError:  # too deep for this stack: nothing is known
            return FULL

    def decide(self, expr: Expr | bool) -> bool | None:
        """Whether a boolean expression is always True, always False, or neither is known (None)."""
        if expr.__class__ is not Expr:
            return bool(expr)
        store = self._store
        memo = store.settled
        if expr in memo:
            return memo[expr]
        if expr.sort != "bool":
            raise TypeError(f"only a boolean can be decided; `{expr}` is of sort {expr.sort}")
        try:
            answer = _decide.decide(store, expr)
            if answer is None:
                answer = _cases.decide(store, expr)
            store.remember(memo, expr, answer)
            return answer
        except RecursionError:  # too deep for this stack: nothing is known
            return None

    def is_remembered(self, expr: Expr) -> bool:
        """Whether ``expr`` has been decided since the facts about its symbols last changed."""
        return expr in self._store.settled

    def simplify(self, expr: Expr | Number) -> Expr:
        """An expression of equal value on all admitted inputs, rewritten by the facts."""
        node = const(expr)
        try:
            simple = _simplify.simplify(self._store, node)
        except RecursionError:  # too deep for this stack
            return node
        if simple.sort == "bool" and not simple.is_constant:
            answer = self.decide(simple)
            return simple if answer is None else const(answer)
        return simple

    # -- telling ------------------------------------------------------------------------------

    def set_range(self, symbol: Expr, bounds: Range) -> None:
        """Replace the range of ``symbol``; what else is known of it stays.

        Raises:
            Contradiction: nothing in it agrees with the other facts; they stay as they were.
        """
        if symbol.op != "symbol" or symbol.sort != "int":
            raise TypeError(f"a range belongs to an integer symbol, not to `{symbol}`")
        with self._transaction():
            _assume.set_range(self._store, symbol, bounds)

    def assume(self, expr: Expr | bool) -> None:
        """From now on ``expr`` holds.

        Raises:
            Contradiction: the facts show that it does not; they stay as they were.
        """
        node = const(expr)
        known = self.decide(node)
        if known:
            return
        if known is False:
            raise Contradiction(f"`{node}` contradicts what is known:\n{self}")
        with self._transaction():
            _assume.assume(self._store, node)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the changes inside are made, or none."""
        store = self._store
        store.begin()
        try:
            yield
        except _assume.Impossible as problem:
            store.rollback()
            raise Contradiction(str(problem)) from None
        except BaseException:
            store.rollback()
            raise
        store.commit()

    def copy(self) -> Facts:
        """Facts that start with the same statements and change on their own."""
        twin = Facts()
        twin._store = self._store.copy()
        return twin

    # -- seeing -------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Changes whenever the facts do."""
        return self._store.generation

    def congruence_of(self, expr: Expr) -> tuple[int, int] | None:
        """``(k, r)`` with ``k > 1`` if ``expr`` is known to be ``r`` modulo ``k``."""
        whole = primitive_form(self.simplify(expr))
        if whole is None:
            return None
        form, scale, constant = whole
        modulus, r = self._store.congruences.get(form, (1, 0))
        modulus *= abs(scale)
        return (modulus, (scale * r + constant) % modulus) if modulus > 1 else None

    def statements(self) -> list[Expr]:
        """All facts as boolean expressions."""
        store = self._store
        found: dict[Expr, None] = {}
        for node, bounds in store.ranges.items():
            if bounds.is_single:
                found[eq(node, int(bounds.lower))] = None
                continue
            if bounds.lower != -INF:
                found[le(int(bounds.lower), node)] = None
            if bounds.upper != INF:
                found[le(node, int(bounds.upper))] = None
        found.update((eq(node, value), None) for node, value in store.values.items())
        for form, (modulus, r) in store.congruences.items():
            found[eq(mod(form, modulus), r)] = None
        for d in store.inequalities:
            opposite = scaled_sum(((-1, d),))
            if opposite not in store.inequalities:
                found[at_most_zero(d)] = None
            else:
                found[equals_zero(d)] = None
        found.update((differs_from_zero(d), None) for d in store.nonzero)
        found.update((b if truth else not_(b), None) for b, truth in store.literals.items())
        return [b for b in found if not b.is_constant]

    def describe(self) -> str:
        """The facts as text, one a line."""
        return "\n".join(sorted(str(b) for b in self.statements())) or "(nothing is known)"

    __str__ = describe

    def __repr__(self) -> str:
        return f"<Facts: {'; '.join(self.describe().splitlines())}>"
