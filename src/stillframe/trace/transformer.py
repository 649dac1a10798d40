"""What torch's transformer encoders do in eager, and not by themselves while a program is captured.

In evaluation without gradients they take fast paths, which torch turns off while capturing. Where
the results differ, this file makes them equal, or has the program refuse the input.

*Padding.* ``nn.TransformerEncoder`` packs the tokens that the padding mask keeps into a nested
tensor, so its result is zero at all other positions. Here the usual path runs, and its result is
made zero where eager's is. Packing is only for masks that keep the first tokens of each row (unless
``mask_check=False``, where the *number* of kept tokens counts); whether a mask is one of these, the
program decides by its data.

*Masks of floats.* The fused kernel of a layer reads every number but zero as minus infinity. A
program with such a layer checks that a mask of floats holds nothing that would make a difference.

*Causal masks.* A mask that nobody said to be causal is compared with one that is, to have a faster
kernel apply it. That is a question to the data; the mask is applied just as well without the hint.

One difference is left: where masks leave a token nothing at all to attend to, the fused kernel
gives NaN, and a program may give numbers.
"""

from __future__ import annotations

import inspect
import math
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

from stillframe.trace.scope import capturing, original, replace_while_capturing

_ENCODER = (nn.TransformerEncoder, "forward")
_LAYER = (nn.TransformerEncoderLayer, "forward")
_DETECT_CAUSAL = (transformer, "_detect_is_causal_mask")
_DEVICES = ("cpu", "cuda", "xpu")

# Where a module's forward takes the mask of the sequence and that of the padding.
_MASKS = ("mask", "src_mask", "src_key_padding_mask")
_LIKE_INFINITY = -1e9  # softmax makes zeros of these, too
_UNUSUAL = (
    "holds other numbers than 0 and -inf (or nearly so), and torch's transformer layers take those "
    "for -inf without gradients; capture with gradients enabled, or after "
    "torch.backends.mha.set_fastpath_enabled(False)"
)
_encoder_signature = inspect.signature(nn.TransformerEncoder.forward)
_layer_signature = inspect.signature(nn.TransformerEncoderLayer.forward)
_local = threading.local()


def _layer_forward(self: nn.TransformerEncoderLayer, *args: Any, **kwargs: Any) -> Tensor:
    if capturing() and not getattr(_local, "inside_encoder", False):
        given = _layer_signature.bind(self, *args, **kwargs).arguments
        if _is_fused(self, given["src"]):
            _check_masks(given)
    return original(*_LAYER)(self, *args, **kwargs)  # type: ignore[no-any-return]


def _encoder_forward(self: nn.TransformerEncoder, *args: Any, **kwargs: Any) -> Tensor:
    if not capturing():
        return original(*_ENCODER)(self, *args, **kwargs)  # type: ignore[no-any-return]
    call = _encoder_signature.bind(self, *args, **kwargs)
    given = call.arguments
    padding = given.get("src_key_padding_mask")
    if padding is None or given.get("mask") is not None or not _packs_tokens(self, given["src"]):
        return _run_layers(self, call)
    check = getattr(self, "mask_check", True)
    dropped = _dropped(padding, check)
    given["src_key_padding_mask"] = _for_layers(padding, dropped, check)
    norm = self.norm
    if norm is not None:  # it comes after the zeros
        self.norm = None
    try:
        output = _run_layers(self, call)
    finally:
        if norm is not None:
            self.norm = norm
    output = output.masked_fill(dropped.unsqueeze(-1), 0.0)
    return output if norm is None else norm(output)


def _run_layers(encoder: nn.TransformerEncoder, call: inspect.BoundArguments) -> Tensor:
    """Run the encoder as torch wrote it; its masks are checked once for all layers."""
    if any(_is_fused(layer, call.arguments["src"]) for layer in encoder.layers):
        _check_masks(call.arguments)
    old, _local.inside_encoder = getattr(_local, "inside_encoder", False), True
    try:
        return original(*_ENCODER)(*call.args, **call.kwargs)  # type: ignore[no-any-return]
    finally:
        _local.inside_encoder = old


# -- which path eager takes -----------------------------------------------------------------------


def _is_fused(layer: nn.Module, src: Tensor) -> bool:
    """Whether eager runs a layer as one kernel."""
    return (
        isinstance(layer, nn.TransformerEncoderLayer)
        and not layer.training
        and layer.self_attn.batch_first
        and layer.self_attn.in_proj_bias is not None
        and layer.self_attn._qkv_same_embed_dim
        and layer.self_attn.num_heads % 2 == 0
        and bool(layer.activation_relu_or_gelu)
        and layer.norm1.eps == layer.norm2.eps
        and not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
        and _may_be_fast(src, layer)
    )


def _packs_tokens(encoder: nn.TransformerEncoder, src: Tensor) -> bool:
    """Whether eager packs the tokens, if the padding mask fits."""
    first = encoder.layers[0]
    return (
        bool(getattr(encoder, "use_nested_tensor", False))
        and not first.training
        and _may_be_fast(src, first)
    )


def _may_be_fast(src: Tensor, layer: nn.Module) -> bool:
    """What all fast paths ask of the input and the environment."""
    return (
        torch.backends.mha.get_fastpath_enabled()
        and src.dim() == 3
        and not src.is_nested
        and src.device.type in _DEVICES
        and not torch.is_autocast_enabled()
        and not (
            torch.is_grad_enabled() and any(t.requires_grad for t in (src, *layer.parameters()))
        )
    )


# -- masks ----------------------------------------------------------------------------------------


def _check_masks(given: dict[str, Any]) -> None:
    for name in _MASKS:
        mask = given.get(name)
        if mask is not None and mask.is_floating_point():
            usual = torch.logical_or(mask == 0, mask <= _LIKE_INFINITY)
            torch._assert_async(usual.all(), f"{name} {_UNUSUAL}")


def _dropped(padding: Tensor, check: bool) -> Tensor:
    """``(batch, length)``: the positions that are not packed; none if the mask does not fit."""
    kept = padding.logical_not()
    positions = torch.arange(padding.shape[1], device=padding.device)
    beyond = positions >= kept.sum(1, keepdim=True)
    if not check:
        return beyond
    fits = (kept != beyond).all()
    return fits & beyond


def _for_layers(padding: Tensor, dropped: Tensor, check: bool) -> Tensor:
    """The padding mask under which layers see the tokens that eager packs."""
    if not check:
        return dropped
    if padding.dtype is torch.bool:
        return padding
    return padding.masked_fill(dropped, -math.inf)


def _detect_causal(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    if capturing() and is_causal is None and mask is not None:
        return False
    return original(*_DETECT_CAUSAL)(mask, is_causal, size)  # type: ignore[no-any-return]


replace_while_capturing(*_ENCODER, _encoder_forward)
replace_while_capturing(*_LAYER, _layer_forward)
replace_while_capturing(*_DETECT_CAUSAL, _detect_causal)
