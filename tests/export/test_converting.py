"""Control flow on data in strict capture: what is converted equals eager, the rest is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.converting_programs import CONVERTED, DOWN, REFUSED, UP, Layers, Program, Refused

import stillframe as sf
from stillframe.export.converting import ways


def captured(function: Any, args: tuple[Any, ...], **options: Any) -> sf.ExportedProgram:
    """The program of ``function``; the first dim of every tensor is dynamic."""
    n = sf.Dim("n")
    dims = tuple({0: n} if a.dim() else None for a in args)
    return sf.export(
        function, args, dynamic_shapes=dims, strict=True, control_flow="convert", **options
    )


def operators(program: sf.ExportedProgram) -> str:
    """The code of the program, subgraphs included."""
    modules = program.graph_module.modules()
    return "\n".join(m.code for m in modules if isinstance(m, torch.fx.GraphModule))


@pytest.mark.parametrize("program", CONVERTED, ids=lambda p: p.function.__name__)
def test_the_program_equals_the_function_on_every_way(program: Program) -> None:
    run = captured(program.function, program.inputs[0]).module()
    for args in program.inputs:
        torch.testing.assert_close(
            run(*copy.deepcopy(args)), program.function(*args), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("program", CONVERTED, ids=lambda p: p.function.__name__)
def test_it_is_the_same_graph_for_an_example_of_another_way(program: Program) -> None:
    first, last = (
        captured(program.function, args) for args in (program.inputs[0], program.inputs[-1])
    )
    assert operators(first) == operators(last)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_what_no_operator_stands_for_is_refused_by_its_rule(case: Refused) -> None:
    with pytest.raises(sf.ConversionError) as caught:
        captured(case.function, case.inputs)
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
    error = caught.value
    assert error.rule == case.rule
    assert case.text in str(error)
    assert any("converting_programs.py" in line for line in error.where)


# -- modules, gradients, files ------------------------------------------------------------------


def test_layers_that_data_chooses() -> None:
    net, args = Layers(), (torch.ones(2, 4),)
    program = captured(net, args)
    run, eager = program.module(), copy.deepcopy(net)
    for x in (torch.ones(3, 4), -torch.ones(2, 4), torch.full((5, 4), 40.0)):
        torch.testing.assert_close(run(x), eager(x))
    assert run.state_dict()["steps"] == eager.steps == 4


class Choice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x) if x.sum() > 0 else self.other(x).relu()
        while y.abs().sum() < 50:
            y = self.one(y) + 2 * y
        return y if y.max() > 10 else y * 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_those_of_eager(sign: float) -> None:
    net = Choice()
    run = captured(copy.deepcopy(net), (torch.ones(2, 3),)).module()
    x, other = (torch.full((4, 3), sign, requires_grad=True) for _ in range(2))
    net(x).square().sum().backward()
    run(other).square().sum().backward()
    torch.testing.assert_close(other.grad, x.grad)
    grads = {name: p.grad for name, p in run.named_parameters()}
    for name, parameter in net.named_parameters():
        want, got = (torch.zeros(()) if g is None else g for g in (parameter.grad, grads[name]))
        torch.testing.assert_close(got, want.expand_as(got) if parameter.grad is None else want)


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            self.steps += 1
            x.mul_(2)
        return x + self.steps


@pytest.mark.parametrize("functional", [False, True])
def test_buffers_and_inputs_that_a_way_writes_are_written(functional: bool) -> None:
    net = Counts()
    program = captured(copy.deepcopy(net), (torch.ones(3),))
    run = (program.run_decompositions() if functional else program).module()
    for value in (1.0, -1.0, 3.0):
        mine, theirs = torch.full((4,), value), torch.full((4,), value)
        torch.testing.assert_close(run(mine), net(theirs))
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(run.state_dict()["steps"], net.steps)


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_go_through_what_a_way_writes(sign: float, functional: bool) -> None:
    def forward(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y, z = x * w, torch.zeros_like(x)
        if x.sum() > 0:
            y.mul_(x)
            z.add_(w)
        return (y * y).sum() + z.sum()

    leaf = torch.arange(1.0, 4.0, requires_grad=True)
    program = captured(forward, (torch.ones(3), leaf))
    run = (program.run_decompositions() if functional else program).module()
    x = torch.full((3,), sign)
    (want,) = torch.autograd.grad(forward(x, leaf), leaf)
    (got,) = torch.autograd.grad(run(x, leaf), leaf)
    torch.testing.assert_close(got, want)


def test_a_converted_program_is_saved_and_loaded(tmp_path: Path) -> None:
    program = captured(Choice(), (torch.ones(2, 3),))
    sf.save(program, tmp_path / "p.still")
    again = sf.load(tmp_path / "p.still").module()
    for x in (torch.ones(3, 3), -torch.ones(5, 3)):
        torch.testing.assert_close(again(x), program.module()(x))


@pytest.mark.parametrize("name", ["number_that_differs", "while_with_break", "for_downwards"])
def test_numbers_and_loops_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    case = next(p for p in CONVERTED if p.function.__name__ == name)
    sf.save(captured(case.function, case.inputs[0]), tmp_path / "p.still")
    again = sf.load(tmp_path / "p.still").module()
    for args in case.inputs:
        torch.testing.assert_close(again(*args), case.function(*args))


# -- the graph ------------------------------------------------------------------------------------


def function(name: str) -> Any:
    return next(p.function for p in CONVERTED if p.function.__name__ == name)


def test_an_if_is_one_cond_and_a_while_is_one_loop() -> None:
    code = operators(captured(function("if_else"), (UP,)))
    assert code.count("higher_order.cond(") == 1
    code = operators(captured(function("while_counts"), (UP,)))
    assert code.count("while_loop(") == 1 and "cond(" not in code


def test_nested_branches_that_write_are_not_run_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ways, "MOST_WAYS", 64)
    captured(function("writes_behind_many_early_returns"), (UP,))


def test_a_question_about_sizes_is_no_branch_on_data() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] >= 0 else x

    assert "cond" not in operators(captured(forward, (UP,)))


# -- what Python asks -----------------------------------------------------------------------------


def asks_for_the_grad_mode(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if torch.is_grad_enabled() else x * 3


def asks_for_the_layout(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.is_contiguous() else x * 3


def asks_on_a_way(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:
        x = asks_for_the_layout(x)
    return x


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (asks_for_the_grad_mode, "grad mode"),
        (asks_for_the_layout, "is_contiguous"),
        (asks_on_a_way, "is_contiguous"),
    ],
    ids=lambda p: getattr(p, "__name__", p),
)
def test_questions_are_conditions_of_every_call(function: Any, what: str) -> None:
    run = captured(function, (torch.ones(4, 2),)).module()
    torch.testing.assert_close(run(torch.ones(3, 2)), function(torch.ones(3, 2)))
    with pytest.raises(sf.CallError, match=what), torch.no_grad():
        run(torch.ones(2, 3).t())


@pytest.mark.parametrize("name", ["if_else", "while_counts", "writes_behind_many_early_returns"])
def test_what_the_conversion_asks_is_no_condition(name: str) -> None:
    assert not captured(function(name), (UP,)).assumptions


def test_a_text_of_a_size_fixes_the_size() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if str(x.shape[0]) == "3" else x

    with pytest.raises(sf.ConstraintViolationError, match="n == 3"):
        captured(forward, (torch.ones(3),))


# -- checks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("assertion", (DOWN,), "AssertionError: the sum must be positive"),
        ("raises", (DOWN,), "ValueError: negative numbers in 1 dims"),
        ("check_in_no_grad", (torch.tensor([float("nan")]),), "RuntimeError: nan"),
        ("check_of_a_number", (UP, torch.tensor(9)), "AssertionError"),
        ("check_on_a_way", (torch.tensor([500.0]),), "too large"),
        ("check_in_else", (torch.zeros(3),), "ValueError: zero"),
    ],
)
def test_a_way_that_raises_is_a_check(name: str, args: Any, message: str) -> None:
    case = next(p for p in CONVERTED if p.function.__name__ == name)
    run = captured(case.function, case.inputs[0]).module()
    with pytest.raises(Exception):  # noqa: B017  each raises its own
        case.function(*args)
    with pytest.raises(RuntimeError, match=message):
        run(*args)


# -- the option -----------------------------------------------------------------------------------


def test_branches_on_data_are_refused_by_default() -> None:
    with pytest.raises(sf.DataDependentError):
        sf.export(function("if_else"), (UP,), strict=True)


def test_the_option_needs_strict_capture() -> None:
    with pytest.raises(sf.InvalidInput, match="needs strict=True"):
        sf.export(function("if_else"), (UP,), control_flow="convert")
    with pytest.raises(sf.InvalidInput, match="'maybe'"):
        sf.export(function("if_else"), (UP,), strict=True, control_flow="maybe")


def test_an_error_points_at_the_branch_and_shows_both_values() -> None:
    case = next(c for c in REFUSED if c.name == "other_dtype")
    with pytest.raises(sf.ConversionError) as caught:
        captured(case.function, case.inputs)
    text = str(caught.value)
    assert "torch.float32" in text and "torch.int64" in text and "rule: dtype" in text
    assert "if x.sum() > 0:\n" in text and "^^^^^^^^^^^" in text
