"""Programs with Python state, and the machinery that tells whether a capture got it wrong.

Each program is called two or three times, and what forward keeps in Python may make every call
different. :func:`run` makes the same calls on the module and on the exported program, and compares
outputs, buffers, attributes of the input tensors, and whatever state outside the program shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tests.corpora.soundness_programs import X2, X3, Thunk, X, difference, module
from torch import nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Made:
    """A module in a world of its own.

    Attributes:
        module: what is exported and called.
        look: the state outside that a caller can see, as plain values.
        between: what happens outside after each call, given its number.
        done: puts back what the calls left in the process.
    """

    module: nn.Module
    look: Callable[[], Any] = lambda: None
    between: Callable[[int], Any] = lambda call: None
    done: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        make: the module in a fresh world.
        calls: thunks that make the arguments; the first is also the export's example.
        unseen: why plain tracing cannot see it; such a program may be wrong there, and only there.
        frozen: the sentence with which strict capture notes the value from outside that it keeps;
            after the world has changed (``between``), the program still has that value.
        spent: plain tracing refuses it, but cannot put back what it keeps (iterators).
        runs: strict capture must not refuse it.
    """

    name: str
    make: Callable[[], Made]
    calls: Sequence[Thunk]
    unseen: str = ""
    frozen: str = ""
    spent: bool = False
    runs: bool = False


PROGRAMS: list[Program] = []


def program(*calls: Thunk, **options: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Adds the function below, which makes a module (or a :class:`Made`), as a program."""

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Made:
            found = make()
            return found if isinstance(found, Made) else Made(found)

        name = make.__name__.replace("_", " ").strip()
        PROGRAMS.append(Program(name, made, calls or (X, X2, X3), **options))
        return make

    return add


def net(forward: Callable[..., Any], /, **state: Any) -> nn.Module:
    """A module with ``lin = Linear(4, 4)``, this forward and this state; ``b_name`` is a buffer."""
    return module(forward, **state)()


# -- running --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What became of one program.

    Attributes:
        error: what export raised.
        wrong: ``(number of the call, difference)`` for each call that was accepted and differs.
        notes: of the program.
    """

    error: BaseException | None = None
    wrong: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()


def run(item: Program, export: Callable[..., Any]) -> Ran:
    """Export a fresh module, and compare its calls with those of another fresh one.

    Args:
        export: ``(module, args, kwargs) -> ExportedProgram``.
    """
    with _world(item) as eager:
        expected = [_observed(eager, eager.module, t, i) for i, t in enumerate(item.calls)]
    with _world(item) as made:
        before = made.look()
        args, kwargs = item.calls[0]()
        try:
            exported = export(made.module, args, kwargs)
        except Exception as e:
            return Ran(e, _changed_by_export(before, made.look()))
        wrong = list(_changed_by_export(before, made.look()))
        callee = exported.module()
        for i, thunk in enumerate(item.calls):
            got = _observed(made, callee, thunk, i)
            if isinstance(got, Exception):
                break  # refused: what follows is another story
            if isinstance(expected[i], Exception):
                wrong.append((i, f"the module raises {expected[i]!r}"))
            elif found := difference(expected[i], got):
                wrong.append((i, found))
    return Ran(None, tuple(wrong), tuple(exported.notes))


@contextlib.contextmanager
def _world(item: Program) -> Any:
    torch.manual_seed(3)
    made = item.make()
    try:
        yield made
    finally:
        made.done()


def _changed_by_export(before: Any, after: Any) -> tuple[tuple[int, str], ...]:
    return () if before == after else ((-1, f"export changed {before!r} to {after!r}"),)


def _observed(made: Made, callee: nn.Module, thunk: Thunk, number: int) -> Any:
    args, kwargs = thunk()
    torch.manual_seed(7)
    try:
        outputs = callee(*args, **kwargs)
    except Exception as e:
        return e
    inputs = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
    seen = {
        "outputs": [v.detach().clone() if isinstance(v, torch.Tensor) else v
                    for v in pytree.tree_leaves(outputs)],
        "buffers": [b.clone() for b in callee.buffers()],
        "inputs": [v.detach().clone() for v in inputs],
        "attributes of inputs": [repr(sorted(vars(v))) for v in inputs],
        "gradients": [v.grad is None for v in [*inputs, *callee.parameters()]],
        "outside": repr(made.look()),
    }  # fmt: skip
    made.between(number)
    return seen
