"""Which real tensors a trace knows: by identity, with what may be said of their values.

Tensors are held weakly, so that memory is freed as in an ordinary run. Memory is known by its
storage, held weakly too: an address that is used again is not mistaken for the old storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.folding import CONSTANT_NUMEL_LIMIT

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(slots=True)
class Slot:
    """What is known of one tensor.

    ``node`` computes it; ``constant``: its value follows from constants of the traced function
    alone.
    """

    node: torch.fx.Node
    constant: bool = False


class RealTensors:
    """The tensors of one trace that are not fakes: inputs and results of operators."""

    def __init__(self) -> None:
        self._slots: WeakIdKeyDictionary = WeakIdKeyDictionary(ref_type=WeakIdRef)
        self._traced: dict[int, StorageWeakRef] = {}
        self._written: dict[int, StorageWeakRef] = {}
        self._outside: set[int | None] = set()

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor in self._slots

    def node(self, tensor: torch.Tensor) -> torch.fx.Node | None:
        """What computes the tensor, or None if the trace does not know it."""
        slot = self._slots.get(tensor)
        return None if slot is None else slot.node

    def bind(self, tensor: torch.Tensor, node: torch.fx.Node) -> None:
        """``node`` computes ``tensor`` from now on."""
        slot = self._slots.get(tensor)
        if slot is not None:
            slot.node = node
            return
        self._slots[tensor] = Slot(node)
        key = memory_of(tensor)
        if key is not None and key not in self._outside:
            self._traced.setdefault(key, StorageWeakRef(torch_private.storage_of(tensor)))

    # -- memory -----------------------------------------------------------------------------------

    def add_outside(self, tensor: torch.Tensor) -> None:
        """The memory of ``tensor`` is not the trace's: results that are views of it do not count.

        The caller keeps the tensor alive.
        """
        self._outside.add(memory_of(tensor))

    def shares_traced_memory(self, tensor: torch.Tensor) -> bool:
        """Whether an unknown tensor lies over memory of an input or of a result."""
        return memory_of(tensor) in self._traced

    def is_outside(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a real one that the trace did not make: its value stays."""
        if isinstance(tensor, FakeTensor) or torch_private.is_functorch_wrapper(tensor):
            return False
        key = memory_of(tensor)
        return key is not None and tensor not in self._slots and key not in self._traced

    # -- constants --------------------------------------------------------------------------------

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether the value follows from constants, and no operator wrote anything else there."""
        slot = self._slots.get(tensor)
        return slot is not None and slot.constant and memory_of(tensor) not in self._written

    def all_constant(self, args: Any, kwargs: Any) -> bool:
        """Whether there are tensors among the arguments, all constant, and no symbolic value."""
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [a for a in leaves if isinstance(a, torch.Tensor)]
        if any(isinstance(a, _SYMBOLIC) for a in leaves):
            return False
        return bool(tensors) and all(self.is_constant(t) for t in tensors)

    def mark_constant(self, result: Any) -> None:
        """A result follows from constants; only small ones are worth knowing."""
        for value in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(value, torch.Tensor) and value.numel() <= CONSTANT_NUMEL_LIMIT:
                self._slots[value].constant = True

    def note_write(self, tensor: torch.Tensor) -> None:
        """Something that is not constant was written to the memory of ``tensor``."""
        key = memory_of(tensor)
        if key is not None:
            self._written.setdefault(key, StorageWeakRef(torch_private.storage_of(tensor)))


def unwraps_itself(cls: type) -> bool:
    """Whether tensors of the class answer operators themselves."""
    handler = getattr(cls, "__torch_dispatch__", None)
    return handler is not torch.Tensor.__torch_dispatch__


def memory_of(tensor: torch.Tensor) -> int | None:
    """The identity of a real tensor's storage; None for tensors without one."""
    if type(tensor) is FakeTensor or unwraps_itself(type(tensor)):
        return None
    if tensor.layout is not torch.strided or tensor.is_nested:
        return None
    return int(torch_private.storage_of(tensor)._cdata)
