"""A call of the captured module on the machine."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch

from stillframe import stack
from stillframe.errors import SideEffectError
from stillframe.export.strict.policy import StrictPolicy
from stillframe.frames import Machine
from stillframe.frames.machine import deep_recursion


def run(
    policy: StrictPolicy, callee: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, list[str]]:
    """Call ``callee`` on the machine.

    Args:
        policy: watches; made for the captured module.
        callee: the captured module, or a method of it.
        args, kwargs: its inputs, fakes.

    Returns:
        The result, and a sentence for each value from outside that is fixed in the program.

    Raises:
        SideEffectError: the program changes something outside of it.
        FrameError: the program uses something that the machine does not run.
    """
    machine = Machine(policy)
    modes = switched_modes()
    try:
        with deep_recursion(machine), policy.identities.keys_watched():
            result = policy.call(callee, args, kwargs)
        policy.finish()
    except BaseException:
        with contextlib.suppress(SideEffectError):  # the first error counts
            policy.close()
        # errors of the capture pass the program's own blocks by
        set_modes(*modes)
        raise
    policy.close()
    return result, list(policy.outside.notes)


_DEVICES = ("cpu", "cuda")


def switched_modes() -> tuple[bool, torch.dtype, list[bool]]:
    """What blocks of torch switch: gradients, the default dtype, autocast by device."""
    autocast = [torch.is_autocast_enabled(device) for device in _DEVICES]
    return torch.is_grad_enabled(), torch.get_default_dtype(), autocast


def set_modes(gradients: bool, dtype: torch.dtype, autocast: list[bool]) -> None:
    torch.set_grad_enabled(gradients)
    torch.set_default_dtype(dtype)
    for device, enabled in zip(_DEVICES, autocast, strict=True):
        torch.set_autocast_enabled(device, enabled)


stack.add_to_interpreter(os.path.dirname(__file__))
