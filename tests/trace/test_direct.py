"""Higher-order operators without subgraphs: in every mode they do what eager does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._higher_order_ops import local_map_hop
from torch._higher_order_ops import print as torch_print
from torch._higher_order_ops.local_map import defer_inlining
from torch._higher_order_ops.out_dtype import out_dtype
from torch._higher_order_ops.register_hook import register_hook_op

import stillframe as sf

aten = torch.ops.aten
higher_order = torch.ops.higher_order
MODES = ("real", "fake", "symbolic", "before dispatch", "export")
X, Y = torch.randn(3, 3), torch.randn(3, 3)
every_mode = pytest.mark.parametrize("mode", MODES)


def trace(f: Callable[..., Any], mode: str, *args: torch.Tensor) -> Any:
    if mode == "export":
        return sf.export(f, args).module()
    before = mode == "before dispatch"
    return sf.make_fx(f, tracing_mode="symbolic" if before else mode, pre_dispatch=before)(*args)


# -- out_dtype ------------------------------------------------------------------------------------

OUT_DTYPES: dict[str, Callable[..., Any]] = {
    "product": lambda a, b: out_dtype(aten.mm.default, torch.int32, a, b),
    "number": lambda a, b: out_dtype(aten.mul.Scalar, torch.float64, a, 2),
    "larger operand": lambda a, b: out_dtype(aten.mul.Tensor, torch.int16, a, b.double() * 0.3),
    "scalar operand": lambda a, b: out_dtype(aten.div.Tensor, torch.float32, a, b[0, 0].double()),
    "convolution": lambda a, b: out_dtype(
        aten.convolution.default, torch.int32, a[None], b[:, :, None], None,
        [1], [0], [1], False, [0], 1,
    ),
}  # fmt: skip


@every_mode
@pytest.mark.parametrize("name", OUT_DTYPES)
def test_out_dtype(mode: str, name: str) -> None:
    f = OUT_DTYPES[name]
    a, b = torch.arange(18).reshape(2, 3, 3).to(torch.int8) + 1
    graph = trace(f, mode, a, b)
    for sign in (1, -1):
        torch.testing.assert_close(graph(a * sign, b), f(a * sign, b))


# -- local_map ------------------------------------------------------------------------------------


def mapped(x: torch.Tensor, y: torch.Tensor) -> Any:
    module = torch.fx.symbolic_trace(lambda x, y: x.cos() + y.sin())
    module.meta["local_map_kwargs"] = {}
    return local_map_hop(module, x, y)


@every_mode
def test_local_map_of_whole_tensors_is_its_function(mode: str) -> None:
    graph = trace(mapped, mode, X, Y)
    torch.testing.assert_close(graph(Y, X), Y.cos() + X.sin())


def test_local_map_as_an_operator_is_refused() -> None:
    with defer_inlining(), pytest.raises(sf.NotSupported, match="local_map as an operator"):
        trace(mapped, "fake", X, Y)


# -- print ----------------------------------------------------------------------------------------


def printed(x: torch.Tensor, y: torch.Tensor) -> Any:
    z = x.sum() * 2
    torch_print("{} of {size} in {where}", z, size=x.shape[0], where=["a", 1])
    return y + 1


@every_mode
def test_a_graph_prints_when_it_runs(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    graph = trace(printed, mode, X, Y)
    assert capsys.readouterr().out == ""
    x = X * 3
    torch.testing.assert_close(graph(x, Y), Y + 1)
    assert capsys.readouterr().out == f"{x.sum() * 2} of 3 in ['a', 1]\n"


def test_an_arm_prints_if_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda: printed(x, y), lambda: y * 2)

    graph = trace(f, "symbolic", X, Y)
    assert torch.equal(graph(-X.abs(), Y), Y * 2) and capsys.readouterr().out == ""
    graph(X.abs(), Y)
    assert " of 3 in" in capsys.readouterr().out


def test_a_saved_program_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = sf.export(printed, (X, Y))
    sf.save(program, tmp_path / "p.still")
    for same in (sf.load(tmp_path / "p.still"), program.run_decompositions()):
        torch.testing.assert_close(same.module()(X, Y), Y + 1)
        assert capsys.readouterr().out == f"{X.sum() * 2} of 3 in ['a', 1]\n"


def test_a_gradient_would_print_twice() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        x = x.detach().requires_grad_()
        found = torch.cond(x.sum() > 0, lambda: printed(x, y) * x, lambda: x * 2)
        return torch.autograd.grad(found.sum(), x)

    with pytest.raises(sf.NotSupported, match="whose functions print"):
        trace(f, "fake", X, Y)


def test_print_takes_text() -> None:
    with pytest.raises((sf.InvalidInput, AssertionError), match="string"):
        trace(lambda x: higher_order.print(x), "fake", X)


# -- register_hook --------------------------------------------------------------------------------


def hooked(x: torch.Tensor, y: torch.Tensor) -> Any:
    x = x.detach().requires_grad_()
    z = register_hook_op(x * y, lambda g, w: g * w * 3, y)
    return torch.autograd.grad(z.sin().sum(), x)


@pytest.mark.parametrize("mode", MODES[:3])
def test_a_hook_is_in_the_gradient(mode: str) -> None:
    graph = trace(hooked, mode, X, Y)
    torch.testing.assert_close(graph(Y, X), hooked(Y, X))


@pytest.mark.parametrize("mode", MODES[3:])
def test_a_hook_above_autograd_is_refused(mode: str) -> None:
    with pytest.raises(sf.NotSupported, match="registers a hook"):
        trace(lambda x: register_hook_op(x * 2, lambda g: g * 2), mode, X)
