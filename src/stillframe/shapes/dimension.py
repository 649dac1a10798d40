"""Dims that may vary: ``Dim``, ``2*d + 1``, and the hints ``Dim.AUTO/DYNAMIC/STATIC``.

A :class:`Dim` names a size and gives its range; dims of one name are one size everywhere. A
:class:`DerivedDim` is an increasing linear function ``scale*root + offset`` of such a size, with
integer coefficients, so that its range follows from the root's ends and an example size has at most
one root. Any other arithmetic gives a :class:`DimExpression`, which cannot declare a size but can
be compared; a comparison is a :class:`Relation`, for ``export(..., assume=[b % 2 == 0, h == w])``.

All arithmetic is that of :mod:`stillframe.symbolic` over symbols called like the dims. Everything
here is immutable and compares by value: ``bool(a == b)`` says whether ``a`` and ``b`` are the same
declaration, as sets and dicts need it.
"""

from __future__ import annotations

import enum
import keyword
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from stillframe import symbolic as sym
from stillframe.errors import InvalidInput
from stillframe.symbolic import Expr, const, evaluate, symbol, to_python


class DimHint(enum.Enum):
    """A dim without a name of its own."""

    #: Dynamic if the program allows it; what was narrowed or fixed is reported.
    AUTO = "auto"
    #: Dynamic; a program that works for one size only is an error.
    DYNAMIC = "dynamic"
    #: The size of the example, always.
    STATIC = "static"

    def __repr__(self) -> str:
        return f"Dim.{self.name}"


class _Size:
    """Arithmetic and comparisons of sizes: an expression and the dims it is made of."""

    __slots__ = ()

    def expression(self) -> Expr:
        """The size as an integer expression over symbols called like the dims."""
        raise NotImplementedError

    def roots(self) -> dict[str, Dim]:
        """The dims it is made of, by name."""
        raise NotImplementedError

    def __str__(self) -> str:
        return to_python(self.expression())

    def __hash__(self) -> int:
        return hash((self.expression(), *(d.limits for d in self.roots().values())))

    def same_as(self, other: object) -> bool:
        """Whether both are the same declaration: expression, and ranges of the dims in it."""
        if not isinstance(other, _Size) or self.expression() is not other.expression():
            return False
        mine, theirs = self.roots(), other.roots()
        return mine.keys() == theirs.keys() and all(
            mine[name].limits == theirs[name].limits for name in mine
        )

    def __neg__(self) -> Dim | DerivedDim | DimExpression:
        return make_size(sym.neg(self.expression()), self.roots())

    if TYPE_CHECKING:  # installed below, all from one table

        def __add__(self, other: object) -> Any: ...
        def __radd__(self, other: object) -> Any: ...
        def __sub__(self, other: object) -> Any: ...
        def __rsub__(self, other: object) -> Any: ...
        def __mul__(self, other: object) -> Any: ...
        def __rmul__(self, other: object) -> Any: ...
        def __floordiv__(self, other: object) -> Any: ...
        def __mod__(self, other: object) -> Any: ...
        def __pow__(self, other: object) -> Any: ...
        def __lt__(self, other: object) -> Relation: ...
        def __le__(self, other: object) -> Relation: ...
        def __gt__(self, other: object) -> Relation: ...
        def __ge__(self, other: object) -> Relation: ...


def _arithmetic(
    function: Callable[[Any, Any], Expr], reflected: bool = False
) -> Callable[[Any, object], Any]:
    def method(self: _Size, other: object) -> Any:
        operand = _operand(other)
        if operand is None:
            return NotImplemented
        mine = self.expression()
        expr = function(operand, mine) if reflected else function(mine, operand)
        return make_size(expr, dims_by_name(_dims_of(self, other)))

    return method


def _comparison(function: Callable[[Any, Any], Expr], same: bool | None) -> Any:
    """``same``: what the truth of the relation is for two equal declarations; None for neither."""

    def method(self: _Size, other: object) -> Any:
        operand = _operand(other)
        if operand is None:
            return NotImplemented
        truth = None if same is None else self.same_as(other) is same
        return Relation(function(self.expression(), operand), _dims_of(self, other), truth)

    return method


