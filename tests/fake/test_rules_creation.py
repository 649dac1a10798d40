"""Factories, copies and casts, and operators whose result depends on data."""

from __future__ import annotations

import math

import pytest
import torch
from tests.fake.checking import Fakes, check, check_error, layouts_of

from stillframe.errors import DataDependentError
from stillframe.fake.context import RuleContext
from stillframe.fake.registry import RULES
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Expr, Range, evaluate

aten = torch.ops.aten


def environment(**hints: int) -> tuple[RuleContext, dict[str, Expr]]:
    """A context with symbols of these names and hints, all at least 0."""
    env = ShapeEnv()
    symbols = {k: env.new_symbol(k, v, Range(0, math.inf)) for k, v in hints.items()}
    return RuleContext(env), symbols


def test_arange_length_and_dtype() -> None:
    """Ends and steps of both signs, whole and fractional, and every dtype request."""
    check(aten.arange.default, 5)
    check(aten.arange.default, 5.0)
    check(aten.arange.default, 2.5)
    for start, end, step in (
        (0, 10, 3),
        (10, 0, -3),
        (0, 1, 0.1),
        (1, 1, 1),
        (0.5, 9.75, 2),
        (5, -5, -1),
    ):
        check(aten.arange.start_step, start, end, step)
        check(aten.arange.start_step, start, end, step, dtype=torch.float64)
        if step not in (0.1,):
            check(aten.arange.start_step, start, end, step, dtype=torch.int64)
            check(aten.arange.start_step, start, end, step, dtype=torch.int32)
    check_error(aten.arange.start, 3, 1)
    check_error(aten.arange.start_step, 0, 3, 0)


@pytest.mark.parametrize(("start", "step"), [(0, 1), (1, 1), (0, 3), (2, 4)])
def test_arange_to_a_symbol(start: int, step: int) -> None:
    """The length is the exact ceiling for every value of the symbol."""
    ctx, symbols = environment(n=17)
    n = symbols["n"]
    made = RULES[aten.arange.start_step](ctx, start, n + 5, step)
    (length,) = made.sizes
    assert made.dtype is torch.int64
    for value in range(30):
        assert evaluate(length, {n: value}) == len(range(start, value + 5, step))
    assert not ctx.env.guards


def test_arange_downwards_and_float_steps_over_a_symbol() -> None:
    """A negative step counts down; a float step goes through the ceiling of a quotient."""
    ctx, symbols = environment(n=7)
    n = symbols["n"]
    down = RULES[aten.arange.start_step](ctx, n, 0, -2).sizes[0]
    half = RULES[aten.arange.start_step](ctx, 0, n, 0.5)
    assert half.dtype is torch.float32
    for value in range(1, 12):
        assert evaluate(down, {n: value}) == len(range(value, 0, -2))
        assert evaluate(half.sizes[0], {n: value}) == torch.arange(0, value, 0.5).numel()


def test_filled() -> None:
    """dtype inference and explicit options."""
    for op in (aten.zeros.default, aten.ones.default, aten.rand.default, aten.randn.default):
        check(op, [2, 3])
        check(op, [])
        check(op, [2, 0], dtype=torch.float64, device=torch.device("cpu"))
    for value in (True, 3, 2.5, 1j):
        check(aten.full.default, [2], value)
        check(aten.full.default, [2], value, dtype=torch.complex64)
        check(aten.scalar_tensor.default, value, dtype=torch.complex64)
    check(aten.empty.memory_format, [2, 3, 4, 5], memory_format=torch.channels_last)
    check(aten.empty_strided.default, [2, 3], [1, 2])
    check(aten.empty_permuted.default, [2, 3, 4], [1, 0, 2])
    check(aten.eye.default, 3)
    check(aten.eye.m, 3, 4)
    check(aten.linspace.default, 0, 1, 7)
    check(aten.logspace.default, 0, 1, 7)
    check(aten.randint.default, 5, [2, 3])
    check(aten.randint.low, 1, 5, [2, 3], dtype=torch.int32)
    check(aten.randperm.default, 5)
    check(aten.hann_window.default, 5)
    check_error(aten.zeros.default, [2, -1])


def test_symbolic_sizes_of_factories() -> None:
    """No guard where a size is known not to be negative, one where it has to be promised."""
    ctx, symbols = environment(n=7)
    n = symbols["n"]
    assert RULES[aten.zeros.default](ctx, [n, 3 * n]).sizes == (n, 3 * n)
    assert not ctx.env.guards
    RULES[aten.zeros.default](ctx, [n - 2])
    assert len(ctx.env.guards) == 1


@pytest.mark.parametrize("offset", (-2, -1, 0, 1, 3))
def test_triangles(offset: int) -> None:
    """Numbers of coordinates, static and symbolic."""
    for row, col in ((3, 4), (4, 3), (5, 5), (1, 4)):
        check(aten.tril_indices.default, row, col, offset)
        check(aten.triu_indices.default, row, col, offset)
    ctx, symbols = environment(r=5, c=4)
    r, c = symbols["r"], symbols["c"]
    lower = RULES[aten.tril_indices.default](ctx, r, c, offset).sizes[1]
    upper = RULES[aten.triu_indices.default](ctx, r, c, offset).sizes[1]
    for row in range(1, 7):
        for col in range(1, 7):
            values = {r: row, c: col}
            assert evaluate(lower, values) == torch.tril_indices(row, col, offset).shape[1]
            assert evaluate(upper, values) == torch.triu_indices(row, col, offset).shape[1]


