"""Calls to try: torch's own operator samples, in several memory layouts, and its error inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

DTYPES = ("float32", "int64", "bool", "complex64")


def operator_name(info: Any) -> str:
    """The name of an entry of ``op_db``, unique with its variant."""
    return ".".join(filter(None, (info.name, info.variant_test_name)))


OPERATORS: dict[str, Any] = {operator_name(info): info for info in op_db}


def is_plain(t: torch.Tensor) -> bool:
    """Whether ``t`` is of a kind that fakes stand for."""
    return t.layout is torch.strided and not t.is_quantized and not t.is_nested


def reversed_memory(t: torch.Tensor) -> torch.Tensor:
    """The same values with the dims in the opposite order in memory."""
    order = range(t.dim() - 1, -1, -1)
    return t.permute(*order).contiguous().permute(*order) if t.dim() > 1 else t


def sliced(t: torch.Tensor) -> torch.Tensor:
    """The same values with gaps between the elements of the last dim."""
    if t.dim() == 0:
        return t
    return torch.stack((t, t), -1).flatten(-2)[..., ::2]


def shifted(t: torch.Tensor) -> torch.Tensor:
    """The same values and strides, but not at the start of the memory."""
    if t.dim() == 0 or not t.is_contiguous() or t.is_conj() or t.is_neg():
        return t
    return torch.cat((t[:1], t))[1:] if t.shape[0] else t


def channels_last(t: torch.Tensor) -> torch.Tensor:
    """NHWC where the rank is 4, NDHWC where it is 5."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "given": lambda t: t,
    "reversed": reversed_memory,
    "sliced": sliced,
    "shifted": shifted,
    "channels_last": channels_last,
}


class Call:
    """One call of an operator: arguments with the input first, and keyword arguments."""

    def __init__(self, sample: Any, lay: Callable[[torch.Tensor], torch.Tensor]) -> None:
        def convert(value: Any) -> Any:
            return pytree.tree_map_only(torch.Tensor, lambda t: lay(t) if is_plain(t) else t, value)

        self.args: tuple[Any, ...] = convert((sample.input, *sample.args))
        self.kwargs: dict[str, Any] = convert(sample.kwargs)

    def copied(self, prepare: Callable[[int, torch.Tensor], torch.Tensor]) -> Call:
        """The same call with ``prepare(position, tensor)`` in place of each tensor argument."""
        positions = itertools.count()
        seen: dict[int, torch.Tensor] = {}

        def once(t: torch.Tensor) -> torch.Tensor:
            if id(t) not in seen:
                seen[id(t)] = prepare(next(positions), t)
            return seen[id(t)]

        args = pytree.tree_map_only(torch.Tensor, once, self.args)
        return Call.of(*args, **pytree.tree_map_only(torch.Tensor, once, self.kwargs))

    @staticmethod
    def of(*args: Any, **kwargs: Any) -> Call:
        """A call with these very arguments."""
        call = object.__new__(Call)
        call.args, call.kwargs = args, kwargs
        return call


def samples_of(info: Any, dtype: torch.dtype, layout: str, limit: int) -> Iterator[Call]:
    """Up to ``limit`` samples, spread evenly over those that the entry has, the first included."""
    torch.manual_seed(0)
    made = list(info.sample_inputs("cpu", dtype))
    step = max(1, -(-len(made) // limit))
    for sample in made[::step]:
        yield Call(sample, LAYOUTS[layout])


def error_samples_of(info: Any) -> Iterator[Call]:
    """Calls that the operator must refuse."""
    if info.error_inputs_func is not None:
        torch.manual_seed(0)
        for error_input in info.error_inputs("cpu"):
            yield Call(error_input.sample_input, LAYOUTS["given"])
