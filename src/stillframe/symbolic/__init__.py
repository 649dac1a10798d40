"""Integers, floats and booleans with unknowns. No torch.

Expressions are immutable, interned and in a normal form (``expr.py``, ``arith.py``, ``floats.py``,
``compare.py``; the constructors are in ``operators.py``): equality is identity. :class:`Facts`
holds what is known of the unknowns and decides questions. ``printing.py`` and ``parsing.py`` go to
Python text and back, ``sympy_text.py`` and ``sympy_reading.py`` to sympy's language and back,
``cpp.py`` to C++.
"""

from stillframe.symbolic.compare import and_, not_, or_
from stillframe.symbolic.cpp import CPP_PRELUDE, to_cpp
from stillframe.symbolic.evaluate import evaluate, substitute
from stillframe.symbolic.expr import Expr, Symbol, const, symbol, unwrap
from stillframe.symbolic.facts import Contradiction, Facts
from stillframe.symbolic.floats import call, ceil_, floor_, round_, to_float, trunc_
from stillframe.symbolic.interval import Range
from stillframe.symbolic.operators import (
    absolute,
    add,
    eq,
    floordiv,
    ge,
    gt,
    ite,
    le,
    lt,
    max_,
    min_,
    mod,
    mul,
    ne,
    neg,
    power,
    sub,
    truediv,
)
from stillframe.symbolic.parsing import parse
from stillframe.symbolic.printing import to_python
from stillframe.symbolic.sympy_reading import from_sympy, parse_sympy
from stillframe.symbolic.sympy_text import to_sympy

__all__ = [
    "CPP_PRELUDE",
    "Contradiction",
    "Expr",
    "Facts",
    "Range",
    "Symbol",
    "absolute",
    "add",
    "and_",
    "call",
    "ceil_",
    "const",
    "eq",
    "evaluate",
    "floor_",
    "floordiv",
    "from_sympy",
    "ge",
    "gt",
    "ite",
    "le",
    "lt",
    "max_",
    "min_",
    "mod",
    "mul",
    "ne",
    "neg",
    "not_",
    "or_",
    "parse",
    "parse_sympy",
    "power",
    "round_",
    "sub",
    "substitute",
    "symbol",
    "to_cpp",
    "to_float",
    "to_python",
    "to_sympy",
    "truediv",
    "trunc_",
    "unwrap",
]
