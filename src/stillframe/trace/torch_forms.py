"""How a call of a torch function is written as a graph node.

A function mode hears of ``x + 1`` as ``Tensor.add``, of ``x.T`` as the ``__get__`` of a descriptor
and of ``1 - x`` as ``Tensor.__rsub__``. :func:`form_of` gives back what the user wrote: an operator
of Python, a method by its name, a property, or the function itself. A function that generated code
could not name has no form.
"""

from __future__ import annotations

import dis
import functools
import operator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch


@dataclass(frozen=True)
class Form:
    """A call as a node.

    Attributes:
        op: ``"call_function"`` or ``"call_method"``.
        target: the function, or the method's name.
        name: what the node is called.
        attribute: the property that is read or set, for ``getattr`` and ``setattr``.
        reflected: the operands change places: ``1 - x``.
    """

    op: str
    target: Any
    name: str
    attribute: str | None = None
    reflected: bool = False


_BINARY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow,
    "matmul": operator.matmul, "lshift": operator.lshift, "rshift": operator.rshift,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip
_IN_PLACE = {
    "iadd": operator.iadd, "isub": operator.isub, "imul": operator.imul,
    "itruediv": operator.itruediv, "ifloordiv": operator.ifloordiv, "imod": operator.imod,
    "ipow": operator.ipow, "ilshift": operator.ilshift, "irshift": operator.irshift,
    "iand": operator.iand, "ior": operator.ior, "ixor": operator.ixor,
}  # fmt: skip
_OTHERS = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "neg": operator.neg, "pos": operator.pos,
    "invert": operator.invert, "abs": operator.abs,
    "getitem": operator.getitem, "setitem": operator.setitem,
}  # fmt: skip

#: Methods by which torch carries out an operator of Python.
_CARRIED_OUT_BY = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "matmul": operator.matmul, "remainder": operator.mod, "neg": operator.neg,
    "add_": operator.iadd, "sub_": operator.isub, "mul_": operator.imul,
    "div_": operator.itruediv, "remainder_": operator.imod,
    "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
}  # fmt: skip

#: The instructions of Python's operators.
_OPERATOR_INSTRUCTIONS = ("BINARY_OP", "COMPARE_OP", "UNARY_")


#: Fakes have a method of their own that calls the operator.
_CONTIGUOUS = Form("call_method", "contiguous", "contiguous")


@functools.cache
def _operators() -> dict[Any, Form]:
    """Special methods of tensors -> their operators."""
    found: dict[Any, Form] = {}
    for names in (_BINARY, _IN_PLACE, _OTHERS):
        for name, function in names.items():
            method = getattr(torch.Tensor, f"__{name}__", None)
            if method is not None:
                found[method] = Form("call_function", function, name)
    for name, function in _BINARY.items():
        method = getattr(torch.Tensor, f"__r{name}__", None)
        if method is not None:
            found.setdefault(method, Form("call_function", function, name, reflected=True))
    divide = torch.Tensor.__rdiv__
    found[divide] = Form("call_function", operator.truediv, "truediv", reflected=True)
    return found


@functools.cache
def _methods_of_operators() -> dict[Any, Form]:
    return {
        getattr(torch.Tensor, name): Form("call_function", function, function.__name__)
        for name, function in _CARRIED_OUT_BY.items()
    }


def form_of(func: Any, caller: FrameType | None) -> Form | None:
    """How a node calls ``func``, or None if it cannot.

    Args:
        func: what the function mode was told.
        caller: the frame that called; its instruction tells ``x + y`` from ``x.add(y)``.
    """
    if func is torch.ops.aten.contiguous.default:
        return _CONTIGUOUS
    form = _operators().get(func)
    if form is None and caller is not None:
        form = _methods_of_operators().get(func)
        if form is not None and not _is_at_operator(caller):
            form = None
    return _plain_form(func) if form is None else form


def _is_at_operator(frame: FrameType) -> bool:
    code = frame.f_code.co_code
    return dis.opname[code[frame.f_lasti]].startswith(_OPERATOR_INSTRUCTIONS)


@functools.lru_cache(maxsize=4096)
def _plain_form(func: Any) -> Form | None:
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        attribute = getattr(getattr(func, "__self__", None), "__name__", None)
        function = getattr if name == "__get__" else setattr
        return None if attribute is None else Form("call_function", function, attribute, attribute)
    if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        packet = getattr(func, "overloadpacket", func)
        return Form("call_function", func, packet.__name__)
    if not name or not callable(func):
        return None
    if getattr(torch.Tensor, name, None) is func:
        return Form("call_method", name, name)
    return Form("call_function", func, name) if _can_be_named(func) else None


def _can_be_named(func: Any) -> bool:
    """Whether generated code finds the function under the name that fx gives it."""
    try:
        name = torch.fx.node._get_qualified_name(func)
    except RuntimeError:
        return False
    first, *rest = name.split(".")
    if first != "torch":
        return all(part.isidentifier() for part in name.split("."))
    found: Any = torch
    for part in rest:
        found = getattr(found, part, None)
    return found is func
