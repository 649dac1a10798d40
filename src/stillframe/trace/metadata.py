"""Node metadata of a trace by dispatch: ``val`` and ``tensor_meta``."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from stillframe.fake.script_objects import FakeScriptObject
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes import layout
from stillframe.shapes.env import ShapeEnv

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class TensorMetadata(NamedTuple):
    """What ``node.meta["tensor_meta"]`` holds; the field names are those that fx passes read."""

    shape: torch.Size
    dtype: torch.dtype
    requires_grad: bool
    stride: tuple[Any, ...]
    memory_format: torch.memory_format | None
    is_quantized: bool
    qparams: dict[str, Any]


def value_of_result(env: ShapeEnv, value: Any) -> Any:
    """``val`` for a result: fakes for tensors, symbolic values and numbers as they are.

    A fake is a snapshot: what happens to the tensor later does not rewrite history, and nobody but
    the traced function holds the tensor itself (autograd copies tensors that others hold too).
    Tensors that no fake can stand for (sparse, quantised, subclasses) and other objects give None.
    """
    if isinstance(value, FakeTensor):
        return value.snapshot()
    if isinstance(value, torch.Tensor):
        return _fake_of(env, value)
    if isinstance(value, (*_SYMBOLIC, int, float, bool, torch.ScriptObject, FakeScriptObject)):
        return value
    if isinstance(value, (list, tuple)):
        items = [value_of_result(env, v) for v in value]
        return items if isinstance(value, list) else tuple(items)
    return None


def tensor_meta(value: Any, requires_grad: bool = False) -> Any:
    """The :class:`TensorMetadata` of a ``val``: of one fake, or a list of it for a container."""
    if isinstance(value, FakeTensor):
        if value.sparse is not None:
            return None
        return TensorMetadata(
            value.shape,
            value.dtype,
            requires_grad,
            value.stride(),
            _memory_format(value),
            False,
            {},
        )
    if isinstance(value, (list, tuple)) and any(isinstance(v, FakeTensor) for v in value):
        return type(value)(tensor_meta(v) for v in value)
    return None


def _memory_format(fake: FakeTensor) -> torch.memory_format | None:
    sizes, strides = fake.sizes, fake.strides
    if layout.is_contiguous(sizes, strides):
        return torch.contiguous_format
    if len(sizes) == 4 and layout.is_channels_last(sizes, strides):
        return torch.channels_last
    if len(sizes) == 5 and layout.is_channels_last(sizes, strides, 5):
        return torch.channels_last_3d
    return None


def _fake_of(env: ShapeEnv, real: torch.Tensor) -> FakeTensor | None:
    """A fake of the same metadata, detached; None where fakes cannot stand for the tensor."""
    plain = type(real) in (torch.Tensor, torch.nn.Parameter)
    if not plain or real.layout is not torch.strided or real.is_quantized or real.is_nested:
        return None
    sizes = real.shape
    if any(type(s) is not int for s in sizes):
        return None
    return FakeTensor.make(
        env, sizes, real.stride(), int(real.storage_offset()), real.dtype, real.device
    )
