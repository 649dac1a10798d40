"""Products, einsum and decompositions against the real kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error
from tests.fake.symbols import Symbols

aten = torch.ops.aten
rand = torch.randn


def plain(x: torch.Tensor) -> torch.Tensor:
    return x


def reversed_memory(x: torch.Tensor) -> torch.Tensor:
    order = list(range(x.dim() - 1, -1, -1))
    return x.permute(order).contiguous().permute(order)


def sliced(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x], -1)[..., : x.shape[-1]] if x.dim() else x


FORMS = [plain, reversed_memory, sliced]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 2, 3), (1, 3, 4)),
        ((2, 3), (5, 3, 4)),
        ((3,), (5, 3, 4)),
        ((6, 5, 2, 3), (5, 3, 4)),
        ((6, 1, 2, 3), (5, 3, 4)),
        ((6, 5, 2, 3), (6, 5, 3, 4)),
    ],
    ids=str,
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], form: Callable[..., torch.Tensor]) -> None:
    check(aten.matmul.default, form(rand(a)), form(rand(b)))


@pytest.mark.parametrize("form", FORMS)
def test_products(form: Callable[..., torch.Tensor]) -> None:
    a, b, x = form(rand(2, 3)), form(rand(3, 4)), form(rand(2, 4))
    check(aten.mm.default, a, b)
    check(aten.mv.default, a, form(rand(3)))
    check(aten.addmm.default, x, a, b)
    check(aten.addmm.default, rand(4), a, b)
    check(aten.addmm_.default, x, a, b)
    batched = form(rand(5, 2, 3)), form(rand(5, 3, 4))
    check(aten.bmm.default, *batched)
    check(aten.baddbmm.default, form(rand(5, 2, 4)), *batched)
    check(aten.addbmm.default, x, *batched)
    check(aten.outer.default, rand(3), rand(4))
    check(aten.inner.default, a, form(rand(5, 3)))
    check(aten.tensordot.default, batched[0], form(rand(3, 2, 4)), [1, 2], [1, 0])
    check(aten.linalg_multi_dot.default, [a, b, form(rand(4, 5))])
    check(aten.bilinear.default, a, form(rand(2, 4)), rand(6, 3, 4), rand(6))
    given = a, rand(6, 3, 4), form(rand(2, 4))
    for kept in ([2, 3], [1], []):
        check(aten._trilinear.default, *given, [1, 3], [0], [1, 2], kept)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [(3,), (2, 3), (5, 2, 3), (4, 5, 2, 3)], ids=str)
def test_linear(sizes: tuple[int, ...], form: Callable[..., torch.Tensor]) -> None:
    x, weight = form(rand(sizes)), form(rand(4, 3))
    check(aten.linear.default, x, weight)
    check(aten.linear.default, x, weight, rand(4))


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk->ki", (2, 3), (3, 4)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bqhd,bkhd->bhqk", (2, 3, 4, 5), (2, 6, 4, 5)),
    ("bhqk,bkhd->bqhd", (2, 4, 3, 6), (2, 6, 4, 5)),
    ("bld,lrd->blr", (2, 3, 4), (3, 6, 4)),
    ("nchw,c->nhwc", (2, 3, 4, 5), (3,)),
    ("i,j->ij", (3,), (4,)),
    ("i,j->ji", (3,), (4,)),
    ("abi,ab->abi", (2, 3, 4), (2, 3)),
    ("bi,bj->b", (2, 3), (2, 4)),
    ("...d,de->...e", (2, 3, 4), (4, 5)),
    ("...ij,...jk", (2, 3, 4), (2, 4, 5)),
    ("ba,b->a", (3, 1), (3,)),
    ("ij,ij->", (2, 3), (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("iij,jk->ik", (3, 3, 4), (4, 5)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("ij->ji", (2, 3)),
    ("ij->j", (2, 3)),
    ("ijk->ki", (2, 3, 4)),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("equation", "sizes"), [(e, s) for e, *s in EQUATIONS], ids=str)
def test_einsum(equation: str, sizes: list[Any], form: Callable[..., torch.Tensor]) -> None:
    check(aten.einsum.default, equation, [form(rand(s)) for s in sizes])


def test_einsum_to_every_order_of_dims() -> None:
    sizes = {"b": 2, "a": 3, "c": 4, "d": 5, "e": 6, "k": 7}
    left, right = "back", "bkde"
    operands = [rand([sizes[c] for c in term]) for term in (left, right)]
    for order in itertools.permutations("bacde"):
        check(aten.einsum.default, f"{left},{right}->{''.join(order)}", operands)


def test_einsum_along_a_path() -> None:
    operands = [rand(2, 3), rand(3, 4), rand(4, 5)]
    check(aten.einsum.default, "ij,jk,kl->il", operands, path=[1, 2, 0, 1])


@pytest.mark.parametrize("form", FORMS)
def test_decompositions(form: Callable[..., torch.Tensor]) -> None:
    square = form(rand(2, 4, 4) + 5 * torch.eye(4))
    positive = form(square @ square.mT)
    for op in (aten.linalg_inv, aten.linalg_inv_ex, aten.linalg_det, aten.linalg_slogdet):
        check(op.default, square)
    for op in (aten.linalg_cholesky, aten.linalg_eigh, aten.linalg_eigvalsh, aten.logdet):
        check(op.default, positive)
    for op in (aten.linalg_eig, aten.linalg_eigvals, aten.linalg_lu, aten.linalg_lu_factor_ex):
        check(op.default, square)
    for power in (-2, -1, 0, 1, 2):
        check(aten.linalg_matrix_power.default, square, power)
    check(aten.matrix_exp.default, square)
    for rect in (form(rand(2, 5, 3)), form(rand(2, 3, 5))):
        check(aten.linalg_svd.default, rect, False)
        check(aten.linalg_svd.default, rect)
        check(aten.linalg_svdvals.default, rect)
        for mode in ("reduced", "complete", "r"):
            check(aten.linalg_qr.default, rect, mode)
    check(aten.linalg_solve.default, square, form(rand(2, 4, 3)))
    check(aten.linalg_solve.default, square, rand(2, 4))
    check(aten.linalg_solve.default, square[0], rand(4))
    check(aten.linalg_solve_triangular.default, square, form(rand(2, 4, 3)), upper=True)
    check(aten.cholesky_solve.default, form(rand(2, 4, 3)), positive)
    check(aten.linalg_cross.default, form(rand(4, 3)), rand(4, 3))
    check(aten.pdist.default, rand(5, 3))
    check(aten.cov.default, form(rand(4, 3)))


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.mm.default, (rand(2, 3), rand(2, 3))),
        (aten.mm.default, (rand(2, 3), rand(3))),
        (aten.mm.default, (rand(2, 3), rand(3, 2).double())),
        (aten.bmm.default, (rand(2, 3, 4), rand(3, 4, 2))),
        (aten.matmul.default, (rand(2, 3), rand(4, 2))),
        (aten.matmul.default, (rand(5, 2, 3), rand(4, 3, 2))),
        (aten.matmul.default, (rand(()), rand(3))),
        (aten.linear.default, (rand(2, 3), rand(4, 5))),
        (aten.linear.default, (rand(2, 3).double(), rand(4, 3))),
        (aten.addmm.default, (rand(5), rand(2, 3), rand(3, 4))),
        (aten.einsum.default, ("ij,jk->ik", [rand(2, 3), rand(4, 5)])),
        (aten.einsum.default, ("ij,jk->ik", [rand(2, 3)])),
        (aten.einsum.default, ("ij->iz", [rand(2, 3)])),
        (aten.einsum.default, ("ijk->i", [rand(2, 3)])),
        (aten.einsum.default, ("i1->i", [rand(2, 3)])),
        (aten.linalg_inv.default, (rand(2, 3),)),
        (aten.linalg_solve.default, (rand(3, 3), rand(4, 2))),
    ],
    ids=lambda v: str(v) if isinstance(v, torch._ops.OpOverload) else "args",
)
def test_refused_as_eager_does(op: Any, args: tuple[Any, ...]) -> None:
    check_error(op, *args)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.int64, torch.complex64))
def test_weights_of_observations_count_for_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randint(1, 9, (3, 4)).to(dtype)
    for weight in (torch.float32, torch.bfloat16, torch.float64):
        check(aten.cov.default, x, aweights=torch.rand(4, dtype=weight))


GROUPS = torch.tensor([3, 8], dtype=torch.int32)
GROUPED: tuple[tuple[Any, ...], ...] = (
    (torch.rand(8, 16), torch.rand(2, 30, 16).mT, GROUPS),
    (torch.rand(8, 16).t(), torch.rand(32, 8).t(), GROUPS),
    (torch.rand(2, 8, 16), torch.rand(2, 16, 32)),
    (torch.rand(2, 8, 16), torch.rand(32, 16).t(), torch.tensor([8, 32], dtype=torch.int32)),
)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_grouped_products(dtype: torch.dtype) -> None:
    """Matrices and stacks of them; 30 columns of bfloat16 are padded."""
    for a, b, *rest in GROUPED:
        assert not check(aten._grouped_mm.default, a.to(dtype), b.to(dtype), *rest).guards
    check_error(aten._grouped_mm.default, torch.rand(8, 16), torch.rand(3, 16, 32), GROUPS)
    check_error(aten._grouped_mm.default, torch.rand(8, 16), torch.rand(2, 16, 32))


def test_leading_dims_are_free() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9)
    x = s.fake(b, n, 64)
    assert s.sizes(aten.linear.default, x, s.fake(10, 64), s.fake(10)) == "[s0, s1, 10]"
    assert s.sizes(aten.matmul.default, x, s.fake(b, 64, n)) == "[s0, s1, s1]"
    assert s.sizes(aten.einsum.default, "bid,bjd->bij", [x, x]) == "[s0, s1, s1]"
    assert s.guards() == []


def test_the_inner_dims_must_agree() -> None:
    s = Symbols()
    n = s.size(64)
    s.run(aten.linear.default, s.fake(2, n), s.fake(10, 64))
    assert s.guards() == ["s0 == 64"]
