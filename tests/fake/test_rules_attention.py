"""Scaled dot product attention against the real kernels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error
from tests.fake.symbols import Symbols
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stillframe.errors import NotSupported

aten = torch.ops.aten
sdpa = aten.scaled_dot_product_attention.default


def heads(*sizes: int, order: str = "bhld") -> torch.Tensor:
    """A ``(b, h, l, d)`` tensor whose memory has the given order of dims."""
    where = ["bhld".index(c) for c in order]
    back = [order.index(c) for c in "bhld"]
    return torch.randn([sizes[d] for d in where]).permute(back)


ORDERS = ("bhld", "blhd", "lbhd", "bhdl")
MASKS: dict[str, Any] = {
    "none": None,
    "rows": torch.ones(5, 7, dtype=torch.bool),
    "batch": torch.zeros(2, 1, 5, 7),
    "keys": torch.zeros(1, 1, 1, 7),
    "three dims": torch.zeros(3, 5, 7),
    "full": torch.zeros(2, 3, 5, 7),
    "transposed": torch.zeros(7, 5).t(),
    "expanded": torch.zeros(1, 1, 5, 7).expand(2, 3, 5, 7),
}


@pytest.mark.parametrize("mask", MASKS)
def test_layouts_and_masks(mask: str) -> None:
    for a, b in itertools.product(ORDERS, ORDERS):
        query, key = heads(2, 3, 5, 8, order=a), heads(2, 3, 7, 8, order=b)
        check(sdpa, query, key, heads(2, 3, 7, 8), MASKS[mask])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype: torch.dtype) -> None:
    query, key = heads(2, 3, 5, 8, order="blhd").to(dtype), heads(2, 3, 7, 8).to(dtype)
    check(sdpa, query, key, key)


def test_further_forms() -> None:
    query, key = heads(2, 6, 5, 8, order="blhd"), heads(2, 6, 7, 8)
    check(sdpa, query, key, key, None, 0.1)
    check(sdpa, query, key, key, None, 0.0, True)
    check(sdpa, query, key, key, torch.ones(5, 7, dtype=torch.bool), 0.0, True)
    check(sdpa, query, key, heads(2, 6, 7, 4))
    few = heads(2, 3, 7, 8)
    check(sdpa, query, few, few, enable_gqa=True)
    check(sdpa, query, few, few, torch.ones(2, 1, 5, 7, dtype=torch.bool), enable_gqa=True)
    for sizes in ((1, 6, 7, 8), (2, 1, 7, 8)):
        one = heads(*sizes, order="blhd")
        check(sdpa, query, one, one)
    check(sdpa, query[0], key[0], key[0])
    check(sdpa, query[None], key[None], key[None])
    packed = torch.randn(2, 5, 3, 6, 8).permute(2, 0, 3, 1, 4).unbind(0)
    check(sdpa, *packed)
    with sdpa_kernel(SDPBackend.MATH):
        check(sdpa, query, key, key)


def test_the_kernels_themselves() -> None:
    query, key = heads(2, 3, 5, 8, order="blhd"), heads(2, 3, 7, 8)
    check(aten._scaled_dot_product_flash_attention_for_cpu.default, query, key, key)
    check(aten._scaled_dot_product_attention_math.default, query, key, key)


def test_gradients_of_the_fused_kernel() -> None:
    """Whatever the layout of what was given, the heads lie inside the length."""
    query, key = torch.randn(2, 4, 2, 8).transpose(1, 2), torch.randn(2, 2, 6, 8)
    result, sums = aten._scaled_dot_product_flash_attention_for_cpu(query, key, key)
    op = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    for mask in (None, torch.randn(4, 6)):
        given = (torch.ones_like(result), query, key, key, result, sums, 0.0, False)
        assert not check(op, *given, attn_mask=mask).guards


def test_which_kernel_is_not_known() -> None:
    x = Symbols().fake(2, 2, 4, 8)
    with pytest.raises(NotSupported, match="known when the program runs"):
        Symbols().run(aten._fused_sdp_choice.default, x, x, x)


def test_fast_path_of_a_module() -> None:
    module, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)
    weights = [p.detach() for p in module.parameters()]
    for need, average in ((False, True), (True, True), (True, False)):
        rest = (None, need, average)
        check(aten._native_multi_head_attention.default, x, x, x, 8, 2, *weights, *rest)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    own = [p.detach() for p in layer.self_attn.parameters()]
    norms = [p.detach() for p in (*layer.norm1.parameters(), *layer.norm2.parameters())]
    linears = [p.detach() for p in (*layer.linear1.parameters(), *layer.linear2.parameters())]
    args = (x, 8, 2, *own, False, False, 1e-5, *norms, *linears)
    check(aten._transformer_encoder_layer_fwd.default, *args)


def test_refused_as_eager_does() -> None:
    query, key = heads(2, 3, 5, 8), heads(2, 3, 7, 8)
    check_error(sdpa, query, key.double(), key)
    check_error(sdpa, query, heads(2, 3, 7, 6), key)
    mask = torch.ones(5, 7, dtype=torch.bool)
    check_error(sdpa, query[0], key[0], key[0], mask, 0.0, True)
    check_error(sdpa, query, key, key, torch.ones(5, 7, dtype=torch.int64))
    check_error(sdpa, torch.randn(8), key, key)


def test_batch_and_lengths_are_free() -> None:
    s = Symbols()
    b, n, past = s.size(2), s.size(9), s.size(4)
    query = s.run(aten.transpose.int, s.fake(b, n, 4, 16), 1, 2)
    key = s.run(aten.cat.default, [s.fake(b, 4, past, 16), s.fake(b, 4, n, 16)], 2)
    mask = s.fake(b, 1, n, past + n)
    answer = s.run(sdpa, query, key, key, mask)
    assert answer.sizes == (b, 4, n, 16) and answer.strides == query.strides
    assert s.guards() == []
