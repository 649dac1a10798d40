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
