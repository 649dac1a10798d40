"""Prints, warnings and logs are put off; text of tensors is refused."""

from __future__ import annotations

import collections
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.watching import kept, x

import stillframe as sf
from stillframe.frames import Machine
from stillframe.variables import (
    FrameState,
    Options,
    Translator,
    capture_frame,
)
from stillframe.variables.kinds import logs


@pytest.fixture
def globals_() -> Iterator[dict[str, Any]]:
    with kept(globals()) as table:
        yield table


@pytest.mark.spec("5.50")
def test_prints_are_put_off(capsys: pytest.CaptureFixture[str]) -> None:
    class Shown:
        def __repr__(self) -> str:
            return "shown"

    items = [1, 2]

    def step(x: torch.Tensor) -> Any:
        print("first", x * 2, items, {"k": x.shape}, Shown(), sep="|")
        items.append(3)
        print("second", file=sys.stderr)
        return x

    capture = capture_frame(step, (x(),))
    assert capsys.readouterr() == ("", "") and items == [1, 2]
    capture(x())
    ours = capsys.readouterr()
    del items[2:]
    step(x())
    assert ours == capsys.readouterr()
    assert "tensor([0., 2., 4.])" in ours.out and "shown" in ours.out and "[1, 2]" in ours.out


@pytest.mark.spec("5.50")
def test_what_cannot_be_put_off_is_refused() -> None:
    def writes(x: torch.Tensor) -> Any:
        y = x * 2
        print(y)
        y.add_(1)
        return y

    with pytest.raises(sf.FrameError, match="writes to it afterwards"):
        capture_frame(writes, (x(),))

    with pytest.raises(sf.FrameError, match="reorderable_logging_functions"):
        capture_frame(
            lambda x: print(x), (x(),), options=Options(reorderable_logging_functions=frozenset())
        )

    with pytest.raises(sf.FrameError, match="calls info"):
        capture_frame(lambda x: logging.info("a"), (x(),))


@pytest.mark.spec("5.50")
def test_nothing_is_put_off_from_inside_an_operator() -> None:
    tx = Translator(seeing, FrameState(), Options())
    Machine(tx)
    tx.recorder.subgraph = object()  # type: ignore[assignment]
    with pytest.raises(sf.FrameError, match="function that an operator runs"):
        logs.DebuggingVariable(print).call_function(tx, ("taken",), {})


def seeing() -> None:
    """A function of the tests."""


@pytest.mark.spec("5.50")
def test_logging_that_may_be_put_off(caplog: pytest.LogCaptureFixture) -> None:

    options = Options(reorderable_logging_functions=frozenset({logging.warning}))

    def step(x: torch.Tensor) -> Any:
        logging.warning("got %s of %d", x, 3)
        return x

    capture = capture_frame(step, (x(),), options=options)
    assert not caplog.messages
    capture(x())
    assert caplog.messages == ["got tensor([0., 1., 2.]) of 3"]


@pytest.mark.spec("5.50")
def test_warnings_blame_the_line_of_the_program() -> None:
    def step(x: torch.Tensor) -> Any:
        warnings.warn("careful", DeprecationWarning, stacklevel=1)
        warnings.warn(RuntimeWarning("very"))  # noqa: B028
        return x

    def caught(function: Any) -> list[Any]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            function(x())
        return [(str(w.message), w.category, w.filename, w.lineno) for w in found]

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        capture = capture_frame(step, (x(),))
    assert not found
    assert caught(capture) == caught(step)

    def inside(x: torch.Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("not heard")  # noqa: B028
        return x

    with pytest.raises(sf.FrameError, match="warn|filters"):
        capture_frame(inside, (x(),))


@pytest.mark.spec("5.51")
def test_loggers(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:

    globals_["LOGGER"] = logging.getLogger("of this test")

    def step(x: torch.Tensor) -> Any:
        LOGGER.info("hello %s", x)  # type: ignore[name-defined]  # noqa: F821
        return x + 1, LOGGER  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(sf.FrameError, match="method info of the logger of this test"):
        capture_frame(step, (x(),))
    options = Options(ignored_logger_methods=frozenset({logging.Logger.info}))
    capture = capture_frame(step, (x(),), options=options)
    assert "FUNCTION_MATCH G['LOGGER']" in guards_of(capture)
    assert capture(x())[1] is globals_["LOGGER"]
    globals_["LOGGER"] = logging.getLogger("other")
    assert "LOGGER" in refuses(capture, x())


FORMAT, PERCENT, NAMED = "{}", "%s", "%(a)s"

TEXTS: list[Callable[[Any], Any]] = [
    lambda x: f"{x}",
    lambda x: str(x),
    lambda x: repr([x]),
    lambda x: FORMAT.format(x),
    lambda x: PERCENT % x,
    lambda x: PERCENT % (x,),
    lambda x: NAMED % {"a": x},
    lambda x: repr(collections.deque([x])),
    lambda x: x.__repr__(),
]


@pytest.mark.parametrize("function", TEXTS)
def test_text_of_tensors_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(sf.FrameError, match="text of a tensor"):
        capture_frame(function, (x(),))


def test_text_of_sizes_fixes_them() -> None:
    state = FrameState()

    def sized(x: torch.Tensor) -> Any:
        return x * 2, f"{x.shape[0]} {x.shape[0]:03d}", "%s" % x.shape[0], str(x.shape[0])

    agrees(sized, lambda: (torch.ones(3),), frame_state=state)
    capture = agrees(sized, lambda: (torch.ones(5),), frame_state=state)
    refuses(capture, torch.ones(6))
