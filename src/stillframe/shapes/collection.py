"""Specs by input tensor or by leaf, turned into the form by argument name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from stillframe.errors import InvalidInput
from stillframe.shapes.arguments import BoundInputs
from stillframe.shapes.containers import children_of, describe, key_name, key_text, show


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
