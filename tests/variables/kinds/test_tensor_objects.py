"""Tensors as Python objects: inputs, attributes, gradients, aliases, leaves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, assert_same, guards_of, new_translator, refuses

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.errors import FrameError, InternalError
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.source import ConstantSource, GradSource, LocalSource, OptimizerSource
from stillframe.variables import Options, Translator, VariableBuilder, capture_frame
from stillframe.variables.kinds.tensors import TensorVariable


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


def one() -> tuple[Any, ...]:
    return (t(2, 3),)


def parameter() -> tuple[Any, ...]:
    return (torch.nn.Parameter(t(2, 3)),)


def with_gradient() -> tuple[Any, ...]:
    (found,) = parameter()
    found.grad = t(2, 3) * 3
    return (found,)


def translator(options: Options | None = None) -> Translator:
    return new_translator(translator, options or Options())


def refused(function: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(sf.StillframeError) as e:
        capture_frame(function, args)
    return str(e.value)


# -- inputs ----------------------------------------------------------------------------------------


@pytest.mark.spec("5.9", "5.34")
@pytest.mark.parametrize("make", [one, parameter], ids=["tensor", "parameter"])
def test_a_tensor_is_an_input_of_the_graph_under_one_guard(make: Any) -> None:
    def f(x: torch.Tensor, unused: Any) -> Any:
        return x * 2, type(x), isinstance(x, torch.nn.Parameter), x.requires_grad

    capture = agrees(f, lambda: (*make(), None))
    assert [g for g in guards_of(capture) if "L[" in g] == ["TENSOR_MATCH L['x']"]
    (argument,) = capture.inputs
    (node,) = (n for n in capture.graph_module.graph.nodes if n.op == "placeholder")
    assert node.meta["grapharg"] is argument and node.meta["tensor_dict"] == {}
    assert node.meta["example_value"] is node.meta["val"]
    (x,) = make()
    assert "dtype" in refuses(capture, x.double(), None)
    assert "sizes" in refuses(capture, t(3, 2), None)
    assert "strides" in refuses(capture, t(3, 2).t(), None)
    other = one if make is parameter else parameter
    assert "cls" in refuses(capture, *other(), None)
    assert refuses(capture, [x], None) and refuses(capture, None, None)
    assert refuses(capture, x.detach().requires_grad_(not x.requires_grad), None)


@pytest.mark.spec("5.9", "5.33")
def test_a_fake_of_this_trace_is_never_an_input_and_one_of_another_is() -> None:
    tx = translator()
    with tracing(TracingContext(tx.recorder.fake_mode)):
        ours = tx.recorder.fake_mode.ctx.empty((2,), dtype=torch.float32)
        with pytest.raises(InternalError, match="fake of this trace"):
            VariableBuilder(tx, LocalSource("x"))(ours)
        other = FakeTensor.like_real(ShapeEnv(), t(2))
        made = VariableBuilder(tx, LocalSource("y"))(other)
    assert type(made) is TensorVariable and made.value is not other
    assert made.value.env is tx.env


@pytest.mark.spec("5.34")
def test_the_same_source_gives_the_same_variable_and_a_constant_source_no_input() -> None:
    tx, x, constant = translator(), t(2, 3), t(3)
    context = TracingContext(tx.recorder.fake_mode)
    with tracing(context):
        first = VariableBuilder(tx, LocalSource("x"))(x)
        guards = len(list(_guards(context)))
        assert VariableBuilder(tx, LocalSource("x"))(x) is first
        assert len(list(_guards(context))) == guards
        held = VariableBuilder(tx, ConstantSource("held"))(constant)
        assert len(list(_guards(context))) == guards
    assert held.value.fx_node.op == "get_attr"
    assert getattr(tx.recorder.root, held.value.fx_node.target) is constant
    assert [a.source for a in tx.inputs.arguments] == [LocalSource("x")]


@pytest.mark.spec("5.34")
def test_a_gradient_of_an_optimizers_parameter_is_not_none() -> None:
    tx = translator()
    context = TracingContext(tx.recorder.fake_mode)
    with tracing(context):
        place = GradSource(OptimizerSource(LocalSource("p")))
        VariableBuilder(tx, place)(t(2))
    assert [g.kind for g in _guards(context)] == ["NOT_NONE_MATCH", "TENSOR_MATCH"]


def _guards(context: TracingContext) -> Any:
    from stillframe.guards import GuardsContext

    return list(context.part(GuardsContext).dynamo_guards)


@pytest.mark.spec("5.34", "5.125")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.nested.nested_tensor([t(2), t(3)]), "strided layout"),
        (lambda: torch.nested.nested_tensor([t(2), t(3)], layout=torch.jagged), "nested"),
        (lambda: t(2, 2).to_sparse(), "sparse_coo"),
        (lambda: t(2, 2).to_sparse_csr(), "sparse_csr"),
        (lambda: torch.tensor([1 + 2j]).conj(), "conjugates"),
        (lambda: torch.quantize_per_tensor(t(2), 1.0, 0, torch.qint8), "quantised"),
    ],
)
def test_tensors_that_a_fake_does_not_show_are_refused(make: Any, says: str) -> None:
    message = refused(lambda x: x * 2, make())
    assert "L['x']" in message and says in message


@pytest.mark.spec("5.34")
def test_a_gradient_of_another_dtype_is_refused() -> None:
    x = t(2).requires_grad_()
    try:
        x.grad_dtype = None
        x.grad = t(2).double()
    except (AttributeError, RuntimeError):
        pytest.skip("this torch has no gradients of another dtype")
    assert "gradient has another dtype" in refused(lambda x: x * 2, x)


@pytest.mark.spec("5.34")
def test_a_static_address_is_guarded_by_identity() -> None:
    x = t(2)
    x._dynamo_static_input_type = "guarded"  # type: ignore[attr-defined]
    capture = capture_frame(lambda x: x * 2, (x,))
    assert "ID_MATCH L['x']" in guards_of(capture)
    y = t(2)
    y._dynamo_static_input_type = "guarded"  # type: ignore[attr-defined]
    assert "very object" in refuses(capture, y)


# -- aliases ---------------------------------------------------------------------------------------


def test_inputs_alias_as_they_did_and_only_so() -> None:
    def f(a: torch.Tensor, b: torch.Tensor) -> Any:
        a.add_(1)
        return b * 2, a is b

    def view() -> Any:
        base = t(3, 4)
        return base, base[1:]

    def same() -> Any:
        base = t(3, 4)
        return base, base

    apart = agrees(f, lambda: (t(3, 4), t(3, 4)))
    assert "now aliases" in refuses(apart, *same())
    overlap = agrees(f, view)
    assert "no longer aliases" in refuses(overlap, t(3, 4), t(2, 4))
    one_object = agrees(f, same)
    assert "DUPLICATE_INPUT L['b']" in guards_of(one_object)
    assert refuses(one_object, t(3, 4), t(3, 4))


def test_outputs_that_are_inputs_views_of_them_and_twice_the_same() -> None:
    def f(x: torch.Tensor, p: torch.Tensor) -> Any:
        y = x.view(-1)
        y.mul_(2)
        with torch.no_grad():
            z = p * 2
        return [x, x], y, x.t(), p.detach(), p, z, {"again": z}, p * 3

    capture = agrees(f, lambda: (*one(), *parameter()))
    (x,), (p,) = one(), parameter()
    (again, _), y, flipped, detached, same, z, _, _ = capture(x, p)
    assert again is x and same is p and not z.requires_grad
    assert y.data_ptr() == x.data_ptr() == flipped.data_ptr()
    assert detached.data_ptr() == p.data_ptr()


def test_identity_of_results_is_not_guessed() -> None:
    """``x.contiguous()`` is ``x`` if it is contiguous; the graph finds out."""

    def returns_both(x: torch.Tensor) -> Any:
        return x.contiguous(), torch.nn.functional.dropout(x, 0.5, False), x, x * 2 is x

    agrees(returns_both, one)
    agrees(lambda x: x is torch.nn.functional.dropout(x, 0.5, False), one)
    for ask in (
        lambda x: x.contiguous() is x,
        lambda x: x.contiguous().add_(1) in ["", x],
        lambda x: x.contiguous() is x.add_(1),
        lambda x: x.contiguous().grad,
    ):
        assert "one" in refused(ask, t(2, 3)) or "operand" in refused(ask, t(2, 3))


def test_tensors_as_keys_in_sets_and_lists() -> None:
    def f(x: torch.Tensor, y: torch.Tensor, held: list[Any]) -> Any:
        table = {x: 1, y: 2}
        return table[x], y in {x}, x in held, x in [x, y], len({x, y, x})

    agrees(f, lambda: (t(2), t(2), []))
    for ask in (
        lambda x: {x: 1}.get(x.contiguous()), lambda x: x.contiguous() in {x},
        lambda x: len({x, x.contiguous()}), lambda x: {x: 1, x.contiguous(): 2},
    ):  # fmt: skip
        assert "as a key" in refused(ask, t(2))


def test_items_of_tensors_are_set() -> None:
    def f(x: torch.Tensor, whole: torch.Tensor) -> Any:
        x[0], x[1:, :2] = 5, -1.5
        x[x > 3] = 0
        x[..., 1] = True
        x[0, x[0].long() * 0] = 7
        x[2] = x[0] * 2
        whole[0] = 2.7
        return x.sum(), whole

    agrees(f, lambda: (t(3, 3), torch.arange(3)))


def test_addresses_and_texts_of_tensors_are_refused() -> None:
    for ask, says in (
        (id, "id"), (hash, "hash"), (str, "text"), (repr, "text"), (format, "text"),
        (lambda x: f"{x}", "text"), (lambda x: str([x]), "text"), (lambda x: "%s" % x, "text"),
        ("{}".format, "text"), (lambda x: "%s %s" % (1, x), "text"),
        (lambda x: x.data_ptr(), "memory"), (lambda x: x.untyped_storage(), "memory"),
        (lambda x: x._version, "autograd"), (lambda x: x._base, "autograd"),
        (lambda x: x.__dict__, "__dict__"), (dir, "dir"), (copy.copy, ""), (copy.deepcopy, ""),
        (torch.Tensor.__repr__, "text"),
    ):  # fmt: skip
        assert says in refused(lambda x, ask=ask: ask(x), t(2))


# -- attributes ------------------------------------------------------------------------------------


def tagged() -> tuple[Any, ...]:
    x = t(2, 3)
    x.tag, x.other = [1, 2], t(3)  # type: ignore[attr-defined]
    return (x,)


def test_attributes_that_the_user_has_set_are_read_under_guards() -> None:
    def f(x: Any) -> Any:
        x.tag.append(3)
        return x.tag[0], x * x.other, getattr(x, "absent", None), hasattr(x, "env")

    capture = agrees(f, tagged)
    found = guards_of(capture)
    assert "CONSTANT_MATCH L['x'].tag[0]" in found and "TENSOR_MATCH L['x'].other" in found
    (x,) = tagged()
    x.tag[0] = 7
    assert "tag[0]" in refuses(capture, x)
    (x,) = tagged()
    x.absent = 1
    assert "absent" in refuses(capture, x)
    (x,) = tagged()
    x.env = 1
    assert "env" in refuses(capture, x)
    assert "tag" in refuses(capture, *one())


def test_attributes_that_are_not_read_are_not_guarded() -> None:
    capture = agrees(lambda x: x * 2, tagged)
    assert guards_of(capture) == ["TENSOR_MATCH L['x']"]
    assert capture.failure(t(2, 3)) is None


def test_attributes_that_the_frame_sets_are_there_when_it_has_run() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y.tag = {"self": y, "input": x}
        x.tag = y
        x.tag.more = 1
        del y.more
        y.more = 2
        x.other = x.tag.more
        del x.other
        x.passing = 3
        del x.passing
        return y, x.tag is y, hasattr(x, "other")

    agrees(f, tagged)
    (x,) = tagged()
    before = x.tag
    capture_frame(f, (x,))
    assert x.tag is before and "other" in vars(x)


def test_an_absent_attribute_is_an_attribute_error_as_in_eager() -> None:
    def f(x: Any) -> Any:
        try:
            return x.sizes
        except AttributeError as e:
            return str(e)

    agrees(f, one)
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'sizes'"):
        capture_frame(lambda x: x.sizes, (t(2),))


def test_metadata_is_read_from_the_fake() -> None:
    def f(x: torch.Tensor) -> Any:
        sizes = (x.shape, x.size(), x.size(0), x.numel(), len(x), x.stride(), x.ndim, x.dim())
        return sizes, x.device, x.dtype, x.layout, x.is_cuda, x.T, x.mT, x.is_contiguous()

    agrees(f, one, one)
    agrees(f, lambda: (t(3, 2).t(),))


def test_where_a_tensor_begins_is_guarded_if_it_is_asked() -> None:
    capture = agrees(lambda x: (x.storage_offset(), x[1:].storage_offset()), lambda: (t(4, 3)[1:],))
    assert "CONSTANT_MATCH L['x'].storage_offset()" in guards_of(capture)
    assert "storage_offset" in refuses(capture, t(3, 3))
    unasked = agrees(lambda x: x * 2, lambda: (t(4, 3)[1:],))
    assert unasked.failure(t(3, 3)) is None


def test_attributes_are_not_set_in_a_branch_that_may_not_run() -> None:
    def f(x: Any) -> Any:
        def sets(y: Any) -> Any:
            x.tag = 1
            return y * 2

        return torch.cond(x.sum() > 3, sets, lambda y: y + 1, (x,))

    assert "sets the attribute tag of a tensor" in refused(f, t(2))


def test_torchs_own_attributes_are_not_set() -> None:
    def replaces_data(x: torch.Tensor) -> None:
        x.data = x * 2

    def replaces_method(x: Any) -> None:
        x.add = 1

    for f, name in ((replaces_data, "data"), (replaces_method, "add")):
        assert f"sets the attribute {name}" in refused(f, t(2))


# -- gradients -------------------------------------------------------------------------------------


def test_a_gradient_is_read_where_it_is() -> None:
    def f(p: torch.Tensor) -> Any:
        return None if p.grad is None else p.grad * 2

    there = agrees(f, with_gradient)
    assert "TENSOR_MATCH L['p'].grad" in guards_of(there)
    assert "grad" in refuses(there, *parameter())
    absent = agrees(f, parameter)
    assert "CONSTANT_MATCH L['p'].grad" in guards_of(absent)
    assert "grad" in refuses(absent, *with_gradient())


def test_library_code_reads_the_same_gradient() -> None:
    def clip(p: torch.Tensor) -> Any:
        return torch.nn.utils.clip_grad_norm_([p], 1.0)

    agrees(clip, with_gradient)


def test_gradients_are_set_zeroed_and_dropped() -> None:
    def step(p: torch.Tensor, new: torch.Tensor) -> Any:
        assert p.grad is not None
        with torch.no_grad():
            p.add_(p.grad, alpha=-0.5)
        old = p.grad
        p.grad = new * 2
        p.grad.mul_(3)
        return old, p.grad

    agrees(step, lambda: (*with_gradient(), t(2, 3)))

    def drop(p: torch.Tensor) -> bool:
        p.grad = None
        return p.grad is None

    def zero(p: torch.Tensor) -> None:
        assert p.grad is not None
        p.grad.zero_()

    def delete(p: torch.Tensor) -> Any:
        del p.grad
        return p.grad

    for f in (drop, zero, delete):
        agrees(f, with_gradient)


def test_a_gradient_that_does_not_fit_is_refused() -> None:
    def f(p: torch.Tensor, new: Any) -> None:
        p.grad = new

    for new in (t(3), t(2, 3).double(), 1.0):
        assert "grad" in refused(f, t(2, 3), new)
    x = t(2).requires_grad_() * 2
    assert "no leaf" in refused(lambda x: x.grad, x)


def test_gradients_flow_through_the_capture_as_in_eager() -> None:
    def f(p: torch.Tensor, x: torch.Tensor) -> Any:
        y = torch.tanh(p @ x.t())
        y = y * p.sum()
        return y.sum() + (p.detach() * p).sum()

    capture = capture_frame(f, (*parameter(), t(4, 3)))
    grads = []
    for run in (capture, f):
        (p,), x = parameter(), t(4, 3).requires_grad_()
        if run is capture:
            capture = capture_frame(f, (p, x))
            run = capture
        run(p, x).backward()
        grads.append((p.grad, x.grad))
    assert_same(*grads)


class Times(torch.autograd.Function):
    """Reads a gradient in its forward, which its backward cannot be given."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        assert p.grad is not None
        return x * p.grad

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def test_gradients_are_not_lost_in_silence() -> None:
    def f(x: torch.Tensor, p: torch.Tensor) -> Any:
        return Times.apply(x, p)  # type: ignore[no-untyped-call]

    assert "backward of Times" in refused(f, *parameter(), *with_gradient())


