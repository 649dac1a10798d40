"""Strict capture: the user's Python is run by the frame machine, torch's own is called on fakes.

Plain tracing sees operators only. Here every read of a global, a closure variable or an attribute
goes through the policy, and so does every write. An object that was there before the capture is
known by the path by which the program reached it (its source); a change of one goes into the
journal, is undone at the end, and refused by its path, with the user's line. Attributes of the
captured modules are left to the comparison of before and after (``effects``), which turns a new
buffer into a copy.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
from collections.abc import Iterable
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import torch

from stillframe import stack, torch_private
from stillframe.errors import SideEffectError
from stillframe.export.journal import Journal, refusal
from stillframe.frames import Machine, Policy, places
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.lookup import python_special, type_lookup
from stillframe.frames.machine import deep_recursion, frame_of_loop, loop_code
from stillframe.trace.scope import in_scope

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

#: Files of torch whose functions call the user's code: run by the machine, like the user's.
_INLINED = tuple(
    os.path.join(_TORCH, *path) for path in (
        ("nn", "modules", "container.py"), ("utils", "_contextlib.py"),
    )
)  # fmt: skip

#: Packages whose compiled functions may be called: they work on tensors, which are recorded.
_TRUSTED = frozenset({"torch", "torchvision", "stillframe", "numpy"})

#: Methods of built-in containers that change them.
_MUTATORS = frozenset(
    """append extend insert pop remove clear sort reverse update setdefault popitem add discard
    appendleft extendleft popleft rotate move_to_end difference_update intersection_update
    symmetric_difference_update __setitem__ __delitem__ __iadd__ __ior__""".split()
)
_CONTAINERS = (list, dict, set, bytearray, collections.deque)

_C_FUNCTIONS = (
    BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType,
)  # fmt: skip

#: C modules with functions that change a container they are given.
_CHANGE_ARGUMENTS = frozenset({"_heapq", "_bisect", "_random", "_struct", "_collections"})

#: Values that cannot be changed, or whose changes are seen elsewhere.
_UNTRACKED = (
    int, float, complex, str, bytes, bool, type(None), type, torch.Tensor, torch.dtype,
    torch.device, FunctionType, BuiltinFunctionType, ModuleType,
)  # fmt: skip


def run(
    policy: StrictPolicy, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, list[str]]:
    """Call ``callee`` on the machine.

    Args:
        policy: watches; made for the captured module.
        callee: the captured module, or a method of it.
        args, kwargs: its inputs, fakes.

    Returns:
        The result, and a sentence for each number from outside that is fixed in the program.

    Raises:
        SideEffectError: the program changes something outside of it.
        FrameError: the program uses something that the machine does not run.
    """
    machine = Machine(policy)
    modes = _modes()
    try:
        with deep_recursion(machine):
            result = policy.call(callee, args, kwargs)
        policy.finish()
    except BaseException:
        with contextlib.suppress(SideEffectError):  # the first error counts
            policy.journal.close()
        # errors of the capture pass the program's own blocks by
        _set_modes(*modes)
        raise
    policy.journal.close()
    return result, policy.notes()


_DEVICES = ("cpu", "cuda")


def _modes() -> tuple[bool, torch.dtype, list[bool]]:
    """What blocks of torch switch: gradients, the default dtype, autocast by device."""
    autocast = [torch.is_autocast_enabled(device) for device in _DEVICES]
    return torch.is_grad_enabled(), torch.get_default_dtype(), autocast


def _set_modes(gradients: bool, dtype: torch.dtype, autocast: list[bool]) -> None:
    torch.set_grad_enabled(gradients)
    torch.set_default_dtype(dtype)
    for device, enabled in zip(_DEVICES, autocast, strict=True):
        torch.set_autocast_enabled(device, enabled)


class StrictPolicy(Policy):
    """Plain Python on fakes, with reads and writes watched.

    Attributes:
        reads: source -> value, for globals and closure variables.
        journal: what was written outside of the program.
    """

    def __init__(self, root: torch.nn.Module, modules: Iterable[Any] = ()) -> None:
        super().__init__()
        self.reads: dict[str, Any] = {}
        self.journal = Journal()
        self._own_modules = {id(module) for module in modules}
        self._sources: dict[int, tuple[Any, str]] = {}
        self._own_cells: dict[int, CellType] = {}
        self._inlined: dict[CodeType, bool] = {}
        self._mark(root, "self")

    def finish(self) -> None:
        """The program has returned."""

    def notes(self) -> list[str]:
        """A sentence for each number that was read from outside, the standard library aside."""
        return [
            f"{source} is {value!r}, as it was at export"
            for source, value in self.reads.items()
            if type(value) in (int, float) and not _is_standard(source)
        ]

    # -- sources ------------------------------------------------------------------------------

    def _mark(self, value: Any, source: str) -> None:
        """Remember by which path an object from outside was reached; the first one counts."""
        if not isinstance(value, _UNTRACKED):
            self._sources.setdefault(id(value), (value, source))

    def source(self, value: Any) -> str | None:
        """The path by which an object from outside was reached; None for one that is new."""
        found = self._sources.get(id(value))
        return None if found is None else found[1]

    def _mark_items(self, value: Any, source: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._mark(item, f"{source}[{key!r}]")
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            for index, item in enumerate(value):
                self._mark(item, f"{source}[{index}]")

    def _note_change(self, target: Any, what: str = "changes") -> None:
        """A container may be about to change; one from outside is put down."""
        source = self.source(target)
        if source is not None:
            self.journal.container(target, f"{what} {source}", self.machine.current)

    # -- reads --------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        value = super().load_global(frame, name)
        if name in frame.globals:
            source = f"the global {frame.globals.get('__name__', '?')}.{name}"
            self.reads[source] = value
            self._mark(value, source)
        return value

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        value = super().load_cell(frame, cell, name)
        if value is not NULL and id(cell) not in self._own_cells:
            source = f"the variable {name} around {frame.decoded.code.co_qualname}"
            self.reads[source] = value
            self._mark(value, source)
        return value

    def load_attr(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            return getattr(value, name)
        found = super().load_attr(value, name)
        source = self.source(value)
        if source is None and isinstance(value, (type, ModuleType, FunctionType)):
            source = _lasting_name(value)
        if source is not None and (name == "__dict__" or _is_held(value, name, found)):
            self._mark(found, f"{source}.{name}")
        return found

    def load_item(self, container: Any, key: Any) -> Any:
        if isinstance(container, torch.Tensor):
            return container[key]
        found = super().load_item(container, key)
        source = self.source(container)
        if source is not None and not isinstance(key, slice):
            self._mark(found, f"{source}[{key!r}]")
        return found

    def iterate(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return iter(value)
        source = self.source(value)
        if source is not None:
            self._mark_items(value, source)
        return super().iterate(value)

    # -- writes -------------------------------------------------------------------------------

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        if isinstance(target, torch.Tensor):
            setattr(target, name, value)
            return
        if isinstance(target, torch.nn.Module):  # torch's hook does the store
            self._note_attribute(target, name)
        super().store_attr(target, name, value)

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        self._note_attribute(target, name)
        super().set_attribute(target, name, value)

    def unset_attribute(self, target: Any, name: str) -> None:
        self._note_attribute(target, name)
        super().unset_attribute(target, name)

    def _note_attribute(self, target: Any, name: str) -> None:
        if id(target) in self._own_modules:
            return
        source = self.source(target)
        if isinstance(target, (type, ModuleType, FunctionType)):
            source = _lasting_name(target)
        if source is not None:
            self.journal.attribute(target, name, f"sets {source}.{name}", self.machine.current)

    def store_item(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(container, torch.Tensor):
            container[key] = value
            return
        self._note_item(container, "__setitem__")
        super().store_item(container, key, value)

    def delete_item(self, container: Any, key: Any) -> None:
        self._note_item(container, "__delitem__")
        super().delete_item(container, key)

    def _note_item(self, container: Any, method: str) -> None:
        source = self.source(container)
        if source is None:
            return
        if isinstance(container, _CONTAINERS):
            self._note_change(container)
        elif python_special(type(container), method) is None:
            raise refusal(f"changes {source}", places.describe(self.machine.current))

    def store_global(self, frame: Frame, name: str, value: Any) -> None:
        self._note_global(frame, name)
        super().store_global(frame, name, value)

    def delete_global(self, frame: Frame, name: str) -> None:
        self._note_global(frame, name)
        super().delete_global(frame, name)

    def _note_global(self, frame: Frame, name: str) -> None:
        text = f"sets the global {frame.globals.get('__name__', '?')}.{name}"
        self.journal.entry(frame.globals, name, text, frame)

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        if id(cell) not in self._own_cells:
            text = f"sets the variable {name} around {frame.decoded.code.co_qualname}"
            self.journal.cell(cell, text, frame)
        super().store_cell(frame, cell, name, value)

    def new_cell(self, cell: CellType) -> None:
        self._own_cells[id(cell)] = cell

    # -- operators on tensors and symbols -----------------------------------------------------

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        if isinstance(left, _NATIVE) or isinstance(right, _NATIVE):
            return op.native(left, right)
        if op.in_place and isinstance(left, _CONTAINERS):
            self._note_change(left)
        return super().binary(op, left, right)

    def compare(self, op: Any, left: Any, right: Any) -> Any:
        if isinstance(left, _NATIVE) or isinstance(right, _NATIVE):
            return op.native(left, right)
        return super().compare(op, left, right)

    def unary(self, method: str, native: Any, value: Any) -> Any:
        return native(value) if isinstance(value, _NATIVE) else super().unary(method, native, value)

    def truth(self, value: Any) -> bool:
        return bool(value) if isinstance(value, _NATIVE) else super().truth(value)

    # -- calls --------------------------------------------------------------------------------

    def inline(self, function: FunctionType) -> bool:
        code = function.__code__
        known = self._inlined.get(code)
        if known is None:
            known = self._inlined[code] = _is_users(code)
        return known

    def may_call(self, module: str, function: Any) -> bool:
        return module.partition(".")[0] in _TRUSTED or super().may_call(module, function)

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if type(function) in _C_FUNCTIONS:
            self._check_c(function, args)
        elif isinstance(function, torch.nn.Module):
            return self._call_module(function, args, kwargs)
        result = super().call(function, args, kwargs)
        if function is globals:
            self._mark(result, f"the globals of {result.get('__name__', '?')}")
        return result

    def _check_c(self, function: Any, args: tuple[Any, ...]) -> None:
        """A C function may change a container from outside: its own, or one that it is given."""
        owner = getattr(function, "__self__", None)
        if owner is None or type(owner) is ModuleType:
            if hasattr(function, "__objclass__"):
                owner = args[0] if args else None
            elif getattr(function, "__module__", None) in _CHANGE_ARGUMENTS:
                for value in args:
                    if isinstance(value, _CONTAINERS):
                        self._note_change(value, f"calls {function.__name__}() on")
                return
        source = self.source(owner)
        if source is None:
            return
        if isinstance(owner, _CONTAINERS) and function.__name__ in _MUTATORS:
            self._note_change(owner, f"calls .{function.__name__}() of")
        self._mark_items(owner, source)

    def _call_module(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Hooks and layers of torch are run by torch; a forward of the user's by the machine."""
        forward = self.load_attr(module, "forward")
        code = getattr(getattr(forward, "__func__", forward), "__code__", None)
        if _has_hooks(module) or code is None or not _is_users(code):
            return module(*args, **kwargs)
        return in_scope(module, lambda *a, **k: self.call(forward, a, k), args, kwargs)


