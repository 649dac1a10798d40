"""Changing captured programs: observers, patterns, and parts as programs of their own."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.export.test_functional_fuzz import inputs, lines_of, module_of, runs, seen

import stillframe as sf
from stillframe.export.program import ExportedProgram

aten = torch.ops.aten
SEEDS = int(os.environ.get("STILLFRAME_FUZZ", "12"))
Transform = Callable[[ExportedProgram], ExportedProgram]


def training(program: ExportedProgram) -> ExportedProgram:
    return program


def functional(program: ExportedProgram) -> ExportedProgram:
    return program.run_decompositions({})


def core(program: ExportedProgram) -> ExportedProgram:
    return program.run_decompositions()


DIALECTS = [training, functional, core]


class Net(torch.nn.Module):
    """Writes in place, views, and has a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.second = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        y.relu_()
        z = self.norm(y) * torch.sigmoid(y)
        result: torch.Tensor = self.second(z.view(-1, 8))
        return result


def exported(module: Any, *args: Any, dims: Any = None) -> ExportedProgram:
    return sf.export(module, args, dynamic_shapes=dims)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def program(net: Net) -> ExportedProgram:
    return exported(net, torch.randn(5, 8), dims={"x": {0: sf.Dim("b", min=1)}})


def through_a_file(program: ExportedProgram, tmp_path: Path) -> ExportedProgram:
    sf.save(program, tmp_path / "p.still")
    return sf.load(tmp_path / "p.still")


# -- observers ------------------------------------------------------------------------------------


