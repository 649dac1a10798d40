"""Loops over ranges of sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.shapes import ranges

MODES: dict[str, dict[str, Any]] = {
    "plain": {"strict": False},
    "strict": {"strict": True},
    "converting": {"strict": True, "control_flow": "convert"},
}
all_modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
Program = Callable[[torch.Tensor], torch.Tensor]


def in_one_piece(x: torch.Tensor) -> torch.Tensor:
    length = step = x.shape[0]
    parts = []
    for offset in range(0, length, step):
        parts.append(x[offset : offset + step] * 2 + offset)
    return torch.cat(parts)


def larger_steps(x: torch.Tensor) -> torch.Tensor:
    length, step = x.shape[0], 2 * x.shape[0] + 1
    return sum([x[i : i + step] + i for i in range(0, length, step)], torch.zeros(()))


def from_a_constant_on(x: torch.Tensor) -> torch.Tensor:
    stop = x.shape[0] + 3
    step = x.shape[0]
    for i in range(3, stop, step):
        x = x * i
    return x


def nothing(x: torch.Tensor) -> torch.Tensor:
    start, stop = x.shape[0], x.shape[0] - 1
    for i in range(start, stop):
        x = x + i
    return x


def every_row(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    for i in range(n):
        x = x + i
    return x


def halves(x: torch.Tensor) -> torch.Tensor:
    n, half = x.shape[0], x.shape[0] // 2
    for i in range(0, n, half):
        x = x + i
    return x


def the_stop_of_it(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    whole = range(0, n, n)
    return x * whole.stop


def the_stop_of_it_in_a_loop(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    for i in (whole := range(0, n, n)):
        x = x * whole.stop + i
    return x


def beginning_with_a_size(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    stop = n + 1
    for i in range(n, stop):
        x = x + i
    return x


def backwards(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    stop, step = n - 8, 4 - n
    for i in range(5, stop, step):
        x = x + i
    return x


def counted(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    for i, _ in enumerate(range(0, n, n)):
        x = x + i
    return x


GENERAL = [in_one_piece, larger_steps, from_a_constant_on, nothing]
FIXED = [
    every_row, halves, the_stop_of_it, the_stop_of_it_in_a_loop, beginning_with_a_size, backwards,
    counted,
]  # fmt: skip
DYNAMIC = {"x": {0: sf.Dim("n", min=2, max=40)}}


@all_modes
@pytest.mark.parametrize("f", GENERAL, ids=lambda f: f.__name__)
def test_loops_that_are_the_same_for_all_sizes(f: Program, mode: dict[str, Any]) -> None:
    run = sf.export(f, (torch.rand(6),), dynamic_shapes=DYNAMIC, **mode).module()
    for n in (2, 6, 7, 40):
        x = torch.rand(n)
        torch.testing.assert_close(run(x), f(x))


@all_modes
@pytest.mark.parametrize("f", FIXED, ids=lambda f: f.__name__)
def test_other_ranges_fix_the_size(f: Program, mode: dict[str, Any]) -> None:
    with pytest.raises(sf.ConstraintViolationError, match="n == 6"):
        sf.export(f, (torch.rand(6),), dynamic_shapes=DYNAMIC, **mode)


def test_another_range() -> None:
    def f(x: torch.Tensor, range: Callable[..., list[int]]) -> torch.Tensor:
        n = x.shape[0]
        for i in range(0, n, n):
            x = x + i
        return x

    def take(x: torch.Tensor) -> torch.Tensor:
        return f(x, lambda *numbers: [int(n) for n in numbers])

    with pytest.raises(sf.ConstraintViolationError, match="n == 6"):
        sf.export(take, (torch.rand(6),), dynamic_shapes=DYNAMIC)


def _operands(function: Callable[..., object]) -> list[tuple[ranges.Operand, ...]]:
    code = function.__code__
    found = (ranges.operands_of_loop(code, at) for at in range(0, len(code.co_code), 2))
    return list(dict.fromkeys(operands for operands in found if operands is not None))


def test_what_a_loop_loads() -> None:
    def f(a: int, b: int) -> None:
        for _ in range(7, a, b):
            pass
        for _ in range(a):
            pass
        for _ in range(a, b if a else 3):
            pass
        for _ in range(a + 1):
            pass
        kept = range(b)
        for _ in kept:
            pass
        for _ in sorted(range(a, b)):
            pass

    assert _operands(f) == [((False, 7), (True, "a"), (True, "b")), ((True, "a"),)]
