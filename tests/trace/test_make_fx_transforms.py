"""make_fx below autograd and torch.func, tensor subclasses, subgraphs; torch's own beside it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import stillframe as sf

aten = torch.ops.aten
higher_order = torch.ops.higher_order
MODES = ("real", "fake", "symbolic")
every_mode = pytest.mark.parametrize("mode", MODES)


def targets(graph: torch.fx.GraphModule) -> list[Any]:
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


def check(f: Callable[..., Any], mode: str, *runs: tuple[Any, ...], **options: Any) -> Any:
    """Trace on the first run; the graph equals eager there, in symbolic mode on all."""
    graph = sf.make_fx(f, tracing_mode=mode, **options)(*runs[0])
    for run in runs if mode == "symbolic" else runs[:1]:
        torch.testing.assert_close(graph(*run), f(*run))
    return graph


# -- autograd --------------------------------------------------------------------------------------


def joint(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> Any:
    y = torch.nn.functional.linear(x, w, b).relu().softmax(-1)
    loss = torch.nn.functional.layer_norm(y, (y.shape[-1],)).pow(2).sum()
    return loss, torch.autograd.grad(loss, [w, b])


def parameters(rows: int, inner: int, outer: int) -> tuple[torch.Tensor, ...]:
    x = torch.randn(rows, inner)
    return x, torch.randn(outer, inner, requires_grad=True), torch.randn(outer, requires_grad=True)


@every_mode
@pytest.mark.spec("3.23")
def test_a_joint_graph(mode: str) -> None:
    graph = check(joint, mode, parameters(3, 4, 5), parameters(6, 7, 8))
    assert aten.threshold_backward.default in targets(graph)
    assert aten.native_layer_norm_backward.default in targets(graph)


@every_mode
def test_backward(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        x = x.detach().requires_grad_()
        (x.sin() * x.exp()).sum().backward()
        return x.grad

    check(f, mode, (torch.randn(3, 4),), (torch.randn(5, 2),))


@every_mode
def test_second_derivatives(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        (first,) = torch.autograd.grad(x.sin().prod(), x, create_graph=True)
        return torch.autograd.grad(first.sum(), x)

    check(f, mode, (torch.randn(3, requires_grad=True),), (torch.randn(5, requires_grad=True),))


@every_mode
def test_in_place_operators_under_autograd(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        y = x * 2
        y[0].mul_(3)
        y.t().add_(x.t())
        return torch.autograd.grad(y.sin().sum(), x)

    check(f, mode, (torch.randn(3, 4, requires_grad=True),),
          (torch.randn(5, 6, requires_grad=True),))  # fmt: skip


class Doubled(torch.autograd.Function):
    """Its backward is not the derivative of its forward, so that one sees which one ran."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0] * x.cos() * 2


