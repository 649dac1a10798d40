"""Losses whose rules the sweep does not reach, against the real kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import check, check_error
from tests.fake.symbols import Symbols

aten = torch.ops.aten


def sequences(*targets: int) -> tuple[Any, ...]:
    """Log-probabilities, targets, and the two kinds of lengths, for a batch of three."""
    log_probs = torch.randn(50, 3, 15).log_softmax(2)
    return log_probs, torch.randint(1, 15, targets), [50, 40, 50], [30, 25, 20]


@pytest.mark.parametrize("reduction", (0, 1, 2))
@pytest.mark.parametrize("targets", ((3, 30), (75,)), ids=("padded", "joined"))
def test_ctc_loss(reduction: int, targets: tuple[int, ...]) -> None:
    log_probs, labels, inputs, wanted = sequences(*targets)
    lengths = (torch.tensor(inputs), torch.tensor(wanted))
    check(aten.ctc_loss.IntList, log_probs, labels, inputs, wanted, 0, reduction)
    check(aten.ctc_loss.Tensor, log_probs, labels, *lengths, 0, reduction)
    check(aten.ctc_loss.IntList, log_probs, labels, inputs, wanted, 0, reduction, True)


@pytest.mark.parametrize("reduction", (0, 1))
def test_ctc_loss_of_one_sequence(reduction: int) -> None:
    log_probs, labels = torch.randn(50, 15).log_softmax(1), torch.randint(1, 15, (30,))
    check(aten.ctc_loss.IntList, log_probs, labels, [50], [30], 0, reduction)


def test_ctc_loss_as_autograd_has_it() -> None:
    log_probs, labels, inputs, wanted = sequences(3, 30)
    check(aten._ctc_loss.default, log_probs, labels, inputs, wanted)
    losses, table = aten._ctc_loss.default(log_probs, labels, inputs, wanted)
    grad = torch.ones(3)
    backward = aten._ctc_loss_backward.default
    check(backward, grad, log_probs, labels, inputs, wanted, losses, table, 0)
    s = Symbols()
    time, batch = s.size(50), s.size(3)
    lengths = [s.fake(batch, dtype=torch.int64) for _ in range(2)]
    losses, table = s.run(
        aten._ctc_loss.Tensor, s.fake(time, batch, 15), s.fake(batch, 30, dtype=torch.int64),
        *lengths,
    )  # fmt: skip
    assert losses.sizes == (batch,) and table.sizes[:2] == (batch, time)
    assert table.sizes[2].op == "symbol", "as wide as the longest target, which the data tells"
    assert s.guards() == []


def test_ctc_loss_refuses_what_the_kernel_refuses() -> None:
    log_probs, labels, inputs, wanted = sequences(3, 30)
    for op in (aten.ctc_loss.IntList, aten._ctc_loss.default):
        check_error(op, log_probs, labels, inputs[:2], wanted)
        check_error(op, log_probs, labels, [50, 51, 50], wanted)
        check_error(op, log_probs, labels, inputs, wanted, 15)
        check_error(op, log_probs, labels, inputs, wanted, -1)
    check_error(aten._ctc_loss.default, log_probs, labels.float(), inputs, wanted)
