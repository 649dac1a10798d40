"""What strict capture makes of every read and every write.

An object that was there before the capture is known by the path by which the program reached it
(its source); a change of one goes into the journal, is undone at the end, and refused by its path,
with the user's line. Attributes of the captured modules are left to the comparison of before and
after (``effects``), which turns a new buffer into a copy.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from types import CellType, CodeType, FunctionType
from typing import Any

import torch

from stillframe.errors import SideEffectError
from stillframe.export.attribute_stores import AttributeStore, AttributeStores
from stillframe.export.identity import Identities
from stillframe.export.journal import Journal, refusal
from stillframe.export.log_calls import is_plain_log_call
from stillframe.export.outside import Outside, environment_note, is_held, is_spent_by_use
from stillframe.export.strict.calls import (
    C_FUNCTIONS,
    CONTAINERS,
    Caches,
    CCalls,
    call_module,
    range_arguments,
)
from stillframe.export.strict.tensors import NUMBERS, TensorAccess
from stillframe.export.strict.users import is_users
from stillframe.frames import Policy, places
from stillframe.frames.frame import NULL, Frame
from stillframe.frames.lookup import python_special

#: Packages whose compiled functions may be called: they work on tensors, which are recorded.
_TRUSTED = frozenset({"torch", "torchvision", "stillframe", "numpy"})

#: Their operators are C code, or torch's own Python over it, and are recorded as they run.
_NATIVE = (torch.Tensor, *NUMBERS)


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
        self._tensors = TensorAccess(identities, stores, self.journal)
        self._c_calls = CCalls(self)
        self._caches = Caches(self)
        self.outside.mark(root, "self")

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

    def source(self, value: Any) -> str | None:
        """The path by which an object from outside was reached; None for one that is new."""
        return self.outside.source(value)

    def note_change(self, target: Any, what: str = "changes") -> None:
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
            self.outside.read(source, value)
        return value

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        value = super().load_cell(frame, cell, name)
        if value is not NULL and id(cell) not in self._own_cells:
            source = f"the variable {name} around {frame.decoded.code.co_qualname}"
            self.outside.read(source, value)
        return value

    def load_attr(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensors.load(value, name, self.machine.current)
        found = super().load_attr(value, name)
        source = self.source(value)
        if source is not None and (name == "__dict__" or is_held(value, name, found)):
            self.outside.read(f"{source}.{name}", found)
        return found

    def load_item(self, container: Any, key: Any) -> Any:
        if isinstance(container, torch.Tensor):
            return container[key]
        if container is os.environ:
            self.outside.notes[environment_note(key, os.environ.get(key))] = None
        found = super().load_item(container, key)
        source = self.source(container)
        if source is not None and not isinstance(key, slice):
            self.outside.read(f"{source}[{key!r}]", found)
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
            self.spare(value, source)
            self.outside.mark_items(value, source)
        return super().iterate(value)

    def next(self, iterator: Any) -> Any:
        self.spare(iterator, self.source(iterator))
        return super().next(iterator)

    def advance(self, iterator: Any, default: Any) -> Any:
        self.spare(iterator, self.source(iterator))
        return super().advance(iterator, default)

    def native_iterable(self, value: Any) -> Any:
        source = self.source(value)
        if source is not None:
            self.spare(value, source)
            self.outside.mark_items(value, source)
        return super().native_iterable(value)

    def spare(self, value: Any, source: str | None) -> None:
        """An iterator from outside cannot be put back, so it is not touched."""
        if source is not None and is_spent_by_use(value):
            self._refuse(f"takes items from {source}")

    # -- writes -------------------------------------------------------------------------------

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        if isinstance(target, torch.Tensor):
            self._tensors.store(target, name, value, self.machine.current)
            return
        if isinstance(target, torch.nn.Module):  # torch's hook does the store
            self._note_attribute(target, name)
        super().store_attr(target, name, value)

    def delete_attr(self, target: Any, name: str) -> None:
        if isinstance(target, torch.Tensor):
            self._tensors.delete(target, name, self.machine.current)
            return
        super().delete_attr(target, name)

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
        if isinstance(container, CONTAINERS):
            self.note_change(container)
        elif python_special(type(container), method) is None:
            self._refuse(f"changes {source}")

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
        if op.in_place and isinstance(left, CONTAINERS):
            self.note_change(left)
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
        if isinstance(value, CONTAINERS):
            source = self.source(value)
            if source is not None:
                self.outside.note_answer("whether there is something in", source, answer)
        return answer

    # -- calls --------------------------------------------------------------------------------

    def inline(self, function: FunctionType) -> bool:
        code = function.__code__
        known = self._inlined.get(code)
        if known is None:
            known = self._inlined[code] = is_users(code)
        return known

    def may_call(self, module: str, function: Any) -> bool:
        return module.partition(".")[0] in _TRUSTED or super().may_call(module, function)

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = type(function)
        if function is range and not kwargs:
            args = range_arguments(args)
        if kind in C_FUNCTIONS:
            return self._call_c(function, args, kwargs)
        if function is type and len(args) == 1 and isinstance(args[0], _NATIVE):
            return self._tensors.class_of(args[0])
        if isinstance(function, torch.nn.Module):
            return call_module(self, function, args, kwargs)
        if kind is functools._lru_cache_wrapper:
            return self._caches.call(function, args, kwargs)
        if is_plain_log_call(function):
            return function(*args, **kwargs)
        return super().call(function, args, kwargs)

    def _call_c(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        answer = self._c_calls.answer(function, args)
        if answer is not NULL:
            return answer
        source = self._c_calls.prepare(function, args)
        result = super().call(function, args, kwargs)
        self._c_calls.note(function, source, result)
        return result
