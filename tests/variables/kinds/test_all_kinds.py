"""Values of the program's own, and that all kinds are there."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from typing import Any

import pytest
import torch
from tests.variables.kinds.watching import x

import stillframe as sf
from stillframe.errors import InternalError
from stillframe.variables import (
    FrameState,
    Options,
    SourcelessBuilder,
    Translator,
    VariableTracker,
    VariableTrackerMeta,
    capture_frame,
    typestr,
)
from stillframe.variables.kinds import (
    comptime,
    descriptors,
    function_wrappers,
    functions,
    python_modules,
    python_objects,
    signatures,
    trace_rules,
    user_objects,
    wrappers,
)
from stillframe.variables.rules import (
    allow_in_graph,
    forget_rule,
)


class Node:
    def __init__(self, weight: int = 2) -> None:
        self.weight = weight


KEPT = Node()


def plain(a: Any, b: Any = 1) -> Any:
    return a + b


def translator() -> Translator:
    return Translator(plain, FrameState(), Options())


@pytest.mark.spec("5.138")
def test_sourceless_kinds() -> None:
    tx = translator()
    spec = torch.utils._pytree.tree_flatten([1, 2])[1]
    tracker = VariableTracker(3)
    sentinel = vars(dataclasses)["_HAS_DEFAULT_FACTORY"]
    expected: list[tuple[Any, type]] = [
        (sentinel, user_objects.UserDefinedObjectVariable),
        (len, functions.BuiltinVariable),
        (torch.relu, trace_rules.TorchInGraphFunctionVariable),
        (torch.nn.functional.relu, trace_rules.TorchInGraphFunctionVariable),
        (plain, functions.BuiltinVariable),
        (KEPT.__init__, functions.UserMethodVariable),
        (Node, user_objects.UserDefinedClassVariable),
        ([].__len__, descriptors.MethodWrapperVariable),
        ([].append, descriptors.BoundBuiltinVariable),
        (vars(type)["__dict__"], descriptors.GetSetDescriptorVariable),
        (spec, user_objects.UserDefinedObjectVariable),
        (re.compile("a"), python_objects.RegexPatternVariable),
        (sys, python_modules.PythonModuleVariable),
        (KEPT, user_objects.UserDefinedObjectVariable),
        (functools.partial(plain), function_wrappers.FunctoolsPartialVariable),
        (inspect.signature(plain), signatures.InspectSignatureVariable),
        (sf.comptime, comptime.ComptimeVariable),
    ]
    assert SourcelessBuilder.create(tx, tracker) is tracker
    for value, kind in expected:
        made = SourcelessBuilder.create(tx, value)
        assert isinstance(made, kind) and made.source is None, typestr(made)
    allow_in_graph(plain)
    try:
        made = SourcelessBuilder.create(tx, plain)
        assert isinstance(made, trace_rules.TorchInGraphFunctionVariable)
        assert tx.has_user_defined_allowed_in_graph
    finally:
        forget_rule(plain)


@pytest.mark.spec("5.138")
def test_a_tree_spec_is_made_again() -> None:
    def step(x: torch.Tensor) -> Any:
        return torch.utils._pytree.tree_flatten({"a": x, "b": (x, 2)})[1]

    assert capture_frame(step, (x(),))(x()) == step(x())


@pytest.mark.spec("5.139")
def test_a_literal_is_asked_for() -> None:
    assert SourcelessBuilder.wrap_constant_literal((1, frozenset("a"))).is_python_constant()
    with pytest.raises(InternalError, match="not a literal: list"):
        SourcelessBuilder.wrap_constant_literal([1])


@pytest.mark.spec("5.146")
def test_lambdas_and_attributes_not_looked_up() -> None:
    tx = translator()
    made = wrappers.LambdaVariable(len, lambda tx, args, kwargs: (args, kwargs))
    assert made.handles_calls and made.call_function(tx, (1,), {"a": 2}) == ((1,), {"a": 2})

    class Owner(VariableTracker):
        def call_method(self, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
            return name, args, kwargs

    try:
        attribute = wrappers.GetAttrVariable(None, Owner(KEPT), "apply")
        assert attribute.call_function(tx, (1,), {}) == ("apply", (1,), {})
    finally:
        del VariableTrackerMeta.all_kinds["Owner"]


@pytest.mark.spec("5.146")
def test_texts_of_types_and_the_registry() -> None:
    made = functions.UserMethodVariable(KEPT.__init__)
    assert typestr(made, 3, KEPT) == f"UserMethodVariable(method) int {__name__}.Node"
    assert VariableTrackerMeta.all_kinds["UserMethodVariable"] is functions.UserMethodVariable
    with pytest.raises(InternalError, match="there is a kind of variable UserMethodVariable"):
        type("UserMethodVariable", (VariableTracker,), {})


#: All kinds that the specification names, by the family that has them.
KINDS = {
    "here": """
        VariableTracker LazyVariableTracker ConstantVariable EnumVariable SymNodeVariable
        TensorVariable UserDefinedObjectVariable UserDefinedClassVariable UserFunctionVariable
        UserMethodVariable WrapperUserFunctionVariable BuiltinVariable BaseListVariable
        TupleVariable ListVariable SizeVariable ConstDictVariable SetVariable PythonModuleVariable
        UnspecializedNNModuleVariable RegexPatternVariable WeakRefVariable LambdaVariable
        GetAttrVariable InspectSignatureVariable ComptimeVariable TorchVersionVariable
        DebuggingVariable LoggingLoggerVariable FunctoolsPartialVariable TypingVariable
        TorchInGraphFunctionVariable SkipFunctionVariable HFPretrainedConfigVariable
        GetSetDescriptorVariable MethodWrapperVariable""",
    "containers": """
        TupleIteratorVariable SliceVariable RangeVariable NamedTupleVariable
        PythonSysModulesVariable CustomizedDictVariable DefaultDictVariable ItertoolsVariable
        RestrictedListSubclassVariable""",
    "tensors": """
        TensorWithTFOverrideVariable UnspecializedPythonVariable TensorSubclassVariable""",
    "modules": """
        DelayGraphBreakVariable FSDPManagedNNModuleVariable NNModuleVariable OptimizerVariable
        CollectiveFunctionRewriteVariable StreamContextVariable StreamVariable EventVariable
        WorldMetaClassVariable ProcessGroupVariable DeviceMeshVariable PlacementClassVariable
        PlacementVariable SourcelessGraphModuleVariable""",
    "numpy and torch": """
        NumpyNdarrayVariable NumpyVariable NumpyDTypeVariable NumpyTypeInfoVariable
        AutogradFunctionVariable AutogradFunctionContextVariable SavedTensorBox
        AutogradEngineVariable TorchHigherOrderOperatorVariable SDPAParamsVariable
        NullContextVariable PreserveVersionContextVariable KeyedJaggedTensorVariable
        TritonKernelVariable AutocastModeVariable TorchCtxManagerClassVariable
        TorchScriptObjectVariable""",
}


@pytest.mark.spec("5.146")
@pytest.mark.parametrize("family", KINDS)
def test_all_kinds_exist(family: str) -> None:
    import stillframe.variables as package
    from stillframe.variables import kinds

    places = [package, *vars(kinds).values()]
    missing = [
        name for name in KINDS[family].split()
        if name not in VariableTrackerMeta.all_kinds
        and not any(hasattr(place, name) for place in places)
    ]  # fmt: skip
    if family != "here" and missing:
        pytest.skip(f"not built yet: {', '.join(missing)}")
    assert not missing
