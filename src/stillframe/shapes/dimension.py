"""Dims that may vary: ``Dim``, ``2*d + 1``, and the hints ``Dim.AUTO/DYNAMIC/STATIC``.

A :class:`Dim` names a size and gives its range; dims of one name are one size everywhere. A
:class:`DerivedDim` is an increasing linear function ``scale*root + offset`` of such a size, with
integer coefficients, so that its range follows from the root's ends and an example size has at most
one root. Everything here is immutable and compares by value.
"""

from __future__ import annotations

import enum
import keyword
from dataclasses import dataclass
from typing import Any, ClassVar

from stillframe.errors import InvalidInput


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


class _Linear:
    """Arithmetic that Dim and DerivedDim share: both are ``scale*root + offset``."""

    __slots__ = ()

    def _linear(self) -> tuple[Dim, int, int]:
        raise NotImplementedError

    def __mul__(self, factor: object) -> Dim | DerivedDim:
        root, scale, offset = self._linear()
        if not _is_int(factor):
            raise _not_linear(f"{self!s} * {_operand(factor)}", "the factor must be an int")
        assert isinstance(factor, int)
        if factor < 1:
            raise _not_linear(
                f"{self!s} * {factor}",
                "a derived dim must grow with its root: the factor is 1 or more",
            )
        return _make(root, scale * factor, offset * factor)

    def __add__(self, other: object) -> Dim | DerivedDim:
        root, scale, offset = self._linear()
        if not _is_int(other):
            raise _not_linear(f"{self!s} + {_operand(other)}", "the offset must be an int")
        assert isinstance(other, int)
        return _make(root, scale, offset + other)

    def __sub__(self, other: object) -> Dim | DerivedDim:
        root, scale, offset = self._linear()
        if not _is_int(other):
            raise _not_linear(f"{self!s} - {_operand(other)}", "the offset must be an int")
        assert isinstance(other, int)
        return _make(root, scale, offset - other)

    __rmul__ = __mul__
    __radd__ = __add__

    def __rsub__(self, other: object) -> Dim:
        raise _not_linear(f"{_operand(other)} - {self!s}", "it would shrink as its root grows")

    def __neg__(self) -> Dim:
        raise _not_linear(f"-{self!s}", "it would shrink as its root grows")

    def __floordiv__(self, other: object) -> Dim:
        raise _not_linear(
            f"{self!s} // {_operand(other)}",
            "floor division is not linear",
            hint="give the smaller size the name, and write the larger as a multiple: 2*half",
        )

    def __truediv__(self, other: object) -> Dim:
        raise _not_linear(
            f"{self!s} / {_operand(other)}",
            "division is not linear with integer coefficients",
            hint="give the smaller size the name, and write the larger as a multiple: 2*half",
        )

    def __mod__(self, other: object) -> Dim:
        raise _not_linear(
            f"{self!s} % {_operand(other)}",
            "a remainder is not linear",
            hint="a size that is a multiple of 8 is written 8*d",
        )


@dataclass(frozen=True, repr=False, slots=True, init=False)
class Dim(_Linear):
    """A size that may vary, by name: ``Dim("batch", min=1, max=64)``.

    Args:
        name: an identifier. The same name means the same size wherever it is used.
        min: smallest size, 0 if not given.
        max: largest size, both ends included; None for no limit.

    ``2*d``, ``d + 1``, ``8*d - 3`` are sizes derived from it (:class:`DerivedDim`).

    Raises:
        InvalidInput: no identifier, or ends that are not ``0 <= min <= max``.
    """

    __name__: str
    min: int
    max: int | None

    AUTO: ClassVar = DimHint.AUTO
    DYNAMIC: ClassVar = DimHint.DYNAMIC
    STATIC: ClassVar = DimHint.STATIC

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None) -> None:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInput(
                f"A Dim's name must be an identifier, got {name!r}.", hints=["Dim('batch')"]
            )
        for end, value in (("min", min), ("max", max)):
            if value is not None and not _is_int(value):
                raise InvalidInput(f"Dim({name!r}): {end} must be an int or None, got {value!r}.")
        low = 0 if min is None else min
        if low < 0:
            raise InvalidInput(f"Dim({name!r}): min is {low}, and no size is negative.")
        if max is not None and max < low:
            raise InvalidInput(f"Dim({name!r}): min ({low}) is larger than max ({max}).")
        object.__setattr__(self, "__name__", name)
        object.__setattr__(self, "min", low)
        object.__setattr__(self, "max", max)

    def _linear(self) -> tuple[Dim, int, int]:
        return self, 1, 0

    def __str__(self) -> str:
        return self.__name__

    def __repr__(self) -> str:
        parts = [repr(self.__name__)]
        parts += [f"min={self.min}"] if self.min else []
        parts += [f"max={self.max}"] if self.max is not None else []
        return f"Dim({', '.join(parts)})"


@dataclass(frozen=True, repr=False, slots=True)
class DerivedDim(_Linear):
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

    def _linear(self) -> tuple[Dim, int, int]:
        return self.root, self.scale, self.offset

    def __str__(self) -> str:
        text = self.root.__name__ if self.scale == 1 else f"{self.scale}*{self.root.__name__}"
        if self.offset:
            text += f" {'+' if self.offset > 0 else '-'} {abs(self.offset)}"
        return text if self.scale == 1 or not self.offset else f"({text})"

    def __repr__(self) -> str:
        return f"<{self!s} of {self.root!r}>"


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
        raise _not_linear(str(given), "only scale*root + offset with a positive scale is")
    return _make(root, scale, offset)


def _make(root: Dim, scale: int, offset: int) -> Dim | DerivedDim:
    return root if (scale, offset) == (1, 0) else DerivedDim(root, scale, offset)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _operand(value: object) -> str:
    return str(value) if isinstance(value, _Linear) else repr(value)


def _not_linear(text: str, why: str, hint: str = "") -> InvalidInput:
    return InvalidInput(
        f"{text} is not a derived dim.",
        why=f"{why}; a derived dim is k*d + c with integers k >= 1 and c",
        hints=[hint] if hint else [],
    )
