"""Convolutions against the real kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

aten = torch.ops.aten
rand = torch.randn
LAYOUTS = list(layouts_of((2, 4, 6, 8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images(layout: str, dtype: torch.dtype) -> None:
    x = layouts_of((2, 4, 6, 8))[layout].to(dtype)
    for weight in layouts_of((5, 4, 3, 3)).values():
        weight = weight.to(dtype)
        check(aten.conv2d.default, x, weight)
        check(aten.conv2d.default, x, weight, None, [2, 2], [1, 0], [1, 2], 1)
        check(aten.conv2d.padding, x, weight, None, [1, 1], "same")
        check(aten.conv2d.padding, x, weight, None, [2, 1], "valid")
        check(aten.conv_transpose2d.input, x, weight.transpose(0, 1))
    grouped = rand(8, 2, 3, 3).to(dtype)
    check(aten.conv2d.default, x, grouped, rand(8).to(dtype), [1, 1], [1, 1], [1, 1], 2)
    check(aten.conv2d.default, x, rand(4, 1, 3, 3).to(dtype), None, [1, 1], [1, 1], [1, 1], 4)
    check(aten.conv2d.default, x, rand(5, 4, 1, 1).to(dtype))
    check(aten.conv2d.default, x[0], rand(5, 4, 3, 3).to(dtype))
    transposed = (rand(4, 3, 3, 3).to(dtype), None, [2, 2], [1, 1], [1, 0], 2, [1, 2])
    check(aten.conv_transpose2d.input, x, *transposed)
    plain = (rand(5, 4, 3, 3).to(dtype), None, [1, 1], [0, 0], [1, 1])
    check(aten.convolution.default, x, *plain, False, [0, 0], 1)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_odd_zero_of_same_padding(layout: str) -> None:
    x = layouts_of((2, 4, 6, 8))[layout]
    check(aten.conv2d.padding, x, rand(5, 4, 2, 4), None, [1, 1], "same")


def test_sequences() -> None:
    for x in layouts_of((2, 4, 9)).values():
        for weight in (rand(5, 4, 3), rand(5, 3, 4).transpose(1, 2)):
            check(aten.conv1d.default, x, weight)
            check(aten.conv1d.default, x, weight, None, [2], [1], [2], 1)
            check(aten.conv1d.padding, x, weight, None, [1], "same")
            check(aten.conv_transpose1d.default, x, weight.transpose(0, 1), None, [2], [1], [1])
        check(aten.conv1d.default, x[0], rand(5, 4, 3))
    check(aten.conv_tbc.default, rand(9, 2, 4), rand(3, 4, 5), rand(5), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_volumes(dtype: torch.dtype) -> None:
    base, last = rand(2, 4, 5, 6, 7).to(dtype), torch.channels_last_3d
    for x in (base, base.to(memory_format=last), base.transpose(3, 4), base[:, :, 1:]):
        weight = rand(6, 4, 3, 3, 3).to(dtype)
        for w in (weight, weight.to(memory_format=last)):
            check(aten.conv3d.default, x, w)
            check(aten.conv3d.default, x, w, None, [2, 1, 1], [1, 1, 1], [1, 1, 2], 1)
            check(aten.conv_transpose3d.input, x, w.transpose(0, 1))


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.conv2d.default, (rand(2, 3, 5, 5), rand(4, 2, 3, 3))),
        (aten.conv2d.default, (rand(2, 3, 2, 2), rand(4, 3, 3, 3))),
        (aten.conv2d.default, (rand(2, 3, 5, 5), rand(4, 3, 3, 3).double())),
        (aten.conv2d.default, (rand(5, 5), rand(4, 3, 3, 3))),
        (aten.conv2d.padding, (rand(2, 3, 5, 5), rand(4, 3, 3, 3), None, [2, 2], "same")),
        (aten.conv2d.padding, (rand(2, 3, 5, 5), rand(4, 3, 3, 3), None, [1, 1], "full")),
        (aten.conv_transpose2d.input, (rand(2, 3, 5, 5), rand(4, 3, 3, 3))),
    ],
    ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "args",
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, *args)


def test_sizes_by_formula() -> None:
    s = Symbols()
    b, h = s.size(2), s.size(32, lower=16)
    x = s.fake(b, 3, h, h)
    weight = s.fake(8, 3, 3, 3)
    sizes = s.sizes(aten.conv2d.default, x, weight, None, [1, 1], [1, 1])
    assert sizes == "[s0, 8, s1, s1]"
    sizes = s.sizes(aten.conv2d.default, x, weight, None, [2, 2], [1, 1])
    assert sizes == "[s0, 8, (s1 + 1)//2, (s1 + 1)//2]"
    patches = s.fake(b, 3, h * 16, h * 16)
    assert s.sizes(aten.conv2d.default, patches, s.fake(8, 3, 16, 16), None, [16, 16]) == (
        "[s0, 8, s1, s1]"
    )
    up = (s.fake(3, 8, 2, 2), None, [2, 2])
    assert s.sizes(aten.conv_transpose2d.input, x, *up) == "[s0, 8, 2*s1, 2*s1]"
    assert s.guards() == []
