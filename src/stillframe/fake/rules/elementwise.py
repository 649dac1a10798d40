"""What all elementwise operators share: result sizes, memory layout, dtype, in-place checks.

ATen runs them through one iterator. The layout of a result follows from the operands' strides:

1. All operands have the result's sizes: all contiguous -> contiguous; else all NHWC -> NHWC; else
   all dense with the same strides -> those strides.
2. Otherwise the dims are sorted by stride. Operands are asked in order; one says nothing about two
   dims if it is broadcast along either (stride 0), and of equal strides the smaller dim is faster.
   The result is dense in that order; without any verdict the order is row-major.

An operand that must be cast to the common dtype first is copied, so its copy's strides count. The
answers depend on sizes and strides alone and are memoised on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, eq, unwrap

Sizes = tuple[Size, ...]
Strides = tuple[Size, ...]
Layout = tuple[Sizes, Strides]
Compare = Callable[[Size, Size], int | None]

contiguous_strides = lru_cache(8192)(layout.contiguous_strides)


# -- memory layout ---------------------------------------------------------------------------------


def elementwise_layout(
    ctx: RuleContext,
    operands: Sequence[FakeTensor],
    sizes: Sizes,
    common: torch.dtype | None = None,
) -> Strides:
    """Strides of the elementwise result of ``operands`` with the broadcast ``sizes``.

    Args:
        common: the dtype that operands are cast to first, or None where they are not cast.
    """
    if len(operands) == 1:
        layouts: tuple[Layout, ...] = ((operands[0].sizes, operands[0].strides),)
    elif common is None:
        layouts = tuple([(t.sizes, t.strides) for t in operands])
    else:
        layouts = tuple(
            [(t.sizes, t.strides if t.dtype is common else dense_strides(ctx, t)) for t in operands]
        )
    return layout_of(ctx, sizes, layouts)


def dense_strides(ctx: RuleContext, t: FakeTensor) -> Strides:
    """The strides of ``empty_like(t)`` and of copies with ``torch.preserve_format``.

    Dense memory keeps its strides to the letter, those of dims of size 1 too; otherwise the dims
    are sorted by stride as above.
    """
    return _kept_if_dense(t.sizes, t.strides) or layout_of(ctx, t.sizes, ((t.sizes, t.strides),))


@lru_cache(16384)
def _kept_if_dense(sizes: Sizes, strides: Strides) -> Strides | None:
    return strides if layout.is_non_overlapping_and_dense(sizes, strides) else None


def layout_of(ctx: RuleContext, sizes: Sizes, layouts: tuple[Layout, ...]) -> Strides:
    """:func:`elementwise_layout` on bare ``(sizes, strides)`` pairs."""
    strides = _structural_layout(sizes, layouts)
    if strides is None:
        strides = _sorted_layout(sizes, layouts, lambda a, b: _compare_in(ctx, a, b))
        assert strides is not None
    return strides


@lru_cache(16384)
def _structural_layout(sizes: Sizes, layouts: tuple[Layout, ...]) -> Strides | None:
    """The answer where the form of the strides gives it, else None."""
    if len(sizes) < 2:
        return contiguous_strides(sizes)
    if all(own == sizes for own, _ in layouts):
        if all(layout.is_contiguous(sizes, strides) for _, strides in layouts):
            return contiguous_strides(sizes)
        if len(sizes) == 4 and all(layout.is_channels_last(sizes, st) for _, st in layouts):
            return layout.channels_last_strides(sizes)
        first = layouts[0][1]
        if all(st == first for _, st in layouts) and layout.is_non_overlapping_and_dense(
            sizes, first
        ):
            return first
    return _sorted_layout(sizes, layouts, compare_strides)


def _sorted_layout(sizes: Sizes, layouts: tuple[Layout, ...], compare: Compare) -> Strides | None:
    """Dense strides in the order of the operands' strides; None if ``compare`` cannot say."""
    rank = len(sizes)
    aligned = [_aligned(sizes, own, strides) for own, strides in layouts]
    order = list(range(rank - 1, -1, -1))
    # Insertion sort with "don't know" answers, as ATen does it: an undecided pair is stepped over.
    for i in range(1, rank):
        at = i
        for j in range(i - 1, -1, -1):
            verdict = _verdict(sizes, aligned, order[j], order[at], compare)
            if verdict is None:
                return None
            if verdict > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif verdict < 0:
                break
    if order != list(range(rank - 1, -1, -1)) and any(type(s) is int and s == 0 for s in sizes):
        return _strides_of_nothing(sizes, order)
    return layout.permuted_strides(sizes, order)


