"""Opcode handlers, one registry, a file per family.

A handler is called with the frame and its resolved argument. It returns None to go on with the
next instruction, an index to jump to, or ``LEAVE`` when the frame returns or yields the value on
top of its stack.
"""

from stillframe.frames.opcodes import (
    attributes,
    calls,
    containers,
    control,
    exceptions,
    functions,
    generators,
    names,
    operators,
    patterns,
    text,
)
from stillframe.frames.opcodes.registry import HANDLERS

__all__ = [
    "HANDLERS",
    "attributes",
    "calls",
    "containers",
    "control",
    "exceptions",
    "functions",
    "generators",
    "names",
    "operators",
    "patterns",
    "text",
]
