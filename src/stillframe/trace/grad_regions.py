"""Grad mode in a graph: which regions forward enters, and the mode of the caller around them.

``no_grad`` says nothing where gradients are off already, and ``inference_mode`` switches in C++. So
the regions themselves are watched: inside of one the mode is what the region says, and after the
last one it is the caller's, which need not be that of the capture. Where all regions are without
gradients, a switch to True is a switch to the caller's mode. Otherwise the graph asks for the
caller's mode when it begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.trace.reads import OF_MODES

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

#: In the metadata of a switch: back to the grad mode of the caller.
OF_CALLER = "grad_mode_of_caller"


class GradRegions:
    """The switches of one recording.

    Attributes:
        state: what the innermost region says; None outside of all.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.state: bool | None = None
        self._before: dict[int, tuple[Any, bool | None]] = {}
        self._switches: list[torch.fx.Node] = []
        self._entering = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Regions of this thread are recorded inside."""
        enter_and_leave = {"__enter__": self._enter, "__exit__": self._leave}
        setter = {"__init__": self._enter, "__call__": self._leave, "__exit__": self._leave}
        with (
            torch_private.functions_replaced(torch.no_grad, enter_and_leave),
            torch_private.functions_replaced(torch.enable_grad, enter_and_leave),
            torch_private.functions_replaced(torch.inference_mode, enter_and_leave),
            torch_private.functions_replaced(torch.set_grad_enabled, setter),
        ):
            yield

    def _is_seen(self) -> bool:
        """Whether the user's code runs: not an operator, nor a region's own code."""
        functions = self.recorder.functions
        return not self._entering and torch_private.is_innermost_function_mode(functions)

    def _enter(self, original: Callable[..., Any], region: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._is_seen():
            return original(region, *args, **kwargs)
        self._before[id(region)] = region, self.state
        result = self._quietly(original, region, *args, **kwargs)
        try:
            self.switch(torch.is_grad_enabled())
        except BaseException:  # a block that is not entered is not left either
            self._quietly(type(region).__exit__, region, None, None, None)
            raise
        return result

    def _leave(self, original: Callable[..., Any], region: Any, *args: Any) -> Any:
        """A region ends; or ``set_grad_enabled`` was none, but makes a decorator."""
        if not self._is_seen():
            return original(region, *args)
        _, before = self._before.pop(id(region), (None, self.state))
        result = self._quietly(original, region, *args)
        self.switch(before)
        return result

    def _quietly(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._entering = True
        try:
            return original(*args, **kwargs)
        finally:
            self._entering = False

    def set_by_function(self, enabled: bool) -> None:
        """Somebody switches without a region."""
        if not self._entering:
            self.switch(enabled)

    def switch(self, state: bool | None) -> None:
        """Record that the mode is now ``state``; None is the caller's."""
        if state is self.state:
            return
        self.state = state
        value = True if state is None else state
        node = self.recorder.create(torch_private.set_grad_enabled, (value,), {})
        node.meta["val"] = None
        if state is None:
            node.meta[OF_CALLER] = True
        self._switches.append(node)

    def finish(self) -> None:
        """Switches back to the caller's mode say so, where True could mean something else."""
        for graph in dict.fromkeys(node.graph for node in self._switches):
            own = [node for node in self._switches if node.graph is graph]
            back = [node for node in own if OF_CALLER in node.meta]
            if back and any(node.args[0] for node in own if OF_CALLER not in node.meta):
                asked = _ask(graph)
                for node in back:
                    node.args = (asked,)
        self._switches.clear()


def _ask(graph: torch.fx.Graph) -> torch.fx.Node:
    """A node at the beginning of a graph that gives the caller's mode."""
    first = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(first):
        asked = graph.call_function(OF_MODES["grad mode"])
    asked.meta["val"] = torch.is_grad_enabled()
    return asked
