"""What forward leaves on the module: ``self.attention = weights``, for a look later.

A program does not leave it. That is sound if no later call looks at it, and then it is only worth a
note. Whether one does is tried out: forward is captured once more in the state that it leaves
behind, with tensors in it that may not be touched. If the second capture gives the same program and
leaves the same behind, then so does every call after it.

Some looks need no touch. Whether there is a tensor, and of which class, Python may ask of the
stand-ins: they are plain tensors, as in a real call. Which object it is (``x is self.last``) they
do not tell, so what a later call could meet elsewhere is no leftover (:class:`Elsewhere`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.export.identity import origins
from stillframe.export.left_constants import Kept
from stillframe.export.state import Change
from stillframe.export.tensor_attributes import has_attributes
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.operators import Item

_CONSTANTS = (int, float, bool, str, type(None), torch.dtype, torch.device)
_CONTAINERS = (list, tuple, dict)


class Elsewhere:
    """The objects that a later call can meet otherwise than as an attribute that was left.

    Args:
        tensors: parameters, inputs, results and the like.
        trees: the arguments and the result; their containers count, not what else is in them.
        is_old: whether a container was there before the run.
    """

    def __init__(
        self, tensors: Iterable[FakeTensor], trees: Any, is_old: Callable[[Any], bool]
    ) -> None:
        self._is_old = is_old
        self._trees = trees  # so that identities stay
        self._met = {id(origin) for tensor in tensors for origin in origins(tensor)}
        self._met |= {id(part) for part in _parts(trees) if type(part) in _CONTAINERS}

    def has(self, value: Any) -> bool:
        """Whether ``value`` is one of them, or may be: some operators hand back what they got."""
        return self._is_old(value) or any(id(origin) in self._met for origin in origins(value))


def _parts(tree: Any) -> list[Any]:
    """All that is in a tree: leaves and containers."""
    found: list[Any] = []

    def keep(part: Any) -> bool:
        found.append(part)
        return False

    pytree.tree_flatten(tree, is_leaf=keep)
    return found


def is_left_behind(change: Change, elsewhere: Elsewhere) -> bool:
    """Whether an attribute now holds tensors that the run made and constants, and nothing else."""
    if change.kind not in ("attribute", "tensor attribute") or change.what == "was deleted":
        return False
    return _is_of_this_run(change.value, elsewhere)


def _is_of_this_run(value: Any, elsewhere: Elsewhere) -> bool:
    kind = type(value)
    if kind in _CONSTANTS:
        return True
    if kind is FakeTensor:
        return not (elsewhere.has(value) or has_attributes(value))
    if kind not in _CONTAINERS or elsewhere.has(value):
        return False
    if kind is dict and not all(type(key) in _CONSTANTS for key in value):
        return False
    return all(_is_of_this_run(item, elsewhere) for item in _items(value))


def _items(container: Any) -> list[Any]:
    return list(container.values() if type(container) is dict else container)


def note(change: Change) -> str:
    """The sentence about one attribute."""
    return f"forward sets self.{change.path}; the program does not, and no call looks at it"


def leave_again(left: Sequence[Change], kept: Sequence[Kept]) -> list[torch.Tensor]:
    """Put the modules into the state that a run left behind.

    Returns:
        The tensors in it that nobody may touch: all but the constants.
    """
    copies: dict[int, Any] = {id(constant.made): constant.stand_in for constant in kept}
    for change in left:
        assert change.owner is not None
        change.owner.__dict__[change.name] = _copy(change.value, copies)
    for constant in kept:
        del copies[id(constant.made)]
    return [copy for copy in copies.values() if isinstance(copy, torch.Tensor)]


def _copy(value: Any, copies: dict[int, Any]) -> Any:
    """A value with other tensors and containers in it; what was one object stays one."""
    if type(value) in _CONSTANTS:
        return value
    if id(value) not in copies:
        if isinstance(value, torch.Tensor):
            copy: Any = torch.empty(0)
        elif type(value) is dict:
            copy = {key: _copy(item, copies) for key, item in value.items()}
        else:
            copy = type(value)(_copy(item, copies) for item in value)
        copies[id(value)] = copy
    return copies[id(value)]


def leave_the_same(first: Iterable[Change], second: Iterable[Change]) -> bool:
    """Whether two runs left the same behind: equal constants, tensors from the same nodes."""
    return _description(first) == _description(second)


def _description(left: Iterable[Change]) -> list[Any]:
    """What was left, in values that can be compared; what is one object has one number."""
    numbers: dict[int, int] = {}
    return [(c.path, c.name, _described(c.value, numbers)) for c in _in_order(left)]


def _in_order(left: Iterable[Change]) -> list[Change]:
    return sorted(left, key=lambda change: (change.path, change.name))


def _described(value: Any, numbers: dict[int, int]) -> Any:
    kind = type(value)
    if kind in _CONSTANTS:
        return kind, repr(value)  # repr tells 0.0 from -0.0
    if id(value) in numbers:
        return "again", numbers[id(value)]
    number = numbers[id(value)] = len(numbers)
    if kind is FakeTensor:
        return number, _made_by(value)
    keys = [(type(key), repr(key)) for key in value] if kind is dict else None
    return number, kind, keys, [_described(item, numbers) for item in _items(value)]


def _made_by(tensor: FakeTensor) -> Any:
    node = tensor.fx_node
    if isinstance(node, Item):
        return str(node.node), node.path
    return object() if node is None else str(node)


def are_the_same(program: Any, other: Any) -> bool:
    """Whether two captures of one module are the same program."""
    return (
        _text(program) == _text(other)
        and program.graph_signature == other.graph_signature
        and program.out_spec == other.out_spec
        and [str(g) for g in program.guards] == [str(g) for g in other.guards]
        and [str(a) for a in program.assumptions] == [str(a) for a in other.assumptions]
        and program.constants.keys() == other.constants.keys()
        and all(_same_constant(v, other.constants[k]) for k, v in program.constants.items())
    )


def _text(program: Any) -> list[str]:
    graphs = program.graph_module.modules()
    return [str(g.graph) for g in graphs if isinstance(g, torch.fx.GraphModule)]


def _same_constant(a: Any, b: Any) -> bool:
    if a is b or not isinstance(a, torch.Tensor):
        return a is b
    return bool(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b))
