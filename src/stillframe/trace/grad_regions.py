"""Regions without gradients that no switch of grad mode tells about.

``no_grad`` entered where gradients are off already switches nothing, and ``inference_mode``
switches in C++. Called where gradients are on, the module would compute the region without them,
and so must the program. Its nodes are those of a region that was entered with gradients on; a
program switches back to the mode of its caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

#: In the metadata of a switch: back to the grad mode of the caller, which was off in the capture.
OF_CALLER = "grad_mode_of_caller"


@contextlib.contextmanager
def watched(recorder: Recorder) -> Iterator[None]:
    """The regions of this thread's code are recorded inside."""
    regions = _Regions(recorder)
    stand_ins = {"__enter__": regions.enter, "__exit__": regions.leave}
    with (
        torch_private.functions_replaced(torch.no_grad, stand_ins),
        torch_private.functions_replaced(torch.inference_mode, stand_ins),
    ):
        yield


class _Regions:
    """Which region, if any, was opened with a node of its own: the outermost one."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.ambient = torch.is_grad_enabled()
        self.open: Any = None

    def enter(self, original: Callable[..., Any], region: Any) -> Any:
        """``region.__enter__()``."""
        functions = self.recorder.functions
        if not torch_private.is_innermost_function_mode(functions):
            return original(region)  # inside of an operator
        before, switches = torch.is_grad_enabled(), functions.switches
        result = original(region)
        unseen = functions.switches == switches and not torch.is_grad_enabled()
        takes_effect = getattr(region, "mode", True)  # inference_mode(False) does not
        if unseen and takes_effect and self.open is None and before == self.ambient:
            self.open = region
            self._switch(False)
        return result

    def leave(self, original: Callable[..., Any], region: Any, *error: Any) -> Any:
        """``region.__exit__(...)``."""
        if self.open is region:
            self.open = None
            self._switch(True).meta[OF_CALLER] = True
        return original(region, *error)

    def _switch(self, enabled: bool) -> torch.fx.Node:
        node = self.recorder.create(torch_private.set_grad_enabled, (enabled,), {})
        node.meta["val"] = None
        return node
