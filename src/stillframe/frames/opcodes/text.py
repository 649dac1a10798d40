"""Format strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.frames.opcodes.containers import pop_many
from stillframe.frames.opcodes.registry import opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

_CONVERSIONS: dict[int, Any] = {1: str, 2: repr, 3: ascii}


@opcode("FORMAT_VALUE")
def format_value(frame: Frame, flags: int) -> None:
    spec = frame.stack.pop() if flags & 4 else ""
    if flags & 3:
        convert_value(frame, flags & 3)
    frame.stack[-1] = _format(frame, frame.stack[-1], spec)


@opcode("CONVERT_VALUE")
def convert_value(frame: Frame, kind: int) -> None:
    frame.stack[-1] = frame.policy.call(_CONVERSIONS[kind], (frame.stack[-1],), {})


@opcode("FORMAT_SIMPLE")
def format_simple(frame: Frame, _: int) -> None:
    frame.stack[-1] = _format(frame, frame.stack[-1], "")


@opcode("FORMAT_WITH_SPEC")
def format_with_spec(frame: Frame, _: int) -> None:
    spec = frame.stack.pop()
    frame.stack[-1] = _format(frame, frame.stack[-1], spec)


def _format(frame: Frame, value: Any, spec: str) -> Any:
    if type(value) is str and not spec:
        return value
    return frame.policy.call(format, (value, spec), {})


@opcode("BUILD_STRING")
def build_string(frame: Frame, count: int) -> None:
    frame.stack.append("".join(pop_many(frame.stack, count)))
