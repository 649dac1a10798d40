"""A frame as a program would use it: captured anew whenever no earlier capture admits the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillframe.variables import FrameCapture, FrameState, capture_frame


class Recapturing:
    """A function whose calls go to the first capture whose guards hold, or to a new one.

    Args:
        function: what is captured.
        guarded: called around each new capture; what it gives must not change.

    Attributes:
        captures: those that there are.
    """

    def __init__(
        self, function: Callable[..., Any], guarded: Callable[[], Any] = lambda: None
    ) -> None:
        self.function = function
        self.guarded = guarded
        self.captures: list[FrameCapture] = []
        self._state = FrameState()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for capture in self.captures:
            if capture.failure(*args, **kwargs) is None:
                return capture(*args, **kwargs)
        before = self.guarded()
        made = capture_frame(self.function, args, kwargs, frame_state=self._state)
        after = self.guarded()
        assert before == after, f"the capture changed {before!r} to {after!r}"
        self.captures.append(made)
        return made(*args, **kwargs)