class MinMax(torch.nn.Module):
    """One buffer is copied into, the other one assigned."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(-float("inf")))

    def forward(self, x: torch.Tensor) -> None:
        self.low.copy_(torch.minimum(self.low, x.min()))
        self.high = torch.maximum(self.high, x.max())


class Rounded(torch.nn.Module):
    """Fake quantisation with a trained step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = torch.nn.Parameter(torch.tensor(0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x / self.step) * self.step


def is_module_output(path: str) -> Callable[[torch.fx.Node], bool]:
    """The last operator of a linear module, in every dialect."""
    names = ("linear", "addmm")

    def where(node: torch.fx.Node) -> bool:
        stack = [at for at, _ in node.meta.get("nn_module_stack", {}).values()]
        return stack[-1:] == [path] and any(n in str(node.target) for n in names)

    return where


@pytest.mark.parametrize("dialect", DIALECTS)
def test_min_and_max_are_those_of_forward_hooks(
    net: Net, program: ExportedProgram, dialect: Transform, tmp_path: Path
) -> None:
    program = dialect(program)
    before = str(program)
    observed = sf.insert_observer(program, is_module_output("second"), lambda node: MinMax())
    assert str(program) == before
    assert observed.dialect == program.dialect
    hooked = MinMax()
    net.second.register_forward_hook(lambda mod, args, result: hooked(result))
    for made in (observed, through_a_file(observed, tmp_path), observed.run_decompositions()):
        module = copy.deepcopy(made.module())  # of its own state
        hooked.__init__()  # type: ignore[misc]
        for size in (1, 7, 3):
            x = torch.randn(size, 8)
            torch.testing.assert_close(module(x), net(x))
        (low, high) = [v for k, v in module.state_dict().items() if k.startswith("observers.")]
        torch.testing.assert_close((low, high), (hooked.low, hooked.high))
    assert observed.state_dict["observers.linear_1.low" if dialect is not core else
                               "observers.addmm_1.low"] == float("inf")  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tensor_that_an_observer_returns_takes_the_place_of_the_value(
    net: Net, program: ExportedProgram, dialect: Transform
) -> None:
    quantised = sf.insert_observer(
        dialect(program), is_module_output("first"), lambda node: Rounded()
    )
    module, x = quantised.module(), torch.randn(6, 8)
    y = torch.relu(Rounded()(net.first(x)))
    want = net.second(net.norm(y) * torch.sigmoid(y))
    torch.testing.assert_close(module(x), want)
    module(x).sum().backward()
    steps = [p for name, p in module.named_parameters() if name.endswith("step")]
    assert len(steps) == 1 and steps[0].grad is not None


def test_names_stay_and_new_nodes_say_where_they_come_from(program: ExportedProgram) -> None:
    observed = sf.insert_observer(program, aten.sigmoid.default, lambda node: lambda x: x * 2)
    old = {node.name for node in program.graph.nodes}
    nodes = {node.name: node for node in observed.graph.nodes}
    assert old <= nodes.keys()
    (new,) = nodes.keys() - old
    sigmoid = nodes["sigmoid"]
    assert nodes[new].args[0] is sigmoid
    assert nodes[new].meta["nn_module_stack"] == sigmoid.meta["nn_module_stack"]
    assert nodes[new].meta["stack_trace"] == sigmoid.meta["stack_trace"]
    assert [str(s) for s in nodes[new].meta["val"].sizes] == ["s0", "8"]


def test_one_module_for_several_nodes_is_there_once(program: ExportedProgram) -> None:
    shared = MinMax()
    observed = sf.insert_observer(program, aten.linear.default, lambda node: shared)
    names = [name for name in observed.state_dict if name.startswith("observers.")]
    assert names == ["observers.linear.low", "observers.linear.high"]
    module, x = observed.module(), torch.randn(9, 8)
    result = module(x)
    first = program.module().first
    inner = F.linear(x, first.weight, first.bias)
    low = module.state_dict()["observers.linear.low"]
    torch.testing.assert_close(low, torch.minimum(inner.min(), result.min()))
    assert shared.low == float("inf")  # the caller's module is as it was


class Last(torch.nn.Module):
    """Returns its own memory."""

    value: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.value.copy_(x)
        return self.value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_value_that_is_memory_of_an_observer_is_copied(dialect: Transform) -> None:
    def forward(x: torch.Tensor) -> Any:
        y = torch.sin(x)
        z = torch.cos(x)
        return y + z, y

    last = Last()
    program = dialect(exported(forward, torch.randn(3)))
    observed = sf.insert_observer(program, {"sin", "cos"}, lambda node: last)
    module, x = observed.module(), torch.randn(3)
    first = module(x)
    want = forward(x)
    module(torch.randn(3))
    torch.testing.assert_close(first, want)


def test_inputs_can_be_observed_and_observers_inserted_twice(program: ExportedProgram) -> None:
    once = sf.insert_observer(program, {"x"}, lambda node: MinMax())
    twice = sf.insert_observer(once, "x", lambda node: MinMax())
    module, x = twice.module(), torch.randn(4, 8)
    module(x)
    state = module.state_dict()
    assert state["observers.x.low"] == x.min() and state["observers.x_1.high"] == x.max()


def test_none_leaves_a_node_alone(program: ExportedProgram) -> None:
    same = sf.insert_observer(program, aten.linear.default, lambda node: None)
    assert str(same) == str(program)


def test_what_observers_may_not_do(program: ExportedProgram) -> None:
    with pytest.raises(sf.NotSupported, match="writes a value of the program"):
        sf.insert_observer(program, aten.sigmoid.default, lambda node: lambda x: x.mul_(2))
    with pytest.raises(sf.NotSupported, match=r"writes a value of the program"):
        sf.insert_observer(core(program), "sigmoid", lambda node: lambda x: x.mul_(2))
    with pytest.raises(sf.NotSupported, match=r"sigmoid was f32\[b, 8\] .* f64\[b, 8\]"):
        sf.insert_observer(program, aten.sigmoid.default, lambda node: lambda x: x.double())
    with pytest.raises(sf.NotSupported, match=r"f32\[b, 8\] .* would be f32\[b\]"):
        sf.insert_observer(program, aten.sigmoid.default, lambda node: lambda x: x.sum(1))
    with pytest.raises(sf.InvalidInput, match="returned str"):
        sf.insert_observer(program, aten.sigmoid.default, lambda node: lambda x: "seen")
    with pytest.raises(sf.InvalidInput, match="did you mean .*sigmoid"):
        sf.insert_observer(program, "sigmoyd", lambda node: MinMax())
    with pytest.raises(sf.InvalidInput, match="must choose nodes"):
        sf.insert_observer(program, aten.linear, lambda node: MinMax())
    with pytest.raises(sf.InvalidInput, match="No node was chosen"):
        sf.insert_observer(program, aten.tanh.default, lambda node: MinMax())


class Counts(torch.nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> None:
        self.calls += 1


def test_an_observer_that_counts_in_python_is_refused(program: ExportedProgram) -> None:
    with pytest.raises(sf.SideEffectError, match="calls"):
        sf.insert_observer(program, aten.sigmoid.default, lambda node: Counts())


def test_a_node_of_several_tensors_cannot_be_observed() -> None:
    program = exported(lambda x: x.chunk(2), torch.randn(4))
    with pytest.raises(sf.InvalidInput, match="chunk does not return one tensor"):
        sf.insert_observer(program, aten.chunk.default, lambda node: MinMax())
    halves = sf.insert_observer(
        program, lambda node: "getitem" in node.name, lambda node: lambda x: x * 10
    )
    x = torch.randn(4)
    torch.testing.assert_close(halves.module()(x), tuple((x * 10).chunk(2)))


def test_programs_with_branches_and_numbers_from_data_are_copied(tmp_path: Path) -> None:
    def forward(x: torch.Tensor) -> Any:
        found = x.nonzero()
        y = torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))
        return found * 2, y * found.shape[0], x.max().item()

    program = exported(forward, torch.randn(6), dims={"x": {0: sf.Dim("n", min=2)}})
    observed = sf.insert_observer(
        program, lambda n: n.target is aten.nonzero.default, lambda node: lambda v: v + 0
    )
    for made in (observed, through_a_file(observed, tmp_path)):
        for x in (torch.randn(5), torch.zeros(3)):
            torch.testing.assert_close(made.module()(x), forward(x))


