"""Texts made of sizes: a program cannot make them, so none may leave forward.

An f-string with a size is nearly always a message, and gets a placeholder (``<s0>``) for the
number. One that comes out of forward, as an output or as a key of a dictionary in it, would be
that placeholder at every call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.utils import _pytree as pytree

from stillframe.errors import NotSupported
from stillframe.shapes.env import ShapeEnv


def check_texts(env: ShapeEnv, outputs: Iterable[Any], spec: pytree.TreeSpec) -> None:
    """Refuse a text made of a size in what forward returns.

    Raises:
        NotSupported: there is one; the message shows it.
    """
    if not env.texts:
        return
    found = [o for o in outputs if isinstance(o, str)]
    for text in (*found, str(spec)):
        placeholder = next((t for t in env.texts if t in text), None)
        if placeholder is not None:
            raise NotSupported(
                f"forward returns a text that is made of the size {placeholder}.",
                why="a program computes tensors and numbers; this text is another one at each call",
                hints=["return the size itself, and make the text outside", "or make it static"],
            )
