"""Signatures: kinds, specs, derived views, renaming, text."""

from __future__ import annotations

import pytest

from stillframe.export.signature import (
    ConstantArgument,
    CustomObjArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    ModuleCallSignature,
    OutputKind,
    OutputSpec,
    SymIntArgument,
    TensorArgument,
    TokenArgument,
)


def full() -> ExportGraphSignature:
    """One of every kind."""
    t = TensorArgument
    return ExportGraphSignature(
        [
            InputSpec(InputKind.TOKEN, TokenArgument("token"), None),
            InputSpec(InputKind.PARAMETER, t("p_w"), "w"),
            InputSpec(InputKind.BUFFER, t("b_m"), "m", True),
            InputSpec(InputKind.BUFFER, t("b_n"), "n", False),
            InputSpec(InputKind.CONSTANT_TENSOR, t("c_c"), "c"),
            InputSpec(InputKind.CUSTOM_OBJ, CustomObjArgument("obj_o", "a.B"), "o"),
            InputSpec(InputKind.USER_INPUT, t("x"), None),
            InputSpec(InputKind.USER_INPUT, ConstantArgument("flag", True), None),
        ],
        [
            OutputSpec(OutputKind.TOKEN, TokenArgument("token_1"), None),
            OutputSpec(OutputKind.BUFFER_MUTATION, t("add"), "m"),
            OutputSpec(OutputKind.USER_INPUT_MUTATION, t("mul"), "x"),
            OutputSpec(OutputKind.LOSS_OUTPUT, t("loss"), None),
            OutputSpec(OutputKind.USER_OUTPUT, SymIntArgument("size"), None),
            OutputSpec(OutputKind.USER_OUTPUT, ConstantArgument("", None), None),
            OutputSpec(OutputKind.USER_OUTPUT, t("add"), None),
            OutputSpec(OutputKind.GRADIENT_TO_PARAMETER, t("g_w"), "w"),
            OutputSpec(OutputKind.GRADIENT_TO_USER_INPUT, t("g_x"), "x"),
        ],
    )


@pytest.mark.spec("2.96")
def test_kinds() -> None:
    assert [k.name for k in InputKind] == [
        "USER_INPUT", "PARAMETER", "BUFFER", "CONSTANT_TENSOR", "CUSTOM_OBJ", "TOKEN",
    ]  # fmt: skip
    assert [k.name for k in OutputKind] == [
        "USER_OUTPUT", "LOSS_OUTPUT", "BUFFER_MUTATION", "USER_INPUT_MUTATION",
        "PARAMETER_MUTATION", "GRADIENT_TO_PARAMETER", "GRADIENT_TO_USER_INPUT", "TOKEN",
        "USER_INPUT_ATTRIBUTE",
    ]  # fmt: skip


@pytest.mark.spec("2.96")
def test_derived_views() -> None:
    s = full()
    assert s.parameters == ("w",)
    assert s.buffers == ("m", "n")
    assert s.non_persistent_buffers == ("n",)
    assert s.lifted_tensor_constants == ("c",)
    assert s.lifted_custom_objs == ("o",)
    assert s.user_inputs == ("x", True)
    assert s.user_outputs == ("loss", "size", None, "add")
    assert s.inputs_to_parameters == {"p_w": "w"}
    assert s.inputs_to_buffers == {"b_m": "m", "b_n": "n"}
    assert s.inputs_to_lifted_tensor_constants == {"c_c": "c"}
    assert s.inputs_to_lifted_custom_objs == {"obj_o": "o"}
    assert s.buffers_to_mutate == {"add": "m"}
    assert s.user_inputs_to_mutate == {"mul": "x"}
    assert s.input_tokens == ("token",) and s.output_tokens == ("token_1",)
    assert s.assertion_dep_token is None


@pytest.mark.spec("2.96")
def test_backward_signature() -> None:
    backward = full().backward_signature
    assert backward is not None
    assert backward.gradients_to_parameters == {"g_w": "w"}
    assert backward.gradients_to_user_inputs == {"g_x": "x"}
    assert backward.loss_output == "loss"
    assert ExportGraphSignature().backward_signature is None


@pytest.mark.spec("2.64")
def test_a_node_may_be_mutation_and_output() -> None:
    kinds = [s.kind for s in full().output_specs if s.arg.name == "add"]
    assert kinds == [OutputKind.BUFFER_MUTATION, OutputKind.USER_OUTPUT]


@pytest.mark.spec("2.86")
def test_renaming_follows_everywhere() -> None:
    s = full()
    s.replace_all_uses("add", "sum")
    s.replace_all_uses("x", "input_ids")
    assert s.buffers_to_mutate == {"sum": "m"} and s.user_outputs[-1] == "sum"
    assert s.user_inputs == ("input_ids", True)
    assert s.user_inputs_to_mutate == {"mul": "input_ids"}
    # a gradient's target is an FQN or an input, a buffer's an FQN: neither is a node
    s.replace_all_uses("m", "other")
    assert s.buffers_to_mutate == {"sum": "m"}


def test_module_call_signature_renames() -> None:
    from torch.utils import _pytree as pytree

    leaf = pytree.treespec_leaf()
    s = ModuleCallSignature(
        [TensorArgument("a")], [TensorArgument("b"), TensorArgument("a")], leaf, leaf
    )
    s.replace_all_uses("a", "c")
    assert [x.name for x in s.inputs] == ["c"] and [x.name for x in s.outputs] == ["b", "c"]


def test_a_buffer_is_persistent_or_not() -> None:
    with pytest.raises(ValueError, match="the buffer m must be persistent or not"):
        InputSpec(InputKind.BUFFER, TensorArgument("b_m"), "m")


def test_text() -> None:
    lines = str(full()).splitlines()
    assert lines[0] == "inputs:"
    assert "  p_w: PARAMETER w" in lines
    assert "  b_n: BUFFER n (not persistent)" in lines
    assert "  flag = True: USER_INPUT" in lines
    assert "  add: BUFFER_MUTATION m" in lines
    assert "  None: USER_OUTPUT" in lines
