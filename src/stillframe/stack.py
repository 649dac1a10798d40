"""The user's lines of a Python stack, taken cheaply and rendered late.

A capture asks for the stack at every operator, so taking one must cost about a microsecond a
frame: only code objects and instruction offsets are kept, in one flat tuple. Line numbers and
source text are looked up when the text is wanted, once per distinct frame.

Frames of the machinery are left out: those of torch, of stillframe, and of the standard library's
``contextlib`` and ``functools``. All of the user's frames stay, helpers included, not only those
called ``forward``.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType

# code object, offset, code object, offset, ... innermost frame first
RawStack = tuple[CodeType | int, ...]

_HIDDEN_FILES = {contextlib.__file__, functools.__file__}
_HIDDEN_ROOTS: list[str] = [os.path.dirname(os.path.abspath(__file__)) + os.sep]
_is_user_code: dict[CodeType, bool] = {}


_interpreter_files: tuple[str, ...] = ()
_interpreted: dict[CodeType, Callable[[FrameType], tuple[CodeType, int]]] = {}


def show_interpreted(
    code: CodeType, place: Callable[[FrameType], tuple[CodeType, int]], *files: str
) -> None:
    """Frames of ``code`` run somebody else's code: ``place`` tells which, and where it is.

    Args:
        files: see :func:`add_to_interpreter`.
    """
    _interpreted[code] = place
    add_to_interpreter(*files)


def add_to_interpreter(*files: str) -> None:
    """Say which files, or folders, lie between an interpreter and what it calls.

    What they ask of torch passes for a question of the program's. Of a file that is left out, the
    program's questions pass for ours, and nobody notes what the program was told.
    """
    global _interpreter_files
    _interpreter_files += tuple(f + os.sep if os.path.isdir(f) else f for f in files)


def is_of_interpreter(file: str) -> bool:
    """Whether frames of this file belong to an interpreter."""
    return file.startswith(_interpreter_files)


def place_of(frame: FrameType) -> tuple[CodeType, int]:
    """The code and the position of a frame; of what it runs, if it is one of an interpreter."""
    inner: FrameType | None = frame
    while inner is not None and is_of_interpreter(inner.f_code.co_filename):
        if inner.f_code in _interpreted:
            return _interpreted[inner.f_code](inner)
        inner = inner.f_back
    return frame.f_code, frame.f_lasti


def hide_package(root: str) -> None:
    """Leave the frames of the package in folder ``root`` out of all stacks."""
    _HIDDEN_ROOTS.append(root.rstrip(os.sep) + os.sep)
    _is_user_code.clear()


def _classify(code: CodeType) -> bool:
    name = code.co_filename
    is_user = not (
        name.startswith("<")
        and not name.startswith("<ipython")
        or name in _HIDDEN_FILES
        or any(name.startswith(root) for root in _HIDDEN_ROOTS)
    )
    _is_user_code[code] = is_user
    return is_user


def is_user_code(code: CodeType) -> bool:
    """Whether stacks show frames of this code."""
    known = _is_user_code.get(code)
    return _classify(code) if known is None else known


def raw_stack(floor: FrameType | None = None) -> RawStack:
    """The user's frames from the caller's caller outwards, innermost first.

    Args:
        floor: stop before this frame (the one that called the capture); None means the whole stack.
    """
    found: list[CodeType | int] = []
    frame: FrameType | None = sys._getframe(2)
    known = _is_user_code
    while frame is not None and frame is not floor:
        code = frame.f_code
        is_user = known.get(code)
        if is_user is None:
            is_user = _classify(code)
        if is_user:
            found.append(code)
            found.append(frame.f_lasti)
        elif code in _interpreted:
            shown, position = _interpreted[code](frame)
            if _is_user_code.get(shown) or (shown not in _is_user_code and _classify(shown)):
                found += (shown, position)
        frame = frame.f_back
    return tuple(found)


def whole_stack(skip: int = 0) -> RawStack:
    """All frames from the caller's caller outwards, the machinery's too, innermost first.

    Args:
        skip: how many more of the innermost frames are left out.
    """
    found: list[CodeType | int] = []
    frame: FrameType | None = sys._getframe(1)
    for _ in range(skip + 1):
        frame = frame.f_back if frame is not None else None
    while frame is not None:
        found += (frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return tuple(found)


def of_traceback(trace: TracebackType | None) -> RawStack:
    """The user's frames of an exception's traceback, innermost first."""
    found: list[CodeType | int] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_user_code.get(code, None) or (code not in _is_user_code and _classify(code)):
            found[:0] = [code, trace.tb_lasti]
        trace = trace.tb_next
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _line_of(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end:
            return line or code.co_firstlineno
    return code.co_firstlineno


@functools.lru_cache(maxsize=4096)
def _traceback_entry(code: CodeType, lasti: int) -> str:
    line = _line_of(code, lasti)
    text = linecache.getline(code.co_filename, line).strip()
    entry = f'File "{code.co_filename}", line {line}, in {code.co_name}'
    return f"{entry}\n    {text}" if text else entry


def frames(raw: RawStack) -> list[tuple[CodeType, int]]:
    """The ``(code object, instruction offset)`` pairs of a stack, innermost first."""
    return list(zip(raw[::2], raw[1::2], strict=True))  # type: ignore[arg-type]


def stack_trace(raw: RawStack) -> str:
    """Traceback text, outermost frame first (the form of ``node.meta["stack_trace"]``)."""
    return "\n".join(_traceback_entry(code, lasti) for code, lasti in reversed(frames(raw)))


def summary(raw: RawStack, limit: int = 4) -> tuple[str, ...]:
    """The innermost frames as ``file:line in function: source``, outermost first."""
    lines = []
    for code, lasti in reversed(frames(raw)[:limit]):
        line = _line_of(code, lasti)
        text = linecache.getline(code.co_filename, line).strip()
        place = f"{code.co_filename}:{line} in {code.co_name}"
        lines.append(f"{place}: {text}" if text else place)
    return tuple(lines)
