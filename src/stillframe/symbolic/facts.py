"""Facts: what is assumed of the unknowns, and the questions it answers.

``assume`` turns a boolean into statements of the :class:`~stillframe.symbolic.store.Store` (ranges,
representatives, congruences, inequalities, ...); ``decide`` (``decide.py``) and ``simplify``
(``simplify.py``) use them. A statement is stored in the simplest form that the others allow, and
the ranges follow from the inequalities by a bounded number of rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd, lcm

from stillframe.errors import StillframeError
from stillframe.symbolic import decide as _decide
from stillframe.symbolic import simplify as _simplify
from stillframe.symbolic.arith import factors, linear, scaled_sum
from stillframe.symbolic.bounds import meet, range_of
from stillframe.symbolic.compare import (
    at_most_zero,
    differs_from_zero,
    eq,
    le,
    not_,
)
from stillframe.symbolic.expr import Expr, Number, const, order_key
from stillframe.symbolic.interval import FULL, INF, Bound, Range
from stillframe.symbolic.operators import mod
from stillframe.symbolic.residues import primitive_form
from stillframe.symbolic.store import Store

_ROUNDS = 4


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
        try:
            return range_of(self._store, node)
        except RecursionError:  # too deep for this stack: nothing is known
            return FULL

    def decide(self, expr: Expr | bool) -> bool | None:
        """Whether a boolean expression is always True, always False, or neither is known (None)."""
        if expr.__class__ is not Expr:
            return bool(expr)
        memo = self._store.decided
        if expr in memo:
            return memo[expr]
        if expr.sort != "bool":
            raise TypeError(f"only a boolean can be decided; `{expr}` is of sort {expr.sort}")
        try:
            return _decide.decide(self._store, expr)
        except RecursionError:  # too deep for this stack: nothing is known
            return None

    def is_remembered(self, expr: Expr) -> bool:
        """Whether ``expr`` has been decided since the facts last changed."""
        return expr in self._store.decided

    def simplify(self, expr: Expr | Number) -> Expr:
        """An expression of equal value on all admitted inputs, rewritten by the facts."""
        node = const(expr)
        try:
            simple = _simplify.simplify(self._store, node)
        except RecursionError:
            return node
        if simple.sort == "bool" and not simple.is_constant:
            answer = _decide.decide(self._store, simple)
            return simple if answer is None else const(answer)
        return simple

    # -- telling ------------------------------------------------------------------------------

    def set_range(self, symbol: Expr, bounds: Range) -> None:
        """Replace the range of ``symbol``; what else is known of it stays."""
        if symbol.op != "symbol" or symbol.sort != "int":
            raise TypeError(f"a range belongs to an integer symbol, not to `{symbol}`")
        self._store.ranges[symbol] = bounds
        self._store.forget()
        if symbol in self._store.values:
            _bounds_as_facts(self._store, self._store.values[symbol], bounds)
        _propagate(self._store)

    def assume(self, expr: Expr | bool) -> None:
        """From now on ``expr`` holds.

        Raises:
            Contradiction: the facts show that it does not; they stay as they were.
        """
        node = const(expr)
        known = self.decide(node)
        if known:
            return
        before = Store()
        before.load(self._store)
        try:
            if known is False:
                raise Contradiction(f"`{node}` contradicts what is known:\n{self}")
            _assume(self._store, node)
        except Contradiction:
            self._store.load(before)
            raise

    def copy(self) -> Facts:
        """Facts that start with the same statements and change on their own."""
        twin = Facts()
        twin._store.load(self._store)
        return twin

    # -- seeing -------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Changes whenever the facts do."""
        return self._store.generation

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
        found.update((at_most_zero(d), None) for d in store.inequalities)
        found.update((differs_from_zero(d), None) for d in store.nonzero)
        found.update((b if truth else not_(b), None) for b, truth in store.literals.items())
        return [b for b in found if not b.is_constant]

    def describe(self) -> str:
        """The facts as text, one a line."""
        return "\n".join(sorted(str(b) for b in self.statements())) or "(nothing is known)"

    __str__ = describe

    def __repr__(self) -> str:
        return f"<Facts: {'; '.join(self.describe().splitlines())}>"


