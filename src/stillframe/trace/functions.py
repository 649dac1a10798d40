"""FunctionMode: what only the Python level of torch shows.

Operators tell nothing of grad-mode switches or of which torch function issued them. A function
mode sees both. It records ``torch.no_grad`` and friends as nodes (and carries them out, so that
``requires_grad`` of later results is right), and notes the current torch function for ``torch_fn``.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.trace import checked_in_graph, indexing, literals
from stillframe.trace.reads import DTYPE, QUESTIONS, tensor_question

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder


class FunctionMode(TorchFunctionMode):
    """Active during a recording, inside the dispatch mode.

    Attributes:
        current: ``(name_count, "Class.name")`` of the torch function being run, or None.
        sees_autograd: whether the recording is below autograd, so that backward is recorded.
    """

    sees_autograd = False

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
        fake_mode = self.recorder.fake_mode
        if fake_mode.untouchable:
            fake_mode.refuse_touch(args, kwargs)
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
    mode.recorder.grad_regions.set_by_function(bool(args[0]))
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
    """``module.to(dtype)`` gives every parameter the memory that it has, if nothing is to do."""
    tensor, value = args
    if value is tensor or _is_same_view(tensor, value):
        return
    raise NotSupported(
        "The memory of a tensor was replaced (tensor.data = ...).",
        why="no operator does this, so a graph cannot contain it",
        where=stack.summary(stack.raw_stack(mode.recorder.floor)),
        hints=["copy into it: tensor.copy_(value)"],
    )


def _is_same_view(tensor: Any, other: Any) -> bool:
    """Whether two fakes are the same elements of one memory, in the same order."""
    return (
        isinstance(tensor, FakeTensor)
        and isinstance(other, FakeTensor)
        and tensor.sparse is None
        and other.sparse is None
        and tensor.storage_ is other.storage_
        and (tensor.dtype, tensor.device) == (other.dtype, other.device)
        and (tensor.sizes, tensor.strides) == (other.sizes, other.strides)
        and tensor.offset == other.offset
        and tensor.is_conj() == other.is_conj()
        and tensor.is_neg() == other.is_neg()
    )


#: The files of function modes: their frames lie between a torch function and who called it.
MODE_FILES = {__file__}


def _asked_by_user() -> bool:
    """Whether a line of the user's called the torch function, and not torch itself."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in MODE_FILES:
        frame = frame.f_back
    if frame.f_code is _HAND_OVER and frame.f_back is not None and frame.f_back.f_back is not None:
        frame = frame.f_back.f_back  # out of the function in Python that handed the call over
    return stack.is_user_code(stack.place_of(frame)[0])


_HAND_OVER = torch.overrides.handle_torch_function.__code__


def _ask(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    answer = func(*args, **kwargs)
    what = tensor_question(func, args, kwargs)
    if what is not None and _asked_by_user() and isinstance(args[0], FakeTensor):
        if what is not DTYPE:
            known = answer if isinstance(answer, bool) else answer is not None
            mode.recorder.reads.note(what, args[0], known)
        elif getattr(args[0].fx_node, "op", "") != "placeholder":
            mode.recorder.reads.note("autocast")
    return answer


def _of_autograd(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """What a graph of forward alone has no place for."""
    if mode.sees_autograd or not _asked_by_user():
        return func(*args, **kwargs)
    raise NotSupported(
        f"forward uses autograd itself ({_AUTOGRAD[func]}).",
        why="a program holds what forward computes; torch makes the backward pass when it is run",
        where=stack.summary(stack.raw_stack(mode.recorder.floor)),
        hints=["stillframe.make_fx traces gradients: they become operators of the graph"],
    )


def _gaussian_nll_loss(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    with mode:
        return checked_in_graph.gaussian_nll_loss(*args, **kwargs)


def _require_grad(mode: FunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Saying again what is so already changes nothing."""
    wanted = kwargs.get("requires_grad", args[1] if len(args) > 1 else True)
    if bool(args[0].requires_grad) is bool(wanted):
        return args[0] if func is torch.Tensor.requires_grad_ else None
    return _of_autograd(mode, func, args, kwargs)


_AUTOGRAD: dict[Any, str] = {
    torch.autograd.grad: "torch.autograd.grad",
    torch.autograd.backward: "torch.autograd.backward",
    torch.Tensor.backward: "Tensor.backward",
    torch.Tensor.register_hook: "Tensor.register_hook",
    torch.Tensor.register_post_accumulate_grad_hook: "a gradient hook",
    torch.Tensor.retain_grad: "Tensor.retain_grad",
    torch.Tensor.requires_grad_: "Tensor.requires_grad_",
    torch_private.set_requires_grad: "tensor.requires_grad = ...",
    torch_private.get_grad: "tensor.grad",
}

_HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(_AUTOGRAD, _of_autograd),
    torch.Tensor.requires_grad_: _require_grad,
    torch_private.set_requires_grad: _require_grad,
    **dict.fromkeys(QUESTIONS, _ask),
    torch_private.set_data: _replace_data,
    torch_private.set_grad_enabled: _set_grad_enabled,
    torch.Tensor.numpy: _to_numpy,
    torch.Tensor.__array__: _to_numpy,
    torch.Tensor.data_ptr: _address,
    torch.Tensor.untyped_storage: _address,
    torch.Tensor.storage: _address,
    torch.Tensor.tolist: _tolist,
    torch.Tensor.__bool__: _bool,
    torch.nn.functional.gaussian_nll_loss: _gaussian_nll_loss,
}