def test_joint_graphs_are_not_edited(net: Net, program: ExportedProgram) -> None:
    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x).sum()
            return result

    joint = exported(Loss(), torch.randn(5, 8)).joint(loss_index=0)
    with pytest.raises(sf.NotSupported, match="joint graph"):
        sf.insert_observer(joint, "x", lambda node: MinMax())


# -- memory ---------------------------------------------------------------------------------------


def test_a_value_with_other_strides_is_followed() -> None:
    program = exported(lambda x: torch.relu(x).t().reshape(-1) + 1, torch.randn(3, 4))
    column = sf.insert_observer(
        program, aten.relu.default, lambda node: lambda x: x.t().contiguous().t()
    )
    (t,) = [n for n in column.graph.nodes if n.target is aten.t.default and n.name == "t"]
    assert t.meta["val"].strides == (3, 1)
    x = torch.randn(3, 4)
    torch.testing.assert_close(column.module()(x), torch.relu(x).t().reshape(-1) + 1)


def test_a_view_that_cannot_be_of_the_new_value_is_refused() -> None:
    program = exported(lambda x: torch.relu(x).view(-1), torch.randn(3, 4))
    with pytest.raises(sf.NotSupported, match=r"node view \(aten.view.default\) does not work"):
        sf.insert_observer(
            program, aten.relu.default, lambda node: lambda x: x.t().contiguous().t()
        )


def test_a_value_that_becomes_a_view_is_copied_where_it_is_written() -> None:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * 1
        y.add_(5)
        return y, x + 0

    program = exported(forward, torch.randn(4))
    same = sf.replace_pattern(program, lambda x: x * 1, lambda x: x)
    x = torch.randn(4)
    want = forward(x)
    torch.testing.assert_close(same.module()(x), want)
    plain = exported(lambda x: torch.relu(x * 1), torch.randn(4))
    removed = sf.replace_pattern(plain, lambda x: x * 1, lambda x: x)
    assert [n.name for n in removed.graph.nodes if n.op == "call_function"] == ["relu"]


def test_a_result_that_would_be_the_input_itself_is_a_copy() -> None:
    program = exported(lambda x: x * 1, torch.randn(4))
    same = sf.replace_pattern(program, lambda x: x * 1, lambda x: x)
    x = torch.randn(4)
    assert same.module()(x).data_ptr() != x.data_ptr()


def test_a_view_of_something_that_is_written_later_is_copied() -> None:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.sin(x)
        z = y * 1
        y.add_(5)
        return z + 0, y

    program = exported(forward, torch.randn(4))
    same = sf.replace_pattern(program, lambda x: x * 1, lambda x: x.view(4))
    x = torch.randn(4)
    torch.testing.assert_close(same.module()(x), forward(x))


