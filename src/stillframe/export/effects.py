"""What non-strict capture cannot express, told from before and after.

Plain tracing sees operators. Python that touches no tensor (a counter, a list append, an attribute)
it cannot see, so the state around the run is compared instead; a difference is refused with its
path. ``self.buffer = new`` is the one change that can be expressed: as a copy into the buffer.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.errors import NotSupported, SideEffectError, StillframeError
from stillframe.export.signature import InputKind, InputSpec
from stillframe.export.state import Change, RandomState
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.grad_regions import OF_CALLER
from stillframe.trace.operators import facts_of


def refuse_changes(changes: Iterable[Change]) -> list[Change]:
    """The rebound buffers among ``changes``.

    Raises:
        SideEffectError: for the first change of any other kind, by attribute path.
    """
    rebound: list[Change] = []
    for change in changes:
        if change.kind == "buffer" and isinstance(change.value, FakeTensor):
            rebound.append(change)
            continue
        raise refusal(change)
    return rebound


def refusal(change: Change) -> SideEffectError:
    """The error for a change that a program cannot make."""
    path = f"self.{change.path}"
    if change.kind == "tensor attribute":
        return SideEffectError(
            f"forward assigns a tensor to {path}, which is no registered buffer ({change.what}).",
            why="programs keep state only in parameters and buffers; the assignment would be lost",
            hints=[
                f"in __init__: self.register_buffer({_last(change.path)!r}, initial_value)",
                "if no later call looks at it: assign what forward itself made and does not "
                "return, or use strict=True, which sees what Python does with it",
            ],
        )
    if change.kind == "outside":
        return SideEffectError(
            f"forward changes {change.path}.",
            why="non-strict capture runs forward once; the change would be lost in the program",
            hints=["keep the value out of forward, or in a registered buffer"],
        )
    if change.kind in ("attribute", "container"):
        return SideEffectError(
            f"forward changes the attribute {path} ({change.what}).",
            why="non-strict capture runs forward once; the change would be lost in the program",
            hints=["keep the value out of forward, or in a registered buffer"],
        )
    return SideEffectError(
        f"forward changes the {change.kind} {path} ({change.what}).",
        why="the structure of the module is fixed in a program",
        hints=["make the change before export"],
    )


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def refuse_written_leaves(graph: torch.fx.Graph, leaves: Mapping[str, str]) -> None:
    """Refuse in-place operators on tensors that autograd watches, which torch itself refuses.

    Args:
        graph: as recorded under the caller's grad mode.
        leaves: placeholder name -> how a person names it, for the leaves that require grad.

    Raises:
        SideEffectError: names the parameter or the input.
    """
    grad = of_caller = torch.is_grad_enabled()
    for node in graph.nodes:
        if node.target is torch_private.set_grad_enabled:
            grad = of_caller if OF_CALLER in node.meta else bool(node.args[0])
        elif grad and isinstance(node.target, torch._ops.OpOverload):
            for position, name in facts_of(node.target).writes:
                given = node.args[position] if position < len(node.args) else node.kwargs.get(name)
                text = leaves.get(getattr(given, "name", ""))
                if text is not None:
                    raise SideEffectError(
                        f"forward writes {text} in place ({node.target}) while grad is enabled.",
                        why="a leaf that requires grad cannot be written in place; torch raises a "
                        "RuntimeError when the module itself is called so",
                        hints=["write it under torch.no_grad(), or export under torch.no_grad()"],
                    )


@contextlib.contextmanager
def seeds_refused(floor: FrameType) -> Iterator[None]:
    """Inside, seeding torch or setting the state of its generator is refused.

    A state that is put back later shows no difference in the end, and draws of fakes do not advance
    the generator.
    """

    def refuse(function: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_importing():  # packages of torch seed while they are loaded
            return function(*args, **kwargs)
        raise _changes_torchs_random_state(stack.summary(stack.raw_stack(floor)))

    stand_ins = dict.fromkeys(("manual_seed", "seed", "set_rng_state"), refuse)
    with (
        torch_private.functions_replaced(torch, stand_ins),
        torch_private.functions_replaced(torch.random, stand_ins),
    ):
        yield


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _changes_torchs_random_state(where: tuple[str, ...] = ()) -> SideEffectError:
    return SideEffectError(
        "forward changes torch's random state outside of recorded operators "
        "(torch.manual_seed, a generator's state, or a draw on real tensors).",
        why="the program would not repeat it",
        where=where,
        hints=["seed before the call; random operators of torch in forward are recorded"],
    )


def check_random(before: RandomState) -> None:
    """Refuse draws and seeds that a program cannot repeat.

    Raises:
        SideEffectError: names the generator.
    """
    name = before.changed()
    if name is None:
        return
    if name == "torch":
        raise _changes_torchs_random_state()
    raise SideEffectError(
        f"forward draws from or seeds {name}.",
        why="the number drawn during the capture would be baked into the program",
        hints=["draw with torch (torch.rand(())), or pass the number as an input"],
    )


class Settings:
    """Settings of torch that a program does not make, to compare and to restore."""

    def __init__(self) -> None:
        self._before = [read() for _, read, _ in _SETTINGS]

    def check(self) -> None:
        """Compare with what they were.

        Raises:
            SideEffectError: names the first that is another.
        """
        for (name, read, _), before in zip(_SETTINGS, self._before, strict=True):
            if read() != before:
                raise SideEffectError(
                    f"forward leaves {name} changed, from {before} to {read()}.",
                    why="a program leaves the settings of torch as they are",
                    hints=["set it back in forward (a with block does), or set it outside"],
                )

    def restore(self) -> None:
        """Put all of them back."""
        for (_, read, write), before in zip(_SETTINGS, self._before, strict=True):
            if read() != before:
                write(before)


_SETTINGS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("the grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    ("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    (
        "the use of deterministic algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    (
        "the precision of float32 products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    ("autocast", lambda: torch.is_autocast_enabled("cpu"),
     lambda on: torch.set_autocast_enabled("cpu", on)),
)  # fmt: skip


class InputWatch:
    """The containers among the inputs, to see whether forward changed them."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self._roots = [(f"args[{i}]", a) for i, a in enumerate(args)]
        self._roots += list(kwargs.items())
        self._before = [_picture(value) for _, value in self._roots]

    def check(self, result: Any) -> list[str]:
        """Raise for a changed container.

        An opaque container (one whose class is registered with pytree, such as a cache object) may
        be updated if forward returns it: the program returns the updated one. A sentence for each
        such container is returned.

        Raises:
            SideEffectError: names the argument.
        """
        updated = []
        for (name, value), before in zip(self._roots, self._before, strict=True):
            if value is None or isinstance(value, (torch.Tensor, int, float, str)):
                continue
            if _equal(before, _picture(value)):
                continue
            if type(value) not in (list, dict, tuple) and _contains(result, value):
                updated.append(
                    f"forward updates its input {name} (a {type(value).__name__}) and returns it: "
                    "the program returns a new one and leaves the caller's as it was"
                )
                continue
            raise SideEffectError(
                f"forward changes its input {name} (a {type(value).__name__}) in place.",
                why="a program gets the leaves of its inputs, not the caller's container",
                hints=["copy the container at the top of forward, or return what was added"],
            )
        return updated


