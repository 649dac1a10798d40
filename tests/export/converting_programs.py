"""Small programs with control flow on data: those that are converted, and those that are refused.

Each takes tensors; of those with dims the first is dynamic. ``INPUTS`` of a program take each way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

Tensor = torch.Tensor


class Program(NamedTuple):
    """A function and inputs that take each way; the first are those of the export."""

    function: Callable[..., Any]
    inputs: list[tuple[Tensor, ...]]


class Refused(NamedTuple):
    """A function, its inputs, the rule that it breaks, and a part of the message."""

    function: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    rule: str
    text: str

    @property
    def name(self) -> str:
        """What the function, or the module, is called."""
        return getattr(self.function, "__name__", type(self.function).__name__)


CONVERTED: list[Program] = []
REFUSED: list[Refused] = []

UP, DOWN, FEW, MANY = (
    torch.tensor([1.0, 2.0, 3.0]),
    torch.tensor([-1.0, -2.0]),
    torch.tensor([0.25, 0.5, 0.125, 0.0625]),
    torch.tensor([9.0, 8.0, -3.0, 2.0, 1.0]),
)
X = [(UP,), (DOWN,), (FEW,), (MANY,)]


def converted(*inputs: tuple[Tensor, ...]) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        CONVERTED.append(Program(function, list(inputs) or X))
        return function

    return register


def refused(rule: str, text: str = "", *inputs: Tensor) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        REFUSED.append(Refused(function, inputs or (UP,), rule, text))
        return function

    return register


# -- if ----------------------------------------------------------------------------------------


@converted()
def if_else(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x * 2
    else:
        y = x - 1
    return y + 1


@converted()
def if_alone(x: Tensor) -> Tensor:
    y = x * 3
    if x.sum() > 0:
        y = y + 1
    return y


@converted()
def if_replaces_the_argument(x: Tensor) -> Tensor:
    if x.min() < 0:
        x = x.abs()
    return x.sqrt()


@converted()
def elif_chain(x: Tensor) -> Tensor:
    s = x.sum()
    if s < 0:
        y = -x
    elif s < 1:
        y = x * 10
    elif s < 10:
        y = x * 100
    else:
        y = x * 1000
    return y


@converted()
def nested_ifs(x: Tensor) -> Tensor:
    if x.sum() > 0:
        if x.max() > 5:
            y = x / x.max()
        else:
            y = x + 0.5
        y = y * 2
    else:
        y = x
    return y


@converted()
def ifs_in_a_row(x: Tensor) -> Tensor:
    y = x
    if x.sum() > 0:
        y = y + 1
    if x.max() > 5:
        y = y * 2
    if y.min() < 0:
        y = y - y.min()
    return y


@converted()
def early_return(x: Tensor) -> Tensor:
    if x.sum() < 0:
        return -x
    y = x * 2
    return y + 1


@converted()
def both_return(x: Tensor) -> Any:
    if x.sum() < 0:
        return x.sum(), x
    else:
        return x.max(), x + 1


@converted()
def early_returns_in_a_row(x: Tensor) -> Tensor:
    if x.sum() < 0:
        return x * 1
    if x.max() > 5:
        return x * 2
    y = x.exp()
    if y.sum() > 10:
        return y * 3
    return y * 4


@converted()
def conditional_expression(x: Tensor) -> Tensor:
    return (x + 1 if x.sum() > 0 else x - 1) * 2


@converted()
def nested_conditional_expressions(x: Tensor) -> Tensor:
    y = x * 2 if x.sum() > 5 else x * 3 if x.sum() > 0 else x * 4
    return y + x


@converted()
def conditional_argument(x: Tensor) -> Tensor:
    return torch.add(x, x.max() if x.sum() > 0 else x.min())


@converted()
def one_way_hands_on_the_input(x: Tensor) -> Tensor:
    y = x if x.sum() > 0 else x * 2
    return y + x


@converted()
def number_that_differs(x: Tensor) -> Tensor:
    if x.sum() > 0:
        k = 2
    else:
        k = 5
    return x * k + k


@converted()
def float_that_differs(x: Tensor) -> Tensor:
    scale = 0.5 if x.sum() > 0 else 1.25
    return x * scale


@converted()
def bool_that_differs(x: Tensor) -> Tensor:
    if x.sum() > 0:
        big = True
    else:
        big = False
    if big:
        return x + 1
    return x - 1


@converted()
def returned_numbers(x: Tensor) -> Any:
    if x.sum() > 0:
        return x, 1
    return x * 2, 2


@converted()
def equal_constants(x: Tensor) -> Any:
    if x.sum() > 0:
        mode, k, y = "sum", 3, x
    else:
        mode, k, y = "sum", 3, x * 2
    return getattr(y, mode)() * k


@converted()
def containers(x: Tensor) -> Tensor:
    if x.sum() > 0:
        parts = {"a": x, "b": [x + 1, (x * 2, 3)]}
    else:
        parts = {"a": x - 1, "b": [x, (x, 4)]}
    parts["b"].append(x)
    return parts["a"] + parts["b"][0] + parts["b"][1][0] * parts["b"][1][1] + len(parts["b"])


@converted()
def list_made_on_a_way(x: Tensor) -> Tensor:
    if x.sum() > 0:
        found = []
        for i in range(3):
            found.append(x + i)
        y = torch.stack(found).sum(0)
    else:
        y = x
    return y


@converted()
def different_sizes(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = torch.cat([x, x])
    else:
        y = x[:1]
    return y.sum() + y


@converted()
def dead_on_one_way(x: Tensor) -> Tensor:
    if x.sum() > 0:
        helper = x * 2
        y = helper + 1
    else:
        y = x
    return y


@converted()
def tensor_as_condition(x: Tensor) -> Tensor:
    s = x.sum()
    if s:
        return x / s
    return x


@converted()
def condition_of_one_element(x: Tensor) -> Tensor:
    if x[:1].max().reshape(1, 1) > 0.5:
        return x + 1
    return x * 5


@converted()
def item_as_condition(x: Tensor) -> Tensor:
    if x.sum().item() > 0:
        return x + 1
    return x * 5


@converted((UP, torch.tensor(2)), (DOWN, torch.tensor(7)), (MANY, torch.tensor(-1)))
def integer_read_from_data(x: Tensor, n: Tensor) -> Tensor:
    k = n.item()
    if k > 5:
        y = x * k
    elif k == 2:
        y = x + k
    else:
        y = x
    return y


@converted()
def condition_twice(x: Tensor) -> Tensor:
    positive = x.sum() > 0
    y = x * 2 if positive else x
    return y + 1 if positive else y - 1


@converted()
def in_a_helper(x: Tensor) -> Tensor:
    def choose(a: Tensor, b: Tensor) -> Tensor:
        if a.sum() > b.sum():
            return a
        return b * 2

    return choose(x, x * x) + choose(-x, x)


@converted()
def closure_variable(x: Tensor) -> Tensor:
    total = x

    def current() -> Tensor:
        return total * 2

    if x.sum() > 0:
        total = x + 1
    return current() + total


@converted()
def nonlocal_variable(x: Tensor) -> Tensor:
    total = x * 1

    def bump(by: Tensor) -> None:
        nonlocal total
        if by.sum() > 0:
            total = total + by
        else:
            total = total - 1

    bump(x)
    bump(-x)
    return total


@converted()
def same_function_on_both_ways(x: Tensor) -> Tensor:
    f = torch.sin
    y = f(x) if x.sum() > 0 else f(-x)
    return y


@converted()
def keyword_branches(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0.0 if x.sum() > 0 else -1.0)


@converted()
def mixed_with_sizes(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x.reshape(1, -1).expand(2, x.shape[0])
    else:
        y = x.new_zeros(2, x.shape[0])
    return y * x.shape[0]


@converted()
def integer_tensor(x: Tensor) -> Tensor:
    n = (x > 0).sum()
    if n > 2:
        return n * 2
    return n + 1


@converted()
def match_statement(x: Tensor) -> Tensor:
    match (x > 0).sum().item():
        case 0:
            y = x
        case 3:
            y = x + 3
        case _:
            y = x * 2
    return y


# -- and, or, not ------------------------------------------------------------------------------


@converted()
def condition_with_and(x: Tensor) -> Tensor:
    if x.sum() > 0 and x.max() > 5:
        return x * 2
    return x * 3


@converted()
def condition_with_or(x: Tensor) -> Tensor:
    if x.sum() < 0 or x.max() > 5 or x.min() < 0.1:
        y = x * 2
    else:
        y = x * 3
    return y


@converted()
def condition_with_not(x: Tensor) -> Tensor:
    if not (x.sum() > 0):
        return x * 2
    return x * 3


@converted()
def value_of_and(x: Tensor) -> Tensor:
    return (x.sum() > 0) and (x.max() > 5)


@converted()
def value_of_or(x: Tensor) -> Tensor:
    y = (x.sum() > 1) or (x.max() > 0.3)
    return y


@converted()
def value_of_not(x: Tensor) -> Tensor:
    empty = not x.sum() > 0
    return x + (1 if empty else 2)


@converted()
def value_of_bool(x: Tensor) -> Tensor:
    flag = bool(x.sum() > 0)
    if flag and x.max() > 5:
        return x
    return x * 2


@converted()
def chained_comparison(x: Tensor) -> Tensor:
    if 0 < x.sum() < 5:
        return x * 2
    return x * 3


@converted()
def python_and_data(x: Tensor) -> Tensor:
    flag = x.dim() == 1
    if flag and x.sum() > 0:
        return x * 2
    return x * 3


@converted()
def fallback_value(x: Tensor) -> Tensor:
    y = x.clamp(min=0).sum() or x.abs().sum()
    return x / y


# -- checks ------------------------------------------------------------------------------------


@converted((UP,), (FEW,))
def assertion(x: Tensor) -> Tensor:
    assert x.sum() > 0, "the sum must be positive"
    return x.log()


@converted((UP,), (FEW,))
def raises(x: Tensor) -> Tensor:
    if (x < 0).any():
        raise ValueError(f"negative numbers in {x.dim()} dims")
    return x.sqrt()


@converted((UP,), (FEW,))
def check_in_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        if x.isnan().any():
            raise RuntimeError("nan")
    return x * 2


@converted((UP, torch.tensor(2)), (FEW, torch.tensor(3)))
def check_of_a_number(x: Tensor, n: Tensor) -> Tensor:
    k = n.item()
    assert 1 < k < 5
    return x * k


@converted()
def check_on_a_way(x: Tensor) -> Tensor:
    if x.sum() > 0:
        assert x.max() < 100, "too large"
        return x
    return x * 2


@converted()
def check_in_else(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x
    elif x.sum() < 0:
        y = x + 1
    else:
        raise ValueError("zero")
    return y


# -- while -------------------------------------------------------------------------------------


@converted()
def while_on_data(x: Tensor) -> Tensor:
    while x.abs().sum() < 20:
        x = x * 2
    return x


@converted()
def while_counts(x: Tensor) -> Any:
    y, steps = x.abs(), 0
    while y.sum() < 20:
        y = y * 1.5 + 0.1
        steps += 1
    return y, steps


@converted()
def while_with_two_conditions(x: Tensor) -> Any:
    y, i = x.abs(), 0
    while i < 4 and y.sum() < 20:
        y = y * 2
        i += 1
    return y + i


@converted()
def while_data_first(x: Tensor) -> Any:
    y, i = x.abs(), 0
    while y.sum() < 20 and i < 4:
        y = y * 2
        i = i + 1
    return y + i


@converted()
def while_true_with_break(x: Tensor) -> Tensor:
    y = x.abs()
    while True:
        y = y + 1
        if y.sum() > 20:
            break
    return y


@converted()
def while_with_break(x: Tensor) -> Tensor:
    y = x.abs()
    while y.sum() < 50:
        y = y * 2
        if y.max() > 10:
            y = y - 1
            break
        y = y + 0.5
    return y * 3


@converted()
def while_with_continue(x: Tensor) -> Tensor:
    y, n = x.abs(), 0
    while y.sum() < 30:
        n += 1
        y = y + 1
        if y.max() > 5:
            continue
        y = y * 1.5
    return y + n


@converted()
def while_with_else(x: Tensor) -> Tensor:
    y = x.abs()
    while y.sum() < 20:
        y = y * 2
        if y.max() > 9:
            break
    else:
        y = -y
    return y


@converted()
def if_in_while(x: Tensor) -> Tensor:
    y = x.abs()
    while y.sum() < 20:
        if y.max() > 2:
            y = y + 1
        else:
            y = y * 3
    return y


@converted()
def while_in_if(x: Tensor) -> Tensor:
    if x.sum() > 0:
        while x.sum() < 20:
            x = x * 2
    else:
        x = x - 1
    return x


@converted()
def while_in_while(x: Tensor) -> Any:
    y, outer, inner = x.abs(), 0, 0
    while y.sum() < 60:
        y = y * 2
        outer += 1
        z = y
        while z.sum() < 30:
            z = z + 1
            inner += 1
        y = y + z.mean()
    return y, outer, inner


@converted()
def whiles_in_a_row(x: Tensor) -> Tensor:
    while x.abs().sum() < 20:
        x = x * 2
    while x.abs().sum() > 10:
        x = x / 3
    return x


@converted()
def while_swaps(x: Tensor) -> Tensor:
    a, b = x, x + 1
    while a.abs().sum() < 40:
        a, b = b, a + b
    return a * 2 + b


@converted()
def while_carries_a_float_and_a_bool(x: Tensor) -> Tensor:
    scale, odd = 1.0, False
    while (x * scale).abs().sum() < 20:
        scale = scale * 1.5
        odd = not odd
    return x * scale + (1 if odd else 2)


@converted()
def while_carries_a_tuple(x: Tensor) -> Tensor:
    state = (x, x.sum())
    while state[1] < 20:
        state = (state[0].abs() + 1, state[0].abs().sum() + state[1].abs())
    return state[0] + state[1]


@converted()
def while_with_early_return_before(x: Tensor) -> Tensor:
    if x.sum() < 0:
        return x
    while x.sum() < 20:
        x = x + 1
    return x


@converted()
def while_with_concrete_start(x: Tensor) -> Any:
    i = 0
    while i < 3:
        x = x + 1
        i += 1
        if x.sum() > 12:
            break
    return x, i


@converted()
def while_true_and_an_effect_free_helper(x: Tensor) -> Tensor:
    def half(y: Tensor) -> Tensor:
        return y / 2 if y.sum() > 50 else y

    y = x.abs()
    while True:
        y = half(y) + 1
        if y.sum() > 20:
            break
        y = half(y * 2)
    return half(y)


@converted()
def while_true_whose_ways_meet_at_its_beginning(x: Tensor) -> Tensor:
    y, scale = x.abs(), 1.0
    while True:
        if y.sum() > 20:
            break
        y = y + 1
        if y.max() > 5:
            y = y * 2
            continue
        else:
            y = y + 0.5
    scale = scale * 0.75
    return y * scale


@refused("effect", "append")
def loop_found_late_that_appends(x: Tensor) -> Any:
    found: list[Tensor] = []
    y = x.abs()
    while True:
        y = y + 1
        if y.sum() > 20:
            break
        found.append(y)
    return found


# -- for ---------------------------------------------------------------------------------------

COUNTS = [
    (UP, torch.tensor(3)), (DOWN, torch.tensor(0)), (FEW, torch.tensor(1)),
    (MANY, torch.tensor(6)),
]  # fmt: skip


@converted(*COUNTS)
def for_over_a_count(x: Tensor, n: Tensor) -> Tensor:
    for i in range(n.item()):
        x = x * 2 + i
    return x


@converted(*COUNTS)
def for_with_start_and_step(x: Tensor, n: Tensor) -> Tensor:
    y = x
    for i in range(1, n.item() * 2, 2):
        y = y + x * i
    return y


@converted(*COUNTS)
def for_downwards(x: Tensor, n: Tensor) -> Tensor:
    for i in range(n.item(), 0, -1):
        x = x - i
    return x


@converted(*COUNTS)
def for_with_break_and_continue(x: Tensor, n: Tensor) -> Tensor:
    for i in range(n.item()):
        if x.sum() > 20:
            break
        if i == 1:
            continue
        x = x + i
    return x


@converted()
def break_in_a_python_loop(x: Tensor) -> Tensor:
    for k in range(4):
        if x.abs().sum() > 20:
            break
        x = x * 2 + k
    return x


@converted()
def continue_in_a_python_loop(x: Tensor) -> Tensor:
    total = x * 0
    for k, scale in enumerate([1.0, 2.0, -3.0]):
        if (x * scale).sum() < 0:
            continue
        total = total + x * scale + k
    return total


@converted()
def return_in_a_python_loop(x: Tensor) -> Tensor:
    for scale in (1.0, 2.0, 4.0):
        if (x * scale).abs().sum() > 8:
            return x * scale
    return x


@converted()
def branch_in_a_comprehension(x: Tensor) -> Tensor:
    return torch.stack([x + k if x.sum() > k else x - k for k in range(4)])


# -- modes, modules, blocks --------------------------------------------------------------------


@converted()
def block_on_a_way(x: Tensor) -> Tensor:
    if x.sum() > 0:
        with torch.no_grad():
            y = x * 2
    else:
        y = x
    return y + 1


@converted()
def block_around(x: Tensor) -> Tensor:
    with torch.no_grad():
        if x.sum() > 0:
            y = x * 2
        else:
            y = x + 1
    return y


@converted()
def try_around(x: Tensor) -> Tensor:
    try:
        if x.sum() > 0:
            y = x * 2
        else:
            y = x + 1
    except ValueError:
        y = x
    return y


@converted()
def in_an_except_block(x: Tensor) -> Tensor:
    try:
        {}["missing"]
    except KeyError:
        y = x * 2 if x.sum() > 0 else x
    return y


class Layers(nn.Module):
    """A branch that chooses a layer, and one that counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = self.one(x)
        else:
            y = self.other(x).relu()
        while y.abs().sum() < 100:
            y = self.one(y) + y * 2
        self.steps = self.steps + (1 if x.sum() > 0 else 2)
        return y


