"""Small programs that a capture easily gets wrong, and the machinery that tells whether it did.

A :class:`Case` is a module, the example call it is exported with, and later calls that differ from
the example: other inputs, other state, another ambient mode. :func:`run` makes the same calls on
the module and on the program and compares everything that a caller can see: outputs, their types,
``requires_grad``, which of them share memory with one another and with the inputs, inputs and
buffers afterwards, gradients, and the position of the random generator.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

Call = tuple[tuple[Any, ...], dict[str, Any]]
Thunk = Callable[[], Call]


def call(*args: Any, **kwargs: Any) -> Call:
    """The arguments of one call."""
    return args, kwargs


def x_(*shape: int, seed: int = 0, grad: bool = False) -> torch.Tensor:
    """A tensor that is the same each time it is made."""
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(*shape, generator=generator).requires_grad_(grad)


def of(*shapes: tuple[int, ...]) -> list[Thunk]:
    """Calls with one tensor each, of these shapes."""
    return [lambda s=shape: call(x_(*s)) for shape in shapes]


X, X2, X3 = (lambda s=seed: call(x_(3, 4, seed=s)) for seed in (0, 5, 9))
XG = lambda: call(x_(3, 4, grad=True))  # noqa: E731
XT = lambda: call(x_(4, 3).t())  # noqa: E731  the same shape as X, another layout


# -- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Equal:
    """The program gives what the module gives, at every call."""


@dataclass(frozen=True)
class Export:
    """Export raises an error of this class with this in its message."""

    error: str
    text: str


@dataclass(frozen=True)
class Refuse:
    """The last call is refused with this in the message; the ones before it are equal."""

    text: str


@dataclass(frozen=True)
class Sound:
    """Equal or refused, never wrong: for cases where no way of refusing is settled yet."""


Verdict = Equal | Export | Refuse | Sound
EQUAL, SOUND = Equal(), Sound()


@dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
        make: makes the module, and resets what it keeps outside itself.
        calls: made one after the other; the first is also the export's example if there is none.
        dims: dims class -> ``dynamic_shapes``.
        around, around_export: context of the calls and of the export.
        between: run after each call with its outputs, its arguments and the module or program.
        unsound: why today's result is wrong (then the test is expected to fail).
        seen_strictly: strict capture gets it right nevertheless.
    """

    name: str
    make: Callable[[], nn.Module]
    calls: Sequence[Thunk]
    verdict: Verdict = EQUAL
    example: Thunk | None = None
    dims: Callable[[Any], Any] | None = None
    around: Callable[[], Any] = contextlib.nullcontext
    around_export: Callable[[], Any] = contextlib.nullcontext
    between: Callable[[Any, Call, nn.Module], None] | None = None
    unsound: str = ""
    seen_strictly: bool = False


def module(forward: Callable[..., Any], /, **state: Any) -> Callable[[], nn.Module]:
    """Makes a module with ``lin = Linear(4, 4)`` and this forward; ``b_name`` is a buffer.

    Values are made anew for each module: those that are callable are called.
    """

    def init(self: nn.Module) -> None:
        nn.Module.__init__(self)
        self.lin = nn.Linear(4, 4)
        for name, value in state.items():
            value = value() if callable(value) else value
            value = value.clone() if isinstance(value, torch.Tensor) else value
            if name.startswith("b_"):
                self.register_buffer(name[2:], value)
            else:
                setattr(self, name, value)

    cls = type("Program", (nn.Module,), {"__init__": init, "forward": forward})
    return lambda: cls()


# -- running --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """``equal``, ``both raise``, ``refused``, ``wrong``, ``accepts`` (what eager refuses)."""

    kind: str
    text: str = ""

    @property
    def silent(self) -> bool:
        return self.kind in ("wrong", "accepts")


