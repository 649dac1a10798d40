"""Higher-order operators in make_fx: nodes with subgraphs, equal to eager for every outcome."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from tests.corpora.control_flow import EXAMPLE, PROGRAMS, WEIGHT, eager, traced
from torch._higher_order_ops import scan, while_loop
from torch._higher_order_ops.map import map as torch_map
from torch.utils.checkpoint import checkpoint

import stillframe as sf
from stillframe.fake.tensor import FakeTensor
from stillframe.trace.control_flow import PLAIN

aten = torch.ops.aten
higher_order = torch.ops.higher_order
MODES = ("real", "fake", "symbolic", "before dispatch")
every_mode = pytest.mark.parametrize("mode", MODES)


def trace(f: Callable[..., Any], mode: str, *args: Any) -> torch.fx.GraphModule:
    before = mode == "before dispatch"
    kind = "symbolic" if before else mode
    options = {"pre_dispatch": before, "allow_non_fake_inputs": True}
    return sf.make_fx(f, tracing_mode=kind, **options)(*args or (EXAMPLE,))


def check(graph: Callable[..., Any], name: str, mode: str) -> None:
    """The graph equals eager on inputs for both outcomes, and of other sizes if they are open."""
    runs = control_flow.SAME_SIZES
    if mode in ("symbolic", "before dispatch") and name not in control_flow.UNROLLED:
        runs += control_flow.OTHER_SIZES
    if mode == "real" and name in control_flow.SIZES_OF_DATA:
        runs = runs[:1]
    for run in runs:
        torch.testing.assert_close(graph(run), eager(name)(run))


# -- programs -------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.spec("3.65")
def test_the_graph_equals_eager(mode: str, name: str) -> None:
    if mode == "real" and name in control_flow.READ_NUMBERS:
        with pytest.raises(sf.DataDependentError):
            trace(traced(name), mode)
        return
    graph = trace(traced(name), mode)
    check(graph, name, mode)
    for run in control_flow.SAME_SIZES[:1]:
        torch.testing.assert_close(torch.fx.Interpreter(graph).run(run), eager(name)(run))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_graph_is_traced_again(name: str) -> None:
    graph = trace(traced(name), "symbolic")
    again = trace(graph, "symbolic")
    check(again, name, "symbolic")
    assert _operators(again) == _operators(graph)


def _operators(module: torch.fx.GraphModule) -> list[str]:
    """The higher-order operators of a graph, and in parentheses those of its subgraphs."""
    found = []
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            found.append(node.target.name())
        elif node.op == "get_attr" and isinstance(getattr(module, node.target), torch.nn.Module):
            found += [f"({name})" for name in _operators(getattr(module, node.target))]
    return found


# -- the form of the graph ----------------------------------------------------------------------


def test_what_functions_close_over_are_operands_of_both() -> None:
    def f(x: torch.Tensor) -> Any:
        y, n, k = x * 2, x.shape[0], (x > 0).sum().item()
        return torch.cond(x.sum() > 0, lambda x: x + y * n, lambda x: x * k - WEIGHT, (x,))

    graph = trace(f, "symbolic")
    (node,) = graph.graph.find_nodes(op="call_function", target=higher_order.cond)
    pred, true_graph, false_graph, operands = node.args
    assert [n.name for n in operands] == ["x_1", "mul", "_local_scalar_dense", "_tensor_constant0"]
    assert pred.target is aten.gt.Scalar
    for reader in (true_graph, false_graph):
        assert reader.op == "get_attr"
        inner = getattr(graph, reader.target)
        assert isinstance(inner, torch.fx.GraphModule)
        placeholders = inner.graph.find_nodes(op="placeholder")
        assert len(placeholders) == len(operands)
        for outside, inside in zip(operands, placeholders, strict=True):
            assert type(inside.meta["val"]) is type(outside.meta["val"])
        assert all("val" in n.meta for n in inner.graph.nodes)
    assert (true_graph.target, false_graph.target) == ("true_graph_0", "false_graph_0")


def test_sizes_on_which_arms_differ_are_symbols_of_the_result() -> None:
    graph = trace(traced("sizes_that_differ"), "symbolic")
    (node,) = graph.graph.find_nodes(op="call_function", target=higher_order.cond)
    (value,) = node.meta["val"]
    (symbol,) = node.meta["unbacked_bindings"]
    (x,) = graph.graph.find_nodes(op="placeholder")
    assert isinstance(value, FakeTensor) and value.sizes == (symbol, x.meta["val"].sizes[1])
    assert node.meta["unbacked_bindings"][symbol] == (0, "size", 0)


def test_a_python_bool_takes_its_arm() -> None:
    graph = trace(lambda x: torch.cond(True, torch.sin, torch.cos, (x,)), "symbolic")
    assert [n.target for n in graph.graph.find_nodes(op="call_function", target=aten.sin.default)]
    assert not _operators(graph)


def test_a_trace_leaves_nothing_behind() -> None:
    from torch._higher_order_ops import utils

    before = torch.cond, utils._hop_compile_and_call
    with pytest.raises(sf.SideEffectError):
        trace(lambda x: torch.cond(x.sum() > 0, lambda: x.add_(1), lambda: x - 1), "fake")
    trace(traced("nested"), "fake")
    assert (torch.cond, utils._hop_compile_and_call) == before


# -- gradients ------------------------------------------------------------------------------------

DIFFERENTIABLE = {
    "cond": lambda x, w: torch.cond(x.sum() > 0, lambda x: x * w, lambda x: w.sin() - x, (x,)),
    "only one arm": lambda x, w: torch.cond(x.sum() > 0, lambda: x * 2, lambda: w.exp() + 0 * x),
    "map": lambda x, w: torch_map(lambda r: (r * w).sin(), x),
    "scan": lambda x, w: scan(lambda c, r: (c * r + w, c * 2), w * 1, x),
    "nested": lambda x, w: torch.cond(
        x.sum() > 0, lambda: torch.cond(x.max() > 1, lambda: x * w, lambda: x), lambda: x.exp() * w
    ),
}
PLAIN_DIFFERENTIABLE = {
    "cond": lambda x, w: x * w if x.sum() > 0 else w.sin() - x,
    "only one arm": lambda x, w: x * 2 if x.sum() > 0 else w.exp() + 0 * x,
    "map": lambda x, w: (x * w).sin(),
    "scan": lambda x, w: control_flow.PLAIN.scan(lambda c, r: (c * r + w, c * 2), w * 1, x),
    "nested": lambda x, w: (x * w if x.max() > 1 else x) if x.sum() > 0 else x.exp() * w,
}


def gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: torch.Tensor, w: torch.Tensor) -> Any:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        leaves = torch.utils._pytree.tree_leaves(function(x, w))
        found = torch.autograd.grad(sum(y.sum() for y in leaves), (x, w), allow_unused=True)
        return [torch.zeros(()) if g is None else g for g in found]

    return run


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(mode: str, name: str) -> None:
    graph = trace(gradients(DIFFERENTIABLE[name]), mode, EXAMPLE, WEIGHT)
    runs = control_flow.SAME_SIZES + (control_flow.OTHER_SIZES if mode == "symbolic" else ())
    for x in runs:
        ours = graph(x, WEIGHT)
        for mine, want in zip(ours, gradients(PLAIN_DIFFERENTIABLE[name])(x, WEIGHT), strict=True):
            torch.testing.assert_close(mine.expand_as(want) if want.dim() else mine.sum(), want)


class Exponential(torch.autograd.Function):
    """With a backward that nobody would guess."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x * 7


