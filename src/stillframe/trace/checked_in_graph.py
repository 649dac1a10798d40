"""Functions of torch that ask tensors for data only to refuse bad input, or to warn.

A trace cannot answer such a question, and need not: the refusal becomes a check in the graph, which
fails when the graph runs on bad input. The warnings are left out.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def cov(
    x: torch.Tensor,
    *,
    correction: Any = 1,
    fweights: torch.Tensor | None = None,
    aweights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The covariance matrix of variables in rows, as ``torch.cov`` documents it.

    Args:
        x: (variables, observations), or the observations of one variable.
        correction: how far the divisor is below the number of observations.
        fweights: (observations,) how often each observation occurs, integers.
        aweights: (observations,) how important each observation is.
    """
    if x.dim() > 2:
        raise RuntimeError(f"cov takes a tensor of at most two dims, got {x.dim()}")
    rows = x if x.dim() == 2 else x.reshape(1, -1)
    observations = rows.shape[1]
    weights = _weights(observations, fweights, aweights)
    if weights is None:
        mean = rows.sum(1) / observations
        divisor: Any = torch.sym_max(observations - correction, 0)
    else:
        total = weights.sum()
        torch._assert_async(total != 0, "the weights of cov sum to zero")
        mean = (rows * weights).sum(1) / total
        lost = (weights * aweights).sum() / total if aweights is not None else 1
        divisor = (total - correction * lost).clamp(min=0)
    centred = rows - mean.unsqueeze(1)
    weighted = centred if weights is None else centred * weights
    return (centred @ weighted.t().conj()).div(divisor).squeeze()


def _weights(
    observations: Any, fweights: torch.Tensor | None, aweights: torch.Tensor | None
) -> torch.Tensor | None:
    """The product of the weights that were given, checked."""
    result = None
    for name, given, fits in (
        ("fweights", fweights, lambda w: not w.is_floating_point() and not w.is_complex()),
        ("aweights", aweights, lambda w: w.is_floating_point()),
    ):
        if given is None:
            continue
        if given.dim() > 1 or given.numel() != observations or not fits(given):
            kind = "integers" if name == "fweights" else "floats"
            raise RuntimeError(f"cov takes one of {name} per observation, {kind}")
        torch._assert_async((given >= 0).all(), f"{name} of cov must not be negative")
        result = given if result is None else result * given
    return result


def corrcoef(x: torch.Tensor) -> torch.Tensor:
    """The correlation coefficients of variables in rows, as ``torch.corrcoef`` documents them."""
    covariance = cov(x)
    if covariance.dim() == 0:
        return covariance / covariance
    variances = covariance.diagonal()
    deviations = (variances.real if variances.is_complex() else variances).sqrt()
    scaled = covariance / deviations.unsqueeze(1) / deviations.unsqueeze(0)
    if scaled.is_complex():
        return torch.complex(scaled.real.clamp(-1, 1), scaled.imag.clamp(-1, 1))
    return scaled.clamp(-1, 1)


def gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """The negative log likelihood of ``target``, as ``torch.nn.GaussianNLLLoss`` documents it.

    Args:
        input, target: expectations and samples.
        var: variances of ``input``'s sizes, without its last dim, or with 1 there; or a number.
        full: with the constant term.
        eps: the least variance, which has no part in the gradient.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    if not isinstance(var, torch.Tensor):
        if var < 0:
            raise ValueError("var is negative")
        var = var * torch.ones_like(input)
    else:
        torch._assert_async(~(var < 0).any(), "var of gaussian_nll_loss has negative entries")
        var = _per_entry(input, var)
    var = var.clone()
    with torch.no_grad():
        var.clamp_(min=eps)
    loss: torch.Tensor = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def _per_entry(input: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
    """``var`` so that it broadcasts to ``input``."""
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1]:
        return var.unsqueeze(-1)
    if var.dim() == input.dim():
        differ = [b for a, b in zip(input.shape, var.shape, strict=True) if a != b]
        if len(differ) == 1 and differ[0] == 1:
            return var
    raise ValueError("var is of incorrect size")