#: Their operators are C code, or torch's own Python over it, and are recorded as they run.
_NATIVE = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)


def _is_standard(source: str) -> bool:
    module = source.removeprefix("the global ").partition(".")[0]
    return module in sys.stdlib_module_names and module != "__main__"


def _is_users(code: CodeType) -> bool:
    name = code.co_filename
    return name in _INLINED or not name.startswith((_TORCH, _STILLFRAME))


def _lasting_name(value: Any) -> str | None:
    """The name of a module, or of a function or class that no function made; else None."""
    name: str = getattr(value, "__qualname__", value.__name__)
    return None if "<locals>" in name else name


def _is_held(holder: Any, name: str, value: Any) -> bool:
    """Whether ``holder`` keeps ``value``, rather than computing it for this read."""
    names = getattr(holder, "__dict__", {})
    if names.get(name, NULL) is value:
        return True
    if type_lookup(holder if isinstance(holder, type) else type(holder), name) is value:
        return True
    return isinstance(holder, torch.nn.Module) and names.get("_modules", {}).get(name) is value


def _has_hooks(module: torch.nn.Module) -> bool:
    own = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
        module._backward_pre_hooks,
    )  # fmt: skip
    return any(own) or any(torch_private.global_module_hooks())


def _place(native: FrameType) -> tuple[CodeType, int]:
    """The program's code and position, from the native frame of the machine that runs it."""
    frame = frame_of_loop(native)
    return frame.decoded.code, frame.decoded.offsets[frame.pc]


stack.show_interpreted(loop_code(), _place, os.path.dirname(loop_code().co_filename), __file__)
