"""Where the program is, for errors: the user's lines, the calls that lead there, a caret."""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame


def describe(frame: Frame | None) -> list[str]:
    """One entry per frame, outermost first, ``file:line in function: source``; the innermost one
    with a second line that points at the expression."""
    entries: list[str] = []
    innermost = frame
    while frame is not None:
        entries.append(_entry(frame))
        frame = frame.back
    entries.reverse()
    if innermost is not None:
        entries += caret(innermost)
    return entries


def _entry(frame: Frame) -> str:
    code = frame.decoded.code
    line = frame.decoded.line(frame.pc)
    text = linecache.getline(code.co_filename, line).strip()
    place = f"{code.co_filename}:{line} in {code.co_qualname}"
    return f"{place}: {text}" if text else place


def caret(frame: Frame) -> list[str]:
    """The source line and a line of carets under the expression, if both are known."""
    line, end_line, start, end = frame.decoded.position(frame.pc)
    if line is None or start is None or end is None:
        return []
    text = linecache.getline(frame.decoded.code.co_filename, line).rstrip("\n")
    if not text:
        return []
    # columns are counted in bytes of UTF-8
    raw = text.encode()
    first = len(raw[:start].decode(errors="replace"))
    last = len(raw[:end].decode(errors="replace")) if end_line == line else len(text)
    indent = len(text) - len(text.lstrip())
    return [text.strip(), " " * (first - indent) + "^" * max(1, last - first)]
