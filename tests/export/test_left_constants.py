"""Constants that forward makes at its first call and keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf

both_modes = pytest.mark.parametrize("strict", [True, False], ids=["strict", "plain"])


class Making(torch.nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run
        self.table: Any = None
        self.register_buffer("scale", torch.full((2,), 3.0))

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def a_table(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = 1.0 / torch.arange(1.0, 3.0) ** 2
    return x * self.table + self.scale


def a_literal(self: Any, x: torch.Tensor) -> Any:
    table = self.table
    if table is None:
        table = torch.tensor([2.0, 5.0]).pow(2)
    self.table = table.to(x.device)
    return torch.where(x.sum() > 1, self.table, self.scale) + x


def two_tables(self: Any, x: torch.Tensor) -> Any:
    y = x * 2
    if self.table is None:
        self.table, self.other = torch.ones(2).cumsum(0), torch.arange(2.0)
    y = (y + self.table) @ self.other
    return y + torch.ones(2)[0]


def beside_a_result(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.arange(2.0)
    self.last = x * self.table
    return self.last + 1


def from_an_input(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = x[0] * 0 + 1
    return x * self.table


def from_a_size(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.full((2,), x.shape[0], dtype=torch.float32)
    return x * self.table


def of_a_size(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.ones(x.shape[0], 2)
    return x * self.table


def from_state(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = self.scale * 2
    return x * self.table


def random_numbers(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.rand(2)
    return x * self.table


def written_later(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.ones(2)
    else:
        self.table.add_(1)
    return x * self.table


def written_at_once(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.ones(2)
    y = x * self.table
    self.table.mul_(2)
    return y


def given_away(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.arange(2.0)
    return x * self.table, self.table


def a_view_given_away(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.arange(2.0)
    return x * self.table, self.table[:1]


def another_program(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.arange(2.0)
        return x * self.table
    return x + self.table


def another_number(self: Any, x: torch.Tensor) -> Any:
    factor = 2.0 if self.table is None else -0.0
    if self.table is None:
        self.table = torch.arange(2.0)
    return x * self.table + factor


def more_work(self: Any, x: torch.Tensor) -> Any:
    y = x
    if self.table is None:
        self.table = torch.arange(2.0)
    else:
        y = y + 1
    return y * self.table


def another_table_each_time(self: Any, x: torch.Tensor) -> Any:
    y = x * (torch.ones(2) if self.table is None else self.table)
    self.table = torch.full((2,), 2.0)
    return y


def growing(self: Any, x: torch.Tensor) -> Any:
    self.table = torch.ones(2) if self.table is None else self.table + 1
    return x * self.table


def the_wrong_one(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table, self.other = torch.ones(2), torch.arange(2.0)
        return x * self.table + self.other
    return x * self.other + self.table


def its_values(self: Any, x: torch.Tensor) -> Any:
    if self.table is None:
        self.table = torch.tensor(3)
    return x * self.table.item()


def whether_it_is_there(self: Any, x: torch.Tensor) -> Any:
    y = x if self.table is None else x + 1
    if self.table is None:
        self.table = torch.arange(2.0)
    return y * self.table


NOTED = [a_table, a_literal, two_tables]
REFUSED = [
    from_an_input, from_a_size, of_a_size, from_state, random_numbers, written_later,
    written_at_once, given_away, a_view_given_away, another_program, another_number, more_work,
    another_table_each_time, growing, the_wrong_one, its_values, whether_it_is_there,
]  # fmt: skip
DYNAMIC = {"x": {0: sf.Dim("rows", min=2)}}


@both_modes
@pytest.mark.parametrize("run", [*NOTED, beside_a_result], ids=lambda f: f.__name__)
def test_constants_that_are_kept(run: Callable[..., Any], strict: bool) -> None:
    module = Making(run)
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    assert module.table is None
    assert any("self.table" in note for note in program.notes)
    for rows in (3, 2, 5):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(program.module()(x), module(x))


@both_modes
@pytest.mark.parametrize("run", NOTED, ids=lambda f: f.__name__)
def test_constants_that_are_there_already(run: Callable[..., Any], strict: bool) -> None:
    module = Making(run)
    module(torch.ones(3, 2))
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    x = torch.rand(4, 2)
    torch.testing.assert_close(program.module()(x), module(x))


@both_modes
@pytest.mark.parametrize("run", REFUSED, ids=lambda f: f.__name__)
def test_what_is_no_constant_is_refused(run: Callable[..., Any], strict: bool) -> None:
    module = Making(run)
    with pytest.raises(sf.SideEffectError, match=r"self\.table") as caught:
        sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=strict)
    cause = caught.value.__cause__
    assert cause is None or isinstance(cause, sf.StillframeError)
    assert module.table is None
