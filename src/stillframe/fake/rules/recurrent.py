"""Recurrent layers: LSTM, GRU and plain RNN over whole sequences, and single cells.

The kernels write ``(time, batch, features)``; with ``batch_first`` the output is a transposed view
of that. The number of time steps and the batch are free.
"""

from __future__ import annotations

from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import contiguous
from stillframe.fake.rules.sizing import must
from stillframe.fake.rules.views import swapped
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import Size
from stillframe.symbolic import unwrap

aten = torch.ops.aten


def _width(ctx: RuleContext, hidden: FakeTensor, bidirectional: bool) -> Any:
    """Features of the output: those of the hidden state, of both directions."""
    size = hidden.sizes[-1]
    return unwrap(size * 2) if bidirectional else size


def _check_state(
    ctx: RuleContext, states: list[FakeTensor], batch: Size, layers: int, bidirectional: bool
) -> None:
    for state in states:
        if len(state.sizes) != 3:
            raise RuntimeError(f"Expected hidden state to have 3 dims, got {len(state.sizes)}")
        for have, want, what in (
            (state.sizes[0], layers * (2 if bidirectional else 1), "layers and directions"),
            (state.sizes[1], batch, "batch"),
        ):
            if have != want:
                text = f"Expected hidden size for {what} {want}, got {list(state.sizes)}"
                ctx.require_same(have, want, text)


def _sequence(
    ctx: RuleContext,
    x: FakeTensor,
    states: list[FakeTensor],
    params: list[FakeTensor],
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> FakeTensor:
    if len(x.sizes) != 3:
        raise RuntimeError(f"input must have 3 dimensions, got {len(x.sizes)}")
    batch, time = (x.sizes[0], x.sizes[1]) if batch_first else (x.sizes[1], x.sizes[0])
    _check_state(ctx, states, batch, layers, bidirectional)
    ctx.require_same(
        x.sizes[2],
        params[0].sizes[1],
        f"input.size(-1) must be equal to input_size. Expected {params[0].sizes[1]}, got "
        f"{x.sizes[2]}",
    )
    width = _width(ctx, states[0], bidirectional)
    output = contiguous(ctx, (time, batch, width), x.dtype, x.device)
    return swapped(ctx, output, 0, 1) if batch_first else output


def _states(ctx: RuleContext, states: list[FakeTensor]) -> tuple[FakeTensor, ...]:
    return tuple(contiguous(ctx, s.sizes, s.dtype, s.device) for s in states)


@rule(aten.lstm.input)
def lstm(
    ctx: RuleContext,
    x: FakeTensor,
    hx: list[FakeTensor],
    params: list[FakeTensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[FakeTensor, ...]:
    """Output, hidden state, cell state."""
    output = _sequence(ctx, x, hx, params, num_layers, bidirectional, batch_first)
    return (output, *_states(ctx, hx))


@rule(aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def rnn(
    ctx: RuleContext,
    x: FakeTensor,
    hx: FakeTensor,
    params: list[FakeTensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[FakeTensor, ...]:
    """Output and hidden state."""
    output = _sequence(ctx, x, [hx], params, num_layers, bidirectional, batch_first)
    return (output, *_states(ctx, [hx]))


@rule(aten.lstm.data)
def lstm_packed(
    ctx: RuleContext,
    data: FakeTensor,
    batch_sizes: FakeTensor,
    hx: list[FakeTensor],
    params: list[FakeTensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[FakeTensor, ...]:
    """Over a packed sequence: one row for each step of each sequence."""
    sizes = (data.sizes[0], _width(ctx, hx[0], bidirectional))
    return (contiguous(ctx, sizes, data.dtype, data.device), *_states(ctx, hx))


@rule(aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data)
def rnn_packed(
    ctx: RuleContext,
    data: FakeTensor,
    batch_sizes: FakeTensor,
    hx: FakeTensor,
    params: list[FakeTensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[FakeTensor, ...]:
    sizes = (data.sizes[0], _width(ctx, hx, bidirectional))
    return (contiguous(ctx, sizes, data.dtype, data.device), *_states(ctx, [hx]))


@rule(aten.lstm_cell.default)
def lstm_cell(
    ctx: RuleContext, x: FakeTensor, hx: list[FakeTensor], *_: Any
) -> tuple[FakeTensor, ...]:
    """One step: hidden state and cell state."""
    return _states(ctx, hx)


@rule(aten.gru_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default)
def rnn_cell(ctx: RuleContext, x: FakeTensor, hx: FakeTensor, *_: Any) -> FakeTensor:
    return contiguous(ctx, hx.sizes, hx.dtype, hx.device)


@rule(aten.mkldnn_rnn_layer.default)
def mkldnn_layer(
    ctx: RuleContext,
    x: FakeTensor,
    weight0: FakeTensor,
    weight1: FakeTensor,
    weight2: FakeTensor,
    weight3: FakeTensor,
    hx: FakeTensor,
    cx: FakeTensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    *_: Any,
) -> tuple[FakeTensor, ...]:
    """One layer in one direction: output, hidden state, cell state, workspace.

    The size of the workspace depends on the machine, and without gradients there is none; only the
    backward operator reads it.
    """
    output = contiguous(ctx, (x.sizes[0], x.sizes[1], hidden_size), x.dtype, x.device)
    workspace = contiguous(ctx, (0,), torch.uint8, x.device)
    return (output, *_states(ctx, [hx, cx]), workspace)


# -- packed sequences ------------------------------------------------------------------------------


@rule(aten._pack_padded_sequence.default)
def pack_padded_sequence(
    ctx: RuleContext, x: FakeTensor, lengths: FakeTensor, batch_first: bool
) -> tuple[FakeTensor, FakeTensor]:
    """One row for each step of each sequence, and how many sequences have each step.

    Every sequence has a step at least, so there are as many rows as sequences or more.
    """
    if len(lengths.sizes) != 1 or lengths.dtype is not torch.int64 or lengths.device.type != "cpu":
        raise RuntimeError(
            "'lengths' argument should be a 1D CPU int64 tensor, but got "
            f"{len(lengths.sizes)}D {lengths.device} tensor of {lengths.dtype}"
        )
    batch = x.sizes[0] if batch_first else x.sizes[1]
    message = "Expected `len(lengths)` to be equal to batch_size"
    ctx.require_same(lengths.sizes[0], batch, message)
    rows = ctx.unbacked(batch if type(batch) is int else 1)
    return (
        contiguous(ctx, (rows, *x.sizes[2:]), x.dtype, x.device),
        contiguous(ctx, (ctx.unbacked(1),), torch.int64, lengths.device),
    )


@rule(aten._pad_packed_sequence.default)
def pad_packed_sequence(
    ctx: RuleContext,
    data: FakeTensor,
    batch_sizes: FakeTensor,
    batch_first: bool,
    padding_value: Any,
    total_length: int,
) -> tuple[FakeTensor, FakeTensor]:
    """The sequences side by side, and their lengths; the first batch size is their number."""
    steps: Size = batch_sizes.sizes[0]
    if total_length > 0:
        message = "Expected total_length to be at least the length of the longest sequence"
        must(ctx, total_length >= steps, message)
        steps = total_length
    batch, rest = ctx.unbacked(1), data.sizes[1:]
    padded = contiguous(ctx, (steps, batch, *rest), data.dtype, data.device)
    if batch_first:
        strides = (padded.strides[1], padded.strides[0], *padded.strides[2:])
        padded = ctx.new(data, (batch, steps, *rest), strides=strides)
    return padded, contiguous(ctx, (batch,), torch.int64, batch_sizes.device)
