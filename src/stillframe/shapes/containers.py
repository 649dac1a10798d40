"""One level of a pytree at a time, with the keys as a person writes them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree


def children_of(value: Any) -> list[tuple[Any, Any]] | None:
    """(pytree key, child) one level down, or None for a leaf."""

    def below(node: Any) -> bool:
        return node is not value

    try:
        pairs, _ = pytree.tree_flatten_with_path(value, is_leaf=below)
    except ValueError:  # registered without keys: number the children
        leaves, _ = pytree.tree_flatten(value, is_leaf=below)
        return [(pytree.SequenceKey(i), leaf) for i, leaf in enumerate(leaves)]
    if len(pairs) == 1 and not pairs[0][0]:
        return None
    return [(path[0], child) for path, child in pairs]


def key_text(key: Any) -> str:
    """What is appended to a path: ``['a']``, ``[0]``, ``.name``."""
    match key:
        case pytree.MappingKey():
            return f"[{key.key!r}]"
        case pytree.GetAttrKey():
            return f".{key.name}"
        case pytree.SequenceKey():
            return f"[{key.idx}]"
    return str(key)


def key_name(key: Any) -> Any:
    """The key itself: a mapping's key, an index, a field's name."""
    match key:
        case pytree.MappingKey():
            return key.key
        case pytree.GetAttrKey():
            return key.name
        case pytree.SequenceKey():
            return key.idx
    return str(key)


def describe(value: Any) -> str:
    """What a value is, in a few words: ``a tensor of shape (2, 3)``, ``'text'``, ``a list``."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def show(spec: Any) -> str:
    """``repr`` of a spec, cut where it gets long."""
    text = repr(spec)
    return text if len(text) <= 120 else text[:117] + "..."