def _strides_of_nothing(sizes: Sizes, order: Sequence[int]) -> Strides:
    """Strides of an empty result that is not row-major: the sizes are multiplied as they are."""
    strides: list[Size] = [0] * len(sizes)
    step: Size = 1
    for dim in order:
        strides[dim] = step
        step = 0 if type(sizes[dim]) is int and sizes[dim] == 0 else unwrap(step * sizes[dim])
    return tuple(strides)


def _aligned(sizes: Sizes, own: Sizes, strides: Strides) -> tuple[Size, ...]:
    """Strides of an operand over the result's dims: 0 where it is broadcast."""
    lead = len(sizes) - len(own)
    return (0,) * lead + tuple(
        0 if type(size) is int and size == 1 and sizes[lead + i] != 1 else strides[i]
        for i, size in enumerate(own)
    )


def _verdict(
    sizes: Sizes, aligned: Sequence[tuple[Size, ...]], a: int, b: int, compare: Compare
) -> int | None:
    """-1: dim ``a`` is faster; 1: ``b`` is; 0: the operands do not tell; None: not comparable."""
    for strides in aligned:
        sa, sb = strides[a], strides[b]
        if (type(sa) is int and sa == 0) or (type(sb) is int and sb == 0):
            continue
        verdict = compare(sa, sb)
        if verdict != 0:
            return verdict
        if type(sizes[a]) is int and type(sizes[b]) is int and sizes[a] > sizes[b]:
            return 1
        if type(sizes[b]) is int and sizes[b] == 1 and type(sizes[a]) is not int:
            return 1
    return 0


def compare_strides(a: Size, b: Size) -> int | None:
    """The order of two strides by form: one is less if its factors are among the other's."""
    if a is b:
        return 0
    if type(a) is int and type(b) is int:
        return (a > b) - (a < b)
    if (type(a) is int and a == 0) or (type(b) is int and b == 0):
        return -1 if type(a) is int else 1
    ca, fa = _factors(a)
    cb, fb = _factors(b)
    if cb % ca == 0 and _within(fa, fb):
        return -1
    if ca % cb == 0 and _within(fb, fa):
        return 1
    return None


def _compare_in(ctx: RuleContext, a: Size, b: Size) -> int:
    """The same with the facts; where they do not tell, as in the example.

    That adds no guard: the order of strides which come from unrelated sizes is metadata alone (the
    operator decides for itself at run time), and a program must not lose sizes for it.
    """
    verdict = compare_strides(a, b)
    if verdict is not None:
        return verdict
    if ctx.known(eq(a, b)) is True:
        return 0
    if ctx.known(a <= b) is True:
        return -1
    if ctx.known(b <= a) is True:
        return 1
    hints = [ctx.env.hint_of(s) if isinstance(s, Expr) else s for s in (a, b)]
    return 0 if None in hints else (hints[0] > hints[1]) - (hints[0] < hints[1])


def _factors(size: Size) -> tuple[int, list[Any]]:
    if type(size) is int:
        return size or 1, []
    assert isinstance(size, Expr)
    if size.op != "mul":
        return 1, [size]
    coefficient, rest = 1, []
    for arg in size.args:
        if arg.is_constant:
            coefficient *= arg.value
        else:
            rest.append(arg)
    return coefficient or 1, rest


