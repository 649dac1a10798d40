"""Decompositions of this package: where torch's ask questions about sizes that need no answer,
draw other random numbers than eager, or depend on how an input is laid out in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from stillframe.errors import InternalError
from stillframe.fake.mode import mode_of
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.trace import checked_in_graph

aten = torch.ops.aten

R = TypeVar("R", bound=Callable[..., Any])

RULES: dict[Any, Callable[..., Any]] = {}


def _rule(*operators: Any) -> Callable[[R], R]:
    def register(function: R) -> R:
        for op in operators:
            if op in RULES:
                raise InternalError(f"two decompositions for {op}")
            RULES[op] = function
        return function

    return register


# -- layout ---------------------------------------------------------------------------------------


def _is_laid_out(x: FakeTensor, memory_format: torch.memory_format) -> bool:
    if memory_format is torch.contiguous_format:
        return layout.is_contiguous(x.sizes, x.strides)
    rank = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(memory_format)
    return rank == len(x.sizes) and layout.is_channels_last(x.sizes, x.strides, rank)


@_rule(aten.contiguous.default)
def _contiguous(
    x: FakeTensor, *, memory_format: torch.memory_format = torch.contiguous_format
) -> Any:
    if _is_laid_out(x, memory_format):
        return x
    return aten.clone.default(x, memory_format=memory_format)


@_rule(aten.reshape.default)
def _reshape(x: FakeTensor, shape: Any) -> Any:
    """A view where the shape rule gives one; it asks nothing of symbolic sizes."""
    result = mode_of((x,), {}).run(aten.reshape.default, (x, shape), {})
    if result.storage_ is not x.storage_:
        x = aten.clone.default(x, memory_format=torch.contiguous_format)
    return aten.view.default(x, list(result.shape))


# -- products -------------------------------------------------------------------------------------


@_rule(aten.linear.default)
def _linear(x: FakeTensor, weight: FakeTensor, bias: FakeTensor | None = None) -> Any:
    if weight.dim() != 2 or x.dim() == 0:
        return aten.linear.default.decompose(x, weight, bias)
    columns = aten.permute.default(weight, [1, 0])
    if x.dim() == 1:
        product = aten.view.default(
            aten.mm.default(aten.unsqueeze.default(x, 0), columns), [weight.shape[0]]
        )
        return product if bias is None else product + bias
    rows = x if x.dim() == 2 else aten.reshape.default(x, [-1, x.shape[-1]])
    if bias is None or bias.dim() != 1:
        product = aten.mm.default(rows, columns)
    else:
        product = aten.addmm.default(bias, rows, columns)
    if x.dim() != 2:
        product = aten.view.default(product, [*x.shape[:-1], weight.shape[0]])
    return product + bias if bias is not None and bias.dim() != 1 else product


@_rule(aten.t.default)
def _t(x: FakeTensor) -> Any:
    return aten.alias.default(x) if x.dim() < 2 else aten.permute.default(x, [1, 0])


@_rule(aten.transpose.int)
def _transpose(x: FakeTensor, dim0: int, dim1: int) -> Any:
    rank = x.dim()
    if rank == 0:
        return aten.alias.default(x)
    order = list(range(rank))
    order[dim0 % rank], order[dim1 % rank] = order[dim1 % rank], order[dim0 % rank]
    return aten.permute.default(x, order)


# -- normalisation --------------------------------------------------------------------------------


@_rule(aten.batch_norm.default)
def _batch_norm(
    x: FakeTensor,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    if not training:
        normal = aten._native_batch_norm_legit_no_training.default
        return normal(x, weight, bias, mean, var, momentum, eps)[0]
    if mean is None or var is None:
        stateless = aten._native_batch_norm_legit.no_stats
        return stateless(x, weight, bias, True, momentum, eps)[0]
    return aten.native_batch_norm.default(x, weight, bias, mean, var, True, momentum, eps)[0]


@_rule(aten.native_batch_norm.default)
def _native_batch_norm(
    x: FakeTensor,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    if not training:
        normal = aten._native_batch_norm_legit_no_training.default
        return normal(x, weight, bias, mean, var, momentum, eps)
    if mean is None or var is None:
        return aten._native_batch_norm_legit.no_stats(x, weight, bias, True, momentum, eps)
    update = aten._native_batch_norm_legit_functional.default
    *results, new_mean, new_var = update(x, weight, bias, mean, var, True, momentum, eps)
    aten.copy_.default(mean, new_mean)
    aten.copy_.default(var, new_var)
    return tuple(results)


@_rule(aten._native_batch_norm_legit.default)
def _native_batch_norm_legit(*args: Any) -> Any:
    return aten.native_batch_norm.default(*args)


# -- pooling --------------------------------------------------------------------------------------


@_rule(aten.adaptive_avg_pool2d.default)
def _adaptive_avg_pool2d(x: FakeTensor, output_size: Any) -> Any:
    if list(output_size) == [1, 1]:
        return aten.mean.dim(x, [-1, -2], True)
    return aten._adaptive_avg_pool2d.default(x, output_size)


@_rule(aten.adaptive_avg_pool3d.default)
def _adaptive_avg_pool3d(x: FakeTensor, output_size: Any) -> Any:
    if list(output_size) == [1, 1, 1]:
        return aten.mean.dim(x, [-1, -2, -3], True)
    return aten._adaptive_avg_pool3d.default(x, output_size)


# -- random numbers -------------------------------------------------------------------------------


@_rule(aten.dropout.default)
def _dropout(x: FakeTensor, p: float, train: bool) -> Any:
    """The same draw as the kernel's, so that a seed gives the same numbers."""
    if p == 0 or not train:
        return aten.alias.default(x)
    if p == 1:
        return x * torch.zeros((), dtype=x.dtype, device=x.device)
    return x * aten.div.Scalar(_coins(x, 1 - p), 1 - p)


