"""Rewriting under facts: what ``Facts.simplify`` does.

Bottom up: symbols become their representatives, the constructors normalise again, and then the
rules of the node's operator are tried. Rules return the new node or None. Unlike the normal form
they may drop a division by something that the facts know not to be zero.
"""

from __future__ import annotations

from collections.abc import Callable

from stillframe.symbolic import arith
from stillframe.symbolic.arith import Terms, factors, from_linear, linear, scaled_sum
from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.compare import at_most_zero, differs_from_zero, equals_zero
from stillframe.symbolic.exact_floats import (
    dominated_float,
    exact_comparison,
    exact_rounding,
    same_float,
)
from stillframe.symbolic.expr import ONE, ZERO, Expr, const
from stillframe.symbolic.interval import INF
from stillframe.symbolic.operators import CONSTRUCTORS, floordiv, max_, min_, mod, mul
from stillframe.symbolic.prove import View, combined, common_factor, divide_out, nonpositive
from stillframe.symbolic.residues import residue, residue_parts
from stillframe.symbolic.store import Store

Rule = Callable[[Store, Expr], "Expr | None"]

# Rules look into the facts with a small budget: simplification is on the hot path.
_STEPS = 12
_MAX_PASSES = 8


def simplify(store: Store, node: Expr) -> Expr:
    """``node`` rewritten by the facts; equal to it for every admitted input."""
    done = store.simplified
    found = done.get(node)
    if found is None:
        if node.is_constant:
            return node
        found = _simplify(store, node)
        store.remember(done, node, found)
        if found is not node:
            store.remember(done, found, found)
    return found


def _simplify(store: Store, node: Expr) -> Expr:
    for _ in range(_MAX_PASSES):
        node = _operands(store, node)
        new = _once(store, node)
        if new is None or new is node:
            return node
        node = new
        if node.is_constant:
            return node
    return node


def _operands(store: Store, node: Expr) -> Expr:
    if not node.args:
        return node
    if node.diff is not None:
        d = simplify(store, node.diff)
        return node if d is node.diff else _TESTS[node.op](d)
    if node.op == "add" and node.sort == "int":
        return _terms(store, node)
    args = [simplify(store, a) if a.__class__ is Expr else a for a in node.args]
    if all(new is old for new, old in zip(args, node.args, strict=True)):
        return node
    try:
        return CONSTRUCTORS[node.op](*args)
    except (ArithmeticError, ValueError):  # it has no value under the facts: leave it alone
        return node


def _terms(store: Store, node: Expr) -> Expr:
    """A sum with its monomials rewritten."""
    terms, constant = linear(node)
    parts: list[tuple[int, Expr]] = []
    changed = False
    for mono, c in terms.items():
        simple = simplify(store, mono)
        changed = changed or simple is not mono
        parts.append((c, simple))
    return scaled_sum(parts, constant) if changed else node


_TESTS: dict[str, Callable[[Expr], Expr]] = {
    "eq": equals_zero,
    "ne": differs_from_zero,
    "le": at_most_zero,
    "lt": at_most_zero,
}


def _once(store: Store, node: Expr) -> Expr | None:
    """One rewriting of ``node``, whose operands are simplified; None if nothing applies."""
    if node.is_constant:
        return None
    value = store.values.get(node)
    if value is not None:
        return simplify(store, value)
    if node.sort == "int" and (node.op not in ("add", "mul") or node in store.ranges):
        bounds = range_of(store, node)
        if bounds.is_single:
            return const(int(bounds.lower))
    if node.sort == "float" and node.op not in ("ite", "max", "min"):
        return None
    for rule in RULES.get(node.op, ()):
        new = rule(store, node)
        if new is not None and new is not node:
            return new
    return None


def known_nonzero(store: Store, node: Expr) -> bool:
    """Whether the facts exclude that ``node`` is 0."""
    bounds = range_of(store, node)
    if bounds.lower > 0 or bounds.upper < 0 or node in store.nonzero:
        return True
    if node.op == "mul":
        return all(a.is_constant or known_nonzero(store, a) for a in node.args)
    return False


def _shown(store: Store, view: View) -> bool:
    return nonpositive(store, view, _STEPS, 2)


# -- sums -----------------------------------------------------------------------------------------


