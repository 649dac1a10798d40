"""Questions about data that only refuse bad input become checks in the graph."""

from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.trace.checked_in_graph import corrcoef, cov, gaussian_nll_loss

F = torch.nn.functional
every_mode = pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.complex64])
def test_covariances_equal_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    counts, weights = torch.tensor([1, 0, 2, 1]), torch.rand(4)
    for x in (torch.rand(3, 4), torch.rand(4), torch.rand(1, 4)):
        x = (x * 5).to(dtype)
        options: list[dict[str, Any]] = [
            {}, {"correction": 0}, {"fweights": counts}, {"aweights": weights},
            {"fweights": counts, "aweights": weights, "correction": 2},
        ]  # fmt: skip
        for kwargs in options:
            torch.testing.assert_close(cov(x, **kwargs), torch.cov(x, **kwargs))
        torch.testing.assert_close(corrcoef(x), torch.corrcoef(x))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_the_loss_and_its_gradients_equal_torchs(reduction: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    for var in (torch.rand(2, 3), torch.rand(2), torch.rand(2, 1), torch.zeros(2, 3), 0.5):
        given = [v.clone().requires_grad_() if isinstance(v, torch.Tensor) else v for v in (x, var)]
        results = [
            f(given[0], y, given[1], full=True, reduction=reduction)
            for f in (gaussian_nll_loss, F.gaussian_nll_loss)
        ]
        torch.testing.assert_close(*results)
        wanted = [v for v in given if isinstance(v, torch.Tensor)]
        torch.testing.assert_close(*(torch.autograd.grad(r.sum(), wanted) for r in results))


@every_mode
def test_bad_data_is_refused_when_the_graph_runs(mode: str) -> None:
    x = torch.rand(2, 3)
    loss = sf.make_fx(F.gaussian_nll_loss, tracing_mode=mode)(x, x, x)
    with pytest.raises(RuntimeError, match="negative"):
        loss(x, x, -x)
    weighted = sf.make_fx(lambda x, w: torch.cov(x, aweights=w), tracing_mode=mode)(x, x[0])
    with pytest.raises(RuntimeError, match="negative"):
        weighted(x, -x[0])


def test_bad_shapes_are_refused_at_once() -> None:
    x = torch.rand(2, 3)
    for bad in (
        lambda: sf.make_fx(torch.cov)(x[None]),
        lambda: sf.make_fx(lambda x: torch.cov(x, fweights=x[0]))(x),
        lambda: sf.make_fx(lambda x: torch.cov(x, aweights=x[0, :2]))(x),
    ):
        with pytest.raises(RuntimeError, match="cov takes"):
            bad()
    with pytest.raises(ValueError, match="incorrect size"):
        sf.make_fx(F.gaussian_nll_loss)(x, x, x[:, :2])


def test_programs_hold_them() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, var: torch.Tensor) -> Any:
            return F.gaussian_nll_loss(x, x + 1, var), torch.corrcoef(x)

    x, var = torch.rand(4, 6), torch.rand(4, 6)
    rows = sf.Dim("rows", min=2)
    program = sf.export(Model(), (x, var), dynamic_shapes={"x": {0: rows}, "var": {0: rows}})
    other = torch.rand(7, 6), torch.rand(7, 6)
    for form in (program, program.run_decompositions()):
        torch.testing.assert_close(form.module()(*other), Model()(*other))
        with pytest.raises(RuntimeError, match="negative"):
            form.module()(x, -var)
