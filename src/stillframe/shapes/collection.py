"""Specs by input tensor, or inferred from further examples, as a dict by argument name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe.errors import InvalidInput
from stillframe.shapes.arguments import BoundInputs
from stillframe.shapes.containers import children_of, describe, key_name, key_text, show
from stillframe.shapes.dimension import DimHint


@dataclass(eq=False)
class ShapesCollection:
    """Specs by input tensor, for inputs that are deep inside containers.

        shapes = ShapesCollection()
        shapes[batch["image"]] = {0: Dim("n")}
        export(mod, (batch,), dynamic_shapes=shapes)

    Tensors are told apart by identity and kept alive by the collection.
    """

    _entries: dict[int, tuple[torch.Tensor, Any]] = field(default_factory=dict)

    def __setitem__(self, tensor: torch.Tensor, spec: Any) -> None:
        if not isinstance(tensor, torch.Tensor):
            raise InvalidInput(f"ShapesCollection takes tensors as keys, got {describe(tensor)}.")
        known = self._entries.get(id(tensor))
        if known is not None and known[1] != spec:
            raise InvalidInput(
                f"ShapesCollection has two specs for one tensor of shape {tuple(tensor.shape)}: "
                f"{show(known[1])} and {show(spec)}."
            )
        self._entries[id(tensor)] = (tensor, spec)

    def __getitem__(self, tensor: torch.Tensor) -> Any:
        return self._entries[id(tensor)][1]

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def dynamic_shapes(
        self,
        mod: torch.nn.Module | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same as a dict by argument name.

        Raises:
            InvalidInput: an entry for a tensor that is not among the inputs.
        """
        used: set[int] = set()

        def entry(_path: str, leaf: Any) -> Any:
            used.add(id(leaf))
            return self._entries[id(leaf)][1] if id(leaf) in self._entries else None

        spec = spec_from_leaves(mod, args, kwargs, entry)
        for key, (tensor, declared) in self._entries.items():
            if key not in used:
                raise InvalidInput(
                    f"ShapesCollection has a spec for a tensor that is no input: shape "
                    f"{tuple(tensor.shape)}, spec {show(declared)}.",
                    hints=["use the very tensors that are passed to export, not copies"],
                )
        return spec


@dataclass(eq=False)
class AdditionalInputs:
    """Further example inputs; the spec is inferred: what differs between the examples varies.

        more = AdditionalInputs()
        more.add((torch.zeros(5, 16),))
        export(mod, (torch.zeros(3, 16),), dynamic_shapes=more)  # dim 0 is Dim.DYNAMIC

    Sizes, ints and floats that differ become ``Dim.DYNAMIC``; the rest is static. Examples only
    say what varies: which sizes the program admits is found by the capture.
    """

    examples: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def add(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        """Add one set of inputs.

        Raises:
            InvalidInput: ``args`` is no tuple or ``kwargs`` no mapping.
        """
        if not isinstance(args, tuple):
            raise InvalidInput(
                f"args must be a tuple of the positional inputs, got {type(args).__name__}.",
                hints=["for one input write add((x,))"],
            )
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise InvalidInput(f"kwargs must be a dict by name, got {type(kwargs).__name__}.")
        self.examples.append((args, dict(kwargs or {})))

    def dynamic_shapes(
        self,
        mod: torch.nn.Module | Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same as a dict by argument name, for the example ``(args, kwargs)`` and all others.

        Raises:
            InvalidInput: an example of another structure, rank or dtype, or with another constant;
                names the argument.
        """
        others = [_leaves_by_path(mod, *example) for example in self.examples]

        def entry(path: str, leaf: Any) -> Any:
            found = [_same_place(path, other, i) for i, other in enumerate(others)]
            return _inferred(path, leaf, found)

        spec = spec_from_leaves(mod, args, kwargs, entry)
        known = _leaves_by_path(mod, args, dict(kwargs or {}))
        for i, other in enumerate(others):
            for path in other:
                if path not in known:
                    raise InvalidInput(
                        f"AdditionalInputs: example {i} has {path}, which the first has not."
                    )
        return spec


def _leaves_by_path(
    mod: torch.nn.Module | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    spec_from_leaves(mod, args, kwargs, lambda path, leaf: found.setdefault(path, leaf))
    return found


def _same_place(path: str, leaves: dict[str, Any], index: int) -> Any:
    if path not in leaves:
        raise InvalidInput(f"AdditionalInputs: example {index} has no {path}.")
    return leaves[path]


def _inferred(path: str, leaf: Any, others: list[Any]) -> Any:
    """The spec of one leaf: what differs is dynamic."""
    for other in others:
        if type(other) is not type(leaf):
            raise InvalidInput(
                f"AdditionalInputs: {path} is {describe(leaf)} and {describe(other)}."
            )
    if isinstance(leaf, torch.Tensor):
        for other in others:
            if other.dim() != leaf.dim() or other.dtype != leaf.dtype:
                raise InvalidInput(
                    f"AdditionalInputs: {path} is {describe(leaf)} of {leaf.dtype} and "
                    f"{describe(other)} of {other.dtype}.",
                    why="examples of one program have the same number of dims and the same dtype",
                )
        return [
            DimHint.DYNAMIC if any(o.shape[dim] != size for o in others) else None
            for dim, size in enumerate(leaf.shape)
        ]
    if all(other == leaf for other in others):
        return None
    if type(leaf) in (int, float):
        return DimHint.DYNAMIC
    values = ", ".join(describe(v) for v in (leaf, *others))
    raise InvalidInput(
        f"AdditionalInputs: {path} differs between the examples: {values}.",
        why="only sizes, ints and floats can vary in a program",
        hints=["export one program for each value"],
    )


def spec_from_leaves(
    mod: torch.nn.Module | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    entry: Callable[[str, Any], Any],
) -> dict[str, Any]:
    """A dict by argument name that mirrors the inputs, ``entry(path, leaf)`` at each leaf.

    Keywords that ``**kw`` takes stand under their own names.
    """
    bound = BoundInputs(mod, args, dict(kwargs or {}))
    spec: dict[str, Any] = {}
    for given in bound.inputs:
        below = _mirror(given.path, given.value, entry)
        if bound.rest is not None and given.path.startswith(f"{bound.rest}["):
            spec.setdefault(bound.rest, []).append(below)
        else:
            spec[given.path] = below
    return spec


def _mirror(path: str, value: Any, entry: Callable[[str, Any], Any]) -> Any:
    children = children_of(value)
    if children is None:
        return entry(path, value)
    below = [(key, _mirror(path + key_text(key), child, entry)) for key, child in children]
    if type(value) is dict:
        return {key_name(key): spec for key, spec in below}
    return [spec for _, spec in below]