AUTOGRAD: dict[str, Callable[[torch.Tensor, Any], Any]] = {}


def autograd_case(f: Callable[[torch.Tensor, Any], Any]) -> Callable[[torch.Tensor, Any], Any]:
    AUTOGRAD[f.__name__] = f
    return f


@autograd_case
def checkpoint_in_an_arm(x: torch.Tensor, cond: Any) -> Any:
    def arm(x: torch.Tensor) -> Any:
        return checkpoint(lambda x: x.sin() * x, x, use_reentrant=False)

    return cond(x.sum() > 0, arm, lambda x: x.sin(), (x,))


@autograd_case
def arms_in_a_checkpoint(x: torch.Tensor, cond: Any) -> Any:
    def body(x: torch.Tensor) -> Any:
        return cond(x.sum() > 0, lambda x: x.sin() * x, lambda x: x.cos(), (x,))

    return checkpoint(body, x, use_reentrant=False)


@autograd_case
def arms_in_a_backward(x: torch.Tensor, cond: Any) -> Any:
    class Chosen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> Any:
            ctx.save_for_backward(x)
            return cond(x.sum() > 0, lambda x: x * 3, lambda x: x.cos(), (x,))

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return cond(x.sum() > 0, lambda x, g: g * x, lambda x, g: g * 2, (x, grad))

    return Chosen.apply(x)


