"""make_fx and values: what is known while tracing, what is refused, never a wrong graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

aten = torch.ops.aten
MODES = ("real", "fake", "symbolic")
every_mode = pytest.mark.parametrize("mode", MODES)


def targets(graph: torch.fx.GraphModule) -> list[Any]:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


def same(f: Callable[..., Any], mode: str, x: torch.Tensor | None = None) -> torch.fx.GraphModule:
    x = torch.randn(3, 4) if x is None else x
    graph = sf.make_fx(f, tracing_mode=mode)(x.clone())
    torch.testing.assert_close(graph(x.clone()), f(x.clone()))
    other = torch.randn_like(x)
    torch.testing.assert_close(graph(other.clone()), f(other.clone()))
    return graph


# -- fresh tensors and constants -------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.20")
def test_fresh_tensors_are_copied(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        c = torch.tensor([1.0, 2.0, 3.0, 4.0])
        c.add_(x.sum())
        return c * x

    graph = same(f, mode)
    assert targets(graph)[0] is aten.lift_fresh_copy.default
    torch.testing.assert_close(graph._tensor_constant0, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    x = torch.randn(3, 4)
    torch.testing.assert_close(graph(x), graph(x), msg="a second call starts anew")


@every_mode
@pytest.mark.spec("3.4", "3.18", "3.24")
def test_constants_are_known(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        c = (torch.tensor(3) + 1) * torch.tensor(2)
        return x * c.item() if c > 7 else x

    graph = same(f, mode)
    assert targets(graph)[-1] is aten.mul.Tensor
    assert aten._local_scalar_dense.default not in targets(graph)


@every_mode
@pytest.mark.spec("3.25")
def test_in_place_operators_on_constants(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        c = torch.tensor(1)
        view = c.view(1)
        c.add_(2)
        view.mul_(2)
        return x * c.item() + view.item()

    assert float(same(f, mode)(torch.ones(1))) == 12


@every_mode
@pytest.mark.spec("3.25")
def test_a_constant_that_data_was_written_to_is_unknown(mode: str) -> None:
    def through_a_view(x: torch.Tensor) -> torch.Tensor:
        c = torch.tensor(1.0)
        c.view(1).add_(x.sum())
        return x * c.item()

    def through_a_large_view(x: torch.Tensor) -> torch.Tensor:
        c = torch.tensor(1.0)
        view = c.view(1)
        c.expand(2)[0].add_(x.sum())
        return x * view.item()

    for f in (through_a_view, through_a_large_view):
        if mode == "real":
            with pytest.raises(sf.DataDependentError):
                sf.make_fx(f)(torch.randn(3))
        else:
            same(f, mode)


@every_mode
@pytest.mark.spec("3.24")
def test_large_and_random_values_are_not_constants(mode: str) -> None:
    for f in (
        lambda x: x * torch.rand(()).item(),
        lambda x: x * torch.bernoulli(torch.tensor(0.5)).item(),
        lambda x: x * torch.tensor([1, 2])[0].item(),
        lambda x: x * torch.ones(()).item(),
    ):
        if mode == "real":
            with pytest.raises(sf.DataDependentError):
                sf.make_fx(f)(torch.randn(3))
        else:
            graph = sf.make_fx(f, tracing_mode=mode)(torch.randn(3))
            assert aten._local_scalar_dense.default in targets(graph)


# -- answers that depend on data -------------------------------------------------------------------


BRANCHES = {
    "bool": lambda x: x + 1 if x.sum() > 0 else x - 1,
    "equal": lambda x: x + 1 if torch.equal(x, x.abs()) else x - 1,
    "allclose": lambda x: x + 1 if torch.allclose(x, x.abs()) else x - 1,
    "range": lambda x: sum(x for _ in range(x.sum().abs().int())),
    "item in a branch": lambda x: x + 1 if x.max().item() > 0 else x,
    "list index": lambda x: [x, x + 1][x.argmax() % 2],
}


@every_mode
@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.spec("3.19")
def test_branches_on_data_are_refused(mode: str, name: str) -> None:
    with pytest.raises(sf.DataDependentError) as error:
        sf.make_fx(BRANCHES[name], tracing_mode=mode)(torch.randn(3, 4))
    assert "depends on the data" in str(error.value) or "needs the data" in str(error.value)


@pytest.mark.spec("3.19")
def test_item_of_real_data() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * x.sum().item()

    with pytest.raises(sf.DataDependentError, match="symbolic"):
        sf.make_fx(f)(torch.ones(3))
    graph = sf.make_fx(f, error_on_data_dependent_ops=False)(torch.ones(3))
    torch.testing.assert_close(graph(torch.ones(3)), f(torch.ones(3)))


# -- what bypasses the dispatcher ------------------------------------------------------------------

BYPASSES = {
    "numpy": lambda x: torch.from_numpy(x.numpy()) + 1,
    "tensor of tensors": lambda x: torch.tensor([x.sum(), 2.0]),
    "tensor of a nested tuple": lambda x: torch.tensor(((x.sum(),),)),
    "as_tensor": lambda x: torch.as_tensor([x.sum()]),
    "asarray": lambda x: torch.asarray([x.sum()]),
    "new_tensor": lambda x: x.new_tensor([x.sum()]),
    "Tensor": lambda x: torch.Tensor([x.sum()]),
    "FloatTensor": lambda x: torch.FloatTensor([x.sum()]),
    "deepcopy": lambda x: copy.deepcopy(x) + 1,
    "copy": lambda x: copy.copy(x) + 1,
    "dlpack": lambda x: torch.utils.dlpack.from_dlpack(x) + 1,
    "storage": lambda x: x + x.untyped_storage()[0],
    "address": lambda x: x + x.data_ptr() % 2,
    "data": lambda x: _with_data(x) + 1,
}


def _with_data(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    y.data = x * 2
    return y


@every_mode
@pytest.mark.parametrize("name", BYPASSES)
def test_what_reads_numbers_without_an_operator_is_refused(mode: str, name: str) -> None:
    with pytest.raises(sf.StillframeError):
        sf.make_fx(BYPASSES[name], tracing_mode=mode)(torch.randn(3, 4))


@every_mode
def test_lists_of_numbers_and_constants_are_fine(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        picked = x[[0, 2]] + x[torch.tensor([0, 1])]
        return picked + torch.tensor([1.0, 2.0, 3.0, 4.0]) + x.new_tensor([1.0])

    same(f, mode)


def test_a_parameter_made_of_a_real_input_is_refused() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return nn.Parameter(x) * 2

    with pytest.raises(sf.NotSupported, match="without any operator"):
        sf.make_fx(f)(torch.randn(3))
    for mode in ("fake", "symbolic"):
        graph = sf.make_fx(f, tracing_mode=mode)(torch.randn(3))
        torch.testing.assert_close(graph(torch.ones(3)), torch.ones(3) * 2)


@pytest.mark.parametrize("mode", ("fake", "symbolic"))
@pytest.mark.spec("3.56")
def test_real_tensors_from_outside_need_leave(mode: str) -> None:
    outside = torch.randn(4)
    with pytest.raises(sf.InvalidInput, match="allow_non_fake_inputs"):
        sf.make_fx(lambda x: x + outside, tracing_mode=mode)(torch.randn(3, 4))
    graph = sf.make_fx(lambda x: x + outside, tracing_mode=mode, allow_non_fake_inputs=True)(
        torch.randn(3, 4)
    )
    x = torch.randn(3, 4)
    torch.testing.assert_close(graph(x), x + outside)


@pytest.mark.spec("3.14")
def test_fakes_of_another_trace_need_leave() -> None:
    kept: list[torch.Tensor] = []
    sf.make_fx(lambda x: kept.append(x + 1), tracing_mode="fake")(torch.randn(3))
    with pytest.raises(sf.NotSupported, match="another trace"):
        sf.make_fx(lambda x: x.clone() * kept[0])(torch.randn(3))


def test_a_gradient_left_on_a_tensor_from_outside_is_refused() -> None:
    linear = nn.Linear(3, 2)

    def f(x: torch.Tensor) -> Any:
        linear(x).sum().backward()
        return linear.weight.grad

    with pytest.raises(sf.SideEffectError, match="autograd.grad"):
        sf.make_fx(f, tracing_mode="fake", allow_non_fake_inputs=True)(torch.randn(2, 3))
    assert linear.weight.grad is None and linear.bias.grad is None


def test_inputs_inside_a_transform_are_refused() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return sf.make_fx(torch.sin)(x)(x)

    with pytest.raises(sf.NotSupported, match="vmap"):
        torch.vmap(f)(torch.randn(3))


def test_arguments_that_a_graph_cannot_hold_are_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(sf.NotSupported, match="Generator"):
        sf.make_fx(lambda x: x + torch.rand(3, generator=generator))(torch.randn(3))


@pytest.mark.spec("3.58")
@pytest.mark.parametrize("mode", MODES)
def test_addresses_are_refused(mode: str) -> None:
    with pytest.raises(sf.NotSupported, match="memory of a tensor"):
        sf.make_fx(lambda x: x.data_ptr(), tracing_mode=mode)(torch.randn(3))


# -- random numbers --------------------------------------------------------------------------------


@every_mode
def test_random_operators(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5) + torch.randn_like(x) * torch.rand(x.shape)

    graph = sf.make_fx(f, tracing_mode=mode)(torch.randn(3, 4))
    x = torch.randn(3, 4)
    torch.manual_seed(7)
    got = graph(x)
    torch.manual_seed(7)
    torch.testing.assert_close(got, f(x))


def test_fake_traces_leave_the_random_state_alone() -> None:
    x = torch.randn(3)
    before = torch.get_rng_state()
    sf.make_fx(lambda x: x + torch.rand(3), tracing_mode="fake")(x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ("real", "fake", "symbolic"))
@pytest.mark.parametrize("as_lists", (True, False))
def test_lengths_of_ctc_loss(mode: str, as_lists: bool) -> None:
    """In C++ lists of lengths would become memory that the graph leaves unwritten."""
    inputs, targets = [50, 40], [30, 20]

    def f(log_probs: torch.Tensor, labels: torch.Tensor, a: Any, b: Any) -> Any:
        lengths = (inputs, targets) if as_lists else (a, b)
        first = torch.nn.functional.ctc_loss(log_probs, labels, *lengths)
        return first + torch.ctc_loss(
            log_probs, labels, input_lengths=lengths[0], target_lengths=lengths[1]
        )

    labels, lengths = torch.randint(1, 9, (2, 30)), (torch.tensor(inputs), torch.tensor(targets))
    graph = sf.make_fx(f, tracing_mode=mode)(torch.zeros(50, 2, 9), labels, *lengths)
    log_probs = torch.randn(50, 2, 9).log_softmax(2)
    want = f(log_probs, labels, *lengths)
    torch.testing.assert_close(graph(log_probs, labels, *lengths), want)
    if not as_lists:  # they are data
        lengths = (torch.tensor([45, 33]), torch.tensor([10, 15]))
        want = f(log_probs, labels, *lengths)
        torch.testing.assert_close(graph(log_probs, labels, *lengths), want)


@pytest.mark.parametrize("gradients", (True, False))
def test_lstm_of_any_batch(gradients: bool) -> None:
    mod = torch.nn.LSTM(3, 4, 2, bidirectional=True)

    def f(state: Any, x: torch.Tensor) -> Any:
        y, (h, c) = torch.func.functional_call(mod, state, (x,))
        if not gradients:
            return y, h, c
        return torch.autograd.grad(y.sum() + h.sum(), list(state.values()))

    state = dict(mod.named_parameters())
    with torch.set_grad_enabled(gradients):
        graph = sf.make_fx(f, tracing_mode="symbolic")(state, torch.randn(5, 2, 3))
        x = torch.randn(5, 7, 3)
        torch.testing.assert_close(graph(state, x), f(state, x))


def test_memory_that_is_filled_without_an_operator() -> None:
    """A write that no mode sees stands for C++ code that writes by address."""

    def hidden(x: torch.Tensor) -> torch.Tensor:
        fresh = torch.empty(3)
        with torch.utils._python_dispatch._disable_current_modes():
            fresh.copy_(torch.tensor([1.0, 2, 3]))
        return x + fresh

    with pytest.raises(
        sf.NotSupported, match=r"aten\.add\.Tensor reads memory that C\+\+"
    ) as caught:
        sf.make_fx(hidden)(torch.ones(3))
    assert any("test_make_fx_values.py" in line for line in caught.value.where)


def test_memory_that_operators_fill() -> None:
    def f(x: torch.Tensor) -> Any:
        a, b, c = torch.empty(3), torch.empty(3), torch.empty(3)
        a[:2] = x[:2]
        torch.add(x, 1, out=b)
        unused = c * 0 + torch.empty(0).sum()
        a[2:].fill_(7)
        return a + b, torch.zeros_like(unused), torch.where(x > 5, c, x)

    graph = sf.make_fx(f)(torch.ones(3))
    x = torch.randn(3)
    torch.testing.assert_close(graph(x), f(x))
