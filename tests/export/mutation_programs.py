"""Programs that write: inputs, buffers, views, slices; outputs that alias. One table.

Each entry is a module class or a function, and makes its example inputs anew at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Program:
    """One entry of the table."""

    name: str
    make: Callable[[], Any]
    inputs: Callable[[], tuple[Any, ...]]


PROGRAMS: list[Program] = []


def x34() -> tuple[Any, ...]:
    return (torch.arange(12.0).reshape(3, 4) + 1,)


def x34_y34() -> tuple[Any, ...]:
    return (torch.arange(12.0).reshape(3, 4) + 1, torch.linspace(-1, 1, 12).reshape(3, 4))


def x34_y4() -> tuple[Any, ...]:
    return (torch.arange(12.0).reshape(3, 4) + 1, torch.linspace(-1, 1, 4))


def function(
    inputs: Callable[[], tuple[Any, ...]] = x34,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append(Program(f.__name__, lambda: f, inputs))
        return f

    return register


def module(inputs: Callable[[], tuple[Any, ...]] = x34) -> Callable[[type], type]:
    def register(cls: type) -> type:
        PROGRAMS.append(Program(cls.__name__, cls, inputs))
        return cls

    return register


# -- inputs written whole -------------------------------------------------------------------------


@function()
def add_to_input(x):
    x.add_(1)
    return x


@function()
def add_to_input_returns_other(x):
    x.add_(1)
    return x * 2


@function()
def returns_nothing_else(x):
    x.mul_(0.5)
    return 1


@function(x34_y34)
def copy_between_inputs(x, y):
    x.copy_(y)
    return x + y


@function(x34_y34)
def swap_inputs(x, y):
    t = x.clone()
    x.copy_(y)
    y.copy_(t)
    return x - y


@function(x34_y34)
def write_one_from_the_other_twice(x, y):
    x.add_(y)
    y.add_(x)
    x.add_(y)
    return y


@function(x34_y4)
def broadcast_into_input(x, y):
    x.copy_(y)
    return x.sum()


@function()
def zero_input(x):
    y = x * 3
    x.zero_()
    return y + x


@function()
def fill_input(x):
    x.fill_(2.5)
    return x[0]


@function()
def old_value_survives(x):
    old = x.clone()
    x.add_(10)
    return old


@function()
def view_of_old_value_sees_write(x):
    v = x.view(-1)
    x.add_(10)
    return v


@function()
def same_value_out_twice(x):
    x.add_(1)
    return x, x


@function(x34_y34)
def passes_second_through(x, y):
    x.mul_(2)
    return y


@function(x34_y34)
def returns_old_view_of_other(x, y):
    x.copy_(y)
    y.zero_()
    return x[0], y[1]


# -- parts of inputs ------------------------------------------------------------------------------


@function()
def write_slice(x):
    x[:, 1:3] = 0
    return x


@function()
def write_slice_with_step(x):
    x[:, ::2] += 1
    return x


@function()
def write_row(x):
    x[1].mul_(3)
    return x.sum(0)


@function()
def write_element(x):
    x[1, 2] = 7
    return x


@function()
def write_negative_index(x):
    x[-1] = -1
    return x


@function()
def write_diagonal(x):
    x.diagonal().fill_(0)
    return x


@function()
def write_off_diagonal(x):
    torch.diagonal(x, 1).add_(100)
    return x


@function()
def write_transposed(x):
    x.t().add_(torch.arange(4.0)[:, None])
    return x


@function()
def write_transposed_slice(x):
    x.transpose(0, 1)[1:3].mul_(2)
    return x


@function()
def write_flat(x):
    x.view(-1)[3:9] = 5
    return x


@function()
def write_view_of_view(x):
    x.view(2, 6)[1].view(3, 2)[:, 0].add_(1)
    return x


@function()
def write_unsqueezed(x):
    x.unsqueeze(0).unsqueeze(-1).add_(1)
    return x


@function()
def write_squeezed(x):
    x[1:2].squeeze(0).sub_(4)
    return x


@function()
def write_narrow(x):
    x.narrow(1, 1, 2).neg_()
    return x


@function()
def write_split(x):
    a, b = x.split([1, 3], 1)
    a.add_(1)
    b.mul_(a)
    return x


@function()
def write_chunks(x):
    for i, piece in enumerate(x.chunk(2, 1)):
        piece.add_(i + 1)
    return x


@function()
def write_unbound(x):
    for i, row in enumerate(x.unbind(0)):
        row.mul_(i)
    return x


@function()
def write_permuted(x):
    x.view(3, 2, 2).permute(2, 0, 1)[1].zero_()
    return x


@function()
def write_expanded_without_expanding(x):
    x.expand(3, 4).add_(1)
    return x


@function()
def write_through_flatten(x):
    x.flatten().add_(1)
    return x


@function()
def write_through_unflatten(x):
    x.unflatten(1, (2, 2))[:, 0].add_(1)
    return x


@function()
def write_through_reshape(x):
    (x + 0).reshape(6, 2)[0].zero_()
    y = x + 0
    y.reshape(6, 2)[0].zero_()
    return y


@function()
def write_through_contiguous(x):
    y = x * 2
    y.contiguous().add_(1)
    return y


@function()
def write_contiguous_input(x):
    x.contiguous().add_(1)
    return x


@function()
def reshape_then_write(x):
    flat = (x * 2).reshape(-1)
    y = x * 2
    rows = y.reshape(-1)
    y.add_(1)
    return rows - flat


@function()
def write_through_detach(x):
    y = x + 1
    y.detach().mul_(2)
    return y


@function()
def write_through_data(x):
    y = x + 1
    y.data.mul_(2)
    return y


@function()
def write_overlapping_slices(x):
    a, b = x[:2], x[1:]
    a.add_(1)
    b.mul_(2)
    a.sub_(3)
    return a, b


@function()
def interleaved_views(x):
    row, column = x[1], x[:, 2]
    row.add_(1)
    column.mul_(10)
    row.zero_()
    return row, column, x


@function()
def view_made_before_and_after(x):
    before = x[0]
    x.add_(1)
    after = x[0]
    after.mul_(2)
    return before, after


@function()
def masked_fill(x):
    x.masked_fill_(x > 5, 0.0)
    return x


@function()
def masked_assignment(x):
    x[x > 5] = -1.0
    return x


@function()
def index_put(x):
    x[torch.tensor([0, 2]), torch.tensor([1, 1])] = 9.0
    return x


@function()
def index_put_accumulate(x):
    x.index_put_((torch.tensor([0, 0, 1]),), torch.ones(4), accumulate=True)
    return x


@function()
def scatter(x):
    x.scatter_(1, torch.tensor([[0], [1], [2]]), 3.0)
    return x


@function()
def scatter_add(x):
    x.scatter_add_(1, torch.tensor([[0, 0], [1, 1], [2, 3]]), torch.ones(3, 2))
    return x


@function()
def index_add_copy_fill(x):
    i = torch.tensor([0, 2])
    x.index_add_(0, i, torch.ones(2, 4))
    x.index_fill_(1, torch.tensor([3]), -1)
    x.index_copy_(0, torch.tensor([1]), torch.zeros(1, 4))
    return x


# -- tensors made inside --------------------------------------------------------------------------


@function()
def chain_in_place(x):
    return (x + 0).relu_().mul_(2).sub_(1).tanh_()


@function()
def fresh_with_views(x):
    y = torch.zeros(3, 4)
    y[0] = x[1]
    y[:, 1] += x[:, 0]
    return y


@function()
def in_place_casts(x):
    y = torch.zeros(3, 4, dtype=torch.float16)
    y.add_(x.double())
    return y


@function()
def in_place_into_ints(x):
    y = torch.ones(4, dtype=torch.int64)
    y.mul_(3).add_(torch.tensor([1, 2, 3, 4], dtype=torch.int32))
    return y


@function()
def out_argument(x):
    y = torch.empty(3, 4)
    torch.add(x, 1, out=y)
    return y


@function()
def out_into_view(x):
    y = torch.zeros(2, 3, 4)
    torch.mul(x, 2, out=y[1])
    return y


@function()
def copy_with_dtype(x):
    y = torch.zeros(3, 4, dtype=torch.int32)
    y.copy_(x)
    return y


@function()
def in_place_on_transposed_fresh(x):
    y = (x * 1).t()
    y.add_(torch.ones(4, 3))
    return y.t().view(12)


@function()
def complex_parts(x):
    z = torch.complex(x, x * 2)
    torch.view_as_real(z)[..., 1] = 0
    return torch.view_as_real(z)


@function()
def foreach_in_place(x):
    parts = [x[0] + 0, x[1] + 0]
    torch._foreach_add_(parts, 1.0)
    return parts


@function()
def loop_over_rows(x):
    out = torch.empty_like(x)
    for i in range(3):
        out[i] = x[i].cumsum(0)
    return out


@function()
def addcmul_and_lerp(x):
    y = x + 0
    y.addcmul_(x, x, value=0.5)
    y.lerp_(x, 0.1)
    y.clamp_(0, 20)
    return y


@function()
def as_strided_of_fresh(x):
    y = x + 0
    y.as_strided((2, 2), (4, 1), 1).add_(1)
    return y


@function()
def logical_in_place(x):
    mask = x > 2
    mask.logical_not_()
    mask &= x > 0
    return mask


@function()
def detached_output(x):
    y = x.detach()
    x.add_(1)
    return y


@function()
def view_dtype(x):
    y = x + 0
    y.view(torch.int32)[0] = 0
    return y


# -- aliases among outputs -------------------------------------------------------------------------


@function()
def output_is_input(x):
    return x


@function()
def output_is_view_of_input(x):
    return x.view(-1), x[0]


@function()
def outputs_alias_each_other(x):
    y = x * 2
    y.add_(1)
    return y, y[0], y.t()


@function()
def output_nested(x):
    x.add_(1)
    return {"a": x[0], "b": [x, x + 1]}


# -- buffers ---------------------------------------------------------------------------------------


class _Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("cache", torch.zeros(3, 4), persistent=False)
        self.weight = nn.Parameter(torch.ones(4))


@module()
class AddToBuffer(_Buffers):
    def forward(self, x):
        self.total.add_(x.sum(0))
        self.count += 1
        return self.total / self.count


@module()
class AssignBuffer(_Buffers):
    def forward(self, x):
        self.total = self.total * 0.9 + x.mean(0)
        return x - self.total


@module()
class NonPersistentBuffer(_Buffers):
    def forward(self, x):
        self.cache[1:] = x[1:]
        return self.cache.sum() + x


@module()
class BufferViewOut(_Buffers):
    def forward(self, x):
        self.total[:2] += x[0, :2]
        return self.total.view(2, 2)


@module()
class BufferIntoInput(_Buffers):
    def forward(self, x):
        x.add_(self.cache)
        self.cache.copy_(x)
        return x * self.weight


@module()
class KeyValueCache(_Buffers):
    def forward(self, x):
        self.cache.index_copy_(0, torch.tensor([2]), x[:1])
        return self.cache @ x.t()


@module()
class UnderNoGrad(_Buffers):
    def forward(self, x):
        with torch.no_grad():
            self.total.mul_(0.5).add_(x.mean(0), alpha=0.5)
        return x * self.weight - self.total


@module()
class TwoBuffersSwapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", torch.ones(4))

    def forward(self, x):
        t = self.a.clone()
        self.a.copy_(self.b)
        self.b.copy_(t + x[0])
        return self.a, self.b


@module()
class TiedBuffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", self.a)

    def forward(self, x):
        self.b.add_(x[0])
        return self.a + 0


@module()
class TensorAttribute(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(4)

    def forward(self, x):
        self.seen.add_(x[1])
        return self.seen * 2


@module()
class FrozenParameterWritten(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x):
        self.scale.mul_(2)
        return x * self.scale


@module()
class ParameterWrittenUnderNoGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(0.9)
        return x * self.scale


@module(lambda: (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),))
class BatchNormTrain(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(x)


@module(lambda: (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),))
class BatchNormTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=0.5)

    def forward(self, x):
        return self.norm(self.norm(x) + 1)


@module(lambda: (torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),))
class BatchNormWithoutStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)


@module(lambda: (torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)),))
class InstanceNormTracking(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(3, track_running_stats=True, affine=True)

    def forward(self, x):
        return self.norm(x)


# -- random numbers --------------------------------------------------------------------------------


@module()
class Dropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, True) + nn.functional.dropout(x, 0.25, True)


@module()
class RandomInPlace(nn.Module):
    def forward(self, x):
        y = torch.empty(3, 4).uniform_(-1, 1)
        y[0].normal_(0, 2)
        y[1].bernoulli_(0.3)
        y[2].exponential_()
        return y + torch.rand(3, 4) + torch.randn_like(x)


@module()
class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(3, 4))

    def forward(self, x):
        self.last.normal_()
        return x + self.last
