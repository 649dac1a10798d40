"""Narrowing ranges by what else is known: inequalities, products, exclusions, congruences.

A change of a range is followed to the statements that mention its symbols, and from there on, for
a bounded number of steps: two inequalities can push each other up forever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from stillframe.symbolic import interval
from stillframe.symbolic.arith import factors, linear, scaled_sum
from stillframe.symbolic.bounds import has_shared_atom, meet, range_of
from stillframe.symbolic.compare import at_most_zero, differs_from_zero
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import FULL, INF, Bound, Range
from stillframe.symbolic.store import Store

_STEPS = 64
_STEPS_PER_STATEMENT = 4
_MAX_DEPENDENT_TERMS = 8


class Impossible(Exception):
    """The statements exclude each other; the text says which."""


def propagate(store: Store, symbols: Iterable[Expr]) -> None:
    """Follow a change of the statements about ``symbols``.

    Raises:
        Impossible: no value is left for something.
    """
    queue = dict.fromkeys(store.about(symbols))
    steps = _STEPS + _STEPS_PER_STATEMENT * len(queue)
    while queue and steps > 0:
        steps -= 1
        key = next(iter(queue))
        del queue[key]
        changed = _use(store, key)
        if changed:
            queue.update(dict.fromkeys(store.about(changed)))
            if key in store.inequalities:  # has said all that it can
                queue.pop(key, None)


def _use(store: Store, key: Expr) -> list[Expr]:
    """Narrow by the statements about ``key``; the symbols whose ranges are new."""
    changed: list[Expr] = []
    if key in store.inequalities:
        _narrow_terms(store, key, changed)
    if key.op == "mul" and key in store.ranges:
        _narrow_factors(store, key, store.ranges[key], changed)
    if key.op in ("max", "min") and key in store.ranges:
        _narrow_choice(store, key, store.ranges[key], changed)
    if key in store.nonzero:
        _narrow_ends(store, key, changed)
    if key in store.congruences:
        _narrow_to_residue(store, key, *store.congruences[key], changed)
    return changed


def narrow(store: Store, mono: Expr, bounds: Range, changed: list[Expr]) -> None:
    """Intersect the range of a monomial; if that is news, add its symbols to ``changed``."""
    old = range_of(store, mono)
    if bounds.lower <= old.lower and bounds.upper >= old.upper:
        return
    if bounds.lower > old.upper or bounds.upper < old.lower:
        raise Impossible(f"`{mono}` would have to be both in {old} and in {bounds}")
    new = old.intersect(bounds)
    store.put(store.ranges, mono, meet(new, store.ranges.get(mono)))
    changed.extend(mono.free_symbols)
    if mono.op == "mul":
        _narrow_factors(store, mono, new, changed)


def solved(c: int, constant: Bound) -> Range:
    """The range of ``x`` in ``c * x + constant <= 0``."""
    if abs(constant) == INF:
        return FULL
    if c > 0:
        return Range(-INF, -constant // c)
    return Range(-(-constant // -c), INF)


def _narrow_terms(store: Store, d: Expr, changed: list[Expr]) -> None:
    """In ``c*x + rest <= 0``, ``c*x`` is at most the negative of the least ``rest``."""
    terms, constant = linear(d)
    if len(terms) <= _MAX_DEPENDENT_TERMS and has_shared_atom(terms):
        for mono, c in terms.items():
            rest = range_of(store, scaled_sum(((1, d), (-c, mono)))).lower
            narrow(store, mono, solved(c, rest), changed)
        if range_of(store, d).lower > 0:
            raise Impossible(f"`{at_most_zero(d)}` cannot hold any more")
        return
    lows = {mono: interval.scale(range_of(store, mono), c).lower for mono, c in terms.items()}
    free = [mono for mono, low in lows.items() if low == -INF]
    if len(free) > 1:
        return
    total: Bound = constant + sum(low for low in lows.values() if low != -INF)
    if not free and total > 0:
        raise Impossible(f"`{at_most_zero(d)}` cannot hold any more")
    for mono in free or terms:
        rest = total if free else total - lows[mono]
        narrow(store, mono, solved(terms[mono], rest), changed)


def _narrow_ends(store: Store, d: Expr, changed: list[Expr]) -> None:
    """``x != k`` moves an end of the range of ``x`` that is ``k``."""
    terms, constant = linear(d)
    if len(terms) != 1:
        return
    ((mono, c),) = terms.items()
    if constant % c:
        return
    k = -constant // c
    bounds = range_of(store, mono)
    if bounds.is_single and bounds.lower == k:
        raise Impossible(f"`{differs_from_zero(d)}` cannot hold any more")
    if bounds.lower == k:
        narrow(store, mono, Range(k + 1, INF), changed)
    elif bounds.upper == k:
        narrow(store, mono, Range(-INF, k - 1), changed)


def _narrow_to_residue(store: Store, form: Expr, modulus: int, r: int, changed: list[Expr]) -> None:
    """The ends of the range of ``x`` move to numbers that are ``r`` modulo ``modulus``."""
    if form.op == "add":
        return
    bounds = range_of(store, form)
    low: Bound = bounds.lower
    high: Bound = bounds.upper
    if low != -INF:
        low = low + (r - low) % modulus
    if high != INF:
        high = high - (high - r) % modulus
    if low > high:
        raise Impossible(f"`{form}` cannot be {r} modulo {modulus} in {bounds}")
    narrow(store, form, Range(low, high), changed)


def _narrow_factors(store: Store, mono: Expr, bounds: Range, changed: list[Expr]) -> None:
    """A product of non-negative factors within ``bounds`` bounds each factor."""
    atoms = factors(mono)
    lows = [range_of(store, a).lower for a in atoms]
    if any(low < 0 for low in lows):
        return
    if bounds.lower >= 1:
        for atom in dict.fromkeys(atoms):
            narrow(store, atom, Range(1, INF), changed)
    if bounds.upper == INF:
        return
    for atom in dict.fromkeys(atoms):
        others = math.prod(
            int(low) for other, low in zip(atoms, lows, strict=True) if other is not atom
        )
        if others >= 1:
            most = _root(int(bounds.upper) // others, atoms.count(atom))
            narrow(store, atom, Range(-INF, most), changed)


def _root(number: int, n: int) -> int:
    """The largest ``x >= 0`` with ``x ** n <= number``, or -1."""
    if n == 1 or number <= 1:
        return max(number, -1)
    low, high = 1, 1 << (number.bit_length() // n + 1)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**n <= number else (low, middle)
    return low


def _narrow_choice(store: Store, mono: Expr, bounds: Range, changed: list[Expr]) -> None:
    """Arguments of ``max`` are at most its upper bound; one that must reach the lower one does.

    Likewise for ``min``. Arguments of several terms are left alone.
    """
    sign = 1 if mono.op == "max" else -1
    limit = sign * (bounds.upper if sign > 0 else bounds.lower)
    reach = sign * (bounds.lower if sign > 0 else bounds.upper)
    candidates = []
    for arg in mono.args:
        terms, constant = linear(arg)
        signed = interval.scale(range_of(store, arg), sign)
        if signed.upper >= reach:
            candidates.append(arg)
        if len(terms) == 1 and limit != INF:  # sign * (c*x + constant) <= limit
            ((x, c),) = terms.items()
            narrow(store, x, solved(sign * c, sign * constant - limit), changed)
    if len(candidates) == 1 and reach != -INF:
        terms, constant = linear(candidates[0])
        if len(terms) == 1:  # reach <= sign * (c*x + constant)
            ((x, c),) = terms.items()
            narrow(store, x, solved(-sign * c, reach - sign * constant), changed)
