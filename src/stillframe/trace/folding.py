"""Values that are known although they sit in tensors.

Three kinds of scalar tensor have a value that Python may ask for without depending on the data:

- one that the program made from constants (``torch.tensor(3) + 1``): the real value;
- one that it made from sizes (``torch.div(x.shape[1], 8, rounding_mode="floor")``): an expression;
- an integer buffer or constant of the module: its value at export. Where Python asks for it, or for
  what was made from it, the program checks at run time that it still is.

Between integers there may be quotients (``ratios.py``). An in-place operator on the memory of a
folded tensor makes it unknown again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stillframe import symbolic as sym
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr, unwrap
from stillframe.trace import ratios
from stillframe.trace.ratios import Ratio

if TYPE_CHECKING:
    from stillframe.trace.recorder import Recorder

aten = torch.ops.aten

CONSTANT_NUMEL_LIMIT = 1
_NUMBERS = (int, float, bool)


def constant_of(value: Any) -> torch.Tensor | None:
    """The real value of a fake that the program made from constants, if it still holds."""
    if isinstance(value, FakeTensor) and not value.storage_.written:
        return value.constant
    return None


def value_of(recorder: Recorder, tensor: Any) -> Any:
    """The number in a scalar tensor (a Python number or an expression), or None if unknown."""
    if not isinstance(tensor, FakeTensor) or tensor.storage_.written:
        return None
    if tensor.constant is not None:
        return tensor.constant.item()
    if tensor.symbolic_value is not None:
        known = all(_relied_on(recorder, state) is not None for state in tensor.relies_on)
        return tensor.symbolic_value if known else None
    return _relied_on(recorder, tensor)


def _state_value(recorder: Recorder, tensor: FakeTensor) -> Any:
    """The integer in a buffer or constant that nothing has written yet, or None."""
    real = recorder.state_values.get(id(tensor))
    if real is None or tensor.storage_.written:
        return None
    if real.numel() != 1 or real.is_floating_point() or real.is_complex():
        return None
    with torch.utils._python_dispatch._disable_current_modes():
        return real.item()


def _relied_on(recorder: Recorder, tensor: FakeTensor) -> Any:
    """The same, with a check in the program that it stays that."""
    known = recorder.checked_values.get(id(tensor))
    if known is not None:
        return known
    value = _state_value(recorder, tensor)
    if value is not None:
        recorder.checked_values[id(tensor)] = value
        with recorder.at_root():
            _check_value(recorder, tensor, value)
    return value


def _check_value(recorder: Recorder, tensor: FakeTensor, value: Any) -> None:
    """Make the program check that the scalar in ``tensor`` is ``value``."""
    item = recorder.create(aten._local_scalar_dense.default, (recorder.operand(tensor),), {})
    item.meta["val"] = value
    same = recorder.create(torch.ops.aten.eq.Scalar, (recorder.operand(tensor), value), {})
    same.meta["val"] = recorder.fake_mode.run(aten.eq.Scalar, (tensor, value), {})
    message = f"the program was made for the value {value} of the module's {tensor.fx_node}"
    check = recorder.create(aten._assert_async.msg, (same, message), {})
    check.meta["val"] = None


# -- folding -------------------------------------------------------------------------------------


def fold(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """Give ``result`` its value where it is a scalar and all operands are known."""
    if type(result) is not FakeTensor or not all(type(s) is int and s == 1 for s in result.sizes):
        return
    if _fold_constants(func, args, kwargs, result):
        return
    if any(result is arg for arg in args):  # handed back: what is known of it stays known
        return
    rules = ratios.RULES if result.dtype.is_floating_point else _SYMBOLIC
    if func in rules:
        _fold_symbolic(recorder, rules[func], args, kwargs, result)


def write_constants(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Carry out an in-place operator on known constants; False if an operand is not known."""
    reals = _constants(args)
    if reals is None or any(isinstance(v, torch.Tensor) for v in kwargs.values()):
        return False
    with torch.no_grad():
        func(*reals, **kwargs)
    return True


def _fold_constants(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: FakeTensor
) -> bool:
    reals = _constants(args)
    if reals is None or any(isinstance(v, torch.Tensor) for v in kwargs.values()):
        return False
    with torch.no_grad():
        result.constant = func(*reals, **kwargs)
    return True


