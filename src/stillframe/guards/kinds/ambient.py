"""Kinds about the state around a capture: torch's modes and defaults, FSDP, the backend.

Each is a probe, a function without arguments; the guard holds while the probe gives what it gave.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import deterministic

from stillframe import torch_private
from stillframe.context import GLOBAL_STATE_KEYS, Setting
from stillframe.errors import InternalError
from stillframe.guards.kinds.registry import Builder, register
from stillframe.source import GlobalStateSource, Guard, chain
from stillframe.source.base import shown
from stillframe.source.places import FSDPNNModuleSource

# -- probes ----------------------------------------------------------------------------------------


def _grad_mode() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def _deterministic_algorithms() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def _torch_function_state() -> tuple[Any, ...]:
    """Whether functions may be overridden, and by which modes.

    The mode of a default device counts by its device: ``with torch.device(...)`` makes a new one.
    """
    state = torch_private.torch_function_state()
    if not torch_private.count_function_modes():
        return (state,)
    modes = torch_private.function_modes()
    return state, *(torch_private.default_device_of(mode) or mode for mode in modes)


def _default_device() -> torch.device | None:
    """The device of the innermost mode that sets one; None without."""
    if not torch_private.count_function_modes():
        return None
    modes = reversed(torch_private.function_modes())
    found = (torch_private.default_device_of(mode) for mode in modes)
    return next((device for device in found if device is not None), None)


_AUTOCAST_DEVICES = (
    "cpu", "cuda", "mps", "xpu", "hpu", "ipu", "xla", "mtia", "maia", "privateuseone",
)  # fmt: skip


def _autocast() -> tuple[Any, ...]:
    """The devices for which operators cast, with the dtype, and whether casts are cached."""
    if not torch_private.any_autocast_enabled():
        return ()
    on = [d for d in _AUTOCAST_DEVICES if torch.is_autocast_enabled(d)]
    dtypes = [(device, torch.get_autocast_dtype(device)) for device in on]
    return torch.is_autocast_cache_enabled(), *dtypes


class _ThreadBackend(threading.local):
    """What compiles the frames of this thread."""

    def __init__(self) -> None:
        self.backend: Any = None


_current = _ThreadBackend()


def current_backend() -> Any:
    """The backend for which code of this thread is compiled, or None."""
    return _current.backend


@contextlib.contextmanager
def backend(chosen: Any) -> Iterator[None]:
    """Code of this thread is compiled for ``chosen`` inside."""
    old, _current.backend = _current.backend, chosen
    try:
        yield
    finally:
        _current.backend = old


# -- the kinds -------------------------------------------------------------------------------------


class AmbientKind:
    """A kind of guard on global state.

    Attributes:
        name: the field's name.
        probe: what is compared.
    """

    def __init__(self, name: str, probe: Callable[[], Any]) -> None:
        self.name = self.__name__ = name
        self.probe = probe
        self.__code__ = probe.__code__

    def __call__(self, builder: Builder, guard: Guard) -> None:
        builder.require_globally(guard, self.probe, self.probe())

    def __repr__(self) -> str:
        return self.name


def _probe(function: Callable[[], Any]) -> Callable[[], Any]:
    """A function of torch as a probe, with a line of its own."""
    return lambda: function()


GRAD_MODE = register(AmbientKind("GRAD_MODE", _grad_mode))
DETERMINISTIC_ALGORITHMS = register(
    AmbientKind("DETERMINISTIC_ALGORITHMS", _deterministic_algorithms)
)
TORCH_FUNCTION_STATE = register(AmbientKind("TORCH_FUNCTION_STATE", _torch_function_state))
DEFAULT_DEVICE = register(AmbientKind("DEFAULT_DEVICE", _default_device))
DEFAULT_DTYPE = register(AmbientKind("DEFAULT_DTYPE", _probe(torch.get_default_dtype)))
AUTOCAST = register(AmbientKind("AUTOCAST", _autocast))


def _current_streams() -> tuple[Any, ...]:
    """The streams to which work of this thread goes."""
    streams: list[Any] = [torch.cpu.current_stream()]
    if torch.accelerator.is_available():
        streams.append(torch.accelerator.current_stream())
    return tuple(streams)


#: Only for programs that look at the current stream.
CURRENT_STREAM = register(AmbientKind("CURRENT_STREAM", _current_streams))

BACKEND = register(AmbientKind("BACKEND", current_backend))


def FSDP_TRAINING_STATE(builder: Builder, guard: Guard) -> None:
    """What FSDP was doing with each module of the guards that it manages."""
    modules = dict.fromkeys(
        source
        for other in builder.guards
        for source in chain(other.originating_source)
        if isinstance(source, FSDPNNModuleSource)
    )
    probe = torch_private.fsdp_training_state
    for source in modules:
        state = probe(builder.value(source))
        asked = f"{builder.bind('fsdp_training_state', probe)}({builder.read(source)})"
        builder.require(
            guard,
            [f"{asked} is {builder.bind('state', state)}"],
            f"{source.name()} is in the state {state} of FSDP",
            lambda module: shown(probe(module)),
            (source,),
        )


register(FSDP_TRAINING_STATE)

#: The guards that every capture installs once.
AMBIENT_KINDS = (
    GRAD_MODE, DETERMINISTIC_ALGORITHMS, TORCH_FUNCTION_STATE, DEFAULT_DEVICE, DEFAULT_DTYPE,
    AUTOCAST, FSDP_TRAINING_STATE, BACKEND,
)  # fmt: skip


def ambient_guards() -> list[Guard]:
    """A guard of each ambient kind, on a place without a name."""
    return [GlobalStateSource().make_guard(kind) for kind in AMBIENT_KINDS]


# -- the state to return to ------------------------------------------------------------------------

_set_gpu_dtype = functools.partial(torch.set_autocast_dtype, "cuda")
_set_cpu_dtype = functools.partial(torch.set_autocast_dtype, "cpu")
_set_gpu_autocast = functools.partial(torch.set_autocast_enabled, "cuda")
_set_cpu_autocast = functools.partial(torch.set_autocast_enabled, "cpu")


def global_state() -> dict[str, Setting]:
    """torch's global state as it is now, for a ``GlobalContext``: how to set it, and to what."""
    state: dict[str, Setting] = {
        "grad_enabled": (torch_private.set_grad_enabled, torch.is_grad_enabled()),
        "torch_function_enabled": (
            torch_private.set_torch_function_state,
            torch_private.torch_function_state(),
        ),
        "autocast_enabled": (_set_gpu_autocast, torch.is_autocast_enabled("cuda")),
        "autocast_cpu_enabled": (_set_cpu_autocast, torch.is_autocast_enabled("cpu")),
        "autocast_gpu_dtype": (_set_gpu_dtype, torch.get_autocast_dtype("cuda")),
        "autocast_cpu_dtype": (_set_cpu_dtype, torch.get_autocast_dtype("cpu")),
        "autocast_cache_enabled": (
            torch.set_autocast_cache_enabled,
            torch.is_autocast_cache_enabled(),
        ),
    }
    if state.keys() != GLOBAL_STATE_KEYS:
        raise InternalError(f"not the global state: {sorted(state)}")
    return state
