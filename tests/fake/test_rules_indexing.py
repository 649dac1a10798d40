"""Index tensors, masks, gather and scatter against the real kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error, layouts_of
from tests.fake.symbols import Symbols

from stillframe.errors import NotSupported

aten = torch.ops.aten
SHAPES = ((4, 5), (3, 4, 5), (2, 3, 4, 5))
LAYOUTS = [(sizes, name) for sizes in SHAPES for name in layouts_of(sizes)]


def ints(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def mask(*sizes: int) -> torch.Tensor:
    return torch.arange(torch.Size(sizes).numel()).view(sizes) % 3 != 1


def indices_of(sizes: tuple[int, ...]) -> list[list[torch.Tensor | None]]:
    """Arguments of ``x[...]`` for a tensor with at least two dims."""
    block = ints([[0, 1], [1, 0], [1, 1]])
    made: list[list[torch.Tensor | None]] = [
        [ints([0, 1, 1])],
        [None, ints([0, 1])],
        [ints(1)],
        [None, block],
        [None, block.t()],
        [ints([0, 1]), ints([1, 0])],
        [ints([[0], [1]]), ints([[1, 0, 1]])],
        [ints(0), ints([1, 2])],
        [ints([0, 1]).expand(3, 2)],
        [ints([0, 1]).int()],
        [mask(sizes[0])],
        [None, mask(sizes[1])],
        [mask(*sizes[:2])],
        [mask(*sizes)],
    ]
    if len(sizes) > 2:
        made += [
            [ints([0, 1]), None, ints([1, 2])],
            [ints([0, 1]), None, ints([[1], [2]])],
            [None, ints([0]), ints([0, 1])],
            [None, mask(sizes[1]), ints(0)],
        ]
    return made


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_index_tensors_and_masks(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    for indices in indices_of(sizes):
        check(aten.index.Tensor, x, indices)
        values = torch.ops.aten.index.Tensor(x, indices)
        check(aten.index_put.default, x, indices, values)
        check(aten.index_put.default, x, indices, torch.tensor(1.0))
        if "expanded" not in layout:
            check(aten.index_put_.default, x.clone(), indices, values.clone())


@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS, ids=str)
def test_one_index_for_a_dim(sizes: tuple[int, ...], layout: str) -> None:
    x = layouts_of(sizes)[layout]
    zeros, source = torch.zeros(sizes, dtype=torch.int64), torch.randn(sizes)
    row = torch.arange(sizes[1])
    for op, *args in (
        (aten.index_select.default, 1, ints([0, 2])),
        (aten.gather.default, 1, zeros),
        (aten.take_along_dim.default, zeros[:, :1], 1),
        (aten.take.default, zeros),
        (aten.scatter.value, 1, zeros, 1.0),
        (aten.scatter.src, 1, zeros, source),
        (aten.scatter_add.default, 1, zeros, source),
        (aten.scatter_reduce.two, 1, zeros, source, "amax"),
        (aten.index_add.default, 1, row, source),
        (aten.index_copy.default, 1, row, source),
        (aten.index_fill.int_Scalar, 1, ints([0]), 2.0),
        (aten.masked_scatter.default, mask(*sizes), source),
        (aten.slice_scatter.default, source[:, 1:], 1, 1),
        (aten.select_scatter.default, source[:, 1], 1, 1),
        (aten.put.default, ints([0, 1]), torch.randn(2)),
    ):
        check(op, x, *args)
    y = x.clone()
    for op, *args in (
        (aten.scatter_.value, 1, zeros, 1.0),
        (aten.scatter_add_.default, 1, zeros, source),
        (aten.scatter_reduce_.two, 1, zeros, source, "sum"),
        (aten.index_add_.default, 1, row, source),
        (aten.index_copy_.default, 1, row, source),
        (aten.index_fill_.int_Scalar, 1, ints([0]), 2.0),
        (aten.masked_scatter_.default, mask(*sizes), source),
        (aten.fill_diagonal_.default, 1.0),
    ):
        if op is not aten.fill_diagonal_.default or len(sizes) == 2:
            check(op, y, *args)


def test_embeddings() -> None:
    weight = torch.randn(9, 4)
    for indices in (ints(3), ints([1, 2]), ints([[1, 2], [3, 4]]), ints([[1, 2]]).t().int()):
        check(aten.embedding.default, weight, indices)
    for mode in (0, 1, 2):
        for last in (False, True):
            for padding in (-1, 3):
                args = (ints([1, 2, 4, 5]), ints([0, 3]), False, mode, False, None, last)
                check(aten.embedding_bag.default, weight, *args)
                check(aten._embedding_bag.default, weight, *args, padding)
                check(aten.embedding_bag.padding_idx, weight, *args, padding)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.index.Tensor, ([torch.ones(3)],)),
        (aten.index.Tensor, ([ints([0]), ints([0]), ints([0])],)),
        (aten.index.Tensor, ([torch.ones(3, dtype=torch.bool)],)),
        (aten.index.Tensor, ([ints([0, 1]), ints([0, 1, 2])],)),
        (aten.index_put.default, ([ints([0, 1])], torch.randn(3, 5))),
        (aten.index_put.default, ([ints([0, 1])], torch.randn(2, 5).double())),
        (aten.gather.default, (0, ints([1, 2]))),
        (aten.index_select.default, (0, ints([[1, 2]]))),
        (aten.scatter.src, (0, ints([[1, 2]]), torch.randn(1, 2).double())),
        (aten.masked_scatter.default, (torch.ones(4, 5), torch.randn(20))),
    ],
    ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "args",
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, torch.randn(4, 5), *args)


# -- symbolic answers ----------------------------------------------------------------------------


def test_a_mask_makes_an_unbacked_size() -> None:
    s = Symbols()
    b, n = s.size(3), s.size(7)
    x, m = s.fake(b, n, 8), s.fake(b, n, dtype=torch.bool)
    assert s.sizes(aten.index.Tensor, x, [m]) == "[u0, 8]"
    assert s.guards() == []


def test_a_mask_has_one_count_until_it_is_written() -> None:
    s = Symbols()
    n = s.size(7)
    x, y, m = s.fake(n), s.fake(n), s.fake(n, dtype=torch.bool)
    first, second = s.run(aten.index.Tensor, x, [m]), s.run(aten.index.Tensor, y, [m])
    assert first.sizes == second.sizes
    m.storage_.written += 1
    assert s.run(aten.index.Tensor, x, [m]).sizes != first.sizes


def test_the_count_of_a_static_mask_is_bounded() -> None:
    s = Symbols()
    found = s.run(aten.index.Tensor, s.fake(4, 5), [s.fake(4, 5, dtype=torch.bool)])
    assert s.env.facts.range_of(found.sizes[0]).upper == 20


def test_writing_by_a_mask_asks_nothing() -> None:
    s = Symbols()
    b, n = s.size(3), s.size(7)
    x, m = s.fake(b, n), s.fake(b, n, dtype=torch.bool)
    values = s.fake(s.ctx.unbacked())
    assert s.run(aten.index_put_.default, x, [m], values) is x
    assert s.guards() == [] and s.env.deferred == []


def test_rows_of_a_batch() -> None:
    s = Symbols()
    b, n = s.size(3), s.size(7)
    rows = s.fake(b, dtype=torch.int64)
    assert s.sizes(aten.index.Tensor, s.fake(b, n, 8), [rows, rows]) == "[s0, 8]"
    assert s.sizes(aten.index.Tensor, s.fake(b, n, 8), [None, rows]) == "[s0, s0, 8]"
    assert s.sizes(aten.embedding.default, s.fake(100, 8), s.fake(b, n, dtype=torch.int64)) == (
        "[s0, s1, 8]"
    )
    assert s.guards() == []


def test_cross_needs_to_know_its_dim() -> None:
    s = Symbols()
    n = s.size(3)
    with pytest.raises(NotSupported, match=r"torch\.cross without dim"):
        s.run(aten.cross.default, s.fake(n, n), s.fake(n, n))
