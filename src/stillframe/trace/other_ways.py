"""Functions of torch that a trace by dispatch calls in another way.

Below autograd a composite operator takes itself apart in C++ before any mode sees it. Some look at
memory or sizes there without asking an operator: then the graph would hold what they saw in the
example, or read memory that no operator is seen to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from stillframe import torch_private
from stillframe.trace import checked_in_graph

if TYPE_CHECKING:
    from stillframe.trace.calls import CallMode

aten = torch.ops.aten


def _ctc_loss(mode: CallMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Lists of lengths become tensors here and not in C++, which fills them by their address."""

    def as_tensor(lengths: Any) -> Any:
        return torch.tensor(lengths) if isinstance(lengths, (list, tuple)) else lengths

    with mode:
        args = (*args[:2], *map(as_tensor, args[2:4]), *args[4:])
        for name in ("input_lengths", "target_lengths"):
            if name in kwargs:
                kwargs = {**kwargs, name: as_tensor(kwargs[name])}
    return func(*args, **kwargs)


def _lstm(mode: CallMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """With symbolic sizes the kernel in Python: the one in C++ asks for plain numbers."""
    if mode.recorder.options.mode != "symbolic":
        return func(*args, **kwargs)
    overload = aten.lstm.data if isinstance(args[1], torch.Tensor) else aten.lstm.input
    kernel = torch_private.composite_in_python(overload)
    with mode:
        return kernel(*args, **kwargs)


def _instead(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` is traced in place of torch's."""

    def call(mode: CallMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with mode:
            return function(*args, **kwargs)

    return call


OTHER_WAYS: dict[Any, Callable[[CallMode, Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    F.ctc_loss: _ctc_loss,
    torch.ctc_loss: _ctc_loss,
    torch.lstm: _lstm,
    **dict.fromkeys((torch.cov, torch.Tensor.cov), _instead(checked_in_graph.cov)),
    **dict.fromkeys((torch.corrcoef, torch.Tensor.corrcoef), _instead(checked_in_graph.corrcoef)),
}
