"""torch's own database of export examples: all of them, with and without the frame machine."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch._export.db.examples import all_examples
from torch.utils import _pytree as pytree

import stillframe as sf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    EXAMPLES = all_examples()

#: What plain tracing refuses, and why.
REFUSED = {
    "tensor_setattr": "sets an attribute of an input; strict capture sees who reads it, and the "
    "program sets it too",
}


def ours(spec: Any) -> Any:
    """Dims of torch as ours."""
    if isinstance(spec, dict):
        return {key: ours(value) for key, value in spec.items()}
    if isinstance(spec, (list, tuple)):
        return type(spec)(ours(value) for value in spec)
    if spec in (torch.export.Dim.AUTO, torch.export.Dim.DYNAMIC):
        return sf.Dim.AUTO
    if isinstance(spec, torch.export.Dim):
        top = spec.max if isinstance(spec.max, int) else None
        return sf.Dim(spec.__name__, min=spec.min, max=top)
    return spec


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 36
    assert set(REFUSED) <= set(EXAMPLES)


@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(name: str, strict: bool) -> None:
    case = EXAMPLES[name]
    kwargs = case.example_kwargs or {}
    spec = ours(case.dynamic_shapes) if case.dynamic_shapes else None
    if name in REFUSED and not strict:
        with pytest.raises(sf.SideEffectError):
            sf.export(case.model, case.example_args, kwargs, dynamic_shapes=spec, strict=strict)
        return
    program = sf.export(case.model, case.example_args, kwargs, dynamic_shapes=spec, strict=strict)
    calls = [(case.example_args, kwargs)]
    if case.extra_args is not None:
        calls.append((case.extra_args, {}))
    module = program.module()
    for args, keywords in calls:
        expected_args, actual_args = copy.deepcopy(args), copy.deepcopy(args)
        torch.manual_seed(0)
        expected = copy.deepcopy(case.model)(*expected_args, **keywords)
        torch.manual_seed(0)
        actual = module(*actual_args, **keywords)
        torch.testing.assert_close(actual, expected)
        assert_inputs_equal(actual_args, expected_args)


def assert_inputs_equal(actual: Any, expected: Any) -> None:
    """What the calls wrote to their inputs."""
    for a, b in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a, b)
            assert vars(a).keys() == vars(b).keys()
            torch.testing.assert_close(list(vars(a).values()), list(vars(b).values()))
        else:
            assert a == b
