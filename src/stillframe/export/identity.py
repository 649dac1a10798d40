"""Which tensor is it: ``x is y``, tensors as keys, ``id(x)``.

Operators say nothing of these. Under strict capture the machine meets the questions; those about
two inputs become conditions of every call, those that no call could check are refused.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import NotSupported
from stillframe.fake.tensor import FakeTensor
from stillframe.frames import __file__ as _machine
from stillframe.trace.operators import Item
from stillframe.trace.reads import ATTRIBUTE, SAME, Reads

_MACHINE = os.path.dirname(_machine) + os.sep


class Identities:
    """The tensor inputs of one run.

    Args:
        inputs: ``(name, fake, example)`` of each.
        reads: takes down the questions.
    """

    def __init__(
        self, inputs: Sequence[tuple[str, FakeTensor, torch.Tensor]], reads: Reads
    ) -> None:
        self._inputs = {id(fake): (name, fake, example) for name, fake, example in inputs}
        self._reads = reads

    def name(self, value: Any) -> str | None:
        """How a person names an input; None for what is none."""
        found = self._inputs.get(id(value))
        return None if found is None else found[0]

    def same(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        """``left is right``, as in the call of the example.

        Raises:
            NotSupported: an input is compared with a parameter, a buffer or a constant.
        """
        left, right = self.handed_back(left), self.handed_back(right)
        if left is right:
            return True
        one, other = self._inputs.get(id(left)), self._inputs.get(id(right))
        if one is not None and other is not None:
            answer = one[2] is other[2]
            self._reads.note(SAME, one[1], answer, other[1])
            return answer
        for asked, value in ((one, right), (other, left)):
            if asked is not None and _lasts(value):
                raise _refusal(asked[0], "a parameter, a buffer or a constant")
        return False

    def handed_back(self, value: Any) -> Any:
        """The tensor that an operator such as ``contiguous()`` gives back as it got it.

        Whether it does follows from the layouts of the inputs, which are conditions then.
        """
        for given in origins(value):
            if given is not value:
                self._reads.note("stride()", value)
                if given.storage_ is not value.storage_:
                    break
                value = given
        return value

    def ask_class(self, tensor: Any) -> None:
        """Somebody asks for the class of an input: it is a Parameter in every call, or in none."""
        if id(tensor) in self._inputs:
            self._reads.note("being an nn.Parameter", tensor)

    def ask_attribute(self, tensor: Any, name: str) -> None:
        """Somebody looks for an attribute that the input does not have."""
        self._reads.note(ATTRIBUTE + name, tensor, False)

    def ask_all(self, tensor: Any) -> None:
        """``tensor`` is used by its identity: as a key, by ``id()``.

        Raises:
            NotSupported: the example gives it as two inputs.
        """
        asked = self._inputs.get(id(tensor))
        if asked is None:
            return
        for name, fake, example in self._inputs.values():
            if fake is not asked[1]:
                if example is asked[2]:
                    raise _refusal(asked[0], f"the input {name}, which is the same tensor")
                self._reads.note(SAME, asked[1], False, fake)

    @contextlib.contextmanager
    def keys_watched(self) -> Iterator[None]:
        """Inside, tensors that the machine puts into a dict or a set are asked about."""

        def hashed(original: Any, tensor: Any) -> Any:
            frame = sys._getframe(2)
            if frame.f_code.co_filename.startswith(_MACHINE):
                self.ask_all(tensor)
            return original(tensor)

        with torch_private.functions_replaced(FakeTensor, {"__hash__": hashed}):
            yield


#: Operators that return their input itself where there is nothing to do.
_MAY_HAND_BACK = frozenset(
    """contiguous to type_as dropout alpha_dropout feature_dropout feature_alpha_dropout flatten
    real conj resolve_conj resolve_neg positive atleast_1d atleast_2d atleast_3d sum_to_size
    to_dense lift broadcast_tensors""".split()
)


def origins(value: Any) -> Iterator[Any]:
    """``value``, and the tensors that it may be itself: what an operator may have handed back."""
    yield value
    node = value.fx_node if isinstance(value, FakeTensor) else None
    while (given := _given(node)) is not None:
        node = given
        if isinstance(node.meta.get("val"), FakeTensor):
            yield node.meta["val"]


def _given(node: Any) -> torch.fx.Node | None:
    """What the operator of a node may have handed back, if it is one of those."""
    index: Any = None
    if isinstance(node, Item):
        node, index = node.node, node.path[0]
    elif isinstance(node, torch.fx.Node) and node.target is operator.getitem:
        node, index = node.args
    if not isinstance(node, torch.fx.Node) or _name(node.target) not in _MAY_HAND_BACK:
        return None
    given: Any = node.args[0] if index is None else node.args[0][index]  # type: ignore[index]
    return given if isinstance(given, torch.fx.Node) else None


def _name(target: Any) -> str:
    return target._opname if isinstance(target, torch._ops.OpOverload) else ""


def is_placeholder(value: Any) -> bool:
    """Whether a fake stands for a tensor from outside: an input, a parameter, a constant."""
    node = value.fx_node if isinstance(value, FakeTensor) else None
    return isinstance(node, torch.fx.Node) and node.op == "placeholder"


def _lasts(value: torch.Tensor) -> bool:
    return is_placeholder(value) if isinstance(value, FakeTensor) else True


def _refusal(name: str, other: str) -> NotSupported:
    return NotSupported(
        f"forward asks whether the input {name} is {other}.",
        why="the answer would be fixed in the program, and no call can check it",
        hints=["pass a flag that says so"],
    )
