"""C functions that no captured program repeats: they read a clock, or change the process."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any


def unrepeatable(function: Any, args: tuple[Any, ...]) -> str | None:
    """What a C function does that no program repeats: it reads a clock, or changes the process."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if isinstance(owner, ModuleType):
        return _UNREPEATABLE.get((owner.__name__, name))
    if isinstance(owner, type) and owner.__module__ == "datetime":
        return "reads the clock" if name in ("now", "utcnow", "today") else None
    return None


_UNREPEATABLE = {
    **{("time", name): "reads the clock" for name in (
        "time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns",
        "process_time", "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime",
    )},
    **{(os.name, name): "asks the system for random bytes" for name in (
        "urandom", "getrandom",
    )},
    **{("_uuid", name): "makes a unique name" for name in ("generate_time_safe", "UuidCreate")},
    **{(os.name, name): "changes the process or its files" for name in (
        "putenv", "unsetenv", "chdir", "mkdir", "rmdir", "remove", "unlink", "rename", "replace",
        "system", "kill", "umask", "truncate", "symlink", "link", "fork", "execv",
    )},
}  # fmt: skip
