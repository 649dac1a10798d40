"""Example inputs to fakes: one symbol for each declared dim, one fake for each tensor leaf.

Every declared dim is a symbol of its own with the declared range; dims of one name are one symbol,
and a derived dim ``k*d + c`` is that expression of its root's symbol. So nothing is left to be
proved equal afterwards. Ints and floats that vary are symbols too.

The example's sizes are only hints: they say which way a question went that the facts leave open. A
size of 0 or 1 says little about the others, so a dim whose example has one gets another hint that
its range admits (``moved``); dims with the same example size get the same hint. Nothing is lost by
it: every guard is checked against the example afterwards.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InvalidInput, NotSupported
from stillframe.fake import sparse
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.dims import DerivedDim, Dim, DimHint, DimSpec, LeafSpec, Relation
from stillframe.shapes.env import Guard, ShapeEnv, Size
from stillframe.symbolic import (
    Contradiction,
    Expr,
    Range,
    evaluate,
    parse,
    substitute,
    symbol,
    unwrap,
)

FULL, NONNEGATIVE = Range(), Range(0, math.inf)
_CONSTANTS = (int, float, bool, str, type(None))


@dataclass(frozen=True)
class Place:
    """One size, or one varying number, of the inputs.

    Attributes:
        leaf: index of the leaf.
        dim: which dim of the tensor; None for a number.
        path: how a person names the leaf.
        declared: what the user wrote for it; None for static.
        size: what it is in the capture.
        example: what it is in the example.
    """

    leaf: int
    dim: int | None
    path: str
    declared: DimSpec
    size: Size
    example: float

    def __str__(self) -> str:
        return self.path if self.dim is None else f"{self.path}.size({self.dim})"


@dataclass
class FakeInputs:
    """The leaves of ``(args, kwargs)`` as the capture runs on them.

    Attributes:
        leaves: fakes for tensors, symbolic numbers, the very objects for constants.
        places: every size and varying number, in order.
        dim_names: symbol name -> the user's name of the dim.
        derived: (symbol, size, scale, offset) for dims declared as ``scale*d + offset``.
        moved: the unknowns whose hint is not the example's size.
    """

    leaves: list[Any] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    dim_names: dict[str, str] = field(default_factory=dict)
    derived: list[tuple[Expr, Expr, int, int]] = field(default_factory=list)
    moved: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Unknown:
    """What becomes one symbol: a named dim, or a dim or number with a hint.

    The key is the dim's name, or the place of the hint.
    """

    key: str
    name: str
    example: float
    dim: Dim | None
    policy: str
    source: str
    range: Range


class InputMaker:
    """Makes the fake inputs of one capture.

    Args:
        env: gets the symbols.
        specs: one for each leaf, in flatten order.
        assume: relations between the declared dims.
        moved: keys of the unknowns that may get another hint than their example; None for all.

    Raises:
        InvalidInput: a leaf that is neither a tensor nor a plain constant, by its path; a relation
            that does not fit the dims or the example.
    """

    def __init__(
        self,
        env: ShapeEnv,
        specs: Sequence[LeafSpec],
        assume: Sequence[Relation] = (),
        moved: frozenset[str] | None = None,
    ) -> None:
        _refuse_unusual_tensors(specs)
        self.env = env
        self.specs = specs
        self.unknowns = _unknowns(specs)
        relations = _checked(assume, self.unknowns)
        hints = _hints(self.unknowns, _static_sizes(specs), moved, relations)
        self.inputs = FakeInputs(
            moved=tuple(k for k, hint in hints.items() if hint != self.unknowns[k].example)
        )
        self.symbols = {k: self._symbol(u, hints[k]) for k, u in self.unknowns.items()}
        self._assume(relations)

    def make(self) -> FakeInputs:
        """Fakes for all leaves."""
        for index, spec in enumerate(self.specs):
            leaf = spec.leaf
            if isinstance(leaf, torch.Tensor):
                made: Any = self._fake_tensor(index, spec)
            elif spec.number is not None:
                made = self._number(index, spec)
            elif torch_private.is_script_object(leaf):
                made = leaf
            elif isinstance(leaf, (*_CONSTANTS, torch.dtype, torch.device, torch.layout)):
                made = leaf
            else:
                raise InvalidInput(
                    f"{spec.path}: an input of type "
                    f"{type(leaf).__module__}.{type(leaf).__qualname__} cannot be captured.",
                    why="inputs are tensors, None, numbers, strings, and containers of these",
                    hints=[
                        "register its class as a container: "
                        "torch.utils._pytree.register_pytree_node"
                    ],
                )
            self.inputs.leaves.append(made)
        return self.inputs

    def _symbol(self, unknown: _Unknown, hint: float) -> Expr:
        made = self.env.new_symbol(
            unknown.name,
            hint,
            unknown.range,
            policy=unknown.policy,
            source=unknown.source,
            example=unknown.example,
            values=unknown.dim.values if unknown.dim is not None else (),
        )
        self.inputs.dim_names[str(made)] = unknown.name
        return made

    def _assume(self, relations: Iterable[Expr]) -> None:
        """Relations and sets of sizes are facts, and conditions of every call."""
        sets = [u.dim.membership() for u in self.unknowns.values() if u.dim is not None]
        for kind, conditions in (("declared", sets), ("assumed", relations)):
            for condition in conditions:
                if condition is not None:
                    expr = substitute(condition, _by_symbol(self.symbols, condition))
                    try:
                        self.env.suppose(Guard(expr, kind=kind))
                    except Contradiction:
                        raise InvalidInput(
                            f"assume: `{condition}` contradicts the ranges of the dims and what "
                            "else is assumed."
                        ) from None

    def _fake_tensor(self, index: int, spec: LeafSpec) -> FakeTensor:
        sizes: list[Size] = list(spec.leaf.shape)
        for dim, example in enumerate(spec.leaf.shape):
            declared = (spec.dims or {}).get(dim)
            if declared is not None:
                sizes[dim] = self._size(spec.path, dim, declared)
            self.inputs.places.append(
                Place(index, dim, spec.path, declared, sizes[dim], int(example))
            )
        try:
            if spec.leaf.layout in sparse.PARTS:
                return self._sparse_tensor(spec.leaf, sizes)
            return FakeTensor.like_real(self.env, spec.leaf, sizes)
        except NotSupported as e:
            raise NotSupported(f"{spec.path}: {e.what}", why=e.why, hints=e.hints) from None

    def _sparse_tensor(self, leaf: torch.Tensor, sizes: list[Size]) -> FakeTensor:
        """Nothing is known of how many elements are specified: a call may come with any number."""
        nnz = self.env.new_unbacked()
        self.env.take_fresh_unbacked()  # read off the input, by no operator
        return sparse.like_real(self.env, leaf, sizes, nnz)

    def _number(self, index: int, spec: LeafSpec) -> Any:
        size = self._size(spec.path, None, spec.number)
        self.inputs.places.append(Place(index, None, spec.path, spec.number, size, spec.leaf))
        return self.env.wrap(size)

    def _size(self, path: str, dim: int | None, declared: DimSpec) -> Size:
        if isinstance(declared, DerivedDim):
            root = self.symbols[declared.root.__name__]
            size: Size = unwrap(root * declared.scale + declared.offset)
            if isinstance(size, Expr):
                self.inputs.derived.append((root, size, declared.scale, declared.offset))
            return size
        if isinstance(declared, Dim):
            return self.symbols[declared.__name__]
        return self.symbols[_hinted_key(path, dim)]


def _refuse_unusual_tensors(specs: Iterable[LeafSpec]) -> None:
    """Refuse tensors whose sizes are no plain ints, before anything asks for them.

    Raises:
        NotSupported: a nested tensor, or symbolic sizes of a capture in progress; names the input.
    """
    for spec in specs:
        if not isinstance(spec.leaf, torch.Tensor):
            continue
        if spec.leaf.is_nested:
            raise NotSupported(
                f"{spec.path}: A nested tensor cannot be captured yet.",
                hints=["pass the values and the offsets (or a padded tensor and a mask) instead"],
            )
        if isinstance(spec.leaf, FakeTensor) and any(type(s) is not int for s in spec.leaf.sizes):
            raise NotSupported(
                f"{spec.path}: has symbolic sizes of a capture in progress, which an export inside "
                "of it cannot take over.",
                hints=["export the inner module first, and call its program's module in forward"],
            )


# -- unknowns -------------------------------------------------------------------------------------


def _unknowns(specs: Iterable[LeafSpec]) -> dict[str, _Unknown]:
    """One unknown for each named dim and each hinted place, in order of appearance."""
    found: dict[str, _Unknown] = {}
    for spec in specs:
        declared: list[tuple[int | None, DimSpec, Any]] = [
            (d, s, spec.leaf.shape[d]) for d, s in sorted((spec.dims or {}).items())
        ]
        if spec.number is not None:
            declared.append((None, spec.number, spec.leaf))
        for dim, how, example in declared:
            unknown = _unknown(spec.path, dim, how, example)
            found.setdefault(unknown.key, unknown)
    names = Counter(u.name for u in found.values())
    return {
        key: u if names[u.name] == 1 or u.dim is not None else replace(u, name=f"{u.name}_{i}")
        for i, (key, u) in enumerate(found.items())
    }


def _unknown(path: str, dim: int | None, declared: DimSpec, example: Any) -> _Unknown:
    source = path if dim is None else f"{path}.size({dim})"
    if isinstance(declared, DerivedDim):
        example = (example - declared.offset) // declared.scale
        declared = declared.root
    if isinstance(declared, Dim):
        upper = math.inf if declared.max is None else declared.max
        name = declared.__name__
        return _Unknown(
            name, name, example, declared, "declared", source, Range(declared.min, upper)
        )
    policy = "auto" if declared is DimHint.AUTO else "dynamic"
    name = "".join(c if c.isalnum() else "_" for c in path).strip("_")
    if dim is not None:
        return _Unknown(
            _hinted_key(path, dim), f"{name}_dim{dim}", example, None, policy, source, NONNEGATIVE
        )
    return _Unknown(_hinted_key(path, dim), name, example, None, policy, source, FULL)


def _hinted_key(path: str, dim: int | None) -> str:
    return f"{path}?{dim}"


def _static_sizes(specs: Iterable[LeafSpec]) -> set[float]:
    return {
        size
        for spec in specs
        if isinstance(spec.leaf, torch.Tensor)
        for dim, size in enumerate(spec.leaf.shape)
        if dim not in (spec.dims or {})
    }


# -- relations ------------------------------------------------------------------------------------


def _checked(assume: Sequence[Relation], unknowns: Mapping[str, _Unknown]) -> list[Expr]:
    """The relations over the dims' names.

    Raises:
        InvalidInput: no relation, of dims that no input has, or false for the example.
    """
    if not isinstance(assume, (list, tuple)):
        raise InvalidInput(f"assume must be a list of relations, got {type(assume).__name__}.")
    relations = [_relation(given, unknowns) for given in assume]
    for relation in relations:
        for dim in relation.dims:
            known = unknowns.get(dim.__name__)
            if known is None or known.dim is None:
                raise InvalidInput(
                    f"assume: `{relation}` is about the dim {dim.__name__!r}, which no input has.",
                    why=f"dynamic_shapes declares {', '.join(unknowns) or 'no dims'}",
                )
            if known.dim.limits != dim.limits:
                raise InvalidInput(
                    f"assume: the dim {dim.__name__!r} has two ranges: {dim!r} in `{relation}`, "
                    f"{known.dim!r} in dynamic_shapes."
                )
        examples = _by_symbol({n: u.example for n, u in unknowns.items()}, relation.expr)
        if not evaluate(relation.expr, examples):
            sizes = ", ".join(f"{s} = {v}" for s, v in examples.items())
            raise InvalidInput(f"assume: `{relation}` is false for the example, {sizes}.")
    return [relation.expr for relation in relations]


def _relation(given: object, unknowns: Mapping[str, _Unknown]) -> Relation:
    """A relation, or its text: ``"b % 2 == 0"``."""
    if isinstance(given, Relation):
        return given
    hints = ["assume=[b % 2 == 0, h == w, s <= 4 * b] for dims b, h, w, s, or the same as text"]
    if not isinstance(given, str):
        raise InvalidInput(f"assume has {given!r}, which is no relation between dims.", hints=hints)
    try:
        expr = parse(given)
    except (ValueError, SyntaxError) as e:
        raise InvalidInput(f"assume: {given!r} cannot be read: {e}.", hints=hints) from None
    if expr.sort != "bool":
        raise InvalidInput(f"assume: {given!r} is no condition.", hints=hints)
    named = {str(s): unknowns.get(str(s)) for s in expr.free_symbols}
    for name, unknown in named.items():
        if unknown is None or unknown.dim is None:
            raise InvalidInput(
                f"assume: {given!r} is about the dim {name!r}, which no input has.",
                why=f"dynamic_shapes declares {', '.join(unknowns) or 'no dims'}",
            )
    return Relation(expr, tuple(u.dim for u in named.values() if u is not None and u.dim))


def _by_symbol(values: Mapping[str, Any], expr: Expr) -> dict[Expr, Any]:
    """Symbol called like a dim -> the dim's value, for the symbols of ``expr``."""
    names = sorted(str(s) for s in expr.free_symbols)
    return {symbol(name): values[name] for name in names}


