"""Tracebacks of exceptions that pass through interpreted frames.

A traceback needs real frame objects. One stub per code object is made by running a function that
does nothing but has the file, the name and the line table of the user's code; the entries then
show the user's lines, and those of the machine are left out.
"""

from __future__ import annotations

import os
import sys
from opcode import opmap
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _own_frame(get: Any = sys._getframe) -> Any:
    """What a stub runs. The function comes as a default, so that any globals will do."""
    return get()


def stub_frame(frame: Frame) -> FrameType:
    """A real frame object with the code's names and the frame's globals."""
    stubs = frame.decoded.stubs
    found: FrameType | None = stubs.get(id(frame.globals))
    if found is None:
        stub = _stub_code(frame.decoded.code)
        found = FunctionType(stub, frame.globals, argdefs=(sys._getframe,))()
        stubs[id(frame.globals)] = found
    return found


def _stub_code(code: CodeType) -> CodeType:
    """The code of a stub, with the line table of ``code`` where that is possible.

    A line table must fit its code exactly: under a profiler, CPython 3.11 writes past the end of an
    array otherwise. So the stub is filled up with instructions that do nothing; if it is too long,
    it gets a table without lines, and tracebacks show the line without a caret.
    """
    own = _own_frame.__code__
    missing = len(code.co_code) - len(own.co_code)
    filling = bytes([opmap["NOP"], 0]) * (missing // 2)
    return own.replace(
        co_filename=code.co_filename,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=code.co_firstlineno,
        co_code=own.co_code + filling,
        co_linetable=code.co_linetable if missing >= 0 else _no_lines(len(own.co_code) // 2),
    )


def _no_lines(units: int) -> bytes:
    """A line table without locations, for so many code units; an entry covers up to eight."""
    lengths = [8] * (units // 8) + ([units % 8] if units % 8 else [])
    return bytes(0x80 | 15 << 3 | length - 1 for length in lengths)


def add_entry(frame: Frame, error: BaseException) -> None:
    """Put the frame in front of the traceback of an exception that arrived in it.

    An exception that is raised again has its entry already.
    """
    trace = user_part(error.__traceback__)
    if frame.is_reraise:
        frame.is_reraise = False
    else:
        offset = frame.decoded.offsets[frame.pc]
        line = frame.decoded.line(frame.pc)
        trace = TracebackType(trace, stub_frame(frame), offset, line)
    error.__traceback__ = trace


def user_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the machine's entries in front."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace
