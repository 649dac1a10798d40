"""Control flow on data in strict capture: what is converted equals eager, the rest is refused."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch

import stillframe as sf
from tests.export.converting_programs import CONVERTED, DOWN, REFUSED, UP, Layers, Program, Refused


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
    first, last = (captured(program.function, args) for args in (program.inputs[0],
                                                                  program.inputs[-1]))
    assert operators(first) == operators(last)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.function.__name__)
def test_what_no_operator_stands_for_is_refused_by_its_rule(case: Refused) -> None:
    before = torch.get_default_dtype()
    try:
        with pytest.raises(sf.ConversionError) as caught:
            captured(case.function, case.inputs)
    finally:
        torch.set_default_dtype(before)
    error = caught.value
    assert error.rule == case.rule
    assert case.text in str(error)
    assert any("converting_programs.py" in line for line in error.where)
