"""Graph nodes for symbolic values, made when a value is first used.

The recorder does not follow shape arithmetic step by step. A symbolic value *is* its normal form,
so the node for it can be built from the form: symbols come from sizes of inputs (``sym_size.int``)
or from the data-dependent operator that bound them, the rest is ``operator`` and ``math`` calls.
One node per expression, so shared sub-expressions are computed once, and sizes that nobody uses
leave no node.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch

from stillframe import symbolic as sym
from stillframe.errors import InternalError
from stillframe.symbolic import Expr

_FOLDED: dict[str, tuple[Callable[..., Any], Callable[[Expr, Expr], Expr]]] = {
    "add": (operator.add, sym.add),
    "mul": (operator.mul, sym.mul),
    "max": (torch.sym_max, sym.max_),
    "min": (torch.sym_min, sym.min_),
    "and": (operator.and_, sym.and_),
    "or": (operator.or_, sym.or_),
}
_PLAIN: dict[str, Callable[..., Any]] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "truediv": operator.truediv,
    "float": torch.sym_float,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "not": torch.sym_not,
    "ite": torch.sym_ite,
}

CreateNode = Callable[[Any, tuple[Any, ...], Any], torch.fx.Node]


class SymbolNodes:
    """Expression -> fx node, for one graph.

    Args:
        create: makes a ``call_function`` node from (target, args, value) at the current place.
        outside: gives the node of a symbol that nothing in this graph binds, or None if there
            can be no such symbol.
    """

    def __init__(
        self, create: CreateNode, outside: Callable[[Expr], torch.fx.Node] | None = None
    ) -> None:
        self._create = create
        self._outside = outside
        self._nodes: dict[Expr, torch.fx.Node] = {}
        self._sizes: dict[Expr, tuple[Any, Callable[[], torch.fx.Node], tuple[int, ...]]] = {}
        self._derived: dict[Expr, tuple[Expr, int, int]] = {}

    def bind(self, expr: Expr, node: torch.fx.Node) -> None:
        """``node`` computes ``expr``. The first binding wins."""
        self._nodes.setdefault(expr, node)

    def bind_size(self, expr: Expr, tensor: Callable[[], torch.fx.Node], dim: int) -> None:
        """``expr`` is the size of a tensor's dim; the first binding wins."""
        self.bind_query(expr, torch.ops.aten.sym_size.int, tensor, dim)

    def bind_query(
        self, expr: Expr, query: Any, tensor: Callable[[], torch.fx.Node], *args: int
    ) -> None:
        """``expr`` is what ``query(tensor, *args)`` returns; the first binding wins."""
        self._sizes.setdefault(expr, (query, tensor, args))

    def bind_sizes(self, sizes: Iterable[Any], tensor: Callable[[], torch.fx.Node]) -> None:
        """Bind all symbolic sizes of a tensor."""
        for dim, size in enumerate(sizes):
            if isinstance(size, Expr):
                self.bind_size(size, tensor, dim)

    def bind_specified(self, value: Any, tensor: Callable[[], torch.fx.Node]) -> None:
        """Bind the number of elements of a sparse fake; others have none."""
        sparsity = getattr(value, "sparse", None)
        if sparsity is not None and isinstance(sparsity.nnz, Expr):
            self.bind_query(sparsity.nnz, torch.ops.aten._nnz.default, tensor)

    def bind_layout(self, value: Any, tensor: Callable[[], torch.fx.Node]) -> None:
        """Bind what can be read off a fake: sizes first, then strides and offset."""
        self.bind_sizes(value.sizes, tensor)
        for dim, stride in enumerate(value.strides):
            if isinstance(stride, Expr):
                self.bind_query(stride, torch.ops.aten.sym_stride.int, tensor, dim)
        if isinstance(value.offset, Expr):
            self.bind_query(value.offset, torch.ops.aten.sym_storage_offset.default, tensor)

    def bind_derived(self, symbol: Expr, size: Expr, scale: int, offset: int) -> None:
        """``size`` (a bound size) is ``scale * symbol + offset``."""
        self._derived.setdefault(symbol, (size, scale, offset))

    def settle(self) -> None:
        """Make the nodes of all bound sizes now, because a tensor is about to change its sizes."""
        for expr in list(self._sizes):
            self.node(expr)

    def node(self, expr: Expr) -> Any:
        """The node of ``expr``, or its value if it is a constant."""
        if expr.is_constant:
            return expr.value
        node = self._nodes.get(expr)
        if node is None:
            node = self._nodes[expr] = self._make(expr)
        return node

    def _make(self, expr: Expr) -> torch.fx.Node:
        if expr in self._sizes:
            query, tensor, rest = self._sizes[expr]
            return self._create(query, (tensor(), *rest), expr)
        if expr.op == "symbol":
            return self._solve(expr)
        if expr.op == "call":
            name, *operands = expr.args
            if name == "fabs":  # in terms that every program knows; the sum turns -0.0 into 0.0
                (x,) = operands
                positive: torch.fx.Node = self.node(sym.ite(x < 0.0, -x, x + 0.0))
                return positive
            function = getattr(torch, f"_sym_{name}", None) or getattr(math, name)
            return self._create(function, tuple(self.node(a) for a in operands), expr)
        args = tuple(self.node(a) for a in expr.args)
        if expr.op in _FOLDED:
            function, combine = _FOLDED[expr.op]
            total: torch.fx.Node = args[0]
            value = expr.args[0]
            for arg, arg_expr in zip(args[1:], expr.args[1:], strict=True):
                value = combine(value, arg_expr)
                total = self._create(function, (total, arg), value)
            return total
        if expr.op in _PLAIN:
            return self._create(_PLAIN[expr.op], args, expr)
        raise InternalError(f"no graph form for the expression {expr} ({expr.op})")

    def _solve(self, symbol: Expr) -> torch.fx.Node:
        """A symbol that only shows as ``k*s + c`` among the sizes of inputs."""
        derived = self._derived.get(symbol)
        if derived is None and self._outside is not None:
            return self._outside(symbol)
        if derived is None:
            raise InternalError(f"the symbol {symbol} is bound by no input and no operator")
        size, scale, offset = derived
        value: torch.fx.Node = self.node(size)
        if offset:
            value = self._create(operator.sub, (value, offset), size - offset)
        if scale != 1:
            value = self._create(operator.floordiv, (value, scale), symbol)
        self._nodes[symbol] = value
        return value
