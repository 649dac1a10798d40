"""SymNode: our expression inside torch's SymInt, SymFloat and SymBool.

torch accepts any object with the node protocol, in C++ kernels too: arithmetic there calls the
method of the operator's name, with plain operands wrapped by ``wrap_int`` and the like;
``bool(a < b)`` calls ``bool_``; C++ calls the ``guard_*`` family and the layout queries. What
Python's operators do is in ``operators.py``. Nothing here knows how questions are decided: that is
the environment's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stillframe import symbolic as sym
from stillframe.errors import NotSupported
from stillframe.shapes import layout
from stillframe.symbolic import Expr, const, unwrap

if TYPE_CHECKING:
    from stillframe.shapes.env import ShapeEnv


class SymNode:
    """An expression and the environment that answers for it."""

    __slots__ = ("env", "expr")

    def __init__(self, expr: Expr, env: ShapeEnv) -> None:
        self.expr = expr
        self.env = env

    # -- what it is ---------------------------------------------------------------------------

    @property
    def shape_env(self) -> ShapeEnv:
        return self.env

    @property
    def pytype(self) -> type:
        return {"int": int, "float": float, "bool": bool}[self.expr.sort]

    @property
    def constant(self) -> Any:
        return self.expr.value if self.expr.is_constant else None

    @property
    def hint(self) -> Any:
        return self.env.hint_of(self.expr)

    @property
    def _hint(self) -> Any:  # asked for by torch.fx.experimental.symbolic_shapes
        return None

    def has_hint(self) -> bool:
        return not self.env.is_unbacked(self.expr)

    def require_hint(self, fallback: Any = None) -> Any:
        return self.hint

    def is_int(self) -> bool:
        return self.expr.sort == "int"

    def is_float(self) -> bool:
        return self.expr.sort == "float"

    def is_bool(self) -> bool:
        return self.expr.sort == "bool"

    def is_nested_int(self) -> bool:
        return False

    def nested_int(self) -> None:
        return None

    def nested_int_coeff(self) -> None:
        return None

    def is_constant(self) -> bool:
        # torch's operators cannot unwrap a constant SymFloat, so floats never claim to be one
        return self.expr.is_constant and self.expr.sort != "float"

    def is_symbolic(self) -> bool:
        return not self.expr.is_constant

    def maybe_as_int(self) -> int | None:
        return self.expr.value if self.expr.is_constant and self.expr.sort == "int" else None

    def maybe_as_float(self) -> float | None:
        return self.expr.value if self.expr.is_constant and self.expr.sort == "float" else None

    def maybe_as_bool(self) -> bool | None:
        return self.expr.value if self.expr.is_constant and self.expr.sort == "bool" else None

    constant_int = maybe_as_int
    constant_bool = maybe_as_bool

    def clone(self) -> SymNode:
        return self

    def __copy__(self) -> SymNode:
        return self

    def __deepcopy__(self, memo: Any) -> SymNode:  # a copy of a size is of the same capture
        return self

    def __str__(self) -> str:
        return sym.to_python(self.expr)

    __repr__ = __str__
    _graph_repr = __str__

    # -- making nodes -------------------------------------------------------------------------

    def wrap_int(self, value: int) -> SymNode:
        return self.env.node(const(value))

    wrap_float = wrap_int
    wrap_bool = wrap_int

    def _new(self, expr: Expr) -> SymNode:
        return self.env.node(expr)

    # -- deciding -----------------------------------------------------------------------------

    def bool_(self) -> bool:
        if self.expr.sort != "bool":
            return self.env.evaluate(unwrap(sym.ne(self.expr, 0)))
        return self.env.evaluate(self.expr)

    def int_(self) -> int:
        return int(self.env.specialise(self.expr))

    def guard_int(self, file: str, line: int) -> int:
        return int(self.env.specialise(self.expr))

    def guard_float(self, file: str, line: int) -> float:
        return float(self.env.specialise(self.expr))

    def guard_bool(self, file: str, line: int) -> bool:
        return self.bool_()

    def guard_size_oblivious(self, file: str, line: int) -> bool:
        return self.bool_()

    def guard_or_false(self, file: str, line: int) -> bool:
        return self.env.evaluate(self.expr, False)

    def guard_or_true(self, file: str, line: int) -> bool:
        return self.env.evaluate(self.expr, True)

    def statically_known_true(self, file: str, line: int) -> bool:
        return self.env.facts.decide(self.expr) is True

    def expect_true(self, file: str, line: int) -> bool:
        return self.env.expect_true(self.expr)

    def expect_size(self, file: str, line: int) -> bool:
        return self.env.expect_true(sym.ge(self.expr, 0))

    # -- layout queries from C++ ----------------------------------------------------------------

    def is_contiguous(self, sizes: Sequence[SymNode], strides: Sequence[SymNode]) -> SymNode:
        return self._layout(layout.is_contiguous, sizes, strides)

    def is_channels_last_contiguous_2d(
        self, sizes: Sequence[SymNode], strides: Sequence[SymNode]
    ) -> SymNode:
        return self._layout(layout.is_channels_last, sizes, strides)

    def is_channels_last_contiguous_3d(
        self, sizes: Sequence[SymNode], strides: Sequence[SymNode]
    ) -> SymNode:
        return self._layout(lambda a, b: layout.is_channels_last(a, b, 5), sizes, strides)

    is_channels_last_strides_2d = is_channels_last_contiguous_2d
    is_channels_last_strides_3d = is_channels_last_contiguous_3d

    def is_non_overlapping_and_dense(
        self, sizes: Sequence[SymNode], strides: Sequence[SymNode]
    ) -> SymNode:
        return self._layout(layout.is_non_overlapping_and_dense, sizes, strides)

    is_non_overlapping_and_dense_indicator = is_non_overlapping_and_dense

    def _layout(
        self, question: Callable[..., bool], sizes: Sequence[SymNode], strides: Sequence[SymNode]
    ) -> SymNode:
        plain = ([unwrap(n.expr) for n in sizes], [unwrap(n.expr) for n in strides])
        return self._new(const(question(*plain)))

    # -- arithmetic that does not fit the table below -------------------------------------------

    def sym_sum(self, args: Sequence[SymNode]) -> SymNode:
        return self._new(sym.add(*[a.expr for a in args]))

    def sym_ite(self, then: SymNode, other: SymNode) -> SymNode:
        return self._new(sym.ite(self.expr, then.expr, other.expr))

    def sym_not(self) -> SymNode:
        return self._new(sym.not_(self.expr))

    def sym_float(self) -> SymNode:
        return self._new(sym.to_float(self.expr)) if self.is_int() else self

    def round(self, ndigits: int | None = None) -> SymNode:
        if ndigits is not None:
            raise NotSupported("round(x, ndigits) of a symbolic float is not supported yet.")
        return self._new(sym.round_(self.expr))

    def is_integer(self) -> SymNode:
        return self._new(sym.eq(self.expr, sym.to_float(sym.floor_(self.expr))))

    def abs(self) -> SymNode:
        return self._new(self.env.facts.simplify(sym.absolute(self.expr)))

    def pos(self) -> SymNode:
        return self


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[[SymNode, SymNode], SymNode]:
    def method(self: SymNode, other: SymNode) -> SymNode:
        return self.env.node(function(self.expr, other.expr))

    return method


def _simplified(function: Callable[[Expr, Expr], Expr]) -> Callable[[SymNode, SymNode], SymNode]:
    """For operations that facts can make simpler: ``(b*s)//b`` is ``s`` if ``b`` is not 0."""

    def method(self: SymNode, other: SymNode) -> SymNode:
        env = self.env
        return env.node(env.facts.simplify(function(self.expr, other.expr)))

    return method


