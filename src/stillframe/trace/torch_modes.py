"""Regions of grad mode and autocast as nodes of a graph of torch calls.

A region begins with the mode that it sets, and ends with the mode that the graph found when it came
to its beginning: ``no_grad`` captured where gradients are on ends without them where its caller has
them off.
"""

from __future__ import annotations

from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from stillframe import stack, torch_private
from stillframe.fake.tensor import FakeTensor

if TYPE_CHECKING:
    from stillframe.trace.torch_calls import TorchCalls

_SWITCHES = {
    cls.__dict__[name].__code__
    for cls in (torch.no_grad, torch.enable_grad, torch.set_grad_enabled)
    for name in ("__init__", "__enter__", "__exit__")
    if name in cls.__dict__
}


class ModeNodes:
    """Makes the nodes of switches and regions.

    Args:
        calls: the graph.
    """

    def __init__(self, calls: TorchCalls) -> None:
        self.calls = calls
        self._switches: dict[int, tuple[Any, torch.fx.Node]] = {}
        self._unseen: list[torch.fx.Node] = []
        self._autocasts: dict[int, tuple[Any, torch.fx.Node]] = {}

    def switch_grad(self, enabled: bool, caller: FrameType | None) -> None:
        """A switch of grad mode; the end of a region goes back to what was before it."""
        region, ends = _region_of(caller)
        if region is None:
            self._set_grad(enabled)
        elif ends and id(region) in self._switches:
            self._set_grad(self._switches.pop(id(region))[1])
        else:
            if id(region) not in self._switches:
                self._switches[id(region)] = (region, self._ask_grad())
            self._set_grad(enabled)

    def switch_unseen(self, enabled: bool) -> None:
        """The begin or end of a region that no call of a switch shows."""
        if not enabled:
            self._unseen.append(self._ask_grad())
            self._set_grad(False)
        else:
            self._set_grad(self._unseen.pop())

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


def _region_of(caller: FrameType | None) -> tuple[Any, bool]:
    """The ``torch.no_grad()`` or the like that switches grad mode, and whether it ends."""
    while caller is not None and caller.f_code not in _SWITCHES:
        if not stack.is_user_code(caller.f_code):
            caller = caller.f_back
            continue
        return None, False
    if caller is None:
        return None, False
    while caller.f_back is not None and caller.f_back.f_code in _SWITCHES:
        caller = caller.f_back  # a region switches by another one
    return caller.f_locals["self"], caller.f_code.co_name == "__exit__"
