"""Scaled dot product attention.

On the CPU two kernels serve it. The fused one gives its result the memory order of the query (so a
query that is a transposed view of ``(batch, length, heads, size)`` gives such a result); the one
made of matrix products returns a row-major tensor. Which one runs depends on dtype, ranks, dropout
and what the user allows, as :func:`_is_fused` says.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous, dense_like
from stillframe.fake.rules.sizing import is_one
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import Size
from stillframe.symbolic import eq

aten = torch.ops.aten

_FUSED_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@rule(aten.scaled_dot_product_attention.default)
def scaled_dot_product_attention(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    attn_mask: FakeTensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> FakeTensor:
    """``softmax(query @ key.mT * scale + mask) @ value``."""
    _check(ctx, query, key, value, attn_mask)
    sizes = (*_batch(ctx, query, key, value, enable_gqa), query.sizes[-2], value.sizes[-1])
    if _is_fused(ctx, query, key, value, attn_mask, dropout_p, enable_gqa):
        return dense_like(ctx, query)
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True"
        )
    return contiguous(ctx, sizes, query.dtype, query.device)


def _check(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    mask: FakeTensor | None,
) -> None:
    """Dtypes and sizes.

    The fused kernel reads past the end where the lengths of key and value differ; that is refused.
    """
    if query.dtype is not key.dtype or query.dtype is not value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if min(len(query.sizes), len(key.sizes), len(value.sizes)) < 2:
        raise RuntimeError("Expected query, key, and value to all be at least 2 dimensional")
    if mask is not None:
        if (
            mask.dtype is not torch.bool
            and mask.dtype is not query.dtype
            and mask.dtype is not torch.float32
        ):
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                f"attn_mask.dtype: {mask.dtype} and query.dtype: {query.dtype} instead."
            )
    ctx.require_same(query.sizes[-1], key.sizes[-1], "query and key must have the same last dim")
    ctx.require_same(key.sizes[-2], value.sizes[-2], "key and value must have the same length")


def _batch(
    ctx: RuleContext, query: FakeTensor, key: FakeTensor, value: FakeTensor, enable_gqa: bool
) -> tuple[Size, ...]:
    if enable_gqa and len(query.sizes) >= 3:
        lead = ctx.broadcast(query.sizes[:-3], key.sizes[:-3], value.sizes[:-3])
        return (*lead, query.sizes[-3])
    first = query.sizes[:-2]
    if first == key.sizes[:-2] == value.sizes[:-2]:
        return first
    return ctx.broadcast(first, key.sizes[:-2], value.sizes[:-2])


def _is_fused(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    mask: FakeTensor | None,
    dropout_p: float,
    enable_gqa: bool,
) -> bool:
    if not torch.backends.cuda.flash_sdp_enabled() or query.device.type != "cpu":
        return False
    if query.dtype not in _FUSED_DTYPES or dropout_p > 0:
        return False
    if not len(query.sizes) == len(key.sizes) == len(value.sizes) == 4:
        return False
    if not all(is_one(t.strides[-1]) for t in (query, key, value)):
        return False
    if mask is not None and (
        len(mask.sizes) not in (2, 4) or (mask.requires_grad and torch.is_grad_enabled())
    ):
        return False
    if 0 in (query.sizes[-2], key.sizes[-2]):
        return False
    heads = () if enable_gqa else (1,)
    return all(
        _equal(ctx, query.sizes[d], t.sizes[d]) for t in (key, value) for d in (0, *heads, 3)
    )


def _equal(ctx: RuleContext, a: Size, b: Size) -> bool:
    return a is b or (a == b if type(a) is int and type(b) is int else ctx.guard(eq(a, b)))


@rule(aten._scaled_dot_product_flash_attention_for_cpu.default)
def flash_attention(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: FakeTensor | None = None,
    scale: Any = None,
) -> tuple[FakeTensor, FakeTensor]:
    """The fused kernel: the result, and the log of the sums as a view of ``(b, l, h)``."""
    b, h, length, _ = query.sizes
    precise = query.dtype if query.dtype is torch.float64 else torch.float32
    sums = ctx.empty((b, length, h), dtype=precise, device=query.device)
    return dense_like(ctx, query), ctx.view(
        sums, (b, h, length), (sums.strides[0], 1, sums.strides[1]), 0
    )


@rule(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def flash_attention_backward(
    ctx: RuleContext,
    grad: FakeTensor,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    *_: Any,
    **__: Any,
) -> tuple[FakeTensor, FakeTensor, FakeTensor]:
    """The gradients of the three, as views of ``(batch, length, heads, width)``."""
    return _heads_inside(ctx, query), _heads_inside(ctx, key), _heads_inside(ctx, value)


def _heads_inside(ctx: RuleContext, like: FakeTensor) -> FakeTensor:
    strides = layout.permuted_strides(like.sizes, (3, 1, 2, 0))
    return ctx.new(like, like.sizes, strides=strides)


@rule(aten._fused_sdp_choice.default)
def fused_sdp_choice(ctx: RuleContext, *_: Any, **__: Any) -> int:
    """Which kernel attention takes depends on switches of the session that runs the program."""
    raise ctx.unsupported("The kernel that attention takes is known when the program runs.")


@rule(aten._scaled_dot_product_attention_math.default)
def math_attention(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    attn_mask: FakeTensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: FakeTensor | None = None,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> tuple[FakeTensor, FakeTensor]:
    """The result and the attention weights, both row-major."""
    batch = _batch(ctx, query, key, value, enable_gqa)
    rows = (*batch, query.sizes[-2])
    return (
        contiguous(ctx, (*rows, value.sizes[-1]), query.dtype, query.device),
        contiguous(ctx, (*rows, key.sizes[-2]), query.dtype, query.device),
    )


# -- the fast paths of torch.nn in evaluation ------------------------------------------------------


@rule(aten._native_multi_head_attention.default)
def native_multi_head_attention(
    ctx: RuleContext,
    query: FakeTensor,
    key: FakeTensor,
    value: FakeTensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: FakeTensor,
    qkv_bias: FakeTensor,
    proj_weight: FakeTensor,
    proj_bias: FakeTensor,
    mask: FakeTensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[FakeTensor, FakeTensor | None]:
    """Output and, if wanted, the attention weights (of each head, or their mean)."""
    batch, length, _ = query.sizes
    output = contiguous(ctx, query.sizes, query.dtype, query.device)
    if not need_weights:
        return output, None
    heads = () if average_attn_weights else (num_head,)
    sizes = (batch, *heads, length, key.sizes[1])
    return output, contiguous(ctx, sizes, query.dtype, query.device)


@rule(aten._transformer_encoder_layer_fwd.default)
def transformer_encoder_layer(ctx: RuleContext, src: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """A whole encoder layer: sizes as the input's, row-major."""
    return contiguous(ctx, src.sizes, src.dtype, src.device)
