"""The range of an integer expression under the facts.

Operators go through the interval images of ``interval.py``. A sum with products gets a second try
that interval arithmetic alone misses: each atom with a finite lower bound ``l`` is written as
``l + x`` with ``x >= 0``; in ``s*t - s`` with ``t >= 1`` this gives ``s*x``, which is not negative.
"""

from __future__ import annotations

from stillframe.symbolic import interval
from stillframe.symbolic.arith import Terms, factors, linear
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.floats import ROUNDINGS
from stillframe.symbolic.interval import FULL, INF, Bound, Range
from stillframe.symbolic.store import Store

_MAX_DEGREE = 5
_MAX_MONOMIALS = 64


def meet(a: Range, b: Range | None) -> Range:
    """The common part. Disjoint ranges mean contradictory facts, under which any answer holds."""
    if b is None or (a.lower >= b.lower and a.upper <= b.upper):
        return a
    if a.lower > b.upper or b.lower > a.upper:
        return a
    return a.intersect(b)


def range_of(store: Store, node: Expr) -> Range:
    """A range that holds the value of the integer ``node``."""
    found = store.known_ranges.get(node)
    if found is None:
        if node.is_constant:
            found = Range(node.value, node.value)
        else:
            found = meet(_compute(store, node), store.ranges.get(node))
        store.remember_range(node, found)
    return found


def _compute(store: Store, node: Expr) -> Range:
    op = node.op
    if op == "symbol":
        value = store.values.get(node)
        return FULL if value is None else range_of(store, value)
    if op == "add":
        return interval.of_bounds(*view_bounds(store, *linear(node)))
    if op == "mul":
        return _product(store, node)
    if op in ("max", "min"):
        return _extremum(store, node)
    image = interval.IMAGES.get(op)
    if image is not None:
        return image(*[range_of(store, a) for a in node.args])
    if op == "ite":
        return range_of(store, node.args[1]).union(range_of(store, node.args[2]))
    if op in ROUNDINGS:
        from stillframe.symbolic.float_bounds import rounded

        return rounded(store, node.args[0], ROUNDINGS[op])
    return FULL


def _product(store: Store, node: Expr) -> Range:
    first = node.args[0]
    if first.is_constant:
        ((mono, coefficient),) = linear(node)[0].items()
        return interval.scale(range_of(store, mono), coefficient)
    counts: dict[Expr, int] = {}
    for atom in node.args:
        counts[atom] = counts.get(atom, 0) + 1
    total = Range(1, 1)
    for atom, n in counts.items():
        inner = range_of(store, atom)
        total = interval.mul(total, interval.power(inner, Range(n, n)) if n > 1 else inner)
    return total


def _extremum(store: Store, node: Expr) -> Range:
    """The image; and ``2 * max(x, y) >= x + y``, which bounds ``max(x, -x)`` by 0."""
    bounds: Range = interval.IMAGES[node.op](*[range_of(store, a) for a in node.args])
    if len(node.args) != 2:
        return bounds
    (left, a), (right, b) = map(linear, node.args)
    if left.keys().isdisjoint(right):
        return bounds
    both = {m: left.get(m, 0) + right.get(m, 0) for m in (*left, *right)}
    low, high = view_bounds(store, {m: c for m, c in both.items() if c}, a + b)
    if node.op == "max":
        return bounds if low == -INF else meet(bounds, Range(-(-low // 2), INF))
    return bounds if high == INF else meet(bounds, Range(-INF, high // 2))


# -- linear views ---------------------------------------------------------------------------------


def view_bounds(store: Store, terms: Terms, constant: int) -> tuple[Bound, Bound]:
    """Bounds of the linear view ``(terms, constant)``; it need not be a node."""
    low: Bound = constant
    high: Bound = constant
    known = store.known_ranges
    products = False
    for mono, c in terms.items():
        bounds = known.get(mono)
        if bounds is None:
            bounds = range_of(store, mono)
        least, most = (bounds.lower, bounds.upper) if c > 0 else (bounds.upper, bounds.lower)
        low = -INF if low == -INF or abs(least) == INF else low + c * least
        high = INF if high == INF or abs(most) == INF else high + c * most
        products = products or mono.op == "mul"
    if products and has_shared_atom(terms):
        shifted = _shifted_bounds(store, terms, constant)
        if shifted is not None and shifted[0] <= high and low <= shifted[1]:
            return max(low, shifted[0]), min(high, shifted[1])
    return low, high


def has_shared_atom(terms: Terms) -> bool:
    """Whether an atom occurs in several monomials: only then do their ranges depend."""
    seen: set[Expr] = set()
    for mono in terms:
        atoms = set(factors(mono))
        if not seen.isdisjoint(atoms):
            return True
        seen |= atoms
    return False


def _shifted_bounds(store: Store, terms: Terms, constant: int) -> tuple[Bound, Bound] | None:
    """Bounds after writing atoms as ``lower + x``; None if that grows too large."""
    lowers: dict[Expr, Bound] = {}
    poly: dict[tuple[Expr, ...], int] = {(): constant}
    for mono, coefficient in terms.items():
        atoms = factors(mono)
        if len(atoms) > _MAX_DEGREE:
            return None
        for atom in atoms:
            if atom not in lowers:
                lowers[atom] = range_of(store, atom).lower
        for key, weight in _multiplied_out(atoms, lowers, coefficient):
            poly[key] = poly.get(key, 0) + weight
        if len(poly) > _MAX_MONOMIALS:
            return None
    low: Bound = poly.pop(())
    high = low
    bounded_below = -INF not in lowers.values()
    for key, c in poly.items():
        if not c:
            continue
        if bounded_below:
            reach = _reach(store, key)
            if reach != INF:
                reach *= abs(c)
            least, most = (0, reach) if c > 0 else (-reach, 0)
        else:
            least, most = interval.scale(_free_product(store, key), c)
        low = -INF if low == -INF or least == -INF else low + least
        high = INF if high == INF or most == INF else high + most
        if low == -INF and high == INF:
            break
    return low, high


def _multiplied_out(
    atoms: tuple[Expr, ...], lowers: dict[Expr, Bound], coefficient: int
) -> list[tuple[tuple[Expr, ...], int]]:
    """The product of ``(lower + x)`` over ``atoms``, as terms; ``x`` is shown as its atom."""
    found: list[tuple[tuple[Expr, ...], int]] = [((), coefficient)]
    for atom in atoms:
        lower = lowers[atom]
        longer = [((*key, atom), weight) for key, weight in found]
        if lower and lower != -INF:
            longer += [(key, weight * int(lower)) for key, weight in found]
        found = longer
    return found


def _reach(store: Store, atoms: tuple[Expr, ...]) -> Bound:
    """How far a product of atoms less their lower bounds can go up from 0."""
    reach: Bound = 1
    for atom in atoms:
        bounds = range_of(store, atom)
        if bounds.lower == bounds.upper:
            return 0
        if bounds.upper == INF:
            reach = INF
        elif reach != INF:
            reach *= bounds.upper - bounds.lower
    return reach


def _free_product(store: Store, atoms: tuple[Expr, ...]) -> Range:
    counts: dict[Expr, int] = {}
    for atom in atoms:
        counts[atom] = counts.get(atom, 0) + 1
    total = Range(1, 1)
    for atom, n in counts.items():
        inner = range_of(store, atom)
        if inner.lower != -INF:
            inner = interval.add(inner, Range(-inner.lower, -inner.lower))
        total = interval.mul(total, interval.power(inner, Range(n, n)))
    return total
