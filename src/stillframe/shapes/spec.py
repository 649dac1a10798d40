"""``dynamic_shapes`` against the inputs: from what the user wrote to one entry for each leaf.

The spec mirrors the arguments of ``forward``: by name or by position, containers inside containers,
down to one entry per tensor and one per dim. Matching walks the inputs and the spec together, one
pytree level at a time, so every error can name the path of the argument it is about. What the
declared dims mean for the example sizes is checked after, in :mod:`stillframe.shapes.examples`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stillframe.errors import InvalidInput
from stillframe.shapes.arguments import BoundInputs
from stillframe.shapes.collection import AdditionalInputs, ShapesCollection
from stillframe.shapes.containers import children_of, describe, key_name, key_text, show
from stillframe.shapes.dimension import (
    NOT_LINEAR,
    DerivedDim,
    Dim,
    DimExpression,
    DimHint,
    DimSpec,
    foreign_dim,
)
from stillframe.shapes.examples import check_examples


@dataclass(frozen=True, eq=False)
class LeafSpec:
    """One leaf of ``(args, kwargs)`` and which of its dims may vary.

    Attributes:
        path: how a person names it: ``x``, ``past_key_values['key_cache'][0]``, ``rest[1]``.
        leaf: the example value.
        dims: for tensors: dim -> Dim, DerivedDim, DimHint.AUTO or DimHint.DYNAMIC; dims that are
            not in it are static. None for leaves that are no tensors.
        number: for ints and floats that vary: what they were declared as; None for constants.
    """

    path: str
    leaf: Any
    dims: dict[int, DimSpec] | None
    number: DimSpec = None


def resolve_spec(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> list[LeafSpec]:
    """One :class:`LeafSpec` per leaf, in flatten order of ``(args, kwargs)``.

    Args:
        mod: the module, or a callable; its signature gives the names.
        args: positional example inputs.
        kwargs: keyword example inputs; their order is the order of the leaves.
        dynamic_shapes: None, a dict by argument name (any order; arguments left out are static),
            a tuple or list by position in the signature, a hint for all dims of all tensors, or a
            :class:`ShapesCollection` or :class:`AdditionalInputs`.

    Raises:
        InvalidInput: the arguments do not fit the signature, the spec does not fit the arguments,
            or the example sizes do not fit the declared dims. Names the path of the argument.
    """
    kwargs = dict(kwargs or {})
    bound = BoundInputs(mod, args, kwargs)
    if isinstance(dynamic_shapes, (ShapesCollection, AdditionalInputs)):
        dynamic_shapes = dynamic_shapes.dynamic_shapes(mod, args, kwargs)
    by_input = _by_input(bound, dynamic_shapes)
    leaves: list[LeafSpec] = []
    for given in bound.inputs:
        leaves.extend(_match(given.path, given.value, by_input.get(given.path)))
    check_examples(leaves)
    return [_varying(leaf) for leaf in leaves]


# -- the top level --------------------------------------------------------------------------------


def _by_input(bound: BoundInputs, spec: Any) -> dict[str, Any]:
    """Path of each top-level input -> its spec. ``*rest`` and ``**kw`` are spread."""
    if spec is None or (isinstance(spec, (dict, tuple, list)) and not spec):
        return {}
    spec = foreign_dim(spec)
    if isinstance(spec, DimHint):
        return {given.path: _Below(spec) for given in bound.inputs}
    names = list(bound.arguments)
    if isinstance(spec, (tuple, list)):
        if len(spec) != len(names):
            raise InvalidInput(
                f"dynamic_shapes has {len(spec)} entries by position, and the call has "
                f"{len(names)} arguments: {', '.join(names)}.",
                why="a tuple or list has one entry per argument, in the order of the signature",
                hints=["name the arguments instead: " + _by_name_example(names)],
            )
        by_name = dict(zip(names, spec, strict=True))
    elif isinstance(spec, Mapping):
        by_name = dict(spec)
    else:
        raise InvalidInput(
            "dynamic_shapes must be a dict by argument name or a tuple by position, got "
            f"{show(spec)}.",
            hints=[_by_name_example(names)],
        )
    return _spread(bound, by_name)


def _spread(bound: BoundInputs, by_name: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    extra = bound.arguments[bound.keywords] if bound.keywords else {}
    for name, spec in by_name.items():
        if name == bound.rest:
            for key, entry in _children_of_spec(name, bound.arguments[name], spec):
                found[f"{name}{key}"] = entry
        elif name == bound.keywords:
            for key in _known_keys(name, spec, extra):
                _set_once(found, key, spec[key])
        elif name in bound.arguments or name in extra:
            _set_once(found, name, spec)
        else:
            known = [n for n in bound.arguments if n != bound.keywords] + list(extra)
            raise InvalidInput(
                f"dynamic_shapes names {name!r}, which is no argument of the call.",
                why=f"the call has: {', '.join(known) or 'no arguments'}",
                hints=_close(str(name), known),
            )
    return found


def _known_keys(name: str, spec: Any, extra: Mapping[str, Any]) -> list[str]:
    if spec is None:
        return []
    if not isinstance(spec, Mapping):
        raise _wrong_container(name, extra, spec, f"a dict by keyword: {', '.join(extra)}")
    for key in spec:
        if key not in extra:
            raise InvalidInput(
                f"dynamic_shapes: {name} has no keyword {key!r}.",
                why=f"the call has: {', '.join(extra)}",
                hints=_close(str(key), list(extra)),
            )
    return list(spec)


def _set_once(found: dict[str, Any], name: str, spec: Any) -> None:
    if name in found:
        raise InvalidInput(f"dynamic_shapes gives two specs for the argument {name}.")
    found[name] = spec


# -- containers -----------------------------------------------------------------------------------


def _match(path: str, value: Any, spec: Any) -> Iterator[LeafSpec]:
    """Leaves below ``value`` in flatten order, each with its part of ``spec``."""
    children = children_of(value)
    spec = foreign_dim(spec)
    if children is None:
        if isinstance(value, torch.Tensor):
            yield LeafSpec(path, value, _tensor_dims(path, value, spec))
        else:
            yield LeafSpec(path, value, None, _number(path, value, spec))
        return
    if isinstance(spec, (DimHint, _Below)):
        below = spec if isinstance(spec, _Below) else _Below(spec)
        for key, child in children:
            yield from _match(path + key_text(key), child, below)
        return
    given = dict(_children_of_spec(path, value, spec))
    for key, child in children:
        text = key_text(key)
        yield from _match(path + text, child, given.get(text))


@dataclass(frozen=True)
class _Below:
    """A hint that was given to a container: it holds for the dims of all tensors in it."""

    hint: DimHint


def _children_of_spec(path: str, value: Any, spec: Any) -> Iterator[tuple[str, Any]]:
    """(key text, spec) for the children of the container ``value``; those left out are static."""
    if spec is None:
        return
    pairs = children_of(value) or []
    names = {key_name(key): key_text(key) for key, _ in pairs}
    if type(spec) is type(value) and not isinstance(spec, (dict, list, tuple)):
        spec = {key_name(key): child for key, child in children_of(spec) or []}
    if isinstance(spec, Mapping):
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            raise _wrong_container(path, value, spec, f"a list or tuple of {len(names)} specs")
        for name, entry in spec.items():
            if name not in names:
                raise InvalidInput(
                    f"dynamic_shapes: {path} has no entry {name!r}.",
                    why=f"{describe(value)} has: {', '.join(map(str, names)) or 'no entries'}",
                    hints=_close(str(name), [str(n) for n in names]),
                )
            yield names[name], entry
    elif isinstance(spec, (list, tuple)):
        if type(value) is dict:
            raise _wrong_container(path, value, spec, f"a dict with keys from {list(names)}")
        if len(spec) != len(names):
            raise InvalidInput(
                f"dynamic_shapes: {path} is {describe(value)} with {len(names)} entries, and its "
                f"spec has {len(spec)}.",
                why="a list or tuple has one spec per entry; use None for those that are static",
            )
        yield from zip(names.values(), spec, strict=True)
    else:
        raise _wrong_container(path, value, spec, "a spec of the same form, or None")


# -- numbers --------------------------------------------------------------------------------------


def _number(path: str, value: Any, spec: Any) -> DimSpec:
    """What an int or float argument was declared as; None for a constant."""
    if spec is None or isinstance(spec, _Below) or spec is DimHint.STATIC:
        return None
    if _is_int(value):
        if isinstance(spec, (Dim, DerivedDim, DimHint)) or _is_int(spec):
            return spec  # type: ignore[no-any-return]
        raise InvalidInput(
            f"dynamic_shapes: {path} is the int {value}; its spec is {show(spec)}.",
            why="an int that varies is a Dim, k*d + c, Dim.AUTO or Dim.DYNAMIC",
        )
    if isinstance(value, float) and isinstance(spec, DimHint):
        return spec
    raise InvalidInput(
        f"dynamic_shapes: {path} is {describe(value)}, not a tensor; its spec is {show(spec)}.",
        why="what can vary are sizes of tensors, ints (a Dim or a hint) and floats (a hint); other "
        "inputs are constants of the program",
        hints=[f"use None for {path}, or leave it out"],
    )


# -- tensors --------------------------------------------------------------------------------------


def _tensor_dims(path: str, value: torch.Tensor, spec: Any) -> dict[int, DimSpec]:
    if spec is None:
        return {}
    rank, shape = value.dim(), tuple(value.shape)
    if isinstance(spec, (DimHint, _Below)):
        hint = spec.hint if isinstance(spec, _Below) else spec
        return dict.fromkeys(range(rank), hint)
    if isinstance(spec, Mapping):
        return {
            _dim_index(path, d, shape): _dim_spec(path, d, s) for d, s in _unique(path, spec, rank)
        }
    if isinstance(spec, (tuple, list)):
        if len(spec) != rank:
            raise InvalidInput(
                f"dynamic_shapes: {path} has {rank} dims (shape {shape}), and its spec has "
                f"{len(spec)} entries: {show(spec)}.",
                why="a tuple or list has one entry per dim",
                hints=["use None for static dims, or name the dims: {0: Dim('batch')}"],
            )
        return {d: _dim_spec(path, d, s) for d, s in enumerate(spec)}
    raise InvalidInput(
        f"dynamic_shapes: {path} is a tensor of shape {shape}; its spec is {show(spec)}.",
        why="the spec of a tensor is a dict {dim: spec}, a tuple with one entry per dim, a hint "
        "for all of them, or None",
        hints=["{0: %s}" % show(spec)] if isinstance(spec, (Dim, DerivedDim)) else [],
    )


def _unique(path: str, spec: Mapping[Any, Any], rank: int) -> Iterator[tuple[int, Any]]:
    seen: set[int] = set()
    for dim, entry in spec.items():
        if isinstance(dim, int) and not isinstance(dim, bool):
            if dim % max(rank, 1) in seen and -rank <= dim < rank:
                raise InvalidInput(f"dynamic_shapes: {path} has two specs for dim {dim % rank}.")
            seen.add(dim % max(rank, 1))
        yield dim, entry


def _dim_index(path: str, dim: Any, shape: tuple[int, ...]) -> int:
    """A dim's number, counted from the front."""
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise InvalidInput(
            f"dynamic_shapes: {path} is a tensor of shape {shape}; its spec has the key {dim!r}.",
            why="the keys are dims: ints",
            hints=["{0: Dim('batch')}"],
        )
    if not -len(shape) <= dim < len(shape):
        raise InvalidInput(
            f"dynamic_shapes: {path} has no dim {dim}.",
            why=f"it has {len(shape)} dims (shape {shape})",
        )
    return dim % len(shape)