def test_an_input_that_is_written_cannot_be_replaced_and_a_weight_can(net: Net) -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x * self.count

    program = exported(Counting(), torch.randn(3))
    with pytest.raises(sf.NotSupported, match="b_count cannot be replaced: add_"):
        sf.insert_observer(program, "b_count", lambda node: lambda x: x * 2)
    program = exported(net, torch.randn(3, 8))
    rounded = sf.insert_observer(program, "p_first_weight", lambda node: Rounded())
    x = torch.randn(3, 8)
    with torch.no_grad():
        net.first.weight.copy_(Rounded()(net.first.weight))
        torch.testing.assert_close(rounded.module()(x), net(x))


def test_a_view_that_shows_a_later_write_cannot_be_replaced_by_a_copy() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        v = y.view(-1)
        y.mul_(2)
        return v + 0

    program = exported(forward, torch.randn(2, 2))
    with pytest.raises(sf.NotSupported, match=r"view cannot be replaced: mul_ .* writes its memo"):
        sf.replace_pattern(program, lambda y: y.view(-1), lambda y: y.reshape(-1).clone())
    x = torch.randn(2, 2)
    replaced = sf.replace_pattern(
        functional(program), lambda y: y + 1, lambda y: torch.add(y, 1, alpha=1)
    )
    torch.testing.assert_close(replaced.module()(x), forward(x))


def test_operators_that_count_in_memory_keep_their_operand() -> None:
    program = exported(lambda x: torch.sin(x).as_strided((2, 2), (1, 2)), torch.randn(3, 4))
    with pytest.raises(sf.NotSupported, match="as_strided .* counts in the memory"):
        sf.insert_observer(program, "sin", lambda node: lambda x: x.t().contiguous().t())
    same = sf.insert_observer(program, "sin", lambda node: lambda x: x.clone())
    x = torch.randn(3, 4)
    torch.testing.assert_close(same.module()(x), program.module()(x))


def test_a_view_that_would_become_a_copy_and_is_written_is_refused() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = torch.sin(x)
        flat = y.flatten()
        y.mul_(2)
        return flat + 1

    program = exported(forward, torch.randn(3, 4))
    with pytest.raises(sf.NotSupported, match="flatten .* is written by mul_"):
        sf.insert_observer(program, "sin", lambda node: lambda x: x.t().contiguous().t())
    edited = sf.insert_observer(
        functional(program), "sin", lambda node: lambda x: x.t().contiguous().t()
    )
    x = torch.randn(3, 4)
    torch.testing.assert_close(edited.module()(x), forward(x))


IDENTITIES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda v: v.clone(),
    lambda v: v[...],
    lambda v: v.t().contiguous().t() if v.dim() == 2 else v.view(v.shape),
]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_programs_keep_their_results_when_values_are_copied_or_viewed(seed: int) -> None:
    """Wherever a copy or a view takes the place of a value, writes show where they did."""
    rng = random.Random(seed)
    lines = lines_of(rng)
    while not runs(lines):
        lines = lines_of(rng)
    module = module_of(lines)
    expected = seen(copy.deepcopy(module))
    try:
        program = sf.export(module, inputs())
    except sf.NotSupported:
        return
    for node in program.graph.nodes:
        if isinstance(node.meta["val"], torch.Tensor) and node.op != "output":
            identity = rng.choice(IDENTITIES)
            try:
                edited = sf.insert_observer(program, node.name, lambda _, run=identity: run)
            except sf.NotSupported:
                continue
            actual = seen(copy.deepcopy(edited.module()))
            text = "\n".join(["", f"at {node.name}", *lines])
            for a, e in zip(actual, expected, strict=True):
                assert a.shape == e.shape and torch.allclose(a, e, equal_nan=True), text


# -- patterns -------------------------------------------------------------------------------------


