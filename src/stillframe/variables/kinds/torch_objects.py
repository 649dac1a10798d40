"""Objects of torch and of packages beside it: scripted code, attention parameters, kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from stillframe import torch_private
from stillframe.context import TracingContext
from stillframe.source import (
    AttrSource,
    FlattenScriptObjectSource,
    GetItemSource,
    ScriptObjectQualifiedNameSource,
    Source,
)
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.graph_inputs import GraphArg
from stillframe.variables.kinds.constants import is_literal
from stillframe.variables.kinds.user_objects import UserDefinedObjectVariable
from stillframe.variables.kinds.wrappers import LambdaVariable, WrapperUserFunctionVariable
from stillframe.variables.registry import wraps_if, wraps_object, wraps_type
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator

# -- hooks and scripted functions ------------------------------------------------------------------


@wraps_type(RemovableHandle)
def wrap_hook_handle(builder: VariableBuilder, value: Any) -> VariableTracker:
    """The handle of a hook that was added before the frame began."""
    raise builder.tx.graph_break(
        f"The frame uses the handle of a hook ({builder.source.name()}).",
        why="the hook was added outside of the frame",
        hints=["add and remove hooks in one frame, or both outside of it"],
    )


@wraps_type(torch.jit.ScriptFunction)
def wrap_script_function(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A scripted function: the Python that it was made of is run in its place."""
    original = getattr(value, "_torchdynamo_inline", None)
    if original is None or vars(value).get("__name__") != "ScriptFunction":
        raise builder.tx.graph_break(
            f"The frame calls a TorchScript function ({builder.source.name()}) that was traced, "
            "or loaded from a file.",
            why="there is no Python of which it is known to do the same",
            hints=["call the Python function", "torch.jit.script the function instead"],
        )
    builder.install_guards("TYPE_MATCH")
    builder.at(AttrSource(builder.source, "_torchdynamo_inline"))(original)
    made = WrapperUserFunctionVariable(value, "_torchdynamo_inline", source=builder.source)
    builder.tx.effects.track(value, made)
    return made


# -- parameters of attention -----------------------------------------------------------------------

_PARAMS: Any = getattr(torch._C, "_SDPAParams", None)
_FIELDS = ("query", "key", "value", "attn_mask", "dropout", "is_causal", "enable_gqa")


class SDPAParamsVariable(VariableTracker):
    """The arguments of an attention, which torch's questions about kernels take."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        if self.source is None or name not in _FIELDS:
            return tx.here(getattr(self.value, name))
        return tx.wrap(getattr(self.value, name), AttrSource(self.source, name))

    def fields(self, tx: Translator) -> tuple[Any, ...]:
        """The arguments, as the program sees them."""
        return tuple(self.var_getattr(tx, name) for name in _FIELDS)

    def reconstruct(self, residue: Residue) -> None:
        residue.load_object(_PARAMS)
        for name in _FIELDS:
            residue.value(getattr(self.value, name))
        residue.call(len(_FIELDS))


def _make_params(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    made = _PARAMS(*(tx.here(a) for a in args), **{k: tx.here(v) for k, v in kwargs.items()})
    tx.effects.track(made, SDPAParamsVariable(made))
    return made


def _ask_kernel(function: Any) -> Any:
    """Answers a question whether a kernel can be used, from fakes."""

    def answer(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        params, *rest = args if args else (kwargs.pop("params"),)
        known = tx.variable(params)
        if not isinstance(known, SDPAParamsVariable):
            return function(params, *rest, **kwargs)
        fields = known.fields(tx)
        if fields[0].device.type != "cpu":
            raise tx.graph_break(
                f"The frame asks whether attention can use a kernel ({function.__name__}).",
                why="on devices of this kind it also depends on switches that no guard checks",
            )
        return function(_PARAMS(*fields), *rest, **kwargs)

    return answer


if _PARAMS is not None:

    @wraps_type(_PARAMS)
    def wrap_params(builder: VariableBuilder, value: Any) -> VariableTracker:
        """Parameters from outside; their fields are read where they are."""
        builder.install_guards("TYPE_MATCH")
        made = SDPAParamsVariable(value, source=builder.source)
        builder.tx.effects.track(value, made)
        for name in _FIELDS:
            builder.at(AttrSource(builder.source, name))(getattr(value, name))
        return made

    @wraps_object(_PARAMS)
    def wrap_params_class(builder: VariableBuilder, value: Any) -> VariableTracker:
        """The class: its objects hold fakes."""
        builder.install_guards("FUNCTION_MATCH")
        return LambdaVariable(value, _make_params, source=builder.source)

    @wraps_object(
        *(
            getattr(torch.backends.cuda, name)
            for name in (
                "can_use_flash_attention", "can_use_efficient_attention",
                "can_use_cudnn_attention",
            )
            if hasattr(torch.backends.cuda, name)
        )
    )  # fmt: skip
    def wrap_kernel_question(builder: VariableBuilder, value: Any) -> VariableTracker:
        """Whether a kernel can be used: a constant for tensors of these dtypes and sizes."""
        builder.install_guards("FUNCTION_MATCH")
        return LambdaVariable(value, _ask_kernel(value), source=builder.source)


# -- packages that may be absent -------------------------------------------------------------------


def _is_named(value: Any, module: str, *names: str) -> bool:
    """Whether a value is of a class, by the class's module and name: no import is needed."""
    return any(cls.__module__ == module and cls.__name__ in names for cls in type(value).__mro__)


