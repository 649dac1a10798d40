"""The module of a program: state, code, modes, copies, hooks, mutation, other dialects."""

from __future__ import annotations

import copy
import gc
import linecache
import traceback
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.export.call_spec import CallSpec
from stillframe.export.runner import build_module
from stillframe.export.signature import (
    ConstantArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    ModuleCallEntry,
    OutputKind,
    OutputSpec,
    TensorArgument,
)


class Tied(nn.Module):
    """Every kind of state, and one tie."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.inner[0].weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("offset", torch.arange(4.0), persistent=False)
        self.scale = torch.full((4,), 2.0)
        self.first.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.inner(self.first(x))) * self.scale + self.offset


@pytest.fixture(scope="module")
def original() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture(scope="module")
def program(original: Tied) -> sf.ExportedProgram:
    batch = sf.Dim("batch", min=1)
    return sf.export(original, (torch.randn(3, 4),), dynamic_shapes={"x": {0: batch}})


@pytest.fixture
def module(program: sf.ExportedProgram) -> Any:
    return program.module()


def agree(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# -- state ----------------------------------------------------------------------------------------


@pytest.mark.spec("2.98")
def test_state_has_its_original_names(original: Tied, module: Any) -> None:
    assert type(module).__name__ == "Tied"
    assert list(module.state_dict()) == list(original.state_dict())
    assert dict(module.named_parameters()).keys() == dict(original.named_parameters()).keys()
    assert dict(module.named_buffers()).keys() == dict(original.named_buffers()).keys()
    assert "offset" not in module.state_dict() and "offset" in dict(module.named_buffers())
    for name, parameter in original.named_parameters():
        assert module.get_parameter(name).requires_grad == parameter.requires_grad
    agree(module.scale, original.scale)


@pytest.mark.spec("2.98")
def test_ties_stay_ties(module: Any) -> None:
    assert module.first.weight is module.inner.get_submodule("0").weight


def test_new_state_is_seen(original: Tied, module: Any) -> None:
    x = torch.randn(5, 4)
    other = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    own = copy.deepcopy(module)
    own.load_state_dict(other.state_dict())
    agree(own(x), other(x))
    own = copy.deepcopy(module)
    own.load_state_dict(other.state_dict(), assign=True)
    agree(own(x), other(x))


def test_a_replaced_parameter_is_seen(original: Tied, module: Any) -> None:
    own, other = copy.deepcopy(module), copy.deepcopy(original)
    new = nn.Parameter(torch.randn(4))
    own.inner.get_submodule("0").bias = new
    other.inner[0].bias = new
    x = torch.randn(2, 4)
    agree(own(x), other(x))
    swapped = {"norm.weight": torch.full((4,), 3.0)}
    agree(
        torch.func.functional_call(own, swapped, (x,)),
        torch.func.functional_call(other, swapped, (x,)),
    )


def test_gradients_reach_the_parameters(original: Tied, module: Any) -> None:
    x = torch.randn(5, 4)
    own, other = copy.deepcopy(module), copy.deepcopy(original)
    own(x).square().sum().backward()
    other(x).square().sum().backward()
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            agree(own.get_parameter(name).grad, parameter.grad)
    assert own.first.bias.grad is None


def test_names_that_the_class_has_too() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code = nn.Linear(2, 2)
            self.register_buffer("_plan", torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.code(x) + self.get_buffer("_plan")

    m = M()
    run = sf.export(m, (torch.ones(1, 2),)).module()
    assert list(run.state_dict()) == list(m.state_dict())
    agree(run(torch.ones(1, 2)), m(torch.ones(1, 2)))
    agree(copy.deepcopy(run)(torch.ones(1, 2)), m(torch.ones(1, 2)))


# -- copies and modes -----------------------------------------------------------------------------


def test_deepcopy_has_state_of_its_own(module: Any) -> None:
    own = copy.deepcopy(module)
    assert own.first.weight is own.inner.get_submodule("0").weight
    assert own.first.weight is not module.first.weight
    x = torch.randn(2, 4)
    before = module(x)
    with torch.no_grad():
        own.first.weight.zero_()
        own.scale.zero_()
    agree(module(x), before)
    agree(own(x), module.offset.expand(2, 4))


def test_pickling_and_shallow_copies_are_refused(module: Any) -> None:
    import pickle

    with pytest.raises(sf.NotSupported, match="not pickled"):
        pickle.dumps(module)
    with pytest.raises(sf.NotSupported, match="deepcopy"):
        copy.copy(module)


def test_the_mode_cannot_change(module: Any) -> None:
    assert module.eval() is module and not module.training
    with pytest.raises(sf.NotSupported, match="captured in eval mode, not train mode"):
        module.train()
    with pytest.raises(sf.NotSupported):
        module.inner.train()
    trained = sf.export(Tied().train(), (torch.randn(3, 4),)).module()
    assert trained.train() is trained and trained.training and trained.inner.training
    with pytest.raises(sf.NotSupported, match="captured in train mode, not eval mode"):
        trained.eval()


# -- code -----------------------------------------------------------------------------------------


def test_code_can_be_read(module: Any) -> None:
    compile(module.code, "code", "exec")
    assert "nn_linear(x, p_first['weight'], p_first['bias'])" in module.code
    assert "# test_runner.py:" in module.code
    assert "# p_first = module.first._parameters" in module.code


def test_tracebacks_show_the_generated_line() -> None:
    def f(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.index_select(x, 0, i)

    run = sf.export(f, (torch.ones(3), torch.tensor([0]))).module()
    with pytest.raises(IndexError) as caught:
        run(torch.ones(3), torch.tensor([7]))
    text = "".join(traceback.format_exception(caught.value))
    assert "torch_index_select(x, 0, i)" in text and "# test_runner.py:" in text


def test_nothing_is_left_behind() -> None:
    run = sf.export(torch.relu, (torch.ones(2),)).module()
    filename = run._plan.graphs[0].filename
    x = torch.full((2,), 3.0)
    gone = weakref.ref(x)
    with pytest.raises(sf.CallError):
        run(x.double())
    run(x)
    del x
    gc.collect()
    assert gone() is None
    assert filename in linecache.cache
    del run
    gc.collect()
    assert filename not in linecache.cache


def test_values_are_let_go_after_their_last_use() -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = x + 1
        return x

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.held: list[weakref.ref[torch.Tensor]] = []
            self.most = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            self.held.append(weakref.ref(out))
            self.most = max(self.most, sum(r() is not None for r in self.held))
            return out

    most = []
    for run in (chain, sf.export(chain, (torch.ones(4),)).module()):
        x = torch.ones(4)
        with torch.no_grad(), Count() as count:
            run(x)
        most.append(count.most)
    assert most[1] <= most[0] < 6


@pytest.mark.parametrize(
    "name", ["input", "len", "max", "float32", "refuse", "run", "self_", "list"]
)
def test_parameters_may_shadow_names_of_the_code(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def f({name}, *rest, s=2): return {name} * rest[0].shape[0] * s", namespace)
    dim = sf.Dim("n", min=1, max=9)
    # read the source of an exec'd function is not needed to capture it
    run = sf.export(
        namespace["f"],
        (torch.ones(3), torch.ones(4)),
        dynamic_shapes={name: {0: dim}, "rest": ({0: dim + 1},)},
    ).module()
    agree(run(torch.ones(5), torch.ones(6)), torch.full((5,), 12.0))
    with pytest.raises(sf.CallError, match="dim 0 is 7, must be n \\+ 1 = 6"):
        run(torch.ones(5), torch.ones(7))


# -- hooks ----------------------------------------------------------------------------------------


def test_hooks_run(program: sf.ExportedProgram) -> None:
    module = program.module()
    x = torch.randn(2, 4)
    plain = module(x)
    seen: list[Any] = []
    handles = [
        module.register_forward_pre_hook(lambda m, args: seen.append(("pre", len(args)))),
        module.register_forward_hook(lambda m, args, out: out + 1),
    ]
    agree(module(x), plain + 1)
    assert seen == [("pre", 1)]
    for handle in handles:
        handle.remove()
    agree(module(x), plain)


def test_global_hooks_run(module: Any) -> None:
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: seen.append(type(m).__name__)
    )
    try:
        module(torch.randn(2, 4))
    finally:
        handle.remove()
    assert seen == ["Tied"]


def test_hooks_see_the_call_as_it_was_made() -> None:
    def f(x: torch.Tensor, y: Any = None, *, z: float = 1.0) -> torch.Tensor:
        return x * z

    run = sf.export(f, (torch.ones(2),)).module()
    seen: list[Any] = []
    run.register_forward_pre_hook(lambda m, a, k: seen.append((len(a), dict(k))), with_kwargs=True)
    run(torch.ones(2))
    run(torch.ones(2), None, z=1.0)
    assert seen[0] == (1, {}) and seen[1][0] == 1


def test_an_own_forward_is_called(module: Any) -> None:
    own = copy.deepcopy(module)
    own.forward = lambda x: "patched"
    assert own(torch.ones(1, 4)) == "patched"
    del own.forward
    assert isinstance(own(torch.ones(1, 4)), torch.Tensor)


# -- mutation, grad mode, randomness --------------------------------------------------------------


def test_buffers_are_written_in_place() -> None:
    m = Tied().train()
    run = sf.export(m, (torch.randn(6, 4),)).module()
    own = copy.deepcopy(m)
    x = torch.randn(6, 4)
    agree(run(x), own(x))
    agree(run(x), own(x))
    agree(run.state_dict(), own.state_dict())
    assert int(m.norm.num_batches_tracked) == 0


def test_inputs_are_written_in_place() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        return x * 2

    run = sf.export(f, (torch.ones(3), torch.ones(3))).module()
    x = torch.zeros(3)
    agree(run(x, torch.ones(3)), torch.full((3,), 2.0))
    agree(x, torch.ones(3))
    base = torch.arange(6.0)
    run(base[:3], base[3:])
    agree(base[:3], torch.tensor([3.0, 5.0, 7.0]))
    for a, b in ((base[:3], base[1:4]), (x, x)):
        with pytest.raises(sf.CallError, match="x and y share memory"):
            run(a, b)


def test_inputs_that_are_only_read_may_share_memory() -> None:
    x = torch.ones(3)
    agree(sf.export(torch.add, (x, torch.ones(3))).module()(x, x), x + x)


def test_grad_mode_of_the_caller_comes_back() -> None:
    def f(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x[i]
        return y * x

    run = sf.export(f, (torch.ones(3), torch.tensor([0, 1, 2]))).module()
    x = torch.ones(3, requires_grad=True)
    run(x, torch.tensor([0, 0, 0])).sum().backward()
    agree(x.grad, torch.ones(3))
    with pytest.raises(IndexError):
        run(x, torch.tensor([9, 9, 9]))
    assert torch.is_grad_enabled()


def test_random_operators_draw_anew() -> None:
    m = nn.Dropout(0.5).train()
    run = sf.export(m, (torch.ones(50),)).module()
    x = torch.ones(50)
    torch.manual_seed(3)
    want = m(x)
    torch.manual_seed(3)
    agree(run(x), want)
    assert not torch.equal(run(x), run(x))


# -- results --------------------------------------------------------------------------------------


def test_results_have_their_structure() -> None:
    import collections

    Point = collections.namedtuple("Point", "x y")

    def f(x: torch.Tensor) -> Any:
        ordered = collections.OrderedDict(b=x, a=[x + 1, (), {}])
        return {"p": Point(x, None), "o": ordered, 3: (x * 2,), "s": "text", "n": float("nan")}

    x = torch.arange(3.0)
    want, got = f(x), sf.export(f, (x,)).module()(x)
    assert pytree.tree_structure(want) == pytree.tree_structure(got)
    assert (
        type(got["p"]) is Point and got["p"].x is x and got["s"] == "text" and got["n"] != got["n"]
    )
    agree(got["o"]["a"][0], x + 1)
    assert got["o"] is not sf.export(f, (x,)).module()(x)["o"]


def test_sizes_in_results_are_numbers() -> None:
    def f(x: torch.Tensor) -> Any:
        n = x.shape[0]
        return x.reshape(-1), n, n * 2 + 1, n // 2, max(n, 3) if n > 0 else n

    run = sf.export(f, (torch.ones(4, 2),), dynamic_shapes=({0: sf.Dim("n", min=4)},)).module()
    _, *sizes = run(torch.ones(7, 2))
    assert sizes == [7, 15, 3, 7] and all(type(s) is int for s in sizes)


# -- graphs of torch.export: mutations as outputs, subgraphs --------------------------------------


def from_torch(ep: Any, forward: Any, args: tuple[Any, ...]) -> Any:
    """The parts of a torch.export program that the runner asks for. Static sizes only."""

    def argument(arg: Any) -> Any:
        if type(arg).__name__ == "ConstantArgument":
            return ConstantArgument(arg.name, arg.value)
        return TensorArgument(arg.name)

    def spec(cls: Any, kinds: Any, s: Any) -> Any:
        rest = (s.persistent,) if cls is InputSpec else ()
        return cls(kinds[s.kind.name], argument(s.arg), s.target, *rest)

    signature = ep.graph_signature
    return SimpleNamespace(
        graph=ep.graph,
        graph_module=ep.graph_module,
        graph_signature=ExportGraphSignature(
            [spec(InputSpec, InputKind, s) for s in signature.input_specs],
            [spec(OutputSpec, OutputKind, s) for s in signature.output_specs],
        ),
        state_dict=ep.state_dict,
        constants=ep.constants,
        range_constraints={},
        guards=[],
        assumptions=(),
        call_spec=CallSpec.from_call(forward, args, {}),
        out_spec=ep.call_spec.out_spec,
        module_call_graph=[ModuleCallEntry("")],
        training=True,
        root_class="FromTorch",
        dim_names={},
        dialect="training",
    )


def torch_program(m: nn.Module, args: tuple[Any, ...], decompose: bool = False) -> Any:
    ep = torch.export.export(copy.deepcopy(m), copy.deepcopy(args), strict=False)
    ep = ep.run_decompositions() if decompose else ep
    return build_module(from_torch(ep, m.forward, args))


@pytest.mark.spec("2.98")
def test_buffer_mutations_are_copied_back() -> None:
    m = Tied().train()
    x = torch.randn(6, 4)
    run = torch_program(m, (x,), decompose=True)
    own = copy.deepcopy(m)
    torch.testing.assert_close(run(x), own(x))
    torch.testing.assert_close(run.norm.running_mean, own.norm.running_mean)
    assert int(run.norm.num_batches_tracked) == 1


@pytest.mark.spec("2.98")
def test_input_mutations_are_copied_back() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor, flag: bool) -> torch.Tensor:
            x.mul_(3)
            return x + 1

    x = torch.ones(3)
    run = torch_program(M(), (x, True), decompose=True)
    agree(run(x, True), torch.full((3,), 4.0))
    agree(x, torch.full((3,), 3.0))


def test_subgraphs_are_bound() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = x + 1
            return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))

    run = torch_program(M(), (torch.ones(3),))
    for x in (torch.ones(3), -torch.ones(3) * 4):
        agree(run(x), M()(x))


def test_unknown_inputs_are_refused() -> None:
    ep = torch.export.export(Tied(), (torch.ones(2, 4),))
    program = from_torch(ep, Tied().forward, (torch.ones(2, 4),))
    specs = program.graph_signature.input_specs
    used = next(i for i, n in enumerate(program.graph.nodes) if n.users)
    specs[used] = InputSpec(InputKind.TOKEN, specs[used].arg, None)
    with pytest.raises(sf.NotSupported, match="The TOKEN input .* is used as a value"):
        build_module(program)


def test_names_from_a_file_cannot_be_code(program: sf.ExportedProgram) -> None:
    """Names of nodes, submodules and lines only become identifiers, strings and comments."""
    evil = 'x"]; raise SystemExit  #\n\rraise SystemExit'
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.ones(2)
    y = graph.call_function(torch.ops.aten.add.Tensor, (x, x))
    y.name, y.meta["val"] = evil, torch.ones(2)
    y.meta["stack_trace"] = f'File "{evil}", line 3'
    z = graph.call_function(torch.ops.aten.mul.Tensor, (y, y))
    z.meta["val"] = torch.ones(2)
    z.meta["stack_trace"] = 'File "a\rraise SystemExit.py", line 4'
    graph.output((z,))
    fake = SimpleNamespace(
        graph=graph,
        dialect="training",
        graph_module=None,
        graph_signature=ExportGraphSignature(
            [InputSpec(InputKind.USER_INPUT, TensorArgument("x"), None)],
            [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument("mul"), None)],
        ),
        state_dict={},
        constants={},
        range_constraints={},
        guards=[],
        assumptions=(),
        call_spec=CallSpec.from_call(lambda x: None, (torch.ones(2),), {}),
        out_spec=pytree.tree_structure({evil: 1}),
        module_call_graph=[ModuleCallEntry(evil)],
        training=False,
        root_class="Evil",
        dim_names={"s0": evil},
    )
    agree(build_module(fake)(torch.ones(2))[evil], torch.full((2,), 4.0))
