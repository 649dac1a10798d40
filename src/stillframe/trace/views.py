"""Writing through a view: what the viewed tensor becomes when a view of it gets a new value.

One function per view operator, in :data:`UPDATES`. It is given the recorder, the viewed tensor as
it is now, the view's arguments, its metadata, and the new value of the view; it records functional
operators and returns the new value of the viewed tensor. The result may be laid out otherwise than
the viewed tensor was; the recorder sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import to_size
from stillframe.symbolic import eq

if TYPE_CHECKING:
    from stillframe.trace.functional import FunctionalRecorder

aten = torch.ops.aten


@dataclass(slots=True)
class View:
    """How a tensor was made from another one over the same memory.

    Attributes:
        parent: the viewed tensor.
        func, args, kwargs: the operator; the parent is among the arguments.
        path: which element of the operator's results the view is.
        grad: whether gradients were on when the view was made.
        seen: how often the memory had been written when the view's node was made, and whether
            gradients were on then: the node may be a newer one.
    """

    parent: FakeTensor
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    path: tuple[int, ...]
    grad: bool
    seen: tuple[int, bool]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One argument, however it was given."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)


Update = Callable[["FunctionalRecorder", View, FakeTensor, FakeTensor], FakeTensor]

UPDATES: dict[Any, Update] = {}


def _update(*operators: Any) -> Callable[[Update], Update]:
    def register(function: Update) -> Update:
        for op in operators:
            UPDATES[op] = function
        return function

    return register


# -- the same elements in another shape -----------------------------------------------------------


@_update(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten._reshape_alias.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view_as.default,
    aten.reshape_as.default,
    aten.ravel.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.atleast_1d.default,
    aten.atleast_2d.default,
    aten.atleast_3d.default,
)
def _reshaped(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    return reshaped(r, new, view.parent.sizes)


def reshaped(r: FunctionalRecorder, tensor: FakeTensor, sizes: Any) -> FakeTensor:
    """``tensor.reshape(sizes)`` in terms of ``clone`` and ``view``."""
    if not layout.is_contiguous(tensor.sizes, tensor.strides):
        tensor = r.record(aten.clone.default, (tensor,), {"memory_format": torch.contiguous_format})
    wanted = r.env.wrap_sizes(sizes)
    result: FakeTensor = r.record(aten.view.default, (tensor, wanted), {})
    return result


@_update(
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.numpy_T.default,
    aten.mT.default,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.moveaxis.int,
    aten.moveaxis.intlist,
    aten.swapaxes.default,
    aten.swapdims.default,
)
def _permuted(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    order = _order(view)
    back = [order.index(d) for d in range(len(order))]
    result: FakeTensor = r.record(aten.permute.default, (new, back), {})
    return result


def _order(view: View) -> list[int]:
    """Which dim of the parent each dim of the view is; asked of torch on a tensor of that rank."""
    rank = len(view.parent.sizes)
    probe = torch.empty(tuple(range(2, 2 + rank)), device="meta")
    with torch_private.ambient_modes_off():
        shape = view.func(probe, *view.args[1:], **view.kwargs).shape
    return [n - 2 for n in shape]


@_update(aten.alias.default, aten.detach.default, aten.positive.default, aten.contiguous.default)
def _the_same(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    return new


@_update(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default)
def _expanded(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    """Only where nothing is expanded does each element of the view stand for one of its own."""
    sizes = view.parent.sizes
    tail = child.sizes[len(child.sizes) - len(sizes) :]
    ctx = r.fake_mode.ctx
    if all(ctx.known(eq(a, b)) is True for a, b in zip(sizes, tail, strict=True)):
        if all(ctx.known(eq(n, 1)) is True for n in child.sizes[: -len(sizes) or None]):
            return reshaped(r, new, sizes)
    raise r.refuse(
        "A view that was made by expand is written in place.",
        "several elements of it are one element in memory",
        "write to x.expand(...).clone()",
    )


# -- a part of the elements -----------------------------------------------------------------------


@_update(aten.select.int)
def _selected(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    place = (view.argument(1, "dim"), view.argument(2, "index"))
    result: FakeTensor = r.record(aten.select_scatter.default, (view.parent, new, *place), {})
    return result


@_update(aten.slice.Tensor)
def _sliced(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    place = (
        view.argument(1, "dim", 0),
        view.argument(2, "start"),
        view.argument(3, "end"),
        view.argument(4, "step", 1),
    )
    result: FakeTensor = r.record(aten.slice_scatter.default, (view.parent, new, *place), {})
    return result


@_update(aten.narrow.default)
def _narrowed(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    start, length = to_size(view.args[2]), to_size(view.args[3])
    return _into_slice(r, view.parent, new, view.args[1], start, start + length)


@_update(
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
)
def _piece(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    dim = view.argument(2, "dim", 0) % len(child.sizes)
    pieces = r.fake_mode.run(view.func, view.args, view.kwargs)
    start: Any = 0
    for piece in pieces[: view.path[0]]:
        start = start + piece.sizes[dim]
    return _into_slice(r, view.parent, new, dim, start, start + child.sizes[dim])


def _into_slice(
    r: FunctionalRecorder, parent: FakeTensor, new: FakeTensor, dim: int, start: Any, end: Any
) -> FakeTensor:
    place = (dim, r.env.wrap(start), r.env.wrap(end), 1)
    result: FakeTensor = r.record(aten.slice_scatter.default, (parent, new, *place), {})
    return result


@_update(aten.unbind.int)
def _unbound(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    place = (view.argument(1, "dim", 0), view.path[0])
    result: FakeTensor = r.record(aten.select_scatter.default, (view.parent, new, *place), {})
    return result


@_update(aten.diagonal.default)
def _diagonal(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    place = (
        view.argument(1, "offset", 0),
        view.argument(2, "dim1", 0),
        view.argument(3, "dim2", 1),
    )
    result: FakeTensor = r.record(aten.diagonal_scatter.default, (view.parent, new, *place), {})
    return result


@_update(aten.as_strided.default)
def _strided(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    r.refuse_unless_whole(view.parent, "as_strided")
    place = (view.args[1], view.args[2], view.argument(3, "storage_offset"))
    result: FakeTensor = r.record(aten.as_strided_scatter.default, (view.parent, new, *place), {})
    return result


# -- the same memory as another dtype --------------------------------------------------------------


@_update(aten.view_as_real.default)
def _real(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    if not layout.is_contiguous(new.sizes, new.strides):
        new = r.record(aten.clone.default, (new,), {"memory_format": torch.contiguous_format})
    result: FakeTensor = r.record(aten.view_as_complex.default, (new,), {})
    return result


@_update(aten.view_as_complex.default)
def _complex(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    result: FakeTensor = r.record(aten.view_as_real.default, (new,), {})
    return result


@_update(aten.view.dtype)
def _dtype(r: FunctionalRecorder, view: View, child: FakeTensor, new: FakeTensor) -> FakeTensor:
    if not layout.is_contiguous(new.sizes, new.strides):
        new = r.record(aten.clone.default, (new,), {"memory_format": torch.contiguous_format})
    result: FakeTensor = r.record(aten.view.dtype, (new, view.parent.dtype), {})
    return result