def _dim_spec(path: str, dim: int, given: Any) -> DimSpec:
    spec = foreign_dim(given)
    if spec is None or isinstance(spec, DimHint) or _is_int(spec):
        return spec
    if isinstance(spec, (Dim, DerivedDim)):
        if isinstance(spec, Dim) and spec.min < 0:
            raise InvalidInput(
                f"dynamic_shapes: dim {dim} of {path} is {spec!r}, and no size is negative."
            )
        return spec
    if isinstance(spec, DimExpression):
        raise InvalidInput(
            f"dynamic_shapes: dim {dim} of {path} is `{spec}`, which declares no size.",
            why=NOT_LINEAR,
            hints=[
                "give the smallest size the name and write the others by it (2*half, 8*d), or "
                "name every dim and state relations: export(..., assume=[w == h // 2])"
            ],
        )
    raise InvalidInput(
        f"dynamic_shapes: dim {dim} of {path} is {show(given)}.",
        why="a dim is a Dim, k*d + c, an int, Dim.AUTO, Dim.DYNAMIC, Dim.STATIC or None",
        hints=[f"Dim({given!r})"] if isinstance(given, str) and given.isidentifier() else [],
    )


def _varying(leaf: LeafSpec) -> LeafSpec:
    """Without the dims that are static by one of the three ways to say so."""
    if not leaf.dims:
        constant = leaf.number is None or _is_int(leaf.number)
        return LeafSpec(leaf.path, leaf.leaf, leaf.dims) if constant else leaf
    dims: dict[int, DimSpec] = {
        d: s
        for d, s in leaf.dims.items()
        if not (s is None or isinstance(s, int) or s is DimHint.STATIC)
    }
    return LeafSpec(leaf.path, leaf.leaf, dims)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# -- texts ----------------------------------------------------------------------------------------


def _wrong_container(path: str, value: Any, spec: Any, expected: str) -> InvalidInput:
    return InvalidInput(
        f"dynamic_shapes: {path} is {describe(value)}; its spec is {show(spec)}.",
        why=f"expected {expected}",
    )


def _by_name_example(names: Sequence[str]) -> str:
    return "{%r: {0: Dim('batch')}, ...}" % (names[0] if names else "x")


def _close(name: str, known: list[str]) -> list[str]:
    return [f"did you mean {match!r}?" for match in difflib.get_close_matches(name, known, n=1)]
