"""Captured frames beside eager: results, and everything that they leave behind."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from stillframe.frames import Machine
from stillframe.variables import FrameCapture, FrameState, Options, Translator, capture_frame

World = tuple[Any, ...]


def agrees(
    function: Callable[..., Any],
    make: Callable[[], World],
    *others: Callable[[], World],
    frame_state: FrameState | None = None,
    options: Options | None = None,
) -> FrameCapture:
    """Capture a function, and call the capture and the function on equal worlds.

    Args:
        function: what is captured.
        make: makes its arguments, anew each time; the capture must not change them.
        others: make arguments for further calls, which the guards must admit.
    """
    example, untouched = make(), make()
    capture = capture_frame(function, example, frame_state=frame_state, options=options)
    assert_same(example, untouched)
    for other in (make, *others):
        ours, theirs = other(), other()
        assert capture.failure(*ours) is None, capture.failure(*ours)
        results = capture(*ours), function(*theirs)
        assert_same(*results)
        assert_same(ours, theirs)
    return capture


def guards_of(capture: FrameCapture) -> list[str]:
    """``KIND name`` of each guard on a place, in order."""
    return [f"{guard.kind} {guard.name}" for guard in capture.guards if guard.name]


def refuses(capture: FrameCapture, *args: Any) -> str:
    """Why the guards do not admit a call; they must not."""
    failure = capture.failure(*args)
    assert failure is not None, "the guards admit the call"
    return str(failure)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same values, classes and structure, aliases and cycles included."""
    _Comparison().compare(ours, theirs, "value")


def new_translator(function: Callable[..., Any], options: Options | None = None) -> Translator:
    """A translator with a machine, to which values can be given by hand."""
    made = Translator(function, FrameState(), options or Options())  # type: ignore[arg-type]
    Machine(made)
    return made


class _Comparison:
    def __init__(self) -> None:
        self.met: dict[int, tuple[Any, Any]] = {}
        self.met_there: dict[int, Any] = {}

    def compare(self, ours: Any, theirs: Any, path: str) -> None:
        assert type(ours) is type(theirs), f"{path}: {type(ours)} and {type(theirs)}"
        if isinstance(ours, np.generic):
            self.compare_arrays(ours, theirs, path)
            return
        if isinstance(ours, (int, str, bytes, bool, type(None), type, complex, ModuleType)):
            assert ours == theirs, f"{path}: {ours!r} and {theirs!r}"
            return
        if isinstance(ours, float):
            same = ours == theirs or (math.isnan(ours) and math.isnan(theirs))
            assert same, f"{path}: {ours!r} and {theirs!r}"
            return
        if id(ours) in self.met:
            assert self.met[id(ours)][1] is theirs, f"{path}: one object here, two in eager"
            return
        assert id(theirs) not in self.met_there, f"{path}: two objects here, one in eager"
        self.met[id(ours)] = ours, theirs
        self.met_there[id(theirs)] = theirs
        if isinstance(ours, np.ndarray):
            self.compare_arrays(ours, theirs, path)
        elif isinstance(ours, torch.Tensor):
            torch.testing.assert_close(
                ours, theirs, equal_nan=True, msg=lambda text: f"{path}: {text}"
            )
            assert ours.requires_grad == theirs.requires_grad, f"{path}: requires_grad"
        elif isinstance(ours, dict):
            assert list(map(repr, ours)) == list(map(repr, theirs)), f"{path}: keys"
            for (key, one), other in zip(ours.items(), theirs.values(), strict=True):
                self.compare(one, other, f"{path}[{key!r}]")
        elif isinstance(ours, (list, tuple, collections.deque)):
            assert len(ours) == len(theirs), f"{path}: {len(ours)} and {len(theirs)} items"
            for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                self.compare(one, other, f"{path}[{index}]")
        if hasattr(ours, "__dict__") and not callable(ours):
            self.compare(vars(ours), vars(theirs), f"{path}.__dict__")

    def compare_arrays(self, ours: Any, theirs: Any, path: str) -> None:
        assert ours.dtype == theirs.dtype, f"{path}: {ours.dtype} and {theirs.dtype}"
        assert ours.shape == theirs.shape, f"{path}: {ours.shape} and {theirs.shape}"
        assert ours.flags.writeable == theirs.flags.writeable, f"{path}: writeable"
        near = 2e-3 if ours.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=near, atol=near / 10, err_msg=path)
