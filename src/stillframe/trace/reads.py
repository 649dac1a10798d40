"""What Python asked of tensors and of torch's modes during a run.

A program is right only for calls at which these questions have the same answers. Sizes are symbols
and dtypes are always checked; the rest is noted here, and only if the user's own code asks: torch's
library asks to choose among kernels that agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from stillframe import stack, torch_private
from stillframe.fake.tensor import FakeTensor


@dataclass(frozen=True)
class Read:
    """One question.

    Attributes:
        what: a key of :data:`OF_TENSORS` or :data:`OF_MODES`.
        tensor: whom it was asked, or None for a mode.
        value: the answer, where it is a boolean.
        where: the user's line.
        other: for :data:`SAME`, the tensor that it was compared with.
    """

    what: str
    tensor: FakeTensor | None
    value: bool | None
    where: tuple[str, ...]
    other: FakeTensor | None = None


def _contiguous(memory_format: torch.memory_format) -> Callable[[torch.Tensor], bool]:
    return lambda tensor: tensor.is_contiguous(memory_format=memory_format)


def sparse_pattern(tensor: torch.Tensor) -> tuple[int, bool]:
    """``(sparse_dim, flag)``: whether COO is coalesced, whether CSR has int64 indices."""
    if isinstance(tensor, FakeTensor):
        assert tensor.sparse is not None
        parts = tensor.sparse.parts
        wide = "crow_indices" in parts and parts["crow_indices"].dtype is torch.int64
        return tensor.sparse.sparse_dim, tensor.sparse.coalesced or wide
    if tensor.layout is torch.sparse_coo:
        return tensor.sparse_dim(), tensor.is_coalesced()
    return tensor.sparse_dim(), tensor.crow_indices().dtype is torch.int64


#: Questions to a tensor, by the name under which a program keeps them.
OF_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "requires_grad": lambda tensor: tensor.requires_grad,
    "is_leaf": lambda tensor: tensor.is_leaf,
    "stride()": lambda tensor: tensor.stride(),
    "storage_offset()": lambda tensor: tensor.storage_offset(),
    "is_contiguous()": _contiguous(torch.contiguous_format),
    "is_contiguous(channels_last)": _contiguous(torch.channels_last),
    "is_contiguous(channels_last_3d)": _contiguous(torch.channels_last_3d),
    "sparse pattern": lambda tensor: sparse_pattern(tensor),
    "being an nn.Parameter": lambda tensor: isinstance(tensor, torch.nn.Parameter),
}

#: Whether somebody has set an attribute of this name on a tensor: the beginning of the question.
ATTRIBUTE = "having the attribute "


def is_question(what: str) -> bool:
    """Whether tensors can be asked this."""
    return what in OF_TENSORS or what.startswith(ATTRIBUTE)


def of_tensor(what: str) -> Callable[[torch.Tensor], Any]:
    """How a question to a tensor is asked."""
    if what.startswith(ATTRIBUTE):
        name = what.removeprefix(ATTRIBUTE)
        return lambda tensor: hasattr(tensor, name)
    return OF_TENSORS[what]


#: Questions to torch itself.
OF_MODES: dict[str, Callable[[], Any]] = {
    "grad mode": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": torch_private.any_autocast_enabled,
    "default dtype": torch.get_default_dtype,
}

_FUNCTIONS = {
    "is_grad_enabled": "grad mode",
    "is_inference_mode_enabled": "inference mode",
    "is_autocast_enabled": "autocast",
    "get_default_dtype": "default dtype",
}


class Reads:
    """The questions of one run.

    Args:
        floor: the frame that called the capture.
    """

    def __init__(self, floor: FrameType | None) -> None:
        self.floor = floor
        self.found: dict[tuple[str, int, int], Read] = {}

    def note(
        self,
        what: str,
        tensor: FakeTensor | None = None,
        value: bool | None = None,
        other: FakeTensor | None = None,
    ) -> None:
        """Somebody asked, and was told ``value``."""
        key = (what, id(tensor), id(other))
        if key not in self.found:
            where = stack.summary(stack.raw_stack(self.floor))
            self.found[key] = Read(what, tensor, value, where[-1:], other)

    def watching(self) -> AbstractContextManager[None]:
        """Questions to torch itself are noted inside."""
        return torch_private.functions_replaced(
            torch, {name: self._asking(name) for name in _FUNCTIONS}
        )

    def _asking(self, name: str) -> Callable[..., Any]:
        def asked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if stack.is_user_code(stack.place_of(sys._getframe(2))[0]):
                self.note(_FUNCTIONS[name])
            return function(*args, **kwargs)

        return asked


#: Whether two inputs are one tensor: ``x is y``, or tensors as keys. Strict capture sees these.
SAME = "being the same tensor as"

#: Dtypes of inputs are always checked; those of results follow, but for what autocast casts.
DTYPE = "dtype"


def tensor_question(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The key of what a torch function asks; None if it is no question."""
    what = _ASKED_BY.get(func)
    if what != "is_contiguous()":
        return what
    wanted = kwargs.get("memory_format", args[1] if len(args) > 1 else torch.contiguous_format)
    if wanted is torch.contiguous_format:
        return what
    return f"is_contiguous({str(wanted).removeprefix('torch.')})"


_ASKED_BY: dict[Any, str] = {
    vars(torch._C.TensorBase)["requires_grad"].__get__: "requires_grad",
    vars(torch._C.TensorBase)["is_leaf"].__get__: "is_leaf",
    vars(torch._C.TensorBase)["grad_fn"].__get__: "requires_grad",
    vars(torch._C.TensorBase)["dtype"].__get__: DTYPE,
    torch.Tensor.stride: "stride()",
    torch.Tensor.dim_order: "stride()",
    torch.Tensor.storage_offset: "storage_offset()",
    torch.Tensor.is_contiguous: "is_contiguous()",
}

#: The torch functions that are questions, for the function mode.
QUESTIONS = tuple(_ASKED_BY)
