"""Operators of TorchScript that are no operators of the dispatcher, as Python functions.

Three tables. ``BUILTINS`` works on containers and asks tensors questions; it is always used.
``ON_SYMBOLS`` is arithmetic, used only where an operand is symbolic; plain numbers go to torch's
own operator, so that its arithmetic is exact. ``BANNED`` must not run while a program is captured.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch

from stillframe.errors import InternalError
from stillframe.interop.script_values import (
    MEMORY_FORMATS,
    InexactText,
    dtype_of,
    number_of,
)

Function = Callable[..., Any]

_aten = torch.ops.aten

BUILTINS: dict[str, Function] = {}

BANNED = frozenset(
    {
        "aten::manual_seed", "aten::seed", "aten::initial_seed", "aten::save", "aten::from_file",
        "aten::time", "aten::backward", "aten::grad", "prim::TimePoint", "prim::AddStatValue",
        "prim::grad", "prim::id", "aten::hash", "prim::rpc_async", "prim::rpc_sync",
    }
)  # fmt: skip


#: What may be done with a text that TorchScript would write with other digits.
ON_INEXACT_TEXT = frozenset(
    {
        "aten::format", "aten::percentFormat", "aten::str", "aten::add.str", "aten::warn",
        "prim::Print", "prim::unchecked_cast", "aten::_assert_async.msg",
    }
)  # fmt: skip


def builtin(*names: str) -> Callable[[Function], Function]:
    """Register a function under operators, with or without an overload."""

    def put(function: Function) -> Function:
        for name in names:
            if name in BUILTINS:
                raise InternalError(f"two functions for {name}")
            BUILTINS[name] = function
        return function

    return put


# -- lists ----------------------------------------------------------------------------------------


@builtin("aten::append.t")
def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


@builtin("aten::_set_item.t")
def _set_item(values: list[Any], index: int, value: Any) -> list[Any]:
    values[index] = value
    return values


@builtin("aten::Delete.t", "aten::Delete.Dict_str", "aten::Delete.Dict_int")
def _delete(values: Any, index: Any) -> None:
    del values[index]


@builtin("aten::add_.t")
def _extend_in_place(values: list[Any], more: list[Any]) -> list[Any]:
    values += list(more)
    return values


@builtin("aten::mul_.t")
def _repeat_in_place(values: list[Any], times: int) -> list[Any]:
    values *= operator.index(times)
    return values


@builtin("aten::slice.t")
def _slice(values: list[Any], start: Any, end: Any, step: int) -> list[Any]:
    return values[slice(start, end, step)]


@builtin("aten::eq.int_list", "aten::eq.float_list", "aten::eq.bool_list", "aten::eq.str_list")
def _equal_lists(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(bool(x == y) for x, y in zip(a, b, strict=True))


@builtin("aten::ne.int_list", "aten::ne.float_list", "aten::ne.bool_list", "aten::ne.str_list")
def _unequal_lists(a: list[Any], b: list[Any]) -> bool:
    return not _equal_lists(a, b)


@builtin("aten::__contains__.int_list")
def _list_contains(values: list[Any], value: Any) -> bool:
    return any(bool(v == value) for v in values)


BUILTINS |= {
    "aten::len.t": len,
    "aten::__getitem__.t": lambda values, index: values[index],
    "aten::select.t": lambda values, index: values[index],
    "aten::extend.t": lambda values, more: values.extend(list(more)),
    "aten::insert.t": lambda values, index, value: values.insert(index, value),
    "aten::pop.t": lambda values, index: values.pop(index),
    "aten::reverse.t": lambda values: values.reverse(),
    "aten::clear.t": lambda values: values.clear(),
    "aten::copy.t": list,
    "aten::list.t": list,
    "aten::add.t": lambda a, b: [*a, *b],
    "aten::mul.left_t": lambda values, times: values * operator.index(times),
    "aten::mul.right_": lambda times, values: values * operator.index(times),
    "aten::sort.int": lambda values, reverse: values.sort(reverse=reverse),
    "aten::sort.str": lambda values, reverse: values.sort(reverse=reverse),
    "prim::rangelist": lambda n: list(range(operator.index(n))),
}


# -- dicts ----------------------------------------------------------------------------------------


@builtin("aten::_set_item.str", "aten::_set_item.int")
def _set_entry(table: dict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value


_ON_DICTS: dict[str, Function] = {
    "aten::__getitem__.Dict_{}": lambda table, key: table[key],
    "aten::__contains__.{}": lambda table, key: key in table,
    "aten::len.Dict_{}": len,
    "aten::keys.{}": list,
    "aten::values.{}": lambda table: list(table.values()),
    "aten::items.{}": lambda table: list(table.items()),
    "aten::get.{}": lambda table, key: table.get(key),
    "aten::get.default_{}": lambda table, key, default: table.get(key, default),
    "aten::setdefault.{}": lambda table, key, default: table.setdefault(key, default),
    "aten::pop.Dict_{}": lambda table, key: table.pop(key),
    "aten::pop.Dict_default_{}": lambda table, key, default: table.pop(key, default),
    "aten::update.{}": lambda table, more: table.update(more),
    "aten::copy.Dict_{}": dict,
    "aten::dict.Dict_{}": dict,
    "aten::dict.{}": dict,
    "aten::clear.{}": lambda table: table.clear(),
}
for _name, _function in _ON_DICTS.items():
    builtin(*(_name.format(key) for key in ("str", "int")))(_function)
BUILTINS["aten::dict"] = dict


# -- questions to tensors -------------------------------------------------------------------------

_PROPERTIES = (
    "requires_grad", "is_cuda", "is_cpu", "is_xpu", "is_xla", "is_mps", "is_meta", "is_mkldnn",
    "is_sparse", "is_sparse_csr", "is_quantized", "is_nested", "is_ipu", "is_vulkan", "is_mtia",
    "is_maia", "device", "itemsize", "nbytes", "data",
)  # fmt: skip
BUILTINS |= {f"prim::{name}": operator.attrgetter(name) for name in _PROPERTIES}
BUILTINS |= {
    "prim::dtype": lambda x: number_of(x.dtype),
    "aten::dim": lambda x: x.dim(),
    "aten::numel": lambda x: x.numel(),
    "aten::size": lambda x: list(x.shape),
    "aten::size.int": lambda x, dim: x.size(dim),
    "aten::sym_size": lambda x: list(x.shape),
    "aten::sym_size.int": lambda x, dim: x.size(dim),
    "aten::stride": lambda x: list(x.stride()),
    "aten::stride.int": lambda x, dim: x.stride(dim),
    "aten::storage_offset": lambda x: x.storage_offset(),
    "aten::element_size": lambda x: x.element_size(),
    "aten::len.Tensor": lambda x: x.size(0),
    "aten::is_contiguous": lambda x: x.is_contiguous(),
    "aten::is_floating_point": lambda x: x.is_floating_point(),
    "aten::is_complex": lambda x: x.is_complex(),
    "aten::is_signed": lambda x: x.is_signed(),
    "aten::is_leaf": lambda x: x.is_leaf,
    "aten::is_grad_enabled": lambda: torch.is_grad_enabled(),  # captures replace it
    "aten::result_type.Tensor": lambda a, b: number_of(torch.result_type(a, b)),
    "aten::result_type.Scalar": lambda a, b: number_of(torch.result_type(a, b)),
}


@builtin("aten::is_contiguous.memory_format")
def _is_contiguous(x: torch.Tensor, memory_format: int) -> bool:
    return x.is_contiguous(memory_format=MEMORY_FORMATS[memory_format])


@builtin("aten::set_grad_enabled")
def _set_grad_enabled(enabled: bool) -> None:
    torch.set_grad_enabled(enabled)


@builtin("aten::has_torch_function")
def _has_torch_function(*values: Any) -> bool:
    return False  # what it is inside TorchScript


@builtin("aten::warn")
def _warn(message: str, stacklevel: int) -> None:
    warnings.warn(str(message), stacklevel=stacklevel)


# -- between tensors and numbers ------------------------------------------------------------------


@builtin("prim::NumToTensor.Scalar", "prim::NumToTensor.bool")
def _number_to_tensor(number: Any) -> torch.Tensor:
    if isinstance(number, (float, torch.SymFloat)):
        return scalar(number, torch.float64)
    return scalar(number, torch.bool if _is_bool(number) else torch.int64)


def _is_bool(number: Any) -> bool:
    return isinstance(number, (bool, torch.SymBool))


def scalar(number: Any, dtype: torch.dtype, device: Any = None) -> torch.Tensor:
    """A tensor of one number, whose value a capture knows."""
    made: torch.Tensor = _aten.scalar_tensor.default(number, dtype=dtype, device=device)
    return made


@builtin("aten::Int.Tensor", "aten::IntImplicit")
def _int_of(x: torch.Tensor) -> Any:
    value = x.item()
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        return torch.sym_int(value)
    return value if isinstance(value, torch.SymInt) else int(value)


@builtin("aten::Float.Tensor", "aten::FloatImplicit")
def _float_of(x: torch.Tensor) -> Any:
    value: Any = x.item()
    return torch.sym_float(value)


@builtin("aten::ScalarImplicit", "aten::item", "prim::ImplicitTensorToNum")
def _number_of(x: torch.Tensor) -> Any:
    return x.item()


@builtin("aten::Bool.Tensor")
def _bool_of(x: torch.Tensor) -> bool:
    return bool(x)


@builtin("prim::tolist")
def _tolist(x: torch.Tensor, *_: Any) -> Any:
    return x.tolist()


@builtin(
    "aten::tensor", "aten::tensor.int", "aten::tensor.float", "aten::tensor.bool",
    "aten::tensor.complex",
)  # fmt: skip
def _tensor(data: Any, dtype: Any, device: Any, requires_grad: bool) -> torch.Tensor:
    # said only where it is so: symbolic numbers are taken without this option
    options = {"requires_grad": True} if requires_grad else {}
    return torch.tensor(data, dtype=dtype_of(dtype), device=device, **options)


@builtin(
    "aten::as_tensor", "aten::as_tensor.int", "aten::as_tensor.float", "aten::as_tensor.bool",
    "aten::as_tensor.complex", "aten::as_tensor.list",
)  # fmt: skip
def _as_tensor(data: Any, dtype: Any, device: Any) -> torch.Tensor:
    if isinstance(data, torch.Tensor):
        return data.to(device=device, dtype=dtype_of(dtype))
    return torch.tensor(data, dtype=dtype_of(dtype), device=device)


@builtin("aten::to.prim_Device")
def _to_device(x: torch.Tensor, device: Any, dtype: Any, non_blocking: bool, copy: bool) -> Any:
    return x.to(device=device, dtype=dtype_of(dtype), non_blocking=non_blocking, copy=copy)


@builtin("aten::to.prim_dtype")
def _to_dtype(x: torch.Tensor, dtype: Any, non_blocking: bool, copy: bool) -> Any:
    return x.to(dtype=dtype_of(dtype) or x.dtype, copy=copy)


@builtin("aten::copy_.Tensor", "aten::copy_.int", "aten::copy_.float")
def _copy_in_place(x: torch.Tensor, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        value = scalar(value, x.dtype, x.device)
    return x.copy_(value)


BUILTINS |= {
    "aten::split": lambda x, sizes, dim: list(_aten.split_with_sizes.default(x, sizes, dim)),
    "aten::index.Tensor_hacked_twin": _aten.index.Tensor,
    "aten::index_put_.hacked_twin": _aten.index_put_.default,
    "aten::index_put.hacked_twin": _aten.index_put.default,
    "aten::cpu": lambda x: x.cpu(),
    "aten::numpy_T.a": lambda x: _aten.numpy_T.default(x),
    "aten::mT.a": lambda x: _aten.mT.default(x),
    "aten::mH.a": lambda x: _aten.mH.default(x),
    "aten::matrix_H.a": lambda x: _aten.matrix_H.default(x),
}


# -- text -----------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """A value as text, where a symbolic number need not be known."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(v) for v in value)}]"
    return f"{value}"


