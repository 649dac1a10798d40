"""The expression node and its interning.

An :class:`Expr` is made once per process for each normal form, so two expressions are equal exactly
if they are the same object: ``==`` and ``hash`` are identity and cost nothing. Everything derived
from a node (free symbols, the place in the canonical order, the linear view of an integer) is kept
on the node.

The soundness argument of identity: the constructors of ``arith.py``, ``floats.py`` and
``compare.py`` only ever replace an expression by one that has the same value for all assignments
for which the first has one. Identity therefore implies equality; the converse is not claimed (that
is what :class:`~stillframe.symbolic.facts.Facts` is for).

Tables are plain dictionaries that live as long as the process: names of symbols repeat from capture
to capture (``s0``, ``s1``, ...), and so do the expressions.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeAlias

Number: TypeAlias = int | float | bool

_SORTS = ("int", "float", "bool")


class Expr:
    """An immutable, interned integer, float or boolean expression in normal form.

    Attributes:
        op: the operator's name (``const``, ``symbol``, ``add``, ``floordiv``, ``le``, ...).
        args: operands, all ``Expr``; for ``call`` the first is the function's name. Empty for
            constants and symbols.
        sort: ``"int"``, ``"float"`` or ``"bool"``.
        value: the number of a constant, else None.
        name: the name of a symbol, else None.
        is_constant: whether ``op`` is ``const``.
        free_symbols: the symbols that occur in it.
        diff: for integer comparisons, the ``d`` of ``d == 0``, ``d != 0`` or ``d <= 0``, else None.
    """

    __slots__ = (
        "_complement",
        "_key",
        "_linear",
        "_term_key",
        "_text",
        "args",
        "diff",
        "free_symbols",
        "is_constant",
        "name",
        "op",
        "sort",
        "value",
    )

    op: str
    args: tuple[Any, ...]
    sort: str
    value: Any
    name: str | None
    is_constant: bool
    free_symbols: frozenset[Expr]
    diff: Expr | None
    _key: tuple[Any, ...] | None
    _linear: tuple[dict[Expr, int], int] | None
    _term_key: tuple[Any, ...] | None
    _text: str | None
    _complement: Expr | None

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: Any) -> Expr:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.op == "const":
            return (const, (self.value,))
        if self.op == "symbol":
            return (symbol, (self.name, self.sort))
        return (_rebuild, (self.op, self.args, self.sort, self.diff))

    def __bool__(self) -> bool:
        raise TypeError(
            f"the truth of the symbolic expression `{self}` is not known here; "
            "ask Facts.decide, or unwrap a constant"
        )

    def __int__(self) -> int:
        if self.is_constant:
            return int(self.value)
        raise TypeError(f"`{self}` is not a constant: it has no int value")

    def __float__(self) -> float:
        if self.is_constant:
            return float(self.value)
        raise TypeError(f"`{self}` is not a constant: it has no float value")

    def __str__(self) -> str:
        text = self._text
        if text is None:
            from stillframe.symbolic.printing import to_python

            text = self._text = to_python(self)
        return text

    def __repr__(self) -> str:
        return str(self)

    if TYPE_CHECKING:  # installed by operators.py, where the rules are known

        def __add__(self, other: Expr | Number) -> Expr: ...
        def __radd__(self, other: Expr | Number) -> Expr: ...
        def __sub__(self, other: Expr | Number) -> Expr: ...
        def __rsub__(self, other: Expr | Number) -> Expr: ...
        def __mul__(self, other: Expr | Number) -> Expr: ...
        def __rmul__(self, other: Expr | Number) -> Expr: ...
        def __floordiv__(self, other: Expr | Number) -> Expr: ...
        def __rfloordiv__(self, other: Expr | Number) -> Expr: ...
        def __mod__(self, other: Expr | Number) -> Expr: ...
        def __rmod__(self, other: Expr | Number) -> Expr: ...
        def __truediv__(self, other: Expr | Number) -> Expr: ...
        def __rtruediv__(self, other: Expr | Number) -> Expr: ...
        def __pow__(self, other: Expr | Number) -> Expr: ...
        def __rpow__(self, other: Expr | Number) -> Expr: ...
        def __neg__(self) -> Expr: ...
        def __pos__(self) -> Expr: ...
        def __abs__(self) -> Expr: ...
        def __lt__(self, other: Expr | Number) -> Expr: ...
        def __le__(self, other: Expr | Number) -> Expr: ...
        def __gt__(self, other: Expr | Number) -> Expr: ...
        def __ge__(self, other: Expr | Number) -> Expr: ...
        def __and__(self, other: Expr | bool) -> Expr: ...
        def __rand__(self, other: Expr | bool) -> Expr: ...
        def __or__(self, other: Expr | bool) -> Expr: ...
        def __ror__(self, other: Expr | bool) -> Expr: ...
        def __invert__(self) -> Expr: ...


Symbol: TypeAlias = Expr
Operand: TypeAlias = Expr | Number

_NODES: dict[tuple[Any, ...], Expr] = {}
_CONSTANTS: dict[tuple[type, Any], Expr] = {}
_SYMBOLS: dict[tuple[str, str], Expr] = {}
_NO_SYMBOLS: frozenset[Expr] = frozenset()


def _new(op: str, args: tuple[Any, ...], sort: str) -> Expr:
    node = object.__new__(Expr)
    node.op = op
    node.args = args
    node.sort = sort
    node.value = None
    node.name = None
    node.is_constant = False
    node.free_symbols = _NO_SYMBOLS
    node.diff = None
    node._key = None
    node._linear = None
    node._term_key = None
    node._text = None
    node._complement = None
    return node


def intern(op: str, args: tuple[Any, ...], sort: str) -> Expr:
    """The node ``op(*args)``. The caller has normalised it; nothing is checked here."""
    key = (op, args)
    node = _NODES.get(key)
    if node is None:
        node = _new(op, args, sort)
        symbols = _NO_SYMBOLS
        for arg in args:
            if arg.__class__ is Expr:
                more = arg.free_symbols
                if symbols is not more and more:
                    symbols = symbols | more if symbols else more
        node.free_symbols = symbols
        node = _NODES.setdefault(key, node)
    return node


def _rebuild(op: str, args: tuple[Any, ...], sort: str, diff: Expr | None) -> Expr:
    node = intern(op, args, sort)
    node.diff = diff
    return node


def const(value: Number | Expr) -> Expr:
    """The constant ``value``; an expression is returned as it is.

    ``1``, ``1.0`` and ``True`` are three constants of three sorts, and so are ``0.0`` and ``-0.0``.
    """
    kind = value.__class__
    if kind is Expr:
        return value  # type: ignore[return-value]
    key = (kind, value) if kind is not float else (float, _float_key(value))  # type: ignore[arg-type]
    node = _CONSTANTS.get(key)
    if node is not None:
        return node
    if isinstance(value, bool):
        sort, value = "bool", bool(value)
    elif isinstance(value, int):
        sort, value = "int", int(value)
    elif isinstance(value, float):
        sort, value = "float", float(value)
    else:
        raise TypeError(f"a symbolic expression cannot hold a {type(value).__name__}: {value!r}")
    if kind not in (bool, int, float):  # an IntEnum or numpy float: intern under the plain number
        return const(value)
    node = _new("const", (), sort)
    node.value = value
    node.is_constant = True
    return _CONSTANTS.setdefault(key, node)


def _float_key(value: float) -> Any:
    if value == 0.0 or value != value:
        return repr(value)
    return value


ZERO = const(0)
ONE = const(1)
TRUE = const(True)
FALSE = const(False)


def symbol(name: str, sort: str = "int") -> Expr:
    """The unknown called ``name``; the same name and sort give the same object.

    Raises:
        ValueError: ``name`` is no Python identifier or ``sort`` no sort.
    """
    node = _SYMBOLS.get((name, sort))
    if node is None:
        if sort not in _SORTS:
            raise ValueError(f"the sort of a symbol is one of {_SORTS}, not {sort!r}")
        if not name.isidentifier():
            raise ValueError(f"the name of a symbol must be an identifier, not {name!r}")
        node = _new("symbol", (), sort)
        node.name = name
        node.free_symbols = frozenset((node,))
        node = _SYMBOLS.setdefault((name, sort), node)
    return node


def unwrap(value: Any) -> Any:
    """A constant expression as its plain number; anything else as it is."""
    if value.__class__ is Expr and value.is_constant:
        return value.value
    return value


def as_int(value: Operand) -> Expr:
    """``value`` as an integer expression (booleans count 0 and 1, as in Python).

    Raises:
        TypeError: it is a float.
    """
    node = const(value)
    if node.sort == "int":
        return node
    return _bool_to_int(node)


def _bool_to_int(node: Expr) -> Expr:
    if node.sort != "bool":
        raise TypeError(f"expected an integer expression, got the {node.sort} `{node}`")
    if node.is_constant:
        return const(int(node.value))
    return intern("ite", (node, ONE, ZERO), "int")


def as_bool(value: Operand) -> Expr:
    """``value`` as a boolean expression.

    Raises:
        TypeError: it is a number (compare it with something).
    """
    node = const(value)
    if node.sort != "bool":
        raise TypeError(f"expected a boolean expression, got the {node.sort} `{node}`")
    return node


# -- the canonical order --------------------------------------------------------------------------

_RANKS = ("const", "symbol", "mul", "add", "floordiv", "mod", "pow", "max", "min")
_RANK = {op: i for i, op in enumerate(_RANKS)}
_NUMBERED = re.compile(r"(.*?)(\d*)\Z", re.DOTALL)


def order_key(node: Expr) -> tuple[Any, ...]:
    """Sort key of the canonical order: by kind, then name or operands; the same in every process.

    Numbered symbols sort by number (``s2`` before ``s10``). Keys share the keys of operands, and
    tuples compare by identity first, so shared sub-expressions are not walked.
    """
    key = node._key
    if key is None:
        key = node._key = _order_key(node)
    return key


def _order_key(node: Expr) -> tuple[Any, ...]:
    if node.op == "const":
        value = node.value
        if node.sort == "float" and not math.isfinite(value):
            return (0, node.sort + repr(value), 0, ())
        return (0, node.sort, value, ())
    if node.op == "symbol":
        match = _NUMBERED.match(node.name or "")
        stem, digits = match.groups() if match else (node.name, "")
        return (1, stem, int(digits or -1), (len(digits), node.sort))
    children = tuple(order_key(a) if a.__class__ is Expr else (0, str(a), 0, ()) for a in node.args)
    return (_RANK.get(node.op, len(_RANKS)), node.op, len(children), children)