def _unary(function: Callable[[Expr], Expr]) -> Callable[[SymNode], SymNode]:
    def method(self: SymNode) -> SymNode:
        return self.env.node(function(self.expr))

    return method


def _identity_if_int(function: Callable[[Expr], Expr]) -> Callable[[SymNode], SymNode]:
    def method(self: SymNode) -> SymNode:
        return self if self.expr.sort == "int" else self.env.node(function(self.expr))

    return method


_BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": sym.add,
    "sub": sym.sub,
    "mul": sym.mul,
    "mod": sym.mod,
    "floordiv": sym.floordiv,
    "int_floordiv": sym.floordiv,
    "truediv": sym.truediv,
    "int_truediv": sym.truediv,
    "float_truediv": sym.truediv,
    "pow": sym.power,
    "pow_by_natural": sym.power,
    "float_pow": sym.power,
    "sym_max": sym.max_,
    "sym_min": sym.min_,
    "eq": sym.eq,
    "ne": sym.ne,
    "lt": sym.lt,
    "le": sym.le,
    "gt": sym.gt,
    "ge": sym.ge,
    "and_": sym.and_,
    "or_": sym.or_,
    "sym_and": sym.and_,
    "sym_or": sym.or_,
}

_SIMPLIFIED = {"mod", "floordiv", "int_floordiv", "sym_max", "sym_min"}

for _name, _function in _BINARY.items():
    _wrap = _simplified if _name in _SIMPLIFIED else _binary
    setattr(SymNode, _name, _wrap(_function))

_UNARY: dict[str, Callable[[Expr], Expr]] = {"neg": sym.neg}
for _name, _op in _UNARY.items():
    setattr(SymNode, _name, _unary(_op))

# the protocol calls this method `str`, a name that would hide the type inside the class
setattr(SymNode, "str", SymNode.__str__)

_ROUNDING: dict[str, Callable[[Expr], Expr]] = {
    "floor": sym.floor_,
    "ceil": sym.ceil_,
    "trunc": sym.trunc_,
    "sym_int": sym.trunc_,
}
for _name, _op in _ROUNDING.items():
    setattr(SymNode, _name, _identity_if_int(_op))

for _name in (
    "sqrt",
    "cos",
    "cosh",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "asin",
    "acos",
    "atan",
    "log2",
    "exp",
):

    def _math(self: SymNode, _called: str = _name) -> SymNode:
        return self.env.node(
            sym.call(_called, sym.to_float(self.expr) if self.is_int() else self.expr)
        )

    setattr(SymNode, f"sym_{_name}", _math)