@_rule(aten.bernoulli_.float)
def _bernoulli_(x: FakeTensor, p: float = 0.5, *, generator: Any = None) -> Any:
    return aten.copy_.default(x, _coins(x, p))


def _coins(x: FakeTensor, p: float) -> Any:
    """What ``bernoulli_(p)`` writes into ``x``."""
    return _in_memory_order(x, lambda sizes: aten.bernoulli.p(_empty(sizes, x.dtype, x.device), p))


def _empty(sizes: list[Any], dtype: torch.dtype, device: torch.device) -> Any:
    return torch.empty(sizes, dtype=dtype, device=device)


def _in_memory_order(x: FakeTensor, draw: Callable[[list[Any]], Any]) -> Any:
    """``draw(sizes)`` with the dims as ``x`` has them in memory: kernels draw in that order."""
    order = layout.stride_order(x.sizes, x.strides) or tuple(reversed(range(x.dim())))
    outward = [*reversed(order)]
    drawn = draw([x.shape[d] for d in outward])
    if outward == sorted(outward):
        return drawn
    return aten.permute.default(drawn, [outward.index(d) for d in range(len(outward))])


@_rule(aten.rand_like.default)
def _rand_like(x: FakeTensor, **options: Any) -> Any:
    shaped = _shaped_like(x, **options)
    kind = {"dtype": shaped.dtype, "device": shaped.device}
    return _in_memory_order(shaped, lambda sizes: aten.rand.default(sizes, **kind))


@_rule(aten.randn_like.default)
def _randn_like(x: FakeTensor, **options: Any) -> Any:
    """The kernel for normal numbers draws otherwise where memory is not contiguous."""
    shaped = _shaped_like(x, **options)
    if not layout.is_contiguous(shaped.sizes, shaped.strides):
        return aten.normal_functional.default(shaped, 0.0, 1.0)
    return aten.randn.default([*x.shape], dtype=shaped.dtype, device=shaped.device)


def _shaped_like(x: FakeTensor, **options: Any) -> Any:
    """An empty tensor as the operator would make it."""
    options.pop("layout", None)
    options.pop("pin_memory", None)
    return aten.empty_like.default(x, **options)


# -- attention ------------------------------------------------------------------------------------


@_rule(aten.scaled_dot_product_attention.default)
def _attention(
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    attn_mask: FakeTensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key = aten.repeat_interleave.self_int(key, repeats, -3)
        value = aten.repeat_interleave.self_int(value, repeats, -3)
    factor = _root_of_scale(query, scale)
    scores = torch.matmul(query * factor, key.transpose(-2, -1) * factor)
    if scale is not None and scale < 0:
        scores = -scores
    if is_causal:
        scores = scores + _additive(_lower_triangle(query, key), query.dtype)
    if attn_mask is not None:
        scores = scores + _additive(attn_mask, query.dtype)
    weights = aten._safe_softmax.default(scores, -1)
    if dropout_p > 0.0:
        weights = aten.dropout.default(weights, dropout_p, True)
    return torch.matmul(weights, value)


def _lower_triangle(query: FakeTensor, key: FakeTensor) -> Any:
    sizes = (query.shape[-2], key.shape[-2])
    return torch.ones(sizes, dtype=torch.bool, device=query.device).tril()


def _root_of_scale(query: FakeTensor, scale: float | None) -> Any:
    if scale is not None:
        return math.sqrt(abs(scale))
    return query.shape[-1] ** -0.25


def _additive(mask: Any, dtype: torch.dtype) -> Any:
    """A boolean mask as zeros and minus infinities."""
    if mask.dtype is not torch.bool:
        return mask
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.full_like(zero, -math.inf))


# -- statistics -----------------------------------------------------------------------------------

_rule(aten.cov.default)(checked_in_graph.cov)
_rule(aten.corrcoef.default)(checked_in_graph.corrcoef)
