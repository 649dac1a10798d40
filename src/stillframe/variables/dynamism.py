"""Which sizes of an input vary: what the user marked, and what varied between compilations.

A size that was seen with one value is static by default; when the frame is captured again because
it had another one, it becomes a symbol. What was seen is in a :class:`FrameState`, which lives as
long as the frame's code.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from stillframe.guards.kinds.tensors import dim_marks
from stillframe.shapes.env import to_size
from stillframe.source import AttrSource, Source
from stillframe.symbolic import Expr, Range

if TYPE_CHECKING:
    from stillframe.variables.options import Options


class DimDynamic(enum.Enum):
    """What becomes of a size.

    DYNAMIC: a symbol of its own. DUCK: a symbol that equal sizes share. STATIC: a number.
    SIZE_LIKE_UNBACKED: a size of which nothing is known, as if the data told it.
    """

    DYNAMIC = 0
    DUCK = 1
    STATIC = 2
    SIZE_LIKE_UNBACKED = 3


@dataclass(frozen=True)
class StrictMinMaxConstraint:
    """No guard may narrow the range of the size.

    Attributes:
        warn_only: one that does is a warning and no error.
    """

    range: Range
    warn_only: bool = False


@dataclass(frozen=True)
class RelaxedUnspecConstraint:
    """Guards may narrow the size, but not to one number.

    Attributes:
        warn_only: one that does is a warning and no error.
    """

    warn_only: bool = False


Constraint = StrictMinMaxConstraint | RelaxedUnspecConstraint | None


@dataclass(frozen=True)
class StatelessSymbolicContext:
    """How the sizes of one tensor are made symbols.

    Attributes:
        dynamic_sizes: what becomes of each size.
        constraint_sizes: what guards may do to each.
        view_base_context: of the tensor that this one is a view of.
    """

    dynamic_sizes: tuple[DimDynamic, ...]
    constraint_sizes: tuple[Constraint, ...]
    view_base_context: StatelessSymbolicContext | None = None


@dataclass(frozen=True)
class StatefulSymbolicContext(StatelessSymbolicContext):
    """One that remembers the symbols it gave, so that a restart gives them again.

    Attributes:
        tensor_source: where the tensor is read.
        symbols: source name of a size -> the symbol that it got.
    """

    tensor_source: Source | None = None
    symbols: dict[str, Expr] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class SubclassSymbolicContext(StatefulSymbolicContext):
    """Of a wrapper subclass: also that of each inner tensor, by attribute."""

    inner_contexts: dict[str, StatelessSymbolicContext] = field(default_factory=dict, compare=False)


# -- what was seen ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameStateSizeEntry:
    """What a place held in all compilations so far.

    Attributes:
        scalar: the number, None if it varied or is none.
        size: the sizes, with None for those that varied; None as a whole if the rank varied.
    """

    scalar: int | None
    size: tuple[int | None, ...] | None


class FrameState:
    """What the places of one frame have held, by the name of the source."""

    def __init__(self) -> None:
        self.entries: dict[str, FrameStateSizeEntry] = {}

    def see_sizes(self, name: str, sizes: Sequence[int]) -> FrameStateSizeEntry:
        """A tensor of these sizes is at a place; what is known of it now."""
        known = self.entries.get(name)
        if known is None:
            entry = FrameStateSizeEntry(None, tuple(sizes))
        elif known.size is None or len(known.size) != len(sizes):
            entry = FrameStateSizeEntry(None, None)
        else:
            pairs = zip(known.size, sizes, strict=True)
            entry = FrameStateSizeEntry(
                None, tuple(old if old == now else None for old, now in pairs)
            )
        self.entries[name] = entry
        return entry

    def see_number(self, name: str, number: int) -> FrameStateSizeEntry:
        """An integer is at a place."""
        known = self.entries.get(name)
        same = known is None or known.scalar == number
        entry = self.entries[name] = FrameStateSizeEntry(number if same else None, None)
        return entry

    def forget_size(self, name: str, dim: int) -> None:
        """The user says that a size varies."""
        known = self.entries[name]
        if known.size is not None:
            sizes = tuple(None if i == dim else s for i, s in enumerate(known.size))
            self.entries[name] = FrameStateSizeEntry(known.scalar, sizes)


# -- deciding --------------------------------------------------------------------------------------


def is_always_static(value: Any, from_module: bool, options: Options) -> bool:
    """Whether the sizes of a value are numbers, whatever was seen or marked."""
    if not isinstance(value, torch.Tensor):
        return True
    if from_module and options.force_nn_module_property_static_shapes:
        return True
    return isinstance(value, torch.nn.Parameter) and options.force_parameter_static_shapes


def symbolic_context(
    tensor: torch.Tensor, source: Source, state: FrameState, options: Options, static: bool
) -> StatelessSymbolicContext:
    """How the sizes of an input are made symbols.

    Args:
        tensor: the example.
        source: where it is read.
        state: what was seen there; it sees this tensor now.
        static: all sizes are numbers.
    """
    base = tensor._base
    view_base = None
    if base is not None:
        view_base = symbolic_context(base, AttrSource(source, "_base"), state, options, static)
    rank = tensor.dim()
    if static:
        return _context(source, (DimDynamic.STATIC,) * rank, (None,) * rank, view_base)
    sizes = [to_size(size) for size in tensor.shape]
    if any(type(size) is not int for size in sizes):
        kept = tuple(
            DimDynamic.STATIC if type(size) is int else DimDynamic.DYNAMIC for size in sizes
        )
        return _context(source, kept, (None,) * rank, view_base)
    entry = state.see_sizes(source.name(), sizes)
    marks = dim_marks(tensor)
    decided = [_decide(dim, entry, marks, tensor, options) for dim in range(rank)]
    for dim, (dynamism, _) in enumerate(decided):
        if dynamism is DimDynamic.DYNAMIC and ("_dynamo_dynamic_indices", dim) in marks:
            state.forget_size(source.name(), dim)
    dynamic, constraints = zip(*decided, strict=True) if decided else ((), ())
    return _context(source, dynamic, constraints, view_base)


def _context(
    source: Source,
    dynamic: tuple[DimDynamic, ...],
    constraints: tuple[Constraint, ...],
    view_base: StatelessSymbolicContext | None,
) -> StatefulSymbolicContext:
    return StatefulSymbolicContext(dynamic, constraints, view_base, source)


def _decide(
    dim: int,
    entry: FrameStateSizeEntry,
    marks: frozenset[tuple[str, int]],
    tensor: torch.Tensor,
    options: Options,
) -> tuple[DimDynamic, Constraint]:
    """What becomes of one size, and what guards may do to it."""
    unbacked = ("_dynamo_unbacked_indices", dim) in marks
    dynamic = ("_dynamo_dynamic_indices", dim) in marks
    weak = ("_dynamo_weak_dynamic_indices", dim) in marks
    static = ("_dynamo_static_indices", dim) in marks
    varied = entry.size is None or entry.size[dim] is None
    automatic = options.automatic_dynamic_shapes and varied
    constraint: Constraint = None
    if dynamic and not options.allow_ignore_mark_dynamic:
        constraint = _promised(dim, tensor)
    elif automatic and not static:
        constraint = RelaxedUnspecConstraint(warn_only=True)
    if unbacked:
        return DimDynamic.SIZE_LIKE_UNBACKED, constraint
    if constraint is not None or dynamic or weak:
        return DimDynamic.DYNAMIC, constraint
    if static or options.assume_static_by_default:
        return DimDynamic.STATIC, None
    return DimDynamic.DUCK, None


def _promised(dim: int, tensor: torch.Tensor) -> Constraint:
    """What a mark that a dim is dynamic says, with its range if it has one."""
    for found in getattr(tensor, "_dynamo_dynamic_range", ()):
        if found.dim == dim and (found.min is not None or found.max is not None):
            lower = 0 if found.min is None else found.min
            upper = math.inf if found.max is None else found.max
            return StrictMinMaxConstraint(Range(lower, upper))
    return RelaxedUnspecConstraint()
