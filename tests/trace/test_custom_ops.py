"""Custom operators in traces by dispatch, in all three modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fake import custom_ops as ops

from stillframe.errors import CustomOperatorError, NotSupported
from stillframe.trace.make_fx import make_fx

sfops = torch.ops.sfops
MODES = ("real", "fake", "symbolic")


def in_place(x: torch.Tensor) -> torch.Tensor:
    y, z = x * 2, x + 5
    sfops.add_one_(y)
    return sfops.swap_(y, z) * y - z


def gradient(x: torch.Tensor) -> Any:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(sfops.sine(x * 2).sum(), x)


def lists(x: torch.Tensor) -> Any:
    a, b = sfops.rows([x, x * 2], [x.shape[0] - 1, 1])
    return a * 2, b, x * sfops.length(x)


PROGRAMS: dict[str, Callable[..., Any]] = {
    "sizes": lambda x: sfops.scaled(sfops.doubled_rows(x), 0.5),
    "kernel for all devices": lambda x: sfops.cubed(x) + sfops.halved(x),
    "view": lambda x: sfops.head(x) * 2,
    "in place": in_place,
    "sizes from data": lambda x: sfops.positive(x) * 2,
    "lists": lists,
    "optional": lambda x: (sfops.moments(x), sfops.moments(x, x + 1)[1]),
    "gradient": gradient,
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pre_dispatch", (False, True))
def test_program(name: str, mode: str, pre_dispatch: bool) -> None:
    if pre_dispatch and name == "gradient":
        pytest.skip("a trace before dispatch may not ask for gradients")
    f = PROGRAMS[name]
    x = torch.randn(5, 3)
    module = make_fx(f, tracing_mode=mode, pre_dispatch=pre_dispatch)(x.clone())
    for sizes in ((5, 3), (4, 2)) if mode == "symbolic" else ((5, 3),):
        x = torch.randn(*sizes)
        torch.testing.assert_close(module(x), f(x))


@pytest.mark.parametrize("mode", MODES)
def test_composite_operators_are_taken_apart(mode: str) -> None:
    module = make_fx(lambda x: sfops.halved(x), tracing_mode=mode)(torch.ones(3))
    targets = [n.target for n in module.graph.nodes if n.op == "call_function"]
    assert targets == [torch.ops.aten.div.Tensor]


def test_the_backward_formula_is_in_the_graph() -> None:
    module = make_fx(gradient, tracing_mode="symbolic")(torch.ones(3, 2))
    targets = [n.target for n in module.graph.nodes if n.op == "call_function"]
    assert sfops.sine.default in targets and torch.ops.aten.cos.default in targets


def test_no_fake() -> None:
    x = torch.ones(3)
    module = make_fx(lambda x: sfops.unknown(x))(x)
    torch.testing.assert_close(module(x + 1), (x + 1) * 2, msg="real mode needs no fake")
    for mode in ("fake", "symbolic"):
        with pytest.raises(NotSupported, match="sfops::unknown has no fake"):
            make_fx(lambda x: sfops.unknown(x), tracing_mode=mode)(x)


def test_a_wrong_fake() -> None:
    op = ops.broken("traced_alias", lambda x: x)
    for mode in ("fake", "symbolic"):
        with pytest.raises(CustomOperatorError, match="sfops::traced_alias"):
            make_fx(lambda x: op(x), tracing_mode=mode)(torch.ones(3))
