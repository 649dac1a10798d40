"""What is known of the unknowns: statements, and the memos of what follows from them.

Everything in a :class:`Store` is a statement about integers that holds for every admitted input:

- ``ranges``: a symbol, or another monomial, lies in a range;
- ``values``: a symbol equals an expression without it (its representative);
- ``congruences``: a linear form ``x`` without constant is ``r`` modulo ``k``;
- ``inequalities``: ``d <= 0``; ``nonzero``: ``d != 0``;
- ``literals``: booleans that fit nowhere else, and their truth; a disjunction among them is also
  an entry of ``splits``.

Statements change only through :meth:`Store.put` and :meth:`Store.drop`, which keep the indices and
drop the memos that may have become wrong. Two indices make unrelated facts cost nothing:
``mentions`` finds the statements about a symbol, ``terms`` the inequalities with a monomial
(``compared`` are the symbols in them, ``opaque`` those inside anything but sums).

What a memo may depend on: a range depends on the ranges and representatives of its own symbols; a
decision or simplification depends on any statement that a chain of shared symbols leads to. The
symbols of such a chain form a :class:`Group`, and a change drops the answers of its group only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stillframe.symbolic.arith import linear
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import Range

Symbols = frozenset[Expr]
_ABSENT: Any = object()


class Group:
    """Symbols that statements connect, and the symbol sets of remembered answers about them."""

    __slots__ = ("answered", "symbols")

    def __init__(self, symbols: set[Expr]) -> None:
        self.symbols = symbols
        self.answered: set[Symbols] = set()


class Store:
    """Statements, indices and memos; see the module's text for what each holds."""

    __slots__ = (
        "_answers",
        "_dependents",
        "_groups",
        "_journal",
        "_ranged",
        "_ranged_of",
        "arms",
        "compared",
        "congruences",
        "decided",
        "generation",
        "inequalities",
        "known_ranges",
        "literals",
        "mentions",
        "nonzero",
        "opaque",
        "ranges",
        "settled",
        "simplified",
        "splits",
        "terms",
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
        self._journal: list[tuple[dict[Expr, Any], Expr, Any]] | None = None
        self._reset()

    def _reset(self) -> None:
        """Empty indices and memos."""
        self.mentions: dict[Expr, dict[Expr, None]] = {}
        self.terms: dict[Expr, dict[Expr, None]] = {}
        self.compared: set[Expr] = set()
        self.opaque: set[Expr] = set()
        self.splits: dict[Expr, None] = {}
        self.arms: dict[Expr, tuple[Store, ...]] = {}
        self.known_ranges: dict[Expr, Range] = {}
        self.simplified: dict[Expr, Expr] = {}
        self.decided: dict[Expr, bool | None] = {}
        self.settled: dict[Expr, bool | None] = {}
        self._groups: dict[Expr, Group] = {}
        self._dependents: dict[Expr, set[Expr]] = {}
        self._answers: dict[Symbols, list[Expr]] = {}
        self._ranged: dict[Symbols, list[Expr]] = {}
        self._ranged_of: dict[Expr, set[Symbols]] = {}

    # -- statements -----------------------------------------------------------------------------

    def put(self, table: dict[Expr, Any], key: Expr, value: Any = None) -> None:
        """Add a statement to one of the tables, or replace it."""
        if self._journal is not None:
            self._journal.append((table, key, table.get(key, _ABSENT)))
        table[key] = value
        self._index(table, key, value)
        self._forget(table, key)

    def drop(self, table: dict[Expr, Any], key: Expr) -> None:
        """Remove a statement that is there."""
        if self._journal is not None:
            self._journal.append((table, key, table[key]))
        del table[key]
        if table is self.inequalities:
            for mono in linear(key)[0]:
                self.terms[mono].pop(key, None)
        elif table is self.literals:
            self.splits.pop(key, None)
        self._forget(table, key)

    def _index(self, table: dict[Expr, Any], key: Expr, value: Any) -> None:
        symbols: Iterable[Expr] = key.free_symbols
        if table is self.values:
            for s in value.free_symbols:
                self._dependents.setdefault(s, set()).add(key)
            symbols = key.free_symbols | value.free_symbols
        elif table is self.inequalities:
            for mono in linear(key)[0]:
                self.terms.setdefault(mono, {})[key] = None
            self.compared |= key.free_symbols
        elif table is self.literals and key.op == "or" and value:
            self.splits[key] = None
        if key.op != "symbol":
            self.opaque.update(*[m.free_symbols for m in _monomials(key) if m.op != "symbol"])
        mentions = self.mentions
        for s in symbols:
            about = mentions.get(s)
            if about is None:
                about = mentions[s] = {}
            about[key] = None
        self._relate(symbols)

    def about(self, symbols: Iterable[Expr]) -> Iterator[Expr]:
        """Keys of the statements that mention one of ``symbols`` (also of some dropped ones)."""
        seen: dict[Expr, None] = {}
        for s in symbols:
            seen.update(self.mentions.get(s, ()))
        return iter(seen)

    # -- trying and copying -----------------------------------------------------------------------

    def begin(self) -> None:
        """From here on :meth:`rollback` can take every change back."""
        self._journal = []

    def commit(self) -> None:
        """Keep the changes since :meth:`begin`."""
        self._journal = None

    def rollback(self) -> None:
        """Take back every change since :meth:`begin`."""
        for table, key, old in reversed(self._journal or ()):
            if old is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = old
        self._journal = None
        self._reindex()

    def copy(self) -> Store:
        """A store with the same statements, which changes on its own."""
        twin = Store()
        twin.ranges = dict(self.ranges)
        twin.values = dict(self.values)
        twin.congruences = dict(self.congruences)
        twin.inequalities = dict(self.inequalities)
        twin.nonzero = dict(self.nonzero)
        twin.literals = dict(self.literals)
        twin._reindex()
        return twin

    def related(self, symbols: Iterable[Expr]) -> Store:
        """A store with the statements that a chain of shared symbols connects with ``symbols``."""
        twin = Store()
        groups = {self.group(s) for s in symbols}
        keys = list(self.about(member for group in groups for member in group.symbols))
        for own, new in zip(self.tables(), twin.tables(), strict=True):
            new.update((key, own[key]) for key in keys if key in own)
        twin._reindex()
        return twin

    def _reindex(self) -> None:
        self.generation += 1
        self._reset()
        for table in self.tables():
            for key, value in table.items():
                self._index(table, key, value)

    def tables(self) -> tuple[dict[Expr, Any], ...]:
        """All tables of statements."""
        return (
            self.ranges,
            self.values,
            self.congruences,
            self.inequalities,
            self.nonzero,
            self.literals,
        )

    # -- groups -----------------------------------------------------------------------------------

    def group(self, symbol: Expr) -> Group:
        """The group of a symbol."""
        found = self._groups.get(symbol)
        if found is None:
            found = self._groups[symbol] = Group({symbol})
        return found

    def _relate(self, symbols: Iterable[Expr]) -> None:
        """A statement connects ``symbols``: their groups become one (the larger takes all)."""
        whole: Group | None = None
        for s in symbols:
            other = self.group(s)
            if whole is None or other is whole:
                whole = other
                continue
            if len(other.symbols) > len(whole.symbols):
                whole, other = other, whole
            whole.symbols |= other.symbols
            whole.answered |= other.answered
            for member in other.symbols:
                self._groups[member] = whole

    # -- memos ------------------------------------------------------------------------------------

    def remember_range(self, node: Expr, bounds: Range) -> None:
        """Keep the range of ``node`` until the range of one of its symbols changes."""
        self.known_ranges[node] = bounds
        symbols = node.free_symbols
        nodes = self._ranged.get(symbols)
        if nodes is None:
            nodes = self._ranged[symbols] = []
            for s in symbols:
                self._ranged_of.setdefault(s, set()).add(symbols)
        nodes.append(node)

    def remember(self, memo: dict[Expr, Any], node: Expr, answer: Any) -> None:
        """Keep an entry of ``simplified``, ``decided`` or ``settled`` until its group changes."""
        memo[node] = answer
        symbols = node.free_symbols
        nodes = self._answers.get(symbols)
        if nodes is None:
            nodes = self._answers[symbols] = []
            for s in symbols:
                self.group(s).answered.add(symbols)
        nodes.append(node)

    def _forget(self, table: dict[Expr, Any], key: Expr) -> None:
        """A statement about the symbols of ``key`` has changed."""
        self.generation += 1
        self.arms.clear()
        if table is self.ranges or table is self.values:
            for s in key.free_symbols:
                self._forget_ranges(s)
                for dependent in self._dependents.get(s, ()):
                    self._forget_ranges(dependent)
        for s in key.free_symbols:
            answered = self.group(s).answered
            for symbols in answered:
                for node in self._answers.pop(symbols, ()):
                    self.simplified.pop(node, None)
                    self.decided.pop(node, None)
                    self.settled.pop(node, None)
            answered.clear()

    def _forget_ranges(self, symbol: Expr) -> None:
        for symbols in self._ranged_of.pop(symbol, ()):
            for node in self._ranged.pop(symbols, ()):
                self.known_ranges.pop(node, None)


def _monomials(key: Expr) -> Iterable[Expr]:
    return linear(key)[0] if key.sort == "int" else (key,)
