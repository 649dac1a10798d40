"""Items of containers, and loops over them: each is read when the program gets to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import GeneratorType
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.frames.lookup import python_special
from stillframe.source import has_exact_form
from stillframe.variables.base import VariableTracker
from stillframe.variables.c_code import DICTS
from stillframe.variables.paths import CONSTANTS, TUPLE_ITERATOR
from stillframe.variables.side_effects import CONTAINERS
from stillframe.variables.translating.attributes import Attributes


class Items(Attributes):
    """An item has its container's source and a key; a container is written as a whole."""

    # -- items ------------------------------------------------------------------------------------

    def load_item(self, container: Any, key: Any) -> Any:
        container, key = self.here(container), self.here(key)
        if isinstance(container, torch.Tensor):
            return container[self.for_torch(key)]
        variable = self.variable(container)
        if variable is None or variable.source is None:
            self.hash_key(container, key)
            return self.here(super().load_item(container, key))
        return variable.load_item(self.tx, self._key(container, key))

    def plain_item(self, container: Any, key: Any) -> Any:
        """``container[key]`` as Python does it; methods in Python are run by the machine."""
        return super().load_item(container, key)

    def elements(self, values: Sequence[Any]) -> Sequence[Any]:
        values = self.here(values)
        if self.source(values) is None:
            return [self.here(value) for value in values]
        return [self.load_item(values, index) for index in range(len(values))]

    def each(self, values: Sequence[Any]) -> Iterator[Any]:
        """The items of a sequence from outside, each read when its turn comes."""
        index = 0
        while index < len(values):
            yield self.load_item(values, index)
            index += 1

    def store_item(self, container: Any, key: Any, value: Any) -> None:
        container, key = self.here(container), self.here(key)
        if isinstance(container, torch.Tensor):
            value = self.here(value)
            if type(value) in (int, float, bool, complex):  # torch would make a real tensor of it
                value = torch.full((), value, dtype=container.dtype, device=container.device)
            container[self.for_torch(key)] = value
            return
        key = self._key(container, key)
        self._note_item(container, key)
        self.hash_key(container, key)
        super().store_item(container, key, value)

    def delete_item(self, container: Any, key: Any) -> None:
        container = self.here(container)
        key = self._key(container, self.here(key))
        self._note_item(container, key)
        self.hash_key(container, key)
        super().delete_item(container, key)

    def _by_key(self, container: Any) -> VariableTracker | None:
        """What goes with a container whose items are known one by one."""
        found = self.variable(container) if isinstance(container, dict) else None
        return found if found is not None and found.handles_items else None

    def _note_item(self, container: Any, key: Any) -> None:
        by_key = self._by_key(container)
        if by_key is None:
            self._note_contents(container)
        else:
            by_key.note_item(self.tx, key)

    def _note_contents(self, container: Any) -> None:
        self._may_change(container)
        variable = self.variable(container)
        source = None if variable is None else variable.source
        if variable is None or source is None:
            return
        if variable.handles_items:
            raise self.graph_break(
                f"The frame changes all of {source.name()} at once.",
                why="its items are attributes, which are relied on one by one",
                hints=["set the attributes: setattr(object, name, value)"],
            )
        variable.before_change(self.tx)
        if isinstance(container, CONTAINERS):
            self.effects.contents(container, source)

    # -- keys -------------------------------------------------------------------------------------

    def hashed(self, values: Sequence[Any]) -> None:
        self.settle(*values)

    def hash_key(self, container: Any, key: Any) -> None:
        """A key is about to be looked up in a dict or set, by C code."""
        if not isinstance(container, (dict, set, frozenset)) or type(key) in CONSTANTS:
            return
        self.settle(key)
        if self.source(container) is not None and not all(map(has_exact_form, container)):
            self._pin(key)
        if isinstance(key, FakeTensor) and any(
            isinstance(held, torch.Tensor) and not isinstance(held, FakeTensor)
            for held in container
        ):
            raise self.graph_break(
                "A tensor is looked up among the keys of a container from outside.",
                why="what stands for the tensor is another object",
                hints=["use names for keys"],
            )

    def _pin(self, key: Any) -> None:
        """The key is compared with objects that are known by their identity: so is the key."""
        if type(key) is tuple:
            for part in key:
                self._pin(part)
        source = None if has_exact_form(key) else self.source(key)
        if source is not None:
            self.builder(source).install_guards("ID_MATCH")

    def _key(self, container: Any, key: Any) -> Any:
        """The key by which a dict from outside has an item: of a tensor, the real one."""
        if isinstance(container, dict) and self.source(container) is not None:
            return self.there(key)
        return key

    # -- iteration --------------------------------------------------------------------------------

    def iterate(self, value: Any) -> Any:
        value = self.here(value)
        if isinstance(value, torch.Tensor):
            return iter(value)
        self._refuse_iterator(value)
        variable = self._iterated(value)
        return super().iterate(value if variable is None else variable.iterated(self.tx))

    def _iterated(self, value: Any) -> VariableTracker | None:
        """What goes with a value from outside that C code iterates over."""
        variable = self.variable(value)
        if variable is None or variable.source is None:
            return None
        return None if python_special(type(value), "__iter__") else variable

    def advance(self, iterator: Any, default: Any) -> Any:
        iterator = self.here(iterator)
        self._refuse_iterator(iterator)
        return self.here(super().advance(iterator, default))

    def next(self, iterator: Any) -> Any:
        iterator = self.here(iterator)
        self._refuse_iterator(iterator)
        return self.here(super().next(iterator))

    def native_iterable(self, value: Any) -> Any:
        value = self.here(value)
        self._refuse_iterator(value)
        variable = self._iterated(value)
        return super().native_iterable(value if variable is None else variable.iterable(self.tx))

    def native_mapping(self, value: Any) -> Any:
        value = self.here(value)
        if self.source(value) is not None and type(value) in DICTS:
            self.expose(value, deep=False)
            return {self.here(key): self.load_item(value, key) for key in value}
        return super().native_mapping(value)

    def _refuse_iterator(self, value: Any) -> None:
        """An iterator from outside would be used up."""
        source = self.source(value)
        if source is None or type(value) is TUPLE_ITERATOR:
            return
        if type(value) is GeneratorType or hasattr(type(value), "__next__"):
            if python_special(type(value), "__next__") is not None:
                return  # an object with a method like any other
            raise self.graph_break(
                f"The frame takes items from the iterator {source.name()}.",
                why="they would be gone after the capture",
                hints=["make a list of it first"],
            )
