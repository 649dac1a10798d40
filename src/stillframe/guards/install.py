"""Adding guards to the capture that is going on. No torch."""

from __future__ import annotations

import functools
import logging

from stillframe.context import TracingContext
from stillframe.guards.guards_set import GuardsContext
from stillframe.guards.kinds.identity import DUPLICATE_INPUT
from stillframe.source import (
    Guard,
    Source,
    is_from_flatten_script_object_source,
    is_from_local_source,
)
from stillframe.source.guard import CreateFn, logger


def install_guard(*guards: Guard, skip: int = 0) -> None:
    """Add guards to the current tracing context.

    Where a guard was made is only noted while guards are logged (logger ``stillframe.guards`` at
    DEBUG): a stack costs more than the guard.

    Args:
        skip: how many callers are helpers, which the stack leaves out.

    Raises:
        RuntimeError: there is no tracing context.
    """
    installed = TracingContext.get().part(GuardsContext).dynamo_guards
    is_logging = logger.isEnabledFor(logging.DEBUG)
    for guard in guards:
        if not is_logging and guard.user_stack is None:
            guard.user_stack = TracingContext.extract_stack()
        installed.add(guard, collect_debug_stack=is_logging, skip=skip + 1)
        if is_logging:
            logger.debug("guard installed: %s %s", guard.kind, guard.name)


def make_dupe_guard(a: Source | None, b: Source | None) -> CreateFn | None:
    """The guard that ``a`` and ``b`` hold one object, to be made on ``a``; None if none is needed.

    None as well where no check could be made: one is a local of the frame and the other is not,
    so they are not in one scope; or one reads the contents of a script object, made anew each time.
    """
    if a is None or b is None or a == b:
        return None
    if is_from_local_source(a) is not is_from_local_source(b):
        return None
    if is_from_flatten_script_object_source(a) or is_from_flatten_script_object_source(b):
        return None
    return functools.partial(DUPLICATE_INPUT, source_b=b)