for _name, _function in {
    "add": sym.add, "sub": sym.sub, "mul": sym.mul, "floordiv": sym.floordiv, "mod": sym.mod,
}.items():  # fmt: skip
    setattr(_Size, f"__{_name}__", _arithmetic(_function))
    setattr(_Size, f"__r{_name}__", _arithmetic(_function, reflected=True))


def _power(self: _Size, exponent: object) -> Any:
    """A whole, constant power: products of a size with itself print so."""
    if not _is_int(exponent) or exponent < 0:  # type: ignore[operator]
        return NotImplemented
    return make_size(sym.power(self.expression(), exponent), self.roots())


setattr(_Size, "__pow__", _power)
for _name, _compare, _same in (
    ("eq", sym.eq, True),
    ("ne", sym.ne, False),
    ("lt", sym.lt, None),
    ("le", sym.le, None),
    ("gt", sym.gt, None),
    ("ge", sym.ge, None),
):
    setattr(_Size, f"__{_name}__", _comparison(_compare, _same))


def _operand(value: object) -> Expr | None:
    if isinstance(value, _Size):
        return value.expression()
    if _is_int(value):
        return const(value)  # type: ignore[arg-type]
    return None


def _dims_of(*values: object) -> tuple[Dim, ...]:
    return tuple(d for v in values if isinstance(v, _Size) for d in v.roots().values())


def dims_by_name(dims: Iterable[Dim]) -> dict[str, Dim]:
    """The dims by name.

    Raises:
        InvalidInput: one name with two ranges.
    """
    found: dict[str, Dim] = {}
    for dim in dims:
        known = found.setdefault(dim.__name__, dim)
        if known.limits != dim.limits:
            raise InvalidInput(
                f"The dim {dim.__name__!r} has two ranges: {known!r} and {dim!r}.",
                why="one name is one size everywhere",
            )
    return found


