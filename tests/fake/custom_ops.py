"""Custom operators of many kinds, shared by the tests of fakes, traces and exports."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op, get_ctx

LIBRARY = torch.library.Library("sfops", "DEF")
CPU = "CPU"


@custom_op("sfops::scaled", mutates_args=())
def scaled(x: Tensor, factor: float, power: int = 2) -> Tensor:
    """One result; the fake leaves out the default of ``power``."""
    return x * factor**power


@scaled.register_fake
def _(x, factor, power):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@custom_op("sfops::doubled_rows", mutates_args=())
def doubled_rows(x: Tensor) -> Tensor:
    """Sizes by arithmetic on sizes."""
    return torch.cat([x, x])


@doubled_rows.register_fake
def _(x):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0] * 2, *x.shape[1:])


@custom_op("sfops::positive", mutates_args=())
def positive(x: Tensor) -> Tensor:
    """A size that only the data can tell."""
    return x[x > 0]


@positive.register_fake
def _(x):  # type: ignore[no-untyped-def]
    return x.new_empty(get_ctx().new_dynamic_size())


@custom_op("sfops::some", mutates_args=())
def some(x: Tensor) -> Tensor:
    """The same with bounds."""
    return x[x > 0]


@some.register_fake
def _(x):  # type: ignore[no-untyped-def]
    return x.new_empty(get_ctx().new_dynamic_size(min=1, max=4))


@custom_op("sfops::add_one_", mutates_args={"x"})
def add_one_(x: Tensor) -> None:
    """Changes its argument; needs no fake."""
    x.add_(1)


@custom_op("sfops::swap_", mutates_args={"x", "y"})
def swap_(x: Tensor, y: Tensor, times: int = 1) -> Tensor:
    """Changes two arguments and returns something new."""
    for _ in range(times):
        kept = x.clone()
        x.copy_(y)
        y.copy_(kept)
    return x + y


@swap_.register_fake
def _(x, y, times=1):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@custom_op("sfops::moments", mutates_args=())
def moments(x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Two results; an optional tensor."""
    y = x if weight is None else x * weight
    return y.sum(0), (y * y).sum(0)


@moments.register_fake
def _(x, weight=None):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[1:]), x.new_empty(x.shape[1:])


@custom_op("sfops::rows", mutates_args=())
def rows(xs: list[Tensor], sizes: list[int]) -> list[Tensor]:
    """Lists of tensors and of numbers in, a list out."""
    return [x[:n].clone() for x, n in zip(xs, sizes, strict=True)]


@rows.register_fake
def _(xs, sizes):  # type: ignore[no-untyped-def]
    return [x.new_empty(n, *x.shape[1:]) for x, n in zip(xs, sizes, strict=True)]


@custom_op("sfops::length", mutates_args=())
def length(x: Tensor) -> int:
    """A number that sizes tell."""
    return x.shape[0] * 3


@length.register_fake
def _(x):  # type: ignore[no-untyped-def]
    return x.shape[0] * 3


LIBRARY.define("counted(Tensor x) -> (Tensor, SymInt)")


@torch.library.impl(LIBRARY, "counted", CPU)
def counted_cpu(x: Tensor) -> tuple[Tensor, int]:
    """A number that only the data can tell."""
    return x + 1, int((x > 0).sum())


@torch.library.register_fake("sfops::counted", lib=LIBRARY)
def _(x):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), get_ctx().new_dynamic_size()


LIBRARY.define("cubed(Tensor x) -> Tensor")


@torch.library.impl(LIBRARY, "cubed", "CompositeExplicitAutograd")
def cubed_anywhere(x: Tensor) -> Tensor:
    """A kernel for every device stands for a fake."""
    return x * x * x


LIBRARY.define("halved(Tensor x) -> Tensor")


@torch.library.impl(LIBRARY, "halved", "CompositeImplicitAutograd")
def halved_of_parts(x: Tensor) -> Tensor:
    """Made of other operators."""
    return x / 2


LIBRARY.define("head(Tensor(a) x) -> Tensor(a)")


@torch.library.impl(LIBRARY, "head", CPU)
def head_cpu(x: Tensor) -> Tensor:
    """A view, as the schema says."""
    return x[:1]


@torch.library.register_fake("sfops::head", lib=LIBRARY)
def _(x):  # type: ignore[no-untyped-def]
    return x[:1]


@custom_op("sfops::sine", mutates_args=())
def sine(x: Tensor) -> Tensor:
    """With a backward formula."""
    return torch.sin(x)


@sine.register_fake
def _(x):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return torch.empty_like(x)


def _sine_backward(ctx, grad):  # type: ignore[no-untyped-def]
    (x,) = ctx.saved_tensors
    return grad * torch.cos(x)


def _sine_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0])


sine.register_autograd(_sine_backward, setup_context=_sine_setup)


@custom_op("sfops::unknown", mutates_args=())
def unknown(x: Tensor) -> Tensor:
    """Without a fake."""
    return x * 2


LIBRARY.define("undescribed(Tensor x) -> Tensor")


@torch.library.impl(LIBRARY, "undescribed", CPU)
def undescribed_cpu(x: Tensor) -> Tensor:
    """Without a fake, the other way."""
    return x * 2


def broken(name: str, fake, schema: str = "(Tensor x) -> Tensor", kernel=None):  # type: ignore[no-untyped-def]
    """An operator ``sfops::name`` whose fake is ``fake``; by default its kernel copies."""
    LIBRARY.define(name + schema)
    LIBRARY.impl(name, kernel or (lambda x: x.clone()), CPU)
    torch.library.register_fake(f"sfops::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.sfops, name)
