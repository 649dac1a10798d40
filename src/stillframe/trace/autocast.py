"""Operators called under ``torch.autocast`` whose parts autocast would cast.

A program has the casts of an autocast region as operators and runs outside of autocast. What stands
on autocast's own lists (``mm``, ``linear``) arrives with its arguments cast. A composite operator
that does not (``einsum``, ``lstm``) arrives whole and uncast, and in eager its parts are cast::

    with torch.autocast("cpu", torch.bfloat16):
        torch.einsum("ij,jk->ik", a, b)  # bfloat16: its bmm is cast

So it is taken apart under autocast. Two kernels that call such parts themselves cannot be.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import torch_private
from stillframe.errors import NotSupported

aten = torch.ops.aten

KERNELS = (aten._trilinear.default, aten.linalg_pinv.atol_rtol_tensor)

# Composite operators that compute nothing of which autocast casts a part; they stay whole.
_WHOLE = frozenset(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d alpha_dropout alpha_dropout_ "
    "argsort argwhere atleast_1d atleast_2d atleast_3d avg_pool1d batch_norm broadcast_tensors "
    "broadcast_to chunk conj conj_physical contiguous data diag divide divide_ dropout "
    "dropout_ dsplit embedding_bag expand_as feature_alpha_dropout feature_alpha_dropout_ "
    "feature_dropout feature_dropout_ flatten group_norm hsplit "
    "instance_norm is_complex is_floating_point is_nonzero isfinite isreal item layer_norm "
    "log_sigmoid log_softmax mH mT matrix_H max max_pool1d max_pool2d max_pool3d "
    "meshgrid min movedim moveaxis msort multiply multiply_ narrow negative numpy_T outer "
    "positive ravel real imag relu6 relu6_ repeat_interleave reshape reshape_as "
    "resolve_conj resolve_neg rms_norm rrelu selu selu_ softmax split "
    "std std_mean subtract subtract_ swapaxes swapdims take_along_dim tensor_split "
    "tile to true_divide true_divide_ type_as unflatten unsafe_chunk upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d var var_mean view_as vsplit where".split()
)


def casts_parts(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the caller's autocast would cast parts of an operator that arrived as it is.

    Raises:
        NotSupported: it would inside a kernel that cannot be taken apart.
    """
    composite = torch_private.is_composite_implicit(func)
    if not (composite or func in KERNELS) or func.overloadpacket.__name__ in _WHOLE:
        return False
    with torch_private.modes_of_caller():
        if not torch_private.any_autocast_enabled():
            return False
    leaves = pytree.tree_leaves((args, kwargs))
    devices = {t.device.type for t in leaves if isinstance(t, torch.Tensor)}
    if not devices or any(torch_private.is_cast_itself(func, device) for device in devices):
        return False
    if func in KERNELS:
        raise NotSupported(
            f"{func} under torch.autocast: its kernel casts inside.",
            hints=["call it outside of the autocast region"],
        )
    return True


def taken_apart(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Any) -> Any:
    """The result of an operator's parts, which ``mode`` sees, called as the operator was."""
    with torch_private.modes_of_caller(), mode:
        return func.decompose(*args, **kwargs)