@every_mode
def test_functions_with_a_backward_of_their_own(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        return torch.autograd.grad(Doubled.apply(x).sum(), x)

    check(f, mode, (torch.randn(3, requires_grad=True),), (torch.randn(5, requires_grad=True),))
    check(torch.func.grad(lambda x: Doubled.apply(x).sum()), mode, (torch.randn(3),))


@every_mode
def test_checkpointing(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        run = torch.utils.checkpoint.checkpoint
        return torch.autograd.grad(run(lambda x: x.sin().cos(), x, use_reentrant=False).sum(), x)

    graph = check(f, mode, (torch.randn(3, requires_grad=True),))
    assert targets(graph).count(aten.sin.default) >= 2, "the forward pass runs again"


@every_mode
def test_gradients_before_dispatch_are_refused(mode: str) -> None:
    with pytest.raises(sf.NotSupported, match="before dispatch"):
        sf.make_fx(joint, tracing_mode=mode, pre_dispatch=True)(*parameters(3, 4, 5))


@every_mode
def test_an_optimiser_step(mode: str) -> None:
    def f(p: torch.Tensor, g: torch.Tensor) -> Any:
        torch._foreach_mul_([p], 0.9)
        torch._foreach_add_([p], [g], alpha=-0.1)
        return p

    p, g = torch.randn(3), torch.randn(3)
    graph = sf.make_fx(f, tracing_mode=mode)(p.clone(), g)
    torch.testing.assert_close(graph(p.clone(), g), f(p.clone(), g))


# -- torch.func ------------------------------------------------------------------------------------

TRANSFORMS: dict[str, Callable[..., Any]] = {
    "vmap": torch.vmap(lambda x: x @ x + x.sum(), in_dims=1),
    "vmap of vmap": torch.vmap(torch.vmap(lambda x: x.exp() * 2)),
    "grad": torch.func.grad(lambda x: (x.sin() ** 2).sum()),
    "vmap of grad": torch.vmap(torch.func.grad(lambda x: (x.sin() * x).sum())),
    "jvp": lambda x: torch.func.jvp(torch.sin, (x,), (x,)),
    "vjp": lambda x: torch.func.vjp(torch.sin, x)[1](x),
    "jacrev": torch.func.jacrev(lambda x: x.sin() * x.sum()),
    "jacfwd": torch.func.jacfwd(lambda x: x.sin() * x.sum()),
    "hessian": torch.func.hessian(lambda x: (x**3).sum()),
    "functionalize": torch.func.functionalize(lambda x: x.clone().add_(1).view(-1).mul_(x.sum())),
}


@every_mode
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.spec("3.62")
def test_transforms(mode: str, name: str) -> None:
    """Operators arrive unwrapped: the graph is plain, whatever the transform."""
    graph = check(TRANSFORMS[name], mode, (torch.randn(3, 3),), (torch.randn(5, 5),))
    assert all(isinstance(t, torch._ops.OpOverload) or not hasattr(t, "_schema")
               for t in targets(graph))  # fmt: skip


@every_mode
def test_functionalised_mutation_of_an_input(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x.t().mul_(2)
        return x + 1

    graph = sf.make_fx(torch.func.functionalize(f), tracing_mode=mode)(torch.ones(3, 4))
    x = torch.ones(3, 4)
    torch.testing.assert_close(graph(x), torch.full((3, 4), 3.0))
    torch.testing.assert_close(x, torch.full((3, 4), 2.0))


def test_functional_call_of_a_module() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def f(state: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, state, (x,))

    with torch.no_grad():
        graph = check(f, "symbolic", (state, torch.randn(2, 3)), (state, torch.randn(7, 3)))
    assert not any(n.op == "get_attr" for n in graph.graph.nodes)


# -- tensor subclasses -----------------------------------------------------------------------------


@every_mode
@pytest.mark.spec("3.14")
def test_a_subclass_made_inside_is_unwrapped(mode: str) -> None:
    def f(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = TwoTensor(a, b) * 2 + 1
        return both.a - both.b

    graph = check(f, mode, (torch.randn(3), torch.randn(3)), (torch.randn(5), torch.randn(5)))
    assert targets(graph).count(aten.mul.Tensor) == 2


@every_mode
@pytest.mark.spec("3.14")
def test_a_subclass_among_the_inputs_stays_whole(mode: str) -> None:
    def sample(size: int) -> TwoTensor:
        return TwoTensor(torch.randn(size, 2), torch.randn(size, 2))

    graph = sf.make_fx(lambda x: x.sin() + 1, tracing_mode=mode)(sample(3))
    assert targets(graph) == [aten.sin.default, aten.add.Tensor]
    x = sample(5 if mode == "symbolic" else 3)
    out = graph(x)
    assert type(out) is TwoTensor
    torch.testing.assert_close((out.a, out.b), (x.a.sin() + 1, x.b.sin() + 1))


# -- subgraphs -------------------------------------------------------------------------------------

PLUS, MINUS = torch.ones(3, 4), -torch.ones(3, 4)


@every_mode
@pytest.mark.spec("3.65")
def test_cond(mode: str) -> None:
    weight = torch.randn(4)

    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        def right(x: torch.Tensor) -> Any:
            inner = torch.cond(x.max() > 3, lambda x: x * 2, lambda x: x.clone(), (x,))
            return inner + weight, y.sum() + 1

        def left(x: torch.Tensor) -> Any:
            return x - y.shape[0], x.sum()

        return torch.cond(x.sum() > 0, right, left, (x,))

    y = torch.randn(5)
    graph = sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)(PLUS, y)
    assert targets(graph).count(higher_order.cond) == 1
    assert {"true_graph_0", "false_graph_0"} <= {n for n, _ in graph.named_children()}
    for x in (PLUS, MINUS, PLUS * 5):
        want = (x * (2 if x.max() > 3 else 1) + weight, y.sum() + 1) if x.sum() > 0 else (
            x - 5, x.sum())  # fmt: skip
        torch.testing.assert_close(tuple(graph(x, y)), want)


@every_mode
@pytest.mark.spec("3.65")
def test_while_loop(mode: str) -> None:
    step = torch.randn(4)

    def f(n: torch.Tensor, x: torch.Tensor) -> Any:
        return torch.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, x * 2 + step),
                                (torch.tensor(0), x)), x + 1  # fmt: skip

    graph = sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)(torch.tensor(0), PLUS)
    assert higher_order.while_loop in targets(graph)
    for n in (0, 1, 3):
        want = PLUS
        for _ in range(n):
            want = want * 2 + step
        (count, x), after = graph(torch.tensor(n), PLUS)
        assert int(count) == n
        torch.testing.assert_close((x, after), (want, PLUS + 1))


# -- torch's own make_fx as oracle -----------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(x)


ORACLE: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "joint": (joint, parameters(3, 4, 5)),
    "vmap of grad": (TRANSFORMS["vmap of grad"], (torch.randn(3, 3),)),
    "jacrev": (TRANSFORMS["jacrev"], (torch.randn(3),)),
    "block": (Block().eval(), (torch.randn(2, 5, 8),)),
    "in place": (lambda x: x.clone().add_(1).t().mul_(2), (torch.randn(3, 4),)),
    "constants": (lambda x: x * torch.tensor([1.0, 2.0]) + torch.zeros(2), (torch.randn(2),)),
}


@pytest.mark.parametrize("mode", ("real", "fake"))
@pytest.mark.parametrize("name", ORACLE)
def test_the_same_graph_as_torch(mode: str, name: str) -> None:
    """Node for node, where no symbolic sizes give freedom. (torch also takes elements that are
    None out of tuples.)"""
    from torch.fx.experimental.proxy_tensor import make_fx

    f, args = ORACLE[name]
    ours = sf.make_fx(f, tracing_mode=mode, allow_non_fake_inputs=True)(*args)
    theirs = make_fx(f, tracing_mode=mode, _allow_non_fake_inputs=True)(*args)
    plain = [[t for t in targets(g) if t is not operator.getitem] for g in (ours, theirs)]
    assert plain[0] == plain[1]