@dataclass(frozen=True, repr=False, eq=False, init=False)
class Dim(_Size):
    """A size that may vary, by name: ``Dim("batch", min=1, max=64)``.

    Args:
        name: an identifier. The same name means the same size wherever it is used.
        min: smallest size, 0 if not given.
        max: largest size, both ends included; None for no limit.
        values: the only sizes there are, for a dim that is one of a set; then without min and max.

    ``2*d``, ``d + 1``, ``8*d - 3`` are sizes derived from it (:class:`DerivedDim`); comparisons
    such as ``d % 2 == 0`` or ``h == w`` are relations for ``export(..., assume=[...])``.

    Raises:
        InvalidInput: no identifier, or ends that are not ``min <= max``.
    """

    __name__: str
    min: int
    max: int | None
    values: tuple[int, ...]

    AUTO: ClassVar = DimHint.AUTO
    DYNAMIC: ClassVar = DimHint.DYNAMIC
    STATIC: ClassVar = DimHint.STATIC

    def __init__(
        self,
        name: str,
        *,
        min: int | None = None,
        max: int | None = None,
        values: Iterable[int] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInput(
                f"A Dim's name must be an identifier, got {name!r}.", hints=["Dim('batch')"]
            )
        for end, value in (("min", min), ("max", max)):
            if value is not None and not _is_int(value):
                raise InvalidInput(f"Dim({name!r}): {end} must be an int or None, got {value!r}.")
        allowed = () if values is None else _checked_values(name, values, min, max)
        if allowed:
            min, max = allowed[0], allowed[-1]
        low = 0 if min is None else min
        if max is not None and max < low:
            raise InvalidInput(f"Dim({name!r}): min ({low}) is larger than max ({max}).")
        object.__setattr__(self, "__name__", name)
        object.__setattr__(self, "min", low)
        object.__setattr__(self, "max", max)
        object.__setattr__(self, "values", allowed)

    @property
    def limits(self) -> tuple[int, int | None, tuple[int, ...]]:
        """Smallest size, largest size or None, and the set of sizes if it has one."""
        return self.min, self.max, self.values

    def admits(self, size: int) -> bool:
        """Whether the dim may have this size."""
        if self.values:
            return size in self.values
        return self.min <= size and (self.max is None or size <= self.max)

    def membership(self) -> Expr | None:
        """For a dim with a set of sizes: that it is one of them."""
        if not self.values:
            return None
        return sym.or_(*[sym.eq(self.expression(), value) for value in self.values])

    def expression(self) -> Expr:
        return symbol(self.__name__)

    def roots(self) -> dict[str, Dim]:
        return {self.__name__: self}

    def __repr__(self) -> str:
        parts = [repr(self.__name__)]
        if self.values:
            parts.append(f"values={self.values}")
        else:
            parts += [f"min={self.min}"] if self.min else []
            parts += [f"max={self.max}"] if self.max is not None else []
        return f"Dim({', '.join(parts)})"


def _checked_values(
    name: str, values: Iterable[int], low: int | None, high: int | None
) -> tuple[int, ...]:
    given = list(values)
    if low is not None or high is not None:
        raise InvalidInput(f"Dim({name!r}): give either values or min and max.")
    if not given or not all(_is_int(v) for v in given):
        raise InvalidInput(
            f"Dim({name!r}): values must be one or more ints, got {given!r}.",
            hints=[f"Dim({name!r}, values=(1, 8, 32))"],
        )
    return tuple(sorted(set(given)))


@dataclass(frozen=True, repr=False, eq=False)
class DerivedDim(_Size):
    """``scale*root + offset`` with ``scale >= 1``; made by arithmetic on a :class:`Dim`."""

    root: Dim
    scale: int
    offset: int

    @property
    def __name__(self) -> str:
        return str(self)

    @property
    def min(self) -> int:
        """The size at the root's smallest; negative when the root's range is too wide."""
        return self.scale * self.root.min + self.offset

    @property
    def max(self) -> int | None:
        """The size at the root's largest, or None."""
        return None if self.root.max is None else self.scale * self.root.max + self.offset

    def root_size(self, size: int) -> int | None:
        """The root's size when this dim has ``size``; None if no integer gives it."""
        quotient, remainder = divmod(size - self.offset, self.scale)
        return None if remainder else quotient

    def expression(self) -> Expr:
        return sym.add(sym.mul(self.scale, self.root.expression()), self.offset)

    def roots(self) -> dict[str, Dim]:
        return self.root.roots()

    def __str__(self) -> str:
        text = self.root.__name__ if self.scale == 1 else f"{self.scale}*{self.root.__name__}"
        if self.offset:
            text += f" {'+' if self.offset > 0 else '-'} {abs(self.offset)}"
        return text if self.scale == 1 or not self.offset else f"({text})"

    def __repr__(self) -> str:
        return f"<{self!s} of {self.root!r}>"


@dataclass(frozen=True, repr=False, eq=False)
class DimExpression(_Size):
    """Arithmetic on dims that declares no size, only good for comparing: ``b % 2``, ``h * w``."""

    expr: Expr
    dims: dict[str, Dim] = field(hash=False)

    def expression(self) -> Expr:
        return self.expr

    def roots(self) -> dict[str, Dim]:
        return self.dims

    def __repr__(self) -> str:
        return f"<{self!s}>"


def make_size(expr: Expr, roots: dict[str, Dim]) -> Dim | DerivedDim | DimExpression:
    """The size with this expression: a dim or derived dim where it is one."""
    if len(expr.free_symbols) == 1 and expr.sort == "int":
        (root,) = expr.free_symbols
        offset = _value(expr, root, 0)
        scale = _value(expr, root, 1) - offset
        if scale >= 1 and sym.add(sym.mul(scale, root), offset) is expr:
            dim = roots[str(root)]
            return dim if (scale, offset) == (1, 0) else DerivedDim(dim, scale, offset)
    return DimExpression(expr, roots)


def _value(expr: Expr, root: Expr, value: int) -> int:
    """The value at one place; 0 where it has none (then it is not linear)."""
    try:
        return int(evaluate(expr, {root: value}))
    except ArithmeticError:
        return 0


class Relation:
    """A condition on dims, for ``export(..., assume=[...])``.

    Made by comparing sizes (``h == w``, ``b % 2 == 0``, ``s <= 4 * b``) and combined with ``&``,
    ``|`` and ``~``.

    Attributes:
        expr: boolean expression over symbols called like the dims.
        dims: the dims in it.
    """

    __slots__ = ("_truth", "dims", "expr")

    def __init__(self, expr: Expr, dims: tuple[Dim, ...], truth: bool | None = None) -> None:
        self.expr = expr
        self.dims = dims
        self._truth = truth

    def __bool__(self) -> bool:
        if self._truth is None:
            raise InvalidInput(
                f"`{self}` is a relation between dims, and has no truth value here.",
                hints=[
                    "pass it to export(..., assume=[...]); combine relations with & | ~, "
                    "and write 1 <= b <= 8 as two of them"
                ],
            )
        return self._truth

    def __and__(self, other: object) -> Any:
        if not isinstance(other, Relation):
            return NotImplemented
        return Relation(sym.and_(self.expr, other.expr), self.dims + other.dims)

    def __or__(self, other: object) -> Any:
        if not isinstance(other, Relation):
            return NotImplemented
        return Relation(sym.or_(self.expr, other.expr), self.dims + other.dims)

    def __invert__(self) -> Relation:
        return Relation(sym.not_(self.expr), self.dims)

    def __str__(self) -> str:
        return to_python(self.expr)

    def __repr__(self) -> str:
        return f"<{self!s}>"


#: What may stand for one dim of a tensor. An int must be the example's size; None means static.
DimSpec = Dim | DerivedDim | DimHint | int | None


def dims(*names: str, min: int | None = None, max: int | None = None) -> tuple[Dim, ...]:
    """One :class:`Dim` for each name, all with the same range."""
    return tuple(Dim(name, min=min, max=max) for name in names)


def foreign_dim(spec: object) -> DimSpec:
    """``torch.export``'s own dims as ours; anything else unchanged.

    They are recognised by what they look like (their module, ``__name__``, ``min``, ``max``), so
    that torch's capture stack is not imported for them.

    Raises:
        InvalidInput: a derived dim of theirs that is not increasing linear.
    """
    if not type(spec).__module__.startswith("torch.export"):
        return spec  # type: ignore[return-value]
    given: Any = spec
    hint = getattr(getattr(given, "type", None), "name", None)
    if isinstance(hint, str) and hint in DimHint.__members__:
        return DimHint[hint]
    if hasattr(given, "root") and callable(getattr(given, "fn", None)):
        return _foreign_derived(given)
    if isinstance(getattr(given, "__name__", None), str) and hasattr(given, "max"):
        high = given.max if _is_int(given.max) else None  # theirs is an infinity object
        return Dim(given.__name__, min=given.min, max=high)
    raise InvalidInput(
        f"{given!r} of {type(given).__module__} is not a dim that stillframe knows.",
        hints=["use stillframe.Dim(name, min=..., max=...)"],
    )


def _foreign_derived(given: Any) -> DimSpec:
    root = foreign_dim(given.root)
    offset = given.fn(0)
    scale = given.fn(1) - offset
    if not isinstance(root, Dim) or scale < 1 or given.fn(5) != 5 * scale + offset:
        raise InvalidInput(f"{given} is not a derived dim.", why=NOT_LINEAR)
    return root if (scale, offset) == (1, 0) else DerivedDim(root, scale, offset)


#: Why a :class:`DimExpression` declares no size.
NOT_LINEAR = (
    "a size is declared as a Dim or as k*d + c with integers k >= 1 and c, so that it tells d"
)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