def rms(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def test_a_fused_operator_in_place_of_its_parts(tmp_path: Path) -> None:
    def forward(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return rms(torch.tanh(rms(x)) @ w)

    args = (torch.randn(5, 8), torch.randn(8, 6))
    program = exported(forward, *args, dims={"x": {0: sf.Dim("b")}, "w": None})
    matches = sf.find_pattern(program, rms)
    assert [m.outputs for m in matches] == [("mul",), ("mul_1",)]
    assert matches[0].nodes == ("pow_1", "mean", "add", "rsqrt", "mul")
    assert matches[0].inputs == ("x",)
    fused = sf.replace_pattern(program, rms, lambda x: F.rms_norm(x, (x.size(-1),), eps=1e-6))
    for made in (fused, through_a_file(fused, tmp_path), fused.run_decompositions()):
        x = torch.randn(3, 8)
        torch.testing.assert_close(made.module()(x, args[1]), forward(x, args[1]))
    targets = [n.target for n in fused.graph.nodes if n.op == "call_function"]
    assert targets == [
        aten.rms_norm.default, aten.tanh.default, aten.matmul.default, aten.rms_norm.default
    ]  # fmt: skip
    one = sf.replace_pattern(program, rms, lambda x: F.rms_norm(x, (x.size(-1),)), where="mul_1")
    assert [m.outputs for m in sf.find_pattern(one, rms)] == [("mul",)]


def test_numbers_and_settings_must_be_equal() -> None:
    program = exported(lambda x: torch.softmax(x * 2, -1) + 1e-6, torch.randn(3, 4))
    assert sf.find_pattern(program, lambda x: x * 2)
    assert not sf.find_pattern(program, lambda x: x * 2.0)
    assert not sf.find_pattern(program, lambda x: x * 3)
    assert sf.find_pattern(program, lambda x: torch.softmax(x, -1))
    assert not sf.find_pattern(program, lambda x: torch.softmax(x, 1))
    assert not sf.find_pattern(program, lambda x: torch.softmax(x, -1, dtype=torch.float32))


def test_sizes_in_a_pattern_are_those_of_the_program() -> None:
    def flat(x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0] * x.shape[1], 4)

    program = exported(
        lambda x: flat(torch.relu(x)) + 1,
        torch.randn(2, 3, 4),
        dims={"x": {0: sf.Dim("b", min=2), 1: sf.Dim("s", min=2)}},
    )
    (match,) = sf.find_pattern(program, lambda x: flat(torch.relu(x)))
    assert match.inputs == ("x",)
    (match,) = sf.find_pattern(program, flat)
    assert match.inputs == ("relu",)
    assert not sf.find_pattern(program, lambda x: x.view(6, 4))
    flattened = sf.replace_pattern(program, flat, lambda x: x.flatten(0, 1))
    x = torch.randn(5, 2, 4)
    torch.testing.assert_close(flattened.module()(x), torch.relu(x).view(10, 4) + 1)


def test_a_pattern_of_several_results() -> None:
    def projections(x: Any, q: Any, k: Any) -> Any:
        return F.linear(x, q), F.linear(x, k)

    def forward(x: Any, q: Any, k: Any) -> Any:
        a = F.linear(x, q).view(-1)
        b = F.linear(x, k)
        return a, b

    def at_once(x: Any, q: Any, k: Any) -> Any:
        both = F.linear(x, torch.cat([q, k]))
        a, b = both.split([q.shape[0], k.shape[0]], -1)
        return a.contiguous(), b.contiguous()

    args = torch.randn(5, 8), torch.randn(3, 8), torch.randn(4, 8)
    program = exported(forward, *args)
    (match, *_) = sf.find_pattern(program, projections)
    assert match.outputs == ("linear", "linear_1")
    merged = sf.replace_pattern(program, projections, at_once, where="linear")
    torch.testing.assert_close(merged.module()(*args), forward(*args))
    assert sum(n.target is aten.linear.default for n in merged.graph.nodes) == 1


def test_elements_of_a_container_are_results() -> None:
    def halves(x: torch.Tensor) -> Any:
        a, b = x.chunk(2, -1)
        return a, b

    def forward(x: torch.Tensor) -> torch.Tensor:
        a, b = torch.sin(x).chunk(2, -1)
        return a * torch.sigmoid(b)

    program = exported(forward, torch.randn(3, 8))
    gated = sf.replace_pattern(program, lambda x: halves(x)[0] * torch.sigmoid(halves(x)[1]), F.glu,
                               missing_ok=True)  # fmt: skip
    assert gated is program  # two chunks in the pattern, one in the program

    def glu(x: torch.Tensor) -> torch.Tensor:
        a, b = halves(x)
        return a * torch.sigmoid(b)

    gated = sf.replace_pattern(program, glu, lambda x: F.glu(x))
    x = torch.randn(3, 8)
    torch.testing.assert_close(gated.module()(x), forward(x))
    sliced = sf.replace_pattern(program, halves, lambda x: (x[:, :4], x[:, 4:]))
    torch.testing.assert_close(sliced.module()(x), forward(x))


def test_values_that_are_used_elsewhere_are_not_taken_away() -> None:
    def forward(x: torch.Tensor) -> Any:
        y = torch.sin(x)
        return torch.cos(y), y

    program = exported(forward, torch.randn(3))
    assert not sf.find_pattern(program, lambda x: torch.cos(torch.sin(x)))
    assert sf.find_pattern(program, lambda x: torch.cos(x))


def test_the_first_of_overlapping_places_is_taken() -> None:
    program = exported(lambda x: torch.sin(torch.sin(torch.sin(x))), torch.randn(3))
    (match,) = sf.find_pattern(program, lambda x: torch.sin(torch.sin(x)))
    assert match.nodes == ("sin", "sin_1")


def test_operands_in_any_order() -> None:
    program = exported(lambda x, y: torch.sin(x) + torch.cos(y), torch.randn(3), torch.randn(3))

    def swapped(x: Any, y: Any) -> Any:
        return torch.cos(y) + torch.sin(x)

    assert not sf.find_pattern(program, swapped)
    (match,) = sf.find_pattern(program, swapped, commutative=True)
    assert match.inputs == ("x", "y")


def test_a_tensor_that_a_pattern_closes_over_is_state_with_its_values() -> None:
    weight = torch.tensor([1.0, 2.0])

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
            self.shift = torch.nn.Parameter(torch.tensor([1.0, 3.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + x * self.shift

    program = exported(Scaled(), torch.randn(2))
    (match,) = sf.find_pattern(program, lambda x: x * weight)
    assert match.outputs == ("mul",)
    other = torch.tensor([5.0, 5.0])
    replaced = sf.replace_pattern(program, lambda x: x * weight, lambda x: x * other)
    assert list(replaced.constants) == ["lifted_tensor_0"]
    x = torch.randn(2)
    torch.testing.assert_close(replaced.module()(x), x * 5 + x * torch.tensor([1.0, 3.0]))
    own = program.state_dict["shift"]
    tied = sf.replace_pattern(program, lambda x: x * weight, lambda x: x * own)
    assert not tied.constants
    torch.testing.assert_close(tied.module()(x), 2 * x * torch.tensor([1.0, 3.0]))


def test_a_module_as_the_replacement_brings_its_state(
    net: Net, program: ExportedProgram, tmp_path: Path
) -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.full((8,), 3.0))
            self.register_buffer("offset", torch.ones(8), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x) * self.factor + self.offset

    for dialect in DIALECTS:
        replaced = sf.replace_pattern(dialect(program), lambda x: torch.sigmoid(x), Scale())
        assert "replacement.factor" in replaced.state_dict
        assert "replacement.offset" in replaced.constants
        x = torch.randn(4, 8)
        y = torch.relu(net.first(x))
        want = net.second(net.norm(y) * (torch.sigmoid(y) * 3 + 1))
        torch.testing.assert_close(through_a_file(replaced, tmp_path).module()(x), want)
        module = replaced.module()
        module(x).sum().backward()
        assert dict(module.named_parameters())["replacement.factor"].grad is not None


def test_operators_that_write_are_matched_when_nobody_else_sees_it(net: Net) -> None:
    program = exported(net, torch.randn(5, 8))
    (match,) = sf.find_pattern(program, lambda x, w, b: F.linear(x, w, b).relu_())
    assert match.nodes == ("linear", "relu_")
    plain = sf.replace_pattern(
        program,
        lambda x, w, b: F.linear(x, w, b).relu_(),
        lambda x, w, b: F.relu(F.linear(x, w, b)),
    )
    x = torch.randn(5, 8)
    torch.testing.assert_close(plain.module()(x), net(x))
    assert not sf.find_pattern(program, lambda x: x.relu_())  # linear's result is written too


def test_nothing_is_moved_across_a_write() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x * 3
        s = torch.sin(y)
        y.add_(1)
        return torch.cos(s) + y

    program = exported(forward, torch.randn(3))
    assert not sf.find_pattern(program, lambda y: torch.cos(torch.sin(y)))
    assert sf.find_pattern(functional(program), lambda y: torch.cos(torch.sin(y)))


def test_a_functional_program_stays_functional(net: Net, program: ExportedProgram) -> None:
    def in_place(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.sigmoid_()
        return F.silu(y)

    for dialect in (functional, core):
        replaced = sf.replace_pattern(dialect(program), lambda x: torch.sigmoid(x), in_place)
        assert replaced.dialect == dialect(program).dialect
        x = torch.randn(4, 8)
        y = torch.relu(net.first(x))
        want = net.second(net.norm(y) * F.silu(torch.sigmoid(y)))
        torch.testing.assert_close(replaced.module()(x), want)


def test_what_patterns_cannot_be(program: ExportedProgram) -> None:
    def nothing(x: torch.Tensor) -> torch.Tensor:
        return x

    with pytest.raises(sf.InvalidInput, match="The pattern is nowhere"):
        sf.replace_pattern(program, lambda x: torch.tanh(x), nothing)
    missing = sf.replace_pattern(program, lambda x: torch.tanh(x), nothing, missing_ok=True)
    assert missing is program
    with pytest.raises(sf.NotSupported, match="must return tensors that it computes"):
        sf.find_pattern(program, lambda x: (torch.sigmoid(x), x))
    with pytest.raises(sf.NotSupported, match="does not use its parameter 1"):
        sf.find_pattern(program, lambda x, y: torch.sigmoid(x))
    with pytest.raises(sf.InvalidInput, match="takes 1 tensors and the replacement 2"):
        sf.replace_pattern(program, lambda x: torch.sigmoid(x), lambda x, y: x)
    with pytest.raises(sf.InvalidInput, match="is no plain parameter"):
        sf.find_pattern(program, lambda *x: torch.sigmoid(x[0]))
    with pytest.raises(sf.InvalidInput, match="returned 2 values for the 1"):
        sf.replace_pattern(program, lambda x: torch.sigmoid(x), lambda x: (x, x))

    def without_gradients(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.sigmoid(x)

    with pytest.raises(sf.NotSupported, match="set_grad_enabled"):
        sf.find_pattern(program, without_gradients)
    assert torch.is_grad_enabled()


def test_operators_that_take_functions_are_not_looked_for() -> None:
    def either(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))

    program = exported(either, torch.randn(3))
    with pytest.raises(sf.NotSupported, match="operator that takes functions"):
        sf.find_pattern(program, either)


def test_a_pattern_that_fails_everywhere_says_how(program: ExportedProgram) -> None:
    with pytest.raises(sf.InvalidInput, match="IndexError|out of range"):
        sf.replace_pattern(program, lambda x: torch.tanh(x[0, 0, 0, 0, 0]), lambda x: x)


# -- parts ----------------------------------------------------------------------------------------


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        z = self.norm(self.conv(x)).relu_()
        return z * y, z.mean((2, 3))


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Block()
        self.two = Block()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        a, m = self.one(x, y)
        b, n = self.two(a + 1, y)
        c, o = self.two(b + 2, y)
        return c, m + n + o


@pytest.fixture(scope="module")
def twice() -> tuple[Twice, ExportedProgram]:
    torch.manual_seed(0)
    module = Twice().eval()
    dims = {
        "x": {0: sf.Dim("b", min=1), 2: sf.Dim("h", min=32, max=99), 3: sf.Dim("w", min=32)},
        "y": {0: sf.Dim("b", min=1)},
    }
    return module, exported(module, torch.randn(5, 3, 40, 44), torch.randn(5, 1, 1, 1), dims=dims)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("path", "call"), [("one", 0), ("two", 0), ("two", 1)])
def test_a_part_is_the_module(
    twice: tuple[Twice, ExportedProgram], dialect: Transform, path: str, call: int, tmp_path: Path
) -> None:
    module, program = twice
    before = str(program)
    part = sf.extract(dialect(program), path, call=call)
    assert str(program) == before
    assert all(name.startswith(f"{path}.") for name in part.state_dict)
    assert part.root_class == "Block"
    size = (23, 17) if call else (37, 33)
    args = torch.randn(4, 3, *size), torch.randn(4, 1, 1, 1)
    want = getattr(module, path)(*args)
    for made in (part, through_a_file(part, tmp_path), part.run_decompositions()):
        torch.testing.assert_close(made.module()(*args), want)


def test_sizes_that_no_input_tells_are_dims_of_their_own(
    twice: tuple[Twice, ExportedProgram],
) -> None:
    part = sf.extract(twice[1], "two")
    text = str(part)
    assert "add: f32[b, 3, s3, s4]" in text
    assert "s3: 15..49" in text
    with pytest.raises(sf.CallError, match="outside 15..49"):
        part.module()(torch.randn(1, 3, 50, 20), torch.randn(1, 1, 1, 1))


def test_state_that_a_part_writes_is_written() -> None:
    module = Twice().train()
    args = torch.randn(5, 3, 40, 44), torch.randn(5, 1, 1, 1)
    program = exported(module, *args)
    for dialect in (training, functional):
        part = sf.extract(dialect(program), "one")
        fresh, module_of_part = copy.deepcopy(module.one), copy.deepcopy(part.module())
        torch.testing.assert_close(module_of_part(*args), fresh(*args))
        state = module_of_part.state_dict()
        torch.testing.assert_close(state["one.norm.running_mean"], fresh.norm.running_mean)
        assert state["one.norm.num_batches_tracked"] == 1
    second = sf.extract(program, "two", call=1)
    assert second.graph_signature.user_outputs == ("mul_2", "mean_2")


def test_numbers_from_outside_become_inputs() -> None:
    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            return x * n

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(y, x.shape[0] * 2)
            return result

    program = exported(
        Whole(), torch.randn(5), torch.randn(3), dims={"x": {0: sf.Dim("a")}, "y": None}
    )
    part = sf.extract(program, "head")
    y = torch.randn(3)
    torch.testing.assert_close(part.module()(y, 8), y * 8)


def test_checks_of_a_part_are_kept() -> None:
    class Checked(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = x.max().item()
            torch._check(n < 10)
            return x + n

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Checked()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x * 2) * 3
            return result

    program = exported(Whole(), torch.tensor([1, 2]))
    part = sf.extract(program, "inner").module()
    torch.testing.assert_close(part(torch.tensor([3, 4])), torch.tensor([7, 8]))
    with pytest.raises(RuntimeError):
        part(torch.tensor([3, 40]))


def test_what_a_part_may_not_be(twice: tuple[Twice, ExportedProgram]) -> None:
    program = twice[1]
    with pytest.raises(sf.InvalidInput, match="no module 'to'.*\n.*two"):
        sf.extract(program, "to")
    with pytest.raises(sf.InvalidInput, match="no module 'one.convv'.*\n.*one.conv"):
        sf.extract(program, "one.convv")
    with pytest.raises(sf.InvalidInput, match="'two' is called 2 times, so there is no call 2"):
        sf.extract(program, "two", call=2)
    with pytest.raises(sf.InvalidInput, match="'one' is called once"):
        sf.extract(program, "one", call=-1)
    with pytest.raises(sf.InvalidInput, match="no module ''"):
        sf.extract(program, "")


def test_edits_compose(twice: tuple[Twice, ExportedProgram]) -> None:
    module, program = twice
    part = sf.extract(program, "two")
    smooth = sf.replace_pattern(
        part, lambda x, w, b: F.conv2d(x, w, b, stride=2), lambda x, w, b: F.conv2d(x, w, b, 2) * 2
    )
    observed = sf.insert_observer(smooth, aten.mul.Tensor, lambda node: MinMax())
    args = torch.randn(4, 3, 21, 17), torch.randn(4, 1, 1, 1)
    result = observed.module()(*args)
    z = module.two.norm(module.two.conv(args[0]) * 2).relu()
    torch.testing.assert_close(result, (z * args[1], z.mean((2, 3))))
