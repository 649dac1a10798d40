"""Attributes that forward sets on inputs: the program sets them at every call, or refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.export.signature import OutputKind

Function = Callable[..., Any]
DYNAMIC = {"x": {0: sf.Dim("rows")}, "y": None}
EXAMPLE = (torch.ones(3, 2), torch.ones(2))
TABLE = torch.arange(2.0)


def an_input(x: Any, y: Any) -> Any:
    x.partner = y
    return x + 4


def a_result(x: Any, y: Any) -> Any:
    x.scaled = x * y
    return x.scaled + 1


def numbers(x: Any, y: Any) -> Any:
    x.rows, x.ratio, x.title, x.nothing, x.flag = x.shape[0], 0.5, "x", None, True
    return x + y


def a_constant_tensor(x: Any, y: Any) -> Any:
    x.table = TABLE
    return x + y


def on_both(x: Any, y: Any) -> Any:
    x.tag = 1
    y.tag = 2
    x.tag = x.tag + 10
    return x * y.tag


def by_setattr(x: Any, y: Any) -> Any:
    setattr(x, "not a name", y.sum())
    return x


def the_last_counts(x: Any, y: Any) -> Any:
    x.mark = [y]
    x.mark = y + 1
    return x


def after_a_question(x: Any, y: Any) -> Any:
    if not hasattr(x, "seen"):
        x.seen = True
    return x + 1


def through_contiguous(x: Any, y: Any) -> Any:
    z = x.contiguous()
    z.dense = True
    return x + (1 if z.dense else 2)


def a_written_input(x: Any, y: Any) -> Any:
    x.partner = y
    y.add_(1)
    return x + y


SET = [
    an_input, a_result, numbers, a_constant_tensor, on_both, by_setattr, the_last_counts,
    after_a_question, through_contiguous, a_written_input,
]  # fmt: skip


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.rand(rows, 2, generator=generator), torch.rand(2, generator=generator)


def assert_same_call(program: Callable[..., Any], function: Function, rows: int) -> None:
    mine, theirs = inputs(rows), inputs(rows)
    torch.testing.assert_close(program(*mine), function(*theirs))
    for a, b in zip(mine, theirs, strict=True):
        assert vars(a).keys() == vars(b).keys()
        for name, value in vars(b).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(vars(a)[name], value)
            else:
                assert vars(a)[name] == value and type(vars(a)[name]) is type(value)


def captured(function: Function) -> sf.ExportedProgram:
    return sf.export(function, EXAMPLE, dynamic_shapes=DYNAMIC, strict=True)


@pytest.mark.parametrize("function", SET, ids=lambda f: f.__name__)
def test_the_program_sets_it_at_every_call(function: Function) -> None:
    program = captured(function)
    assert not any(map(vars, EXAMPLE))
    for rows in (2, 5):
        assert_same_call(program.module(), function, rows)
    program.verify(function)


@pytest.mark.parametrize("function", SET, ids=lambda f: f.__name__)
def test_every_form_of_the_program_sets_it(function: Function, tmp_path: Path) -> None:
    program = captured(function)
    functional = program.run_decompositions()
    sf.save(program, tmp_path / "p.still")
    sf.save(functional, tmp_path / "f.still")
    saved = [sf.load(tmp_path / name) for name in ("p.still", "f.still")]
    for form in (functional, *saved):
        assert form.graph_signature.output_specs[-1].kind is OutputKind.USER_OUTPUT
        assert_same_call(form.module(), function, 4)
    assert_same_call(sf.unflatten(program), function, 4)


def test_the_very_tensor_is_set() -> None:
    module = captured(an_input).module()
    x, y = inputs(4)
    module(x, y)
    assert vars(x)["partner"] is y


def test_what_the_caller_had_set_is_replaced() -> None:
    module = captured(an_input).module()
    x, y = inputs(4)
    vars(x)["partner"] = "old"
    module(x, y)
    assert vars(x)["partner"] is y


def test_listing_signature_and_comparison_show_it() -> None:
    program = captured(numbers)
    assert "x.ratio becomes 0.5" in str(program)
    assert "x.rows becomes" in str(program)
    assert "USER_INPUT_ATTRIBUTE x.title" in str(program.graph_signature)
    other = captured(an_input)
    assert sf.compare(program, program).same
    assert "the attribute partner of" in str(sf.compare(program, other))


def test_a_read_before_is_a_condition() -> None:
    module = captured(after_a_question).module()
    x, y = inputs(4)
    module(x, y)
    with pytest.raises(sf.CallError, match="seen"):
        module(x, y)


def test_one_tensor_as_two_inputs_does_not_fit() -> None:
    program = sf.export(on_both, (torch.ones(2), torch.ones(2)), strict=True)
    t = torch.ones(2)
    with pytest.raises(sf.CallError, match="x and y are one tensor"):
        program.module()(t, t)


def test_what_is_set_and_deleted_leaves_nothing() -> None:
    def sets_and_deletes(x: Any, y: Any) -> Any:
        x.mark = y
        z = x + x.mark
        del x.mark
        return z

    module = captured(sets_and_deletes).module()
    assert_same_call(module, sets_and_deletes, 4)
    x, y = inputs(4)
    vars(x)["mark"] = 1
    with pytest.raises(sf.CallError, match="mark"):
        module(x, y)


def a_list(x: Any, y: Any) -> Any:
    x.parts = [y]
    return x


def a_function(x: Any, y: Any) -> Any:
    x.hook = len
    return x


def an_arm_of_cond(x: Any, y: Any) -> Any:
    def sets(a: Any) -> Any:
        x.arm = 1
        return a + 1

    return torch.cond(y.sum() > 0, sets, lambda a: a + 2, (y,))


def by_other_means(x: Any, y: Any) -> Any:
    x.mark = 1
    object.__setattr__(x, "mark", 2)
    return x


@pytest.mark.parametrize(
    "function", [a_list, a_function, an_arm_of_cond, by_other_means], ids=lambda f: f.__name__
)
def test_what_no_program_can_set_is_refused(function: Function) -> None:
    with pytest.raises(sf.SideEffectError, match="attribute"):
        captured(function)


def test_a_way_of_a_branch_on_data_sets_nothing() -> None:
    def branches(x: Any, y: Any) -> Any:
        if y.sum() > 0:
            x.way = 1
        return x + 1

    with pytest.raises(sf.ConversionError, match=r"sets \.way of a tensor"):
        sf.export(branches, EXAMPLE, strict=True, control_flow="convert")

    def sets_before(x: Any, y: Any) -> Any:
        x.way = y
        if y.sum() > 0:
            x = x + 1
        return x

    program = sf.export(
        sets_before, EXAMPLE, dynamic_shapes=DYNAMIC, strict=True, control_flow="convert"
    )
    assert_same_call(program.module(), sets_before, 4)


def test_a_name_of_the_stand_in_is_refused() -> None:
    def sets(x: Any, y: Any) -> Any:
        x.sizes = 1
        return x

    with pytest.raises(sf.NotSupported, match="rename"):
        captured(sets)


def test_a_name_made_of_a_size_is_refused() -> None:
    def sets(x: Any, y: Any) -> Any:
        setattr(x, f"rows_{x.shape[0]}", 1)
        return x

    with pytest.raises(sf.NotSupported, match="text"):
        captured(sets)


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        vars(self.weight)["scale"] = 2.0

    def forward(self, x: Any, y: Any) -> Any:
        x.scale = 3.0
        return x * self.weight.scale  # type: ignore[attr-defined]


def test_state_that_could_be_the_input_is_not_read_afterwards() -> None:
    with pytest.raises(sf.NotSupported, match="scale"):
        sf.export(Scaled(), EXAMPLE, strict=True)


def test_stores_on_state_are_refused() -> None:
    class Sets(Scaled):
        def forward(self, x: Any, y: Any) -> Any:
            self.weight.scale = 3.0
            return x

    with pytest.raises(sf.SideEffectError, match="scale"):
        sf.export(Sets(), EXAMPLE, strict=True)


@pytest.mark.parametrize("strict", [False, True])
def test_attributes_of_results_are_noted(strict: bool) -> None:
    def sets(x: Any, y: Any) -> Any:
        z = x + y
        z.mark = 1
        return z

    program = sf.export(sets, EXAMPLE, strict=strict)
    assert any("attribute mark of a result" in note for note in program.notes)


def test_plain_tracing_says_what_to_do() -> None:
    with pytest.raises(sf.SideEffectError, match="strict=True"):
        sf.export(an_input, EXAMPLE)


def test_graphs_of_torch_functions_do_not_set_attributes() -> None:
    with pytest.raises(sf.SideEffectError, match="partner"):
        sf.capture(an_input, EXAMPLE, strict=True)


def test_the_verifier_knows_what_can_be_set() -> None:
    program = captured(an_input)
    spec = program.graph_signature.output_specs[0]
    for target, attribute in (("z", "partner"), ("x", "data"), ("x", "sizes"), ("x", "__dict__")):
        specs = list(program.graph_signature.output_specs)
        specs[0] = type(spec)(spec.kind, spec.arg, target, attribute)
        signature = sf.ExportGraphSignature(program.graph_signature.input_specs, specs)
        with pytest.raises(sf.SpecViolationError, match="no attribute that"):
            program._replaced(graph_signature=signature)
    with pytest.raises(ValueError, match="USER_OUTPUT"):
        type(spec)(OutputKind.USER_OUTPUT, spec.arg, "x", "partner")


def test_verify_sees_a_wrong_attribute() -> None:
    def sets_another(x: Any, y: Any) -> Any:
        x.partner = y + 1
        return x + 4

    with pytest.raises(sf.VerificationError, match="attribute partner of x"):
        captured(an_input).verify(sets_another)


def test_a_joint_graph_sets_them() -> None:
    def loss(x: Any, y: Any) -> Any:
        x.rows = x.shape[0]
        x.partner = y.detach()
        return (x * y).sum()

    y = torch.ones(2, requires_grad=True)
    program = sf.export(loss, (torch.ones(3, 2), y), dynamic_shapes=DYNAMIC, strict=True)
    x = torch.rand(4, 2)
    found = program.joint(loss_index=0).module()(x, y)
    assert vars(x)["rows"] == 4
    torch.testing.assert_close(vars(x)["partner"], y.detach())
    torch.testing.assert_close(found.input_gradients["y"], x.sum(0))


def test_a_torn_out_part_returns_it() -> None:
    class Inner(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2, x + 1

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Any, y: Any) -> Any:
            x.doubled, z = self.inner(x)
            return z + y

    program = sf.export(Outer(), EXAMPLE, dynamic_shapes=DYNAMIC, strict=True)
    part = sf.extract(program, "inner")
    x = torch.rand(4, 2)
    torch.testing.assert_close(part.module()(x), (x * 2, x + 1))
    assert not vars(x)
