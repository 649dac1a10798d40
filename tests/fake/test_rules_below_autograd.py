"""What composite operators come to below autograd, against the real kernels."""

from __future__ import annotations

import pytest
import torch
from tests.fake.checking import check, check_error

aten = torch.ops.aten
rand = torch.randn

MATRICES = [(4, 3), (3, 4), (3, 3), (2, 4, 3), (5, 2, 3, 4), (0, 3), (2, 1, 1)]
SQUARES = [(3, 3), (2, 3, 3), (5, 2, 4, 4), (0, 3, 3), (1, 1)]


@pytest.mark.parametrize("sizes", MATRICES, ids=str)
def test_svd(sizes: tuple[int, ...]) -> None:
    for x in (rand(sizes), rand(sizes, dtype=torch.complex64)):
        for full in (False, True):
            check(aten._linalg_svd.default, x, full, True)
            check(aten._linalg_svd.default, x, full, False)


@pytest.mark.parametrize("sizes", SQUARES, ids=str)
def test_square_matrices(sizes: tuple[int, ...]) -> None:
    x = rand(sizes)
    for matrix in (x @ x.mT, (x @ x.mT).to(torch.complex64)):
        check(aten._linalg_eigh.default, matrix, "L", True)
        check(aten._linalg_eigh.default, matrix, "L", False)
        check(aten._linalg_det.default, matrix)
        check(aten._linalg_slogdet.default, matrix)


def test_matrices_are_checked() -> None:
    check_error(aten._linalg_svd.default, rand(3))
    check_error(aten._linalg_det.default, rand(2, 3))


def test_trilinear() -> None:
    a, b, weight = rand(2, 3), rand(2, 4), rand(5, 3, 4)
    check(aten._trilinear.default, a, weight, b, [1, 3], [0], [1, 2], [2, 3])


@pytest.mark.parametrize("targets", [rand(2, 4).abs().ceil().long(), torch.ones(7).long()], ids=str)
def test_ctc_loss(targets: torch.Tensor) -> None:
    check(aten._ctc_loss.default, rand(6, 2, 5).log_softmax(-1), targets, [6, 5], [4, 3])


def test_conjugates() -> None:
    check(aten._conj_physical.default, rand(4, 5, dtype=torch.complex64).t())
    check(aten._conj_physical.default, rand(4, 5, dtype=torch.complex64)[:, ::2])


def test_histograms() -> None:
    for points in (rand(10, 3), rand(4, 5, 3, dtype=torch.float64)):
        check(aten._histogramdd_bin_edges.default, points, [2, 3, 4])
        check(aten._histogramdd_from_bin_cts.default, points, [2, 3, 4])
    edges = [torch.linspace(0, 1, n) for n in (4, 5)]
    check(aten._histogramdd_from_bin_tensors.default, rand(10, 2), edges)
