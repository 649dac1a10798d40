"""``inspect.signature``, and what it gives."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType, MethodType
from typing import Any

from stillframe.guards import install_guard
from stillframe.guards.kinds.registry import kind as guard_kind
from stillframe.source import AttrSource
from stillframe.variables.base import VariableTracker
from stillframe.variables.builder import VariableBuilder
from stillframe.variables.kinds.wrappers import LambdaVariable
from stillframe.variables.registry import wraps_object
from stillframe.variables.residue import Residue
from stillframe.variables.sourceless import makes_type
from stillframe.variables.translator import Translator


class InspectSignatureVariable(VariableTracker):
    """The signature of a function. It keeps its parameters in a table that is made anew."""

    def reconstruct(self, residue: Residue) -> None:
        signature: inspect.Signature = self.value
        residue.load_object(inspect.Signature)
        for parameter in signature.parameters.values():
            residue.value(parameter)
        residue.build("[{}]", len(signature.parameters))
        residue.value(signature.return_annotation)
        residue.call(2, ("return_annotation",))


@wraps_object(inspect.signature)
def wrap_signature(builder: VariableBuilder, value: Any) -> VariableTracker:
    """``inspect.signature``: of a function it is known without running it."""
    builder.install_guards("CLOSURE_MATCH")
    return LambdaVariable(value, _signature, source=builder.source)


def _signature(tx: Translator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function: Any = args[0] if len(args) == 1 and not kwargs else None
    inner = function.__func__ if type(function) is MethodType else function
    if type(inner) is not FunctionType or not _is_plain(tx, inner):
        return tx.call_plainly(inspect.signature, args, kwargs)
    tx.inline(inner)  # its code and defaults are relied on
    source = tx.source(inner)
    if source is not None:
        annotations = AttrSource(source, "__annotations__")
        install_guard(
            annotations.make_guard(functools.partial(guard_kind("DICT_CONST_KEYS"), ordered=True))
        )
        for name in inner.__annotations__:
            tx.load_item(tx.load_attr(inner, "__annotations__"), name)
    return inspect.signature(function)


def _is_plain(tx: Translator, function: FunctionType) -> bool:
    """Whether the signature is that of the function itself."""
    names = ("__wrapped__", "__signature__")
    return not any(bool(tx.load_attr_or(function, name, ())) for name in names)


@makes_type(inspect.Signature)
def make_signature(tx: Translator, value: Any) -> VariableTracker:
    """A signature that the program has asked for."""
    return InspectSignatureVariable(value)
