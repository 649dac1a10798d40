"""A way that only raises (``assert``, ``if bad: raise``) becomes a check when the program runs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from stillframe.export.converting.refusals import refusal
from stillframe.export.converting.ways import Runner
from stillframe.frames.decode import Target
from stillframe.frames.forks import Fork
from stillframe.frames.frame import Frame
from stillframe.trace.subgraphs import Subgraph

if TYPE_CHECKING:
    from stillframe.export.converting.policy import ConvertingPolicy


def as_check(policy: ConvertingPolicy, frame: Frame, fork: Fork, condition: Any) -> None:
    """Record that ``condition`` holds; the message is that of what the way raises.

    Raises:
        ConversionError: the program catches the exception, or the way does not raise.
    """
    _refuse_handlers(frame)
    _take_handlers_off(frame, fork)
    message = _message(policy, frame, fork)
    if isinstance(condition, torch.Tensor):
        torch._assert_async(condition, message)
    elif not policy.recorder.env.expect_true(condition.node.expr, message):
        raise refusal(
            frame, "raise", f"A check of the program fails for all data: {message} (rule: raise)."
        )


def _message(policy: ConvertingPolicy, frame: Frame, fork: Fork) -> str:
    """What the way raises. What it computes before is recorded apart, and forgotten."""
    recorder = policy.recorder
    runner = Runner(policy, frame, frozenset(), frozenset(), fork.region)
    raised: list[Exception | None] = []

    def run() -> None:
        raised.append(runner.raised(fork))

    scratch = Subgraph(recorder, "torch.cond")
    try:
        scratch.trace(run, ())
    finally:
        recorder.subgraphs.remove(scratch.graph)
    error = raised[0]
    if error is None:
        raise refusal(
            frame, "raise", "A way of a branch on data never ends (rule: raise).",
            hint="end the loop with a condition",
        )  # fmt: skip
    text, name = str(error), type(error).__name__
    return f"{name}: {text}" if text else name


def _refuse_handlers(frame: Frame) -> None:
    """A check ends the program, so nobody may catch the exception; ``with`` blocks of torch do not.

    Raises:
        ConversionError: somebody may.
    """
    around: Frame | None = frame
    while around is not None:
        for target in _targets(around):
            if not (_is_cleanup(around, target) or _is_block_of_torch(around, target)):
                raise refusal(
                    frame, "exception", "A way of a branch on data raises, inside of a try or with "
                    "block (rule: exception).",
                    why="the program would stop, where the module goes on in the handler",
                    hint="raise outside of the block",
                )  # fmt: skip
        around = around.back


def _targets(frame: Frame) -> list[Target]:
    """Where an exception would go, and from there on."""
    found: list[Target] = []
    target = frame.decoded.targets[frame.pc]
    while target is not None:
        found.append(target)
        target = frame.decoded.targets[target.instruction]
    return found


def _take_handlers_off(frame: Frame, fork: Fork) -> None:
    """Have what the way raises leave the fork: blocks around the branch are not ended."""
    around = _targets(frame)
    fork.decoded = copy.copy(fork.decoded)
    fork.decoded.targets = [None if t in around else t for t in fork.decoded.targets]


def _is_cleanup(frame: Frame, target: Target) -> bool:
    """What the compiler puts around a handler: it raises again."""
    names = frame.decoded.opnames[target.instruction : target.instruction + 3]
    return names == ["COPY", "POP_EXCEPT", "RERAISE"]


def _is_block_of_torch(frame: Frame, target: Target) -> bool:
    names = frame.decoded.opnames[target.instruction : target.instruction + 2]
    if names != ["PUSH_EXC_INFO", "WITH_EXCEPT_START"] or target.depth < 1:
        return False
    leave = frame.stack[target.depth - 1]
    owner = type(getattr(leave, "__self__", None))
    return owner.__module__.partition(".")[0] == "torch" and owner is not type(None)
