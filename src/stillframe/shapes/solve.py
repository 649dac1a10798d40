"""The solved form of what a capture knows of its input sizes, and the spec that says the same.

After the capture the fact store holds everything: declared ranges, what the user assumed, and what
the program required. Its solved form has *roots* (sizes that are free within a range, perhaps
multiples of a number), every other size as an expression of roots, and the relations that are left.
:class:`Solution` is that form; :meth:`Solution.text` writes it as Python that declares it, with
``Dim``, ``dynamic_shapes`` and ``assume``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from stillframe.shapes.env import ShapeEnv, SymbolInfo
from stillframe.symbolic import (
    Contradiction,
    Expr,
    Facts,
    Range,
    add,
    eq,
    evaluate,
    mul,
    or_,
    substitute,
    symbol,
    to_python,
)


@dataclass(frozen=True)
class Root:
    """A free size of the solved form, by the name it is declared with."""

    name: str
    range: Range
    values: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """``Dim('b', min=2)``."""
        parts = [repr(self.name)]
        if self.values:
            parts.append(f"values={self.values}")
        else:
            if self.range.lower not in (0, -math.inf):
                parts.append(f"min={int(self.range.lower)}")
            if self.range.upper != math.inf:
                parts.append(f"max={int(self.range.upper)}")
        return f"Dim({', '.join(parts)})"


@dataclass
class Solution:
    """The solved form.

    Attributes:
        forms: symbol of the environment -> expression over symbols called like the roots.
        roots: by name.
        relations: conditions over the roots that the ranges do not imply.
    """

    forms: dict[Expr, Expr] = field(default_factory=dict)
    roots: dict[str, Root] = field(default_factory=dict)
    relations: list[Expr] = field(default_factory=list)

    def form(self, size: Expr | int) -> Expr:
        """A size of the capture over the roots."""
        return substitute(size, self.forms)

    def definitions(self, used: Iterable[Expr]) -> list[str]:
        """One line ``b = Dim('b', min=2)`` for each root that occurs."""
        names = {str(s) for expr in (*used, *self.relations) for s in expr.free_symbols}
        return [f"{n} = {root.text}" for n, root in self.roots.items() if n in names]

    def assumptions(self) -> str:
        """The relations as the text of a list; those that dims cannot express are strings."""
        return f"[{', '.join(relation_text(r) for r in self.relations)}]"


def solve(env: ShapeEnv, facts: Facts) -> Solution:
    """The solved form of the environment's backed integer symbols under ``facts``."""
    solution = Solution()
    backed = [s for s, i in env.symbols.items() if i.policy != "unbacked" and s.sort == "int"]
    known = Facts()
    for sym in backed:
        if facts.simplify(sym) is sym:
            _add_root(env.symbols[sym], facts, solution, known)
    for sym in backed:
        if sym not in solution.forms:
            _add_form(env.symbols[sym], facts, solution, known)
    for statement in facts.statements():
        if statement.free_symbols <= solution.forms.keys():
            _add_relation(solution, substitute(statement, solution.forms), known)
    return solution


def _add_root(info: SymbolInfo, facts: Facts, solution: Solution, known: Facts) -> None:
    sym, name = info.symbol, info.dim_name
    bounds = facts.range_of(sym)
    values = tuple(v for v in info.values if facts.decide(eq(sym, v)) is not False)
    congruence = None if values else facts.congruence_of(sym)
    if congruence is None:
        root = Root(name, bounds, values)
        solution.forms[sym] = symbol(name)
    else:
        k, r = congruence
        name = f"_{name}"
        root = Root(name, _divided(bounds, k, r))
        solution.forms[sym] = add(mul(k, symbol(name)), r)
    solution.roots[name] = root
    known.set_range(symbol(name), root.range)
    if values:
        known.assume(or_(*[eq(symbol(name), v) for v in values]))


def _add_form(info: SymbolInfo, facts: Facts, solution: Solution, known: Facts) -> None:
    """A size that follows from others: as their form, or as a root with a relation."""
    sym, name = info.symbol, info.dim_name
    form = substitute(facts.simplify(sym), solution.forms)
    if is_declarable(form):
        solution.forms[sym] = form
        return
    solution.roots[name] = Root(name, facts.range_of(sym))
    solution.forms[sym] = symbol(name)
    known.set_range(symbol(name), facts.range_of(sym))
    _add_relation(solution, eq(symbol(name), form), known)


def _divided(bounds: Range, k: int, r: int) -> Range:
    """The range of ``x`` for which ``k*x + r`` lies in ``bounds``."""
    low, high = bounds.lower, bounds.upper
    return Range(
        low if low == -math.inf else -(-(low - r) // k),
        high if high == math.inf else (high - r) // k,
    )


def _add_relation(solution: Solution, relation: Expr, known: Facts) -> None:
    if known.decide(relation) is True:
        return
    try:
        known.assume(relation)
    except Contradiction:  # it would have been one in the environment before
        return
    solution.relations.append(relation)


def relation_text(relation: Expr) -> str:
    """A relation as ``assume`` takes it: over dims, or as a string where dims have no operator."""
    text = to_python(relation)
    return text if _of_dims(relation) else repr(text)


def _of_dims(expr: Expr) -> bool:
    return expr.op in _DIM_OPERATORS and all(_of_dims(a) for a in expr.args if isinstance(a, Expr))


_DIM_OPERATORS = {
    "const", "symbol", "add", "mul", "pow", "floordiv", "mod", "eq", "ne", "lt", "le",
}  # fmt: skip


def is_declarable(form: Expr) -> bool:
    """Whether a spec can declare a size of this form: a number, or ``k*d + c`` with ``k >= 1``."""
    if form.is_constant:
        return True
    if len(form.free_symbols) != 1:
        return False
    (root,) = form.free_symbols
    try:
        offset = evaluate(form, {root: 0})
        scale = evaluate(form, {root: 1}) - offset
    except ArithmeticError:
        return False
    return bool(scale >= 1) and add(mul(scale, root), offset) is form
