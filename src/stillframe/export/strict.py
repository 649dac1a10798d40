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
import functools
import operator
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
from stillframe.errors import NotSupported, SideEffectError
from stillframe.export.attribute_stores import AttributeStore, AttributeStores
from stillframe.export.identity import Identities, is_placeholder
from stillframe.export.journal import Journal, refusal
from stillframe.export.log_calls import is_plain_log_call
from stillframe.export.outside import (
    Outside,
    environment_note,
    is_held,
    is_library,
    is_spent_by_use,
    is_warm,
    unrepeatable,
)
from stillframe.export.tensor_attributes import is_custom
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import Machine, Policy, places
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.lookup import python_special
from stillframe.frames.machine import deep_recursion, frame_of_loop, loop_code
from stillframe.shapes import ranges
from stillframe.trace.scope import in_scope

_TORCH = os.path.dirname(torch.__file__) + os.sep
_STILLFRAME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

#: Files of torch whose functions call the user's code, and torch's examples of what users write:
#: run by the machine, like the user's.
_INLINED = tuple(
    os.path.join(_TORCH, *path) for path in (
        ("nn", "modules", "container.py"), ("utils", "_contextlib.py"),
        ("_export", "db", "examples", ""),
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

#: Classes and functions of C for which an iterator from outside is an object like any other.
_HARMLESS_TO_ITERATORS = (isinstance, type, id, callable, repr, hasattr, getattr)


def run(
    policy: StrictPolicy, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, list[str]]:
    """Call ``callee`` on the machine.

    Args:
        policy: watches; made for the captured module.
        callee: the captured module, or a method of it.
        args, kwargs: its inputs, fakes.

    Returns:
        The result, and a sentence for each value from outside that is fixed in the program.

    Raises:
        SideEffectError: the program changes something outside of it.
        FrameError: the program uses something that the machine does not run.
    """
    machine = Machine(policy)
    modes = switched_modes()
    try:
        with deep_recursion(machine), policy.identities.keys_watched():
            result = policy.call(callee, args, kwargs)
        policy.finish()
    except BaseException:
        with contextlib.suppress(SideEffectError):  # the first error counts
            policy.close()
        # errors of the capture pass the program's own blocks by
        set_modes(*modes)
        raise
    policy.close()
    return result, list(policy.outside.notes)


_DEVICES = ("cpu", "cuda")


def switched_modes() -> tuple[bool, torch.dtype, list[bool]]:
    """What blocks of torch switch: gradients, the default dtype, autocast by device."""
    autocast = [torch.is_autocast_enabled(device) for device in _DEVICES]
    return torch.is_grad_enabled(), torch.get_default_dtype(), autocast


def set_modes(gradients: bool, dtype: torch.dtype, autocast: list[bool]) -> None:
    torch.set_grad_enabled(gradients)
    torch.set_default_dtype(dtype)
    for device, enabled in zip(_DEVICES, autocast, strict=True):
        torch.set_autocast_enabled(device, enabled)


class StrictPolicy(Policy):
    """Plain Python on fakes, with reads and writes watched.

    Attributes:
        outside: the objects that were there before.
        journal: what was written outside of the program.
        stores: the attributes that forward sets on inputs.
        stored: of these, what is left at the end.
    """

    def __init__(
        self,
        root: torch.nn.Module,
        modules: Iterable[Any],
        identities: Identities,
        stores: AttributeStores,
    ) -> None:
        super().__init__()
        modules = list(modules)
        self.journal = Journal()
        self.outside = Outside(modules)
        self.identities = identities
        self.stores = stores
        self.stored: list[AttributeStore] = []
        self._own_modules = {id(module) for module in modules}
        self._own_cells: dict[int, CellType] = {}
        self._inlined: dict[CodeType, bool] = {}
        self._answers: dict[Any, Any] = {}
        self._mark(root, "self")

    def finish(self) -> None:
        """The program has returned."""
        self.stored = self.stores.finish()

    def close(self) -> None:
        """Put back what changed outside of the program.

        Raises:
            SideEffectError: something is not as it was before.
        """
        try:
            self.journal.close()
        except SideEffectError:  # it knows the line
            with contextlib.suppress(SideEffectError):
                self.outside.close()
            raise
        self.outside.close()

    def _mark(self, value: Any, source: str) -> None:
        self.outside.mark(value, source)

    def source(self, value: Any) -> str | None:
        """The path by which an object from outside was reached; None for one that is new."""
        return self.outside.source(value)

    def _note_change(self, target: Any, what: str = "changes") -> None:
        """A container may be about to change; one from outside is put down."""
        source = self.source(target)
        if source is not None:
            self.journal.container(target, f"{what} {source}", self.machine.current)

    def _refuse(self, what: str) -> None:
        raise refusal(what, places.describe(self.machine.current))

    # -- reads --------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        value = super().load_global(frame, name)
        if name in frame.globals:
            source = f"the global {frame.globals.get('__name__', '?')}.{name}"
            self.outside.note(source, value)
            self._mark(value, source)
        return value

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        value = super().load_cell(frame, cell, name)
        if value is not NULL and id(cell) not in self._own_cells:
            source = f"the variable {name} around {frame.decoded.code.co_qualname}"
            self.outside.note(source, value)
            self._mark(value, source)
        return value

    def load_attr(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            if is_custom(name):
                value = self.identities.handed_back(value)
            self._read_tensor(value, name)
            return self._class_of(value) if name == "__class__" else getattr(value, name)
        found = super().load_attr(value, name)
        source = self.source(value)
        if source is not None and (name == "__dict__" or is_held(value, name, found)):
            self.outside.note(f"{source}.{name}", found)
            self._mark(found, f"{source}.{name}")
        return found

    def _read_tensor(self, tensor: torch.Tensor, name: str) -> None:
        """That nobody has set an attribute on an input is a condition; one that is set, refused."""
        if not is_custom(name) or self.journal.wrote(tensor, name):
            return
        known = self.identities.name(tensor)
        if known is None:
            self.stores.refuse_read(tensor, name, self.machine.current)
            return
        if name != "__dict__" and not hasattr(tensor, name):
            self.identities.ask_attribute(tensor, name)
            return
        raise NotSupported(
            f"forward reads the attribute {name} of the input {known}.",
            why="what a caller has set on a tensor is no part of a call",
            where=places.describe(self.machine.current),
            hints=["pass the value as an input of its own"],
        )

    def load_item(self, container: Any, key: Any) -> Any:
        if isinstance(container, torch.Tensor):
            return container[key]
        if container is os.environ:
            self.outside.notes[environment_note(key, os.environ.get(key))] = None
        found = super().load_item(container, key)
        source = self.source(container)
        if source is not None and not isinstance(key, slice):
            self.outside.note(f"{source}[{key!r}]", found)
            self._mark(found, f"{source}[{key!r}]")
        return found

    def contains(self, container: Any, value: Any) -> bool:
        if isinstance(value, torch.Tensor) and type(container) in (list, tuple):
            return any(self._is_or_equals(item, value) for item in container)
        found = super().contains(container, value)
        source = self.source(container)
        if source is not None and type(value) in (int, str):
            self.outside.note_answer(f"whether {value!r} is in", source, found)
        return found

    def _is_or_equals(self, item: Any, value: torch.Tensor) -> bool:
        if isinstance(item, torch.Tensor) and self.same(item, value):
            return True
        return bool(super().contains((item,), value))

    def same(self, left: Any, right: Any) -> bool:
        if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
            return self.identities.same(left, right)
        return left is right

    # -- iterators ----------------------------------------------------------------------------

    def iterate(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return iter(value)
        source = self.source(value)
        if source is not None:
            self._spare(value, source)
            self.outside.mark_items(value, source)
        return super().iterate(value)

    def next(self, iterator: Any) -> Any:
        self._spare(iterator, self.source(iterator))
        return super().next(iterator)

    def advance(self, iterator: Any, default: Any) -> Any:
        self._spare(iterator, self.source(iterator))
        return super().advance(iterator, default)

    def native_iterable(self, value: Any) -> Any:
        source = self.source(value)
        if source is not None:
            self._spare(value, source)
            self.outside.mark_items(value, source)
        return super().native_iterable(value)

    def _spare(self, value: Any, source: str | None) -> None:
        """An iterator from outside cannot be put back, so it is not touched."""
        if source is not None and is_spent_by_use(value):
            self._refuse(f"takes items from {source}")

    # -- writes -------------------------------------------------------------------------------

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        if isinstance(target, torch.Tensor):
            target = self.identities.handed_back(target)
            self._note_tensor_attribute(target, name)
            replayed = self.stores.store(target, name, value, self.machine.current)
            self.journal.replay(target, name, replayed)
            setattr(target, name, value)
            return
        if isinstance(target, torch.nn.Module):  # torch's hook does the store
            self._note_attribute(target, name)
        super().store_attr(target, name, value)

    def delete_attr(self, target: Any, name: str) -> None:
        if isinstance(target, torch.Tensor):
            target = self.identities.handed_back(target)
            self._note_tensor_attribute(target, name)
            self.stores.delete(target, name)
            self.journal.replay(target, name, False)
            delattr(target, name)
            return
        super().delete_attr(target, name)

    def _note_tensor_attribute(self, target: torch.Tensor, name: str) -> None:
        """A store on a tensor that the program did not make."""
        if not is_custom(name) or (isinstance(target, FakeTensor) and not is_placeholder(target)):
            return
        known = self.identities.name(target)
        of = "a tensor" if known is None else f"the input {known}"
        text = f"sets the attribute {name} of {of}"
        self.journal.attribute(target, name, text, self.machine.current)

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
        if isinstance(value, _NATIVE):
            return bool(value)
        answer = super().truth(value)
        if isinstance(value, _CONTAINERS):
            source = self.source(value)
            if source is not None:
                self.outside.note_answer("whether there is something in", source, answer)
        return answer

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
        kind = type(function)
        if function is range and not kwargs:
            args = self._range_arguments(args)
        if kind in _C_FUNCTIONS:
            return self._call_c(function, args, kwargs)
        if function is type and len(args) == 1 and isinstance(args[0], _NATIVE):
            return self._class_of(args[0])
        if isinstance(function, torch.nn.Module):
            return self._call_module(function, args, kwargs)
        if kind is functools._lru_cache_wrapper:
            return self._call_cached(function, args, kwargs)
        if is_plain_log_call(function):
            return function(*args, **kwargs)
        return super().call(function, args, kwargs)

    def _range_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Plain numbers, where a loop over them is one over the sizes."""
        code, position = stack.place_of(sys._getframe())
        if ranges.operands_of_loop(code, position) is None:
            return args
        return tuple(ranges.numbers_for_loop(args) or args)

    def _call_c(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in _IDENTITY and len(args) == 2:
            return self.same(*args) is (function is operator.is_)
        if function is id and isinstance(args[0], torch.Tensor):
            self.identities.ask_all(args[0])
        elif function is isinstance and len(args) == 2:
            if _is_finer_than_tensor(args[1]):
                self.identities.ask_class(args[0])
            if type(args[0]) in _NUMBERS and issubclass(_NUMBERS[type(args[0])], args[1]):
                return True  # a size is an int for whoever asks
        what = unrepeatable(function, args)
        if what is not None:
            self._refuse_unrepeatable(function, what)
        source = self._prepare_c(function, args)
        result = super().call(function, args, kwargs)
        if function is globals:
            self._mark(result, f"the globals of {result.get('__name__', '?')}")
        elif source is not None:
            self.outside.note_answer(f"{function.__name__}() of", source, result)
        return result

    def _class_of(self, value: Any) -> type:
        """The class that a tensor or a number has when the program runs."""
        if not isinstance(value, FakeTensor):
            return _NUMBERS.get(type(value), type(value))
        self.identities.ask_class(value)
        return torch.nn.Parameter if isinstance(value, torch.nn.Parameter) else torch.Tensor

    def _refuse_unrepeatable(self, function: Any, what: str) -> None:
        raise NotSupported(
            f"forward calls {function.__qualname__}(), which {what}.",
            why="what it gave or did at export would be fixed in the program",
            where=places.describe(self.machine.current),
            hints=["call it outside of forward, and pass the result as an input"],
        )

    def _prepare_c(self, function: Any, args: tuple[Any, ...]) -> str | None:
        """A C function may change a container from outside: its own, or one that it is given.

        Returns:
            The source of the object from outside that it is about, if there is one.
        """
        owner = getattr(function, "__self__", None)
        if owner is None or type(owner) is ModuleType:
            if hasattr(function, "__objclass__"):
                owner = args[0] if args else None
            else:
                return self._prepare_function(function, args)
        source = self.source(owner)
        if source is None:
            return None
        if isinstance(owner, _CONTAINERS) and function.__name__ in _MUTATORS:
            self._note_change(owner, f"calls .{function.__name__}() of")
        self._spare(owner, source)
        self.outside.mark_items(owner, source)
        return source

    def _prepare_function(self, function: Any, args: tuple[Any, ...]) -> str | None:
        changes = getattr(function, "__module__", None) in _CHANGE_ARGUMENTS
        found = None
        for value in args:
            source = self.source(value)
            if source is None:
                continue
            if changes and isinstance(value, _CONTAINERS):
                self._note_change(value, f"calls {function.__name__}() on")
            if function not in _HARMLESS_TO_ITERATORS:
                self._spare(value, source)
            found = source if isinstance(value, _CONTAINERS) else found
        return found if function is len else None

    def _call_cached(self, cached: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function behind ``lru_cache``: what it knows it says, else it is run, and not kept.

        Kept results of a capture would be fakes, and the function's side effects would be hidden.
        """
        function = cached.__wrapped__
        if not isinstance(function, FunctionType) or self.source(cached) is None:
            return super().call(cached, args, kwargs)
        if is_library(function.__module__):
            return super().call(cached, args, kwargs)
        where = f"what {function.__qualname__}() keeps"
        if not kwargs and is_warm(cached, args):
            result = cached(*args)
        else:
            key = (id(cached), args, tuple(kwargs.items()))
            try:
                if key not in self._answers:
                    self._answers[key] = self.call(function, args, kwargs)
            except TypeError:  # not to be hashed: a symbolic size
                return self.call(function, args, kwargs)
            result = self._answers[key]
        self.outside.note(where, result)
        self._mark(result, where)
        return result

    def _call_module(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Layers of torch are run by torch; a forward or a hook of the user's by the machine."""
        if _has_hooks(module):
            run = type(module)._call_impl
            return in_scope(module, lambda *a, **k: self.call(run, (module, *a), k), args, kwargs)
        forward = self.load_attr(module, "forward")
        code = getattr(getattr(forward, "__func__", forward), "__code__", None)
        if code is None or not _is_users(code):
            return module(*args, **kwargs)
        return in_scope(module, lambda *a, **k: self.call(forward, a, k), args, kwargs)


#: What symbolic numbers are for a program.
_NUMBERS: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


def _is_finer_than_tensor(classes: Any) -> bool:
    """Whether ``isinstance`` with these classes may tell a parameter from another tensor."""
    if isinstance(classes, tuple):
        return any(map(_is_finer_than_tensor, classes))
    return (
        isinstance(classes, type)
        and issubclass(classes, torch.Tensor)
        and classes is not torch.Tensor
    )


#: ``is`` as functions.
_IDENTITY = (operator.is_, operator.is_not)

#: Their operators are C code, or torch's own Python over it, and are recorded as they run.
_NATIVE = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)


def _is_users(code: CodeType) -> bool:
    name = code.co_filename
    if name.startswith(_INLINED) or not name.startswith((_TORCH, _STILLFRAME)):
        return True
    return code in _CALLS_HOOKS


#: torch's own code that calls hooks.
_CALLS_HOOKS = (torch.nn.Module._call_impl.__code__,)


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