# -- hints ----------------------------------------------------------------------------------------

# Sizes that are rarely special; tried in this order, then everything from 2 on.
_CANDIDATES: tuple[int, ...] = (5, 7, 11, 13, 17, 19, 23, 29, 31, *range(2, 65))


def _hints(
    unknowns: Mapping[str, _Unknown],
    static: set[float],
    moved: frozenset[str] | None,
    relations: Iterable[Expr],
) -> dict[str, float]:
    """The hint of each unknown: its example, or another size if that is 0 or 1."""
    examples = {key: u.example for key, u in unknowns.items()}
    hints = dict(examples)
    taken = static | set(examples.values())
    for edge in (0, 1):
        members = [
            u
            for u in unknowns.values()
            if type(u.example) is int and u.example == edge and (moved is None or u.key in moved)
        ]
        together = _candidate(members, taken)
        for unknown in members:
            hint = together if together is not None else _candidate([unknown], taken)
            if hint is not None:
                hints[unknown.key] = hint
                taken.add(hint)
    if any(not evaluate(r, _by_symbol(hints, r)) for r in relations):
        return examples
    return hints


def _candidate(members: list[_Unknown], taken: set[float]) -> int | None:
    """A size that all of them admit and nothing else has."""
    for size in _CANDIDATES:
        if size not in taken and all(
            u.dim.admits(size) if u.dim is not None else size in u.range for u in members
        ):
            return size
    return None
