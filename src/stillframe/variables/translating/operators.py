"""Operators and comparisons: C code must not meet what no guard sees."""

from __future__ import annotations

import operator
from typing import Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.frames.arithmetic import has_python_equality
from stillframe.frames.lookup import python_special
from stillframe.variables.c_code import COMPARED, JOINING, hashed_items
from stillframe.variables.identity import may_be
from stillframe.variables.paths import SEQUENCES
from stillframe.variables.side_effects import CONTAINERS
from stillframe.variables.stand_ins import NATIVE
from stillframe.variables.texts import told_parts
from stillframe.variables.translating.items import Items


class Operators(Items):
    """What an operator of C looks at is relied on first; torch answers for its own values."""

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        left, right = self.here(left), self.here(right)
        if type(left) is bytes and _has_tensor(right):
            raise self.graph_break(
                "The frame makes a text of a tensor.",
                why="its numbers are not known while it is captured",
            )
        if isinstance(left, str) and op.native in (operator.mod, operator.imod):
            right = told_parts(self.tx, right)
        if isinstance(left, NATIVE) or isinstance(right, NATIVE):
            return op.native(left, right)
        deep = op.sign not in JOINING
        if op.in_place and isinstance(left, CONTAINERS):
            self._note_contents(left)
        else:
            self.expose(left, deep=deep)
        self.expose(right, deep=deep)
        if not isinstance(left, list | tuple) and not isinstance(left, str):
            self._settle_sets(left, right)
        return super().binary(op, left, right)

    def _settle_sets(self, left: Any, right: Any) -> None:
        hashed = (set, frozenset, dict)
        if isinstance(left, hashed) and isinstance(right, hashed):
            self.settle(*hashed_items(left), *hashed_items(right))

    def unary(self, method: str, native: Any, value: Any) -> Any:
        value = self.here(value)
        return native(value) if isinstance(value, NATIVE) else super().unary(method, native, value)

    def truth(self, value: Any) -> bool:
        value = self.here(value)
        return bool(value) if isinstance(value, NATIVE) else super().truth(value)

    # -- comparisons ------------------------------------------------------------------------------

    def compare(self, op: Any, left: Any, right: Any) -> Any:
        left, right = self.here(left), self.here(right)
        if isinstance(left, NATIVE) or isinstance(right, NATIVE):
            return op.native(left, right)
        if isinstance(left, COMPARED) and isinstance(right, COMPARED):
            if python_special(type(left), op.method) is None:
                self.settle(left, right)
        self.expose(left)
        self.expose(right)
        self.arrays.refuse_reader("a comparison", (left, right))
        return super().compare(op, left, right)

    def contains(self, container: Any, value: Any) -> bool:
        container, value = self.here(container), self.here(value)
        self.arrays.refuse_reader("in", (container, value))
        if isinstance(value, NATIVE) and type(container) in SEQUENCES:
            self.expose(container, deep=False)
            is_equal = super().contains
            held = [self.here(item) for item in container]
            return any(self.same(item, value) or is_equal((item,), value) for item in held)
        value = self._key(container, value)
        variable = self.variable(container)
        if variable is not None and variable.source is not None:
            known = variable.has(self.tx, value)
            if known is not None:
                return known
        if python_special(type(container), "__contains__") is None:
            self._settle_compared(container, value)
        return super().contains(container, value)

    def _settle_compared(self, container: Any, value: Any) -> None:
        """C code compares values with the items of a container, unless their own code does."""
        self.expose(container)
        if isinstance(container, dict | set | frozenset):
            self.hash_key(container, value)
        elif isinstance(container, (*CONTAINERS, tuple)):
            if not (type(container) in SEQUENCES and has_python_equality(container, value)):
                self.settle(container, value)

    def same(self, left: Any, right: Any) -> bool:
        left, right = self.here(left), self.here(right)
        if left is not right and isinstance(left, FakeTensor) and isinstance(right, FakeTensor):
            if may_be(self.recorder, left) & may_be(self.recorder, right):
                raise self.graph_break(
                    "The frame asks whether two tensors are one.",
                    why="one was made by a function that may return its operand, or a copy",
                )
        return left is right


def _has_tensor(value: Any) -> bool:
    """Whether a value, or an item of a tuple, is a tensor."""
    held = value if type(value) is tuple else (value,)
    return any(isinstance(item, torch.Tensor) for item in held)