def test_a_backward_pass_in_the_frame_is_refused() -> None:
    def hook(x: torch.Tensor) -> Any:
        y = x * 2
        y.register_hook(lambda g: g * 2)
        return y

    for f in (
        lambda x: (x * 3).sum().backward(),
        lambda x: torch.autograd.backward((x * 3).sum()),
        lambda x: torch.autograd.grad((x * 3).sum(), [x])[0],
        lambda x: torch.Tensor.backward((x * 3).sum()),
        lambda x: (x * 2).retain_grad(),
        hook,
    ):
        assert issubclass(FrameError, sf.StillframeError)
        message = refused(f, *parameter())
        assert "autograd" in message or "gradients" in message


# -- leaves ----------------------------------------------------------------------------------------


def test_leaves_and_histories_are_as_in_eager() -> None:
    def f(p: torch.Tensor, x: torch.Tensor) -> Any:
        y = p * 2
        known = p.is_leaf, x.is_leaf, y.is_leaf, p.detach().is_leaf, x.grad_fn is None
        made = torch.ones(2, requires_grad=True)
        return known, made, made.is_leaf, (made * 2).is_leaf

    capture = agrees(f, lambda: (*parameter(), *one()))
    assert "CONSTANT_MATCH L['p'].is_leaf" in guards_of(capture)
    leaf = agrees(lambda x: x.is_leaf, lambda: (t(2).requires_grad_(),))
    assert "is_leaf" in refuses(leaf, t(2).requires_grad_() * 2)
    assert "grad_fn" in refused(lambda p: (p * 2).grad_fn, *parameter())