def run(case: Case, export: Callable[..., nn.Module]) -> tuple[BaseException | None, list[Outcome]]:
    """The export's error if it raised one, and the outcome of each call.

    Args:
        export: ``(module, args, kwargs, case.dims) -> callable module``.
    """
    expected = list(_observations(case, _made(case)))
    original = _made(case)
    args, kwargs = (case.example or case.calls[0])()
    try:
        with case.around_export():
            program = export(original, args, kwargs, case.dims)
    except Exception as e:
        return e, []
    outcomes = []
    for want, got in zip(expected, _observations(case, program), strict=True):
        if isinstance(got, Exception):
            raised = isinstance(want, Exception)
            outcomes.append(Outcome("both raise" if raised else "refused", str(got)))
        elif isinstance(want, Exception):
            outcomes.append(Outcome("accepts", f"the module raises {want!r}"))
        else:
            found = difference(want, got)
            outcomes.append(Outcome("wrong", found) if found else Outcome("equal"))
    return None, outcomes


def _made(case: Case) -> nn.Module:
    torch.manual_seed(3)
    return case.make()


def _observations(case: Case, mod: nn.Module) -> Iterator[dict[str, Any] | Exception]:
    for thunk in case.calls:
        arguments = thunk()
        outputs = None
        try:
            with case.around():
                outputs = _called(mod, arguments)
                seen: dict[str, Any] | Exception = _observed(mod, arguments, outputs)
        except Exception as e:
            seen = e
        if case.between is not None:
            case.between(outputs, arguments, mod)
        yield seen


def _called(mod: nn.Module, arguments: Call) -> Any:
    for p in mod.parameters():
        p.grad = None
    torch.manual_seed(7)
    return mod(*arguments[0], **arguments[1])


def _observed(mod: nn.Module, arguments: Call, outputs: Any) -> dict[str, Any]:
    after = torch.rand(())
    leaves, spec = pytree.tree_flatten(outputs)
    inputs = [v for v in pytree.tree_leaves(arguments) if isinstance(v, torch.Tensor)]
    tensors = [v for v in leaves if isinstance(v, torch.Tensor)]
    seen = {
        "structure": str(spec),
        "outputs": [_copy(v) for v in leaves],
        "requires_grad": [t.requires_grad for t in tensors],
        "memory": _memory([*inputs, *tensors]),
        "random": after,
        "buffers": [_copy(b) for b in mod.buffers()],
        "inputs": [_copy(v) for v in inputs],
    }
    losses = [t for t in tensors if t.requires_grad and t.is_floating_point()]
    if losses and torch.is_grad_enabled():
        weighted = [(t * torch.arange(1, t.numel() + 1).view_as(t)).sum() for t in losses]
        torch.stack([w.double() for w in weighted]).sum().backward()
        seen["parameter gradients"] = [_copy(p.grad) for p in mod.parameters()]
        seen["input gradients"] = [_copy(v.grad) if v.is_leaf else None for v in inputs]
    return seen


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _memory(tensors: list[torch.Tensor]) -> list[int]:
    """For each tensor the first one that shares its storage."""
    storages = [t.untyped_storage().data_ptr() if t.numel() else -i for i, t in enumerate(tensors)]
    return [storages.index(s) for s in storages]


def difference(a: Any, b: Any, path: str = "") -> str:
    """Where two observations differ; empty if they do not."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            return f"{path}: {a.dtype}{tuple(a.shape)}, {b.dtype}{tuple(b.shape)}"
        if a.is_meta:
            return ""
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        same = torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        return "" if same else f"{path}: {a.flatten()[:3].tolist()}, {b.flatten()[:3].tolist()}"
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{path}: only one has {sorted(a.keys() ^ b.keys())}"
        return next(filter(None, (difference(a[k], b[k], f"{path} {k}") for k in a)), "")
    if isinstance(a, list):
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)}"
        pairs = zip(itertools.count(), a, b, strict=False)
        return next(filter(None, (difference(v, w, f"{path}[{i}]") for i, v, w in pairs)), "")
    return "" if type(a) is type(b) and (a == b or a != a) else f"{path}: {a!r}, {b!r}"