@autograd_case
def detached_result(x: torch.Tensor, cond: Any) -> Any:
    return cond(x.sum() > 0, lambda x: x.detach() * 2, lambda x: x * 2, (x,)) * x


@autograd_case
def region_without_gradients(x: torch.Tensor, cond: Any) -> Any:
    def arm(x: torch.Tensor) -> Any:
        with torch.no_grad():
            y = x * 2
        return y * x

    def outer(x: torch.Tensor) -> Any:
        return cond(x.max() > 1, arm, lambda x: x * 3, (x,))

    return cond(x.sum() > 0, outer, lambda x: x * 1, (x,))


@autograd_case
def inference_mode_in_an_arm(x: torch.Tensor, cond: Any) -> Any:
    def arm(x: torch.Tensor) -> Any:
        with torch.inference_mode():
            factor = x.sum().exp()
        return factor.clone() * x

    return cond(x.sum() > 0, arm, lambda x: x * 1, (x,))


@autograd_case
def gradient_in_an_arm(x: torch.Tensor, cond: Any) -> Any:
    def arm(x: torch.Tensor) -> Any:
        y = x.detach().requires_grad_()
        with torch.enable_grad():
            (inner,) = torch.autograd.grad((y**3).sum(), y)
        return inner * x

    return cond(x.sum() > 0, arm, lambda x: x * 1, (x,))


@autograd_case
def integers_beside(x: torch.Tensor, cond: Any) -> Any:
    y, count = cond(
        x.sum() > 0, lambda x: (x * 2, (x > 0).sum()), lambda x: (x * 3, (x < 0).sum()), (x,)
    )
    return y * count


@autograd_case
def second_derivatives(x: torch.Tensor, cond: Any) -> Any:
    x = x * 1
    y = cond(x.sum() > 0, lambda x: x * x * x, lambda x: x * x * 3, (x,))
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return slope * x


@autograd_case
def expanded_operand(x: torch.Tensor, cond: Any) -> Any:
    row = x[0].expand(5, 3)
    return cond(x.sum() > 0, lambda row: row * row, lambda row: row.sin(), (row,))


@autograd_case
def complex_numbers(x: torch.Tensor, cond: Any) -> Any:
    z = cond(
        x.sum() > 0, lambda x: torch.complex(x, x * 2), lambda x: torch.complex(x * x, x), (x,)
    )
    return torch.view_as_real(z)


@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("name", AUTOGRAD)
def test_gradients_are_those_of_the_program(mode: str, name: str) -> None:
    def gradient(cond: Any) -> Callable[..., Any]:
        def run(x: torch.Tensor) -> Any:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(AUTOGRAD[name](x, cond).sum(), x)

        return run

    def plain(pred: Any, one: Any, other: Any, operands: Any = ()) -> Any:
        return control_flow.PLAIN.cond(pred, one, other, operands)

    graph = trace(gradient(torch.cond), mode)
    for x in control_flow.SAME_SIZES + (control_flow.OTHER_SIZES if mode == "symbolic" else ()):
        torch.testing.assert_close(graph(x), gradient(plain)(x))


