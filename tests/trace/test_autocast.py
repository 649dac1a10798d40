"""Programs of autocast regions compute what eager computes, casts inside operators included."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fake.samples import OPERATORS, is_plain, samples_of
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.errors import NotSupported

aten = torch.ops.aten

A, B = torch.randn(3, 4), torch.randn(4, 5)


class Under(nn.Module):
    """Calls a function under autocast, or under autocast switched off inside of autocast."""

    def __init__(self, call: Callable[..., Any], *, off: bool = False) -> None:
        super().__init__()
        self.call, self.off = call, off

    def forward(self, *args: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=not self.off):
                return self.call(*args)


def targets(program: sf.ExportedProgram) -> list[Any]:
    return [n.target for n in program.graph.nodes if n.op == "call_function"]


def same(have: Any, want: Any) -> None:
    for a, b in zip(pytree.tree_leaves(have), pytree.tree_leaves(want), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


COMPOSITE: dict[str, tuple[Any, tuple[torch.Tensor, ...]]] = {
    "einsum": (lambda a, b: torch.einsum("ij,jk->ik", a, b), (A, B)),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), (A, B)),
    "inner": (torch.inner, (A, A)),
    "multi_dot": (lambda a, b: torch.linalg.multi_dot([a, b]), (A, B)),
    "matrix_power": (lambda a: torch.linalg.matrix_power(a, 3), (A[:, :3],)),
    "lstm": (nn.LSTM(4, 5, num_layers=2).requires_grad_(False), (A[None],)),
    "gru": (nn.GRU(4, 5).requires_grad_(False), (A[None],)),
    "cell": (nn.LSTMCell(4, 5).requires_grad_(False), (A,)),
}


@pytest.mark.parametrize("name", COMPOSITE)
def test_parts_are_cast(name: str) -> None:
    """Composite operators that autocast does not list, and whose parts it does."""
    call, args = COMPOSITE[name]
    mod = Under(call)
    same(sf.export(mod, args).module()(*args), mod(*args))


@pytest.mark.parametrize("around", [False, True])
def test_an_autocast_around_export_counts(around: bool) -> None:
    call, args = COMPOSITE["einsum"]
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        want = call(*args)
        program = sf.export(Under(call).call if not around else call, args)
    assert want.dtype is (torch.bfloat16 if around else torch.float32)
    same(program.module()(*args), want)
    assert (aten.einsum.default in targets(program)) is not around


def test_a_region_that_is_off_keeps_operators_whole() -> None:
    call, args = COMPOSITE["einsum"]
    mod = Under(call, off=True)
    program = sf.export(mod, args)
    assert targets(program) == [aten.einsum.default]
    same(program.module()(*args), mod(*args))


def test_what_computes_nothing_stays_whole() -> None:
    program = sf.export(Under(lambda a: a.reshape(4, 3).relu().flatten()), (A,))
    assert targets(program) == [aten.reshape.default, aten.relu.default, aten.flatten.using_ints]


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(mode: str, pre_dispatch: bool) -> None:
    call, args = COMPOSITE["einsum"]
    mod = Under(call)
    traced = sf.make_fx(mod, tracing_mode=mode, pre_dispatch=pre_dispatch)(*args)
    same(traced(*args), mod(*args))


@pytest.mark.parametrize("trace", ["export", "pre_dispatch", "make_fx"])
def test_kernels_that_cast_inside_are_refused(trace: str) -> None:
    mod = Under(torch.nn.functional.bilinear)
    args = (A, A, torch.randn(2, 4, 4))
    with pytest.raises(NotSupported, match="its kernel casts inside"):
        if trace == "export":
            sf.export(mod, args)
        else:
            sf.make_fx(mod, pre_dispatch=trace == "pre_dispatch")(*args)


def cast_operators() -> list[str]:
    """Entries of ``op_db`` of which an overload stands on autocast's lists for the CPU."""
    found = []
    for name, info in OPERATORS.items():
        packet = getattr(aten, info.name.split(".")[-1], None)
        overloads = [getattr(packet, o) for o in packet.overloads()] if packet else []
        if torch.float32 in info.dtypes and any(map(is_listed, overloads)):
            found.append(name)
    return found


def is_listed(op: Any) -> bool:
    name = op._schema.name + ("." + op._schema.overload_name if op._schema.overload_name else "")
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCPU"))
    except RuntimeError:  # an operator of TorchScript alone
        return False


LISTED = cast_operators()


def test_there_are_listed_operators() -> None:
    assert {"mm", "bmm", "quantile", "cat", "prod"} <= set(LISTED)


@pytest.mark.parametrize("name", LISTED)
def test_listed_operators(name: str) -> None:
    """A few samples of an operator on autocast's lists: dtype, sizes and strides of the trace,
    and what it computes, are those of eager."""
    info = OPERATORS[name]
    for call in samples_of(info, torch.float32, "given", 2):
        leaves, spec = pytree.tree_flatten((call.args, call.kwargs))
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        if not all(map(is_plain, tensors)):
            continue

        def run(*given: torch.Tensor, leaves: Any = leaves, spec: Any = spec) -> Any:
            rest = iter(given)
            filled = [next(rest) if isinstance(t, torch.Tensor) else t for t in leaves]
            args, kwargs = pytree.tree_unflatten(filled, spec)
            with torch.autocast("cpu", torch.bfloat16):
                return info.op(*args, **kwargs)

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = run(*tensors)
            traced = sf.make_fx(run, tracing_mode="fake", pre_dispatch=True)(*tensors)
            torch.manual_seed(42)  # as the entries of random operators do
            same(traced(*tensors), want)
        output = next(n for n in traced.graph.nodes if n.op == "output")
        vals = [n.meta["val"] for n in output.all_input_nodes]
        results = [t for t in pytree.tree_leaves(want) if isinstance(t, torch.Tensor)]
        assert [metadata(v) for v in vals] == [metadata(t) for t in results]


def metadata(t: torch.Tensor) -> tuple[Any, ...]:
    moving = tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1)
    return t.dtype, tuple(t.shape), moving if t.numel() else ()
