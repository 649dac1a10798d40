"""``for i in range(0, n, n)``: loops over sizes that are the same whatever the sizes are.

Python's ``range`` wants a plain number of each size, which would fix the size to the example's.
Where facts show that the range holds nothing, or just its plain start, for all sizes, the numbers
of the example do as well as any and nothing needs to be fixed. That is so only as long as nobody
asks the range for more than its items: it must be made right where a loop takes it.
"""

from __future__ import annotations

import builtins
import dis
import functools
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch

from stillframe import symbolic as sym
from stillframe.shapes.node import SymNode
from stillframe.symbolic import Expr, unwrap

if TYPE_CHECKING:
    from stillframe.shapes.env import ShapeEnv

_CALLS = ("PRECALL", "CALL")
_VARIABLES = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF")
_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")
_PAIRS = ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")

#: A name, or a constant: (whether it is a name, the name or the constant).
Operand = tuple[bool, Any]


def arguments_of_loop(frame: FrameType) -> list[Any] | None:
    """The arguments, where a frame is calling ``range`` for a loop; None where it is not.

    Only variables and constants are told. Of all else the value is not to be had any more.
    """
    operands = operands_of_loop(frame.f_code, frame.f_lasti)
    if operands is None or frame.f_globals.get("range", builtins.range) is not builtins.range:
        return None
    variables = frame.f_locals
    return [variables.get(value) if is_name else value for is_name, value in operands]


@functools.lru_cache(maxsize=1024)
def operands_of_loop(code: CodeType, position: int) -> tuple[Operand, ...] | None:
    """What ``for ... in range(...)`` loads, if the call at ``position`` is that of ``range``."""
    instructions = [i for i in dis.get_instructions(code) if i.opname != "CACHE"]
    at = next((n for n, i in enumerate(instructions) if i.offset == position), 0)
    call = instructions[at]
    behind = [i.opname for i in instructions[at + 1 : at + 3] if i.opname not in _CALLS]
    if call.opname not in _CALLS or behind[:1] != ["GET_ITER"]:
        return None
    operands: list[Operand] = []
    for instruction in reversed(instructions[:at]):
        if len(operands) == call.arg:
            is_range = instruction.opname == "LOAD_GLOBAL" and instruction.argval == "range"
            return tuple(operands) if is_range else None
        loaded = _loaded(instruction)
        if loaded is None:
            return None
        operands = [*loaded, *operands]
    return None


def _loaded(instruction: dis.Instruction) -> list[Operand] | None:
    if instruction.opname == "PRECALL":
        return []
    if instruction.opname in _CONSTANTS:
        return [(False, instruction.argval)]
    if instruction.opname in _VARIABLES:
        return [(True, instruction.argval)]
    if instruction.opname in _PAIRS:
        return [(True, name) for name in instruction.argval]
    return None


def numbers_for_loop(arguments: Sequence[Any]) -> list[int] | None:
    """The example's numbers, if a range of them holds what it holds for all sizes; else None."""
    env = _environment(arguments)
    if env is None:
        return None
    values = [_integer(env, a) for a in arguments]
    if None in values:
        return None
    start, stop, step = _bounds(values)
    hints = [env.hint_of(value) if isinstance(value, Expr) else value for value in values]
    items = _items(env, start, stop, step)
    numbers = [hint for hint in hints if isinstance(hint, int)]
    if items is None or len(numbers) < len(values) or list(range(*numbers)) != items:
        return None
    return numbers


def _environment(arguments: Sequence[Any]) -> ShapeEnv | None:
    for argument in arguments:
        if isinstance(argument, torch.SymInt) and isinstance(argument.node, SymNode):
            return argument.node.env
    return None


def _integer(env: ShapeEnv, value: Any) -> int | Expr | None:
    if isinstance(value, torch.SymInt) and isinstance(value.node, SymNode):
        return unwrap(value.node.expr) if value.node.env is env else None
    return value if type(value) is int else None


def _bounds(values: list[Any]) -> tuple[Any, Any, Any]:
    if len(values) == 1:
        return 0, values[0], 1
    start, stop, *rest = values
    return start, stop, rest[0] if rest else 1


def _items(env: ShapeEnv, start: Any, stop: Any, step: Any) -> list[int] | None:
    """What the range holds for all sizes, where facts decide it and it is not much."""

    def known(*conditions: Any) -> bool:
        return env.facts.decide(sym.and_(*conditions)) is True

    if known(sym.gt(step, 0)):
        if known(sym.le(stop, start)):
            return []
        holds_start = known(sym.lt(start, stop), sym.le(stop, sym.add(start, step)))
        return [start] if holds_start and type(start) is int else None
    return None
