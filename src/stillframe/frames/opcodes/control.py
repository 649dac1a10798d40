"""Jumps, branches, loops, return. Every branch on a value goes through ``policy.branch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import LEAVE, opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

#: Iterators whose ``__next__`` is C all the way down.
_C_ITERATORS = frozenset(
    {
        type(iter([])), type(iter(())), type(iter(range(0))), type(iter("")), type(iter("\xe9")),
        type(iter({})), type(iter({}.items())), type(iter({}.values())), type(iter(set())),
    }
)  # fmt: skip


@opcode("JUMP")
def jump(frame: Frame, target: int) -> int:
    return target


@opcode("POP_JUMP_IF_FALSE")
def pop_jump_if_false(frame: Frame, target: int) -> int | None:
    value = frame.stack.pop()
    if value is True:
        return None
    if value is False:
        return target
    return frame.policy.branch(frame, value, frame.pc + 1, target)


@opcode("POP_JUMP_IF_TRUE")
def pop_jump_if_true(frame: Frame, target: int) -> int | None:
    value = frame.stack.pop()
    if value is False:
        return None
    if value is True:
        return target
    return frame.policy.branch(frame, value, target, frame.pc + 1)


@opcode("POP_JUMP_IF_NONE")
def pop_jump_if_none(frame: Frame, target: int) -> int | None:
    return target if frame.policy.same(frame.stack.pop(), None) else None


@opcode("POP_JUMP_IF_NOT_NONE")
def pop_jump_if_not_none(frame: Frame, target: int) -> int | None:
    return None if frame.policy.same(frame.stack.pop(), None) else target


@opcode("JUMP_IF_TRUE_OR_POP")
def jump_if_true_or_pop(frame: Frame, target: int) -> int:
    return frame.policy.branch(frame, frame.stack.pop(), target, frame.pc + 1, keeps=True)


@opcode("JUMP_IF_FALSE_OR_POP")
def jump_if_false_or_pop(frame: Frame, target: int) -> int:
    return frame.policy.branch(frame, frame.stack.pop(), frame.pc + 1, target, keeps=False)


@opcode("GET_ITER")
def get_iter(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.iterate(frame.stack[-1])


@opcode("FOR_ITER")
def for_iter(frame: Frame, target: int) -> int | None:
    stack = frame.stack
    iterator = stack[-1]
    if type(iterator) not in _C_ITERATORS or not frame.policy.open_iterators:
        return frame.policy.step(frame, target)
    value = next(iterator, NULL)
    if value is NULL:
        stack.pop()
        return target
    stack.append(value)
    return None


@opcode("END_FOR")
def end_for(frame: Frame, _: int) -> None:
    """Reached only where the compiler jumps over a loop; ``FOR_ITER`` skips it."""
    frame.stack.pop()


@opcode("RETURN_VALUE")
def return_value(frame: Frame, _: int) -> int:
    frame.is_finished = True
    return LEAVE


@opcode("RETURN_CONST")
def return_const(frame: Frame, value: Any) -> int:
    frame.stack.append(value)
    frame.is_finished = True
    return LEAVE


@opcode("UNKNOWN")
def unknown(frame: Frame, name: str) -> None:
    raise frame.machine.refuse(
        f"the instruction {name} is not known to the frame machine.",
        why="the code object was not made by this Python's compiler, or uses a rare construct",
    )
