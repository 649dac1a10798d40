"""Functions of the program that code of torch calls: they run on the machine, too.

torch's own Python is called as it is. Where it is given a function of the program's (an arm of
``torch.cond``, a function for ``vmap``), it gets a :class:`Callback` instead, so that what the
function reads outside is relied on like everything else.

The function of a higher-order operator is traced once, and may run never or many times in a call.
What it changes in the objects around it would be wrong, so such a change is refused.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import FrameError

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

_CONTAINERS = (list, tuple, set, frozenset)


class Callback:
    """A function of the program's for code that is not run by the machine.

    Args:
        tx: runs the function.
        function: the program's function, method, module or partial.
    """

    def __init__(self, tx: Translator, function: Any) -> None:
        self.tx = tx
        self.function = function
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.tx.bodies.entered(self.function):
            return self.tx.machine.callback(self.function)(*args, **kwargs)


class Bodies:
    """The functions of higher-order operators that are being traced.

    Args:
        tx: the translator that runs them.
    """

    def __init__(self, tx: Translator) -> None:
        self.tx = tx
        self._around: dict[int, Any] = {}

    @property
    def is_inside(self) -> bool:
        """Whether the function of an operator runs."""
        recorder = self.tx.recorder
        return recorder.subgraph is not None or recorder.inside_function

    @contextlib.contextmanager
    def entered(self, function: Any) -> Iterator[None]:
        """A function runs inside; if it is an operator's, what it refers to may not change."""
        if not self.is_inside:
            yield
            return
        old = self._around
        self._around = {**old, **reachable(function)}
        try:
            yield
        finally:
            self._around = old

    def refusal(self, target: Any) -> FrameError | None:
        """The error for a change of ``target``, if it was there before the function ran."""
        if not self.is_inside:
            return None
        if id(target) not in self._around and self.tx.source(target) is None:
            return None
        return self.tx.graph_break(
            f"A function that an operator is given changes a {type(target).__qualname__} outside "
            "of it.",
            why="it is traced once, and may run never or many times when the graph runs",
            hints=["return the new value, and store it after the call"],
        )


def reachable(function: Any) -> dict[int, Any]:
    """The objects to which a function can come by its variables, by identity."""
    found: dict[int, Any] = {}
    pending = [function]
    while pending:
        value = pending.pop()
        if id(value) in found or isinstance(value, (type, ModuleType, torch.Tensor, str, bytes)):
            continue
        found[id(value)] = value
        pending.extend(_parts(value))
    return found


def _parts(value: Any) -> list[Any]:
    if isinstance(value, FunctionType):
        named = (value.__kwdefaults__ or {}).values()
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), *named]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, CellType):
        with contextlib.suppress(ValueError):
            return [value.cell_contents]
        return []
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    parts = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, dict):
        parts += dict.values(value)
    elif isinstance(value, _CONTAINERS):
        parts += list(value)
    return parts


def is_callback(tx: Translator, value: Any, modules: bool) -> bool:
    """Whether code of torch would call the program's own code by calling ``value``.

    Args:
        modules: whether modules count: torch also looks into these.
    """
    if isinstance(value, FunctionType):
        return tx.inline(value)
    if isinstance(value, MethodType):
        return isinstance(value.__func__, FunctionType) and tx.inline(value.__func__)
    if type(value) is functools.partial:
        return is_callback(tx, value.func, modules)
    return modules and isinstance(value, torch.nn.Module)


#: Where torch keeps the functions that call what they are given: operators, transforms.
_CALLERS = (
    "torch._higher_order_ops", "torch._functorch.apis", "torch._functorch.eager_transforms",
    "torch._functorch.vmap",
)  # fmt: skip


def calls_modules(function: Any) -> bool:
    """Whether a function of torch calls modules that it is given, and does nothing else to them."""
    module = getattr(function, "__module__", None) or ""
    return module.startswith(_CALLERS) or getattr(function, "__name__", "") == "cond"
