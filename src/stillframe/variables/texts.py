"""Text of values while a frame is captured: numbers that vary are fixed, tensors have no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stillframe.fake.tensor import FakeTensor
from stillframe.variables.stand_ins import NUMBERS

if TYPE_CHECKING:
    from stillframe.variables.translator import Translator

#: Functions and methods that make text of a value.
TEXTS = frozenset({"repr", "str", "format", "ascii", "__repr__", "__str__", "__format__"})


def told_value(tx: Translator, value: Any) -> Any:
    """The value itself, of which text is made; a number that varies is fixed by a guard.

    Raises:
        FrameError: it is a tensor.
    """
    seen = tx.here(value)
    if isinstance(seen, torch.Tensor):
        raise tx.graph_break(
            "The frame makes text of a tensor.",
            why="its data is not there while the frame is captured",
            hints=["return the tensor, or print it"],
        )
    return NUMBERS[type(seen)](seen) if type(seen) in NUMBERS else value


def told_parts(tx: Translator, values: Any) -> Any:
    """The same for the right side of ``text % values``."""
    if type(values) is tuple:
        return tuple(told_parts(tx, item) for item in tx.elements(values))
    if type(values) is dict:
        return {key: told_parts(tx, tx.load_item(values, key)) for key in values}
    return told_value(tx, values)


def must_stay(tx: Translator, tensor: FakeTensor) -> None:
    """A tensor will be shown when the graph has run as it is now."""
    tx.shown.append((tensor, tensor.storage_.written))


def check_shown(tx: Translator) -> None:
    """No tensor that is shown later was written since.

    Raises:
        FrameError: one was.
    """
    for tensor, written in tx.shown:
        if tensor.storage_.written != written:
            raise tx.graph_break(
                "The frame prints a tensor and writes to it afterwards.",
                why="printing is put off until the graph has run",
                hints=["print a clone"],
            )
