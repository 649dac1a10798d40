"""The calling convention of a program: parameters, given arguments, names of leaves."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput
from stillframe.export.call_spec import CallSpec, placeholder_name

T = torch.ones(2)


def mixed(x: Any, *rest: Any, flag: bool = True, y: Any = None, **kw: Any) -> None: ...


@pytest.mark.spec("2.83", "2.7")
def test_names_and_paths_of_leaves() -> None:
    spec = CallSpec.from_call(mixed, (T, T, {"A b": [T]}), {"b": [T, T], "y": None, "a": T})
    assert spec.leaf_names == ["x", "rest_0", "rest_1_a_b_0", "b_0", "b_1", "y", "a"]
    assert spec.leaf_paths == ["x", "rest[0]", "rest[1]['A b'][0]", "b[0]", "b[1]", "y", "a"]
    assert [p.name for p in spec.omitted] == ["flag"]
    assert str(spec) == "(x, *rest, flag=True, y=None, **kw)"


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (mixed, (T,), {}),
        (mixed, (T, [T, {"a": None}]), {"y": (T,), "extra": 3}),
        (lambda x, y, z=3: None, (T,), {"y": T}),
        (lambda x, y, z=3: None, (), {"z": 2, "x": T, "y": [T]}),
        (lambda x, /, y, *, z: None, (T, T), {"z": T}),
        (functools.partial(mixed, flag=False), (T,), {}),
    ],
)
def test_in_spec_is_the_structure_of_the_call(function: Any, args: Any, kwargs: Any) -> None:
    spec = CallSpec.from_call(function, args, kwargs)
    assert spec.in_spec == pytree.tree_structure((args, kwargs))
    assert len(spec.leaf_names) == spec.in_spec.num_leaves


@pytest.mark.spec("2.83")
def test_attributes_give_names() -> None:
    from transformers.modeling_outputs import BaseModelOutput

    spec = CallSpec.from_call(lambda out: None, (BaseModelOutput(last_hidden_state=T),), {})
    assert spec.leaf_names == ["out_last_hidden_state"]


def test_builtin_functions_without_signature() -> None:
    spec = CallSpec.from_call(torch.relu, (T,), {})
    assert spec.leaf_names == ["arg0"]


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="do not fit the signature"):
        CallSpec.from_call(lambda x: None, (), {})


def test_placeholder_names_are_identifiers() -> None:
    assert placeholder_name("3d.Conv weight") == "_3d_conv_weight"
    with pytest.raises(InvalidInput):
        placeholder_name("")
