"""Operators that have a shorter spelling than a call, or another one."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe import torch_private
from stillframe.export.codegen.calls import keyword
from stillframe.export.tokens import after
from stillframe.trace import control_flow

if TYPE_CHECKING:
    from stillframe.export.codegen.program import ProgramCode

aten = torch.ops.aten

_INFIX: dict[Any, str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//",
    operator.mod: "%", operator.pow: "**", operator.truediv: "/", operator.eq: "==",
    operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip

_Special = Callable[["ProgramCode", torch.fx.Node], str | None]


def _infix(code: ProgramCode, node: torch.fx.Node) -> str:
    a, b = (_operand(code, arg) for arg in node.args)
    return f"{a} {_INFIX[node.target]} {b}"


def _operand(code: ProgramCode, value: Any) -> str:
    text = code.calls.argument(value)
    return f"({text})" if text.startswith("-") else text


def _getitem(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.calls.argument(node.args[0])}[{code.calls.argument(node.args[1])}]"


def _sym_size(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.calls.argument(node.args[0])}.size({code.calls.argument(node.args[1])})"


def _extreme(function: Callable[..., Any]) -> _Special:
    def write(code: ProgramCode, node: torch.fx.Node) -> str | None:
        # of floats, torch.sym_max makes floats of both: only for integers it is Python's max
        values = [a.meta.get("val") if isinstance(a, torch.fx.Node) else a for a in node.args]
        if not all(isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool) for v in values):
            return None
        a, b = (code.calls.argument(arg) for arg in node.args)
        return f"{code.names.builtin(function)}({a}, {b})"

    return write


def _assert_scalar(code: ProgramCode, node: torch.fx.Node) -> str:
    condition, message = node.args[0], str(node.args[1])
    error = code.names.builtin(RuntimeError)
    return f"if not {_operand(code, condition)}: raise {error}({code.names.constant(message)})"


def _set_grad_enabled(code: ProgramCode, node: torch.fx.Node) -> str:
    if code.inner_grad_mode is None:  # the graph knows the mode of the caller itself
        return code.switch_grad_mode(_operand(code, node.args[0]))
    # a switch back to the mode of the capture is one to the mode of the caller
    inner = bool(node.args[0]) == code.inner_grad_mode
    return code.switch_grad_mode(str(code.inner_grad_mode) if inner else code.grad_mode)


def _control_flow(code: ProgramCode, node: torch.fx.Node) -> str:
    name = node.target.name()  # type: ignore[union-attr]
    function = code.names.bind(name, control_flow.CONTROL_FLOW[name], f"control flow: {name}")
    keywords = (f"{keyword(k)}={code.calls.argument(v)}" for k, v in node.kwargs.items())
    return f"{function}({', '.join([*(code.calls.argument(arg) for arg in node.args), *keywords])})"


def _method(code: ProgramCode, node: torch.fx.Node) -> str:
    return code.calls.call(node.target, list(node.args), dict(node.kwargs))


def _with_effects(code: ProgramCode, node: torch.fx.Node) -> str:
    _, target, *rest = node.args
    call = code.calls.call(target, rest, dict(node.kwargs))
    return f"{code.names.bind('after', after)}({call})"


def _negative(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"-{_operand(code, node.args[0])}"


def _not(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"not {_operand(code, node.args[0])}"


def _float(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.names.builtin(float)}({code.calls.argument(node.args[0])})"


def _floor(code: ProgramCode, node: torch.fx.Node) -> str:
    return f"{code.names.bind('floor', math.floor)}({code.calls.argument(node.args[0])})"


#: Target -> what writes a call of it; where that gives None, it is a call like any other.
SPECIAL: dict[Any, _Special] = {
    torch_private.with_effects(): _with_effects,
    torch_private.call_torchbind(): _method,
    **{getattr(torch.ops.higher_order, name): _control_flow for name in control_flow.CONTROL_FLOW},
    torch_private.set_grad_enabled: _set_grad_enabled,
    **dict.fromkeys(_INFIX, _infix),
    operator.getitem: _getitem,
    operator.neg: _negative,
    aten.sym_size.int: _sym_size,
    aten._assert_scalar.default: _assert_scalar,
    torch.sym_max: _extreme(max),
    torch.sym_min: _extreme(min),
    torch.sym_float: _float,
    torch.sym_not: _not,
    math.floor: _floor,
}
