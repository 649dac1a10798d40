"""``out=``: what fits is written, what would be resized is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fake.checking import Fakes, check

from stillframe.errors import NotSupported
from stillframe.fake import outs
from stillframe.fake.mode import FakeMode
from stillframe.shapes.env import ShapeEnv

aten = torch.ops.aten


def refused(op: Any, *args: Any, **kwargs: Any) -> str:
    """The text of the error that the fake execution raises."""
    fakes = Fakes(ShapeEnv(), symbols=False)
    with pytest.raises((NotSupported, RuntimeError)) as error:
        FakeMode(fakes.env).run(op, tuple(fakes.convert(args)), fakes.convert(kwargs))
    return str(error.value)


def test_the_overload_that_makes_the_results() -> None:
    assert outs.without_out(aten.add.out) is aten.add.Tensor
    assert outs.without_out(aten.topk.values) is aten.topk.default
    assert outs.without_out(aten.add.Tensor) is None


def test_what_fits_is_written() -> None:
    x = torch.randn(3, 4)
    assert not check(aten.add.out, x, x, out=torch.empty(3, 4)).fallbacks["static"]
    check(aten.add.out, x, x, out=torch.empty(3, 4, dtype=torch.float64))
    check(aten.addmm.out, x, torch.randn(3, 2), torch.randn(2, 4), out=x)
    check(aten.max.dim_max, x, 1, max=torch.empty(3), max_values=torch.empty(3).long())


def test_what_does_not_fit_is_refused() -> None:
    x = torch.randn(3, 4)
    assert "resized" in refused(aten.add.out, x, x, out=torch.empty(2))
    assert "dtype" in refused(aten.complex.out, x, x, out=torch.empty(3, 4))
    assert "single memory location" in refused(aten.add.out, x, x, out=torch.empty(4).expand(3, 4))
    index = torch.tensor([0, 1])
    assert "shares memory" in refused(aten.take.out, index, index.flip(0), out=index[:2])


def test_an_input_that_requires_grad() -> None:
    fakes = Fakes(ShapeEnv(), symbols=False)
    x, out = fakes.convert([torch.randn(3), torch.empty(3)])
    x.requires_grad = True
    with pytest.raises(RuntimeError, match="automatic differentiation"):
        FakeMode(fakes.env).run(aten.sin.out, (x,), {"out": out})
