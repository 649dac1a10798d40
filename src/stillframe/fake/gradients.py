"""Which results require grad, where the general answer is not the right one.

In general every result of a differentiable dtype requires grad if any tensor argument does. The
operators here are exceptions: torch differentiates them by some of their arguments only, or not all
of their results, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten


@dataclass(frozen=True)
class Gradient:
    """The differentiable part of an operator.

    Attributes:
        arguments: positions of the arguments that gradients go to; None means all.
        results: positions of the results that gradients come from; None means all.
        parts: for single results, by position, fewer arguments that gradients go to.
    """

    arguments: tuple[int, ...] | None = None
    results: tuple[int, ...] | None = None
    parts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def flows(self, args: Sequence[Any]) -> bool:
        """Whether any of the arguments that count requires grad."""
        return self.arguments is None or _any_requires_grad(args, self.arguments)

    def reaches(self, result: int, args: Sequence[Any]) -> bool:
        """Whether a result requires grad, if any does."""
        if self.results is not None and result not in self.results:
            return False
        return result not in self.parts or _any_requires_grad(args, self.parts[result])


def _any_requires_grad(args: Sequence[Any], positions: Sequence[int]) -> bool:
    return any(
        isinstance(t, FakeTensor) and t.requires_grad
        for i in positions
        if i < len(args)
        for t in (args[i] if isinstance(args[i], (list, tuple)) else (args[i],))
    )


_NONE = Gradient(arguments=())
_FIRST = Gradient(arguments=(0,))
_INPUT_WEIGHT_BIAS = Gradient(arguments=(0, 1, 2))

_NOT_DIFFERENTIABLE = (
    "histc detach_ logical_and logical_or logical_xor logical_and_ logical_or_ logical_xor_ "
    "special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 "
    "special_bessel_y1 special_modified_bessel_i0 special_modified_bessel_i1 "
    "special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0 "
    "special_scaled_modified_bessel_k1 special_spherical_bessel_j0 "
    "special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v "
    "special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he "
    "special_laguerre_polynomial_l special_legendre_polynomial_p "
    "special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u "
    "special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w"
)
# The other results are statistics, indices as numbers, or factors kept for the backward pass.
_FIRST_RESULT_ONLY = (
    "native_layer_norm native_batch_norm _native_batch_norm_legit _batch_norm_with_update "
    "_native_batch_norm_legit_no_training _weight_norm_interface "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention nll_loss_forward nll_loss2d_forward "
    "log_sigmoid_forward _ctc_loss multilabel_margin_loss_forward _linalg_det _linalg_solve_ex"
)
_BY_THE_FIRST = "reshape_as hinge_embedding_loss"


def _of_all_overloads(names: str, gradient: Gradient) -> dict[Any, Gradient]:
    packets = [getattr(aten, name) for name in names.split()]
    return {getattr(p, o): gradient for p in packets for o in p.overloads()}


GRADIENTS: dict[Any, Gradient] = {
    **_of_all_overloads(_NOT_DIFFERENTIABLE, _NONE),
    **_of_all_overloads(_FIRST_RESULT_ONLY, Gradient(results=(0,))),
    **_of_all_overloads(_BY_THE_FIRST, _FIRST),
    aten.batch_norm.default: _INPUT_WEIGHT_BIAS,
    aten.instance_norm.default: _INPUT_WEIGHT_BIAS,
    aten.linalg_lstsq.default: Gradient(results=(0, 1)),
    aten._linalg_slogdet.default: Gradient(results=(0, 1)),
    aten.linalg_lu.default: Gradient(results=(1, 2)),
    aten.lu_unpack.default: Gradient(results=(1, 2)),
    # the second result is made of the input alone, not of the weight
    aten._fused_rms_norm.default: Gradient(parts={1: (0,)}),
}


def without_gradient(gradient: Gradient, args: Sequence[Any], results: Any) -> None:
    """Take ``requires_grad`` from the results that no gradient comes from."""
    for i, result in enumerate(results):
        if result.requires_grad and not gradient.reaches(i, args):
            result.requires_grad = False


@lru_cache(None)
def writes_first(func: Any) -> bool:
    """Whether the operator changes its first argument in place."""
    arguments = func._schema.arguments
    alias = arguments[0].alias_info if arguments else None
    return alias is not None and alias.is_write


def written(func: Any, target: FakeTensor) -> None:
    """A value that requires grad was written into ``target``, so it and its bases do too."""
    if target.requires_grad or not writes_first(func):
        return
    if not (target.dtype.is_floating_point or target.dtype.is_complex):
        return
    tensor: FakeTensor | None = target
    while tensor is not None and not tensor.requires_grad:
        tensor.requires_grad = True
        tensor = tensor.base