# -- assuming -------------------------------------------------------------------------------------


def _assume(store: Store, node: Expr) -> None:
    """Record ``node``; it must hold."""
    known = _decide.decide(store, node)
    if known:
        return
    if known is False:
        raise Contradiction(f"`{node}` contradicts what is known")
    if node.op in ("and", "or"):
        _assume_connective(store, node)
        return
    simple = _simplify.simplify(store, node)
    if simple.is_constant:
        if not simple.value:
            raise Contradiction(f"`{node}` contradicts what is known")
        return
    if simple.op in ("and", "or"):
        _assume_connective(store, simple)
        return
    if simple.diff is None:
        store.literals[simple] = True
        if simple is not node:
            store.literals[node] = True
        store.forget()
        return
    _INTEGER[simple.op](store, simple.diff)


def _assume_connective(store: Store, node: Expr) -> None:
    if node.op == "and":
        for arg in node.args:
            _assume(store, arg)
        return
    still_open = [a for a in node.args if _decide.decide(store, a) is not False]
    if len(still_open) == 1:
        _assume(store, still_open[0])
        return
    store.literals[node] = True
    store.forget()


def _assume_at_most_zero(store: Store, d: Expr) -> None:
    terms, constant = linear(d)
    if len(terms) == 1:
        ((mono, c),) = terms.items()
        if mono.op == ("max" if c > 0 else "min"):  # max(x, y) <= k: both are
            for arg in mono.args:
                _assume(store, at_most_zero(scaled_sum(((c, arg),), constant)))
            return
        _narrow(store, mono, _solved(c, constant))
    else:
        store.inequalities[d] = None
        store.forget()
        opposite = scaled_sum(((-1, d),))
        if opposite in store.inequalities:
            _assume_zero(store, d)
            return
    _propagate(store)


