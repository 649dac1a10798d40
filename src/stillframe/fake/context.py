"""RuleContext: what a shape rule may use to build its answer and to ask about sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import ShapeEnv, Size
from stillframe.symbolic import Expr, eq, unwrap

_CPU = torch.device("cpu")


class RuleContext:
    """Builders and questions for one environment. Stateless but for ``requires_grad``.

    ``requires_grad`` is set by the mode before each rule: whether results that are new tensors of
    a differentiable dtype require grad.
    """

    def __init__(self, env: ShapeEnv) -> None:
        self.env = env
        self.requires_grad = False

    # -- building -----------------------------------------------------------------------------

    def empty(
        self,
        sizes: Sequence[Size | Expr],
        *,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
        strides: Sequence[Size] | None = None,
    ) -> FakeTensor:
        """A tensor with memory of its own; contiguous unless ``strides`` are given."""
        plain = tuple(s if type(s) is int else unwrap(s) for s in sizes)
        return FakeTensor.make(
            self.env,
            plain,
            layout.contiguous_strides(plain) if strides is None else _plain(strides),
            0,
            dtype,
            _CPU if device is None else torch.device(device),
            self.requires_grad and (dtype.is_floating_point or dtype.is_complex),
        )

    def new(
        self,
        like: FakeTensor,
        sizes: Sequence[Size | Expr],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        strides: Sequence[Size] | None = None,
    ) -> FakeTensor:
        """:meth:`empty` with dtype and device of ``like`` where they are not given."""
        return self.empty(
            sizes, dtype=dtype or like.dtype, device=device or like.device, strides=strides
        )

    def new_like(
        self,
        t: FakeTensor,
        *,
        dtype: torch.dtype | None = None,
        sizes: Sequence[Size] | None = None,
        device: torch.device | None = None,
    ) -> FakeTensor:
        """Fresh memory in the memory format of ``t`` (``torch.preserve_format``).

        Dense, non-overlapping tensors keep their strides. Others get the order of their strides
        if that is known, made dense.
        """
        sizes = t.sizes if sizes is None else sizes
        return self.new(
            t, sizes, dtype=dtype, device=device, strides=self.preserved_strides(t, sizes)
        )

    def preserved_strides(
        self, t: FakeTensor, sizes: Sequence[Size] | None = None
    ) -> tuple[Size, ...]:
        """The strides that ``empty_like(t)`` has."""
        sizes = t.sizes if sizes is None else sizes
        if layout.is_contiguous(t.sizes, t.strides):
            return layout.contiguous_strides(sizes)
        order = layout.stride_order(t.sizes, t.strides)
        if order is None:
            order = self.sorted_dims(t)
        elif tuple(sizes) == t.sizes:
            return t.strides
        return layout.permuted_strides(sizes, order)

    def sorted_dims(self, t: FakeTensor) -> tuple[int, ...]:
        """Dims from fastest to slowest by stride, as elementwise kernels order their output.

        Broadcast dims (stride 0) keep their place relative to their neighbours.
        """
        rank = len(t.sizes)
        order = list(range(rank - 1, -1, -1))
        for i in range(1, rank):
            at = i
            for j in range(i - 1, -1, -1):
                verdict = self._swap(t, order[j], order[at])
                if verdict > 0:
                    order[j], order[at] = order[at], order[j]
                    at = j
                elif verdict < 0:
                    break
        return tuple(order)

    def _swap(self, t: FakeTensor, a: int, b: int) -> int:
        """1 if dim ``a`` must come after ``b``, -1 if before, 0 if their strides do not tell."""
        sa, sb = t.strides[a], t.strides[b]
        if sa is sb or sa == 0 or sb == 0:
            if sa is sb and sa != 0:
                return 1 if self.known(t.sizes[a] > t.sizes[b]) is True else 0
            return 0
        if self.known(sa < sb) is True:
            return -1
        if self.known(sb < sa) is True:
            return 1
        return 0 if self.known(eq(sa, sb)) is True else self._swap_by_hint(sa, sb)

    def _swap_by_hint(self, sa: Size, sb: Size) -> int:
        return -1 if self.guard(sa <= sb) else 1

    def view(
        self,
        base: FakeTensor,
        sizes: Sequence[Size | Expr],
        strides: Sequence[Size | Expr],
        offset: Size | Expr,
        *,
        dtype: torch.dtype | None = None,
    ) -> FakeTensor:
        """A tensor over the memory of ``base``; it requires grad if ``base`` does."""
        dtype = dtype or base.dtype
        made = FakeTensor.make(
            self.env,
            _plain(sizes),
            _plain(strides),
            offset if type(offset) is int else unwrap(offset),
            dtype,
            base.device,
            self.requires_grad
            and base.requires_grad
            and (dtype.is_floating_point or dtype.is_complex),
            base.storage_,
        )
        made.base = base
        return made

    def alias(self, base: FakeTensor) -> FakeTensor:
        """A new tensor object over all of ``base``."""
        return self.view(base, base.sizes, base.strides, base.offset)

    def unbacked(self, lower: float = 0, upper: float = math.inf, *, sort: str = "int") -> Expr:
        """A new size that only the data can tell."""
        return self.env.new_unbacked(lower, upper, sort=sort)

    # -- layout -------------------------------------------------------------------------------

    contiguous_strides = staticmethod(layout.contiguous_strides)
    channels_last_strides = staticmethod(layout.channels_last_strides)
    numel = staticmethod(layout.numel)

    def is_contiguous(self, t: FakeTensor) -> bool:
        return layout.is_contiguous(t.sizes, t.strides)

    def is_channels_last(self, t: FakeTensor) -> bool:
        """NHWC or NDHWC, by rank."""
        return layout.is_channels_last(t.sizes, t.strides, len(t.sizes)) and len(t.sizes) in (4, 5)

    def is_dense(self, t: FakeTensor) -> bool:
        return layout.is_non_overlapping_and_dense(t.sizes, t.strides)

    # -- questions ----------------------------------------------------------------------------

    def known(self, cond: Expr | bool) -> bool | None:
        """True, False, or None where the facts do not tell. Never adds a guard."""
        return self.env.facts.decide(cond) if isinstance(cond, Expr) else bool(cond)

    def guard(self, cond: Expr | bool) -> bool:
        """The answer for the example; recorded as a guard where the facts do not tell."""
        return self.env.evaluate(cond) if isinstance(cond, Expr) else bool(cond)

    def same(self, a: Size, b: Size) -> bool:
        """Whether two sizes are equal (a guard where the facts do not tell)."""
        if a is b:
            return True
        if type(a) is int and type(b) is int:
            return a == b
        return self.guard(eq(a, b))

    def require(self, cond: Expr | bool, message: str) -> None:
        """``cond`` must hold for the operator to be legal.

        Raises:
            RuntimeError: it is known not to hold (what eager would raise).
        """
        if not isinstance(cond, Expr):
            if not cond:
                raise RuntimeError(message)
        elif self.env.facts.decide(cond) is not True and not self.env.expect_true(cond, message):
            raise RuntimeError(message)

    def require_same(self, a: Size, b: Size, message: str) -> Size:
        """Both sizes must be equal; returns the simpler of them (an int if one is)."""
        if a is not b:
            self.require(
                unwrap(eq(a, b)) if not (type(a) is int and type(b) is int) else a == b, message
            )
        return a if type(a) is int else b

    def broadcast(self, *shapes: Sequence[Size]) -> tuple[Size, ...]:
        """The broadcast shape. A symbolic size beside 1 wins; two different ones must be equal.

        Size-oblivious: whether a symbolic size is 1 is never asked, except where two sizes that
        could only go together if one of them were 1 in the example meet.
        """
        rank = max(map(len, shapes))
        out: list[Size] = [1] * rank
        for shape in shapes:
            lead = rank - len(shape)
            for i, size in enumerate(shape):
                at = lead + i
                here = out[at]
                if here is size or (type(size) is int and size == 1):
                    continue
                if type(here) is int and here == 1:
                    out[at] = size
                elif not (type(here) is int and type(size) is int):
                    out[at] = self._join(here, size, at, rank)
                elif here != size:
                    raise RuntimeError(
                        f"The size of tensor a ({here}) must match the size of tensor b ({size}) "
                        f"at non-singleton dimension {at}"
                    )
        return tuple(out)

    def _join(self, a: Size, b: Size, at: int, rank: int) -> Size:
        known = self.known(eq(a, b))
        if known is True:
            return a if type(a) is int else b
        env = self.env
        if isinstance(a, Expr) and env.hint_of(a) == 1 != _hint(env, b):
            self.require(eq(a, 1), "")
            return b
        if isinstance(b, Expr) and env.hint_of(b) == 1 != _hint(env, a):
            self.require(eq(b, 1), "")
            return a
        self.require(
            eq(a, b),
            f"The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton "
            f"dimension {at}",
        )
        return a if type(a) is int else b

    # -- dtypes -------------------------------------------------------------------------------

    def promote(self, *operands: Any) -> torch.dtype:
        """The result dtype of an elementwise operator (``torch.result_type`` over all operands).

        Dims count: tensors with dims outrank 0-dim tensors, which outrank Python numbers, within
        the same category (bool, integer, float, complex).
        """
        ranked: list[torch.dtype | None] = [None, None, None]
        for operand in operands:
            if isinstance(operand, FakeTensor):
                level = 0 if operand.sizes else 1
                dtype = operand.dtype
            else:
                level, dtype = 2, _scalar_dtype(operand)
            seen = ranked[level]
            ranked[level] = (
                dtype if seen is None or seen is dtype else torch.promote_types(seen, dtype)
            )
        dims, zero, number = ranked
        return _combine(_combine(dims, zero), number) or torch.get_default_dtype()

    def unsupported(self, what: str) -> NotSupported:
        """The error to raise for a case that a rule does not cover."""
        return NotSupported(what)


def _hint(env: ShapeEnv, size: Size) -> Any:
    return env.hint_of(size) if isinstance(size, Expr) else size


def _plain(sizes: Sequence[Size | Expr]) -> tuple[Size, ...]:
    return tuple(s if type(s) is int else unwrap(s) for s in sizes)


def _scalar_dtype(value: Any) -> torch.dtype:
    if isinstance(value, Expr):
        value = {"int": 0, "float": 0.0, "bool": False}[value.sort]
    if isinstance(value, bool):
        return torch.bool
    if isinstance(value, int):
        return torch.int64
    if isinstance(value, float):
        return torch.get_default_dtype()
    if isinstance(value, complex):
        return (
            torch.complex64 if torch.get_default_dtype() is not torch.float64 else torch.complex128
        )
    raise TypeError(f"not a number: {value!r}")


def _category(dtype: torch.dtype) -> int:
    if dtype.is_complex:
        return 3
    if dtype.is_floating_point:
        return 2
    return 0 if dtype is torch.bool else 1


def _combine(strong: torch.dtype | None, weak: torch.dtype | None) -> torch.dtype | None:
    """``weak`` matters only where its category is higher."""
    if strong is None or weak is None:
        return strong if weak is None else weak
    if _category(weak) > _category(strong):
        if weak.is_complex and strong.is_floating_point:
            return (
                torch.promote_types(strong, torch.complex32)
                if strong is torch.float16
                else torch.promote_types(weak, strong)
                if strong is torch.float64
                else weak
            )
        return weak
    return strong
