"""Operators that make tensors from numbers and sizes, and the random ones.

Values do not matter, so a family often needs one rule: everything that fills new row-major memory,
everything ``*_like``, everything ``new_*``. Nothing made here requires grad.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.dims import format_strides
from stillframe.fake.rules.elementwise import Sizes, contiguous, dense_like, elementwise
from stillframe.fake.rules.pointwise import overloads
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout as layouts
from stillframe.shapes.env import Size
from stillframe.symbolic import Expr, ceil_, ge, max_, min_, to_float, truediv, unwrap

aten = torch.ops.aten
_CPU = torch.device("cpu")


def make(
    ctx: RuleContext,
    sizes: Sequence[Size],
    dtype: torch.dtype | None,
    device: Any = None,
    layout: torch.layout | None = None,
    strides: Sequence[Size] | None = None,
) -> FakeTensor:
    """New memory for an operator that takes sizes from the user; default dtype, default device."""
    if layout is not None and layout is not torch.strided:
        raise ctx.unsupported(f"A tensor with layout {layout} cannot be captured yet.")
    plain = checked_sizes(ctx, sizes)
    return FakeTensor.make(
        ctx.env,
        plain,
        layouts.contiguous_strides(plain) if strides is None else strides,
        0,
        dtype or torch.get_default_dtype(),
        _CPU if device is None else torch.device(device),
    )


def checked_sizes(ctx: RuleContext, sizes: Sequence[Size]) -> Sizes:
    """Sizes, none of which may be negative.

    Raises:
        RuntimeError: as eager, one is negative.
    """
    for size in sizes:
        if type(size) is int:
            if size < 0:
                raise RuntimeError(
                    f"Trying to create tensor with negative dimension {size}: {list(sizes)}"
                )
        elif isinstance(size, Expr):
            ctx.require(ge(size, 0), f"Trying to create tensor with negative dimension {size}")
    return tuple([s if type(s) is int else unwrap(s) for s in sizes])


def number_dtype(*values: Any) -> torch.dtype:
    """The dtype of a tensor that is filled with these numbers."""
    best = torch.bool
    for value in values:
        sort = value.sort if isinstance(value, Expr) else type(value).__name__
        if sort == "complex":
            return torch.complex(torch.zeros(()), torch.zeros(())).dtype
        if sort == "float":
            best = torch.get_default_dtype()
        elif sort == "int" and best is torch.bool:
            best = torch.int64
    return best


# -- filled with a value or random numbers ---------------------------------------------------------


@rule(
    aten.zeros.default,
    aten.ones.default,
    aten.rand.default,
    aten.rand.generator,
    aten.randn.default,
    aten.randn.generator,
)
def filled(
    ctx: RuleContext,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    generator: Any = None,
) -> FakeTensor:
    return make(ctx, size, dtype, device, layout)


@rule(aten.empty.memory_format)
def empty(
    ctx: RuleContext,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> FakeTensor:
    if memory_format in (torch.channels_last, torch.channels_last_3d):
        return make(ctx, size, dtype, device, layout, layouts.channels_last_strides(size))
    return make(ctx, size, dtype, device, layout)


@rule(aten.full.default)
def full(
    ctx: RuleContext,
    size: Sequence[Size],
    fill_value: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    """The dtype follows the number if it is not given."""
    return make(ctx, size, dtype or number_dtype(fill_value), device, layout)


@rule(aten.scalar_tensor.default)
def scalar_tensor(
    ctx: RuleContext,
    s: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    return make(ctx, (), dtype, device, layout)


@rule(aten.randint.default, aten.randint.generator)
def randint(ctx: RuleContext, high: Any, size: Sequence[Size], **options: Any) -> FakeTensor:
    return _random_ints(ctx, size, **options)


@rule(aten.randint.low, aten.randint.low_generator)
def randint_low(
    ctx: RuleContext, low: Any, high: Any, size: Sequence[Size], **options: Any
) -> FakeTensor:
    return _random_ints(ctx, size, **options)


@rule(aten.randperm.default, aten.randperm.generator)
def randperm(ctx: RuleContext, n: Size, **options: Any) -> FakeTensor:
    return _random_ints(ctx, (n,), **options)


def _random_ints(
    ctx: RuleContext,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    generator: Any = None,
) -> FakeTensor:
    return make(ctx, size, dtype or torch.int64, device, layout)


# -- with the sizes of another tensor --------------------------------------------------------------


@rule(
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.empty_like.default,
    aten.full_like.default,
    *overloads("rand_like randn_like randint_like"),
)
def like(
    ctx: RuleContext,
    x: FakeTensor,
    *_: Any,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
    generator: Any = None,
) -> FakeTensor:
    """Sizes of ``x``, its layout (made dense) unless a memory format is given."""
    if layout is not None and layout is not torch.strided:
        raise ctx.unsupported(f"A tensor with layout {layout} cannot be captured yet.")
    return FakeTensor.make(
        ctx.env,
        x.sizes,
        format_strides(ctx, x, memory_format),
        0,
        dtype or x.dtype,
        x.device if device is None else torch.device(device),
    )


@rule(aten.new_zeros.default, aten.new_ones.default, aten.new_empty.default)
def new(
    ctx: RuleContext,
    x: FakeTensor,
    size: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    return make(ctx, size, dtype or x.dtype, x.device if device is None else device, layout)


@rule(aten.new_full.default)
def new_full(
    ctx: RuleContext, x: FakeTensor, size: Sequence[Size], fill_value: Any, **options: Any
) -> FakeTensor:
    return new(ctx, x, size, **options)


@rule(aten.new_empty_strided.default)
def new_empty_strided(
    ctx: RuleContext,
    x: FakeTensor,
    size: Sequence[Size],
    stride: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    device = x.device if device is None else device
    return make(ctx, size, dtype or x.dtype, device, layout, tuple(stride))


@rule(aten.empty_strided.default)
def empty_strided(
    ctx: RuleContext,
    size: Sequence[Size],
    stride: Sequence[Size],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    return make(ctx, size, dtype, device, layout, tuple(stride))


@rule(aten.empty_permuted.default)
def empty_permuted(
    ctx: RuleContext,
    size: Sequence[Size],
    physical_layout: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    """``physical_layout`` lists the dims from slowest to fastest."""
    if sorted(physical_layout) != list(range(len(size))):
        raise RuntimeError(
            f"physical_layout must name each dim once, and in range: {list(physical_layout)}"
        )
    strides = layouts.permuted_strides(size, list(reversed(physical_layout)))
    return make(ctx, size, dtype, device, layout, strides)


# -- sequences -------------------------------------------------------------------------------------


@rule(aten.arange.default)
def arange(ctx: RuleContext, end: Any, **options: Any) -> FakeTensor:
    return arange_step(ctx, 0, end, 1, **options)


@rule(aten.arange.start)
def arange_start(ctx: RuleContext, start: Any, end: Any, **options: Any) -> FakeTensor:
    return arange_step(ctx, start, end, 1, **options)


@rule(aten.arange.start_step)
def arange_step(
    ctx: RuleContext,
    start: Any,
    end: Any,
    step: Any = 1,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    """``ceil((end - start) / step)`` elements, exact for integers."""
    if dtype is None:
        dtype = number_dtype(0, start, end, step)
    elif dtype is torch.int64:  # this kernel truncates its arguments first, others do not
        start, end, step = (int(n) if type(n) is float else n for n in (start, end, step))
    return make(ctx, (_steps(ctx, start, end, step),), dtype, device, layout)


def _steps(ctx: RuleContext, start: Any, end: Any, step: Any) -> Size:
    if not isinstance(step, Expr) and step == 0:
        raise RuntimeError("step must be nonzero")
    down = ctx.guard(step < 0)
    low, high, stride = (end, start, -step) if down else (start, end, step)
    ctx.require(high >= low, "upper bound and lower bound inconsistent with step sign")
    span = high - low
    if not _is_float(span) and not _is_float(stride):
        whole = type(stride) is int and stride == 1
        return _size(span if whole else (span + (stride - 1)) // stride)
    if not isinstance(span, Expr) and not isinstance(stride, Expr):
        return int(math.ceil(span / stride))
    return _size(ceil_(truediv(_float(span), _float(stride))))


def _is_float(value: Any) -> bool:
    return value.sort == "float" if isinstance(value, Expr) else isinstance(value, float)


def _float(value: Any) -> Any:
    return to_float(value) if isinstance(value, Expr) and value.sort == "int" else value


def _size(value: Any) -> Size:
    size: Size = unwrap(value) if isinstance(value, Expr) else value
    return size


@rule(aten.range.default, aten.range.step)
def range_(
    ctx: RuleContext,
    start: Any,
    end: Any,
    step: Any = 1,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    """Both ends included; float unless a dtype is given."""
    if any(isinstance(n, Expr) for n in (start, end, step)):
        raise ctx.unsupported("torch.range of symbolic ends; torch.arange takes them.")
    return make(ctx, (math.floor((end - start) / step) + 1,), dtype, device, layout)


@rule(*overloads("linspace logspace"), aten.linspace.default, aten.logspace.default)
def linspace(
    ctx: RuleContext,
    start: Any,
    end: Any,
    steps: Size,
    base: float = 10.0,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    """``steps`` numbers; complex ends give complex numbers."""
    for end_point in (start, end):
        if isinstance(end_point, FakeTensor) and end_point.sizes:
            raise RuntimeError("linspace only supports 0-dimensional start and end tensors")
    if dtype is None and any(
        isinstance(n, complex) or (isinstance(n, FakeTensor) and n.dtype.is_complex)
        for n in (start, end)
    ):
        dtype = number_dtype(1j)
    return make(ctx, (steps,), dtype, device, layout)


@rule(aten.eye.default, aten.eye.m)
def eye(
    ctx: RuleContext,
    n: Size,
    m: Size | None = None,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    return make(ctx, (n, n if m is None else m), dtype, device, layout)


_WINDOWS = "hann_window hamming_window blackman_window bartlett_window kaiser_window"


@rule(
    *[
        getattr(getattr(aten, name), overload)
        for name in _WINDOWS.split()
        for overload in getattr(aten, name).overloads()
        if "out" not in overload
    ]
)
def window(
    ctx: RuleContext,
    window_length: Size,
    *_: Any,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
) -> FakeTensor:
    return make(ctx, (window_length,), dtype, device, layout)


@rule(aten.tril_indices.default)
def tril_indices(
    ctx: RuleContext, row: Size, col: Size, offset: Size = 0, **options: Any
) -> FakeTensor:
    """Coordinates of the lower triangle: 2 rows."""
    return _random_ints(ctx, (2, _triangle(row, col, offset)), **options)


@rule(aten.triu_indices.default)
def triu_indices(
    ctx: RuleContext, row: Size, col: Size, offset: Size = 0, **options: Any
) -> FakeTensor:
    """Coordinates of the upper triangle: what the lower one with ``offset - 1`` leaves."""
    return _random_ints(ctx, (2, _size(row * col - _triangle(row, col, offset - 1))), **options)


def _triangle(row: Any, col: Any, offset: Any) -> Size:
    """How many elements of a matrix are on or under the diagonal ``offset``."""
    if all(type(n) is int for n in (row, col, offset)):
        return int(sum(min(max(i + offset + 1, 0), col) for i in range(row)))
    # Rows before `first` are empty; then the rows grow by one element each until they are full.
    first = max_(0, -offset)
    growing = max_(0, min_(row, col - 1 - offset) - first)
    triangle = growing * (first + offset) + (growing * (growing + 1)) // 2
    return _size(triangle + max_(0, row - first - growing) * col)


# -- random numbers from tensors -------------------------------------------------------------------


@rule(aten.bernoulli.default, aten.bernoulli.p, aten.poisson.default)
def sampled(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """Row-major, whatever the layout of ``x``."""
    return contiguous(ctx, x.sizes, x.dtype, x.device)


@rule(aten.bernoulli.Tensor)
def bernoulli_tensor(
    ctx: RuleContext, x: FakeTensor, p: FakeTensor, *, generator: Any = None
) -> FakeTensor:
    return dense_like(ctx, x)


@rule(aten.bernoulli_.float, aten.bernoulli_.Tensor)
def bernoulli_(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    return x


@rule(aten.normal.Tensor_float, aten.normal.float_Tensor, aten.normal.Tensor_Tensor)
def normal(ctx: RuleContext, mean: Any, std: Any = 1.0, *, generator: Any = None) -> FakeTensor:
    """Row-major, in the broadcast sizes of means and deviations."""
    tensors = [t for t in (mean, std) if isinstance(t, FakeTensor)]
    sizes = ctx.broadcast(*[t.sizes for t in tensors])
    return contiguous(ctx, sizes, tensors[0].dtype, tensors[0].device)


@rule(aten.normal.float_float)
def normal_float(
    ctx: RuleContext, mean: float, std: float, size: Sequence[Size], **options: Any
) -> FakeTensor:
    return filled(ctx, size, **options)


@rule(aten.multinomial.default)
def multinomial(
    ctx: RuleContext, x: FakeTensor, num_samples: Size, replacement: bool = False, **__: Any
) -> FakeTensor:
    """One row of indices for each row of probabilities."""
    if len(x.sizes) not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if not x.dtype.is_floating_point:
        raise RuntimeError(f"multinomial only supports floating-point dtypes, got: {x.dtype}")
    must(ctx, num_samples > 0, "cannot sample n_sample <= 0 samples")
    must(ctx, x.sizes[-1] <= 2**24, "number of categories cannot exceed 2^24")
    if not replacement:
        enough = num_samples <= x.sizes[-1]
        must(ctx, enough, "cannot sample n_sample > prob_dist.size(-1) without replacement")
    return make(ctx, (*x.sizes[:-1], num_samples), torch.int64, x.device)


@rule(aten.binomial.default)
def binomial(ctx: RuleContext, count: FakeTensor, prob: FakeTensor, *_: Any) -> FakeTensor:
    return elementwise(ctx, (count, prob), count.dtype)


@rule(aten.one_hot.default)
def one_hot(ctx: RuleContext, x: FakeTensor, num_classes: Size = -1) -> FakeTensor:
    """The last dim counts the classes; -1 leaves their number to the data."""
    if type(num_classes) is int and num_classes == -1:
        must(ctx, ctx.numel(x.sizes) > 0, "Class values must not be empty without num_classes")
        num_classes = ctx.unbacked(1)
    return make(ctx, (*x.sizes, num_classes), torch.int64, x.device)
