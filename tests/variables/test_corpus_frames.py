"""The programs of the frame machine, inside of a captured frame: the same result, or refused."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.frames.test_corpus import load_runner

from stillframe.errors import StillframeError
from stillframe.variables import capture_frame

RUNNER = load_runner()
ALL = list(RUNNER.programs())

#: Raises after it has printed: a capture that fails has written nothing.
PRINTS_AND_RAISES = {"library.contextmanager_with_error"}


def outcome(call: Callable[[], Any]) -> tuple[str, str, str]:
    """The result as text, the output, and the exception, which is the program's own."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            return RUNNER._text(call()), output.getvalue(), ""
        except StillframeError:
            raise
        except Exception as e:
            return "", output.getvalue(), repr(e)


def captured(function: Callable[[], Any]) -> Any:
    def frame(x: torch.Tensor) -> Any:
        return x * 2, function()

    example = torch.ones(2)
    doubled, result = capture_frame(frame, (example,))(example)
    assert doubled.tolist() == [2, 2]
    return result


@pytest.mark.filterwarnings("ignore")
def test_a_program_inside_of_a_frame_is_right_or_refused() -> None:
    refused, wrong = [], []
    for item in ALL:
        expected = outcome(item.function)
        try:
            found = outcome(lambda item=item: captured(item.function))
        except StillframeError:
            refused.append(item.name)
            continue
        if found != expected and item.name not in PRINTS_AND_RAISES:
            wrong.append((item.name, expected, found))
    assert not wrong
    assert len(refused) < len(ALL) / 3
