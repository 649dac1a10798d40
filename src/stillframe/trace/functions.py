"""FunctionMode: what only the Python level of torch shows.

Operators tell nothing of grad-mode switches or of which torch function issued them. A function
mode sees both. It records ``torch.no_grad`` and friends as nodes (and carries them out, so that
``requires_grad`` of later results is right), and notes the current torch function for ``torch_fn``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.trace import indexing, literals

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


class FunctionMode(TorchFunctionMode):
    """Active during a recording, inside the dispatch mode.

    Attributes:
        current: ``(name_count, "Class.name")`` of the torch function being run, or None.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.current: tuple[str, str] | None = None
        self._counts: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            return handler(self, func, args, kwargs or {})
        if func is indexing.GETITEM or func is indexing.SETITEM:
            tensor, index = indexing.select_first(args[0], args[1])
            if index is ... and func is indexing.GETITEM and tensor is not args[0]:
                return tensor
            args = (tensor, index, *args[2:])
        elif func in literals.MAKERS:
            made = literals.of_symbols(func, args, kwargs or {})
            if made is not None:
                return made
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return func(*args, **(kwargs or {}))
        if kwargs:
            kwargs = {k: bool(v) if type(v) is torch.SymBool else v for k, v in kwargs.items()}
        self._counts[name] += 1
        old = self.current
        self.current = (f"{name}_{self._counts[name]}", f"{type(func).__name__}.{name}")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.current = old


def _set_grad_enabled(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> None:
    recorder = mode.recorder
    enabled = bool(args[0])
    if enabled != torch.is_grad_enabled():
        node = recorder.create(torch_private.set_grad_enabled, (enabled,), {})
        node.meta["val"] = None
    func(*args, **kwargs)


def _to_numpy(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    raise NotSupported(
        "A tensor was turned into a NumPy array in forward.",
        why="arrays are computed outside torch, so a program cannot contain them",
        where=stack.summary(stack.raw_stack(mode.recorder.floor)),
        hints=["use the torch function of the same name"],
    )


def _address(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    raise NotSupported(
        f"forward asks for the memory of a tensor (Tensor.{func.__name__}).",
        why="a tensor has no memory while capturing, and other memory at each call",
        where=stack.summary(stack.raw_stack(mode.recorder.floor)),
        hints=["for an extension that needs it, wrap it as an operator: torch.library.custom_op"],
    )


def _tolist(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    tensor = args[0]
    if tensor.dim() == 0:
        return tensor.item()
    return [_tolist(mode, func, (tensor[i],), {}) for i in range(tensor.shape[0])]


def _bool(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> bool:
    return bool(args[0].item())


def _replace_data(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> None:
    raise NotSupported(
        "The memory of a tensor was replaced (tensor.data = ...).",
        why="no operator does this, so a graph cannot contain it",
        where=stack.summary(stack.raw_stack(mode.recorder.floor)),
        hints=["copy into it: tensor.copy_(value)"],
    )


def _gradients(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Above autograd there is no tape; only ``torch.func`` brings its own."""
    tensors = [t for t in pytree.tree_leaves(args[:1]) if isinstance(t, torch.Tensor)]
    wrapped = [torch_private.is_functorch_wrapper(t) for t in tensors]
    if mode.recorder.above_autograd and not all(wrapped):
        raise NotSupported(
            f"{func.__name__} asks for gradients in a trace before dispatch, where there is no "
            "autograd.",
            where=stack.summary(stack.raw_stack(mode.recorder.floor)),
            hints=[
                "torch.func.grad traces the backward pass, too",
                "or make_fx with pre_dispatch=False: the backward pass is then in the graph",
            ],
        )
    return func(*args, **kwargs)


def _hook(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Above autograd a hook on a gradient would never run."""
    if mode.recorder.above_autograd:
        mode.recorder.note(
            f"Tensor.{func.__name__} was called: the hook is not part of the program, and "
            "gradients through the program do not pass it"
        )
    return func(*args, **kwargs)


_HANDLERS: dict[Any, Any] = {
    torch.Tensor.register_hook: _hook,
    torch.Tensor.register_post_accumulate_grad_hook: _hook,
    torch.autograd.grad: _gradients,
    torch.autograd.backward: _gradients,
    torch.Tensor.backward: _gradients,
    torch_private.set_data: _replace_data,
    torch_private.set_grad_enabled: _set_grad_enabled,
    torch.Tensor.numpy: _to_numpy,
    torch.Tensor.__array__: _to_numpy,
    torch.Tensor.data_ptr: _address,
    torch.Tensor.untyped_storage: _address,
    torch.Tensor.storage: _address,
    torch.Tensor.tolist: _tolist,
    torch.Tensor.__bool__: _bool,
}
