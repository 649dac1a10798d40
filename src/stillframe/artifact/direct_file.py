"""A new file written past the page cache.

Writing a gigabyte through the page cache costs more in fresh memory pages than in disk time, and
pushes out what other programs have there. So full blocks go to the disk directly, from a buffer
that is aligned as the kernel asks, while the next block is being filled. File systems without
direct access are written as usual.
"""

from __future__ import annotations

import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

BLOCK = 4 << 20


class DirectFile:
    """A file for sequential writing, with short corrections of what was written before.

    Args:
        path: an existing, empty file.
    """

    def __init__(self, path: str) -> None:
        self._plain = os.open(path, os.O_RDWR)
        self._direct = _open_direct(path)
        self._buffers = [mmap.mmap(-1, BLOCK), mmap.mmap(-1, BLOCK)]
        self._begin = 0  # where the current buffer belongs in the file
        self._fill = 0
        self._at = 0
        self._worker = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    # -- what zipfile asks for ------------------------------------------------------------------

    def tell(self) -> int:
        """The place of the next write."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to ``offset``, at most to the end."""
        end = self._begin + self._fill
        self._at = {0: 0, 1: self._at, 2: end}[whence] + offset
        if not 0 <= self._at <= end:
            raise ValueError(f"a place outside of the {end} bytes written: {self._at}")
        return self._at

    def write(self, data: Any) -> int:
        """Write at the present place, over what is there, and at the end."""
        view = memoryview(data).cast("B")
        size = len(view)
        over = min(size, self._begin + self._fill - self._at)
        if over:
            self._correct(view[:over])
        self._append(view[over:])
        self._at += size
        return size

    def flush(self) -> None:
        """Blocks are written when they are full, and the rest by :meth:`finish`."""

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what is left; afterwards everything is on the disk."""
        self._wait()
        _write_all(self._plain, memoryview(self._buffers[0])[: self._fill], self._begin)
        os.fsync(self._plain)

    def close(self) -> None:
        """Let go of the file, also after an error."""
        self._worker.shutdown()
        for handle in (self._plain, self._direct):
            if handle is not None:
                os.close(handle)

    # -- blocks ---------------------------------------------------------------------------------

    def _append(self, view: memoryview) -> None:
        while len(view):
            part = view[: BLOCK - self._fill]
            self._buffers[0][self._fill : self._fill + len(part)] = part
            self._fill += len(part)
            view = view[len(part) :]
            if self._fill == BLOCK:
                self._send()

    def _send(self) -> None:
        self._wait()
        self._pending = self._worker.submit(self._write_block, self._buffers[0], self._begin)
        self._buffers.reverse()
        self._begin += BLOCK
        self._fill = 0

    def _write_block(self, block: mmap.mmap, offset: int) -> None:
        if self._direct is not None:
            try:
                return _write_all(self._direct, memoryview(block), offset)
            except OSError:  # some file systems open for direct access and refuse to write
                os.close(self._direct)
                self._direct = None
        _write_all(self._plain, memoryview(block), offset)

    def _correct(self, view: memoryview) -> None:
        """Overwrite bytes before the end: in the file, and in the buffer not written yet."""
        in_file = max(0, min(len(view), self._begin - self._at))
        if in_file:
            self._wait()
            _write_all(self._plain, view[:in_file], self._at)
        rest = view[in_file:]
        if len(rest):
            start = self._at + in_file - self._begin
            self._buffers[0][start : start + len(rest)] = rest

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


def _open_direct(path: str) -> int | None:
    flag = getattr(os, "O_DIRECT", None)
    try:
        return None if flag is None else os.open(path, os.O_WRONLY | flag)
    except OSError:
        return None


def _write_all(handle: int, view: memoryview, offset: int) -> None:
    while len(view):
        written = os.pwrite(handle, view, offset)
        view = view[written:]
        offset += written
