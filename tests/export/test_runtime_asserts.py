"""Programs without run-time asserts: what they rely on is believed, and they say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import stillframe as sf
from stillframe.report import facts
from stillframe.shapes.env import RUNTIME_ASSERTS

aten = torch.ops.aten
pytestmark = pytest.mark.spec("2.5")


def believes(x: Any, n: Any) -> Any:
    k = n.item()
    torch._check(k >= 2)
    torch._check(k <= x.shape[0])
    return x[:2] * k


EXAMPLE = (torch.arange(4.0), torch.tensor(3))


def asserts(program: sf.ExportedProgram) -> int:
    return sum(n.target is aten._assert_scalar.default for n in program.graph.nodes)


def test_they_are_there_unless_somebody_says_otherwise() -> None:
    program = sf.export(believes, EXAMPLE)
    assert program.runtime_asserts
    assert asserts(program) > 0
    with pytest.raises(RuntimeError):
        program.module()(EXAMPLE[0], torch.tensor(9))


def test_the_option_leaves_them_out_and_the_notes_list_them() -> None:
    program = sf.export(believes, EXAMPLE, runtime_asserts=False)
    assert asserts(program) == 0
    assert not program.runtime_asserts
    found = [note for note in program.notes if "is not checked" in note]
    assert len(found) == asserts(sf.export(believes, EXAMPLE))
    assert any("torch._check(k >= 2)" in note for note in found)
    assert torch.equal(program.module()(*EXAMPLE), believes(*EXAMPLE))
    program.module()(EXAMPLE[0], torch.tensor(9))


@pytest.mark.parametrize("strict", [False, True])
def test_the_environment_has_a_switch(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME_ASSERTS, "0")
    program = sf.export(believes, EXAMPLE, strict=strict)
    assert (asserts(program), program.runtime_asserts) == (0, False)
    assert asserts(sf.export(believes, EXAMPLE, runtime_asserts=True)) > 0
    graph = sf.capture(believes, EXAMPLE)
    assert graph.meta["runtime_asserts"] is False
    assert "assert" not in graph.code
    plain = sf.make_fx(believes, tracing_mode="symbolic")(*EXAMPLE)
    assert "assert" not in plain.code
    monkeypatch.setenv(RUNTIME_ASSERTS, "1")
    assert asserts(sf.export(believes, EXAMPLE)) > 0
    monkeypatch.setenv(RUNTIME_ASSERTS, "no")
    with pytest.raises(sf.InvalidInput, match="0 or 1"):
        sf.export(believes, EXAMPLE)


def flattens_and_adds(x: Any, y: Any) -> Any:
    return x.flatten() + y


def test_complex_guards_are_admitted_without_checks() -> None:
    a, b, c = sf.Dim("a", min=2), sf.Dim("b", min=2), sf.Dim("c", min=2)
    example = (torch.ones(3, 4), torch.ones(12))

    def made(**options: Any) -> sf.ExportedProgram:
        shapes = {"x": {0: a, 1: b}, "y": {0: c}}
        return sf.export(flattens_and_adds, example, dynamic_shapes=shapes, **options)

    wrong = (torch.ones(3, 4), torch.ones(11))
    checked = made(prefer_deferred_runtime_asserts_over_guards=True)
    assert checked.guards
    with pytest.raises(sf.CallError):
        checked.module()(*wrong)
    believed = made(prefer_deferred_runtime_asserts_over_guards=True, runtime_asserts=False)
    assert not believed.guards
    assert any("a*b" in n and "is not checked" in n for n in believed.notes)
    with pytest.raises(RuntimeError, match="size of tensor"):  # the kernel itself
        believed.module()(*wrong)
    with pytest.raises(sf.ConstraintViolationError):  # an error stays one
        made(runtime_asserts=False)


def test_bounds_that_guards_put_on_a_dim_are_checked_all_the_same() -> None:
    program = sf.export(
        lambda x: x + 1 if x.shape[0] > 2 else x,
        (torch.ones(3),),
        dynamic_shapes=({0: sf.Dim("n", min=1)},),
        prefer_deferred_runtime_asserts_over_guards=True,
        runtime_asserts=False,
    )
    assert not program.notes
    with pytest.raises(sf.CallError, match="outside 3"):
        program.module()(torch.ones(1))


def test_what_is_assumed_is_checked_all_the_same() -> None:
    a, b = sf.Dim("a"), sf.Dim("b")
    program = sf.export(
        lambda x, y: (x, y),
        (torch.ones(3), torch.ones(3)),
        dynamic_shapes=[{0: a}, {0: b}],
        assume=["a == b"],
        runtime_asserts=False,
    )
    with pytest.raises(sf.CallError):
        program.module()(torch.ones(3), torch.ones(4))


def test_every_form_of_the_program_says_so(tmp_path: Path) -> None:
    program = sf.export(believes, EXAMPLE, runtime_asserts=False)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    for form in (program, loaded, program.run_decompositions(), loaded.run_decompositions()):
        assert not form.runtime_asserts
        assert asserts(form) == 0
        assert "run-time asserts: left out" in str(form)
        assert any("is not checked" in note for note in form.notes)
    assert any("is not checked" in note for note in facts.program_facts(loaded).notes)
    assert "no run-time asserts" in str(program.verify(believes))
    checked = sf.export(believes, EXAMPLE)
    assert "no run-time asserts" not in str(checked.verify(believes))
    assert "conditions on data" in str(sf.compare(checked, program))


def test_operators_that_forward_calls_stay() -> None:
    def f(x: Any) -> Any:
        torch._assert_async(x.sum() > 0)
        return x + 1

    program = sf.export(f, (torch.ones(2),), runtime_asserts=False)
    with pytest.raises(RuntimeError):
        program.module()(-torch.ones(2))