def _picture(value: Any) -> tuple[list[Any], Any]:
    leaves, spec = pytree.tree_flatten(value)
    return leaves, spec


def _equal(a: tuple[list[Any], Any], b: tuple[list[Any], Any]) -> bool:
    return a[1] == b[1] and all(
        x is y or _same_number(x, y) for x, y in zip(a[0], b[0], strict=True)
    )


def _same_number(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (int, float, str, bool)) and a == b


def _contains(tree: Any, container: Any) -> bool:
    found = False

    def look(node: Any) -> bool:
        nonlocal found
        found = found or node is container
        return found

    pytree.tree_flatten(tree, is_leaf=look)
    return found


_NEEDS_DATA = re.compile(
    r"data pointer|FakeTensor|has no storage|NULL storage|storage of a tensor|__torch_dispatch__"
    r"|SymInt|SymFloat|SymBool|symbolic|\bmeta\b|Python dispatch"
)


@contextlib.contextmanager
def needed_data_told() -> Iterator[None]:
    """An error that torch raises inside for lack of data becomes ours; the user's own stay.

    Raises:
        NotSupported: instead of torch's error.
    """
    try:
        yield
    except StillframeError:
        raise
    except Exception as e:
        refusal = _needs_data(e)
        if refusal is None:
            raise
        raise refusal from e


def _needs_data(error: Exception) -> NotSupported | None:
    text = str(error)
    if not isinstance(error, (RuntimeError, TypeError, AttributeError, NotImplementedError)):
        return None
    if not _NEEDS_DATA.search(text):
        return None
    return NotSupported(
        "forward does something that needs the data of a tensor, or a plain number in place of a "
        "symbolic size.",
        why=f"{type(error).__name__}: {text.splitlines()[0]}",
        where=stack.summary(stack.of_traceback(error.__traceback__)),
        hints=[
            "move this step out of forward, or keep the dim that reaches it static",
            "for an extension, wrap it as an operator: torch.library.custom_op",
        ],
    )


def notes(constants: dict[str, Any], lifted: list[InputSpec]) -> list[str]:
    """What a reader of the program should know: the tensors that were baked in."""
    return [
        f"constant {spec.target}: {tuple(constants[spec.target].shape)} "
        f"{str(constants[spec.target].dtype).removeprefix('torch.')}, as it was at export"
        for spec in lifted
        if spec.kind is InputKind.CONSTANT_TENSOR and spec.target is not None
    ]
