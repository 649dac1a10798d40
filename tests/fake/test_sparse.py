"""Rules for sparse tensors beside the real kernels, as operators arrive and as they are called."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.errors import NotSupported
from stillframe.fake import sparse
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Expr

aten = torch.ops.aten


def coalesced() -> torch.Tensor:
    return torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]).to_sparse()


def doubled() -> torch.Tensor:
    """With one place twice, so not coalesced."""
    return torch.sparse_coo_tensor(
        torch.tensor([[0, 1, 1], [1, 2, 2]]), torch.tensor([1.0, 2.0, 3.0]), (2, 3)
    )


def with_rows() -> torch.Tensor:
    """One sparse and one dense dim."""
    return torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]]).to_sparse(1)


def compressed() -> torch.Tensor:
    return coalesced().to_dense().to_sparse_csr()


ALL = [coalesced, doubled, with_rows, compressed]
DENSE = torch.arange(12.0).reshape(3, 4)

CALLS: dict[str, Callable[[torch.Tensor], Any]] = {
    **{name: operator.methodcaller(name) for name in (
        "abs", "sin", "relu", "sqrt", "neg", "clone", "detach", "coalesce", "to_dense", "t",
        "values", "indices", "_values", "_indices", "crow_indices", "col_indices",
    )},
    "double": lambda s: s * 2,
    "half": lambda s: s / 2,
    "plus itself": lambda s: s + s,
    "minus itself": lambda s: s - s,
    "times matrix": lambda s: s @ DENSE,
    "sparse.mm": lambda s: torch.sparse.mm(s, DENSE),
    "mm": lambda s: torch.mm(s, DENSE),
    "times vector": lambda s: s @ DENSE[:, 0],
    "mv": lambda s: torch.mv(s, DENSE[:, 0]),
    "addmm": lambda s: torch.addmm(torch.ones(4), s, DENSE),
    "sparse.addmm": lambda s: torch.sparse.addmm(torch.ones(2, 4), s, DENSE),
    "sampled_addmm": lambda s: torch.sparse.sampled_addmm(s, torch.ones(2, 5), torch.ones(5, 3)),
    "transpose": lambda s: s.transpose(0, 1),
}  # fmt: skip


def described(value: Any, count: int | None = None) -> Any:
    """What a fake says of a tensor; numbers of elements that data tells are left out."""
    if isinstance(value, FakeTensor):
        if value.sparse is None:
            return value.dtype, tuple("?" if isinstance(n, Expr) else n for n in value.sizes)
        pattern = value.sparse
        parts = [described(pattern.parts[name]) for name in sparse.PARTS[pattern.layout]]
        coalesced = pattern.coalesced if pattern.layout is torch.sparse_coo else None
        return pattern.layout, value.sizes, pattern.sparse_dim, coalesced, parts
    raise TypeError(value)


def described_real(value: torch.Tensor, like: Any) -> Any:
    """The same of a real tensor, with ``?`` where the fake has it."""
    if value.layout is torch.strided:
        sizes = [w if w == "?" else n for n, w in zip(value.shape, like[1], strict=True)]
        return value.dtype, tuple(sizes)
    parts = (
        [value._indices(), value._values()]
        if value.layout is torch.sparse_coo
        else [value.crow_indices(), value.col_indices(), value.values()]
    )
    coalesced = value.is_coalesced() if value.layout is torch.sparse_coo else None
    described = [described_real(p, w) for p, w in zip(parts, like[4], strict=True)]
    return value.layout, tuple(value.shape), value.sparse_dim(), coalesced, described


def fake_of(real: torch.Tensor) -> FakeTensor:
    mode = FakeMode(ShapeEnv())
    return sparse.like_real(mode.env, real, None, int(real._nnz()))


@pytest.mark.parametrize("make", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("call", CALLS)
def test_rules_say_what_kernels_give(call: str, make: Callable[[], torch.Tensor]) -> None:
    """Through both ways in: whole operators as for export, and those below autograd."""
    function = CALLS[call]
    real = make()
    try:
        expected = function(real)
    except (RuntimeError, IndexError):
        with pytest.raises((RuntimeError, NotImplementedError, IndexError)):
            sf.make_fx(function, tracing_mode="fake", allow_non_fake_inputs=True)(real)
        return
    for above in (False, True):
        found = None

        def keep(s: torch.Tensor) -> Any:
            nonlocal found
            found = function(s)
            return found

        try:
            sf.make_fx(keep, tracing_mode="fake", allow_non_fake_inputs=True, pre_dispatch=above)(
                real
            )
        except NotSupported as e:
            assert make is compressed or make is with_rows, e
            continue
        said = described(found)
        assert said == described_real(expected, said)


def test_strides_of_indices() -> None:
    """What ``coalesce`` and ``add`` leave is cut out of memory for all elements."""
    real = doubled()
    mode = FakeMode(ShapeEnv())
    fake = sparse.like_real(mode.env, real, None, 3)
    made = mode.run(aten._coalesce.default, (fake,), {})
    strides = mode.run(aten._indices.default, (made,), {}).strides
    assert strides == real.coalesce()._indices().stride() == (3, 1)
    total = mode.run(aten.add.Tensor, (fake, fake), {})
    strides = mode.run(aten._indices.default, (total,), {}).strides
    assert strides == (real + real)._indices().stride() == (6, 1)


def test_parts_share_memory() -> None:
    mode = FakeMode(ShapeEnv())
    indices, values = mode.adopt(torch.tensor([[0, 1]])), mode.adopt(torch.ones(2))
    made = mode.run(aten._sparse_coo_tensor_unsafe.default, (indices, values, [3]), {})
    assert mode.run(aten._values.default, (made,), {}).storage_ is values.storage_
    assert mode.run(aten._indices.default, (made,), {}).storage_ is indices.storage_
    copy = mode.run(aten.clone.default, (made,), {})
    assert mode.run(aten._values.default, (copy,), {}).storage_ is not values.storage_
    same = mode.run(aten.detach.default, (made,), {})
    assert mode.run(aten._values.default, (same,), {}).storage_ is values.storage_


def test_an_operator_without_a_rule_is_named() -> None:
    fake = fake_of(coalesced())
    mode = FakeMode(fake.env)
    with pytest.raises(NotSupported, match="aten.softmax.int has no shape rule for sparse"):
        mode.run(aten.softmax.int, (fake, 0), {})
    with pytest.raises(NotSupported, match="mul and div"):
        mode.run(aten.mul.Tensor, (fake, fake), {})
    integers = fake_of(coalesced().to(torch.int64))
    with pytest.raises(NotSupported, match="dtypes"):
        FakeMode(integers.env).run(aten.sin.default, (integers,), {})


def test_nobody_takes_it_for_a_strided_tensor() -> None:
    fake = fake_of(coalesced())
    with pytest.raises(NotSupported, match="where only strided ones"):
        _ = fake.strides
    with pytest.raises(NotSupported, match="where only strided ones"):
        _ = fake.offset
    assert not hasattr(fake, "no_such_name")


def test_layouts_without_fakes() -> None:
    env = ShapeEnv()
    for real in (torch.eye(4).to_sparse_csc(), torch.eye(4).to_sparse_bsr((2, 2)),
                 torch.ones(2, 3, 3).to_sparse_csr()):  # fmt: skip
        with pytest.raises(NotSupported, match="layout torch.sparse_"):
            sparse.like_real(env, real, None, 1)