class KeyedJaggedTensorVariable(UserDefinedObjectVariable):
    """Ragged tensors by key. How long the parts are is known to the data only."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        found = super().var_getattr(tx, name)
        if name in ("_length_per_key", "_offset_per_key") and isinstance(found, list):
            with _sizes_of_data():
                for index in range(len(found)):
                    tx.load_item(found, index)
        return found


@contextlib.contextmanager
def _sizes_of_data() -> Iterator[None]:
    context = TracingContext.get()
    old = context.force_unspec_int_unbacked_size_like
    context.force_unspec_int_unbacked_size_like = True
    try:
        yield
    finally:
        context.force_unspec_int_unbacked_size_like = old


@wraps_if(
    76,
    "keyed jagged tensor",
    lambda value: _is_named(value, "torchrec.sparse.jagged_tensor", "KeyedJaggedTensor"),
)
def wrap_keyed_jagged_tensor(builder: VariableBuilder, value: Any) -> VariableTracker:
    """Such a tensor: an object whose attributes are read as those of any."""
    builder.install_guards("TYPE_MATCH")
    return builder.track_object(value, KeyedJaggedTensorVariable(value))


class TritonKernelVariable(VariableTracker):
    """A kernel of Triton, without a grid yet."""

    handles_calls = True
    handles_items = True

    def call_function(self, tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise self._refusal(tx)

    def call_method(
        self, tx: Translator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        raise self._refusal(tx)

    def var_getattr(self, tx: Translator, name: str) -> Any:
        raise self._refusal(tx)

    def load_item(self, tx: Translator, key: Any) -> Any:
        raise self._refusal(tx)

    def _refusal(self, tx: Translator) -> Exception:
        return tx.graph_break(
            "The frame launches a kernel of Triton.",
            why="what a kernel writes cannot be seen from outside",
            hints=["wrap it as an operator: torch.library.triton_op"],
        )


def _is_kernel(value: Any) -> bool:
    return _is_named(value, "triton.runtime.jit", "JITFunction") or _is_named(
        value, "triton.runtime.autotuner", "Autotuner"
    )


@wraps_if(85, "triton kernel", _is_kernel)
def wrap_triton_kernel(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A kernel, or the tuner around one: the very object."""
    builder.install_guards("ID_MATCH")
    return builder.track_object(value, TritonKernelVariable(value))


# -- script objects --------------------------------------------------------------------------------


class TorchScriptObjectVariable(VariableTracker):
    """An object of a class in C++: an input of the graph, whose methods are nodes."""

    def var_getattr(self, tx: Translator, name: str) -> Any:
        return getattr(self.value, name)

    def as_proxy(self) -> Any:
        return self.value


def _is_script_object(value: Any) -> bool:
    return torch_private.is_script_object(value) and hasattr(value, "__obj_flatten__")


@wraps_if(95, "script object", _is_script_object)
def wrap_script_object(builder: VariableBuilder, value: Any) -> VariableTracker:
    """A script object, by the name of its class and by what it is made of."""
    tx, source = builder.tx, builder.source
    name = ScriptObjectQualifiedNameSource(source)
    builder.at(name).install_guards("EQUALS_MATCH")
    with torch_private.modes_taken_off(lambda mode: mode is tx.recorder.mode):
        parts = value.__obj_flatten__()  # a question of ours, no call of the program's
    _rely_on(builder, parts, FlattenScriptObjectSource(source))
    fake = tx.recorder.objects.fake_of(value)
    node = tx.inputs.add(GraphArg(source, value, fake, is_tensor=False), fake)
    tx.recorder.objects.bind(fake, node)
    made = TorchScriptObjectVariable(fake, source=source)
    tx.effects.track(value, made)
    tx.effects.track(fake, made)
    return made


def _rely_on(builder: VariableBuilder, parts: Any, source: Source) -> None:
    """Every part of a script object is what it was; tensors look as they did."""
    if is_literal(parts):
        builder.at(source).install_guards("EQUALS_MATCH")
    elif isinstance(parts, (tuple, list)):
        builder.at(source).install_guards("SEQUENCE_LENGTH")
        for index, part in enumerate(parts):
            _rely_on(builder, part, GetItemSource(source, index))
    else:
        builder.at(source)(parts)


@makes_type(*([_PARAMS] if _PARAMS is not None else []))
def make_params(tx: Translator, value: Any) -> VariableTracker:
    """Parameters that C code made."""
    return SDPAParamsVariable(value)
