"""What programs do with sizes and with values read from tensors.

Each is exported with a dim that varies, and then either equals eager at every size, errors
included, or is refused with an error of ours that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.errors import (
    ConstraintViolationError,
    DataDependentError,
    NotSupported,
    StillframeError,
)

Function = Callable[..., Any]
SIZES = (0, 1, 2, 3, 4, 6, 7, 8, 12, 20)
ITEMS = (-3, -1, 0, 1, 2, 3, 5, 9)


def loop(x: torch.Tensor) -> torch.Tensor:
    total = x.sum()
    for i in range(x.shape[0]):
        total = total + i
    return total


def stored(x: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    y = x.clone()
    y[index] = value
    return y


def added(x: torch.Tensor, index: Any) -> torch.Tensor:
    y = x.clone()
    y[index] += 1
    return y


def checked(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    end = k.item()
    torch._check(end >= 0)
    torch._check(end <= x.shape[0])
    return x[:end] * 2


# With the size n of dim 0 (n, 3), from 0 to 20; the example has 7.
OF_SIZE: dict[str, Function] = {
    "zeros(n)[n - 1]": lambda x: torch.zeros(x.shape[0])[x.shape[0] - 1] + x.sum(),
    "x[n - 1]": lambda x: x[x.shape[0] - 1],
    "x[-n]": lambda x: x[-x.shape[0]],
    "x[n - 8]": lambda x: x[x.shape[0] - 8],
    "x[n // 2]": lambda x: x[x.shape[0] // 2],
    "x[n - 1, 1]": lambda x: x[x.shape[0] - 1, 1],
    "x[n - 1, ...]": lambda x: x[x.shape[0] - 1, ...],
    "x[..., n - 1]": lambda x: x.t()[..., x.shape[0] - 1],
    "x[n - 1] = 0": lambda x: stored(x, x.shape[0] - 1, 0.0),
    "x[n // 2] += 1": lambda x: added(x, x.shape[0] // 2),
    "x[n // 2:]": lambda x: x[x.shape[0] // 2 :],
    "x[:-2]": lambda x: x[:-2],
    "x[2:n - 1]": lambda x: x[2 : x.shape[0] - 1],
    "x[n - 3:]": lambda x: x[x.shape[0] - 3 :],
    "x[::2]": lambda x: x[::2],
    "x[n::2]": lambda x: x[x.shape[0] :: 2],
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(x.shape[0] // 2, 0),
    "expand(n, -1, -1)": lambda x: x.unsqueeze(0).expand(x.shape[0], -1, -1),
    "view(-1, n)": lambda x: x.t().reshape(-1, x.shape[0]),
    "arange(n)": lambda x: torch.arange(x.shape[0]) + x[:, 0],
    "arange(n / 2)": lambda x: torch.arange(x.shape[0] / 2),
    "arange(n, 0, -1)": lambda x: torch.arange(x.shape[0], 0, -1),
    "full((n,), n)": lambda x: torch.full((x.shape[0],), x.shape[0]),
    "split": lambda x: x.split([x.shape[0] // 2, x.shape[0] - x.shape[0] // 2]),
    "repeat(n, 1)": lambda x: x.repeat(x.shape[0], 1),
    "repeat_interleave": lambda x: x.repeat_interleave(x.shape[0], 0),
    "pad": lambda x: torch.nn.functional.pad(x, (0, 0, 0, 20 - x.shape[0])),
    "torch.tensor(n)": lambda x: torch.tensor(x.shape[0]) + x,
    "torch.tensor([n, 2])": lambda x: torch.tensor([x.shape[0], 2]),
    "torch.tensor([[n], [2.5]])": lambda x: torch.tensor([[x.shape[0]], [2.5]]),
    "torch.tensor(n > 3)": lambda x: torch.tensor([x.shape[0] > 3, True]),
    "torch.tensor(n / 2)": lambda x: torch.tensor(x.shape[0] / 2, dtype=torch.float64),
    "torch.as_tensor(n)": lambda x: torch.as_tensor(data=x.shape[0], dtype=torch.int32),
    "x.new_tensor([n, 1])": lambda x: x.new_tensor([x.shape[0], 1]),
    "x.new_tensor(n, dtype)": lambda x: x.new_tensor(data=x.shape[0], dtype=torch.int16),
    "numel": lambda x: x / x.numel(),
    "a message": lambda x: (f"{x.shape[0]} of {x.shape}", x + 1)[1],
}
# With the value k of an integer tensor, from -3 to 9; the example has 3.
OF_ITEM: dict[str, Function] = {
    "x[k.item()]": lambda x, k: x[k.item()],
    "x[k.item() - 1]": lambda x, k: x[k.item() - 1],
    "x[k]": lambda x, k: x[k],
    "x[:, k]": lambda x, k: x[:, k],
    "x[k, :2]": lambda x, k: x[k, :2],
    "x[None, k, None]": lambda x, k: x[None, k.item(), None],
    "x[..., k]": lambda x, k: x[..., k],
    "x[k, k]": lambda x, k: x[k, k.item()],
    "x[[0, 2], k]": lambda x, k: x[[0, 2], k],
    "x[k, [0, 2]]": lambda x, k: x[k.item(), [0, 2]],
    "x[mask, k]": lambda x, k: x[x[:, 0] > 3, k],
    "x[:n // 2, k]": lambda x, k: x[: x.shape[0] // 2, k.item()],
    "x[k] = 5": lambda x, k: stored(x, k.item(), 5.0),
    "x[k, 1:] = row": lambda x, k: stored(x, (k, slice(1, None)), x.sum(0)[1:]),
    "x[k] += 1": added,
    "x[k:]": lambda x, k: x[k.item() :],
    "x[:k]": lambda x, k: x[: k.item()],
    "x[:k], checked": checked,
    "x[k:k + 2]": lambda x, k: x[k.item() : k.item() + 2],
    "x[-k:]": lambda x, k: x[-k.item() :],
    "narrow": lambda x, k: x.narrow(0, k.item(), 2),
    "select": lambda x, k: x.select(0, k.item()),
    "zeros(k)": lambda x, k: torch.zeros(k.item()),
    "arange(k)": lambda x, k: torch.arange(k.item()),
}
# Refused: the function, the error, and what its message says.
REFUSED: dict[str, tuple[Function, type[StillframeError], str]] = {
    "len": (lambda x: x * len(x), ConstraintViolationError, "n == 7"),
    "range": (loop, ConstraintViolationError, r"n == 7.*for i in range"),
    "iteration": (lambda x: sum(row for row in x), ConstraintViolationError, "n == 7"),
    "unbind": (lambda x: x.unbind(0), ConstraintViolationError, "n == 7"),
    "__index__": (lambda x: x * x.shape[0].__index__(), ConstraintViolationError, "n == 7"),
    "str": (lambda x: x * len(str(x.shape[0])), ConstraintViolationError, "n == 7"),
    "str of a shape": (lambda x: x * len(str(x.shape)), ConstraintViolationError, "n == 7"),
    "a returned f-string": (lambda x: (x, f"{x.shape[0]}"), NotSupported, "text .* <s0>"),
    "an f-string as key": (lambda x: {f"k{x.shape[0]}": x}, NotSupported, "text .* <s0>"),
    "in": (lambda x: x * (2 if x.size(0) in (1, 2) else 3), ConstraintViolationError, "n != 1"),
    "a dictionary": (lambda x: x * {1: 2}.get(x.shape[0], 5), NotSupported, "dictionary key"),
    "a list item": (lambda x: x * [*range(21)][x.shape[0]], ConstraintViolationError, "n == 7"),
    "x[-1] of none": (lambda x: x[-1], ConstraintViolationError, r"Dim\('n', min=1"),
    "expand(n - 8)": (
        lambda x: x[:1].expand(x.shape[0] - 8, 3),
        ConstraintViolationError,
        "sizes of n",
    ),
    "view(n - 8, -1)": (
        lambda x: x.view(x.shape[0] - 8, -1),
        ConstraintViolationError,
        "sizes of n",
    ),
    "arange(2, n)": (
        lambda x: torch.arange(2, x.shape[0]),
        ConstraintViolationError,
        r"Dim\('n', min=2",
    ),
    "x[[n - 1]]": (lambda x: x[[x.shape[0] - 1]], ConstraintViolationError, "n == 7"),
}


class OfSize(torch.nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class OfItem(OfSize):
    def forward(self, x: torch.Tensor, k: torch.Tensor) -> Any:  # type: ignore[override]
        return self.function(x, k)


def rows(n: int) -> torch.Tensor:
    return torch.arange(n * 3.0).reshape(n, 3)


def outcome(function: Callable[[], Any]) -> Any:
    """The value, or None if it raises."""
    try:
        return function()
    except (RuntimeError, IndexError, ValueError):
        return None


def check_equal(program: Any, module: torch.nn.Module, *args: torch.Tensor) -> bool:
    """Both give the same, or both raise (then False)."""
    expected = outcome(lambda: module(*args))
    found = outcome(lambda: program.module()(*args))
    sizes = [tuple(a.shape) or a.item() for a in args]
    if expected is None:
        assert found is None, f"{sizes}: eager raises"
        return False
    assert found is not None, f"{sizes}: the program raises"
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    return True


@pytest.mark.parametrize("name", OF_SIZE)
def test_uses_of_a_size(name: str) -> None:
    module = OfSize(OF_SIZE[name])
    dims = ({0: sf.Dim("n", min=0, max=20)},)
    program = sf.export(module, (rows(7),), dynamic_shapes=dims)
    equal = [n for n in SIZES if check_equal(program, module, rows(n))]
    assert len(equal) >= 5, "the rest raises in eager"


@pytest.mark.parametrize("name", OF_ITEM)
def test_uses_of_a_value_from_a_tensor(name: str) -> None:
    module = OfItem(OF_ITEM[name])
    dims = ({0: sf.Dim("n", min=0, max=20)}, None)
    program = sf.export(
        module, (rows(7), torch.tensor(3 if "k]" not in name else 2)), dynamic_shapes=dims
    )
    equal = [
        (n, k)
        for n in SIZES
        for k in ITEMS
        if check_equal(program, module, rows(n), torch.tensor(k))
    ]
    assert len(equal) >= 5, "the rest raises in eager"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_uses_of_a_size(name: str) -> None:
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=f"(?s){message}") as caught:
        sf.export(OfSize(function), (rows(7),), dynamic_shapes=({0: sf.Dim("n", min=0, max=20)},))
    assert caught.value.hints


@pytest.mark.parametrize(
    "function", [lambda x, k: x * [1, 2, 3, 4][k.item()], lambda x, k: x * int(k)]
)
def test_refused_uses_of_a_value_from_a_tensor(function: Function) -> None:
    with pytest.raises(DataDependentError, match="depends on the data"):
        sf.export(OfItem(function), (rows(7), torch.tensor(3)))


def test_what_python_refuses_is_refused_with_its_error() -> None:
    for function, error in (
        (lambda x: x[::-1], ValueError),
        (lambda x: x[0, 0, x.shape[0]], IndexError),
    ):
        with pytest.raises(error):
            OfSize(function)(rows(7))
        with pytest.raises(error):
            sf.export(
                OfSize(function), (rows(7),), dynamic_shapes=({0: sf.Dim("n", min=0, max=20)},)
            )


def test_an_index_out_of_range_is_refused_when_the_program_runs() -> None:
    module = OfSize(lambda x: x[x.shape[0]] + 1)
    program = sf.export(module, (rows(7),), dynamic_shapes=({0: sf.Dim("n", min=0, max=20)},))
    for n in SIZES:
        assert not check_equal(program, module, rows(n))


@pytest.mark.xfail(strict=True, reason="a symbolic size is a SymInt, which isinstance can tell")
def test_isinstance_of_a_size() -> None:
    module = OfSize(lambda x: x * (2 if isinstance(x.shape[0], int) else 3))
    program = sf.export(module, (rows(7),), dynamic_shapes=({0: sf.Dim("n", max=20)},))
    assert check_equal(program, module, rows(5))