def _is_exact(value: Any) -> bool:
    """Whether Python and TorchScript write a value alike."""
    return type(value) in (str, int)


@builtin("aten::format")
def _format(pattern: str, *values: Any) -> str:
    text = pattern
    for value in values:
        text = text.replace("{}", _text(value), 1)
    is_exact = _is_exact(pattern) and all(_is_exact(v) for v in values)
    return text if is_exact and "{" not in text else InexactText(text)


@builtin("aten::percentFormat")
def _percent_format(pattern: str, *values: Any) -> str:
    return InexactText(" ".join((pattern, *map(_text, values))))


@builtin("aten::str")
def _str(value: Any) -> str:
    return str(value) if _is_exact(value) else InexactText(_text(value))


@builtin("prim::Print")
def _print(*values: Any) -> None:
    print(*map(_text, values))


@builtin("aten::add.str")
def _add_texts(a: str, b: str) -> str:
    is_exact = not isinstance(a, InexactText) and not isinstance(b, InexactText)
    return a + b if is_exact else InexactText(a + b)


BUILTINS |= {
    "prim::EnumName": lambda member: member.name,
    "prim::EnumValue.int": lambda member: member.value,
    "prim::EnumValue.float": lambda member: member.value,
    "prim::EnumValue.str": lambda member: member.value,
    "aten::eq.enum": lambda a, b: a == b,
    "aten::ne.enum": lambda a, b: a != b,
    "prim::unchecked_cast": lambda value: value,
    "prim::unchecked_unwrap_optional": lambda value: value,
    "aten::_unwrap_optional": lambda value: value,
    "aten::wait": lambda value: value,
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleUnpack": lambda values: values,
    "prim::ListUnpack": lambda values: values,
    "prim::TupleIndex": lambda values, index: values[index],
    "prim::DictConstruct": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "prim::Uninitialized": lambda: None,
}


