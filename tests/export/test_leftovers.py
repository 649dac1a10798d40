"""Results that forward leaves on the module: a note where no later call looks, else refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf


class Leaving(torch.nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run
        self.calls = 0
        self.last: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def a_result(self: Any, x: torch.Tensor) -> Any:
    self.last = x * 2
    return self.last + 1


def a_list(self: Any, x: torch.Tensor) -> Any:
    self.made = [x, x + 1]
    return x + self.made[0].sum()


def a_constant(self: Any, x: torch.Tensor) -> Any:
    self.scale = 2.0
    return x * self.scale


def a_counter(self: Any, x: torch.Tensor) -> Any:
    self.calls += 1
    return x + self.calls


def a_number_read_before(self: Any, x: torch.Tensor) -> Any:
    y = x + torch.tensor(self.calls)
    self.calls = 5
    return y


def a_size_of_the_last(self: Any, x: torch.Tensor) -> Any:
    y = x if self.last is None else x + self.last.shape[0]
    self.last = x
    return y


def a_cache(self: Any, x: torch.Tensor) -> Any:
    if not hasattr(self, "cache"):
        self.cache = x * 2
    return x + self.cache


def a_comparison_of_sizes(self: Any, x: torch.Tensor) -> Any:
    old = getattr(self, "old", None)
    if old is not None and old.shape[0] != x.shape[0]:
        return x
    self.old = x
    return x + 1


def whether_there_was_one(self: Any, x: torch.Tensor) -> Any:
    if isinstance(getattr(self, "old", None), torch.Tensor):
        x = x + 1
    self.old = x
    return x


def a_toggle(self: Any, x: torch.Tensor) -> Any:
    self.flag = not getattr(self, "flag", False)
    return x


def how_many(self: Any, x: torch.Tensor) -> Any:
    y = x + len(getattr(self, "history", ()))
    self.history = [x]
    return y


def a_size(self: Any, x: torch.Tensor) -> Any:
    self.calls = x.shape[0]
    return x


NOTED = [a_result, a_list, a_constant]
REFUSED = [
    a_counter, a_number_read_before, a_size_of_the_last, a_cache, a_comparison_of_sizes,
    whether_there_was_one, a_toggle, how_many, a_size,
]  # fmt: skip
DYNAMIC = {"x": {0: sf.Dim("rows", min=1)}}


@pytest.mark.parametrize("run", NOTED, ids=lambda f: f.__name__)
def test_what_no_call_looks_at_is_noted(run: Callable[..., Any]) -> None:
    module = Leaving(run)
    before = dict(module.__dict__)
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=True)
    assert module.__dict__ == before
    assert len(program.notes) == 1
    assert "no call looks at it" in program.notes[0]
    for rows in (1, 4):
        x = torch.rand(rows, 2)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("run", REFUSED, ids=lambda f: f.__name__)
def test_what_a_call_looks_at_is_refused(run: Callable[..., Any]) -> None:
    module = Leaving(run)
    before = dict(module.__dict__)
    with pytest.raises(sf.SideEffectError, match="self."):
        sf.export(module, (torch.ones(3, 2),), dynamic_shapes=DYNAMIC, strict=True)
    assert module.__dict__ == before


@pytest.mark.parametrize("run", [*NOTED, *REFUSED], ids=lambda f: f.__name__)
def test_plain_tracing_refuses_all(run: Callable[..., Any]) -> None:
    with pytest.raises(sf.SideEffectError):
        sf.export(Leaving(run), (torch.ones(3, 2),), dynamic_shapes=DYNAMIC)
