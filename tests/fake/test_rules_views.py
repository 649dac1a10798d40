"""Views, reshapes, slices and pieces against the real kernels, and their symbolic answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

from stillframe.errors import NotSupported

aten = torch.ops.aten
END = 2**63 - 1
SHAPES = ((5, 6), (3, 5, 6), (4, 3, 5, 6))
LAYOUTS = [(sizes, name) for sizes in SHAPES for name in layouts_of(sizes)]


def reorderings(x: torch.Tensor) -> list[tuple[Any, ...]]:
    rank = x.dim()
    return [
        (aten.transpose.int, x, 0, -1),
        (aten.permute.default, x, list(range(rank - 1, -1, -1))),
        (aten.mT.default, x),
        (aten.adjoint.default, x),
        (aten.numpy_T.default, x),
        (aten.movedim.int, x, 0, -1),
        (aten.movedim.intlist, x, [0, 1], [-1, 0]),
        (aten.swapaxes.default, x, 0, 1),
        (aten.unsqueeze.default, x, 0),
        (aten.unsqueeze.default, x, 1),
        (aten.unsqueeze.default, x, -1),
        (aten.expand.default, x, [3, *[-1] * rank]),
        (aten.expand.default, x, list(x.shape)),
        (aten.broadcast_to.default, x, [2, *x.shape]),
        (aten.diagonal.default, x),
        (aten.diagonal.default, x, 1, 0, -1),
        (aten.diagonal.default, x, -1),
        (aten.unfold.default, x, -1, 3, 2),
        (aten.view.dtype, x, torch.int32),
    ]


def ranges(x: torch.Tensor) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = [
        (aten.select.int, x, 0, 1),
        (aten.select.int, x, -1, -1),
        (aten.narrow.default, x, 1, 1, 2),
    ]
    for start, end, step in (
        (0, END, 1),
        (1, END, 1),
        (0, -1, 1),
        (-2, END, 1),
        (-9, 9, 1),
        (2, 1, 1),
        (0, END, 2),
        (1, 4, 3),
        (0, 3, 1),
    ):
        made.append((aten.slice.Tensor, x, 1, start, end, step))
    return made


def pieces(x: torch.Tensor) -> list[tuple[Any, ...]]:
    return [
        (aten.split.Tensor, x, 2, -1),
        (aten.split.Tensor, x, 4, -1),
        (aten.split.sizes, x, [1, x.shape[-1] - 1], -1),
        (aten.split_with_sizes.default, x, [1, x.shape[-1] - 1], -1),
        (aten.chunk.default, x, 2, -1),
        (aten.chunk.default, x, 4, -1),
        (aten.tensor_split.sections, x, 4, -1),
        (aten.tensor_split.indices, x, [1, 3], -1),
        (aten.unbind.int, x, 0),
        (aten.diff.default, x),
    ]


def reshapes(x: torch.Tensor) -> list[tuple[Any, ...]]:
    rank = x.dim()
    return [
        (aten.reshape.default, x, [-1]),
        (aten.reshape.default, x, list(x.shape)),
        (aten.reshape.default, x, [x.shape[0], -1]),
        (aten.reshape.default, x, [-1, x.shape[-1]]),
        (aten.reshape.default, x, [*x.shape[:-1], 2, -1]),
        (aten.reshape.default, x, [*x.shape[:-1], 1, x.shape[-1]]),
        (aten.flatten.using_ints, x),
        (aten.flatten.using_ints, x, 1),
        (aten.flatten.using_ints, x, rank - 2),
        (aten.ravel.default, x),
        (aten.view.default, x, [*x.shape[:-1], 2, -1]),
        (aten.unflatten.int, x, -1, [2, -1]),
        (aten.squeeze.default, x),
        (aten.squeeze.dim, x, 0),
        (aten.atleast_3d.default, x),
    ]


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_views_of_every_layout(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    for op, *args in (*reorderings(x), *ranges(x), *pieces(x)):
        check(op, *args)


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_reshapes_of_every_layout(sizes: tuple[int, ...], layout: str) -> None:
    """With sizes given as symbols too, as ``x.shape`` gives them in a program."""
    x = layouts_of(sizes)[layout]
    for op, *args in reshapes(x):
        check(op, *args, symbolic_ints=True)


def test_views_of_complex_numbers() -> None:
    x = torch.randn(3, 4, 2)
    check(aten.view_as_complex.default, x)
    z = torch.view_as_complex(x)
    for op in (aten.view_as_real, aten.real, aten.imag):
        check(op.default, z)
        check(op.default, z.t())
    check(aten.real.default, x)


def test_bytes_of_another_width() -> None:
    x = torch.randn(3, 4)
    for dtype in (torch.float64, torch.int16, torch.uint8):
        check(aten.view.dtype, x, dtype)


def test_squeezed_dims() -> None:
    x = torch.randn(3, 1, 4, 1)
    check(aten.squeeze.default, x)
    for dim in range(-4, 4):
        check(aten.squeeze.dim, x, dim)
    check(aten.squeeze.dims, x, [0, 1, 3])
    check(aten.expand.default, x, [2, 3, 5, 4, 6])
    check(aten.expand_as.default, x, torch.randn(3, 5, 4, 2))
    check(aten.broadcast_tensors.default, [x, torch.randn(4, 2)])


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.view.default, ([5, 3],)),
        (aten.view.default, ([-1, 5],)),
        (aten.view.default, ([-1, -1],)),
        (aten.reshape.default, ([-2, 3],)),
        (aten.select.int, (0, 4)),
        (aten.select.int, (0, -5)),
        (aten.transpose.int, (0, 2)),
        (aten.permute.default, ([0, 0],)),
        (aten.expand.default, ([4, 7],)),
        (aten.expand.default, ([6],)),
        (aten.split_with_sizes.default, ([1, 1], 0)),
        (aten.narrow.default, (0, 2, 3)),
        (aten.unfold.default, (0, 9, 1)),
        (aten.flatten.using_ints, (1, 0)),
        (aten.chunk.default, (0,)),
    ],
    ids=str,
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, torch.randn(4, 6), *args)


def test_a_view_that_the_memory_does_not_allow() -> None:
    check_error(aten.view.default, torch.randn(4, 6).t(), [24])


def test_changes_of_metadata_in_place_are_refused_by_name() -> None:
    s = Symbols()
    with pytest.raises(NotSupported, match="squeeze_, unsqueeze_"):
        s.run(aten.unsqueeze_.default, s.fake(2, 3), 0)


# -- symbolic answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0, 64), "[s0, min(64, s1)]"),
        ((0, -1), "[s0, max(0, s1 - 1)]"),
        ((0, END), "[s0, s1]"),
        ((0, END, 2), "[s0, (s1 + 1)//2]"),
        ((-3, END), "[s0, s1 - max(0, s1 - 3)]"),
        ((5, 5), "[s0, 0]"),
    ],
    ids=str,
)
def test_slices_clamp_without_guards(bounds: tuple[int, ...], text: str) -> None:
    s = Symbols()
    x = s.fake(s.size(3), s.size(17))
    assert s.sizes(aten.slice.Tensor, x, 1, *bounds) == text
    assert s.guards() == []


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0, -1), "[s0, s1 - 1]"),
        ((-3, END), "[s0, 3]"),
        ((0, 4), "[s0, 4]"),
        ((1, END), "[s0, s1 - 1]"),
    ],
    ids=str,
)
def test_slices_use_the_declared_range(bounds: tuple[int, ...], text: str) -> None:
    s = Symbols()
    x = s.fake(s.size(3), s.size(17, lower=4))
    assert s.sizes(aten.slice.Tensor, x, 1, *bounds) == text
    assert s.guards() == []


def test_slices_by_symbols() -> None:
    s = Symbols()
    n, k = s.size(17), s.size(5, lower=1)
    x = s.fake(2, n)
    assert s.sizes(aten.slice.Tensor, x, 1, 0, k) == "[2, min(s0, s1)]"
    assert s.sizes(aten.slice.Tensor, x, 1, 0, n) == "[2, s0]"
    assert s.sizes(aten.slice.Tensor, x, 1, -k, END) == "[2, s0 - max(0, s0 - s1)]"
    assert s.guards() == []


def test_both_parts_of_a_cut_are_the_whole() -> None:
    s = Symbols()
    x = s.fake(s.size(3), s.size(17), 8)
    parts = [s.run(aten.slice.Tensor, x, 1, 0, 1), s.run(aten.slice.Tensor, x, 1, 1, END)]
    assert s.run(aten.cat.default, parts, 1).sizes == x.sizes
    assert s.guards() == []


def test_attention_heads_and_back() -> None:
    """What every transformer does between its linear layers."""
    s = Symbols()
    b, n = s.size(2), s.size(9)
    x = s.fake(b, n, 64)
    heads = s.run(aten.view.default, x, [b, n, 4, 16])
    swapped = s.run(aten.transpose.int, heads, 1, 2)
    assert swapped.sizes == (b, 4, n, 16)
    back = s.run(aten.transpose.int, swapped, 1, 2)
    flat = s.run(aten.reshape.default, back, [b, n, -1])
    assert flat.sizes == x.sizes and flat.strides == x.strides and flat.storage_ is x.storage_
    copied = s.run(aten.reshape.default, swapped, [b, 4, -1])
    assert copied.sizes[2] is n * 16 and copied.storage_ is not x.storage_
    assert s.guards() == []


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (["b", -1, 4, 16], "[s0, s1, 4, 16]"),
        ([-1, 64], "[s0*s1, 64]"),
        (["b", "n", -1], "[s0, s1, 64]"),
        (["b*n", -1], "[s0*s1, 64]"),
        (["b", -1], "[s0, 64*s1]"),
        ([-1], "[64*s0*s1]"),
        (["b", -1, 128], "[s0, s1//2, 128]"),
    ],
    ids=str,
)
def test_the_inferred_size_cancels(wanted: list[Any], text: str) -> None:
    s = Symbols()
    b, n = s.size(2), s.size(10)
    names = {"b": b, "n": n, "b*n": b * n}
    x = s.fake(b, n, 64)
    sizes = [names.get(w, w) for w in wanted]
    assert s.sizes(aten.view.default, x, sizes) == text
    assert s.guards() == (["n % 2 == 0".replace("n", "s1")] if 128 in wanted else [])


def test_a_split_dim_is_merged_again() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9)
    flat = s.run(aten.view.default, s.fake(b, n, 8), [-1, 8])
    assert s.run(aten.view.default, flat, [b, n, 8]).sizes == (b, n, 8)
    assert s.guards() == []


def test_windows_need_divisible_sizes_and_nothing_else() -> None:
    s = Symbols()
    b, h = s.size(2), s.size(21)
    x = s.fake(b, h, h, 32)
    s.run(aten.view.default, x, [b, h // 7, 7, h // 7, 7, 32])
    assert s.guards() == ["s1 % 7 == 0"]


def test_pieces_of_a_symbolic_dim() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9, lower=2)
    assert s.sizes(aten.chunk.default, s.fake(b, 2 * n), 2, 1) == "[s0, s1]"
    assert len(s.run(aten.split.Tensor, s.fake(b, 3 * n), n, 1)) == 3
    first, second = s.run(aten.chunk.default, s.fake(b, n), 2, 1)
    assert [str(t.sizes[1]) for t in (first, second)] == ["(s1 + 1)//2", "s1 - (s1 + 1)//2"]
    assert s.guards() == []
    s.run(aten.split.Tensor, s.fake(b, n), 4, 1)
    assert s.guards() == ["s1 >= 9", "s1 <= 12"]


def test_an_index_is_not_guarded() -> None:
    """The operator stays in the program and checks its bounds itself."""
    s = Symbols()
    x = s.fake(s.size(3), s.size(17), 8)
    assert s.sizes(aten.select.int, x, 1, -1) == "[s0, 8]"
    assert str(s.run(aten.select.int, x, 1, -1).offset) == "8*s1 - 8"
    assert s.guards() == []
    with pytest.raises(IndexError):
        s.run(aten.select.int, s.fake(3, 4), 1, 4)


def test_squeeze_asks_whether_a_dim_is_one() -> None:
    s = Symbols()
    x = s.fake(s.size(3), 1, s.size(5))
    assert s.sizes(aten.squeeze.dim, x, 1) == "[s0, s1]"
    assert s.guards() == []
    assert s.sizes(aten.squeeze.dim, x, 0) == "[s0, 1, s1]"
    assert s.guards() == ["s0 != 1"]


def test_repeated_heads_are_copied() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9)
    x = s.fake(b, 4, n, 16)
    wide = s.run(aten.expand.default, s.run(aten.unsqueeze.default, x, 2), [b, 4, 2, n, 16])
    assert wide.strides[2] == 0 and wide.storage_ is x.storage_
    flat = s.run(aten.reshape.default, wide, [b, 8, n, 16])
    assert flat.sizes == (b, 8, n, 16) and flat.storage_ is not x.storage_
    assert s.guards() == []
