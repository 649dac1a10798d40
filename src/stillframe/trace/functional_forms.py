"""In-place operators and the functional operators that compute what they write.

Worked out from the schemas: ``add_`` computes ``add``, ``add.out`` computes the overload of ``add``
that takes the same arguments but ``out``. The few whose names do not follow are in a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

aten = torch.ops.aten

# A view or a copy, by the layout of the argument.
LAYOUT_DECIDES = frozenset(
    {
        aten.reshape.default, aten.reshape_as.default, aten.flatten.using_ints,
        aten.ravel.default, aten.contiguous.default, aten.to.dtype, aten.to.dtype_layout,
        aten.to.device, aten.to.other,
    }
)  # fmt: skip

# In-place operators whose functional form has another name.
_RENAMED: dict[Any, Any] = {
    aten.normal_.default: aten.normal_functional.default,
}

# Those whose functional operator draws other numbers; they have decompositions instead.
_UNLIKE = frozenset({aten.bernoulli_.float})

_MEMORY = (
    "resize_ resize_as_ resize_as_sparse_ set_ set_data swap_ "
    "t_ transpose_ unsqueeze_ squeeze_ swapaxes_ swapdims_ as_strided_"
)

# They change what a tensor is, not what it holds: no functional program expresses that.
MEMORY_CHANGES: frozenset[Any] = frozenset(
    getattr(getattr(aten, name), overload)
    for name in _MEMORY.split()
    if hasattr(aten, name)
    for overload in getattr(aten, name).overloads()
)


# Those of them that change the sizes only: the operator that returns such a view.
METADATA_CHANGES: dict[Any, Any] = {
    aten.t_.default: aten.t.default,
    aten.transpose_.default: aten.transpose.int,
    aten.swapaxes_.default: aten.swapaxes.default,
    aten.swapdims_.default: aten.swapdims.default,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.as_strided_.default: aten.as_strided.default,
}


@dataclass(frozen=True)
class Form:
    """A functional operator in the place of one that writes.

    Attributes:
        op: takes the same arguments, but those in ``dropped``.
        dropped: names of the arguments that only say where to write.
        targets: (position, name) of the written arguments, in the order of the results.
    """

    op: Any
    dropped: tuple[str, ...]
    targets: tuple[tuple[int, str], ...]

    def arguments(
        self, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the functional operator; ``names`` are those of the writing one."""
        kept = tuple(a for n, a in zip(names, args, strict=False) if n not in self.dropped)
        return kept, {k: v for k, v in kwargs.items() if k not in self.dropped}


@lru_cache(None)
def functional_form(func: Any) -> Form | None:
    """The form of an operator whose schema says that it writes, or None if torch has none."""
    arguments = func._schema.arguments
    if func.namespace != "aten" or func in _UNLIKE:
        return None  # what an author calls foo_ need not compute what foo does
    written = [
        (i, a)
        for i, a in enumerate(arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    if not written:
        return None
    renamed = _RENAMED.get(func)
    if renamed is not None:
        return Form(renamed, (), ((0, arguments[0].name),))
    outs = [a.name for _, a in written if a.is_out]
    if outs and len(outs) != len(written):
        return None
    wanted = [(a.name, str(a.type)) for a in arguments if a.name not in outs]
    op = _overload(func, wanted, bool(outs))
    if op is None:
        return None
    return Form(op, tuple(outs), tuple((i, a.name) for i, a in written))


def _overload(func: Any, wanted: list[tuple[str, str]], is_out: bool) -> Any:
    """The overload of the functional packet that takes exactly the wanted arguments."""
    namespace, _, name = func._schema.name.partition("::")
    if not is_out:
        if not name.endswith("_") or name.endswith("__"):
            name = _without_i(name)
        else:
            name = name[:-1]
    packet = getattr(getattr(torch.ops, namespace), name, None) if name else None
    if packet is None:
        return None
    overloads = sorted(packet.overloads(), key=lambda o: o != func._overloadname)
    for overload in overloads:
        op = getattr(packet, overload)
        arguments = op._schema.arguments
        pure = all(a.alias_info is None or not a.alias_info.is_write for a in arguments)
        if pure and op._schema.returns and [(a.name, str(a.type)) for a in arguments] == wanted:
            return op
    return None


def _without_i(name: str) -> str:
    """``__and__`` for ``__iand__``; empty if the name is no such."""
    if name.startswith("__i") and name.endswith("__"):
        return f"__{name[3:]}"
    return ""
