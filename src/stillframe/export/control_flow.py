"""The loops of programs, as plain Python: what the higher-order operators mean.

The code of a program calls these with the functions of its subgraphs. They take and give what the
operators take and give, and eager autograd goes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Function = Callable[..., Any]


def while_loop(
    cond: Function, body: Function, carried: Sequence[Any], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """``body`` as long as ``cond`` holds. Results are never the operands themselves."""
    values = tuple(v.clone() if isinstance(v, torch.Tensor) else v for v in carried)
    while cond(*values, *extra):
        values = body(*values, *extra)
    return values


def while_loop_stack_output(
    cond: Function, body: Function, carried: Sequence[Any], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """The results of all steps, stacked; without a step the carried values as one step."""
    values, steps = tuple(carried), []
    while cond(*values, *extra):
        values = body(*values, *extra)
        steps.append(values)
    return tuple(torch.stack(column) for column in zip(*(steps or [values]), strict=True))


def map_impl(body: Function, xs: Sequence[torch.Tensor], extra: Sequence[Any]) -> tuple[Any, ...]:
    """``body`` of each slice along the first dim, stacked."""
    steps = [body(*slices, *extra) for slices in zip(*xs, strict=True)]
    return tuple(_stacked(column) for column in zip(*steps, strict=True))


def scan(
    body: Function, init: Sequence[Any], xs: Sequence[torch.Tensor], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """``body`` of a carry and of each slice; the last carry, and the other results stacked."""
    carry, steps = tuple(init), []
    for slices in zip(*xs, strict=True):
        results = body(*carry, *slices, *extra)
        carry = results[: len(carry)]
        steps.append(results[len(carry) :])
    return (*carry, *(_stacked(column) for column in zip(*steps, strict=True)))


def associative_scan(
    body: Function, xs: Sequence[torch.Tensor], extra: Sequence[Any]
) -> tuple[Any, ...]:
    """All prefixes of a combination, from the first slice to the last."""
    rows = list(zip(*xs, strict=True))
    steps = rows[:1]
    for row in rows[1:]:
        steps.append(tuple(body(*steps[-1], *row, *extra)))
    return tuple(torch.stack(column) for column in zip(*steps, strict=True))


def _stacked(column: Sequence[Any]) -> Any:
    return None if column[0] is None else torch.stack(tuple(column))


LOOPS: dict[str, Function] = {
    f.__name__: f for f in (while_loop, while_loop_stack_output, map_impl, scan, associative_scan)
}
