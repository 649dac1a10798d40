"""Kinds about tensors, and the equality of torch's plain values."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from stillframe import torch_private
from stillframe.errors import InternalError, NotSupported
from stillframe.guards.kinds.registry import (
    Bind,
    Builder,
    Kind,
    class_name,
    describe,
    register,
)
from stillframe.shapes.env import to_size
from stillframe.source import Guard, Source, exact_form, register_exact
from stillframe.source.exact import register_exact_lookup

# -- torch's values in EQUALS_MATCH ----------------------------------------------------------------


def _itself(value: Any) -> Hashable:
    found: Hashable = value
    return found


for _cls in (torch.dtype, torch.device, torch.layout, torch.memory_format):
    register_exact(_cls, _itself)
register_exact(torch.Size, lambda size: tuple(exact_form(s) for s in size))

# Immutable values of torch.distributed, which say themselves when two are equal.
_DISTRIBUTED = {
    "torch.distributed.tensor.placement_types": ("Placement",),
    "torch.distributed.device_mesh": ("DeviceMesh",),
}


def _form_of_library_class(cls: type) -> Callable[[Any], Hashable] | None:
    """Classes of libraries that may not be loaded: who has a value has loaded its library."""
    for module_name, class_names in _DISTRIBUTED.items():
        module = sys.modules.get(module_name)
        for name in class_names:
            if module is not None and issubclass(cls, getattr(module, name, ())):
                return _itself
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(cls, numpy.generic) and cls.__module__ == "numpy":
        return lambda scalar: (scalar.dtype.str, scalar.tobytes())
    return None


register_exact_lookup(_form_of_library_class)

# -- metadata --------------------------------------------------------------------------------------

Pattern = tuple[int | None, ...]  # one entry per dim; None: any


@dataclass(frozen=True)
class TensorPicture:
    """What the capture relied on in a tensor.

    Attributes:
        keys: its dispatch keys; they tell the backend, the layout's family, conjugate and negative
            bits, whether autograd takes part.
        sizes, strides: None where the capture holds for any; strides are None for layouts that
            have none.
        marks: ``(mark, dim)``: the dims that the user has marked as dynamic, static, unbacked.
    """

    cls: type
    keys: Any
    dtype: torch.dtype
    device: torch.device
    layout: torch.layout
    requires_grad: bool
    sizes: Pattern
    strides: Pattern | None
    marks: frozenset[tuple[str, int]]


def dim_marks(tensor: torch.Tensor) -> frozenset[tuple[str, int]]:
    """The dims of a tensor that the user has marked, with the mark."""
    attributes = tensor.__dict__
    return frozenset(
        (mark, dim) for mark in torch_private.DIM_MARKS for dim in attributes.get(mark, ())
    )


def _no_further_marks(tensor: torch.Tensor, known: frozenset[tuple[str, int]]) -> bool:
    """Whether the user asks for nothing that the capture was not asked for."""
    return not tensor.__dict__ or dim_marks(tensor) <= known


def _pattern(numbers: Sequence[Any]) -> Pattern:
    """Numbers that must stay; None for symbols, which are conditions of the environment."""
    known = [to_size(n) for n in numbers]
    return tuple(n if type(n) is int else None for n in known)


def picture(
    value: Any, sizes: Sequence[Any] | None = None, strides: Sequence[Any] | None = None
) -> TensorPicture:
    """What a guard remembers of a tensor.

    Args:
        sizes, strides: what they are to the capture: an int must stay; anything else (a symbol,
            None) is left to the guard on shapes. By default all are as the tensor has them.

    Raises:
        NotSupported: a nested tensor.
    """
    if not isinstance(value, torch.Tensor):
        raise InternalError(f"TENSOR_MATCH of {describe(value)}")
    if value.is_nested:
        raise NotSupported("A guard on a nested tensor: its sizes differ from row to row.")
    strided = value.layout is torch.strided
    with torch_private.no_torch_function():
        return TensorPicture(
            type(value),
            torch_private.dispatch_keys(value),
            value.dtype,
            value.device,
            value.layout,
            value.requires_grad,
            _pattern(value.shape if sizes is None else sizes),
            _pattern(value.stride() if strides is None else strides) if strided else None,
            dim_marks(value),
        )


def _matches(variable: str, memory: TensorPicture, bind: Bind) -> list[str]:
    device = memory.device
    is_there = f"{variable}.device == {bind('device', device)}"
    if device == torch.device("cpu"):
        is_there = f"{variable}.is_cpu"
    return [
        f"type({variable}) is {bind(memory.cls.__name__, memory.cls)}",
        f"{bind('dispatch_keys', torch_private.dispatch_keys)}({variable})"
        f" == {bind('keys', memory.keys)}",
        f"{variable}.dtype is {bind(str(memory.dtype), memory.dtype)}",
        is_there,
        f"{variable}.layout is {bind(str(memory.layout), memory.layout)}",
        f"{variable}.requires_grad is {memory.requires_grad}",
        *_numbers(f"{variable}.shape", memory.sizes),
        *([] if memory.strides is None else _numbers(f"{variable}.stride()", memory.strides)),
        f"{bind('no_further_marks', _no_further_marks)}({variable}, {bind('marks', memory.marks)})",
    ]


def _numbers(text: str, pattern: Pattern) -> list[str]:
    """The conditions on sizes or strides; their number is known from the sizes."""
    if None not in pattern:
        return [f"{text} == {pattern}"]
    static = [f"{text}[{dim}] == {n}" for dim, n in enumerate(pattern) if n is not None]
    return [f"len({text}) == {len(pattern)}", *static]


def _says(memory: TensorPicture) -> str:
    return (
        f"is a {class_name(memory.cls)} of sizes {_shown(memory.sizes)}, {memory.dtype}, "
        f"on {memory.device}"
    )


def _sees(value: Any, memory: TensorPicture) -> str:
    """The fields in which a tensor differs."""
    if not isinstance(value, torch.Tensor) or value.is_nested:
        return describe(value)
    found = picture(value)
    different = [
        f"{field.name} {_shown(now)} and not {_shown(before)}"
        for field in fields(memory)
        if not _allows(before := getattr(memory, field.name), now := getattr(found, field.name))
    ]
    return "; ".join(different) or "the same metadata"


def _allows(before: Any, now: Any) -> bool:
    """Whether a field of a picture may be ``now``."""
    if isinstance(before, tuple) and isinstance(now, tuple):
        same = len(before) == len(now)
        return same and all(b is None or b == n for b, n in zip(before, now, strict=True))
    if isinstance(before, frozenset):
        return bool(now <= before)
    return bool(now == before)


def _shown(value: Any) -> str:
    """A field of a picture as text."""
    if isinstance(value, tuple):
        text = ", ".join("*" if n is None else str(n) for n in value)
        return f"({text},)" if len(value) == 1 else f"({text})"
    if isinstance(value, frozenset):
        return ", ".join(f"{mark} of dim {dim}" for mark, dim in sorted(value)) or "none"
    return class_name(value) if isinstance(value, type) else str(value)


class _TensorMatch(Kind):
    """Metadata; and the tensors of one set of guards alias as they did (``Builder.tensor``)."""

    def __call__(self, builder: Builder, guard: Guard, **parameters: Any) -> None:
        super().__call__(builder, guard, **parameters)
        builder.tensor(guard)


TENSOR_MATCH = register(_TensorMatch("TENSOR_MATCH", picture, _matches, _says, _sees))

DATA_PTR_MATCH = register(
    Kind(
        "DATA_PTR_MATCH",
        lambda tensor: tensor.data_ptr(),
        lambda variable, address, bind: [f"{variable}.data_ptr() == {address}"],
        lambda address: f"is at the address {address:#x}",
        lambda tensor, _: f"the address {tensor.data_ptr():#x}",
    )
)

# -- aliases ---------------------------------------------------------------------------------------


def aliases(*tensors: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """For each tensor, which is the first that is the same object, and the first in its memory.

    Tensors whose storages overlap count as aliases, whether or not they do themselves: also arrays
    over one buffer, which have storages of their own. Nothing is listed where all are apart, which
    is the usual case and the cheap one.
    """
    extents = sorted(_all_extents(tensors))
    starts = [start for start, _, _ in extents]
    ends = [end for _, end, _ in extents]
    if all(map(operator.le, ends, starts[1:])):
        return ()
    first: dict[int, int] = {}
    same = [first.setdefault(id(t), i) for i, t in enumerate(tensors)]
    return tuple(zip(same, _connected(extents, len(tensors)), strict=True))


def _connected(extents: Sequence[tuple[int, int, int]], count: int) -> list[int]:
    """For each owner of sorted extents the first owner that it is connected with by overlaps."""
    group = list(range(count))
    reach, last = -math.inf, 0  # how far the extents so far go, and who goes that far
    for start, end, owner in extents:
        if start < reach:
            old, new = sorted((group[owner], group[last]), reverse=True)
            group = [new if g == old else g for g in group]
        if end > reach:
            reach, last = end, owner
    return group


def _all_extents(tensors: Sequence[torch.Tensor]) -> list[tuple[int, int, int]]:
    """The addresses of the memory of tensors, as ``(start, end, index of the tensor)``.

    A storage without memory (of a fake, on the meta device, empty) has a place of its own below 0.
    """
    found = []
    for index, tensor in enumerate(tensors):  # a hot path: every frame pays it for every tensor
        try:
            storage = tensor.untyped_storage()
            start, size = storage.data_ptr(), storage.nbytes()
        except (NotImplementedError, RuntimeError):
            found += [(start, end, index) for start, end in _extents_of_parts(tensor)]
            continue
        if not (start and size):
            start, size = -torch_private.storage_identity(storage), 1
        found.append((start, start + size, index))
    return found


def _extents_of_parts(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """The same for a tensor without a storage; what is in it is unknown for some layouts."""
    parts = torch_private.sparse_parts(tensor)
    extents = [(start, end) for start, end, _ in _all_extents(parts)]
    return extents or [(-id(tensor), 1 - id(tensor))]


def alias_conditions(builder: Builder, guards: Sequence[Guard]) -> None:
    """Add the condition that no two guarded tensors alias unless they did, and as they did."""
    sources = list(dict.fromkeys(guard.originating_source for guard in guards))
    if len(sources) < 2:
        return
    memory = aliases(*(builder.value(source) for source in sources))
    variables = ", ".join(builder.read(source) for source in sources)
    condition = (
        f"{builder.bind('aliases', aliases)}({variables}) == {builder.bind('known', memory)}"
    )
    builder.require(
        guards[-1],
        [condition],
        "and the other tensors share memory, and are one object, where they did and only there",
        lambda *tensors: _other_aliases(sources, memory, aliases(*tensors)),
        sources,
    )


def _other_aliases(
    sources: Sequence[Source],
    known: Sequence[tuple[int, int]],
    found: Sequence[tuple[int, int]],
) -> str:
    """The first place where the aliases differ, in words."""
    apart = tuple((i, i) for i in range(len(sources)))
    known, found = known or apart, found or apart
    for i, (before, now) in enumerate(zip(known, found, strict=True)):
        if before == now:
            continue
        changed = ({*now} if now != (i, i) else {*before}) - {i}
        others = ", ".join(sorted(sources[j].name() for j in changed))
        verb = "no longer aliases" if now == (i, i) else "now aliases"
        return f"{sources[i].name()} {verb} {others}"
    return "the same aliases"