def _division_undone(store: Store, node: Expr) -> Expr | None:
    """``k*n * (x // n) = k * (x - r)`` if ``x % n`` is known to be ``r``."""
    for mono, c in linear(node)[0].items():
        if mono.op == "floordiv" and mono.args[1].is_constant:
            x, n = mono.args[0], mono.args[1].value
            if c % n == 0:
                r = residue(store, x, n)
                if r is not None:
                    return scaled_sum(((1, node), (-c, mono), (c // n, x)), -c // n * r)
    return None


def _division_with_rest(store: Store, node: Expr) -> Expr | None:
    """``k * (y * (x // y)) + k * (x % y) = k * x``."""
    terms, _ = linear(node)
    for mono, c in terms.items():
        if mono.op == "mod":
            x, y = mono.args
            whole = mul(y, floordiv(x, y))
            whole_terms, extra = linear(whole)
            if extra == 0 and all(terms.get(m, 0) == c * k for m, k in whole_terms.items()):
                return scaled_sum(((1, node), (-c, mono), (-c, whole), (c, x)))
    return None


# -- floor division and modulus -------------------------------------------------------------------


def _quotient_by_range(store: Store, node: Expr) -> Expr | None:
    """``x // n`` and ``x % n`` where all of ``x`` lies in one period of the constant ``n``."""
    x, n = node.args
    if not n.is_constant:
        return None
    bounds = range_of(store, x)
    if bounds.lower == -INF or bounds.upper == INF:
        return None
    q = bounds.lower // n.value
    if q != bounds.upper // n.value:
        return None
    return const(int(q)) if node.op == "floordiv" else scaled_sum(((1, x),), -int(q) * n.value)


def _below_divisor(store: Store, node: Expr) -> Expr | None:
    """``x // y = 0`` and ``x % y = x`` for ``0 <= x < y``, ``y`` symbolic."""
    x, y = node.args
    if y.is_constant or range_of(store, x).lower < 0:
        return None
    if _shown(store, combined(((1, x), (-1, y)), 1)):
        return ZERO if node.op == "floordiv" else x
    return None


def _multiple_of_divisor(store: Store, node: Expr) -> Expr | None:
    """``(q*y + z) // y = q + z // y`` and ``(q*y + z) % y = z % y``, ``y`` symbolic and not 0."""
    x, y = node.args
    if y.is_constant or not known_nonzero(store, y):
        return None
    if x is y:
        return ONE if node.op == "floordiv" else ZERO
    split = _quotient(x, y)
    if split is None:
        return None
    q, rest = split
    if node.op == "mod":
        return mod(rest, y) if rest is not ZERO else ZERO
    return q if rest is ZERO else scaled_sum(((1, q), (1, floordiv(rest, y))))


def _quotient(x: Expr, y: Expr) -> tuple[Expr, Expr] | None:
    """``(q, z)`` with ``x = q*y + z`` and ``q`` not 0, by dividing leading terms; None if none."""
    y_terms, _ = linear(y)
    lead = min(y_terms, key=arith.term_key)
    lead_coefficient, lead_atoms = y_terms[lead], factors(lead)
    quotient: Terms = {}
    one = 0
    rest = x
    for mono, c in linear(x)[0].items():
        left = divide_out(mono, lead_atoms)
        if left is None or c % lead_coefficient:
            continue
        k = c // lead_coefficient
        if left is ONE:
            one += k
        else:
            quotient[left] = k
        rest = scaled_sum(((1, rest), (-k, mul(left, y))))
    if not quotient and not one:
        return None
    if len(linear(rest)[0]) >= len(linear(x)[0]):  # dividing made it no smaller
        return None
    return from_linear(quotient, one), rest


def _common_divisor(store: Store, node: Expr) -> Expr | None:
    """``(f*x) // (f*y) = x // y`` and ``(f*x) % (f*y) = f * (x % y)`` for ``f`` not 0."""
    x, y = node.args
    if y.is_constant:
        return None
    y_split = common_factor(y)
    if y_split is None:
        return None
    for f in dict.fromkeys(factors(y_split[0])):
        x_rest, y_rest = _divide_by(x, f), _divide_by(y, f)
        if x_rest is not None and y_rest is not None and known_nonzero(store, f):
            if node.op == "floordiv":
                return floordiv(x_rest, y_rest)
            return mul(f, mod(x_rest, y_rest))
    return None


def _divide_by(node: Expr, atom: Expr) -> Expr | None:
    """``node / atom`` if every term has the factor; 0 / atom is 0."""
    terms, constant = linear(node)
    if constant:
        return None
    total: Terms = {}
    one = 0
    for mono, c in terms.items():
        left = divide_out(mono, (atom,))
        if left is None:
            return None
        if left is ONE:
            one += c
        else:
            total[left] = c
    return from_linear(total, one)


def _known_residue(store: Store, node: Expr) -> Expr | None:
    """``x % n`` where the facts tell the remainder, of ``x`` or of some of its terms."""
    x, n = node.args
    if not n.is_constant:
        return None
    r = residue(store, x, n.value)
    if r is not None:
        return const(r)
    known, rest, constant = residue_parts(store, *linear(x), n.value)
    if rest == linear(x)[0]:
        return None
    return mod(from_linear(rest, known + constant), n)


# -- choices --------------------------------------------------------------------------------------


def _dominated(store: Store, node: Expr) -> Expr | None:
    """Arguments of ``max`` (``min``) that are never above (below) another one are dropped."""
    if node.sort == "float":
        return dominated_float(store, node)
    sign = 1 if node.op == "max" else -1
    kept = list(node.args)
    for arg in node.args:
        others = [o for o in kept if o is not arg]
        if any(_shown(store, combined(((sign, arg), (-sign, o)))) for o in others):
            kept = others
    if len(kept) == len(node.args):
        return None
    return (max_ if node.op == "max" else min_)(*kept)


def _chosen(store: Store, node: Expr) -> Expr | None:
    """``ite`` with a known condition."""
    from stillframe.symbolic.decide import decide

    test, then, other = node.args
    answer = decide(store, test)
    if answer is None:
        return None
    chosen: Expr = then if answer else other
    return chosen


_DIVISION: tuple[Rule, ...] = (
    _quotient_by_range,
    _below_divisor,
    _multiple_of_divisor,
    _common_divisor,
)
_FLOAT_TEST: tuple[Rule, ...] = (same_float, exact_comparison)

RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_division_undone, _division_with_rest),
    "mul": (_division_undone,),
    "floordiv": _DIVISION,
    "mod": (*_DIVISION, _known_residue),
    "max": (_dominated,),
    "min": (_dominated,),
    "ite": (_chosen,),
    "floor": (exact_rounding,),
    "ceil": (exact_rounding,),
    "round": (exact_rounding,),
    "trunc": (exact_rounding,),
    "eq": _FLOAT_TEST,
    "ne": _FLOAT_TEST,
    "lt": _FLOAT_TEST,
    "le": _FLOAT_TEST,
}