def test_a_gradient_with_a_backward_of_its_own_is_refused() -> None:
    def f(x: torch.Tensor, w: torch.Tensor) -> Any:
        def outer(x: torch.Tensor) -> Any:
            return torch.cond(x.max() > 1, Exponential.apply, torch.sin, (x,))

        return torch.cond(x.sum() > 0, outer, lambda x: x * w, (x,))

    trace(f, "fake", EXAMPLE, WEIGHT)
    with pytest.raises(sf.NotSupported, match="functions apply Exponential"):
        trace(gradients(f), "fake", EXAMPLE, WEIGHT)


def test_gradients_switched_on_in_an_arm_are_refused() -> None:
    def arm(x: torch.Tensor) -> Any:
        with torch.enable_grad():
            return x * 2

    def f(x: torch.Tensor, w: torch.Tensor) -> Any:
        with torch.no_grad():
            return torch.cond(x.sum() > 0, arm, lambda x: x * w, (x,)) * x

    with pytest.raises(sf.NotSupported, match="switches gradients on"):
        trace(f, "fake", EXAMPLE, WEIGHT)


def test_a_gradient_of_random_numbers_is_refused() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda: torch.dropout(x, 0.5, True), lambda: x * 2)

    with pytest.raises(sf.NotSupported, match="draw random numbers"):
        trace(lambda x: gradients(lambda x, w: f(x) * w)(x, WEIGHT), "fake")


# -- transforms of torch.func ---------------------------------------------------------------------


@every_mode
def test_vmap_with_a_predicate_for_each_sample(mode: str) -> None:
    def f(cond: Any) -> Callable[..., Any]:
        return lambda row: cond(
            row.sum() > 0, lambda r: (r + 1, r.sum()), lambda r: (r * 2, r.max()), (row,)
        )

    graph = trace(lambda x: torch.vmap(f(torch.cond))(x), mode)
    for x in control_flow.SAME_SIZES:
        rows = [f(control_flow.PLAIN.cond)(row) for row in x]
        want = tuple(torch.stack(column) for column in zip(*rows, strict=True))
        torch.testing.assert_close(graph(x), want)


@every_mode
def test_vmap_with_one_predicate(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        flag = x.sum() > 0
        return torch.vmap(
            lambda r: torch.cond(flag, lambda r: [r + 1, r * 2], lambda r: [r, r - 1], (r,))
        )(x)

    graph = trace(f, mode)
    assert _operators(graph) == ["cond"]
    for x in control_flow.SAME_SIZES:
        want = [x + 1, x * 2] if x.sum() > 0 else [x, x - 1]
        torch.testing.assert_close(graph(x), want)


@every_mode
def test_an_operator_inside_vmap_that_uses_nothing_of_it(mode: str) -> None:
    def f(x: torch.Tensor) -> Any:
        def sample(r: torch.Tensor) -> torch.Tensor:
            return r + torch.cond(x.sum() > 0, lambda: x.sum(), lambda: x.max())

        return torch.vmap(sample)(x)

    graph = trace(f, mode)
    for x in control_flow.SAME_SIZES:
        torch.testing.assert_close(graph(x), x + (x.sum() if x.sum() > 0 else x.max()))


TRANSFORMED = {
    "map_impl is inside a transform": torch.vmap(lambda r: torch_map(torch.sin, r)),
    "cond is inside a transform": torch.func.grad(
        lambda x: torch.cond(x.sum() > 0, lambda x: x.sum(), lambda x: x.exp().sum(), (x,))
    ),
    "returns a tensor that is inside a transform": torch.vmap(
        lambda r: torch.cond(EXAMPLE.sum() > 0, lambda: r + 1, lambda: r * 2)
    ),
}


@every_mode
@pytest.mark.parametrize("message", TRANSFORMED)
def test_transforms_without_a_rule_are_refused(mode: str, message: str) -> None:
    with pytest.raises(sf.NotSupported, match=message):
        trace(TRANSFORMED[message], mode)


# -- effects --------------------------------------------------------------------------------------


def changing(change: Callable[[torch.Tensor, torch.Tensor], Any]) -> Callable[..., Any]:
    """An arm that changes its operand or a tensor outside."""

    def f(x: torch.Tensor) -> torch.Tensor:
        y = x * 2

        def arm(x: torch.Tensor) -> torch.Tensor:
            change(x, y)
            return x + 1

        return torch.cond(x.sum() > 0, arm, lambda x: x - 1, (x,)) + y

    return f


def set_row(x: torch.Tensor, y: torch.Tensor) -> None:
    y[0] = 1


CHANGES: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "operand": lambda x, y: x.add_(1),
    "view of an operand": lambda x, y: x[0].mul_(2),
    "tensor outside": lambda x, y: y.add_(1),
    "detached": lambda x, y: y.detach().add_(1),
    "item": set_row,
    "out": lambda x, y: torch.sin(x, out=y),
    "list": lambda x, y: torch._foreach_add_([y], 1),
    "layout": lambda x, y: y.t_(),
    "dims": lambda x, y: y.unsqueeze_(0),
    "sizes": lambda x, y: y.resize_(2, 3),
    "statistics": lambda x, y: torch.nn.functional.batch_norm(x, y[0], y[0] + 5, training=True),
}


