"""What torch's transformer encoders do in eager, and not by themselves while a program is captured.

In evaluation without gradients they take fast paths, which torch turns off while capturing. Where
the results differ, this file makes them equal, or has the program refuse the input. Whether
gradients are enabled, a program asks when it runs.

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
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import transformer

from stillframe.trace import scope
from stillframe.trace.scope import original, replace_while_capturing

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


# Whether eager takes a fast path; a 0-dim bool where a program finds out when it runs.
Fast = bool | Tensor


def _layer_forward(self: nn.TransformerEncoderLayer, *args: Any, **kwargs: Any) -> Tensor:
    if scope.current() is not None and not getattr(_local, "inside_encoder", False):
        _check_masks(_layer_signature.bind(self, *args, **kwargs).arguments, [self])
    return original(*_LAYER)(self, *args, **kwargs)  # type: ignore[no-any-return]


def _encoder_forward(self: nn.TransformerEncoder, *args: Any, **kwargs: Any) -> Tensor:
    if scope.current() is None:
        return original(*_ENCODER)(self, *args, **kwargs)  # type: ignore[no-any-return]
    call = _encoder_signature.bind(self, *args, **kwargs)
    given = call.arguments
    padding = given.get("src_key_padding_mask")
    if padding is None or padding.dim() != 2 or given.get("mask") is not None:
        return _run_layers(self, call)
    fast = _packs_tokens(self, given["src"])
    if fast is False:
        return _run_layers(self, call)
    check = getattr(self, "mask_check", True)
    dropped = _dropped(padding, check, fast)
    given["src_key_padding_mask"] = _for_layers(padding, dropped, check, fast)
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
    _check_masks(call.arguments, encoder.layers)
    old, _local.inside_encoder = getattr(_local, "inside_encoder", False), True
    try:
        return original(*_ENCODER)(*call.args, **call.kwargs)  # type: ignore[no-any-return]
    finally:
        _local.inside_encoder = old


# -- which path eager takes -----------------------------------------------------------------------


def _is_fused(layer: nn.Module, src: Tensor) -> Fast:
    """Whether eager runs a layer as one kernel."""
    if (
        isinstance(layer, nn.TransformerEncoderLayer)
        and not layer.training
        and layer.self_attn.batch_first
        and layer.self_attn.in_proj_bias is not None
        and layer.self_attn._qkv_same_embed_dim
        and layer.self_attn.num_heads % 2 == 0
        and layer.activation_relu_or_gelu
        and layer.norm1.eps == layer.norm2.eps
        and not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
    ):
        return _may_be_fast(src, layer)
    return False


def _packs_tokens(encoder: nn.TransformerEncoder, src: Tensor) -> Fast:
    """Whether eager packs the tokens, if the padding mask fits."""
    first = encoder.layers[0]
    if not getattr(encoder, "use_nested_tensor", False) or first.training:
        return False
    return _may_be_fast(src, first)


def _may_be_fast(src: Tensor, layer: nn.Module) -> Fast:
    """What all fast paths ask of the input and the environment."""
    if (
        not torch.backends.mha.get_fastpath_enabled()
        or src.dim() != 3
        or src.is_nested
        or src.device.type not in _DEVICES
        or torch.is_autocast_enabled()
    ):
        return False
    if not any(t.requires_grad for t in (src, *layer.parameters())):
        return True
    capture = scope.current()
    if capture is None or capture.grad_mode is None:
        return not torch.is_grad_enabled()
    return capture.grad_mode().logical_not()


# -- masks ----------------------------------------------------------------------------------------


def _check_masks(given: dict[str, Any], layers: Iterable[nn.Module]) -> None:
    """Where a layer is fused, a program refuses masks that its kernel reads otherwise."""
    masks = {name: given[name] for name in _MASKS if given.get(name) is not None}
    masks = {name: mask for name, mask in masks.items() if mask.is_floating_point()}
    if not masks:
        return
    answers = (_is_fused(layer, given["src"]) for layer in layers)
    fast = next((answer for answer in answers if answer is not False), False)
    if fast is False:
        return
    for name, mask in masks.items():
        usual = torch.logical_or(mask == 0, mask <= _LIKE_INFINITY).all()
        if isinstance(fast, Tensor):
            usual = torch.logical_or(usual, fast.logical_not())
        torch._assert_async(usual, f"{name} {_UNUSUAL}")


def _dropped(padding: Tensor, check: bool, fast: Fast) -> Tensor:
    """``(batch, length)``: the positions that are not packed; none if the mask does not fit."""
    kept = padding.logical_not()
    positions = torch.arange(padding.shape[1], device=padding.device)
    dropped = positions >= kept.sum(1, keepdim=True)
    if check:
        dropped = torch.logical_and(dropped, (kept != dropped).all())
    return torch.logical_and(dropped, fast) if isinstance(fast, Tensor) else dropped


def _for_layers(padding: Tensor, dropped: Tensor, check: bool, fast: Fast) -> Tensor:
    """The padding mask under which layers see the tokens that eager packs."""
    if check:
        is_bool = padding.dtype is torch.bool
        return padding if is_bool else padding.masked_fill(dropped, -math.inf)
    if padding.dtype is not torch.bool:
        dropped = torch.zeros_like(padding).masked_fill(dropped, -math.inf)
    return torch.where(fast, dropped, padding) if isinstance(fast, Tensor) else dropped


def _detect_causal(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    if scope.current() is not None and is_causal is None and mask is not None:
        return False
    return original(*_DETECT_CAUSAL)(mask, is_causal, size)  # type: ignore[no-any-return]


replace_while_capturing(*_ENCODER, _encoder_forward)
replace_while_capturing(*_LAYER, _layer_forward)
replace_while_capturing(*_DETECT_CAUSAL, _detect_causal)
