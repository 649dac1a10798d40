"""Modules to script, with inputs, dims and other inputs: TorchScript's language, piece by piece."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Optional, Tuple  # noqa: UP035  (TorchScript's own)

import torch
from torch import nn

import stillframe as sf


@dataclass
class Program:
    """A module to script.

    Attributes:
        make: the module.
        inputs: the example.
        dims: the ``dynamic_shapes``.
        others: further inputs that the program must admit.
    """

    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    dims: Any
    others: list[tuple[Any, ...]]


PROGRAMS: dict[str, Program] = {}
B = sf.Dim("b", min=1)


def program(
    inputs: tuple[Any, ...], dims: Any, others: list[tuple[Any, ...]]
) -> Callable[[Callable[[], nn.Module]], Any]:
    def put(make: Callable[[], nn.Module]) -> Any:
        PROGRAMS[make.__name__] = Program(make, inputs, dims, others)
        return make

    return put


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


ROWS = ({0: B},)


class Mode(enum.Enum):
    ADD = 1
    MUL = 2


class Scores(NamedTuple):
    mean: torch.Tensor
    count: int


def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    if factor > 1.0:
        return x * factor
    return x / factor


@program((x(4, 3),), ROWS, [(x(1, 3),), (x(9, 3),)])
class LoopsOverModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])
        self.by_name = nn.ModuleDict({"act": nn.ReLU(), "norm": nn.LayerNorm(3)})

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x) + i
        for name, module in self.by_name.items():
            if name == "act":
                x = module(x)
        return self.by_name["norm"](x)


@program((x(4, 3),), ROWS, [(x(2, 3),)])
class BranchesOnFlags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.5
        self.mode = "mul"
        self.kind = Mode.MUL
        self.flags = [True, False]

    def forward(self, x):
        if self.mode == "mul" and self.kind == Mode.MUL:
            x = x * self.scale
        if self.flags[1] or self.training:
            x = x + 1
        return scaled(x, self.scale)


@program((x(4, 3), None), ({0: B}, None), [(x(6, 3), None)])
class OptionalInput(nn.Module):
    def forward(self, x, mask: Optional[torch.Tensor] = None):  # noqa: UP045
        if mask is not None:
            x = x * mask
        return x.sum(dim=1)


@program((x(4, 3), x(4, 3)), ({0: B}, {0: B}), [(x(6, 3), x(6, 3))])
class OptionalInputGiven(OptionalInput):
    pass


@program((x(4, 3),), ROWS, [(x(7, 3),)])
class NamedResults(nn.Module):
    def forward(self, x) -> Tuple[Scores, Dict[str, torch.Tensor], List[torch.Tensor]]:  # noqa: UP006
        parts = [part * 2 for part in x.unbind(1)]
        return Scores(x.mean(0), x.size(0)), {"double": x * 2, "max": x.amax(1)}, parts


@program((x(4, 3),), ROWS, [(x(2, 3),), (x(4, 3),)])
class WrittenBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("calls", torch.tensor(0.0))
        self.last = torch.zeros(3)

    def forward(self, x):
        self.seen += x.sum(0)
        self.calls.add_(1.0)
        before = self.last.clone()
        self.last = x.mean(0)
        return x + self.seen / self.calls + before


@program((x(4, 3),), ({0: sf.Dim("b", min=3)},), [(x(3, 3),), (x(8, 3),)])
class GuardedBySize(nn.Module):
    def forward(self, x):
        if x.size(0) > 2:
            return x[1:-1].sum(0)
        return x.sum(0)


@program((x(4, 6),), ROWS, [(x(2, 6),)])
class WhileLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.widths: List[int] = [4, 3, 2]  # noqa: UP006

    def forward(self, x):
        step = 0
        total = torch.zeros(x.size(0))
        while step < len(self.widths):
            total = total + x[:, : self.widths[step]].sum(1)
            step += 1
            if step == 2:
                break
        return total


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class EarlyReturnAndAssert(nn.Module):
    def forward(self, x, mode: str = "sum", times: int = 2):
        assert x.dim() == 2, f"expected a matrix, got {x.shape}"
        if x.size(1) != 6:
            raise ValueError("six features, got {}".format(x.size(1)))  # noqa: UP032
        if mode == "sum":
            return x.sum(1) * times
        for _ in range(times):
            x = x + 1
        return x.mean(1)


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class ListsAndDicts(nn.Module):
    def forward(self, x):
        sizes = torch.jit.annotate(List[int], [])  # noqa: UP006
        for i in range(3):
            sizes.append(i + 1)
        sizes[0] = sizes[0] + 0
        sizes.extend([1])
        _ = sizes.pop()
        pieces = x.split(sizes, dim=1)
        table: Dict[str, torch.Tensor] = {}  # noqa: UP006
        for piece in pieces:
            table[str(piece.size(1))] = piece.sum(1)
        result = torch.zeros_like(table["1"])
        for key in table.keys():
            result = result + table[key]
        if "2" in table and len(table) == 3:
            result = result * 2
        return result, sizes[::-1], [s * x.size(0) for s in sizes]


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class ArithmeticOfSizes(nn.Module):
    def forward(self, x):
        n, k = x.shape[0], x.shape[1]
        half = (n + 1) // 2
        rest = n % 4
        top = max(half, 1)
        y = torch.cat([x[:half], x[half:]], dim=0).view(n, k // 2, -1)
        z = torch.arange(n * 2, dtype=torch.float32, device=x.device).reshape(2, n)
        return y * float(k), z.sum(0) / n, rest + top * 3, -n, n / 2


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class GradModeAndCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x):
        with torch.no_grad():
            scale = (x * self.weight).mean()
        future = torch.jit.fork(scaled, x, 3.0)
        return torch.jit.wait(future) * scale + self.helper(x)

    def helper(self, x):
        return torch.nn.functional.gelu(x) * self.weight


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class Dtypes(nn.Module):
    def forward(self, x):
        y = x.to(torch.float64)
        if y.dtype == torch.float64 and x.dtype != y.dtype:
            y = y + torch.tensor([1.5, 2.0, 3.0]).sum()
        index = torch.tensor([0, 2], dtype=torch.int64, device=x.device)
        whole = torch.arange(6) * 2.5
        return y.type_as(x)[:, index], torch.tensor(x.size(1)), whole, torch.full((2,), 3)


@program((x(4, 6), [x(2), x(3)]), ({0: B}, [None, None]), [(x(5, 6), [x(2), x(3)])])
class ListInput(nn.Module):
    def forward(self, x, parts: List[torch.Tensor]):  # noqa: UP006
        parts.append(x[0])
        return torch.cat(parts), len(parts)


class Interval(nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        return x.clamp(self.low, self.high)


@program((x(4, 6),), ROWS, [(x(5, 6),)])
class SharedSubmodule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first
        self.second.bias = self.first.bias
        self.clip = Interval(-1.0, 1.0)

    def forward(self, x):
        return self.clip(self.second(self.first(x)))


@program((x(4, 1, 8),), ROWS, [(x(2, 1, 8),)])
class RecurrentAndConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.rnn = nn.GRU(4, 5, batch_first=True)
        self.attend = nn.MultiheadAttention(5, 1, batch_first=True)

    def forward(self, x):
        y, last = self.rnn(self.norm(self.conv(x)).transpose(1, 2))
        z, _ = self.attend(y, y, y, need_weights=False)
        return z, last