@every_mode
@pytest.mark.parametrize("what", CHANGES)
def test_an_arm_that_changes_what_is_not_its_own(mode: str, what: str) -> None:
    with pytest.raises(sf.SideEffectError, match="changes a tensor from outside in place"):
        trace(changing(CHANGES[what]), mode)


@every_mode
@pytest.mark.parametrize("name", ["while_loop", "map", "scan"])
def test_a_body_that_changes_what_is_not_its_own(mode: str, name: str) -> None:
    programs: dict[str, Callable[[torch.Tensor], Any]] = {
        "while_loop": lambda x: while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y.add_(1)), (torch.tensor(0), x)
        ),
        "map": lambda x: torch_map(lambda r: r.add_(1), x),
        "scan": lambda x: scan(lambda c, r: (c.add_(r), r * 2), WEIGHT, x),
    }
    with pytest.raises(sf.SideEffectError, match=f"given to {name} changes a tensor"):
        trace(programs[name], mode)


@every_mode
@pytest.mark.parametrize("what", ["tensor", "number"])
def test_what_leaves_an_arm_behind_its_back(mode: str, what: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        kept: list[Any] = []

        def arm(x: torch.Tensor) -> torch.Tensor:
            kept.append(x * 2 if what == "tensor" else x.nonzero().shape[0])
            return x + 1

        return torch.cond(x.sum() > 0, arm, lambda x: x - 1, (x,)) + kept[0]

    with pytest.raises(sf.SideEffectError, match=f"A {what} that a function .* did not return"):
        trace(f, mode)


def test_what_is_learnt_in_an_arm_is_unknown_after_it() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        k = (x > 0).sum().item()

        def arm(x: torch.Tensor) -> torch.Tensor:
            torch._check(k > 3)
            return x + 1

        y = torch.cond(x.sum() > 0, arm, lambda x: x - 1, (x,))
        return y * 2 if k > 3 else y

    with pytest.raises(sf.DataDependentError):
        trace(f, "symbolic")


def test_a_check_in_an_arm_is_made_there() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        def arm(x: torch.Tensor) -> torch.Tensor:
            k = (x > 0).sum().item()
            torch._check(k < 4)
            return x * k

        return torch.cond(x.sum() > 0, arm, lambda x: x - 1, (x,))

    graph = trace(f, "symbolic")
    few = torch.tensor([[-1.0, 5.0, -1.0]] * 2)
    torch.testing.assert_close(graph(few), few * 2)
    torch.testing.assert_close(graph(-few), -few - 1)
    with pytest.raises(RuntimeError, match="u0 <= 3"):
        graph(few.abs())


# -- arms that do not fit -------------------------------------------------------------------------

UNEVEN: dict[str, Callable[[torch.Tensor], Any]] = {
    "different dtypes": lambda x: torch.cond(x.sum() > 0, lambda: x.double(), lambda: x - 1),
    "different ranks": lambda x: torch.cond(x.sum() > 0, lambda: x.sum(), lambda: x - 1),
    "different containers": lambda x: torch.cond(x.sum() > 0, lambda: (x, x), lambda: x - 1),
    "different kinds": lambda x: torch.cond(x.sum() > 0, lambda: (x, None), lambda: (x, x)),
    "predicate of torch.cond": lambda x: torch.cond(x.sum(), lambda: x + 1, lambda: x - 1),
    "other values than it takes": lambda x: while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, torch.cat([y, y])), (torch.tensor(0), x)
    ),
    "condition of while_loop": lambda x: while_loop(
        lambda i, y: y > 0, lambda i, y: (i + 1, y), (torch.tensor(0), x)
    ),
}


