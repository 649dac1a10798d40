"""Remainders that the facts tell: ``x % m`` for a constant ``m``."""

from __future__ import annotations

import math

from stillframe.symbolic.arith import Terms, factors, from_linear, linear
from stillframe.symbolic.bounds import range_of
from stillframe.symbolic.expr import Expr
from stillframe.symbolic.store import Store


def primitive_form(node: Expr) -> tuple[Expr, int, int] | None:
    """``node`` as ``k * x + c`` with ``x`` without constant or common divisor; None for a constant.

    The first coefficient of ``x`` is positive.
    """
    terms, constant = linear(node)
    if not terms:
        return None
    k = math.gcd(*terms.values())
    if _first_coefficient(from_linear(terms, 0)) < 0:
        k = -k
    return from_linear({m: c // k for m, c in terms.items()}, 0), k, constant


def _first_coefficient(form: Expr) -> int:
    first = form.args[0] if form.op == "add" else form
    return next(iter(linear(first)[0].values()))


def residue(store: Store, node: Expr, m: int) -> int | None:
    """``node % m`` if it is known, for an integer ``node`` and ``m >= 1``."""
    if m == 1:
        return 0
    if store.congruences:
        whole = primitive_form(node)
        if whole is not None and whole[0] in store.congruences:
            form, k, constant = whole
            modulus, r = store.congruences[form]
            if (k * modulus) % m == 0:
                return (k * r + constant) % m
    terms, constant = _shown_modulo(*linear(node), m)
    for mono, c in terms.items():
        part = _scaled_residue(store, mono, c, m)
        if part is None:
            return None
        constant += part
    return constant % m


def residue_parts(store: Store, terms: Terms, constant: int, m: int) -> tuple[int, Terms, int]:
    """``(r, rest, constant)``: the sum is ``r + rest + constant`` modulo ``m``.

    ``rest`` holds the terms of which nothing is known.
    """
    terms, constant = _shown_modulo(terms, constant, m)
    known = 0
    rest: Terms = {}
    for mono, c in terms.items():
        part = _scaled_residue(store, mono, c, m)
        if part is None:
            rest[mono] = c
        else:
            known += part
    return known % m, rest, constant


def _shown_modulo(terms: Terms, constant: int, m: int) -> tuple[Terms, int]:
    """The sum without remainders that ``m`` cannot tell.

    ``k * (y % n)`` is ``k * y`` modulo ``m`` if ``m`` divides ``k * n``: ``x + (-x) % 8`` is 0
    modulo 8.
    """
    if not any(_hides(mono, c, m) for mono, c in terms.items() if mono.op == "mod"):
        return terms, constant
    total: Terms = {}
    for mono, c in terms.items():
        inner, extra = linear(mono.args[0]) if _hides(mono, c, m) else ({mono: 1}, 0)
        constant += c * extra
        for x, k in inner.items():
            total[x] = total.get(x, 0) + c * k
    return total, constant


def _hides(mono: Expr, c: int, m: int) -> bool:
    return mono.op == "mod" and mono.args[1].is_constant and (c * mono.args[1].value) % m == 0


def _scaled_residue(store: Store, mono: Expr, coefficient: int, m: int) -> int | None:
    """``coefficient * mono % m``."""
    smaller = m // math.gcd(coefficient, m)
    if smaller == 1:
        return 0
    atoms = factors(mono)
    if len(atoms) == 1:
        r = _atom_residue(store, mono, smaller)
        return None if r is None else coefficient * r % m
    if math.prod(known_divisor(store, a) for a in atoms) % smaller == 0:
        return 0
    product = coefficient
    for atom in atoms:
        r = _atom_residue(store, atom, smaller)
        if r is None:
            return None
        product = product * r % m
    return product % m


def _atom_residue(store: Store, atom: Expr, m: int) -> int | None:
    if m == 1:
        return 0
    modulus, r = store.congruences.get(atom, (1, 0))
    if modulus % m == 0:
        return r % m
    bounds = range_of(store, atom)
    if bounds.is_single:
        return int(bounds.lower) % m
    if atom.op in ("floordiv", "mod") and atom.args[1].is_constant:
        inner, d = atom.args[0], atom.args[1].value
        if atom.op == "floordiv":  # (y // d) % m is (y % (d*m)) // d
            r_inner = residue(store, inner, d * m)
            return None if r_inner is None else r_inner // d % m
        if d % m == 0:
            return residue(store, inner, m)
        r_inner = residue(store, inner, d)
        return None if r_inner is None else r_inner % m
    return None


def known_divisor(store: Store, atom: Expr) -> int:
    """A positive number that divides ``atom``."""
    modulus, r = store.congruences.get(atom, (1, 0))
    return math.gcd(modulus, r)


def moduli(store: Store, node: Expr) -> list[int]:
    """Moduli worth trying on ``node``: those of the facts and of its coefficients."""
    terms, _ = linear(node)
    found = {abs(c) for c in terms.values()}
    congruences = store.congruences
    for mono, c in terms.items():
        if mono.op == "symbol" and not congruences:
            continue
        for atom in factors(mono):
            modulus, _ = congruences.get(atom, (1, 0))
            found.add(modulus * abs(c))
            found.add(modulus)
            if atom.op == "mod" and atom.args[1].is_constant:
                found.add(atom.args[1].value * abs(c))
    if congruences:
        whole = primitive_form(node)
        if whole is not None and whole[0] in congruences:
            found.add(congruences[whole[0]][0] * abs(whole[1]))
    return sorted(m for m in found if m > 1)