def _constants(args: tuple[Any, ...]) -> list[Any] | None:
    """The arguments, tensors as real values; None if one is unknown, or none is a tensor."""
    reals: list[Any] = []
    any_constant = False
    for arg in args:
        if isinstance(arg, torch.Tensor):
            constant = constant_of(arg)
            if constant is None:
                return None
            any_constant = True
            reals.append(constant)
        elif isinstance(arg, (list, tuple)) and not all(type(a) in _NUMBERS for a in arg):
            return None
        elif isinstance(arg, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return None
        else:
            reals.append(arg)
    return reals if any_constant else None


def _fold_symbolic(
    recorder: Recorder,
    rule: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: FakeTensor,
) -> None:
    values = [_number(recorder, a) for a in args]
    if any(v is None for v in values):
        return
    folded = rule(result, *values, **kwargs)
    if isinstance(folded, Ratio):
        result.known_ratio = folded
    elif folded is not None and _fits(result, folded):
        result.symbolic_value = folded
    else:
        return
    sources = [source for arg in args for source in _sources(arg)]
    result.relies_on = tuple({id(source): source for source in sources}.values())


def _sources(operand: Any) -> tuple[FakeTensor, ...]:
    """The buffers and constants that the value of a known operand follows from."""
    if not isinstance(operand, FakeTensor) or operand.constant is not None:
        return ()
    if operand.symbolic_value is None and operand.known_ratio is None:
        return (operand,)
    return operand.relies_on


def _fits(result: FakeTensor, value: Any) -> bool:
    """Whether a tensor of the dtype of ``result`` holds the value as it is."""
    sort = value.sort if isinstance(value, Expr) else type(value).__name__
    if result.dtype is torch.bool or sort != "int":
        return result.dtype is torch.bool and sort == "bool"
    if result.dtype is torch.int64:
        return True
    if result.dtype not in _SMALL_INTEGERS:
        return False
    limits = torch.iinfo(result.dtype)
    inside = sym.and_(sym.ge(value, limits.min), sym.le(value, limits.max))
    return result.env.facts.decide(inside) is True


def _number(recorder: Recorder, value: Any) -> Any:
    """An operand as a number, an expression or a ratio; a scalar tensor by its known value."""
    if isinstance(value, FakeTensor):
        return _number_in(recorder, value)
    if isinstance(value, (torch.dtype, str)):
        return value
    plain = to_size(value)
    return plain if isinstance(plain, (int, Expr)) else None


def _number_in(recorder: Recorder, tensor: FakeTensor) -> Any:
    if tensor.storage_.written or tensor.dtype is torch.bool:
        return None
    if tensor.dtype.is_floating_point:
        return tensor.known_ratio
    if tensor.constant is not None:
        return tensor.constant.item()
    if tensor.symbolic_value is not None:
        return tensor.symbolic_value
    return _state_value(recorder, tensor)


def _divide(result: FakeTensor, a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    nonnegative = result.env.facts.decide(sym.and_(sym.ge(a, 0), sym.gt(b, 0))) is True
    if rounding_mode == "floor" or (rounding_mode == "trunc" and nonnegative):
        return unwrap(sym.floordiv(a, b))
    return None


def _cast(result: FakeTensor, a: Any, dtype: Any = None, *rest: Any, **kwargs: Any) -> Any:
    return ratios.as_integer(result, a) if isinstance(a, Ratio) else a


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def rule(result: FakeTensor, a: Any, b: Any) -> Any:
        if isinstance(a, Ratio) or isinstance(b, Ratio):
            return None
        return unwrap(compare(a, b))

    return rule


_SMALL_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint8)

_COMPARISONS: dict[Any, Callable[..., Any]] = {
    getattr(getattr(aten, name), overload): _compared(getattr(sym, name))
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Tensor", "Scalar")
}

#: Operators with results that are no floats.
_SYMBOLIC: dict[Any, Callable[..., Any]] = {
    **_COMPARISONS,
    aten.add.Tensor: lambda r, a, b, *, alpha=1: unwrap(sym.add(a, sym.mul(b, alpha))),
    aten.sub.Tensor: lambda r, a, b, *, alpha=1: unwrap(sym.sub(a, sym.mul(b, alpha))),
    aten.mul.Tensor: lambda r, a, b: unwrap(sym.mul(a, b)),
    aten.rsub.Scalar: lambda r, a, b, alpha=1: unwrap(sym.sub(b, sym.mul(a, alpha))),
    aten.rsub.Tensor: lambda r, a, b, *, alpha=1: unwrap(sym.sub(b, sym.mul(a, alpha))),
    aten.neg.default: lambda r, a: unwrap(sym.neg(a)),
    aten.div.Tensor_mode: _divide,
    aten.floor_divide.default: lambda r, a, b: unwrap(sym.floordiv(a, b)),
    aten.to.dtype: _cast,
    aten.detach.default: _cast,
    aten.scalar_tensor.default: _cast,
}
