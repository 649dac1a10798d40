"""Attributes that Python code has set on tensors: ``weight.scale = 2``.

A fake that stands for a parameter, a buffer or an input has those of the real tensor. What forward
changes in them is refused, but for attributes of inputs under strict capture, which become part of
the program (``attribute_stores``) and are taken back before these are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch

from stillframe.errors import NotSupported, SideEffectError
from stillframe.export.holdings import same
from stillframe.export.identity import is_placeholder
from stillframe.fake.tensor import FakeTensor

_OF_FAKES = frozenset(FakeTensor.__annotations__)
#: Torch's own, such as the mark of a parameter: a fake has them by other ways.
_OF_TORCH = frozenset(
    itertools.chain.from_iterable(vars(c).get("__annotations__", ()) for c in torch.Tensor.__mro__)
)
_KNOWN = _OF_FAKES | _OF_TORCH


def is_custom(name: str) -> bool:
    """Whether tensors have no attribute of this name unless somebody sets it."""
    return not hasattr(torch.Tensor, name) or name == "__dict__"


def is_reserved(name: str) -> bool:
    """Whether an attribute of this name means something to fakes, or to torch."""
    return name in _KNOWN


class TensorAttributes:
    """The attributes of the tensors of one capture, set on their fakes.

    Args:
        tensors: ``(how a person names it, fake, real tensor)``.

    Raises:
        NotSupported: an attribute has the name of one of the fake's own.
    """

    def __init__(self, tensors: Iterable[tuple[str, FakeTensor, torch.Tensor]]) -> None:
        self._tensors = [(name, fake, _custom(real)) for name, fake, real in tensors]
        for name, fake, own in self._tensors:
            for attribute, value in own.items():
                if attribute in _OF_FAKES:
                    raise NotSupported(f"{name} has an attribute {attribute}; rename it.")
                vars(fake)[attribute] = value

    def check(self) -> None:
        """Compare with what they were.

        Raises:
            SideEffectError: names the tensor and the attribute.
        """
        for name, fake, before in self._tensors:
            if not before and vars(fake).keys() <= _KNOWN:
                continue
            now = _custom(fake)
            for attribute in {**before, **now}:
                if not same(before.get(attribute, self), now.get(attribute, self)):
                    raise _refusal(name, attribute)


def has_attributes(fake: FakeTensor) -> bool:
    """Whether Python code has set attributes on a fake, or made it a parameter."""
    return bool(_custom(fake)) or bool(getattr(fake, "_is_param", False))


def _custom(tensor: torch.Tensor) -> dict[str, Any]:
    left_out = _KNOWN if isinstance(tensor, FakeTensor) else _OF_TORCH
    names = vars(tensor)
    return {k: v for k, v in names.items() if k not in left_out} if names else {}


def lost_attributes(outputs: Iterable[Any]) -> list[str]:
    """A sentence for each attribute that forward has set on a tensor that it made and returns."""
    made = [v for v in outputs if isinstance(v, FakeTensor) and not is_placeholder(v)]
    names = dict.fromkeys(name for tensor in made for name in _custom(tensor))
    return [f"forward sets the attribute {n} of a result; the program does not" for n in names]


def _refusal(name: str, attribute: Any) -> SideEffectError:
    hints = ["return the value, or keep it in a registered buffer"]
    if is_custom(attribute):
        hints.append("strict=True makes attributes that Python sets on inputs part of the program")
    return SideEffectError(
        f"forward changes the attribute {attribute} of {name}.",
        why="plain tracing does not see who reads it, nor what is set on state",
        hints=hints,
    )