def _solved(c: int, constant: Bound) -> Range:
    """The range of ``x`` in ``c * x + constant <= 0``."""
    if abs(constant) == INF:
        return FULL
    if c > 0:
        return Range(-INF, -constant // c)
    return Range(-(-constant // -c), INF)


def _assume_nonzero(store: Store, d: Expr) -> None:
    store.nonzero[d] = None
    store.forget()
    terms, constant = linear(d)
    if len(terms) == 1 and constant == 0:
        (mono,) = terms
        if mono.op == "mul":  # a product that is not zero has no factor that is
            for atom in dict.fromkeys(mono.args):
                _assume(store, differs_from_zero(atom))
    _propagate(store)


def _assume_zero(store: Store, d: Expr) -> None:
    """``d == 0``: a representative, a congruence, a value, or two inequalities."""
    terms, constant = linear(d)
    symbol = _solvable(d)
    if symbol is not None:
        c = terms[symbol]
        value = scaled_sum(((-c, d), (1, symbol)))  # c is 1 or -1
        _substitute(store, symbol, value)
        return
    if len(terms) == 1:
        ((mono, c),) = terms.items()
        value = const(-constant // c)
        if mono.op == "mod" and mono.args[1].is_constant:
            _record_congruence(store, mono.args[0], mono.args[1].value, value.value)
        elif mono.op == "floordiv" and mono.args[1].is_constant:
            x, n = mono.args[0], mono.args[1].value
            _assume(store, le(value.value * n, x))
            _assume(store, le(x, value.value * n + n - 1))
        _narrow(store, mono, Range(value.value, value.value))
    else:
        for sign in (1, -1):
            store.inequalities[scaled_sum(((sign, d),))] = None
        _congruence_of_equation(store, d)
    _renormalise(store)


def _solvable(d: Expr) -> Expr | None:
    """The last symbol of ``d`` with coefficient 1 or -1 that occurs nowhere else in it."""
    terms, _ = linear(d)
    candidates = [
        mono
        for mono, c in terms.items()
        if mono.op == "symbol"
        and abs(c) == 1
        and not any(mono in other.free_symbols for other in terms if other is not mono)
    ]
    return max(candidates, key=order_key, default=None)


def _substitute(store: Store, symbol: Expr, value: Expr) -> None:
    """``symbol`` is ``value`` from now on; its other facts become facts of ``value``."""
    bounds = store.ranges.get(symbol, FULL)
    congruence = store.congruences.pop(symbol, None)
    store.values[symbol] = value
    store.forget()
    _bounds_as_facts(store, value, bounds)
    if congruence is not None:
        _record_congruence(store, value, *congruence)
    _renormalise(store)


def _bounds_as_facts(store: Store, value: Expr, bounds: Range) -> None:
    if bounds.lower != -INF:
        _assume(store, le(int(bounds.lower), value))
    if bounds.upper != INF:
        _assume(store, le(value, int(bounds.upper)))


def _congruence_of_equation(store: Store, d: Expr) -> None:
    """``k*x + y + c = 0`` says ``y = -c`` modulo ``k``, for each single remaining ``y``."""
    terms, constant = linear(d)
    for mono, c in terms.items():
        others = [abs(k) for m, k in terms.items() if m is not mono]
        k = gcd(*others)
        if k > 1 and gcd(c, k) == 1:
            _record_congruence(store, mono, k, -constant * pow(c, -1, k) % k)


def _record_congruence(store: Store, node: Expr, modulus: int, r: int) -> None:
    """``node % modulus == r``, combined with what is known of the same form."""
    simple = _simplify.simplify(store, node)
    whole = primitive_form(simple)
    if whole is None:
        if simple.value % modulus != r:
            raise Contradiction(f"`{node}` is not {r} modulo {modulus}")
        return
    form, k, constant = whole  # k*form = r - constant (mod modulus)
    target = (r - constant) % modulus
    g = gcd(k, modulus)
    if target % g:
        raise Contradiction(f"`{node}` is not {r} modulo {modulus}")
    modulus //= g
    if modulus == 1:
        return
    r = target // g * pow(k // g, -1, modulus) % modulus
    old_modulus, old_r = store.congruences.get(form, (1, 0))
    g = gcd(modulus, old_modulus)
    if (r - old_r) % g:
        raise Contradiction(f"`{form}` is not {r} modulo {modulus}")
    step = (r - old_r) // g * pow(old_modulus // g, -1, modulus // g) if modulus > g else 0
    both = lcm(modulus, old_modulus)
    store.congruences[form] = (both, (old_r + old_modulus * step) % both)
    store.forget()


_INTEGER: dict[str, Callable[[Store, Expr], None]] = {
    "eq": _assume_zero,
    "ne": _assume_nonzero,
    "le": _assume_at_most_zero,
    "lt": _assume_at_most_zero,
}


# -- consequences ---------------------------------------------------------------------------------


def _renormalise(store: Store) -> None:
    """Bring all statements to the simplest form again, after a substitution or a congruence."""
    for symbol, value in list(store.values.items()):
        del store.values[symbol]
        store.forget()
        store.values[symbol] = _simplify.simplify(store, value)
        store.forget()
    inequalities, nonzero, literals = store.inequalities, store.nonzero, store.literals
    congruences = store.congruences
    store.inequalities, store.nonzero, store.literals = {}, {}, {}
    store.forget()
    for d in inequalities:
        _readd(store, at_most_zero(_simplify.simplify(store, d)), store.inequalities)
    for d in nonzero:
        _readd(store, differs_from_zero(_simplify.simplify(store, d)), store.nonzero)
    for node, truth in literals.items():
        store.literals[node] = truth
    for form, (modulus, r) in list(congruences.items()):
        if any(s in store.values for s in form.free_symbols):
            del congruences[form]
            _record_congruence(store, form, modulus, r)
    for mono, bounds in list(store.ranges.items()):
        simple = mono if mono.op == "symbol" else _simplify.simplify(store, mono)
        if simple is not mono and not simple.is_constant:
            _bounds_as_facts(store, simple, bounds)
    _propagate(store)


def _readd(store: Store, test: Expr, place: dict[Expr, None]) -> None:
    if test.is_constant:
        if not test.value:
            raise Contradiction("the facts exclude each other")
    elif test.diff is not None:
        place[test.diff] = None
        store.forget()


def _propagate(store: Store) -> None:
    """Narrow ranges by the inequalities, the exclusions and the congruences, a few rounds."""
    for _ in range(_ROUNDS):
        changed = False
        for d in list(store.inequalities):
            changed = _narrow_terms(store, d) or changed
        for mono, bounds in list(store.ranges.items()):
            if mono.op == "mul":
                changed = _narrow_factors(store, mono, bounds) or changed
        for d in list(store.nonzero):
            changed = _narrow_ends(store, d) or changed
        for form, (modulus, r) in list(store.congruences.items()):
            changed = _narrow_to_residue(store, form, modulus, r) or changed
        if not changed:
            return


def _narrow_terms(store: Store, d: Expr) -> bool:
    """In ``c*x + rest <= 0``, ``c*x`` is at most the negative of the least ``rest``."""
    changed = False
    terms, _ = linear(d)
    for mono, c in terms.items():
        rest = range_of(store, scaled_sum(((1, d), (-c, mono)))).lower
        changed = _narrow(store, mono, _solved(c, rest)) or changed
    if range_of(store, d).lower > 0:
        raise Contradiction(f"`{at_most_zero(d)}` cannot hold any more")
    return changed


def _narrow_ends(store: Store, d: Expr) -> bool:
    """``x != k`` moves an end of the range of ``x`` that is ``k``."""
    terms, constant = linear(d)
    if len(terms) != 1:
        return False
    ((mono, c),) = terms.items()
    if constant % c:
        return False
    k = -constant // c
    bounds = range_of(store, mono)
    if bounds.is_single and bounds.lower == k:
        raise Contradiction(f"`{differs_from_zero(d)}` cannot hold any more")
    if bounds.lower == k:
        return _narrow(store, mono, Range(k + 1, INF))
    return _narrow(store, mono, Range(-INF, k - 1)) if bounds.upper == k else False


def _narrow_to_residue(store: Store, form: Expr, modulus: int, r: int) -> bool:
    """The ends of the range of ``x`` move to numbers that are ``r`` modulo ``modulus``."""
    if form.op == "add":
        return False
    bounds = range_of(store, form)
    low: Bound = bounds.lower
    high: Bound = bounds.upper
    if low != -INF:
        low = low + (r - low) % modulus
    if high != INF:
        high = high - (high - r) % modulus
    if low > high:
        raise Contradiction(f"`{form}` cannot be {r} modulo {modulus} in {bounds}")
    return _narrow(store, form, Range(low, high))


def _narrow(store: Store, mono: Expr, bounds: Range) -> bool:
    """Intersect the range of a monomial; True if that told anything new."""
    old = range_of(store, mono)
    if bounds.lower <= old.lower and bounds.upper >= old.upper:
        return False
    if bounds.lower > old.upper or bounds.upper < old.lower:
        raise Contradiction(f"`{mono}` would have to be both in {old} and in {bounds}")
    new = old.intersect(bounds)
    store.ranges[mono] = meet(new, store.ranges.get(mono))
    store.forget()
    if mono.op == "mul":
        _narrow_factors(store, mono, new)
    return True


def _narrow_factors(store: Store, mono: Expr, bounds: Range) -> bool:
    """A product of non-negative factors within ``bounds`` bounds each factor."""
    atoms = factors(mono)
    lows = [range_of(store, a).lower for a in atoms]
    changed = False
    if any(low < 0 for low in lows):
        return changed
    if bounds.lower >= 1:
        for atom in dict.fromkeys(atoms):
            changed = _narrow(store, atom, Range(1, INF)) or changed
    if bounds.upper == INF:
        return changed
    for i, atom in enumerate(atoms):
        others = 1
        for j, low in enumerate(lows):
            others *= int(low) if j != i and atoms[j] is not atom else 1
        if others >= 1:
            top = bounds.upper // others
            if atoms.count(atom) == 1:
                changed = _narrow(store, atom, Range(-INF, top)) or changed
    return changed
