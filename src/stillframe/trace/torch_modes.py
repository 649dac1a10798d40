"""Regions of grad mode and autocast as nodes of a graph of torch calls.

A region begins with the mode that it sets. After the outermost one the mode is that of the caller,
which the graph asks for: ``no_grad`` captured where gradients are on ends without them where its
caller has them off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.fake.tensor import FakeTensor

if TYPE_CHECKING:
    from stillframe.trace.torch_calls import TorchCalls


class ModeNodes:
    """Makes the nodes of switches and regions.

    Args:
        calls: the graph.
    """

    def __init__(self, calls: TorchCalls) -> None:
        self.calls = calls
        self._caller_mode: torch.fx.Node | None = None
        self._autocasts: dict[int, tuple[Any, torch.fx.Node]] = {}

    def switch_grad(self, state: bool | None) -> None:
        """A switch of grad mode; None is the caller's, which is asked before the first one."""
        if self._caller_mode is None:
            self._caller_mode = self._ask_grad()
        self._set_grad(self._caller_mode if state is None else state)

    def _ask_grad(self) -> torch.fx.Node:
        node = self.calls.create("call_function", torch.is_grad_enabled, (), {})
        node.meta["val"] = torch.is_grad_enabled()
        return node

    def _set_grad(self, enabled: Any) -> None:
        self.calls.create("call_function", torch_private.set_grad_enabled, (enabled,), {})

    def tell_grad_mode(self, tensor: FakeTensor) -> None:
        """``tensor`` tells whether gradients are enabled when the graph comes here."""
        args, kwargs = (self._ask_grad(),), {"dtype": torch.bool}
        self.calls.track(
            tensor, self.calls.create("call_function", torch.scalar_tensor, args, kwargs)
        )

    def enter_autocast(self, region: torch.autocast) -> None:
        """A region of autocast begins; operators have its casts and need no region."""
        if not self.calls.whole:
            return
        enter, _ = torch_private.autocast_switches()
        kind = (region.device, region.fast_dtype, region._enabled, region._cache_enabled)
        self._autocasts[id(region)] = (region, self.calls.create("call_function", enter, kind, {}))

    def leave_autocast(self, region: torch.autocast) -> None:
        """A region of autocast ends."""
        known = self._autocasts.pop(id(region), None)
        if known is not None:
            _, leave = torch_private.autocast_switches()
            self.calls.create("call_function", leave, (known[1],), {})
