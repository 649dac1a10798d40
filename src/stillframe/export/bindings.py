"""Which Python binding calls an operator fastest.

``OpOverload.__call__`` matches its arguments against a schema; the functions of ``torch`` and the
methods of tensors are generated for one operator each and take a microsecond less. This table names
the binding where it calls exactly the overload with exactly the arguments of the graph. The test
runs every entry under a dispatch mode and compares what arrives. An operator that is not here is
called as ``overload._op``.

Factories (``zeros``, ``arange``...) are left out on purpose: their bindings obey ``torch.device``
contexts, and a captured program does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stillframe import torch_private

FUNCTION = "function"
METHOD = "method"
SPREAD = "spread"


@dataclass(frozen=True)
class Binding:
    """How to call an overload.

    Attributes:
        form: ``"function"``: ``name(*args)``; ``"method"``: ``args[0].name(*args[1:])``;
            ``"spread"``: ``args[0].name(*args[1])``, for sizes.
        name: of the method, or of the function as generated code calls it.
        function: the function itself, for the first form.
    """

    form: str
    name: str
    function: Any = None


_C = torch_private.variable_functions
_NN = torch_private.nn_functions

# Overload names by operator; "default" where no name stands. Arguments as in the schema.
_TORCH = """
abs acos asin atan ceil cos cosh erf erfc exp expm1 floor log log10 log1p log2 neg reciprocal relu
relu_ round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc isnan isinf isfinite logical_not
bitwise_not frac lgamma digamma nan_to_num
add.Tensor sub.Tensor mul.Tensor div.Tensor div.Tensor_mode rsub.Scalar floor_divide
remainder.Tensor remainder.Scalar fmod.Tensor fmod.Scalar atan2 maximum minimum
pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor
eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar
logical_and logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor
clamp clamp.Tensor clamp_min clamp_max where.self where.ScalarSelf where.ScalarOther
masked_fill.Scalar masked_fill.Tensor lerp.Scalar lerp.Tensor addcmul addcdiv
sum sum.dim_IntList mean mean.dim amax amin argmax argmin cumsum cumprod prod prod.dim_int
max max.dim min min.dim any any.dim all all.dim logsumexp var.correction std.correction
var_mean.correction topk sort argsort norm.ScalarOpt_dim
matmul mm bmm addmm baddbmm mv dot outer softmax.int log_softmax.int
layer_norm group_norm batch_norm instance_norm embedding dropout feature_dropout prelu celu selu
conv1d conv2d conv3d conv_transpose1d conv_transpose2d.input conv_transpose3d.input
max_pool1d max_pool2d max_pool3d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d
pixel_shuffle channel_shuffle rms_norm cosine_similarity bilinear
cat stack chunk split.Tensor split_with_sizes unbind.int select.int unsqueeze squeeze squeeze.dim
transpose.int t permute flatten.using_ints unflatten.int narrow movedim.int swapaxes
tril triu gather index_select scatter.src scatter.value scatter_add roll flip tile
repeat_interleave.self_int repeat_interleave.self_Tensor diagonal diag_embed clone detach
broadcast_to masked_select take_along_dim cross searchsorted.Tensor bucketize.Tensor
""".split()

_NN_NAMES = """
linear gelu silu silu_ mish mish_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_
leaky_relu leaky_relu_ elu elu_ relu6 relu6_ softplus softshrink glu log_sigmoid
scaled_dot_product_attention avg_pool2d avg_pool3d adaptive_avg_pool2d adaptive_avg_pool3d pad
reflection_pad1d reflection_pad2d replication_pad2d
""".split()

_METHODS = """
to.dtype type_as expand_as view_as repeat contiguous item
add_.Tensor sub_.Tensor mul_.Tensor div_.Tensor copy_ zero_ fill_.Scalar fill_.Tensor clamp_
masked_fill_.Scalar masked_fill_.Tensor scatter_.src scatter_.value scatter_add_ index_add_
index_copy_ index_fill_.int_Scalar unfold view reshape expand
""".split()

_SPREADS = {
    "view": "view",
    "reshape": "reshape",
    "expand": "expand",
    "permute": "permute",
    "repeat": "repeat",
}


def _overload(text: str) -> torch._ops.OpOverload | None:
    name, _, overload = text.partition(".")
    packet = getattr(torch.ops.aten, name)
    return getattr(packet, overload or "default", None)


def _build() -> dict[torch._ops.OpOverload, Binding]:
    table: dict[torch._ops.OpOverload, Binding] = {}

    def enter(text: str, binding: Binding) -> None:
        op = _overload(text)
        if op is None:
            raise LookupError(f"aten.{text} is in the table of bindings and is no operator")
        if op in table:
            raise LookupError(f"aten.{text} is twice in the table of bindings")
        table[op] = binding

    for text in _TORCH:
        name = text.partition(".")[0]
        enter(text, Binding(FUNCTION, f"torch_{name}", getattr(_C, name)))
    for name in _NN_NAMES:
        if hasattr(_NN, name):
            enter(name, Binding(FUNCTION, f"nn_{name}", getattr(_NN, name)))
    for text in _METHODS:
        enter(text, Binding(METHOD, text.partition(".")[0]))
    return table


TABLE = _build()
SPREAD_TABLE = {getattr(torch.ops.aten, op).default: name for op, name in _SPREADS.items()}


def binding_for(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Binding | None:
    """The binding for a call of ``op`` with these graph arguments; None where there is none."""
    spread = SPREAD_TABLE.get(op)
    if spread is not None and len(args) == 2 and not kwargs and isinstance(args[1], (list, tuple)):
        if args[1]:
            return Binding(SPREAD, spread)
    if any(isinstance(arg, torch.memory_format) for arg in args):
        return None  # by name only in every binding
    return TABLE.get(op)
