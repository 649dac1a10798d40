"""``out=``: the operator without it says what is written, and the given tensors must fit.

The kernel would resize a tensor of other sizes; a recorded tensor keeps its sizes, so that is
refused.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe.errors import NotSupported
from stillframe.fake.rules.elementwise import refuse_overlap
from stillframe.fake.tensor import FakeTensor

if TYPE_CHECKING:
    from stillframe.fake.mode import FakeMode


@lru_cache(None)
def without_out(func: Any) -> Any:
    """The overload that takes the same arguments and makes its results; None if there is none."""
    schema = func._schema
    if not any(a.is_out for a in schema.arguments):
        return None
    wanted = [(a.name, str(a.type)) for a in schema.arguments if not a.is_out]
    packet = func.overloadpacket
    for name in packet.overloads():
        overload = getattr(packet, name)
        if [(a.name, str(a.type)) for a in overload._schema.arguments] == wanted:
            return overload
    return None


def run(mode: FakeMode, func: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The tensors given as ``out=``, checked.

    Raises:
        NotSupported: one of them would be resized or does not have the dtype of its result.
        RuntimeError: as eager: an input requires grad, or memory overlaps.
    """
    names = [a.name for a in func._schema.arguments if a.is_out]
    outs = [kwargs[n] for n in names]
    rest = {k: v for k, v in kwargs.items() if k not in names}
    if mode.ctx.requires_grad:
        raise RuntimeError(
            f"{func}: functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    made = mode.run(without_out(func), tuple(args), rest)
    results = made if isinstance(made, (list, tuple)) else (made,)
    inputs = [t for t in pytree.tree_leaves((args, rest)) if isinstance(t, FakeTensor)]
    elementwise = torch.Tag.pointwise in func.tags
    for name, result, out in zip(names, results, outs, strict=True):
        _fits(mode, f"{func}: {name}=", result, out, cast=elementwise)
        others = [t for t in inputs if t is not out or t is not args[0]]
        if not elementwise and any(t.storage_ is out.storage_ for t in others):
            raise NotSupported(f"{func}: {name}= shares memory with an input.")
    return outs[0] if len(outs) == 1 else tuple(outs)


def _fits(mode: FakeMode, where: str, result: FakeTensor, out: FakeTensor, *, cast: bool) -> None:
    """Whether ``result`` can be written into ``out`` as it is."""
    refuse_overlap(out)
    if out.device != result.device:
        raise RuntimeError(f"{where} is on {out.device}, the result on {result.device}")
    may_differ = cast and torch.can_cast(result.dtype, out.dtype)
    if out.dtype is not result.dtype and not may_differ:
        raise NotSupported(f"{where} has dtype {out.dtype}, the result {result.dtype}.")
    same_rank = len(out.sizes) == len(result.sizes)
    if not same_rank or not all(map(mode.ctx.same, out.sizes, result.sizes)):
        raise NotSupported(
            f"{where} has the sizes {out.sizes}, the result {result.sizes}: it would be resized."
        )
