"""What torch's functions ask of tensors as objects, answered by the translator.

A function mode sees every torch function, whether the program calls it or code of torch does that
the machine does not run. What asks for a gradient, a leaf, a history or an offset must not be
answered by a fake, which has none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.functions import MODE_FILES, FunctionMode
from stillframe.trace.recorder import Recorder, RecordingMode

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

MODE_FILES.add(__file__)


class TrackedFunctions(FunctionMode):
    """The function mode of a captured frame.

    Attributes:
        tx: runs the frame.
    """

    tx: Translator

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.tx.tensors.any_overrides and torch_private.asks_subclasses():
            cls = self.tx.tensors.override_among((*args, *kwargs.values()))
            if cls is not None:
                with self:
                    return self._overridden(cls, func, args, kwargs)
        handler = _HANDLERS.get(func)
        if handler is not None and not self.tx.recorder.is_differentiating:
            answer = handler(self.tx, *args, **kwargs)
            if answer is not NotImplemented:
                return answer
        if kwargs.get("requires_grad") is True:
            return self._requiring_grad(func, types, args, kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    def _overridden(self, cls: type, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The ``__torch_function__`` of a subclass; Python code of the user's, run as such."""
        function = self.tx.load_attr(cls, "__torch_function__")
        return self.tx.call(function, (func, (cls,), args, kwargs), {})

    def _requiring_grad(self, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A factory: operators do not know that their result is to require a gradient."""
        rest = {key: value for key, value in kwargs.items() if key != "requires_grad"}
        made = super().__torch_function__(func, types, args, rest)
        return self.tx.tensors.require_grad(made, True)


class TrackedMode(RecordingMode):
    """Hands operators to the recorder; those on wrapper subclasses to the code of their class.

    Args:
        tx: runs the frame.
        recorder: gets the operators.
    """

    def __init__(self, tx: Translator, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.tx = tx

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        wrappers = [cls for cls in types if hasattr(cls, "__tensor_flatten__")]
        if func.namespace == "prim":
            return NotImplemented  # of the layout: the class knows it by itself
        if not wrappers:
            return super().__torch_dispatch__(func, types, args, kwargs)
        with self.recorder.listening():
            return self._dispatched(func, types, args, kwargs or {}, wrappers[0])

    def _dispatched(self, func: Any, types: Any, args: Any, kwargs: Any, cls: type) -> Any:
        """The ``__torch_dispatch__`` of a class; Python code of the user's, run as such."""
        if requires_grad((*args, *kwargs.values())):
            raise self.tx.graph_break(
                f"{func} meets a {cls.__qualname__} and a tensor that requires a gradient.",
                why="autograd would follow the outer tensor, and the graph has the inner ones",
                hints=["detach it, or compute under torch.no_grad()"],
            )
        if torch_private.is_composite_implicit(func):
            with torch_private.no_torch_function():
                return func.decompose(*args, **kwargs)  # as it comes to the class in eager
        function = self.tx.load_attr(cls, "__torch_dispatch__")
        return self.tx.call(function, (func, types, args, kwargs), {})


def requires_grad(values: Any) -> bool:
    """Whether gradients are on and one of the tensors, nested ones too, requires one."""
    return torch.is_grad_enabled() and _any_requires_grad(values)


def _any_requires_grad(values: Any) -> bool:
    return any(
        value.requires_grad if isinstance(value, torch.Tensor)
        else isinstance(value, (tuple, list)) and _any_requires_grad(value)
        for value in values
    )  # fmt: skip


def _is_followed(tensor: Any) -> bool:
    return isinstance(tensor, FakeTensor)


def _grad(tx: Translator, tensor: Any, *rest: Any) -> Any:
    return tx.tensors.custom(tensor, "grad") if _is_followed(tensor) else NotImplemented


def _set_grad(tx: Translator, tensor: Any, value: Any) -> Any:
    return tx.tensors.store(tensor, "grad", value) if _is_followed(tensor) else NotImplemented


def _is_leaf(tx: Translator, tensor: Any, *rest: Any) -> Any:
    return tx.tensors.is_leaf(tensor) if _is_followed(tensor) else NotImplemented


def _grad_fn(tx: Translator, tensor: Any, *rest: Any) -> Any:
    return tx.tensors.grad_fn(tensor) if _is_followed(tensor) else NotImplemented


def _data(tx: Translator, tensor: Any, *rest: Any) -> Any:
    return tx.tensors.data(tensor) if _is_followed(tensor) else NotImplemented


def _require_grad(tx: Translator, tensor: Any, requires_grad: bool = True) -> Any:
    if not _is_followed(tensor):
        return NotImplemented
    return tx.tensors.require_grad(tensor, bool(requires_grad))


def _storage_offset(tx: Translator, tensor: Any) -> Any:
    if _is_followed(tensor):
        tx.tensors.rely_on_offsets(tensor)
    return NotImplemented  # the fake knows it


def _differentiate(tx: Translator, *args: Any, **kwargs: Any) -> Any:
    if torch_private.inside_transform():
        return NotImplemented
    raise tx.graph_break(
        "The frame runs a backward pass, or asks autograd to call it back.",
        why="the graph holds what forward computes; autograd runs when the captured frame does",
        hints=["call backward on what the captured function returns"],
    )


def _numpy(tx: Translator, tensor: Any, **options: Any) -> Any:
    return tx.arrays.of_tensor(tensor) if not options else NotImplemented


_HANDLERS: dict[Any, Callable[..., Any]] = {
    torch_private.get_grad: _grad,
    torch_private.set_grad: _set_grad,
    torch_private.get_is_leaf: _is_leaf,
    torch_private.get_grad_fn: _grad_fn,
    torch_private.get_data: _data,
    torch.Tensor.requires_grad_: _require_grad,
    torch_private.set_requires_grad: _require_grad,
    torch.Tensor.storage_offset: _storage_offset,
    torch.Tensor.numpy: _numpy,
    **dict.fromkeys(
        (
            torch.autograd.grad,
            torch.autograd.backward,
            torch.Tensor.backward,
            torch.Tensor.register_hook,
            torch.Tensor.register_post_accumulate_grad_hook,
            torch.Tensor.retain_grad,
        ),
        _differentiate,
    ),
}
