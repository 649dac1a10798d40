"""The proof search behind ``decide``: is ``d <= 0`` certain?

The search works on linear views (``arith.py``), not on nodes: most sums that it looks at are seen
once. Every step is an implication, tried in order of cost, all of them under one budget:

1. the bounds of ``d``;
2. a common factor of known sign is divided out; where a factor ``x >= 0`` can be 0, the rest is
   only wanted for ``x >= 1``, and ``x + 1`` takes its place in the bounds (``s <= s*s``);
3. ``max``, ``min`` and ``ite`` are replaced by their arguments: if ``k * max(x, y) + r <= 0`` is to
   be shown for ``k > 0``, both arguments must do (the maximum is one of them); for ``k < 0`` one
   that does is enough (the maximum is no smaller);
4. a recorded ``f <= 0`` is added: ``d <= 0`` follows from ``a*d - b*f <= 0`` with ``a, b > 0``,
   where ``a`` and ``b`` cancel a term (one elimination step of Fourier and Motzkin);
5. ``n * (x // n)`` lies between ``x - n + 1`` and ``x`` (or is ``x - x % n``), ``x % n`` is
   ``x - n * (x // n)``; for a symbolic ``y >= 1``, ``x % y <= y - 1`` and ``x // y <= k`` says that
   ``x < (k + 1) * y``.

Where a step multiplies ``d`` by ``a``, ``a*d <= a - 1`` is enough, as ``d`` is an integer.

Steps 3 and 5 put something in the place of a term that has the same bounds, so they are only tried
where it can meet the symbols of another term or of a recorded inequality.

False means "not shown", never "refuted".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from stillframe.symbolic.arith import (
    Terms,
    factors,
    floordiv_int,
    from_linear,
    linear,
    monomial,
    mul_int,
)
from stillframe.symbolic.bounds import range_of, view_bounds
from stillframe.symbolic.expr import ONE, Expr, const
from stillframe.symbolic.residues import residue
from stillframe.symbolic.store import Store

STEPS = 24
DEPTH = 4

View = tuple[Terms, int]


class Budget:
    """How many more steps a search may take, and what it has tried."""

    __slots__ = ("left", "seen")

    def __init__(self, left: int = STEPS) -> None:
        self.left = left
        self.seen: set[tuple[int, frozenset[tuple[Expr, int]]]] = set()

    def take(self, terms: Terms, constant: int) -> bool:
        """Whether the view is new and there is budget for it; takes a step if so."""
        if self.left <= 0:
            return False
        key = (constant, frozenset(terms.items()))
        if key in self.seen:
            return False
        self.left -= 1
        self.seen.add(key)
        return True


def combined(parts: Iterable[tuple[int, Expr]], constant: int = 0) -> View:
    """``sum(k * e for k, e in parts) + constant`` as a view."""
    total: Terms = {}
    for k, node in parts:
        terms, extra = linear(node)
        constant += k * extra
        for mono, c in terms.items():
            total[mono] = total.get(mono, 0) + k * c
    return {m: c for m, c in total.items() if c}, constant


def nonpositive(store: Store, view: View, steps: int = STEPS, depth: int = DEPTH) -> bool:
    """Whether the facts show that ``view`` is at most 0."""
    return _search(store, *view, Budget(steps), depth)


def nonpositive_by_steps(store: Store, view: View) -> bool:
    """The same for a view whose bounds are known not to tell."""
    return _steps(store, *view, Budget(), DEPTH)


def _search(store: Store, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    low, high = view_bounds(store, terms, constant)
    if high <= 0:
        return True
    return low <= 0 and _steps(store, terms, constant, budget, depth)


def _steps(store: Store, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    if depth == 0:
        return False
    for mono in terms:
        if mono.op != "symbol" or mono in store.terms:
            break
    else:
        return False
    if not budget.take(terms, constant):
        return False
    for step in (_factored, _cases, _with_facts, _without_division):
        if step(store, terms, constant, budget, depth - 1):
            return True
    return False


def _replaced(view: View, mono: Expr, parts: Iterable[tuple[int, Expr]], constant: int = 0) -> View:
    """``view`` without the term of ``mono``, plus ``parts`` and ``constant``."""
    total = dict(view[0])
    del total[mono]
    constant += view[1]
    for k, node in parts:
        terms, extra = linear(node)
        constant += k * extra
        for m, c in terms.items():
            new = total.get(m, 0) + k * c
            if new:
                total[m] = new
            else:
                total.pop(m, None)
    return total, constant


def _interacts(store: Store, mono: Expr, terms: Terms) -> bool:
    """Whether what takes the place of ``mono`` can meet another term or a recorded inequality."""
    symbols = mono.free_symbols
    if not store.compared.isdisjoint(symbols):
        return True
    return any(o is not mono and not symbols.isdisjoint(o.free_symbols) for o in terms)


# -- 2. common factors ----------------------------------------------------------------------------


def common_factor(d: Expr) -> tuple[Expr, Expr] | None:
    """``(g, r)`` with ``d = g * r`` and ``g`` the greatest common monomial, or None."""
    split = _split(*linear(d))
    return None if split is None else (monomial(split[0]), from_linear(*split[1]))


def _split(terms: Terms, constant: int) -> tuple[list[Expr], View] | None:
    """The atoms that all terms share, and the rest; None if there are none."""
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
    return shared, (rest, one)


def divide_out(mono: Expr, atoms: list[Expr] | tuple[Expr, ...]) -> Expr | None:
    """The monomial without ``atoms``; None if they do not divide it."""
    left = list(factors(mono))
    for atom in atoms:
        if atom not in left:
            return None
        left.remove(atom)
    return monomial(left) if left else ONE


def _factored(store: Store, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    if len(terms) < 2:  # the bounds have said all
        return False
    split = _split(terms, constant)
    if split is None:
        return False
    atoms, (rest, one) = split
    sign = range_of(store, monomial(atoms))
    if sign.upper <= 0:
        rest, one = {m: -c for m, c in rest.items()}, -one
    elif sign.lower < 0:
        return False
    if _search(store, rest, one, budget, depth):
        return True
    for atom in dict.fromkeys(atoms):
        if range_of(store, atom).lower == 0:
            shifted = _shifted(store, rest, one, atom)
            if shifted is not None and view_bounds(store, *shifted)[1] <= 0:
                return True
    return False


def _shifted(store: Store, terms: Terms, constant: int, atom: Expr) -> View | None:
    """The view with ``atom + 1`` for ``atom``; None if it is in a power, or not in it at all.

    In the result ``atom`` stands for another number of its range, so it has no statements but its
    own range: a recorded range of a product with it rules the step out, and no search may follow.
    """
    total = dict(terms)
    found = False
    for mono, c in terms.items():
        if atom not in factors(mono):
            continue
        found = True
        left = divide_out(mono, (atom,))
        if left is None or atom in factors(left) or (left is not ONE and mono in store.ranges):
            return None
        if left is ONE:
            constant += c
        else:
            total[left] = total.get(left, 0) + c
    return ({m: c for m, c in total.items() if c}, constant) if found else None


# -- 3. cases -------------------------------------------------------------------------------------


def _cases(store: Store, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    for mono, c in terms.items():
        if mono.op not in ("max", "min", "ite") or not _interacts(store, mono, terms):
            continue
        choices = mono.args[1:] if mono.op == "ite" else mono.args
        variants = (_replaced((terms, constant), mono, ((c, choice),)) for choice in choices)
        shown = (_search(store, *v, budget, depth) for v in variants)
        one_is_enough = (mono.op == "max" and c < 0) or (mono.op == "min" and c > 0)
        return any(shown) if one_is_enough else all(shown)
    return False


# -- 4. recorded inequalities ---------------------------------------------------------------------


def _with_facts(store: Store, terms: Terms, constant: int, budget: Budget, depth: int) -> bool:
    candidates: list[View] = []
    for view in _combinations(store, terms, constant):
        low, high = view_bounds(store, *view)
        if high <= 0:
            return True
        if low <= 0:
            candidates.append(view)
    candidates.sort(key=lambda view: len(view[0]))
    return any(_steps(store, *view, budget, depth) for view in candidates)


def _combinations(store: Store, terms: Terms, constant: int) -> Iterator[View]:
    tried: set[tuple[Expr, int, int]] = set()
    for mono, c in terms.items():
        for fact in store.terms.get(mono, ()):
            fact_terms, fact_constant = linear(fact)
            f = fact_terms[mono]
            if c * f <= 0:
                continue
            g = math.gcd(c, f)
            a, b = abs(f) // g, -abs(c) // g
            if (fact, a, b) in tried:  # one step often cancels many terms
                continue
            tried.add((fact, a, b))
            total = {m: a * k for m, k in terms.items()}
            for m, k in fact_terms.items():
                total[m] = total.get(m, 0) + b * k
            left = {m: k for m, k in total.items() if k}
            yield left, a * constant + b * fact_constant - (a - 1)


# -- 5. divisions ---------------------------------------------------------------------------------


def _without_division(
    store: Store, terms: Terms, constant: int, budget: Budget, depth: int
) -> bool:
    for mono, c in terms.items():
        if mono.op not in ("floordiv", "mod") or not _interacts(store, mono, terms):
            continue
        if mono.args[1].is_constant:
            relaxed = [_relaxed(store, (terms, constant), mono, c)]
        else:
            relaxed = _relaxed_symbolic(store, (terms, constant), mono, c)
        if any(_search(store, *r, budget, depth) for r in relaxed):
            return True
    return False


def _relaxed_symbolic(store: Store, view: View, mono: Expr, c: int) -> list[View]:
    """Views that are enough for ``view``, without ``x // y`` or ``x % y``, for ``y >= 1``."""
    x, y = mono.args
    found: list[View] = []
    least = range_of(store, y).lower
    if least < 0:  # 0 is no divisor, so y >= 0 is y >= 1
        return found
    if mono.op == "floordiv" and abs(c) == 1:
        found.append(_multiplied(view, mono, c))
    if c < 0:
        return found
    if mono.op == "mod":  # x % y <= y - 1
        found.append(_replaced(view, mono, ((c, y),), -c))
    if range_of(store, x).lower >= 0:  # x % y <= x, and x // y <= x // k for 1 <= k <= y
        most = floordiv_int(x, const(int(least))) if mono.op == "floordiv" and least > 1 else x
        found.append(_replaced(view, mono, ((c, most),)))
    return found


def _multiplied(view: View, mono: Expr, c: int) -> View:
    """``x // y + r <= 0`` is ``x + (r-1)*y + 1 <= 0``; ``r - x // y <= 0`` is ``r*y - x <= 0``."""
    x, y = mono.args
    r = from_linear({m: k for m, k in view[0].items() if m is not mono}, view[1])
    if c < 0:
        return combined(((1, mul_int(r, y)), (-1, x)))
    return combined(((1, x), (1, mul_int(r, y)), (-1, y)), 1)


def _relaxed(store: Store, view: View, mono: Expr, c: int) -> View:
    """Something no smaller than ``view`` (times ``n``) without the division ``mono``."""
    x, divisor = mono.args
    n = divisor.value
    if mono.op == "mod":
        return _replaced(view, mono, ((c, x), (-c * n, floordiv_int(x, divisor))))
    # n*(x//n) is x - x%n: at most x, at least x - n + 1, and exactly known with the remainder
    r = residue(store, x, n)
    slack = -c * r if r is not None else 0 if c > 0 else c * (1 - n)
    slack -= n - 1
    scaled = {m: n * k for m, k in view[0].items()}
    return _replaced((scaled, n * view[1]), mono, ((c, x),), slack)
