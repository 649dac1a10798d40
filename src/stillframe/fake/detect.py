"""Which fake mode is in force, here and for these inputs: there must not be two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils import _pytree as pytree

from stillframe import stack, torch_private
from stillframe.context import TracingContext
from stillframe.errors import InternalError
from stillframe.fake.mode import FakeMode, mode_of
from stillframe.fake.tensor import FakeTensor


def detect_fake_mode(inputs: Any = None) -> FakeMode | None:
    """The fake mode of the tracing context, of the dispatch modes or of the inputs; None if none.

    Args:
        inputs: a container of any nesting; the fakes among its leaves are asked.

    Raises:
        InternalError: two of them are not the same mode.
    """
    found = list(_candidates(inputs))
    if not found:
        return None
    (first, where), *others = found
    for mode, elsewhere in others:
        if mode is not first:
            raise InternalError(
                f"two fake modes are in force: that of {where}, made {_origin(first)}, "
                f"and that of {elsewhere}, made {_origin(mode)}"
            )
    return first


def active_fake_mode() -> FakeMode | None:
    """The fake mode of the innermost dispatch mode that has one, or None."""
    return next((mode for mode, _ in _dispatching()), None)


def _candidates(inputs: Any) -> Iterator[tuple[FakeMode, str]]:
    context = TracingContext.try_get()
    if context is not None and context.fake_mode is not None:
        yield context.fake_mode, "the tracing context"
    yield from _dispatching()
    for index, leaf in enumerate(pytree.tree_leaves(inputs)):
        if isinstance(leaf, FakeTensor):
            yield mode_of([leaf], {}), f"the fake tensor at leaf {index} of the inputs"


def _dispatching() -> Iterator[tuple[FakeMode, str]]:
    for index, mode in enumerate(reversed(torch_private.dispatch_modes())):
        fake_mode = getattr(mode, "fake_mode", None)
        if isinstance(fake_mode, FakeMode):
            yield fake_mode, f"dispatch mode {index}, counted from the innermost"


def _origin(mode: FakeMode) -> str:
    lines = stack.summary(mode.made_at, 1)
    return f"at {lines[0]}" if lines else "outside of user code"
