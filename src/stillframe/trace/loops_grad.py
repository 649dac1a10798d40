"""Gradients of loops: each is a loop over the steps, from the last one to the first.

A step back needs the carried values that the step forward began with. The forward loop is run again
to collect them; the step itself is differentiated by :func:`higher_order_grad.vjp`. What every step
reads, like a weight, gets the sum of the gradients of all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack
from stillframe.errors import NotSupported
from stillframe.shapes.env import Size, to_size
from stillframe.trace import higher_order_grad as grad
from stillframe.trace.higher_order import record

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

higher_order = torch.ops.higher_order


def scan_backward(
    recorder: Recorder,
    op: Any,
    module: Any,
    values: tuple[Any, ...],
    grads: Sequence[Any],
    needs: Sequence[int],
) -> list[Any]:
    """A scan that finds the carry of every step, and one from the end to the beginning.

    The second carries the gradient of the carry, and sums of the gradients of what does not change
    from step to step.
    """
    init, xs, extra = values
    _check_tensors(recorder, "scan", init)
    n, m = len(init), len(init) + len(xs)
    floating = [i for i, value in enumerate(init) if grad.is_differentiable(value)]
    again = grad.replayed(module)

    def with_carry(*leaves: Any) -> Any:
        outputs = pytree.tree_leaves(again(*leaves))
        return (*outputs[:n], *(leaf.clone() for leaf in leaves[:n]))

    carries = list(record(recorder, op, (with_carry, init, xs, extra), {})[n:])
    of_xs, of_extra = [i for i in needs if n <= i < m], [i for i in needs if i >= m]
    product = grad.vjp(recorder, module, m + len(extra), [*floating, *of_xs, *of_extra])
    k, outs = len(floating), len(grads) - len(floating)
    flowing = [*grads[:k], *(torch.zeros_like(extra[i - m]) for i in of_extra)]

    def step(*leaves: Any) -> Any:
        flows, totals, rest = leaves[:k], leaves[k : len(flowing)], leaves[len(flowing) :]
        slices, given, fixed = rest[:m], rest[m : m + outs], rest[m + outs :]
        found = product(*slices, *fixed, *flows, *given)
        here, last = found[k : k + len(of_xs)], found[k + len(of_xs) :]
        return (*found[:k], *(t + g for t, g in zip(totals, last, strict=True)), *here)

    reverse = [x.flip([0]) for x in (*carries, *xs, *grads[k:])]
    found = record(recorder, op, (step, flowing, reverse, extra), {})
    by_place = dict(zip([*floating, *of_extra], found, strict=False))
    by_place.update((i, g.flip([0])) for i, g in zip(of_xs, found[len(flowing) :], strict=True))
    return [by_place[i] for i in needs]


def prefixes_backward(
    recorder: Recorder,
    op: Any,
    module: Any,
    values: tuple[Any, ...],
    length: Size,
    grads: Sequence[Any],
    needs: Sequence[int],
) -> list[Any]:
    """The gradients of ``associative_scan``.

    With y[0] = x[0] and y[t] = f(y[t - 1], x[t]), the gradient of y[t] is what flows into it plus
    what comes back from y[t + 1]. One scan from the end to the beginning carries it.
    """
    xs, extra = values
    count = len(xs)
    floating = [i for i, x in enumerate(xs) if grad.is_differentiable(x)]
    of_xs = [i for i in needs if i < count]
    of_extra = [i for i in needs if i >= count]
    if recorder.env.wrap(to_size(length)) == 1:  # the only result is the only slice
        by_place = dict(zip(floating, grads, strict=True))
        return [by_place[i] if i < count else torch.zeros_like(extra[i - count]) for i in needs]
    again = grad.replayed(module)
    prefixes = record(recorder, op, (again, xs, extra), {})
    # the operands of one step: y[t - 1], x[t], and what does not change
    places = [*floating, *(count + i for i in of_xs), *(count + i for i in of_extra)]
    product = grad.vjp(recorder, module, 2 * count + len(extra), places)
    n, m = len(floating), len(of_extra)

    def step(*leaves: Any) -> Any:
        flows, totals, rest = leaves[:n], leaves[n : n + m], leaves[n + m :]
        here, slices, fixed = rest[:n], rest[n : n + 2 * count], rest[n + 2 * count :]
        coming = [a + b for a, b in zip(flows, here, strict=True)]
        found = product(*slices, *fixed, *coming)
        sums = [a + b for a, b in zip(totals, found[len(found) - m :], strict=True)]
        return *found[:n], *sums, *found[n : len(found) - m]

    init = [torch.zeros_like(xs[i][0]) for i in floating]
    init += [torch.zeros_like(extra[i - count]) for i in of_extra]
    moving = [g[1:] for g in grads] + [y[:-1] for y in prefixes] + [x[1:] for x in xs]
    reverse = [x.flip([0]) for x in moving]
    found = list(record(recorder, higher_order.scan, (step, init, reverse, extra), {}))
    first = {
        i: (flow + g[0]).unsqueeze(0) for i, flow, g in zip(floating, found, grads, strict=False)
    }
    by_place = dict(zip(of_extra, found[n : n + m], strict=True))
    for i, others in zip(of_xs, found[n + m :], strict=True):
        by_place[i] = torch.cat([first[i], others.flip([0])])
    return [by_place[i] for i in needs]


@dataclass(frozen=True)
class WhileLoop:
    """A ``while_loop`` to be differentiated.

    Attributes:
        cond, body: its functions as graphs.
        carried: the values before the first step.
        extra: what every step reads.
    """

    recorder: Recorder
    cond: Any
    body: Any
    carried: list[Any]
    extra: list[Any]

    def backward(self, grads: Sequence[Any], needs: Sequence[int], *, stacked: bool) -> list[Any]:
        """The gradients of the operands at ``needs``.

        Args:
            grads: of the last carried values; or, ``stacked``, of those after every step.
            needs: places among the carried values and the others behind them.
        """
        count = len(self.carried)
        floating = [i for i, v in enumerate(self.carried) if grad.is_differentiable(v)]
        of_extra = [i for i in needs if i >= count]
        steps, before = self._replay()
        n, m, given = len(floating), len(of_extra), len(grads) if stacked else 0
        product = grad.vjp(
            self.recorder, self.body, count + len(self.extra), [*floating, *of_extra]
        )

        def going_on(left: Any, *leaves: Any) -> Any:
            return left > 0

        def step(left: Any, *leaves: Any) -> Any:
            flows, totals, rest = list(leaves[:n]), leaves[n : n + m], leaves[n + m :]
            at = left - 1
            if stacked:
                flows = [f + _row(g, at) for f, g in zip(flows, rest, strict=False)]
            values = [_row(b, at) for b in rest[given : given + count]]
            found = product(*values, *rest[given + count :], *flows)
            sums = [a + b for a, b in zip(totals, found[n:], strict=True)]
            return at, *found[:n], *sums

        totals = [torch.zeros_like(self.extra[i - count]) for i in of_extra]
        flows = [_without_steps(steps, g) for g in grads] if stacked else list(grads)
        fixed = (*(grads if stacked else ()), *before, *self.extra)
        carried = (steps, *flows, *totals)
        found = record(self.recorder, higher_order.while_loop, (going_on, step, carried, fixed), {})
        by_place = dict(zip([*floating, *of_extra], found[1:], strict=True))
        return [by_place[i] for i in needs]

    def _replay(self) -> tuple[Any, list[Any]]:
        """The number of steps, and of each carried value what every step begins with, stacked.

        The stacks have one row more than there are steps, or two if there is no step.
        """
        _check_tensors(self.recorder, "while_loop", self.carried)
        cond, body = grad.replayed(self.cond), grad.replayed(self.body)

        def going_on(number: Any, *leaves: Any) -> Any:
            return cond(*leaves)

        def counted(number: Any, *leaves: Any) -> Any:
            return number + 1, *pytree.tree_leaves(body(*leaves))

        start = torch.zeros((), dtype=torch.int64, device=self.carried[0].device)
        numbers, *after = record(
            self.recorder,
            higher_order.while_loop_stack_output,
            (going_on, counted, (start, *self.carried), tuple(self.extra)),
            {},
        )
        pairs = zip(self.carried, after, strict=True)
        return numbers[-1], [torch.cat([first.unsqueeze(0), rest]) for first, rest in pairs]


def _check_tensors(recorder: Recorder, owner: str, carried: Sequence[Any]) -> None:
    """Integers of Python cannot be collected from all steps."""
    if all(isinstance(value, torch.Tensor) for value in carried):
        return
    raise NotSupported(
        f"The gradient of a {owner} that carries integers of Python.",
        where=stack.summary(stack.raw_stack(recorder.floor)),
        hints=["carry a tensor: torch.tensor(0)"],
    )


def _row(stack_of_rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """One row, at an index that only the data tells."""
    return stack_of_rows.index_select(0, at.reshape(1)).squeeze(0)


def _without_steps(steps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """What flows into the carried values from behind the last step.

    A loop without steps returns them as its only row.
    """
    return torch.where(steps == 0, gradient[0], torch.zeros_like(gradient[0]))