class Sets(nn.Module):
    """A way that sets a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.steps = self.steps + 1
        return x


# -- tensors that ways write --------------------------------------------------------------------


@converted()
def writes_a_tensor(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        y.add_(1)
    return y


@converted()
def writes_on_both_ways(x: Tensor) -> Any:
    y = x * 1
    v = y[:1]
    if x.sum() > 0:
        y += 1
    else:
        y[:2] = 7
    return y, v


@converted()
def writes_in_nested_ways(x: Tensor) -> Any:
    y, z = x * 1, x * 2
    if x.sum() > 0:
        y.add_(1)
        if x.max() > 5:
            y.mul_(z)
            z.zero_()
    else:
        z.copy_(y)
    return y, z


@converted()
def writes_through_a_view_from_before(x: Tensor) -> Any:
    y = x * 1
    v = y[:1]
    if x.sum() > 0:
        v.add_(1)
    return y


@converted()
def writes_in_a_python_loop(x: Tensor) -> Any:
    y = x * 1
    for k in range(3):
        if x.sum() > k:
            y[:1] += k
        if y.sum() > 10:
            break
    return y


@converted()
def writes_what_two_variables_hold(x: Tensor) -> Any:
    y = x * 1
    z = y
    if x.sum() > 0:
        y.add_(1)
    return z, y


@converted()
def writes_and_returns_early(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        y[y > 2] = 0
        return y * 2
    y.clamp_(min=-1)
    return y


@converted()
def writes_a_tensor_and_hands_it_on(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        y.add_(1)
        return y
    return x


@converted()
def writes_behind_many_early_returns(x: Tensor) -> Any:
    y = x * 1
    if x.max() > 30:
        return y * 1
    if x.max() > 20:
        return y * 2
    if x.max() > 8:
        return y * 3
    if x.min() < -1:
        return y
    if x.sum() > 0:
        y.add_(1)
    return y


@converted()
def writes_in_a_helper_called_twice(x: Tensor) -> Any:
    def bump(t: Tensor) -> Tensor:
        if t.sum() > 0:
            t.add_(1)
        return t

    y, z = x * 1, x * -1
    return bump(y) + bump(z), y, z


@converted()
def writes_a_mask(x: Tensor) -> Any:
    y, mask = x * 1, x > 1
    if x.sum() > 0:
        mask.logical_not_()
    elif x.max() > 0:
        mask[:] = True
    return torch.where(mask, y, -y)


@converted()
def writes_with_gradients_off(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        with torch.no_grad():
            y.mul_(x)
    return y + x


# -- loops that are left to two places ----------------------------------------------------------

COUNTS = [(x, torch.tensor(n)) for x in (UP, DOWN, FEW, MANY) for n in (0, 1, 3, 6)]


@converted()
def loop_with_return(x: Tensor) -> Any:
    while x.sum() < 20:
        x = x + 1
        if x.max() > 3:
            return x * 3 + x.sum() / x.max() - 2
    return x


@converted(*COUNTS)
def for_with_else(x: Tensor, n: Tensor) -> Any:
    for i in range(n.item()):
        if x.sum() > 20:
            break
        x = x + i
    else:
        x = x * 2
    return x


@converted(*COUNTS)
def for_with_else_and_two_breaks(x: Tensor, n: Tensor) -> Any:
    k = 0
    for i in range(n.item()):
        if x.sum() > 20:
            k = i
            break
        if x.max() < 0 and i > 0:
            break
        x = x + i
    else:
        k = -1
    return x, k


@converted(*COUNTS)
def for_that_returns_its_variable(x: Tensor, n: Tensor) -> Any:
    for i in range(n.item()):
        if x.sum() > 8:
            return x, i
        x = x + i
    return x * 2, -1


@converted()
def forever_with_break_and_return(x: Tensor) -> Any:
    y = x
    while True:
        y = y + 1
        if y.sum() > 30:
            return y
        if y.max() > 8:
            break
    y = y * 2
    return y + x


@converted(*COUNTS)
def return_from_two_counted_loops(x: Tensor, n: Tensor) -> Any:
    for i in range(n.item()):
        for j in range(n.item()):
            x = x + 1 + 0 * (i + j)
            if x.sum() > 12:
                return x * 7
        if x.max() > 4:
            continue
        x = x - 0.5
    return x


@converted()
def return_from_a_loop_in_a_python_loop(x: Tensor) -> Any:
    for i in range(3):
        while x.sum() < 10 * i + 5:
            x = x + 1
            if x.max() > 6:
                return x, 1
        x = x * 1.5
    return x, 2


@converted()
def return_from_a_python_loop_in_a_loop(x: Tensor) -> Any:
    i = 0
    while x.sum() < 40:
        for i in range(3):
            x = x + 1
            if x.max() > 6 + i:
                return x * i
        x = x + 2
    return x - 1


@converted()
def return_from_two_loops_with_else(x: Tensor) -> Any:
    k = 0
    while x.sum() < 20:
        x = x + 1
        while x.max() < 3:
            x = x * 1.25 + 1
            if x.min() > 2:
                return x, k
        k += 1
    else:
        x = x - 1
    return x + 1, k


@converted()
def return_from_a_loop_on_a_way(x: Tensor) -> Any:
    if x.sum() > 0:
        while x.sum() < 50:
            x = x * 2
            if x.max() > 10:
                return x - 1
        x = x + 1
    return x * 2


@converted(*COUNTS)
def break_that_sizes_exclude(x: Tensor, n: Tensor) -> Any:
    for i in range(n.item()):
        x = x + i
        if x.shape[0] >= 0:
            continue
        if x.sum() > 0:
            break
    else:
        x = x * 2
    return x


@converted()
def return_behind_a_nested_if(x: Tensor) -> Any:
    while x.sum() < 50:
        if x.max() > 4:
            if x.min() > 1:
                return x * 2
            x = x + 3
        else:
            x = x + 1
    return x


@converted()
def assertion_in_a_loop_with_return(x: Tensor) -> Any:
    while x.sum() < 30:
        assert x.sum() > -100, "too small"
        x = x + 2
        if x.max() > 7:
            return x
    return -x


# -- refused -----------------------------------------------------------------------------------

LIST: list[int] = []
COUNT = 0


@refused("dtype", "torch.float32")
def other_dtype(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x
    else:
        y = x.long()
    return y


@refused("rank", "the variable y")
def other_rank(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x
    else:
        y = x.sum()
    return y


@refused("structure", "the returned value")
def other_structure(x: Tensor) -> Any:
    if x.sum() > 0:
        return x, x
    return [x]


@refused("kind", "int 0")
def number_or_tensor(x: Tensor) -> Any:
    y: Any = 0
    if x.sum() > 0:
        y = x
    return y


@refused("kind", "float")
def integer_or_float(x: Tensor) -> Any:
    k = 1 if x.sum() > 0 else 1.5
    return x * k


@refused("constant", "'sum'")
def text_that_differs(x: Tensor) -> Any:
    how = "sum" if x.sum() > 0 else "mean"
    return getattr(x, how)()


@refused("kind", "None")
def none_or_tensor(x: Tensor) -> Any:
    mask = None
    if x.sum() > 0:
        mask = x > 0
    return x if mask is None else x * mask


@refused("constant", "function")
def function_that_differs(x: Tensor) -> Any:
    f = torch.sin if x.sum() > 0 else torch.cos
    return f(x)


@refused("unassigned", "the variable y")
def assigned_on_one_way(x: Tensor) -> Any:
    if x.sum() > 0:
        y = x
    return y


@refused("effect", "append")
def appends_outside(x: Tensor) -> Any:
    found = [x]
    if x.sum() > 0:
        found.append(x + 1)
    return found


@refused("effect", "LIST")
def appends_to_a_global(x: Tensor) -> Any:
    if x.sum() > 0:
        LIST.append(1)
    return x


@refused("effect", "COUNT")
def sets_a_global(x: Tensor) -> Any:
    global COUNT
    if x.sum() > 0:
        COUNT += 1
    return x


@refused("effect", "changes")
def sets_an_item(x: Tensor) -> Any:
    table = {"a": x}
    if x.sum() > 0:
        table["a"] = x + 1
    return table["a"]


class Box:
    def __init__(self, value: Any) -> None:
        self.value = value


@refused("effect", ".value")
def sets_an_attribute(x: Tensor) -> Any:
    box = Box(x)
    if x.sum() > 0:
        box.value = x + 1
    return box.value


refused("effect", "sets self.steps")(Sets())


@refused("operator", "the same memory")
def writes_a_tensor_and_reads_a_view_of_it(x: Tensor) -> Any:
    y = x * 1
    v = y.view(-1)
    if x.sum() > 0:
        y.add_(1)
        return y + v
    return y


@refused("alias", "the variable z")
def writes_a_tensor_hands_it_on_and_writes_again(x: Tensor) -> Any:
    y, z = x * 1, x
    if x.sum() > 0:
        y.add_(1)
        z = y
    y.mul_(2)
    return z


@refused("effect", "the sizes of a tensor in place")
def changes_sizes_in_place(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        y.unsqueeze_(0)
        y = y[0]
    return y


@refused("effect", "in place")
def writes_an_expanded_tensor(x: Tensor) -> Any:
    y = (x * 1).t() if x.dim() > 1 else torch.zeros(1).expand(3)
    if x.sum() > 0:
        y.add_(1)
    return y


@refused("operator", "another grad mode", torch.ones(3, requires_grad=True))
def writes_behind_the_back_of_autograd(x: Tensor) -> Any:
    y = x * 1
    if x.sum() > 0:
        with torch.no_grad():
            y.mul_(2)
    return y


@refused("effect", "advances")
def advances_an_iterator(x: Tensor) -> Any:
    numbers = iter([1, 2, 3])
    if x.sum() > 0:
        x = x + next(numbers)
    return x * next(numbers)


@refused("effect", "being made")
def filters(x: Tensor) -> Any:
    return [x + k for k in range(3) if x.sum() > k]


@refused("effect", "enclosing")
def sets_an_enclosing_variable(x: Tensor) -> Any:
    total = x

    def bump() -> None:
        nonlocal total
        total = total + 1

    if x.sum() > 0:
        bump()
    return total


@refused("constant", "a Box")
def object_made_on_a_way(x: Tensor) -> Any:
    box = Box(x) if x.sum() > 0 else Box(x + 1)
    return box.value


@refused("one container", "hold one list")
def one_list_twice(x: Tensor) -> Any:
    if x.sum() > 0:
        a = b = [x]
    else:
        a, b = [x], [x + 1]
    a.append(x)
    return b


@refused("alias", "the variable y")
def written_afterwards(x: Tensor) -> Any:
    z = x * 1
    if x.sum() > 0:
        y = z
    else:
        y = x * 2
    z.add_(1)
    return y


@refused("alias", "the variable y")
def result_written_afterwards(x: Tensor) -> Any:
    z = x * 1
    if x.sum() > 0:
        y = z[:1]
    else:
        y = x[:1] * 2
    y.add_(1)
    return z


@refused("alias", "the variable a")
def views_of_one_result(x: Tensor) -> Any:
    if x.sum() > 0:
        a = x * 2
        b = a[:]
    else:
        a, b = x * 1, x * 3
    a.add_(1)
    return b


@refused("exception", "try")
def raises_in_try(x: Tensor) -> Any:
    try:
        if x.sum() > 0:
            raise ValueError
        y = x
    except ValueError:
        y = x * 2
    return y


@refused("exception", "with")
def raises_in_suppress(x: Tensor) -> Any:
    with contextlib.suppress(ValueError):
        if x.sum() > 0:
            raise ValueError
        return x
    return x * 2


@refused("raise", "Both ways")
def both_raise(x: Tensor) -> Any:
    if x.sum() > 0:
        raise ValueError
    else:
        raise KeyError


@refused("with", "leaves a with block")
def returns_from_a_block(x: Tensor) -> Any:
    with torch.no_grad():
        if x.sum() > 0:
            return x
        y = x * 2
    return y


@refused("with", "mode of torch")
def switches_a_mode(x: Tensor) -> Any:
    if x.sum() > 0:
        torch.set_default_dtype(torch.float64)
    return x


@refused("yield", "yields")
def generator(x: Tensor) -> Any:
    def parts() -> Iterator[Tensor]:
        if x.sum() > 0:
            yield x
        yield x + 1

    return sum(parts())


@refused("class", "class")
def class_body(x: Tensor) -> Any:
    class Inner:
        if x.sum() > 0:
            y = x
        else:
            y = x + 1

    return Inner.y


@refused("shape", "the variable x")
def loop_that_grows(x: Tensor) -> Any:
    while x.sum() < 20:
        x = torch.cat([x, x])
    return x


@refused("dtype", "the variable x")
def loop_that_changes_the_dtype(x: Tensor) -> Any:
    while x.sum() < 20:
        x = x.double() + 1
    return x


@refused("kind", "the variable total")
def loop_that_starts_with_a_number(x: Tensor) -> Any:
    total: Any = 0
    while x.sum() < 20:
        x = x + 1
        total = total + x.sum()
    return total


@refused("structure", "the variable found")
def loop_that_makes_a_longer_tuple(x: Tensor) -> Any:
    found = (x,)
    while found[-1].sum() < 20:
        found = (*found, found[-1] + 1)
    return found


@refused("constant", "the variable mode")
def loop_that_changes_a_text(x: Tensor) -> Any:
    mode = "first"
    while x.sum() < 20:
        x = x + (1 if mode == "first" else 2)
        mode = "next"
    return x


@refused("unassigned", "the variable y")
def loop_that_assigns_first(x: Tensor) -> Any:
    while x.sum() < 20:
        x = x + 1
        y = x * 2
    return y


@refused("return", "more than two ways")
def loop_with_two_returns(x: Tensor) -> Any:
    while x.sum() < 20:
        x = x + 1
        if x.max() > 3:
            return x * 3
        if x.min() > 1:
            return x * 5
    return x


@refused("with", "with block")
def loop_with_return_in_no_grad(x: Tensor) -> Any:
    while x.sum() < 20:
        with torch.no_grad():
            x = x + 1
            if x.max() > 3:
                return x * 3
    return x


@refused("unassigned", "the variable y")
def loop_that_returns_a_variable_of_a_step(x: Tensor) -> Any:
    while x.sum() < 20:
        y = x + 1
        if y.max() > 3:
            return y
        x = y * 2
    return x


@refused("effect", "y = y + 1 in place of y += 1")
def loop_that_writes(x: Tensor) -> Any:
    y = x * 1
    while y.sum() < 20:
        y += 1
    return y


@refused("effect", "append")
def loop_that_appends(x: Tensor) -> Any:
    found = []
    while x.sum() < 20:
        x = x + 1
        found.append(x)
    return found


@refused("depth", "60")
def long_python_loop(x: Tensor) -> Any:
    for k in range(100):
        if x.sum() > 20:
            break
        x = x + k
    return x


@refused("depth", "60")
def recursion(x: Tensor) -> Any:
    def halve(y: Tensor) -> Tensor:
        if y.sum() > 1:
            return halve(y / 2)
        return y

    return halve(x)


@refused("exception", "the variable z")
def set_in_a_handler(x: Tensor) -> Any:
    z = 1
    if x.sum() > 0:
        try:
            y = x * {}["missing"]
        except KeyError:
            z = 2
            y = x
    else:
        y = x + 1
    return y * z


@refused("raise", "ValueError: no")
def raises_in_a_helper(x: Tensor) -> Any:
    def fail() -> None:
        raise ValueError("no")

    if x.sum() > 0:
        fail()
    return x


@refused("exception")
def raises_in_a_helper_and_catches(x: Tensor) -> Any:
    def fail() -> None:
        raise ValueError("no")

    try:
        if x.sum() > 0:
            fail()
        y = x
    except ValueError:
        y = x * 2
    return y


@refused("effect", "being made")
def overwrites_in_a_comprehension(x: Tensor) -> Any:
    return {0: x + k for k in range(3) if k == 0 or x.sum() > k}  # noqa: B035


@refused("effect", "append")
def appends_to_a_class(x: Tensor) -> Any:
    class Local:
        items: list[Tensor] = []

    if x.sum() > 0:
        Local.items.append(x)
    return [x, *Local.items]


@refused("effect", "append")
def appends_to_a_default(x: Tensor) -> Any:
    def keep(y: Tensor, found: list[Tensor] = []) -> list[Tensor]:  # noqa: B006
        found.append(y)
        return found

    if x.sum() > 0:
        keep(x)
    return keep(x + 1)


@refused("alias", "two tensors are one")
def identity(x: Tensor) -> Any:
    if x.sum() > 0:
        y = x
    else:
        y = x * 2
    return y + 1 if y is x else y
