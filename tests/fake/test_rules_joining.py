"""cat, stack, repeat, pad and other copies against the real kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

aten = torch.ops.aten
SHAPES = ((4, 5), (3, 4, 5), (2, 3, 4, 5))
LAYOUTS = [(sizes, name) for sizes in SHAPES for name in layouts_of(sizes)]


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_joined(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    for y in layouts_of(sizes).values():
        for dim in range(-1, len(sizes)):
            check(aten.cat.default, [x, y], dim)
            check(aten.stack.default, [x, y], dim)
    check(aten.cat.default, [x], 0)
    check(aten.cat.default, [x, x[:1], x.double()], 0)
    check(aten.cat.default, [x, torch.empty(0)], 1)
    for op in (aten.hstack, aten.vstack, aten.dstack, aten.column_stack):
        check(op.default, [x, x])


def test_joined_vectors() -> None:
    x, y = torch.randn(3), torch.randn(4)
    check(aten.cat.default, [x, y])
    check(aten.block_diag.default, [x, torch.randn(2, 3), torch.tensor(1.0)])
    check(aten.cartesian_prod.default, [x, y])
    check(aten.cartesian_prod.default, [x])
    check(aten.combinations.default, x, 2)
    check(aten.combinations.default, x, 3, True)
    for tensors in ([x], [x, y], [x, torch.tensor(1.0), y]):
        check(aten.meshgrid.default, tensors)
        for indexing in ("ij", "xy"):
            check(aten.meshgrid.indexing, tensors, indexing=indexing)
    for op in (aten.hstack, aten.vstack, aten.dstack, aten.column_stack):
        check(op.default, [x, x])


def test_padded_to_the_longest() -> None:
    for sequences in ([torch.randn(3), torch.randn(5)], [torch.randn(n, 2) for n in (4, 1, 4)]):
        for batch_first in (False, True):
            assert not check(aten.pad_sequence.default, sequences, batch_first, 1.5).guards
            check(aten.pad_sequence.default, sequences, batch_first, 0.0, "left")
    check_error(aten.pad_sequence.default, [torch.randn(3)], False, 0.0, "middle")


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_moved_and_repeated(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    rank = len(sizes)
    for op, *args in (
        (aten.repeat.default, [2] * rank),
        (aten.repeat.default, [1] * (rank + 1)),
        (aten.tile.default, [2]),
        (aten.roll.default, [1], [1]),
        (aten.roll.default, [1, 2], [0, 1]),
        (aten.roll.default, [1]),
        (aten.flip.default, [0, 1]),
        (aten.flipud.default,),
        (aten.rot90.default, 0, [0, 1]),
        (aten.rot90.default, 1, [0, 1]),
        (aten.rot90.default, 2, [0, 1]),
        (aten.rot90.default, 3, [0, 1]),
        (aten.tril.default,),
        (aten.triu.default, 1),
        (aten.diag_embed.default,),
        (aten.diag_embed.default, 1, 0, -1),
        (aten.diagflat.default,),
    ):
        check(op, x, *args)
    if rank == 2:
        check(aten.diag.default, x)
        check(aten.diag.default, x, -1)
    if rank == 4:
        check(aten.channel_shuffle.default, x, 3)
        check(aten.pixel_shuffle.default, torch.cat([x] * 4, 1), 2)
        check(aten.pixel_unshuffle.default, x[..., :4].contiguous(), 2)


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_padded(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    for pad in ([1, 2], [-1, 2], [-1, -1], [0, 0], [0, 1, 2, -1]):
        check(aten.constant_pad_nd.default, x, pad)
        check(aten.pad.default, x, pad, "constant", 1.0)
    if len(sizes) > 2:
        for mode in ("reflect", "replicate", "circular"):
            check(aten.pad.default, x, [1, 2] * (len(sizes) - 2), mode)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.cat.default, ([],)),
        (aten.cat.default, ([torch.randn(2, 3), torch.randn(2)],)),
        (aten.cat.default, ([torch.randn(2, 3), torch.randn(2, 4)],)),
        (aten.cat.default, ([torch.tensor(1.0)],)),
        (aten.stack.default, ([torch.randn(2), torch.randn(3)],)),
        (aten.repeat.default, (torch.randn(2, 3), [2])),
        (aten.constant_pad_nd.default, (torch.randn(2, 3), [1])),
        (aten.constant_pad_nd.default, (torch.randn(2, 3), [-2, -2])),
        (aten.roll.default, (torch.randn(2, 3), [1, 2], [0])),
        (aten.pixel_shuffle.default, (torch.randn(1, 3, 2, 2), 2)),
        (aten.tril.default, (torch.randn(3),)),
    ],
    ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "args",
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, *args)


# -- symbolic answers ----------------------------------------------------------------------------


def test_sizes_add_up() -> None:
    s = Symbols()
    b, m, n = s.size(2), s.size(5), s.size(7)
    parts = [s.fake(b, m, 8), s.fake(b, n, 8), s.fake(b, 1, 8)]
    assert s.sizes(aten.cat.default, parts, 1) == "[s0, s1 + s2 + 1, 8]"
    assert s.guards() == []


def test_other_dims_must_match() -> None:
    s = Symbols()
    m, n = s.size(5), s.size(5)
    assert s.run(aten.cat.default, [s.fake(2, m), s.fake(2, n)], 0).sizes[1] in (m, n)
    (guard,) = s.guards()
    assert sorted(guard.split(" == ")) == ["s0", "s1"]


def test_paddings_and_repeats_ask_nothing() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9)
    x = s.fake(b, n, 8)
    assert s.sizes(aten.pad.default, x, [0, 0, 1, 2]) == "[s0, s1 + 3, 8]"
    assert s.sizes(aten.constant_pad_nd.default, x, [0, 0, -1, 0]) == "[s0, s1 - 1, 8]"
    assert s.sizes(aten.repeat.default, x, [2, 1, 1]) == "[2*s0, s1, 8]"
    assert s.sizes(aten.roll.default, x, [1], [1]) == "[s0, s1, 8]"
    assert s.sizes(aten.tril.default, s.fake(n, n)) == "[s1, s1]"
    assert s.guards() == []
