"""Pooling, interpolation and sampling against the real kernels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

from stillframe.symbolic import evaluate

aten = torch.ops.aten
rand = torch.randn
LAYOUTS = list(layouts_of((2, 4, 6, 8)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images(layout: str) -> None:
    x = layouts_of((2, 4, 6, 8))[layout]
    for op in (aten.max_pool2d, aten.avg_pool2d, aten.max_pool2d_with_indices):
        check(op.default, x, [2, 2])
        check(op.default, x, [3, 3], [2, 2], [1, 1])
        check(op.default, x[0], [2, 2])
    for ceil in (False, True):
        check(aten.max_pool2d.default, x, [3, 2], [2, 3], [1, 1], [1, 2], ceil)
        check(aten.avg_pool2d.default, x, [3, 2], [2, 3], [1, 1], ceil, False)
    for size in ([1, 1], [3, 3], [1, 2]):
        check(aten.adaptive_avg_pool2d.default, x, size)
        check(aten.adaptive_max_pool2d.default, x, size)
    check(aten.im2col.default, x, [2, 3], [1, 1], [0, 1], [1, 2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_interpolated_images(layout: str) -> None:
    x = layouts_of((2, 4, 6, 8))[layout]
    check(aten.upsample_nearest2d.vec, x, None, [2.0, 2.0])
    check(aten.upsample_nearest2d.default, x, [9, 9])
    check(aten._upsample_nearest_exact2d.vec, x, None, [0.3, 0.7])
    for op in (aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa):
        check(op.vec, x, [5, 7], False, None)
        check(op.vec, x, None, True, [0.5, 1.5])
    check(aten.grid_sampler.default, x, torch.rand(2, 3, 5, 2), 0, 0, False)


def test_sequences() -> None:
    for x in layouts_of((2, 4, 6)).values():
        for op in (aten.max_pool1d, aten.avg_pool1d, aten.max_pool1d_with_indices):
            check(op.default, x, [2])
            check(op.default, x, [3], [2], [1])
        for size in ([1], [3]):
            check(aten.adaptive_avg_pool1d.default, x, size)
            check(aten.adaptive_max_pool1d.default, x, size)
        check(aten.upsample_nearest1d.vec, x, None, [2.0])
        check(aten.upsample_linear1d.vec, x, [5], False, None)


def test_volumes() -> None:
    base = rand(2, 4, 5, 6, 7)
    for x in (base, base.to(memory_format=torch.channels_last_3d), base.transpose(3, 4)):
        for op in (aten.max_pool3d, aten.avg_pool3d, aten.max_pool3d_with_indices):
            check(op.default, x, [2, 2, 2])
        for size in ([1, 1, 1], [2, 2, 2]):
            check(aten.adaptive_avg_pool3d.default, x, size)
            check(aten.adaptive_max_pool3d.default, x, size)
        check(aten.upsample_nearest3d.vec, x, None, [2.0, 2.0, 2.0])
        check(aten.upsample_trilinear3d.vec, x, [5, 5, 5], False, None)
        check(aten.grid_sampler.default, x, torch.rand(2, 3, 5, 6, 3), 0, 0, False)


def test_back_to_images() -> None:
    values, where = torch.nn.functional.max_pool2d(rand(2, 4, 6, 8), 2, return_indices=True)
    check(aten.max_unpool2d.default, values, where, [6, 8])
    columns = torch.nn.functional.unfold(rand(2, 4, 6, 8), (2, 3))
    check(aten.col2im.default, columns, [6, 8], [2, 3], [1, 1], [0, 0], [1, 1])
    check(aten.affine_grid_generator.default, rand(2, 2, 3), [2, 4, 6, 8], False)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.max_pool2d.default, (rand(2, 2), [2, 2])),
        (aten.max_pool2d.default, (rand(2, 3, 4, 4), [5, 5])),
        (aten.max_pool2d.default, (rand(2, 3, 4, 4), [2, 2], [2, 2], [2, 2])),
        (aten.adaptive_avg_pool2d.default, (rand(4, 4), [2, 2])),
        (aten.upsample_nearest2d.vec, (rand(2, 3, 4, 4), None, None)),
        (aten.upsample_nearest2d.vec, (rand(2, 3, 4), [8, 8], None)),
        (aten.grid_sampler.default, (rand(2, 3, 4, 4), rand(1, 3, 3, 2), 0, 0, False)),
        (aten.col2im.default, (rand(2, 4, 7), [6, 8], [2, 2], [1, 1], [0, 0], [1, 1])),
    ],
    ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "args",
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, *args)


def test_sizes_by_formula() -> None:
    s = Symbols()
    b, h = s.size(2), s.size(32, lower=16)
    x = s.fake(b, 3, h, h)
    assert s.sizes(aten.max_pool2d.default, x, [3, 3], [2, 2], [1, 1]) == (
        "[s0, 3, (s1 + 1)//2, (s1 + 1)//2]"
    )
    assert s.sizes(aten.adaptive_avg_pool2d.default, x, [1, 1]) == "[s0, 3, 1, 1]"
    assert s.sizes(aten.upsample_nearest2d.vec, x, None, [2.0, 2.0]) == "[s0, 3, 2*s1, 2*s1]"
    assert s.sizes(aten.upsample_nearest2d.vec, x, None, [0.5, 1.5]) == ("[s0, 3, s1//2, 3*s1//2]")
    assert s.guards() == []


def test_every_symbolic_size_gives_the_size_of_the_kernel() -> None:
    """The correction of ``ceil_mode`` and the rounding of factors, at sizes that were not seen."""
    for kernel, stride, padding in itertools.product((2, 3), (1, 2, 3), (0, 1)):
        s = Symbols()
        n = s.size(9, lower=3)
        window = ([kernel], [stride], [padding], [1], True)
        answer = s.run(aten.max_pool1d.default, s.fake(2, 3, n), *window).sizes[2]
        for size in range(3, 12):
            real = aten.max_pool1d.default(rand(2, 3, size), *window)
            assert evaluate(answer, {n: size}) == real.shape[2], (kernel, stride, padding, size)
    for factor in (0.3, 0.5, 1.7, 2.25):
        s = Symbols()
        n = s.size(9, lower=4)
        answer = s.run(aten.upsample_nearest1d.vec, s.fake(2, 3, n), None, [factor]).sizes[2]
        for size in range(4, 40):
            real = aten.upsample_nearest1d.vec(rand(2, 3, size), None, [factor])
            assert evaluate(answer, {n: size}) == real.shape[2], (factor, size)