def _within(few: list[Any], many: list[Any]) -> bool:
    rest = list(many)
    for factor in few:
        if factor not in rest:
            return False
        rest.remove(factor)
    return True


# -- results ---------------------------------------------------------------------------------------


def fresh(
    ctx: RuleContext, sizes: Sizes, strides: Strides, dtype: torch.dtype, device: torch.device
) -> FakeTensor:
    """New memory; sizes and strides are plain already (the short way of ``ctx.empty``)."""
    return FakeTensor.make(
        ctx.env,
        sizes,
        strides,
        0,
        dtype,
        device,
        ctx.requires_grad and (dtype.is_floating_point or dtype.is_complex),
    )


def contiguous(
    ctx: RuleContext, sizes: Sizes, dtype: torch.dtype, device: torch.device
) -> FakeTensor:
    """New row-major memory."""
    return fresh(ctx, sizes, contiguous_strides(sizes), dtype, device)


def dense_like(ctx: RuleContext, t: FakeTensor, dtype: torch.dtype | None = None) -> FakeTensor:
    """``empty_like(t)``: dense, in the order of ``t``'s strides."""
    return fresh(ctx, t.sizes, dense_strides(ctx, t), dtype or t.dtype, t.device)


def whole_copy(ctx: RuleContext, t: FakeTensor) -> FakeTensor:
    """A copy of the whole storage, gaps and all: the layout of ``t``, unless its memory repeats."""
    for size, stride in zip(t.sizes, t.strides, strict=True):
        if stride == 0 and size != 1:
            return dense_like(ctx, t)
    return FakeTensor.make(
        ctx.env,
        t.sizes,
        t.strides,
        t.offset,
        t.dtype,
        t.device,
        ctx.requires_grad and (t.dtype.is_floating_point or t.dtype.is_complex),
    )


def mapped(ctx: RuleContext, t: FakeTensor, dtype: torch.dtype | None = None) -> FakeTensor:
    """The result of an elementwise function of one tensor.

    Differs from :func:`dense_like` only in the strides of dims of size 1.
    """
    strides = layout_of(ctx, t.sizes, ((t.sizes, t.strides),))
    return fresh(ctx, t.sizes, strides, dtype or t.dtype, t.device)


def elementwise(
    ctx: RuleContext,
    operands: Sequence[FakeTensor],
    dtype: torch.dtype,
    common: torch.dtype | None = None,
) -> FakeTensor:
    """The result of an elementwise operator over tensors: broadcast sizes, derived layout."""
    first = operands[0]
    sizes = first.sizes
    for t in operands:
        if t.sizes != sizes:
            sizes = ctx.broadcast(*[t.sizes for t in operands])
            break
    strides = elementwise_layout(ctx, operands, sizes, common)
    device = first.device if len(operands) == 1 else common_device(operands)
    return fresh(ctx, sizes, strides, dtype, device)


def common_device(operands: Sequence[FakeTensor]) -> torch.device:
    """The device of an elementwise result: 0-dim CPU tensors go along with any other.

    Raises:
        RuntimeError: as eager, tensors with dims are on different devices.
    """
    device: torch.device | None = None
    for t in operands:
        own = t.device
        if device is None or device == own:
            device = own
            decider = t
        elif not decider.sizes and device.type == "cpu":
            device, decider = own, t
        elif t.sizes or own.type != "cpu":
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{device} and {own}!"
            )
    assert device is not None
    return device


# -- dtypes ----------------------------------------------------------------------------------------


def promoted(ctx: RuleContext, a: Any, b: Any) -> torch.dtype:
    """The common dtype of two operands, of which one may be a number."""
    if isinstance(a, FakeTensor):
        dtype = a.dtype
        if isinstance(b, FakeTensor):
            if b.dtype is dtype:
                return dtype
        elif dtype.is_floating_point:
            if type(b) is not complex:
                return dtype
        elif type(b) is int and dtype is not torch.bool:
            return dtype
    return ctx.promote(a, b)


