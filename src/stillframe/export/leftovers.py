"""Results that forward leaves on the module: ``self.attention = weights``, for a look later.

A program does not leave them. That is sound if no later call looks at them, and then it is only
worth a note. Whether one does is tried out: forward is captured once more in the state that it
leaves behind, with every tensor in it replaced by one that may not be touched. If the second
capture gives the same program and leaves the same behind, then so does every call after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import NotSupported
from stillframe.export.holdings import same
from stillframe.export.state import Change, Modules
from stillframe.fake.tensor import FakeTensor

_CONSTANTS = (int, float, bool, str, type(None))


class Stale(torch.Tensor):
    """In place of a tensor that an earlier call left behind: nobody may look at it."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Refuse.

        Raises:
            NotSupported: always.
        """
        raise NotSupported("forward looks at a tensor that an earlier call left on the module.")


def is_left_behind(change: Change) -> bool:
    """Whether an attribute now holds tensors of this run and constants, and nothing else."""
    if change.kind not in ("attribute", "tensor attribute") or change.what == "was deleted":
        return False
    leaves = pytree.tree_leaves(change.value)
    return all(isinstance(leaf, (FakeTensor, Stale)) or type(leaf) in _CONSTANTS for leaf in leaves)


def note(change: Change) -> str:
    """The sentence about one attribute."""
    return f"forward sets self.{change.path}; the program does not, and no call looks at it"


def set_stale(modules: Modules, left: Sequence[Change]) -> None:
    """Put the modules into the state that a run left behind."""
    by_path = dict(modules)
    for change in left:
        path, _, name = change.path.rpartition(".")
        module = by_path[path]
        module.__dict__[name] = pytree.tree_map_only(torch.Tensor, _stale, change.value)


def _stale(tensor: torch.Tensor) -> Stale:
    return torch.Tensor._make_subclass(Stale, torch.empty(0))


def leave_the_same(first: Sequence[Change], second: Sequence[Change]) -> bool:
    """Whether two runs left the same behind: equal constants, tensors from the same nodes."""
    return {c.path: _Left(c.value) for c in first} == {c.path: _Left(c.value) for c in second}


class _Left:
    """A value for comparison with one of another run."""

    def __init__(self, value: Any) -> None:
        self.leaves, self.spec = pytree.tree_flatten(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Left) or self.spec != other.spec:
            return False
        return all(map(_same_leaf, self.leaves, other.leaves))

    __hash__ = None  # type: ignore[assignment]


def _same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, FakeTensor) and isinstance(b, FakeTensor):
        return a.fx_node is not None and str(a.fx_node) == str(b.fx_node)
    return type(a) in _CONSTANTS and type(a) is type(b) and same(a, b)


def are_the_same(program: Any, other: Any) -> bool:
    """Whether two captures of one module are the same program."""
    return (
        _text(program) == _text(other)
        and program.graph_signature == other.graph_signature
        and program.out_spec == other.out_spec
        and [str(g) for g in program.guards] == [str(g) for g in other.guards]
        and [str(a) for a in program.assumptions] == [str(a) for a in other.assumptions]
        and program.constants.keys() == other.constants.keys()
        and all(_same_tensor(v, other.constants[k]) for k, v in program.constants.items())
    )


def _text(program: Any) -> list[str]:
    graphs = program.graph_module.modules()
    return [str(g.graph) for g in graphs if isinstance(g, torch.fx.GraphModule)]


def _same_tensor(a: Any, b: Any) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b))