def test_requiring_a_gradient_is_done_by_the_graph() -> None:
    def f(x: torch.Tensor) -> Any:
        x.requires_grad_()
        y = x * 2
        z = y.detach()
        z.requires_grad = True
        return y, z, x.requires_grad, x.is_leaf

    agrees(f, one)
    (x,) = one()
    capture = capture_frame(f, (x,))
    assert not x.requires_grad
    (x,) = one()
    capture(x)[0].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[2.0] * 3] * 2
    assert "requires_grad" in refused(lambda p: (p * 2).requires_grad_(False), *parameter())
    assert "requires_grad" in refused(lambda x: x.requires_grad_(), torch.arange(3))


def test_in_place_operators_on_parameters_and_data() -> None:
    def f(p: torch.Tensor) -> Any:
        with torch.no_grad():
            p.mul_(2)
        p.data.add_(1)
        return p * 3, p.requires_grad

    agrees(f, parameter)
    capture = capture_frame(lambda p: p.add_(1), parameter())
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        capture(*parameter())


def test_a_parameter_that_the_frame_makes_is_one() -> None:
    def f(x: torch.Tensor) -> Any:
        p = torch.nn.Parameter(x)
        q = torch.nn.Parameter(torch.zeros(3), requires_grad=False)
        return p, q, p + q, isinstance(p, torch.nn.Parameter), p.is_leaf, q.requires_grad, type(q)

    agrees(f, one)
    (x,) = one()
    p = capture_frame(f, (x,))(x)[0]
    assert p.data_ptr() == x.data_ptr()


