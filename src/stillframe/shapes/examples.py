"""Do the example sizes fit the declared dims, and do the declared dims fit each other?

Every declared dim is an equation ``size == scale*root + offset``. Each example size must solve to a
root inside the root's range, all occurrences of a root must solve to the same value, and one name
must have one range. This is arithmetic on the examples only: it decides nothing about the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillframe.errors import InvalidInput
from stillframe.shapes.dimension import DerivedDim, Dim, DimSpec

if TYPE_CHECKING:
    from stillframe.shapes.spec import LeafSpec


@dataclass(frozen=True)
class _Occurrence:
    """A place where a root was met: which, declared how, and the root's size there."""

    place: str
    root: Dim
    declared: Dim | DerivedDim
    size: int
    root_size: int


def check_examples(leaves: Iterable[LeafSpec]) -> None:
    """Check the declared dims and numbers of every input.

    Raises:
        InvalidInput: a size outside its dim's range or not of the derived form, two sizes or two
            ranges for one name (naming both places), or a static size that is not the example's.
    """
    roots: dict[str, _Occurrence] = {}
    for place, declared, size in _declared(leaves):
        if isinstance(declared, int):
            _check_int(place, declared, size)
        elif isinstance(declared, (Dim, DerivedDim)):
            found = _occurrence(place, declared, size)
            _check_same(roots.setdefault(found.root.__name__, found), found)


def _declared(leaves: Iterable[LeafSpec]) -> Iterator[tuple[str, DimSpec, int]]:
    for leaf in leaves:
        for dim, declared in (leaf.dims or {}).items():
            yield f"{leaf.path}.size({dim})", declared, leaf.leaf.shape[dim]
        if leaf.number is not None:
            yield leaf.path, leaf.number, leaf.leaf


def _check_int(place: str, declared: int, size: int) -> None:
    if declared != size:
        raise InvalidInput(
            f"dynamic_shapes: {place} is declared as the constant {declared}, and the example has "
            f"{size}.",
            hints=[f"write {size} or None to keep it static, or a Dim to let it vary"],
        )


def _occurrence(place: str, declared: Dim | DerivedDim, size: int) -> _Occurrence:
    if isinstance(declared, Dim):
        if not declared.admits(size):
            raise InvalidInput(
                f"dynamic_shapes: {place} is {size} in the example, outside the range of "
                f"{declared!r}.",
                why=f"{declared} is {_range(declared)}",
                hints=["widen the range, or use an example inside it"],
            )
        return _Occurrence(place, declared, declared, size, size)
    root = declared.root
    if declared.min < 0:
        least = -(declared.offset // declared.scale)
        raise InvalidInput(
            f"dynamic_shapes: {place} is declared as {declared}, which is negative for "
            f"{root} = {root.min}.",
            hints=[f"Dim({root.__name__!r}, min={least}, ...)"],
        )
    root_size = declared.root_size(size)
    if root_size is None:
        raise InvalidInput(
            f"dynamic_shapes: {place} is {size} in the example, which is not of the form "
            f"{declared}.",
            why=f"no integer {root} gives {size}",
        )
    if not root.admits(root_size):
        raise InvalidInput(
            f"dynamic_shapes: {place} is {size} in the example, so {declared} needs "
            f"{root} = {root_size}, outside the range of {root!r}.",
            why=f"{root} is {_range(root)}",
            hints=["widen the range, or use an example inside it"],
        )
    return _Occurrence(place, root, declared, size, root_size)


def _check_same(first: _Occurrence, found: _Occurrence) -> None:
    name = found.root.__name__
    if first.root.limits != found.root.limits:
        raise InvalidInput(
            f"dynamic_shapes: the dim {name!r} has two ranges: {first.root!r} for {first.place}, "
            f"{found.root!r} for {found.place}.",
            why="one name is one size everywhere",
            hints=[f"make one Dim({name!r}, ...) and use it in both, or give them two names"],
        )
    if first.root_size != found.root_size:
        raise InvalidInput(
            f"dynamic_shapes: the dim {name!r} has two sizes in the example: {_says(first)}; "
            f"{_says(found)}.",
            why="one name is one size everywhere",
            hints=["give them two names, or use examples of equal size"],
        )


def _says(at: _Occurrence) -> str:
    if isinstance(at.declared, Dim):
        return f"{at.size} at {at.place}"
    return f"{at.root_size} at {at.place} ({at.declared} = {at.size})"


def _range(dim: Dim) -> str:
    if dim.values:
        return f"one of {', '.join(map(str, dim.values))}"
    return f"{dim.min} or more" if dim.max is None else f"{dim.min} to {dim.max}"
