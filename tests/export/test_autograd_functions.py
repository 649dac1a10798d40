"""``torch.autograd.Function`` in programs: gradients are those of its own backward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import stillframe as sf
from stillframe.export.subgraphs import nodes_of

aten = torch.ops.aten
APPLY = torch.ops.higher_order.autograd_function_apply
X = torch.linspace(-1, 2, 12).reshape(4, 3)
OTHER = torch.linspace(-3, 1, 18).reshape(6, 3)
TABLE = torch.tensor([1.0, 2.0, 3.0])


class Rounded(Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class Reversed(Function):
    """Returns its input; the gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad.neg() * ctx.factor, None


class Identity(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad * 5


class Saving(Function):
    """Saves an input, an output, and what is in between; sizes and constants on the context."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
        middle = x.sin() * TABLE
        out = middle * y
        ctx.save_for_backward(x, y, middle, out)
        ctx.rows, ctx.name, ctx.shape = x.shape[0], name, x.shape
        ctx.middle = middle * 2
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, y, middle, out = ctx.saved_tensors
        assert ctx.name == "saved"
        dx = grad * y * x.cos() * ctx.rows + ctx.middle.reshape(ctx.shape)
        return dx, (grad * middle + out.tanh()).sum_to_size(y.shape), None


class WithSetup(Function):
    """The other style; two outputs, one of integers, and one gradient that is None."""

    @staticmethod
    def forward(x: torch.Tensor, k: torch.Tensor) -> Any:
        values, places = (x * k).sort(1)
        return values, places, x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, places, _ = output
        ctx.mark_non_differentiable(places)
        ctx.save_for_backward(places, inputs[1])
        ctx.columns = inputs[0].size(1)

    @staticmethod
    def backward(ctx: Any, values: Any, _: Any, exp: Any) -> Any:
        places, k = ctx.saved_tensors
        return torch.zeros_like(values).scatter(1, places, values) * k * ctx.columns + exp, None


class Asking(Function):
    """Computes what is needed; without gradients there is no zero tensor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        lost = x.sum(1)
        ctx.mark_non_differentiable(lost)
        return x @ w.t(), None, lost

    @staticmethod
    def backward(ctx: Any, grad: Any, none: Any, lost: Any) -> Any:
        x, w = ctx.saved_tensors
        dx = dw = None
        assert none is None and lost is None
        if ctx.needs_input_grad[0]:
            dx = grad @ w * 2
        if ctx.needs_input_grad[1]:
            dw = grad.t() @ x * 3
        return dx, dw


class Nested(Function):
    """Applies another one in forward and in backward; a backward named vjp; data in a size."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Any:
        ctx.save_for_backward(x)
        return Rounded.apply(x) + 1

    @staticmethod
    def vjp(ctx: Any, grad: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return Reversed.apply(grad * Rounded.apply(x), 3.0)


class Rows(Function):
    """The number of results depends on the data, and backward puts them back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Any:
        places = (x.sum(1) > 0).nonzero().squeeze(1)
        ctx.save_for_backward(places)
        ctx.rows = x.shape
        return x[places] * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (places,) = ctx.saved_tensors
        return grad.new_zeros(ctx.rows).index_add(0, places, grad * 7)


class Viewed(Function):
    """Backward looks at its gradient as if it were contiguous, as it is after a product."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad.reshape(-1).flip(0).reshape(grad.shape)


rounded = Rounded.apply  # taken before the capture
Forward = Callable[[Any, torch.Tensor], Any]
PROGRAMS: dict[str, Forward] = {
    "straight through": lambda m, x: rounded(m.linear(x) * 2),
    "reversed": lambda m, x: Reversed.apply(m.linear(x), 0.5) + m.linear(x),
    "identity": lambda m, x: Identity.apply(m.linear(x)),
    "saving": lambda m, x: Saving.apply(m.linear(x), m.scale, "saved"),
    "one tensor twice": lambda m, x: Saving.apply(m.linear(x), m.linear(x), "saved"),
    "setup": lambda m, x: [v for v in WithSetup.apply(m.linear(x), TABLE) if v is not None],
    "one output unused": lambda m, x: WithSetup.apply(m.linear(x), TABLE)[2],
    "asking": lambda m, x: Asking.apply(x, m.linear.weight)[0] + m.linear(x),
    "asking for all": lambda m, x: Asking.apply(m.linear(x), m.linear.weight)[::2],
    "nested": lambda m, x: Nested.apply(m.linear(x)),
    "sizes of data": lambda m, x: Rows.apply(m.linear(x)),
    "contiguous gradients": lambda m, x: Viewed.apply(m.linear(x)).t() @ x,
    "expanded gradients": lambda m, x: Viewed.apply(m.linear(x)).sum(),
    "in an arm": lambda m, x: m.cond(
        x.sum() > 0,
        lambda x: rounded(m.linear(x)),
        lambda x: Reversed.apply(m.linear(x), 2.0),
        (x,),
    ),
    "a parameter closed over": lambda m, x: Closing.of(m.scale).apply(m.linear(x)),
    "without gradients around": lambda m, x: _quiet(m, x) + m.linear(x),
    "reentrant checkpoint": lambda m, x: checkpoint(
        lambda y: m.linear(y).tanh() * m.scale, m.linear(x), use_reentrant=True
    ),
}  # fmt: skip


def _quiet(m: Any, x: torch.Tensor) -> Any:
    with torch.no_grad():
        return rounded(m.linear(x))


class Closing:
    """Makes a function that uses a tensor which is no argument."""

    @staticmethod
    def of(scale: torch.Tensor) -> Any:
        class Scaled(Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
                return x * scale

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
                return grad * scale * 4 + TABLE

        return Scaled


class Trained(nn.Module):
    def __init__(self, f: Forward, cond: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.f, self._cond = f, cond
        self.linear, self.scale = nn.Linear(3, 3), nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    @property
    def cond(self) -> Any:
        return self._cond or torch.cond

    def forward(self, x: torch.Tensor) -> Any:
        return self.f(self, x)


def loss_of(result: Any) -> torch.Tensor:
    leaves = [v for v in pytree.tree_leaves(result) if v.requires_grad]
    return sum((v * v.detach().cos()).sum() for v in leaves)  # type: ignore[return-value]


def assert_trains_like_eager(make: Callable[[], nn.Module], f: Forward, *xs: torch.Tensor) -> None:
    """Results, then the parameters after two steps of SGD, and the gradient of the input."""
    for x in xs:
        plain, module = Trained(f, control_flow.PLAIN.cond), make()
        module.load_state_dict(plain.state_dict())  # modules of one program share parameters
        for m in (plain, module):
            optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
            for _ in range(2):
                optimiser.zero_grad()
                loss_of(m(x)).backward()
                optimiser.step()
        torch.testing.assert_close(module(x), plain(x))
        torch.testing.assert_close(dict(module.named_parameters()), dict(plain.named_parameters()))
        one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        loss_of(plain(one)).backward()
        loss_of(module(other)).backward()
        torch.testing.assert_close(one.grad, other.grad)


def exported(name: str) -> sf.ExportedProgram:
    return sf.export(Trained(PROGRAMS[name]), (X,), dynamic_shapes=({0: sf.Dim.AUTO},))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_trains_like_the_module(name: str, tmp_path: Path) -> None:
    program, f = exported(name), PROGRAMS[name]
    assert not [n for n in program.notes if "Function" in n]
    assert_trains_like_eager(program.module, f, X, OTHER, -X)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert str(loaded) == str(program)
    assert_trains_like_eager(loaded.module, f, X, OTHER)
    again = sf.export(loaded.module(), (X,), dynamic_shapes=({0: sf.Dim.AUTO},))
    assert_trains_like_eager(again.module, f, X, OTHER)


@pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_taken_apart_it_trains_too(name: str, table: Any) -> None:
    program = exported(name).run_decompositions(table)
    assert_trains_like_eager(program.module, PROGRAMS[name], X, OTHER, -X)


# -- other forms ----------------------------------------------------------------------------------


class Loss(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return loss_of(self.inner(x))


REFUSED_JOINTLY = {
    "in an arm": "apply .*, a torch.autograd.Function",
    "sizes of data": "reads from",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_joint_graphs(name: str) -> None:
    f = PROGRAMS[name]
    program = sf.export(Loss(Trained(f)), (X,), dynamic_shapes=({0: sf.Dim.AUTO},))
    if name in REFUSED_JOINTLY:
        with pytest.raises(sf.NotSupported, match=REFUSED_JOINTLY[name]):
            program.joint(0)
        return
    joint = program.joint(0)
    assert APPLY not in {n.target for n in nodes_of(joint.graph_module)}
    for x in (X, OTHER, -X):
        plain = Loss(Trained(f, control_flow.PLAIN.cond))
        loss = plain(x)
        loss.backward()
        result, gradients, _ = joint.module()(x)
        torch.testing.assert_close(result, loss.detach())
        want = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
        torch.testing.assert_close(gradients, want)


def test_without_gradients_forward_is_inlined() -> None:
    f = PROGRAMS["saving"]
    module = Trained(f).requires_grad_(False)
    program = sf.export(module, (X,), dynamic_shapes=({0: sf.Dim.AUTO},))
    assert program.graph.find_nodes(op="call_function", target=APPLY)
    core = program.run_decompositions()
    assert APPLY not in {n.target for n in nodes_of(core.graph_module)}
    for x in (X, OTHER):
        torch.testing.assert_close(core.module()(x), module(x))


def test_an_example_without_gradients_says_nothing_about_calls() -> None:
    program = sf.export(lambda x: rounded(x) * 2, (X,))
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            x = X.clone().requires_grad_()
            assert program.module()(x).requires_grad is torch.is_grad_enabled()
    x = X.clone().requires_grad_()
    program.module()(x).sum().backward()
    assert torch.equal(x.grad, torch.full_like(X, 2.0))  # type: ignore[arg-type]


def test_gradients_of_gradients() -> None:
    """Saved inputs and outputs keep their history, in other forms too."""

    class Cubed(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            out = x**3
            ctx.save_for_backward(x, out)
            return out

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            x, out = ctx.saved_tensors
            return grad * x * x + out * grad

    def second(f: Any) -> torch.Tensor:
        x = X.clone().requires_grad_()
        (first,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        (found,) = torch.autograd.grad(first.sum(), x)
        return found

    program = sf.export(Cubed.apply, (X.clone().requires_grad_(),))
    for p in (program, program.run_decompositions()):
        torch.testing.assert_close(second(p.module()), second(Cubed.apply))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_above_and_below_autograd(mode: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return rounded(x) * 2

    above = sf.make_fx(f, tracing_mode=mode, pre_dispatch=True)(X)
    assert above.graph.find_nodes(op="call_function", target=APPLY)
    torch.testing.assert_close(above(X), f(X))
    below = sf.make_fx(lambda x: torch.autograd.grad(f(x).sum(), x), tracing_mode=mode)(
        X.clone().requires_grad_()
    )
    assert not below.graph.find_nodes(op="call_function", target=APPLY)
    torch.testing.assert_close(below(X), (torch.full_like(X, 2.0),))
    program = sf.export(f, (X,)).module()
    again = sf.make_fx(lambda x: torch.autograd.grad(program(x).sum(), x), tracing_mode=mode)(
        X.clone().requires_grad_()
    )
    torch.testing.assert_close(again(X), (torch.full_like(X, 2.0),))


def test_the_graph_module_runs_torchs_operator() -> None:
    """Somebody who runs the nodes one by one gets the same gradients."""
    program = exported("saving")
    plain = Trained(PROGRAMS["saving"])
    state = [p.detach().clone().requires_grad_() for p in plain.parameters()]
    names = [s.target for s in program.graph_signature.input_specs[:-1]]
    by_name = dict(zip((n for n, _ in plain.named_parameters()), state, strict=True))
    given = [by_name.get(str(n), TABLE) for n in names]
    (result,) = torch.fx.Interpreter(program.graph_module).run(*given, X)
    loss_of(result).backward()
    loss_of(plain(X)).backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(by_name[name].grad, parameter.grad)


def test_casts_of_autocast() -> None:
    class Product(Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x @ x.t()

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad @ ctx.saved_tensors[0] * 3

    assert_trains_like_eager(
        sf.export(Trained(lambda m, x: Product.apply(m.linear(x))), (X,)).module,
        lambda m, x: Product.apply(m.linear(x)),
        X,
        -X,
    )


# -- what cannot be captured ----------------------------------------------------------------------


def of_backward(backward: Callable[..., Any]) -> Any:
    """A function that doubles, with this backward; it saves its argument."""

    class Doubled(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * 2

    Doubled.backward = staticmethod(backward)  # type: ignore[method-assign]
    return Doubled


def by_data(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad if ctx.saved_tensors[0].sum() > 0 else -grad


def by_autograd(ctx: Any, grad: torch.Tensor) -> Any:
    with torch.enable_grad():
        x = ctx.saved_tensors[0].detach().requires_grad_()
        return torch.autograd.grad((x * 3).sum(), x)


def by_grad_mode(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad if torch.is_grad_enabled() else grad * 2


def in_place(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad.mul_(2)


def too_few(ctx: Any, grad: torch.Tensor) -> Any:
    return ()


def unknown(ctx: Any, grad: torch.Tensor) -> Any:
    return grad * len(ctx.next_functions)


def counting(ctx: Any, grad: torch.Tensor) -> Any:
    ctx.needs_input_grad = (False,)
    return grad


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "backward", [by_data, by_autograd, by_grad_mode, in_place, too_few, unknown, counting]
)
def test_a_backward_that_cannot_be_captured_leaves_no_gradient(backward: Any, grad: bool) -> None:
    function = of_backward(backward)

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(TABLE.clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = function.apply(x * self.weight)
            return y + self.weight

    with torch.set_grad_enabled(grad):
        program = sf.export(M(), (X,), dynamic_shapes=({0: sf.Dim.AUTO},))
    (note,) = [n for n in program.notes if "Function" in n]
    assert "Doubled" in note and "no gradient goes through it" in note
    for p in (program, program.run_decompositions()):
        module = p.module()
        for x in (X, OTHER):
            x = x.clone().requires_grad_()
            module.zero_grad()
            out = module(x)
            torch.testing.assert_close(out, x * TABLE * 2 + TABLE)
            out.sum().backward()
            assert x.grad is None
            assert torch.equal(module.get_parameter("weight").grad, torch.full((3,), len(x) * 1.0))


def test_an_argument_that_is_changed_is_refused() -> None:
    class Dirty(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * 2

    with pytest.raises(sf.NotSupported, match="mark_dirty"):
        sf.export(lambda x: Dirty.apply(x + 1), (X,))


def test_a_missing_gradient_raises_where_backward_was_to_see_it() -> None:
    """Without zeros in its place: backward was captured with a gradient for every output."""

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, a: Any, b: Any) -> Any:
            return a * 2 if b is None else b * 3 + a

    module = sf.export(Two.apply, (X,)).module()
    x = X.clone().requires_grad_()
    both = module(x)
    (both[0] + both[1]).sum().backward()
    assert torch.equal(x.grad, torch.full_like(X, 4.0))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="captured with a gradient for each of its outputs"):
        module(x)[0].sum().backward()


# -- memory ---------------------------------------------------------------------------------------


def written_after(x: torch.Tensor) -> Any:
    x = x * 1
    y = Identity.apply(x)
    y.add_(1)
    return x, y


def base_written_after(x: torch.Tensor) -> Any:
    x = x * 1
    y = Reversed.apply(x, 1.0)
    x.add_(1)
    return x * 1, y * 1


@pytest.mark.parametrize("f", [written_after, base_written_after])
def test_results_that_are_views_of_arguments(f: Any) -> None:
    program = sf.export(f, (X,))
    torch.testing.assert_close(program.module()(X.clone()), f(X.clone()))
    with pytest.raises(sf.NotSupported, match="autograd_function_apply"):
        sf.export(f, (X.clone().requires_grad_(),)).run_decompositions()


def test_an_input_that_is_returned_is_the_input() -> None:
    program = sf.export(Identity.apply, (X,))
    for p in (program, program.run_decompositions()):
        x = X.clone()
        assert p.module()(x).data_ptr() == x.data_ptr()


class Counting(nn.Module):
    """Backward reads a tensor that forward writes after the function."""

    def __init__(self, saved: str) -> None:
        super().__init__()
        self.saved, self.weight = saved, nn.Parameter(TABLE.clone())
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = self.count if self.saved == "closure" else self.count * 1
        outer = self

        class Scaled(Function):
            @staticmethod
            def forward(ctx: Any, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
                ctx.count = count.view(1)
                return x * 2

            @staticmethod
            def backward(ctx: Any, grad: torch.Tensor) -> Any:
                return grad * (outer.count if outer.saved == "closure" else ctx.count), None

        y: torch.Tensor = Scaled.apply(x * self.weight, count)
        count.add_(1)
        return y


@pytest.mark.parametrize("saved", ["closure", "attribute"])
def test_what_backward_reads_is_what_is_there_then(saved: str) -> None:
    plain, program = Counting(saved), sf.export(Counting(saved), (X,))
    module = program.module()
    for m in (plain, module, plain, module):
        m.zero_grad()
        m(X).sum().backward()
    torch.testing.assert_close(module.get_parameter("weight").grad, plain.weight.grad)
    for take_apart in (lambda: program.run_decompositions(), lambda: program.joint(0)):
        with pytest.raises(sf.NotSupported, match="backward of a torch.autograd.Function reads a"):
            take_apart()
