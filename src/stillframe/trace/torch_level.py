"""Recording at the level of torch functions: the calls that the user's code made.

A :class:`TorchLevelRecorder` records what every recorder does, and beside it a second graph whose
nodes are calls of torch functions, methods and operators of Python. The first graph is what the
checks of ``export`` look at. The second says the same as the user did: its functions decide for
themselves when they run, as they do in eager.

Each call that a function mode hears of while no other one is open becomes one node; what torch's
own Python calls inside of it is not recorded. Results are known by the identity of the tensors.
What no function mode shows (transforms of ``torch.func``, constructors) still runs operators: those
that arrive while no function is open become nodes of their own, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from stillframe import stack, torch_private
from stillframe.errors import NotSupported
from stillframe.fake import custom
from stillframe.fake.tensor import FakeTensor
from stillframe.trace import torch_calls
from stillframe.trace.functions import MODE_FILES, FunctionMode
from stillframe.trace.recorder import Recorder
from stillframe.trace.torch_calls import TorchCalls

MODE_FILES.update((__file__, torch_calls.__file__))


class TorchLevelMode(FunctionMode):
    """Hears of torch functions, for both graphs."""

    recorder: TorchLevelRecorder

    def label(self, func: Any) -> tuple[str, str]:
        """``torch_fn`` of a call that was just made."""
        name = getattr(func, "__name__", "")
        return f"{name}_{self._counts[name]}", f"{type(func).__name__}.{name}"

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        calls = self.recorder.calls
        kwargs = kwargs or {}
        if not calls.listens:
            return super().__torch_function__(func, types, args, kwargs)
        frame = sys._getframe(1)
        if func is torch_private.set_grad_enabled:
            return super().__torch_function__(func, types, args, kwargs)
        run = super().__torch_function__
        if not calls.whole:
            return run(func, types, args, kwargs)
        return calls.call(func, args, kwargs, lambda: run(func, types, args, kwargs), frame)


class TorchLevelRecorder(Recorder):
    """Records operators as every recorder does, and the torch functions that called them.

    Args:
        whole: torch functions become nodes of the second graph; else operators do.
        args, kwargs: as for every recorder.

    Attributes:
        calls: the second graph.
    """

    def __init__(self, *args: Any, whole: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.functions: TorchLevelMode = TorchLevelMode(self)
        self.calls = TorchCalls(self, whole=whole)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Operators and torch functions of this thread are recorded inside."""
        if self.calls.whole and torch_private.any_autocast_enabled():
            raise NotSupported(
                "A capture of torch functions under torch.autocast.",
                why="the casts would be missing where the graph runs outside of autocast",
                hints=["enter autocast inside of forward, or call the graph under autocast"],
            )
        with super().recording():
            yield

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one operator call; it is a node of the second graph if no function called it."""
        record = super().record
        if custom.is_custom(func):
            self.calls.effects += 1  # whatever else its kernel does
        if not self.calls.listens:
            return record(func, args, kwargs)
        return self.calls.operator(func, args, kwargs, lambda: record(func, args, kwargs))

    def _apply_function(self, cls: Any, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """One ``torch.autograd.Function`` is one node, with its own backward."""
        if not (self.calls.listens and self.calls.whole):
            return NotImplemented
        return self.calls.call(_named_apply(cls), args, {}, run)

    def create(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None
    ) -> torch.fx.Node:
        """A node of the first graph."""
        node = super().create(target, args, kwargs, name)
        if self.calls.listens:
            if target is torch_private.set_grad_enabled:
                self.calls.modes.switch_grad(self.grad_regions.state)
            elif isinstance(target, torch._ops.HigherOrderOperator):
                self._check_higher_order(node, target)
        return node

    def _check_higher_order(self, node: torch.fx.Node, target: Any) -> None:
        """Those without results are mirrored at once; others when their results are known."""
        if target is torch_private.call_torchbind():
            raise NotSupported(
                "A method of a script object is called in a capture of torch functions.",
                where=stack.summary(stack.raw_stack(self.floor)),
                hints=["stillframe.export captures such calls"],
            )
        if target is torch.ops.higher_order.print:
            self.calls.higher_order(node, None)

    def track(self, result: Any, node: torch.fx.Node) -> None:
        """``node`` computes ``result``."""
        super().track(result, node)
        if isinstance(node.target, torch._ops.HigherOrderOperator) and self.calls.listens:
            self.calls.higher_order(node, result)

    def flush_asserts(self) -> None:
        """Conditions on data are checked in both graphs."""
        if not self.env.deferred:
            return
        for check in self.env.deferred:
            self.calls.check(check.expr, check.message)
        super().flush_asserts()

    def _note_writes(self, *call: Any) -> None:
        super()._note_writes(*call)
        self.calls.effects += 1

    def grad_mode(self) -> FakeTensor:
        """A 0-dim bool: whether gradients are enabled when the program comes here."""
        result = super().grad_mode()
        if self.calls.listens:
            self.calls.modes.tell_grad_mode(result)
        return result

    def _note_autocast(self, region: torch.autocast) -> None:
        super()._note_autocast(region)
        if self.calls.listens:
            self.calls.modes.enter_autocast(region)

    def _leave_autocast(self, region: torch.autocast) -> None:
        self.calls.modes.leave_autocast(region)


_applies: weakref.WeakKeyDictionary[type, Callable[..., Any]] = weakref.WeakKeyDictionary()


def _named_apply(cls: type) -> Callable[..., Any]:
    """``cls.apply`` as a function with a name of its own, one for each class."""
    known = _applies.get(cls)
    if known is not None:
        return known

    def apply(*args: Any, **kwargs: Any) -> Any:
        return getattr(cls, "apply")(*args, **kwargs)  # noqa: B009

    apply.__name__ = apply.__qualname__ = f"{cls.__name__}_apply"
    apply.__module__ = cls.__module__
    _applies[cls] = apply
    return apply
