"""What a way leaves behind, as operands: variables, expressions and returned values.

Tensors and integers are results of the operator as they are; floats and bools as tensors without
dims, from which they are read afterwards. Everything else must be the same on all ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe.export.converting.refusals import kind, refusal, shown
from stillframe.frames.frame import NULL, Frame
from stillframe.shapes.env import to_size

scalar_tensor = torch.ops.aten.scalar_tensor.default

#: Values that are the same if they are equal and of one type.
_COMPARED = (str, bytes, complex, type(None), torch.device, torch.Size, range, slice, frozenset)


@dataclass
class Packed:
    """Named values, taken apart.

    Attributes:
        names: what each value is called: ``"the variable y"``.
        specs: the structure of each.
        leaves: all leaves, and of each the index of its value in ``owners``.
    """

    names: list[str] = field(default_factory=list)
    specs: list[pytree.TreeSpec] = field(default_factory=list)
    leaves: list[Any] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    @staticmethod
    def of(values: dict[str, Any], frame: Frame, is_outside: Callable[[Any], bool]) -> Packed:
        """Take values apart. Containers from outside stay whole: who else holds them sees them.

        Raises:
            ConversionError: two values hold one container, which would become two.
        """
        packed = Packed()
        seen: dict[int, str] = {}
        for name, value in values.items():

            def is_leaf(node: Any, name: str = name) -> bool:
                if isinstance(node, tuple) or kind(node) != "constant":
                    return False
                if is_outside(node):
                    return True
                if type(node) in pytree.SUPPORTED_NODES:
                    _once(node, name, seen, frame)
                return False

            leaves, spec = pytree.tree_flatten(value, is_leaf=is_leaf)
            packed.owners += [len(packed.names)] * len(leaves)
            packed.names.append(name)
            packed.specs.append(spec)
            packed.leaves += leaves
        return packed

    def operands(self) -> list[Any]:
        """The leaves that an operator takes and gives."""
        return [_OPERANDS[k](leaf) for leaf in self.leaves if (k := kind(leaf)) in _OPERANDS]

    def places(self) -> list[int]:
        """Of each operand, which leaf it is."""
        return [i for i, leaf in enumerate(self.leaves) if kind(leaf) in _OPERANDS]

    def name_of(self, leaf: int) -> str:
        """What the value of a leaf is called."""
        return self.names[self.owners[leaf]]

    def filled(self, operands: Sequence[Any], other: Packed | None = None) -> dict[str, Any]:
        """The values with other operands in place of their own: tensors as they are, floats and
        bools read from their tensors.

        Args:
            other: what another way left; leaves that are the same there stay what they are.
        """
        leaves = list(self.leaves)
        for place, operand in zip(self.places(), operands, strict=True):
            own = leaves[place]
            if other is None or not is_same(own, other.leaves[place]):
                leaves[place] = _read(kind(own), operand)
        values: dict[str, Any] = {}
        taken = 0
        for name, spec in zip(self.names, self.specs, strict=True):
            values[name] = pytree.tree_unflatten(leaves[taken : taken + spec.num_leaves], spec)
            taken += spec.num_leaves
        return values


def _once(node: Any, name: str, seen: dict[int, str], frame: Frame) -> None:
    if id(node) in seen:
        raise refusal(
            frame, "one container", f"{seen[id(node)]} and {name} hold one {type(node).__name__} "
            "that was made on a way of a branch on data (rule: one container).",
            why="behind the branch each would have a container of its own",
            hint="make it before the branch, or keep it in one variable",
        )  # fmt: skip
    seen[id(node)] = name


def _read(of_kind: str, operand: Any) -> Any:
    return operand.item() if of_kind in ("float", "bool") else operand


#: How a leaf of each kind is handed over.
_OPERANDS: dict[str, Callable[[Any], Any]] = {
    "tensor": lambda leaf: leaf,
    "int": lambda leaf: leaf,
    "float": lambda leaf: scalar_tensor(leaf, dtype=torch.float64),
    "bool": lambda leaf: scalar_tensor(leaf, dtype=torch.bool),
}


def agree(one: Packed, other: Packed, frame: Frame, sides: tuple[str, str], *, sizes: bool) -> None:
    """See that two ways leave values of the same kind.

    Args:
        sides: how the ways are called: ``("the condition holds", "it does not")``.
        sizes: tensors must have the same sizes, too.

    Raises:
        ConversionError: they do not; names the value and shows both.
    """
    for name, a, b in zip(one.names, one.specs, other.specs, strict=True):
        if a != b:
            values = _whole(one, name), _whole(other, name)
            raise _different(frame, "structure", name, values, sides)
    for i, (a, b) in enumerate(zip(one.leaves, other.leaves, strict=True)):
        rule = _difference(a, b, sizes)
        if rule:
            raise _different(frame, rule, one.name_of(i), (a, b), sides)


def _whole(packed: Packed, name: str) -> Any:
    index = packed.names.index(name)
    leaves = [v for v, owner in zip(packed.leaves, packed.owners, strict=True) if owner == index]
    return pytree.tree_unflatten(leaves, packed.specs[index])


def _difference(a: Any, b: Any, sizes: bool) -> str:
    """The rule that two leaves break; nothing if they go together."""
    if a is b:
        return ""
    if a is NULL or b is NULL:
        return "unassigned"
    if kind(a) != kind(b):
        return "kind"
    if kind(a) == "constant":
        return "" if is_same_constant(a, b) else "constant"
    if kind(a) != "tensor":
        return ""
    for rule, x, y in (("dtype", a.dtype, b.dtype), ("device", a.device, b.device),
                       ("rank", a.dim(), b.dim())):  # fmt: skip
        if x != y:
            return rule
    if sizes and not all(_is_known_equal(x, y) for x, y in zip(a.shape, b.shape, strict=True)):
        return "shape"
    return ""


def _is_known_equal(a: Any, b: Any) -> bool:
    return bool(to_size(a) == to_size(b))


def is_same_constant(a: Any, b: Any) -> bool:
    """Whether two values that are no operands can stand for each other."""
    return a is b or (type(a) is type(b) and isinstance(a, _COMPARED) and bool(a == b))


def is_same(a: Any, b: Any) -> bool:
    """Whether two operands are one tensor, or one plain number."""
    if isinstance(a, torch.Tensor):
        return a is b
    # by text: -0.0 equals 0.0
    return type(a) is type(b) and type(a) in (bool, int, float) and repr(a) == repr(b)


_WHY = {
    "structure": "what follows runs after either of them",
    "unassigned": "what follows may read it",
    "constant": "only tensors and numbers can be results of an operator",
}
_HINTS = {
    "unassigned": "assign it before, on every way",
    "kind": "make both tensors: torch.tensor(value)",
    "dtype": "convert one of them: x.to(dtype)",
    "device": "move one of them: x.to(device)",
    "rank": "make both have the same number of dims",
    "shape": "keep the sizes of what a loop changes; write into a tensor that was made before",
}


def _different(
    frame: Frame, rule: str, name: str, values: tuple[Any, Any], sides: tuple[str, str]
) -> Exception:
    a, b = map(shown, values)
    return refusal(
        frame,
        rule,
        f"Control flow on data cannot be converted: {name} is {a} {sides[0]}, and {b} {sides[1]} "
        f"(rule: {rule}).",
        why=_WHY.get(rule, "an operator has results of one kind"),
        hint=_HINTS.get(rule, "compute it before the branch, or choose with torch.where"),
    )
