"""An executable rule: an instruction changes the height of the stack as ``dis`` says.

On when the environment has ``STILLFRAME_CHECK_FRAMES=1``, as in the tests of the machine.
"""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillframe.errors import InternalError

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

IS_ON = os.environ.get("STILLFRAME_CHECK_FRAMES") == "1"

#: Effects that differ from those of ``dis`` because an instruction does the work of a neighbour:
#: up to 3.11 ``CALL`` that of ``PRECALL``; an exhausted ``FOR_ITER`` that of ``END_FOR``.
_LEAVES = frozenset({"RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE", "RETURN_GENERATOR"})


def expected(name: str, arg: int, jumps: bool) -> int:
    """The change of height of one instruction as the machine runs it."""
    if name == "CALL" and sys.version_info < (3, 12):
        return -1 - arg
    if name == "FOR_ITER" and jumps:
        return -1
    number = dis.opmap[name]
    return dis.stack_effect(number, arg if number >= dis.HAVE_ARGUMENT else None, jump=jumps)


def checked(handler: Callable[[Any, Any], Any], name: str, arg: int) -> Callable[[Any, Any], Any]:
    """``handler``, which also compares the height of the stack before and after."""
    if name in _LEAVES:
        return handler

    def run(frame: Frame, argument: Any) -> Any:
        before = len(frame.stack)
        target = handler(frame, argument)
        if target not in (None, argument, frame.pc + 1):
            return target  # a policy ran both ways of a branch: it goes on where they meet
        change = len(frame.stack) - before
        wanted = expected(name, arg, target is not None and target == argument)
        if change != wanted:
            raise InternalError(
                f"{name} {arg} changed the stack by {change}, not {wanted}: {frame!r}"
            )
        return target

    return run