def test_like_and_new() -> None:
    """Layouts are preserved (made dense) by ``*_like`` and not by ``new_*``."""
    for x in layouts_of((2, 3, 4, 5)).values():
        for op in (aten.zeros_like.default, aten.empty_like.default, aten.randn_like.default):
            assert not check(op, x).guards
            check(op, x, dtype=torch.float64, memory_format=torch.contiguous_format)
            check(op, x, memory_format=torch.channels_last)
        check(aten.full_like.default, x, 2)
        check(aten.new_zeros.default, x, [2, 3])
        check(aten.new_full.default, x, [2], 7, dtype=torch.int64)
        check(aten.bernoulli.p, x, 0.5)


def test_casts() -> None:
    """``to`` returns its argument where nothing changes; ``contiguous`` a view, see its rule."""
    for x in layouts_of((2, 3, 4, 5)).values():
        for dtype in (torch.float32, torch.float64):
            assert not check(aten.to.dtype, x, dtype).guards
            check(aten.to.dtype, x, dtype, False, True)
            check(aten.to.device, x, torch.device("cpu"), dtype)
            check(aten.to.dtype_layout, x, dtype=dtype, device=torch.device("cpu"))
            check(aten.to.other, x, torch.ones(1, dtype=dtype))
            check(aten.type_as.default, x, torch.ones(1, dtype=dtype))
            check(aten._to_copy.default, x, dtype=dtype)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            check(aten.to.dtype, x, torch.float32, memory_format=memory_format)
            if not x.is_contiguous(memory_format=memory_format):
                check(aten.contiguous.default, x, memory_format=memory_format)
            check(aten.clone.default, x, memory_format=memory_format)
        for op in (aten.clone, aten.detach, aten.alias, aten.lift_fresh, aten.lift_fresh_copy):
            assert not check(op.default, x).guards
    check_error(aten.contiguous.default, torch.ones(2, 3), memory_format=torch.channels_last)


def test_data_dependent_sizes() -> None:
    """Results agree with the kernels for the unbacked size that the data gave."""
    x = torch.tensor([[0, 1, 2], [3, 0, 1]])
    for t in (x, x.t(), x[:, ::2], x[0], torch.tensor(3)):
        check(aten.nonzero.default, t)
        check(aten.argwhere.default, t)
        check(aten.nonzero_numpy.default, t)
        check(aten.masked_select.default, t, t > 1)
        check(aten._unique2.default, t, True, True, True)
        check(aten.unique_consecutive.default, t, True, True)
    check(aten.nonzero_static.default, x, size=3)
    check(aten.unique_dim.default, x, 1)
    check(aten.bincount.default, x[0])
    check(aten.bincount.default, x[0], torch.ones(3), 5)
    check(aten.repeat_interleave.Tensor, torch.tensor([1, 2]))
    check(aten.repeat_interleave.self_Tensor, x, torch.tensor([1, 2]), 0)
    check(aten.repeat_interleave.self_int, x, 2, 1)
    check(aten.repeat_interleave.self_int, x, 2)
    check(aten.one_hot.default, x, 4)


def test_ranges_of_unbacked_sizes() -> None:
    """A selection has between none and all of the elements."""
    env = ShapeEnv()
    fake = Fakes(env, symbols=False).convert(torch.ones(2, 3))
    (count, rank) = RULES[aten.nonzero.default](RuleContext(env), fake).sizes
    assert rank == 2
    assert env.facts.range_of(count) == Range(0, 6)
    (count,) = RULES[aten._unique2.default](RuleContext(env), fake)[0].sizes
    assert env.facts.range_of(count) == Range(1, 6)


def test_values_read_from_tensors() -> None:
    """An integer is unbounded, a bool is an unbacked comparison, a float has its own sort."""
    env = ShapeEnv()
    ctx, fakes = RuleContext(env), Fakes(env, symbols=False)
    item = RULES[aten.item.default]
    whole = item(ctx, fakes.convert(torch.tensor(3)))
    assert whole.sort == "int"
    assert env.facts.range_of(whole) == Range(-math.inf, math.inf)
    assert item(ctx, fakes.convert(torch.tensor(True))).sort == "bool"
    assert item(ctx, fakes.convert(torch.tensor([2.5]))).sort == "float"
    assert env.facts.range_of(
        item(ctx, fakes.convert(torch.tensor(3, dtype=torch.uint8)))
    ) == Range(0, 255)
    with pytest.raises(RuntimeError, match="2 elements cannot be converted to Scalar"):
        item(ctx, fakes.convert(torch.ones(2)))
    with pytest.raises(DataDependentError):
        RULES[aten.is_nonzero.default](ctx, fakes.convert(torch.tensor(3)))
    classes = RULES[aten.one_hot.default](ctx, fakes.convert(torch.tensor([3]))).sizes[1]
    assert env.facts.range_of(classes) == Range(1, math.inf)


def test_copy_keeps_the_layout_of_what_is_copied_into() -> None:
    """Gaps and all: the functional form copies the whole storage."""
    source = torch.randn(3, 4)
    wide = torch.randn(6, 8)
    for x in (
        torch.randn(3, 4), torch.randn(4, 3).t(), wide[::2, ::2], wide[3:, 1:5],
        torch.randn(3, 1).expand(3, 4),
    ):  # fmt: skip
        check(aten.copy.default, x, source)
        check(aten.copy.default, x, source[0])


def test_normal_numbers_in_functional_form() -> None:
    for x in (torch.randn(3, 4), torch.randn(4, 3).t(), torch.randn(2, 3, 4).permute(1, 2, 0)):
        check(aten.normal_functional.default, x, 0.0, 1.0)
