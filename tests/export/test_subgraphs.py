"""Programs with subgraphs in functional form: equal to eager, core operators inside, no writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from tests.corpora.control_flow import EXAMPLE, PROGRAMS, eager
from tests.export.test_control_flow import (
    SURROUNDINGS,
    Around,
    check,
    compare_around,
    exported,
)
from torch import nn

import stillframe as sf
from stillframe.export import verifier
from stillframe.export.subgraphs import nodes_of
from stillframe.trace.decompositions import is_core

aten = torch.ops.aten
TABLES = pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
ROWS = ({0: sf.Dim("rows", min=2, max=64)},)


def targets(program: sf.ExportedProgram) -> set[Any]:
    return {n.target for n in nodes_of(program.graph_module) if n.op == "call_function"}


@TABLES
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_taken_apart_equals_eager(name: str, table: Any, tmp_path: Path) -> None:
    program = exported(name).run_decompositions(table)
    check(program.module(), name)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert str(loaded) == str(program)
    check(loaded.run_decompositions().module(), name)


@TABLES
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_is_around_arms(name: str, table: Any) -> None:
    spec = ({0: sf.Dim.AUTO}, sf.Dim.AUTO)
    program = sf.export(Around(SURROUNDINGS[name], None), (EXAMPLE.clone(), 4), dynamic_shapes=spec)
    compare_around(name, program.run_decompositions(table))