def as_float(dtype: torch.dtype) -> torch.dtype:
    """Integers and bools become the default dtype; others stay."""
    if dtype.is_floating_point or dtype.is_complex:
        return dtype
    return torch.get_default_dtype()


_REAL = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
_COMPLEX = {real: complex_ for complex_, real in _REAL.items()} | {torch.bfloat16: torch.complex64}


def real_of(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real part."""
    return _REAL.get(dtype, dtype)


def complex_of(dtype: torch.dtype) -> torch.dtype:
    """The complex dtype whose parts have this dtype."""
    return _COMPLEX.get(dtype, dtype)


# -- in place --------------------------------------------------------------------------------------


def write_into(
    ctx: RuleContext, target: FakeTensor, operands: Sequence[FakeTensor], dtype: torch.dtype
) -> FakeTensor:
    """Check that an elementwise result of ``dtype`` may be written into ``target``; return it.

    Raises:
        RuntimeError: as eager: the broadcast shape or the dtype does not fit.
    """
    sizes = target.sizes
    for t in operands:
        if t.sizes != sizes and t is not target:
            fit(ctx, t.sizes, sizes)
    refuse_overlap(target)
    own = target.dtype
    if dtype is not own and not torch.can_cast(dtype, own):
        raise RuntimeError(
            f"result type {_type_name(dtype)} can't be cast to the desired output type "
            f"{_type_name(own)}"
        )
    return target


def refuse_overlap(target: FakeTensor) -> None:
    """An expanded tensor cannot be written to: several of its elements share one memory location.

    Raises:
        RuntimeError: as eager.
    """
    for size, stride in zip(target.sizes, target.strides, strict=True):
        if type(stride) is int and stride == 0 and not (type(size) is int and size <= 1):
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to "
                "a single memory location. Please clone() the tensor before performing the "
                "operation."
            )


def fit(ctx: RuleContext, given: Sizes, target: Sizes) -> None:
    """``given`` must broadcast to exactly ``target``."""
    lead = len(target) - len(given)
    if lead < 0:
        raise RuntimeError(
            f"output with shape {_shape(target)} doesn't match the broadcast shape {_shape(given)}"
        )
    for size, into in zip(given, target[lead:], strict=True):
        if size is into or (type(size) is int and size == 1):
            continue
        if type(size) is int and type(into) is int:
            if size != into:
                raise RuntimeError(
                    f"output with shape {_shape(target)} doesn't match the broadcast shape "
                    f"{_shape(given)}"
                )
        elif not (isinstance(size, Expr) and _only_if_one(ctx, size, into)):
            ctx.require_same(
                size, into, f"shape {_shape(given)} does not broadcast to {_shape(target)}"
            )


def _only_if_one(ctx: RuleContext, size: Expr, into: Size) -> bool:
    """Whether ``size`` must be a broadcast 1 because the example says so; that is then required."""
    if ctx.known(eq(size, into)) is not True and ctx.env.hint_of(size) == 1:
        hint = ctx.env.hint_of(into) if isinstance(into, Expr) else into
        if hint != 1:
            ctx.require(eq(size, 1), "")
            return True
    return False


def _shape(sizes: Sizes) -> str:
    return "[" + ", ".join(map(str, sizes)) + "]"


_TYPE_NAMES = {
    torch.uint8: "Byte",
    torch.int8: "Char",
    torch.int16: "Short",
    torch.int32: "Int",
    torch.int64: "Long",
    torch.float16: "Half",
    torch.float32: "Float",
    torch.float64: "Double",
    torch.bfloat16: "BFloat16",
    torch.bool: "Bool",
    torch.complex32: "ComplexHalf",
    torch.complex64: "ComplexFloat",
    torch.complex128: "ComplexDouble",
}


def _type_name(dtype: torch.dtype) -> str:
    return _TYPE_NAMES.get(dtype, str(dtype).removeprefix("torch."))
