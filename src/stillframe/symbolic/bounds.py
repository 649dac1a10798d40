"""The range of an expression under the facts.

Integers go through the interval images of ``interval.py``. A sum with products gets a second try
that interval arithmetic alone misses: each atom with a finite lower bound ``l`` is written as
``l + x`` with ``x >= 0``; in ``s*t - s`` with ``t >= 1`` this gives ``s*x``, which is not negative.

Floats: IEEE rounding is monotone, so for sums, products, quotients and square roots the rounded
results at the corners bound all results. No range (None) means "unknown, or it may be NaN".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from stillframe.symbolic import interval
from stillframe.symbolic.arith import factors, linear
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.interval import FULL, INF, Bound, Range
from stillframe.symbolic.store import Store

FloatRange = tuple[float, float]

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
        return _sum(store, node)
    if op == "mul":
        return _product(store, node)
    image = interval.IMAGES.get(op)
    if image is not None:
        return image(*[range_of(store, a) for a in node.args])
    if op == "ite":
        return range_of(store, node.args[1]).union(range_of(store, node.args[2]))
    rounding = _ROUNDINGS.get(op)
    if rounding is not None:
        return _rounded(store, node.args[0], rounding)
    return FULL


def _sum(store: Store, node: Expr) -> Range:
    total = Range(0, 0)
    for arg in node.args:
        total = interval.add(total, range_of(store, arg))
    return meet(total, shifted_range(store, node)) if has_shared_atom(node) else total


def has_shared_atom(node: Expr) -> bool:
    """Whether an atom occurs in several monomials: only then do their ranges depend."""
    if all(arg.op != "mul" for arg in node.args):
        return False
    seen: set[Expr] = set()
    for mono in linear(node)[0]:
        atoms = set(factors(mono))
        if not seen.isdisjoint(atoms):
            return True
        seen |= atoms
    return False


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


# -- sums of products, from their lower bounds up -------------------------------------------------


def shifted_range(store: Store, node: Expr) -> Range | None:
    """The range of a sum after writing its atoms as ``lower + x``; None if it is too large."""
    terms, constant = linear(node)
    poly: dict[tuple[Expr, ...], int] = {(): constant}
    shifts: dict[Expr, Bound] = {}
    for mono, coefficient in terms.items():
        atoms = factors(mono)
        if len(atoms) > _MAX_DEGREE:
            return None
        choices = []
        for atom in atoms:
            if atom not in shifts:
                shifts[atom] = range_of(store, atom).lower
            lower = shifts[atom]
            choices.append(((atom, 1),) if lower in (0, -INF) else ((atom, 1), (None, int(lower))))
        for choice in product(*choices):
            key = tuple(a for a, _ in choice if a is not None)
            weight = coefficient * math.prod(k for _, k in choice)
            poly[key] = poly.get(key, 0) + weight
        if len(poly) > _MAX_MONOMIALS:
            return None
    total = Range(0, 0)
    for key, coefficient in poly.items():
        if coefficient:
            total = interval.add(total, interval.scale(_shifted_product(store, key), coefficient))
    return total


def _shifted_product(store: Store, atoms: tuple[Expr, ...]) -> Range:
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


# -- floats ---------------------------------------------------------------------------------------

_ROUNDINGS: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
}


def _rounded(store: Store, node: Expr, rounding: Callable[[float], int]) -> Range:
    bounds = float_range(store, node)
    if bounds is None:
        return FULL
    low, high = bounds
    return Range(
        low if abs(low) == INF else rounding(low), high if abs(high) == INF else rounding(high)
    )


def float_range(store: Store, node: Expr) -> FloatRange | None:
    """Bounds of a float ``node`` that is certainly not NaN, or None."""
    if node.sort == "int":
        bounds = range_of(store, node)
        return _outward(bounds.lower, -INF), _outward(bounds.upper, INF)
    if node.is_constant:
        return None if node.value != node.value else (node.value, node.value)
    if node.op == "float":
        return float_range(store, node.args[0])
    if node.op == "call" and node.args[0] == "sqrt":
        inner = float_range(store, node.args[1])
        return None if inner is None or inner[0] < 0 else (math.sqrt(inner[0]), math.sqrt(inner[1]))
    rule = _FLOAT_IMAGES.get(node.op)
    if rule is None:
        return None
    operands = [float_range(store, a) for a in node.args[-2:]]
    if operands[0] is None or operands[1] is None:
        return None
    return rule(operands[0], operands[1])


def _outward(bound: Bound, direction: float) -> float:
    """An integer bound as a float that is no tighter."""
    if abs(bound) <= 2**53:
        return float(bound)
    try:
        return math.nextafter(float(bound), direction)
    except OverflowError:
        return INF if bound > 0 else -INF


def _corners(function: Callable[[float, float], float]) -> Callable[..., FloatRange | None]:
    def image(a: FloatRange, b: FloatRange) -> FloatRange | None:
        try:
            results = [function(x, y) for x in a for y in b]
        except ZeroDivisionError:
            return None
        if any(r != r for r in results):
            return None
        return min(results), max(results)

    return image


def _quotient(a: FloatRange, b: FloatRange) -> FloatRange | None:
    if b[0] <= 0 <= b[1]:
        return None
    return _corners(lambda x, y: x / y)(a, b)


_FLOAT_IMAGES: dict[str, Callable[[FloatRange, FloatRange], FloatRange | None]] = {
    "add": _corners(lambda x, y: x + y),
    "mul": _corners(lambda x, y: x * y),
    "truediv": _quotient,
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "ite": lambda a, b: (min(a[0], b[0]), max(a[1], b[1])),
}
