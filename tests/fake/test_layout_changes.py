"""New layouts of ``resize_``, ``resize_as_`` and ``set_``, beside the real kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.fake.layout_changes import LAYOUTS
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv

aten = torch.ops.aten
LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


def image(format: torch.memory_format = CONTIGUOUS) -> torch.Tensor:
    return torch.randn(2, 3, 4, 5).contiguous(memory_format=format)


SAMPLES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aten.resize_.default, (torch.randn(4, 3), [2, 2]), {}),
    (aten.resize_.default, (torch.randn(4, 3), [5, 5]), {}),
    (aten.resize_.default, (torch.randn(4, 3).t(), [3, 4]), {}),  # the same sizes: strides stay
    (aten.resize_.default, (torch.randn(4, 3).t(), [4, 3]), {}),
    (aten.resize_.default, (torch.randn(4, 3)[1:, 1:], [2]), {}),
    (aten.resize_.default, (torch.randn(4, 3), []), {}),
    (aten.resize_.default, (image(), [2, 3, 2, 2]), {"memory_format": LAST}),
    (aten.resize_.default, (image(LAST), [2, 3, 4, 5]), {}),
    (aten.resize_.default, (image(LAST), [2, 3, 4, 5]), {"memory_format": CONTIGUOUS}),
    (aten.resize_as_.default, (torch.randn(4), torch.randn(2, 3).t()), {}),
    (aten.resize_as_.default, (image(), image(LAST)), {"memory_format": torch.preserve_format}),
    (aten.resize_as_.default, (image(LAST), image()), {"memory_format": torch.preserve_format}),
    (aten.set_.source_Tensor, (torch.randn(4), torch.randn(4, 6)[1:, ::2]), {}),
    (aten.set_.default, (torch.randn(4),), {}),
]


def changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FakeTensor:
    env = ShapeEnv()
    mode = FakeMode(env)
    fakes = [mode.adopt(a) if isinstance(a, torch.Tensor) else a for a in args]
    return LAYOUTS[func](mode.ctx, *fakes, **kwargs)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: str(s[0]))
def test_the_layout_of_the_kernel(sample: Any) -> None:
    func, args, kwargs = sample
    made = changed(func, args, kwargs)
    copies = [
        torch.empty(200).as_strided(a.shape, a.stride(), a.storage_offset())
        if isinstance(a, torch.Tensor)
        else a
        for a in args
    ]
    real = func(*copies, **kwargs)
    assert (made.sizes, made.strides) == (tuple(real.shape), real.stride())
    assert made.offset == real.storage_offset()


@pytest.mark.parametrize(
    ("func", "args", "kwargs"),
    [
        (aten.resize_.default, (torch.randn(4), [2, -1]), {}),
        (aten.resize_.default, (torch.randn(4), [2, 2]), {"memory_format": LAST}),
        (aten.resize_.default, (torch.randn(4), [2]), {"memory_format": torch.preserve_format}),
    ],
)
def test_what_the_kernel_refuses(func: Any, args: Any, kwargs: Any) -> None:
    with pytest.raises(RuntimeError):
        func(*(a.clone() if isinstance(a, torch.Tensor) else a for a in args), **kwargs)
    with pytest.raises(RuntimeError):
        changed(func, args, kwargs)


def test_what_fakes_cannot_follow_is_refused() -> None:
    with pytest.raises(sf.NotSupported, match="set_ of a tensor that requires grad"):
        changed(aten.set_.source_Tensor, (torch.ones(2), torch.ones(2, requires_grad=True)), {})
    with pytest.raises(sf.NotSupported, match="set_ to a tensor of another dtype"):
        changed(aten.set_.source_Tensor, (torch.ones(2), torch.ones(2, dtype=torch.int32)), {})


def test_set_shares_memory() -> None:
    env = ShapeEnv()
    mode = FakeMode(env)
    x, source = mode.adopt(torch.ones(2)), mode.adopt(torch.ones(3))
    x.become(LAYOUTS[aten.set_.source_Tensor](mode.ctx, x, source))
    assert x.storage_ is source.storage_ and tuple(x.shape) == (3,)
