"""Functional programs: outputs and side effects equal those of the module, call after call."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.export.mutation_programs import PROGRAMS, Program
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.trace import operators

FORMS = {
    "training": lambda program: program,
    "functional": lambda program: program.run_decompositions({}),
    "core": lambda program: program.run_decompositions(),
}


def as_module(made: Any) -> nn.Module:
    if isinstance(made, nn.Module):
        return made

    class Wrapped(nn.Module):
        def forward(self, *args):
            return made(*args)

    return Wrapped()


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of a module by name, plain attributes too."""
    found = dict(module.named_parameters()) | dict(module.named_buffers())
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                found[f"{path}.{name}" if path else name] = value
    return found


def two_calls(module: nn.Module, program: Program) -> list[Any]:
    """Outputs, inputs and state after each of two calls, copied."""
    seen: list[Any] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        args = program.inputs()
        result = module(*args)
        leaves = pytree.tree_leaves((result, args))
        seen.append([v.detach().clone() if isinstance(v, torch.Tensor) else v for v in leaves])
        state = state_of(module)
        seen.append({k: state[k].detach().clone() for k in sorted(state)})
    return seen


def assert_same(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    elif isinstance(expected, torch.Tensor):
        assert actual.dtype is expected.dtype
        torch.testing.assert_close(actual, expected)
    else:
        assert actual == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
@pytest.mark.spec("2.54")
def test_outputs_and_side_effects(program: Program, form: str) -> None:
    module = as_module(program.make())
    exported = FORMS[form](sf.export(module, program.inputs()))
    if form != "training":
        assert not [n for n in exported.graph.nodes if operators.writes(n)]
    expected = two_calls(copy.deepcopy(module), program)
    assert_same(two_calls(exported.module(), program), expected)


def test_the_table_is_large_enough() -> None:
    assert len(PROGRAMS) >= 60
    assert len({p.name for p in PROGRAMS}) == len(PROGRAMS)


def other_layout(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values, with the dims in the other order in memory."""
    return tuple(
        a.t().contiguous().t() if isinstance(a, torch.Tensor) and a.dim() == 2 else a for a in args
    )


@pytest.mark.parametrize("form", ["functional", "core"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_inputs_laid_out_otherwise(program: Program, form: str) -> None:
    """The same numbers as eager, or an error: whether a reshape is a view depends on layout."""
    if program.name in RANDOM:
        return
    module = as_module(program.make())
    exported = FORMS[form](sf.export(module, program.inputs()))
    strange = Program(program.name, program.make, lambda: other_layout(program.inputs()))
    try:
        expected = two_calls(copy.deepcopy(module), strange)
    except RuntimeError as e:
        assert "view" in str(e)
        return
    try:
        actual = two_calls(exported.module(), strange)
    except RuntimeError as e:
        assert program.name in LAYOUT_MATTERS and "stride" in str(e)
        return
    assert program.name not in LAYOUT_MATTERS
    assert_same(actual, expected)


# Programs that write what reshape or contiguous gave a view of: they check the layout.
LAYOUT_MATTERS = {
    "write_through_flatten",
    "write_through_reshape",
    "write_through_contiguous",
    "write_contiguous_input",
    "reshape_then_write",
    "as_strided_of_fresh",
}
# The same draw in another layout gives other numbers.
RANDOM = {"Dropout", "RandomInPlace", "Noise"}


def test_shared_state_is_refused() -> None:
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            memory = torch.zeros(6)
            self.register_buffer("a", memory[:4])
            self.register_buffer("b", memory[2:])

        def forward(self, x):
            self.a.add_(x)
            return self.b + x

    program = sf.export(Shared(), (torch.ones(4),))
    with pytest.raises(sf.NotSupported, match="shares memory"):
        program.run_decompositions()


def test_write_to_an_expanded_view_is_refused() -> None:
    def f(x):
        y = x + 0
        y[:, None].expand(3, 2, 4)[:, 0].add_(1)
        return y

    program = sf.export(as_module(f), (torch.ones(3, 4),))
    with pytest.raises(sf.NotSupported, match="made by expand") as caught:
        program.run_decompositions()
    assert "expand(3, 2, 4)" in str(caught.value)


def test_as_strided_over_a_written_input_is_refused() -> None:
    def f(x):
        v = x.as_strided((2,), (1,))
        x.add_(1)
        return v

    program = sf.export(as_module(f), (torch.ones(3, 4),))
    with pytest.raises(sf.NotSupported, match="as_strided"):
        program.run_decompositions()


def test_overlapping_inputs_are_refused_at_the_call() -> None:
    def f(x, y):
        x.add_(1)
        return y * 2

    module = sf.export(as_module(f), (torch.ones(3), torch.ones(3))).run_decompositions().module()
    same = torch.ones(3)
    with pytest.raises(sf.CallError, match="share memory"):
        module(same, same)


@pytest.mark.spec("2.55")
def test_an_input_or_a_view_of_it_may_be_returned() -> None:
    program = sf.export(as_module(lambda x: (x, x[0])), (torch.ones(3, 4),)).run_decompositions()
    x = torch.randn(3, 4)
    same, row = program.module()(x)
    assert same is x
    assert row.data_ptr() == x.data_ptr()


def test_an_output_does_not_show_the_memory_that_is_written_back() -> None:
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(3))

        def forward(self, x):
            before = self.last + 0
            self.last.copy_(x)
            return before

    module = sf.export(Keeps(), (torch.ones(3),)).run_decompositions().module()
    assert torch.equal(module(torch.ones(3)), torch.zeros(3))
    assert torch.equal(module(torch.zeros(3)), torch.ones(3))


@pytest.mark.spec("2.54", "2.63", "2.64")
def test_signature_of_mutations() -> None:
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(4))
            self.scale = nn.Parameter(torch.ones(4), requires_grad=False)

        def forward(self, x, y):
            y.add_(1)
            self.total.add_(y)
            self.scale.mul_(2)
            return y, self.total * self.scale

    signature = sf.export(Writes(), (torch.ones(4), torch.ones(4))).run_decompositions()
    specs = signature.graph_signature.output_specs
    kinds = sf.OutputKind
    assert [(s.kind, s.target) for s in specs] == [
        (kinds.PARAMETER_MUTATION, "scale"),
        (kinds.BUFFER_MUTATION, "total"),
        (kinds.USER_INPUT_MUTATION, "y"),
        (kinds.USER_OUTPUT, None),
        (kinds.USER_OUTPUT, None),
    ]
    # one node is both the new value of the input and an output of the user
    assert specs[2].arg.name == specs[3].arg.name
    assert dict(signature.graph_signature.buffers_to_mutate) == {specs[1].arg.name: "total"}
    assert dict(signature.graph_signature.parameters_to_mutate) == {specs[0].arg.name: "scale"}
    assert dict(signature.graph_signature.user_inputs_to_mutate) == {specs[2].arg.name: "y"}


# -- gradients ------------------------------------------------------------------------------------


def gradients(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_(True)
    result = module(x)
    parameters = [p for p in module.parameters() if p.requires_grad]
    torch.manual_seed(0)
    weights = torch.rand_like(result)
    return list(torch.autograd.grad((result * weights).sum(), [x, *parameters]))


class Regions(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1, 4))

    def forward(self, x):
        y = x * self.weight
        with torch.no_grad():
            scale = y.abs().max()
        y = y / scale
        y[:, 0] = y[:, 1].detach() * 2
        y[1].mul_(self.weight)
        return y.t().reshape(-1)


@pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
@pytest.mark.spec("2.58")
def test_gradients_are_those_of_eager(table: Any) -> None:
    module = Regions()
    program = sf.export(module, (torch.ones(3, 4, requires_grad=True),)).run_decompositions(table)
    x = torch.rand(3, 4)
    for actual, expected in zip(gradients(program.module(), x), gradients(module, x), strict=True):
        torch.testing.assert_close(actual, expected)


def test_grad_mode_is_dropped_where_nothing_requires_grad() -> None:
    def f(x):
        with torch.no_grad():
            y = x * 2
        return y + 1

    program = sf.export(as_module(f), (torch.ones(3),)).run_decompositions()
    assert [n.target for n in program.graph.nodes if n.op == "call_function"] == [
        torch.ops.aten.mul.Tensor,
        torch.ops.aten.add.Tensor,
    ]


def test_a_write_that_hides_from_autograd_gives_no_gradient() -> None:
    """Eager's gradient would ignore the write; a functional program cannot, so it has none."""

    def f(x):
        y = x * 2
        with torch.no_grad():
            y.mul_(3)
        return y

    x = torch.ones(3, requires_grad=True)
    program = sf.export(as_module(f), (x,)).run_decompositions()
    result = program.module()(x)
    assert torch.equal(result, torch.full((3,), 6.0))
    assert not result.requires_grad


def test_a_write_that_shows_at_some_sizes_only_is_refused() -> None:
    """At a batch of one the reshape is a view."""

    def shows(x):
        y = x * 1
        y.transpose(0, 1).reshape(-1).add_(1)
        return y

    def hidden(x):
        return (x * 1).transpose(0, 1).reshape(-1).add_(1)

    dims = (({0: sf.Dim("b", min=1), 1: None},),)
    program = sf.export(as_module(shows), (torch.ones(3, 4),), dynamic_shapes=dims)
    with pytest.raises(sf.NotSupported, match="reshape"):
        program.run_decompositions()
    module = as_module(hidden)
    program = sf.export(module, (torch.ones(3, 4),), dynamic_shapes=dims)
    for size in (1, 3):
        x = torch.rand(size, 4)
        assert torch.equal(program.run_decompositions().module()(x), module(x))


@pytest.mark.parametrize("name", ["TiedBuffers", "NonPersistentBuffer", "TensorAttribute"])
def test_loaded_programs(name: str, tmp_path: Any) -> None:
    """Before and after they are taken apart; ties stay ties."""
    program = next(p for p in PROGRAMS if p.name == name)
    module = as_module(program.make())
    expected = two_calls(copy.deepcopy(module), program)
    for form in ("training", "core"):
        path = tmp_path / f"{form}.still"
        sf.save(FORMS[form](sf.export(module, program.inputs())), path)
        loaded = sf.load(path)
        again = loaded if form == "core" else loaded.run_decompositions()
        assert_same(two_calls(again.module(), program), expected)


def test_state_as_an_input_is_refused_where_it_is_written() -> None:
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x):
            self.total.add_(x)
            return self.total * 2 + x

    module = sf.export(Adds(), (torch.ones(3),)).run_decompositions().module()
    with pytest.raises(sf.CallError, match="shares memory with state"):
        module(module.total)
    assert torch.equal(module.total, torch.zeros(3))
    assert torch.equal(module(module.total.clone()), torch.zeros(3))
