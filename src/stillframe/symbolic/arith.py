"""Integer arithmetic in normal form.

An integer expression is a sum of integer multiples of *monomials* plus a constant; a monomial is a
product of *atoms* (symbols, floor-divisions, moduli, maxima, ...). The *linear view* of a node is
``({monomial: coefficient}, constant)``; the monomial of ``2*a*b`` is the node ``a*b``. Addition and
multiplication work on linear views, and :func:`from_linear` makes the one node of a view.

Division is Python's (floor), for negative operands too. Each rule below states its identity; the
letters are any integers, ``k, d, e`` constants, ``d, e > 0``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from stillframe.symbolic.expr import ONE, ZERO, Expr, const, intern, order_key

Terms = dict[Expr, int]

# A product with more terms than this stays a product of sums (an atom), and a power with a higher
# exponent stays a power: a normal form must not grow without bound.
MAX_TERMS = 256
MAX_EXPONENT = 12


# -- views ----------------------------------------------------------------------------------------


def linear(node: Expr) -> tuple[Terms, int]:
    """The linear view of an integer node. Shared: callers must not change the dictionary."""
    view = node._linear
    if view is None:
        view = node._linear = _linear(node)
    return view


def _linear(node: Expr) -> tuple[Terms, int]:
    if node.is_constant:
        return {}, node.value
    if node.op == "mul" and node.args[0].is_constant:
        coefficient, *rest = node.args
        return {monomial(rest): coefficient.value}, 0
    if node.op != "add":
        return {node: 1}, 0
    terms: Terms = {}
    constant = 0
    for arg in node.args:
        inner, extra = linear(arg)
        terms.update(inner)
        constant += extra
    return terms, constant


def factors(mono: Expr) -> tuple[Expr, ...]:
    """The atoms of a monomial, sorted, repeated by their power."""
    return mono.args if mono.op == "mul" else (mono,)


def monomial(atoms: Iterable[Expr]) -> Expr:
    """The product of ``atoms`` (at least one, none constant)."""
    ordered = sorted(atoms, key=order_key)
    if len(ordered) == 1:
        return ordered[0]
    return intern("mul", tuple(ordered), "int")


def term_key(mono: Expr) -> tuple[object, ...]:
    """Higher degree first, then by factors."""
    key = mono._term_key
    if key is None:
        atoms = factors(mono)
        key = mono._term_key = (-len(atoms), *map(order_key, atoms))
    return key


def from_linear(terms: Terms, constant: int) -> Expr:
    """The node of a linear view; zero coefficients are dropped."""
    kept = [(m, c) for m, c in terms.items() if c]
    if len(kept) > 1:
        kept.sort(key=_key_of_term)
    return from_sorted(kept, constant)


def _key_of_term(term: tuple[Expr, int]) -> tuple[object, ...]:
    return term_key(term[0])


def sorted_terms(terms: Terms) -> list[tuple[Expr, int]]:
    """The terms in the canonical order."""
    return sorted(terms.items(), key=_key_of_term)


def from_sorted(terms: list[tuple[Expr, int]], constant: int) -> Expr:
    """The node of terms in the canonical order, without zero coefficients."""
    if not terms:
        return const(constant)
    if len(terms) == 1 and not constant:
        return _scaled(*terms[0])
    args = [m if c == 1 else _scaled(m, c) for m, c in terms]
    if constant:
        args.append(const(constant))
    node = intern("add", tuple(args), "int")
    if node._linear is None:
        node._linear = dict(terms), constant
    return node


def _scaled(mono: Expr, coefficient: int) -> Expr:
    if coefficient == 1:
        return mono
    return intern("mul", (const(coefficient), *factors(mono)), "int")


def scaled_sum(parts: Iterable[tuple[int, Expr]], constant: int = 0) -> Expr:
    """``sum(k * e for k, e in parts) + constant`` for integer nodes."""
    total: Terms = {}
    for k, node in parts:
        terms, extra = linear(node)
        constant += k * extra
        for mono, coefficient in terms.items():
            total[mono] = total.get(mono, 0) + k * coefficient
    return from_linear(total, constant)


def content(node: Expr) -> int:
    """The greatest common divisor of the coefficients, constant left out; 0 for a constant."""
    return math.gcd(*linear(node)[0].values())


# -- sums and products ----------------------------------------------------------------------------


def add_int(a: Expr, b: Expr) -> Expr:
    """``a + b``."""
    if b.is_constant:
        terms, constant = linear(a)
        return from_linear(terms, constant + b.value)
    return scaled_sum(((1, a), (1, b)))


def sub_int(a: Expr, b: Expr) -> Expr:
    """``a - b``."""
    return scaled_sum(((1, a), (-1, b)))


def mul_int(a: Expr, b: Expr) -> Expr:
    """``a * b``, distributed over sums."""
    if a.is_constant:
        a, b = b, a
    if b.is_constant:
        return scaled_sum(((b.value, a),))
    left, left_constant = linear(a)
    right, right_constant = linear(b)
    if (len(left) + 1) * (len(right) + 1) > MAX_TERMS:
        return monomial((*_as_atoms(a), *_as_atoms(b)))
    total: Terms = {}
    for m, c in left.items():
        total[m] = c * right_constant
    for n, d in right.items():
        total[n] = total.get(n, 0) + d * left_constant
        for m, c in left.items():
            product = monomial((*factors(m), *factors(n)))
            total[product] = total.get(product, 0) + c * d
    return from_linear(total, left_constant * right_constant)


def _as_atoms(node: Expr) -> tuple[Expr, ...]:
    return node.args if node.op == "mul" and not node.args[0].is_constant else (node,)


def power_int(base: Expr, exponent: Expr) -> Expr:
    """``base ** exponent`` for an exponent that is never negative; small constant ones expand."""
    if exponent.is_constant:
        n = exponent.value
        if base.is_constant:
            return const(base.value**n)
        size = len(linear(base)[0]) + (1 if linear(base)[1] else 0)
        if n <= MAX_EXPONENT and size**n <= MAX_TERMS:
            result = ONE
            for _ in range(n):
                result = mul_int(result, base)
            return result
    if base is ONE:
        return ONE
    return intern("pow", (base, exponent), "int")


# -- floor division and modulus -------------------------------------------------------------------


def floordiv_int(a: Expr, b: Expr) -> Expr:
    """``a // b`` (floor).

    Raises:
        ZeroDivisionError: ``b`` is the constant 0.
    """
    if b.is_constant:
        divisor = b.value
        if a.is_constant:
            return const(a.value // divisor)
        if divisor == 0:
            raise ZeroDivisionError("integer division or modulo by zero")
        if divisor < 0:  # a // -d = -a // d
            a, divisor = scaled_sum(((-1, a),)), -divisor
        return _floordiv_constant(a, divisor)
    a, b, _ = _reduced_pair(a, b)
    return intern("floordiv", (a, b), "int")


def _floordiv_constant(a: Expr, d: int) -> Expr:
    if d == 1:
        return a
    terms, constant = linear(a)
    whole: Terms = {}
    rest: Terms = {}
    for mono, c in terms.items():  # (q*d*x + y) // d = q*x + y // d
        if c % d:  # 3*x//2 is not x + x//2: names would double with each division
            rest[mono] = c
        else:
            whole[mono] = c // d
    extra, constant = divmod(constant, d)
    if rest:
        divided = _floordiv_reduced(rest, constant, d)
        return scaled_sum(((1, from_linear(whole, extra)), (1, divided)))
    return from_linear(whole, extra)  # 0 <= constant < d


def _floordiv_reduced(rest: Terms, constant: int, d: int) -> Expr:
    g = math.gcd(d, *rest.values())
    if g > 1:  # (g*x + k) // (g*d) = (x + k//g) // d
        reduced = from_linear({m: c // g for m, c in rest.items()}, constant // g)
        return _floordiv_constant(reduced, d // g)
    if len(rest) == 1:
        ((mono, c),) = rest.items()
        if c == 1 and mono.op == "floordiv" and mono.args[1].is_constant:
            # (y//e + k) // d = (y + k*e) // (e*d)
            inner, e = mono.args[0], mono.args[1].value
            return _floordiv_constant(scaled_sum(((1, inner),), constant * e), e * d)
        if c == 1 and mono.op == "mod" and mono.args[1].is_constant:
            if mono.args[1].value + constant <= d:  # 0 <= y%e + k < d
                return ZERO
    if rest[min(rest, key=term_key)] < 0:  # (-y + k) // d = -((y - k + d - 1) // d)
        flipped = {m: -c for m, c in rest.items()}
        return scaled_sum(((-1, _floordiv_reduced(flipped, d - 1 - constant, d)),))
    return intern("floordiv", (from_linear(rest, constant), const(d)), "int")


def mod_int(a: Expr, b: Expr) -> Expr:
    """``a % b`` (the sign of ``b``).

    Raises:
        ZeroDivisionError: ``b`` is the constant 0.
    """
    if b.is_constant:
        divisor = b.value
        if a.is_constant:
            return const(a.value % divisor)
        if divisor == 0:
            raise ZeroDivisionError("integer division or modulo by zero")
        if divisor < 0:  # a % -d = -(-a % d)
            return scaled_sum(((-1, _mod_constant(scaled_sum(((-1, a),)), -divisor)),))
        return _mod_constant(a, divisor)
    a, b, k = _reduced_pair(a, b)  # (k*a) % (k*b) = k * (a % b), for negative k too
    return scaled_sum(((k, intern("mod", (a, b), "int")),))


def _mod_constant(a: Expr, d: int) -> Expr:
    terms, constant = linear(a)
    for mono in terms:
        if mono.op == "mod" and mono.args[1].is_constant and mono.args[1].value % d == 0:
            # (k * (y % (d*e)) + x) % d = (k*y + x) % d
            k = terms[mono]
            return _mod_constant(scaled_sum(((1, a), (-k, mono), (k, mono.args[0]))), d)
    rest: Terms = {}
    for mono, c in terms.items():  # coefficients modulo d, the remainder nearest to zero
        r = c % d
        if r:
            rest[mono] = r if 2 * r <= d else r - d
    constant %= d
    if not rest:
        return const(constant)
    g = math.gcd(d, *rest.values())
    if g > 1:  # (g*x + k) % (g*d) = g * ((x + k//g) % d) + k % g
        reduced = from_linear({m: c // g for m, c in rest.items()}, constant // g)
        return scaled_sum(((g, _mod_constant(reduced, d // g)),), constant % g)
    if len(rest) == 1:
        ((mono, c),) = rest.items()
        if c == 1 and mono.op == "mod" and mono.args[1].is_constant:
            if mono.args[1].value + constant <= d:  # 0 <= y%e + k < d
                return from_linear(rest, constant)
    return intern("mod", (from_linear(rest, constant), const(d)), "int")


def _reduced_pair(a: Expr, b: Expr) -> tuple[Expr, Expr, int]:
    """``(a/k, b/k, k)`` with the largest ``k`` that divides both; ``b/k`` starts positive."""
    (a_terms, a_constant), (b_terms, b_constant) = linear(a), linear(b)
    k = math.gcd(*a_terms.values(), a_constant, *b_terms.values(), b_constant)
    if b_terms[min(b_terms, key=term_key)] < 0:
        k = -k
    if k == 1:
        return a, b, 1
    return (
        from_linear({m: c // k for m, c in a_terms.items()}, a_constant // k),
        from_linear({m: c // k for m, c in b_terms.items()}, b_constant // k),
        k,
    )


# -- maximum and minimum --------------------------------------------------------------------------


def extremum_int(op: str, args: Iterable[Expr]) -> Expr:
    """``max`` or ``min`` of integers: flat, sorted, without dominated arguments."""
    flat: list[Expr] = []
    for arg in args:
        flat.extend(arg.args if arg.op == op else (arg,))
    dual = "min" if op == "max" else "max"
    kept: list[Expr] = []
    for arg in flat:
        # max(x, min(x, y)) = x
        if arg.op == dual and any(other in arg.args for other in flat):
            continue
        kept = _merge(op, kept, arg)
    if len(kept) == 1:
        return kept[0]
    return intern(op, tuple(sorted(kept, key=order_key)), "int")


def _merge(op: str, kept: list[Expr], arg: Expr) -> list[Expr]:
    """Add ``arg`` to ``kept``; of two that differ by a constant one stays."""
    wins: Callable[[int], bool] = (lambda d: d >= 0) if op == "max" else (lambda d: d <= 0)
    for i, other in enumerate(kept):
        if other is arg:
            return kept
        if linear(other)[0] == linear(arg)[0]:
            if wins(linear(arg)[1] - linear(other)[1]):
                return [*kept[:i], arg, *kept[i + 1 :]]
            return kept
    return [*kept, arg]