# -- arithmetic on symbolic numbers ---------------------------------------------------------------


def _range_length(low: Any, high: Any, step: int) -> Any:
    if isinstance(step, torch.SymInt) or step < 0:
        return len(range(operator.index(low), operator.index(high), operator.index(step)))
    return torch.sym_max(0, -((low - high) // step))


def _reduced(function: Function) -> Function:
    def reduce(values: list[Any]) -> Any:
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return reduce


def _overloads(name: str, function: Function, *overloads: str) -> dict[str, Function]:
    return {f"{name}.{overload}": function for overload in overloads}


_MIXED = ("int", "float", "int_float", "float_int")
_BINARY: dict[str, Function] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip

ON_SYMBOLS: dict[str, Function] = {}
for _name, _function in _BINARY.items():
    ON_SYMBOLS |= _overloads(f"aten::{_name}", _function, *_MIXED)
    ON_SYMBOLS[f"aten::{_name}"] = _function  # on scalars of either kind
for _name, _function in (("max", torch.sym_max), ("min", torch.sym_min)):
    ON_SYMBOLS |= _overloads(f"prim::{_name}", _function, "int", "float")
    ON_SYMBOLS[f"prim::{_name}.self_int"] = _reduced(_function)
ON_SYMBOLS |= {
    **_overloads("aten::div", operator.truediv, "int", "float"),
    "aten::floordiv.int": operator.floordiv,
    "aten::remainder.int": operator.mod,
    "aten::neg.int": operator.neg,
    "aten::neg.float": operator.neg,
    "prim::abs.int": abs,
    "prim::abs.float": abs,
    "aten::eq.bool": operator.eq,
    "aten::ne.bool": operator.ne,
    "aten::__not__": torch.sym_not,
    "aten::__and__.bool": operator.and_,
    "aten::__or__.bool": operator.or_,
    "aten::Bool.int": lambda n: n != 0,
    "aten::Bool.float": lambda n: n != 0,
    "aten::Int.float": torch.sym_int,
    "aten::Int.bool": torch.sym_int,
    "aten::Int.Scalar": torch.sym_int,
    "aten::Float.int": torch.sym_float,
    "aten::Float.Scalar": torch.sym_float,
    "aten::floor.float": math.floor,
    "aten::ceil.float": math.ceil,
    "aten::floor.int": lambda n: n,
    "aten::ceil.int": lambda n: n,
    "aten::sqrt.int": math.sqrt,
    "aten::sqrt.float": math.sqrt,
    "aten::sum.int": sum,
    "aten::__range_length": _range_length,
    "aten::__derive_index": lambda i, start, step: start + i * step,
}
