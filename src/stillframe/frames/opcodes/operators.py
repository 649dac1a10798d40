"""Operators, subscripts, comparisons."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from stillframe.frames.frame import NULL
from stillframe.frames.opcodes.registry import PLAIN, opcode

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame
    from stillframe.frames.versions import Operator

#: Of these, ``%`` makes text of what is in the right operand.
_FORMATS = frozenset({str, bytes})
_INDICES = frozenset({int, slice})


@opcode("BINARY_OP")
def binary_op(frame: Frame, op: Operator) -> None:
    stack = frame.stack
    right = stack.pop()
    left = stack[-1]
    left_type = type(left)
    is_open = left_type in frame.policy.open_operands and left_type not in _FORMATS
    if is_open and type(right) in PLAIN:
        stack[-1] = op[1](left, right)
    else:
        stack[-1] = frame.policy.binary(op, left, right)


@opcode("COMPARE_OP")
def compare_op(frame: Frame, op: Operator) -> None:
    stack = frame.stack
    right = stack.pop()
    left = stack[-1]
    if type(left) in _SCALARS and type(right) in _SCALARS:
        stack[-1] = op[1](left, right)
    else:
        stack[-1] = frame.policy.compare(op, left, right)


_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})


@opcode("COMPARE_OP_BOOL")
def compare_op_bool(frame: Frame, argument: tuple[Operator, bool]) -> None:
    """Since 3.13 a comparison that is branched on gives a plain bool."""
    compare_op(frame, argument[0])
    if argument[1]:
        frame.stack[-1] = frame.policy.boolean(frame.stack[-1])


@opcode("IS_OP")
def is_op(frame: Frame, negated: int) -> None:
    right = frame.stack.pop()
    frame.stack[-1] = frame.policy.same(frame.stack[-1], right) is not bool(negated)


@opcode("CONTAINS_OP")
def contains_op(frame: Frame, negated: int) -> None:
    container = frame.stack.pop()
    found = frame.policy.contains(container, frame.stack[-1])
    frame.stack[-1] = (not found) if negated else found


@opcode("UNARY_NEGATIVE")
def unary_negative(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.unary("__neg__", operator.neg, frame.stack[-1])


@opcode("UNARY_POSITIVE")
def unary_positive(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.unary("__pos__", operator.pos, frame.stack[-1])


@opcode("UNARY_INVERT")
def unary_invert(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.unary("__invert__", operator.invert, frame.stack[-1])


@opcode("UNARY_NOT")
def unary_not(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.negated(frame.stack[-1])


@opcode("TO_BOOL")
def to_bool(frame: Frame, _: int) -> None:
    frame.stack[-1] = frame.policy.boolean(frame.stack[-1])


@opcode("BINARY_SUBSCR")
def binary_subscr(frame: Frame, _: int) -> None:
    stack = frame.stack
    key = stack.pop()
    container = stack[-1]
    if type(container) in frame.policy.open_containers and type(key) in _INDICES:
        stack[-1] = container[key]
    else:
        stack[-1] = frame.policy.load_item(container, key)


@opcode("STORE_SUBSCR")
def store_subscr(frame: Frame, _: int) -> None:
    stack = frame.stack
    key, container, value = stack.pop(), stack.pop(), stack.pop()
    frame.policy.store_item(container, key, value)


@opcode("DELETE_SUBSCR")
def delete_subscr(frame: Frame, _: int) -> None:
    key, container = frame.stack.pop(), frame.stack.pop()
    frame.policy.delete_item(container, key)


@opcode("BINARY_SLICE")
def binary_slice(frame: Frame, _: int) -> None:
    stack = frame.stack
    stop, start = stack.pop(), stack.pop()
    stack[-1] = frame.policy.load_item(stack[-1], slice(start, stop))


@opcode("STORE_SLICE")
def store_slice(frame: Frame, _: int) -> None:
    stack = frame.stack
    stop, start, container, value = stack.pop(), stack.pop(), stack.pop(), stack.pop()
    frame.policy.store_item(container, slice(start, stop), value)


@opcode("POP_TOP")
def pop_top(frame: Frame, _: int) -> None:
    frame.stack.pop()


@opcode("PUSH_NULL")
def push_null(frame: Frame, _: int) -> None:
    frame.stack.append(NULL)


@opcode("COPY")
def copy(frame: Frame, depth: int) -> None:
    frame.stack.append(frame.stack[-depth])


@opcode("SWAP")
def swap(frame: Frame, depth: int) -> None:
    stack = frame.stack
    stack[-1], stack[-depth] = stack[-depth], stack[-1]


@opcode("LOAD_CONST")
def load_const(frame: Frame, value: Any) -> None:
    frame.stack.append(value)
