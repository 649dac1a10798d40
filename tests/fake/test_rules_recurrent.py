"""LSTM, GRU and RNN against the real kernels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error
from tests.fake.symbols import Symbols
from torch import nn

aten = torch.ops.aten
OPERATORS: dict[Any, Any] = {nn.LSTM: aten.lstm, nn.GRU: aten.gru, nn.RNN: aten.rnn_tanh}


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach() for p in module.parameters()]


def states(module: Any, batch: int) -> Any:
    layers = module.num_layers * (2 if module.bidirectional else 1)
    hidden = torch.zeros(layers, batch, module.proj_size or module.hidden_size)
    if not isinstance(module, nn.LSTM):
        return hidden
    return [hidden, torch.zeros(layers, batch, module.hidden_size)]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", OPERATORS)
def test_sequences(kind: Any) -> None:
    projections = (0, 2) if kind is nn.LSTM else (0,)
    flags = (False, True)
    for layers, both, first, projection in itertools.product((1, 2), flags, flags, projections):
        more = {"proj_size": projection} if projection else {}
        module = kind(4, 5, layers, bidirectional=both, batch_first=first, **more)
        x = torch.randn(3, 7, 4)
        hx = states(module, 3 if first else 7)
        rest = (True, layers, 0.0, False, both, first)
        check(OPERATORS[kind].input, x, hx, weights(module), *rest)


@pytest.mark.parametrize("kind", OPERATORS)
def test_packed_sequences(kind: Any) -> None:
    module = kind(4, 5)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(6, 3, 4), [6, 4, 2])
    hx = states(module, 3)
    rest = (True, 1, 0.0, False, False)
    check(OPERATORS[kind].data, packed.data, packed.batch_sizes, hx, weights(module), *rest)


def test_cells() -> None:
    x, h = torch.randn(3, 4), torch.zeros(3, 5)
    check(aten.lstm_cell.default, x, [h, h.clone()], *weights(nn.LSTMCell(4, 5)))
    check(aten.gru_cell.default, x, h, *weights(nn.GRUCell(4, 5)))
    check(aten.rnn_tanh_cell.default, x, h, *weights(nn.RNNCell(4, 5)))


def test_one_layer() -> None:
    """The workspace, last of the results, is nobody's business."""
    s = Symbols()
    time, batch = s.size(7), s.size(3)
    params = weights(nn.LSTM(4, 5))
    rest = (False, [], 2, 5, 1, True, False, False, True)
    results = s.run(
        aten.mkldnn_rnn_layer.default, s.fake(time, batch, 4), *(s.fake(*p.shape) for p in params),
        s.fake(batch, 5), s.fake(batch, 5), *rest,
    )  # fmt: skip
    assert [r.sizes for r in results[:3]] == [(time, batch, 5), (batch, 5), (batch, 5)]
    x, h = torch.randn(7, 3, 4), torch.zeros(3, 5)
    real = aten.mkldnn_rnn_layer.default(x, *params, h, h.clone(), *rest)
    assert [r.shape for r in real[:3]] == [(7, 3, 5), (3, 5), (3, 5)]
    assert s.guards() == []


def test_refused_as_eager_does() -> None:
    module = nn.GRU(4, 5)
    rest = (weights(module), True, 1, 0.0, False, False, False)
    check_error(aten.gru.input, torch.randn(3, 7, 6), torch.zeros(1, 7, 5), *rest)


def test_time_and_batch_are_free() -> None:
    s = Symbols()
    b, n = s.size(2), s.size(9)
    hx = [s.fake(1, b, 32), s.fake(1, b, 32)]
    params = [s.fake(128, 64), s.fake(128, 32), s.fake(128), s.fake(128)]
    output, hidden, cell = s.run(
        aten.lstm.input, s.fake(b, n, 64), hx, params, True, 1, 0.0, False, False, True
    )
    assert output.sizes == (b, n, 32) and hidden.sizes == cell.sizes == (1, b, 32)
    assert s.guards() == []


@pytest.mark.parametrize("batch_first", (False, True))
def test_packing(batch_first: bool) -> None:
    """How many rows and steps there are is up to the lengths."""
    lengths = torch.tensor([5, 3, 1])
    for x in (torch.randn(5, 3, 2), torch.randn(5, 3), torch.randn(2, 3, 5).permute(2, 1, 0)):
        x = x.transpose(0, 1) if batch_first else x
        assert not check(aten._pack_padded_sequence.default, x, lengths, batch_first).guards
        data, sizes = aten._pack_padded_sequence(x, lengths, batch_first)
        for total in (0, -1, 7):
            op = aten._pad_packed_sequence.default
            assert not check(op, data, sizes, batch_first, 0.0, total).guards
    x = torch.randn(3, 3, 2)
    check_error(aten._pack_padded_sequence.default, x, lengths[:2], batch_first)
    check_error(aten._pack_padded_sequence.default, x, lengths.int(), batch_first)
