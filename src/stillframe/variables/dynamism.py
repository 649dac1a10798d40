"""Which sizes of an input vary: what the user marked, and what varied between compilations.

A size that was seen with one value is static by default; when the frame is captured again because
it had another one, it becomes a symbol. What was seen is in a :class:`FrameState`, which lives as
long as the frame's code.
"""

from __future__ import annotations

import enum
import logging
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from stillframe.errors import NotSupported
from stillframe.guards.kinds.tensors import dim_marks
from stillframe.shapes.env import ShapeEnv
from stillframe.shapes.node import SymNode
from stillframe.source import AttrSource, Source, TensorProperty, TensorPropertySource
from stillframe.symbolic import Expr, Range

if TYPE_CHECKING:
    from stillframe.variables.options import Options

logger = logging.getLogger(__name__)


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
class ExportConstraint:
    """What an exported program promises of a size.

    Attributes:
        tensor: whose size, held weakly.
        dim: which.
        range: no guard may narrow it.
        warn_only: one that does is a warning and no error.
        debug_name: what the user calls the size.
        shared: another size that is the same: the tensor, held weakly, and the dim.
    """

    tensor: weakref.ref[torch.Tensor]
    dim: int
    range: Range
    warn_only: bool = False
    debug_name: str | None = None
    shared: tuple[weakref.ref[torch.Tensor], int] | None = None

    def dims_of(self, tensor: torch.Tensor) -> list[int]:
        """The dims of a tensor that this is about."""
        pairs = [(self.tensor, self.dim), *([] if self.shared is None else [self.shared])]
        return [dim for reference, dim in pairs if reference() is tensor]


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
        symbols: environment -> source name of a size -> what it became there.
    """

    tensor_source: Source | None = None
    symbols: dict[ShapeEnv, dict[str, int | Expr]] = field(default_factory=dict, compare=False)


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

    def see_sizes(self, name: str, sizes: Sequence[int | None]) -> FrameStateSizeEntry:
        """A tensor of these sizes is at a place; what is known of it now. None: no number."""
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
        if known is not None and entry != known:
            logger.info("%s: sizes %s after %s", name, tuple(sizes), known.size)
        self.entries[name] = entry
        return entry

    def see_number(self, name: str, number: int) -> FrameStateSizeEntry:
        """An integer is at a place."""
        known = self.entries.get(name)
        same = known is None or known.scalar == number
        if not same:
            logger.info("%s: %s after %s", name, number, known and known.scalar)
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
    tensor: torch.Tensor,
    source: Source,
    state: FrameState,
    options: Options,
    static: bool,
    dim_names: dict[str, str] | None = None,
    outer_only: bool = False,
) -> StatefulSymbolicContext:
    """How the sizes of an input are made symbols.

    Args:
        tensor: the example.
        source: where it is read.
        state: what was seen there; it sees this tensor now.
        static: all sizes are numbers.
        dim_names: gets the user's names of dims, by the name of the size's source.
        outer_only: of a wrapper subclass: nothing about its inner tensors.

    Raises:
        NotSupported: a nested tensor of the strided layout.
    """
    if tensor.is_nested and tensor.layout is torch.strided:
        raise NotSupported("Rows of a nested tensor may have any sizes.", hints=["layout=jagged"])
    if is_wrapper_subclass(tensor) and not outer_only:
        return _subclass_context(tensor, source, state, options, static, dim_names)
    view_base = None
    if tensor._is_view() and tensor._base is not None:
        place = AttrSource(source, "_base")
        view_base = symbolic_context(tensor._base, place, state, options, static)
    rank = tensor.dim()
    if static:
        dynamic, constraints = (DimDynamic.STATIC,) * rank, (None,) * rank
        return StatefulSymbolicContext(dynamic, constraints, view_base, source)
    decided = _decide_all(tensor, source, state, options, {} if dim_names is None else dim_names)
    return StatefulSymbolicContext(
        tuple(how for how, _ in decided), tuple(c for _, c in decided), view_base, source
    )


def is_wrapper_subclass(tensor: torch.Tensor) -> bool:
    """Whether a tensor is made of others and says how."""
    cls = type(tensor)
    return hasattr(cls, "__tensor_flatten__") and hasattr(cls, "__tensor_unflatten__")


def _subclass_context(
    tensor: torch.Tensor,
    source: Source,
    state: FrameState,
    options: Options,
    static: bool,
    dim_names: dict[str, str] | None,
) -> SubclassSymbolicContext:
    outer = symbolic_context(tensor, source, state, options, static, dim_names, outer_only=True)
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = {
        name: symbolic_context(
            getattr(tensor, name), AttrSource(source, name), state, options, static, dim_names
        )
        for name in names
    }
    return SubclassSymbolicContext(
        outer.dynamic_sizes, outer.constraint_sizes, outer.view_base_context, source,
        inner_contexts=dict(inner),
    )  # fmt: skip


def is_nested_int(size: Any) -> bool:
    """Whether a size is that of rows of any length: equal to itself only, and never a number."""
    return isinstance(size, torch.SymInt) and bool(size.node.is_nested_int())


def hint_of_size(tensor: torch.Tensor, dim: int) -> int | None:
    """A size of the example; None if even that is not known."""
    size: Any = tensor.shape[dim]
    if type(size) is int:
        return size
    node = size.node
    if isinstance(node, SymNode):
        hint = node.env.hint_of(node.expr)
        return None if hint is None else int(hint)
    return int(node.require_hint()) if node.has_hint() else None


def _decide_all(
    tensor: torch.Tensor,
    source: Source,
    state: FrameState,
    options: Options,
    dim_names: dict[str, str],
) -> list[tuple[DimDynamic, Constraint]]:
    sizes: list[Any] = list(tensor.shape)
    if any(type(size) is not int and not is_nested_int(size) for size in sizes):
        return [
            (DimDynamic.STATIC if type(size) is int else DimDynamic.DYNAMIC, None) for size in sizes
        ]
    state.see_sizes(source.name(), [None if is_nested_int(size) else size for size in sizes])
    marks = dim_marks(tensor)
    for dim in range(len(sizes)):
        if ("_dynamo_dynamic_indices", dim) in marks:
            state.forget_size(source.name(), dim)
    entry = state.entries[source.name()]
    exported = _exported(tensor, source, options, dim_names)
    return [
        _decide(dim, entry, marks, tensor, options, exported.get(dim)) for dim in range(len(sizes))
    ]


def _exported(
    tensor: torch.Tensor, source: Source, options: Options, dim_names: dict[str, str]
) -> dict[int, StrictMinMaxConstraint]:
    """What the constraints of an export say of the sizes of one tensor."""
    found: dict[int, StrictMinMaxConstraint] = {}
    for constraint in options.constraints:
        for dim in constraint.dims_of(tensor):
            new = StrictMinMaxConstraint(constraint.range, constraint.warn_only)
            found[dim] = _both(found[dim], new) if dim in found else new
            if constraint.debug_name is not None:
                name = TensorPropertySource(source, TensorProperty.SIZE, dim).name()
                dim_names.setdefault(name, constraint.debug_name)
    return found


def _both(one: StrictMinMaxConstraint, other: StrictMinMaxConstraint) -> StrictMinMaxConstraint:
    bounds = Range(max(one.range.lower, other.range.lower), min(one.range.upper, other.range.upper))
    return StrictMinMaxConstraint(bounds, one.warn_only and other.warn_only)


def _decide(
    dim: int,
    entry: FrameStateSizeEntry,
    marks: frozenset[tuple[str, int]],
    tensor: torch.Tensor,
    options: Options,
    exported: StrictMinMaxConstraint | None,
) -> tuple[DimDynamic, Constraint]:
    """What becomes of one size, and what guards may do to it."""
    unbacked = not marks.isdisjoint(
        {("_dynamo_unbacked_indices", dim), ("_dynamo_strict_unbacked_indices", dim)}
    )
    dynamic = ("_dynamo_dynamic_indices", dim) in marks
    weak = ("_dynamo_weak_dynamic_indices", dim) in marks
    static = ("_dynamo_static_indices", dim) in marks
    nested = is_nested_int(tensor.shape[dim])
    varied = entry.size is None or entry.size[dim] is None
    automatic = options.automatic_dynamic_shapes and varied and not nested
    constraint: Constraint = exported
    if constraint is None and dynamic and not options.allow_ignore_mark_dynamic:
        constraint = _promised(dim, tensor)
    elif constraint is None and automatic and not static:
        constraint = RelaxedUnspecConstraint(warn_only=True)
    if unbacked:
        return DimDynamic.SIZE_LIKE_UNBACKED, constraint
    if constraint is not None or dynamic or weak or nested:
        return DimDynamic.DYNAMIC, constraint
    if static or options.assume_static_by_default:
        return DimDynamic.STATIC, None
    return DimDynamic.DUCK, None


def _promised(dim: int, tensor: torch.Tensor) -> Constraint:
    """What a mark that a dim is dynamic says, with its range if it has one."""
    for found in getattr(tensor, "_dynamo_dynamic_range", ()):
        if found.dim == dim and (found.min is not None or found.max is not None):
            # what is not said of 0 and 1 is as for any other size
            lower = min(tensor.shape[dim], 2) if found.min is None else found.min
            upper = math.inf if found.max is None else found.max
            return StrictMinMaxConstraint(Range(lower, upper))
    return RelaxedUnspecConstraint()
