"""Holes: arguments of a pattern of which nothing is known yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stillframe import torch_private


class Hole(torch.Tensor):
    """An argument of a pattern of which nothing is known; asking it anything raises.

    Attributes:
        place: of the parameter.
        ask: is called when the pattern asks for metadata, and raises.
    """

    place: int
    ask: Callable[[int], Any]

    __torch_function__ = torch_private.disabled_torch_function  # type: ignore[assignment]

    @staticmethod
    def make(place: int, ask: Callable[[int], Any]) -> Hole:
        """A hole for a parameter."""
        hole = torch_private.make_wrapper_subclass(
            Hole, (0,), dispatch_sizes_strides_policy="sizes", dispatch_device=True
        )
        assert isinstance(hole, Hole)
        hole.place, hole.ask = place, ask
        return hole

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        hole = next(a for a in args if isinstance(a, Hole))
        return hole.ask(hole.place)


def _question(name: str) -> property:
    def get(hole: Hole) -> Any:
        return hole.ask(hole.place)

    return property(get, doc=f"Raises: the {name} of a hole is not known.")


for _name in (
    "dtype", "device", "shape", "ndim", "layout", "requires_grad", "is_leaf", "itemsize", "nbytes",
    "is_cuda", "is_cpu", "is_sparse", "is_quantized", "grad", "grad_fn", "T", "mT", "H", "mH",
    "real", "imag", "data",
):  # fmt: skip
    setattr(Hole, _name, _question(_name))


def _method(name: str) -> Callable[..., Any]:
    def ask(hole: Hole, *args: Any, **kwargs: Any) -> Any:
        return hole.ask(hole.place)

    ask.__name__ = name
    return ask


for _name in (
    "size", "stride", "dim", "numel", "nelement", "storage_offset", "element_size", "contiguous",
    "is_contiguous", "is_floating_point", "is_complex", "__len__", "__iter__", "__getitem__",
    "__setitem__", "unbind", "get_device", "type", "data_ptr", "untyped_storage", "tolist", "numpy",
):  # fmt: skip
    setattr(Hole, _name, _method(_name))
