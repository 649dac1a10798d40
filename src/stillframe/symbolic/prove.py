"""The proof search behind ``decide``: is ``d <= 0`` certain?

Every step is an implication, tried in order of cost, all of them under one budget:

1. the range of ``d``;
2. a common factor of known sign is divided out;
3. ``max``, ``min`` and ``ite`` are replaced by their arguments: if ``k * max(x, y) + r <= 0`` is to
   be shown for ``k > 0``, both arguments must do (the maximum is one of them); for ``k < 0`` one
   that does is enough (the maximum is no smaller);
4. a recorded ``f <= 0`` is added: ``d <= 0`` follows from ``a*d - b*f <= 0`` with ``a, b > 0``,
   where ``a`` and ``b`` cancel a term (one elimination step of Fourier and Motzkin);
5. ``k * (x // n)`` lies between ``x - n + 1`` and ``x`` (times ``k / n``), ``x % n`` is
   ``x - n * (x // n)``, and ``x % y <= y - 1`` for a symbolic ``y >= 1``.

False means "not shown", never "refuted".
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from stillframe.symbolic.arith import Terms, factors, from_linear, linear, monomial, scaled_sum
from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.expr import ONE, Expr
from stillframe.symbolic.store import Store

STEPS = 24
DEPTH = 4


class Budget:
    """How many more steps a search may take, and what it has tried."""

    __slots__ = ("left", "seen")

    def __init__(self, left: int = STEPS) -> None:
        self.left = left
        self.seen: set[Expr] = set()

    def take(self, node: Expr) -> bool:
        """Whether ``node`` is new and there is budget for it; takes a step if so."""
        if self.left <= 0 or node in self.seen:
            return False
        self.left -= 1
        self.seen.add(node)
        return True


def nonpositive(store: Store, d: Expr, budget: Budget | None = None, depth: int = DEPTH) -> bool:
    """Whether the facts show ``d <= 0``."""
    bounds = range_of(store, d)
    if bounds.upper <= 0:
        return True
    if bounds.lower > 0 or depth == 0:
        return False
    terms, constant = linear(d)
    if not any(_can_step(store, mono) for mono in terms):
        return False
    budget = budget or Budget()
    if not budget.take(d):
        return False
    for step in (_factored, _cases, _with_facts, _without_division):
        if step(store, d, terms, constant, budget, depth - 1):
            return True
    return False


def _can_step(store: Store, mono: Expr) -> bool:
    return mono.op != "symbol" or mono in store.terms


# -- 2. common factors ----------------------------------------------------------------------------


def common_factor(d: Expr) -> tuple[Expr, Expr] | None:
    """``(g, r)`` with ``d = g * r`` and ``g`` the greatest common monomial, or None."""
    terms, constant = linear(d)
    if constant or not terms:
        return None
    shared: list[Expr] | None = None
    for mono in terms:
        atoms = list(factors(mono))
        if shared is None:
            shared = atoms
            continue
        kept = []
        for atom in shared:
            if atom in atoms:
                atoms.remove(atom)
                kept.append(atom)
        shared = kept
        if not shared:
            return None
    if not shared:
        return None
    rest: Terms = {}
    one = 0
    for mono, c in terms.items():
        left = divide_out(mono, shared)
        if left is None:
            return None
        if left is ONE:
            one += c
        else:
            rest[left] = c
    return monomial(shared), from_linear(rest, one)


def divide_out(mono: Expr, atoms: list[Expr] | tuple[Expr, ...]) -> Expr | None:
    """The monomial without ``atoms``; None if they do not divide it."""
    left = list(factors(mono))
    for atom in atoms:
        if atom not in left:
            return None
        left.remove(atom)
    return monomial(left) if left else ONE


def _factored(
    store: Store, d: Expr, terms: Terms, constant: int, budget: Budget, depth: int
) -> bool:
    split = common_factor(d)
    if split is None or split[1].is_constant:
        return False
    g, rest = split
    sign = range_of(store, g)
    if sign.lower >= 0:
        return nonpositive(store, rest, budget, depth)
    if sign.upper <= 0:
        return nonpositive(store, scaled_sum(((-1, rest),)), budget, depth)
    return False


# -- 3. cases -------------------------------------------------------------------------------------


def _cases(store: Store, d: Expr, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    for mono, c in terms.items():
        if mono.op not in ("max", "min", "ite"):
            continue
        choices = mono.args[1:] if mono.op == "ite" else mono.args
        variants = (scaled_sum(((1, d), (-c, mono), (c, choice))) for choice in choices)
        shown = (nonpositive(store, v, budget, depth) for v in variants)
        one_is_enough = (mono.op == "max" and c < 0) or (mono.op == "min" and c > 0)
        return any(shown) if one_is_enough else all(shown)
    return False


# -- 4. recorded inequalities ---------------------------------------------------------------------


def _with_facts(
    store: Store, d: Expr, terms: Terms, constant: int, budget: Budget, depth: int
) -> bool:
    candidates = list(_combinations(store, d, terms))
    if any(range_of(store, c).upper <= 0 for c in candidates):
        return True
    candidates.sort(key=lambda c: len(linear(c)[0]))
    return any(nonpositive(store, c, budget, depth) for c in candidates)


def _combinations(store: Store, d: Expr, terms: Terms) -> Iterator[Expr]:
    for mono, c in terms.items():
        for fact in store.terms.get(mono, ()):
            f = linear(fact)[0][mono]
            if c * f > 0:
                g = math.gcd(c, f)
                yield scaled_sum(((abs(f) // g, d), (-abs(c) // g, fact)))


# -- 5. divisions ---------------------------------------------------------------------------------


def _without_division(
    store: Store, d: Expr, terms: Terms, constant: int, budget: Budget, depth: int
) -> bool:
    for mono, c in terms.items():
        if mono.op not in ("floordiv", "mod"):
            continue
        x, divisor = mono.args
        if divisor.is_constant:
            relaxed = [_relaxed(d, mono, c, x, divisor.value)]
        else:
            relaxed = _relaxed_symbolic(store, d, mono, c)
        if any(nonpositive(store, r, budget, depth) for r in relaxed):
            return True
    return False


def _relaxed_symbolic(store: Store, d: Expr, mono: Expr, c: int) -> list[Expr]:
    """No smaller than ``d``, without ``x // y`` or ``x % y``, for ``y >= 1`` and ``c > 0``."""
    x, y = mono.args
    found: list[Expr] = []
    if c < 0 or range_of(store, y).lower < 1:
        return found
    if mono.op == "mod":  # x % y <= y - 1
        found.append(scaled_sum(((1, d), (-c, mono), (c, y)), -c))
    if range_of(store, x).lower >= 0:  # x // y <= x and x % y <= x
        found.append(scaled_sum(((1, d), (-c, mono), (c, x))))
    return found


def _relaxed(d: Expr, mono: Expr, c: int, x: Expr, n: int) -> Expr:
    """Something no smaller than ``d`` (times ``n``) without the division ``mono``."""
    if mono.op == "mod":
        from stillframe.symbolic.operators import floordiv

        return scaled_sum(((1, d), (-c, mono), (c, x), (-c * n, floordiv(x, n))))
    # n*c*(x//n) <= c*x for c > 0, and <= c*(x - n + 1) for c < 0
    slack = 0 if c > 0 else c * (1 - n)
    return scaled_sum(((n, d), (-n * c, mono), (c, x)), slack)
