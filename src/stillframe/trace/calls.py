"""CallMode: the function mode of a trace by dispatch.

It knows which torch function runs, and refuses the few that read or copy numbers without any
operator: a dispatch mode would not see them, and the graph would hold a result as a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.trace.functions import FunctionMode
from stillframe.trace.other_ways import OTHER_WAYS

if TYPE_CHECKING:
    from stillframe.trace.dispatch import DispatchRecorder


class CallMode(FunctionMode):
    """Active during a recording, inside the dispatch mode.

    Grad-mode switches are only recorded before dispatch; below autograd they have done their work.

    Attributes:
        call: the torch function being run and its arguments, or None outside of any.
    """

    recorder: DispatchRecorder
    sees_autograd = True

    def __init__(self, recorder: DispatchRecorder) -> None:
        super().__init__(recorder)
        self.call: tuple[Any, Any, Any] | None = None

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch_private.set_grad_enabled and not self.recorder.options.pre_dispatch:
            return func(*args, **(kwargs or {}))
        check = _CHECKS.get(func)
        if check is not None:
            check(self.recorder, func, args, kwargs or {})
        other_way = None if self.recorder.options.pre_dispatch else OTHER_WAYS.get(func)
        old, self.call = self.call, (func, args, kwargs)
        try:
            if other_way is not None:
                return other_way(self, func, args, kwargs or {})
            return super().__torch_function__(func, types, args, kwargs)
        finally:
            self.call = old


def _refuse_copy(recorder: DispatchRecorder, func: Any, args: Any, kwargs: Any) -> None:
    if not recorder.real.is_outside(args[0]):
        raise NotSupported(
            f"Tensor.{func.__name__} copies memory without any operator.",
            why="the graph would hold the copy as a constant",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["use tensor.clone()"],
        )


def _refuse_gradients(recorder: DispatchRecorder, func: Any, args: Any, kwargs: Any) -> None:
    tensors = [t for t in pytree.tree_leaves(args[:1]) if isinstance(t, torch.Tensor)]
    wrapped = [torch_private.is_functorch_wrapper(t) for t in tensors]
    if recorder.options.pre_dispatch and not all(wrapped):  # torch.func has its own autograd
        raise NotSupported(
            f"{func.__name__} cannot be traced before dispatch, where there is no autograd.",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["trace with pre_dispatch=False: the backward pass is then in the graph"],
        )


_CHECKS: dict[Any, Callable[..., None]] = {
    torch.Tensor.__deepcopy__: _refuse_copy,
    torch.Tensor.__reduce_ex__: _refuse_copy,
    torch.Tensor.__dlpack__: _refuse_copy,
    torch.autograd.grad: _refuse_gradients,
    torch.autograd.backward: _refuse_gradients,
    torch.Tensor.backward: _refuse_gradients,
}


# -- new tensors from lists -----------------------------------------------------------------------


def check_fresh(recorder: DispatchRecorder) -> None:
    """``torch.tensor([a, b])`` reads the numbers in real ``a`` and ``b`` without any operator.

    So do indexing with a list and, unseen by function modes, ``torch.Tensor([a])``.

    Raises:
        NotSupported: there are traced tensors in a list, or nobody can tell.
    """
    call = recorder.functions.call
    inner = [] if call is None else _tensors_in_lists(*call)
    real = recorder.real
    if call is None or not all(real.is_outside(t) or real.is_constant(t) for t in inner):
        raise NotSupported(
            "A constructor of tensors was given a list, and there may be tensors in it.",
            why="it reads their numbers without any operator, so they would be constants",
            where=stack.summary(stack.raw_stack(recorder.floor)),
            hints=["make tensors with torch.tensor, and one of several with torch.stack"],
        )


def _tensors_in_lists(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    values = [*args, *(kwargs or {}).values()]
    if func in _INDEXING:  # x[i, j] is x[(i, j)]
        values = [v for arg in values for v in (arg if isinstance(arg, tuple) else (arg,))]
    lists = [v for v in values if isinstance(v, (list, tuple))]
    return [t for t in pytree.tree_leaves(lists) if isinstance(t, torch.Tensor)]


_INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
