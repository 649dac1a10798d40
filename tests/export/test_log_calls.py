"""Messages of forward, and recurrent layers, under strict capture."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import stillframe as sf

pytestmark = pytest.mark.spec("2.15")
X = torch.ones(3)
LOGGER = logging.Logger("a logger of its own")
HEARD = io.StringIO()
LOGGER.addHandler(logging.StreamHandler(HEARD))


@contextlib.contextmanager
def plain_root() -> Iterator[None]:
    """The root logger without the handlers of the test runner."""
    handlers, logging.root.handlers[:] = list(logging.root.handlers), []
    logging.root.addHandler(logging.StreamHandler(HEARD))
    HEARD.truncate(0)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


def an_exception() -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        logging.exception("outer")


MESSAGES: dict[str, Callable[[], Any]] = {
    "critical": lambda: logging.critical("said"),
    "debug": lambda: logging.debug("said"),
    "error": lambda: logging.error("said"),
    "exception": an_exception,
    "info": lambda: logging.info("said"),
    "log": lambda: logging.log(logging.ERROR, "said"),
    "warning": lambda: logging.warning("said %s", "so"),
    "print": lambda: print("said"),
    "warn": lambda: warnings.warn("said", stacklevel=2),
    "of a logger": lambda: LOGGER.warning("said %s", "so"),
}


@pytest.mark.filterwarnings("ignore:said")
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_no_side_effect(name: str) -> None:
    message = MESSAGES[name]

    def forward(x: Any) -> Any:
        message()
        return x + 1

    with plain_root():
        program = sf.export(forward, (X,), strict=True)
        said = HEARD.getvalue()
        assert torch.equal(program.module()(X), X + 1)
        assert HEARD.getvalue() == said  # the program says nothing


def test_a_message_is_heard_once_at_export() -> None:
    sf.export(lambda x: (LOGGER.warning("sizes %s", tuple(x.shape)), x)[1], (X,), strict=True)
    assert "sizes (3,)" in HEARD.getvalue()


def test_what_a_handler_of_somebody_else_keeps_is_not_believed() -> None:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    kept: list[Any] = []
    logger = logging.Logger("with a handler")
    logger.addHandler(Keep())

    def forward(x: Any) -> Any:
        logger.warning("said")
        return x * len(kept)

    with pytest.raises(sf.StillframeError):
        sf.export(forward, (X,), strict=True)
    assert not kept


@pytest.mark.parametrize("layer", [torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU])
def test_recurrent_layers_are_captured(layer: Callable[..., torch.nn.Module]) -> None:
    module = layer(3, 4)
    program = sf.export(
        module, (torch.rand(5, 2, 3),), dynamic_shapes=[{1: sf.Dim("batch")}], strict=True
    )
    x = torch.rand(5, 6, 3)
    torch.testing.assert_close(program.module()(x), module(x))
