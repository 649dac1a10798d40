"""Turning a boolean that must hold into statements.

A statement is stored in the simplest form that the others allow: ``decide`` first says whether it
is news, ``simplify`` rewrites it, and the rule of its kind records it. Ranges follow from the rest
by ``propagate.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import gcd, lcm

from stillframe.symbolic.arith import linear, scaled_sum
from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.compare import (
    at_most_zero,
    differs_from_zero,
    equals_zero,
    le,
    not_,
    or_,
)
from stillframe.symbolic.decide import decide
from stillframe.symbolic.expr import Expr, order_key
from stillframe.symbolic.interval import FULL, INF, Range
from stillframe.symbolic.propagate import Impossible, narrow, propagate, solved
from stillframe.symbolic.residues import primitive_form
from stillframe.symbolic.simplify import simplify
from stillframe.symbolic.store import Store

__all__ = [
    "Impossible",
    "assume",
    "both_ways",
    "possible_arms",
    "rewrite_statements",
    "set_range",
]

_ROUNDS = 4
# A disjunction with more arms than this is recorded, but not split into cases.
MAX_ARMS = 16


def assume(store: Store, node: Expr) -> None:
    """Record ``node`` and what follows from it.

    Raises:
        Impossible: it contradicts the facts. The store is left half-way: roll it back.
    """
    _record(store, node)
    _review_splits(store)


def set_range(store: Store, symbol: Expr, bounds: Range) -> None:
    """Replace the range of a symbol.

    Raises:
        Impossible: nothing is left for something.
    """
    store.put(store.ranges, symbol, bounds)
    if symbol in store.values:
        _record_bounds(store, store.values[symbol], bounds)
    propagate(store, (symbol,))
    _review_splits(store)


def _record(store: Store, node: Expr) -> None:
    if _is_known(store, node):
        return
    if node.op in ("and", "or"):
        _record_connective(store, node)
        return
    simple = simplify(store, node)
    if simple is not node and _is_known(store, simple):
        return
    if simple.op in ("and", "or"):
        _record_connective(store, simple)
    elif simple.diff is None:
        store.put(store.literals, simple, True)
        if simple is not node:
            store.put(store.literals, node, True)
    else:
        _INTEGER[simple.op](store, simple.diff)


def _is_known(store: Store, node: Expr) -> bool:
    known = decide(store, node)
    if known is False:
        raise Impossible(f"`{node}` contradicts what is known")
    return known is True


# -- conjunctions and disjunctions ----------------------------------------------------------------


def _record_connective(store: Store, node: Expr) -> None:
    if node.op == "and":
        for arg in node.args:
            _record(store, arg)
        return
    arms = [a for a in node.args if decide(store, a) is not False]
    if not arms:
        raise Impossible(f"`{node}` contradicts what is known")
    if len(arms) == 1:
        _record(store, arms[0])
        return
    disjunction = or_(*arms)
    if disjunction.op != "or":
        _record(store, disjunction)
        return
    store.put(store.literals, disjunction, True)
    _record_hull(store, disjunction)


def _record_hull(store: Store, disjunction: Expr) -> None:
    """What all possible arms say of the range of a symbol holds."""
    if len(disjunction.args) > MAX_ARMS:
        return
    worlds = possible_arms(store, disjunction)
    if not worlds:
        raise Impossible(f"`{disjunction}` contradicts what is known")
    changed: list[Expr] = []
    for symbol in sorted(disjunction.free_symbols, key=order_key):
        if symbol.sort == "int" and symbol not in store.values:
            hull = range_of(worlds[0], symbol)
            for world in worlds[1:]:
                hull = hull.union(range_of(world, symbol))
            narrow(store, symbol, hull, changed)
    propagate(store, changed)


def possible_arms(store: Store, disjunction: Expr) -> tuple[Store, ...]:
    """A store for each arm that can hold, with the facts and the arm; kept until facts change."""
    worlds = store.arms.get(disjunction)
    if worlds is None:
        worlds = store.arms[disjunction] = tuple(_worlds(store, disjunction.args, disjunction))
    return worlds


def both_ways(store: Store, test: Expr) -> tuple[Store, ...]:
    """The same for the two arms of ``test or not test``."""
    worlds = store.arms.get(test)
    if worlds is None:
        worlds = store.arms[test] = tuple(_worlds(store, (test, not_(test)), None))
    return worlds


def _worlds(store: Store, arms: Iterable[Expr], disjunction: Expr | None) -> Iterator[Store]:
    for arm in arms:
        if decide(store, arm) is False:
            continue
        world = store.copy()
        if disjunction in world.literals:
            world.drop(world.literals, disjunction)
        try:
            assume(world, arm)
        except Impossible:
            continue
        yield world


def _review_splits(store: Store) -> None:
    """Drop the arms of disjunctions that have become impossible; a last one is a fact."""
    for _ in range(_ROUNDS):
        generation = store.generation
        for disjunction in list(store.splits):
            answers = [decide(store, arm) for arm in disjunction.args]
            if all(a is None for a in answers):
                continue
            store.drop(store.literals, disjunction)
            if True not in answers:
                pairs = zip(disjunction.args, answers, strict=True)
                _record(store, or_(*[arm for arm, a in pairs if a is None]))
        if store.generation == generation:
            return


# -- integers -------------------------------------------------------------------------------------


def _record_at_most_zero(store: Store, d: Expr) -> None:
    terms, constant = linear(d)
    if len(terms) != 1:
        opposite = scaled_sum(((-1, d),))
        if d in store.nonzero or opposite in store.nonzero:  # d <= 0 and d != 0
            _record(store, at_most_zero(scaled_sum(((1, d),), 1)))
            return
        store.put(store.inequalities, d)
        if opposite in store.inequalities:
            _record_zero(store, d)
        else:
            propagate(store, d.free_symbols)
        return
    ((mono, c),) = terms.items()
    if mono.op == ("max" if c > 0 else "min"):  # max(x, y) <= k: both are
        for arg in mono.args:
            _record(store, at_most_zero(scaled_sum(((c, arg),), constant)))
        return
    _narrow_and_propagate(store, mono, solved(c, constant))


def _narrow_and_propagate(store: Store, mono: Expr, bounds: Range) -> None:
    changed: list[Expr] = []
    narrow(store, mono, bounds, changed)
    propagate(store, changed)


def _record_nonzero(store: Store, d: Expr) -> None:
    store.put(store.nonzero, d)
    terms, constant = linear(d)
    if len(terms) == 1 and constant == 0:
        (mono,) = terms
        if mono.op == "mul":  # a product that is not zero has no factor that is
            for atom in dict.fromkeys(mono.args):
                _record(store, differs_from_zero(atom))
    for bounded in (d, scaled_sum(((-1, d),))):
        if bounded in store.inequalities:  # d <= 0 and d != 0
            store.drop(store.inequalities, bounded)
            _record(store, at_most_zero(scaled_sum(((1, bounded),), 1)))
    propagate(store, d.free_symbols)


def _record_zero(store: Store, d: Expr) -> None:
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
        _record_number(store, mono, -constant // c)
    else:
        for sign in (1, -1):
            store.put(store.inequalities, scaled_sum(((sign, d),)))
        _congruence_of_equation(store, d)
    rewrite_statements(store, d.free_symbols)


def _record_number(store: Store, mono: Expr, number: int) -> None:
    """``mono == number``, for anything but a symbol."""
    if mono.op in ("floordiv", "mod") and mono.args[1].is_constant:
        x, n = mono.args[0], mono.args[1].value
        if mono.op == "mod":
            _record_congruence(store, x, n, number)
        else:
            _record(store, le(number * n, x))
            _record(store, le(x, number * n + n - 1))
        return
    if mono.op == "mul" and number == 0:  # one of the factors is 0
        _record(store, or_(*[equals_zero(atom) for atom in mono.args]))
    narrow(store, mono, Range(number, number), [])


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
    congruence = store.congruences.get(symbol)
    if congruence is not None:
        store.drop(store.congruences, symbol)
    store.put(store.values, symbol, value)
    _record_bounds(store, value, bounds)
    if congruence is not None:
        _record_congruence(store, value, *congruence)
    rewrite_statements(store, (symbol, *value.free_symbols))


def _record_bounds(store: Store, value: Expr, bounds: Range) -> None:
    if bounds.lower != -INF:
        _record(store, le(int(bounds.lower), value))
    if bounds.upper != INF:
        _record(store, le(value, int(bounds.upper)))


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
    simple = simplify(store, node)
    whole = primitive_form(simple)
    if whole is None:
        if simple.value % modulus != r:
            raise Impossible(f"`{node}` is not {r} modulo {modulus}")
        return
    form, k, constant = whole  # k*form = r - constant (mod modulus)
    target = (r - constant) % modulus
    g = gcd(k, modulus)
    if target % g:
        raise Impossible(f"`{node}` is not {r} modulo {modulus}")
    modulus //= g
    if modulus == 1:
        return
    r = target // g * pow(k // g, -1, modulus) % modulus
    old_modulus, old_r = store.congruences.get(form, (1, 0))
    g = gcd(modulus, old_modulus)
    if (r - old_r) % g:
        raise Impossible(f"`{form}` is not {r} modulo {modulus}")
    step = (r - old_r) // g * pow(old_modulus // g, -1, modulus // g) if modulus > g else 0
    both = lcm(modulus, old_modulus)
    store.put(store.congruences, form, (both, (old_r + old_modulus * step) % both))


_INTEGER: dict[str, Callable[[Store, Expr], None]] = {
    "eq": _record_zero,
    "ne": _record_nonzero,
    "le": _record_at_most_zero,
    "lt": _record_at_most_zero,
}


# -- the simplest form again ----------------------------------------------------------------------


def rewrite_statements(store: Store, symbols: Iterable[Expr]) -> None:
    """Simplify the statements about ``symbols`` again, by what is known now.

    Raises:
        Impossible: they exclude each other.
    """
    keys = list(store.about(symbols))
    for key in keys:
        if key in store.values:
            _rewrite_value(store, key)
    for key in keys:
        if key in store.inequalities:
            store.drop(store.inequalities, key)
            _readd(store, store.inequalities, at_most_zero(simplify(store, key)))
        if key in store.nonzero:
            store.drop(store.nonzero, key)
            _readd(store, store.nonzero, differs_from_zero(simplify(store, key)))
        if key in store.congruences and any(s in store.values for s in key.free_symbols):
            congruence = store.congruences[key]
            store.drop(store.congruences, key)
            _record_congruence(store, key, *congruence)
        if key in store.ranges and key.op != "symbol":
            simple = simplify(store, key)
            if simple is not key:
                _record_bounds(store, simple, store.ranges[key])
    propagate(store, symbols)


def _rewrite_value(store: Store, symbol: Expr) -> None:
    value = store.values[symbol]
    simple = simplify(store, value)
    if simple is not value:
        store.put(store.values, symbol, simple)


def _readd(store: Store, table: dict[Expr, None], test: Expr) -> None:
    if test.is_constant:
        if not test.value:
            raise Impossible("the facts exclude each other")
    elif test.diff is not None:
        store.put(table, test.diff)