# -- numbers from data, random numbers -------------------------------------------------------------


def test_numbers_from_data_are_results_or_refused() -> None:
    agrees(lambda x: (x.item() * 2, [x.item()]), lambda: (torch.tensor(5),))
    agrees(lambda x: x.tolist(), one)
    for f in (lambda x: 1 if x.sum() > 3 else 2, lambda x: [0] * int(x.sum())):
        with pytest.raises(sf.DataDependentError):
            capture_frame(f, one())


def test_random_operators_draw_at_each_call() -> None:
    def f(x: torch.Tensor) -> Any:
        return torch.rand(3) + torch.nn.functional.dropout(x, 0.5), torch.randn_like(x)

    capture = capture_frame(f, one())
    for seed in (0, 1):
        torch.manual_seed(seed)
        ours = capture(*one())
        torch.manual_seed(seed)
        assert_same(ours, f(*one()))


@pytest.mark.spec("5.107")
def test_seeding_is_done_by_the_graph_in_its_place() -> None:
    def f(x: torch.Tensor) -> Any:
        first = torch.rand(2)
        torch.manual_seed(3)
        return first, torch.rand(2), x

    torch.manual_seed(11)
    before = torch.get_rng_state()
    capture = capture_frame(f, one())
    assert torch.equal(torch.get_rng_state(), before)
    ours = capture(*one())
    torch.manual_seed(11)
    assert_same(ours, f(*one()))
    assert "random numbers" in refused(lambda x: torch.initial_seed(), t(2))