@every_mode
@pytest.mark.parametrize("message", UNEVEN)
def test_functions_that_do_not_fit(mode: str, message: str) -> None:
    with pytest.raises(sf.InvalidInput, match=message):
        trace(UNEVEN[message], mode)


@pytest.mark.parametrize("mode", MODES[1:])
def test_steps_that_cannot_be_stacked(mode: str) -> None:
    with pytest.raises(sf.NotSupported, match="cannot be stacked"):
        trace(lambda x: torch_map(lambda r: r.nonzero(), x), mode)


# -- others that read the graphs ------------------------------------------------------------------


def test_a_table_of_decompositions_reaches_arms() -> None:
    table = {aten.sin.default: lambda x: x.cos()}
    f = lambda x: torch.cond(x.sum() > 0, lambda: x.sin(), lambda: x * 2)  # noqa: E731
    for mode in MODES[:3]:
        graph = sf.make_fx(f, table, tracing_mode=mode)(EXAMPLE)
        torch.testing.assert_close(graph(EXAMPLE), EXAMPLE.cos())


def test_a_trace_inside_a_trace() -> None:
    def f(x: torch.Tensor) -> Any:
        inner = sf.make_fx(traced("nested"), allow_non_fake_inputs=True)(x)
        return inner(x)

    graph = trace(f, "symbolic")
    assert _operators(graph) == ["(cond)", "cond"]
    check(graph, "nested", "symbolic")


def test_graphs_are_copied_and_printed() -> None:
    graph = trace(traced("nested"), "symbolic")
    check(copy.deepcopy(graph), "nested", "symbolic")
    text = graph.print_readable(print_output=False)
    assert "class true_graph_0" in text and "torch.ops.higher_order.cond(gt" in text


def test_torch_traces_a_program_with_subgraphs() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    module = sf.export(traced("nested"), (EXAMPLE,)).module()
    theirs = make_fx(module)(EXAMPLE)
    for run in control_flow.SAME_SIZES:
        torch.testing.assert_close(theirs(run), eager("nested")(run))


def test_traces_in_threads() -> None:
    found: list[Any] = []

    def work() -> None:
        for _ in range(3):
            graph = trace(traced("nested"), "fake")
            found.append([graph(run) for run in control_flow.SAME_SIZES])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = [eager("nested")(run) for run in control_flow.SAME_SIZES]
    assert len(found) == 9 and not torch.compiler.is_compiling()
    for results in found:
        torch.testing.assert_close(results, want)


@pytest.mark.parametrize("name", ["map_impl", "scan", "associative_scan"])
def test_plain_loops_over_nothing_are_refused(name: str) -> None:
    nothing = [torch.ones(0, 3)]
    args = ([WEIGHT], nothing) if name == "scan" else (nothing,)
    with pytest.raises(ValueError, match="at least one slice"):
        PLAIN[name](lambda *values: values, *args, [])
