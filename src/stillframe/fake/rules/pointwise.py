"""Elementwise arithmetic, comparison, logic and functions of one to three operands.

The operators come in families that differ only in how the result's dtype follows from the
operands' and in what operands are cast to before (which shows in the result's strides). Each family
is a name list and one rule; overloads with numbers (``add.Scalar``) take the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from stillframe.fake.context import RuleContext
from stillframe.fake.registry import rule
from stillframe.fake.rules.elementwise import (
    as_float,
    complex_of,
    contiguous,
    dense_like,
    elementwise,
    fit,
    mapped,
    promoted,
    real_of,
    refuse_overlap,
    whole_copy,
    write_into,
)
from stillframe.fake.rules.sizing import must
from stillframe.fake.tensor import FakeTensor

aten = torch.ops.aten
DtypeRule = Callable[[torch.dtype], torch.dtype]


def overloads(names: str) -> Iterator[Any]:
    """The functional and in-place overloads of the named operators that take and return tensors."""
    for name in names.split():
        packet = getattr(aten, name)
        for overload in packet.overloads():
            op = getattr(packet, overload)
            schema = op._schema
            if (
                schema.arguments
                and not any(a.is_out for a in schema.arguments)
                and str(schema.arguments[0].type) in ("Tensor", "number", "Scalar")
                and [str(r.type) for r in schema.returns] == ["Tensor"]
                and any(str(a.type) == "Tensor" for a in schema.arguments)
            ):
                yield op


def _names(names: str, *, inplace: bool) -> str:
    return " ".join(f"{n}_" for n in names.split()) if inplace else names


def _existing(names: str) -> str:
    return " ".join(n for n in names.split() if hasattr(aten, n))


# -- one operand -----------------------------------------------------------------------------------


def unary(dtype_of: DtypeRule) -> Callable[..., FakeTensor]:
    """A rule for functions of one tensor; further arguments do not matter."""

    def unary_rule(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
        return mapped(ctx, x, dtype_of(x.dtype))

    return unary_rule


def unary_(dtype_of: DtypeRule) -> Callable[..., FakeTensor]:
    """The in-place form of :func:`unary`."""

    def unary_rule_(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
        return write_into(ctx, x, (), dtype_of(x.dtype))

    return unary_rule_


def _same(dtype: torch.dtype) -> torch.dtype:
    return dtype


def _bool(dtype: torch.dtype) -> torch.dtype:
    return torch.bool


def _bool_to_int(dtype: torch.dtype) -> torch.dtype:
    return torch.int64 if dtype is torch.bool else dtype


_UNARY: dict[DtypeRule, str] = {
    # x -> a value of the same kind
    _same: ("sgn sign ceil floor round trunc fix frac bitwise_not nan_to_num special_round"),
    # integers go to the default float dtype
    as_float: (
        "acos arccos acosh arccosh asin arcsin asinh arcsinh atan arctan atanh arctanh cos cosh "
        "sin sinh tan tanh exp exp2 expm1 log log10 log1p log2 sqrt rsqrt reciprocal sigmoid "
        "erf erfc erfinv digamma lgamma i0 sinc deg2rad rad2deg logit "
        "special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 "
        "special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 "
        "special_expit special_expm1 special_gammaln special_i0 special_i0e special_i1 "
        "special_i1e special_log1p special_log_ndtr special_logit special_modified_bessel_i0 "
        "special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 "
        "special_ndtr special_ndtri special_psi special_digamma "
        "special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_sinc "
        "special_spherical_bessel_j0"
    ),
    _bool: "isnan isinf isfinite isneginf isposinf signbit isreal logical_not",
    real_of: "abs absolute",
    _bool_to_int: "square",
}

for _dtype_of, _list in _UNARY.items():
    rule(*overloads(_list))(unary(_dtype_of))
    _in_place = _existing(_names(_list, inplace=True))
    # the in-place form of a predicate writes 0 and 1 in the tensor's own dtype
    if _dtype_of is not real_of:
        rule(*overloads(_in_place))(unary_(_same if _dtype_of is _bool else _dtype_of))


@rule(aten.neg.default, aten.negative.default)
def neg(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return mapped(ctx, neg_(ctx, x))


@rule(aten.neg_.default, aten.negative_.default)
def neg_(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Refused for bools."""
    if x.dtype is torch.bool:
        raise RuntimeError("Negation, the `-` operator, on a bool tensor is not supported.")
    return x


@rule(aten.abs_.default, aten.absolute_.default)
def abs_(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """The tensor cannot change its dtype to the real one."""
    if x.dtype.is_complex:
        raise RuntimeError("In-place abs is not supported for complex tensors.")
    return write_into(ctx, x, (), x.dtype)


@rule(aten.positive.default)
def positive(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Returns its argument."""
    return x


@rule(aten.mvlgamma.default, aten.special_multigammaln.default)
def mvlgamma(ctx: RuleContext, x: FakeTensor, p: int) -> FakeTensor:
    """Ends in a sum, so it is row-major."""
    return contiguous(ctx, x.sizes, as_float(x.dtype), x.device)


@rule(aten.mvlgamma_.default)
def mvlgamma_(ctx: RuleContext, x: FakeTensor, p: int) -> FakeTensor:
    return write_into(ctx, x, (), as_float(x.dtype))


@rule(aten.angle.default)
def angle(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Of complex numbers it is copied out of a complex temporary into row-major memory."""
    if x.dtype.is_complex:
        return contiguous(ctx, x.sizes, real_of(x.dtype), x.device)
    return mapped(ctx, x, as_float(x.dtype))


@rule(aten.conj_physical.default, aten._conj_physical.default)
def conj_physical(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """Returns its argument if that is real."""
    return dense_like(ctx, x) if x.dtype.is_complex else x


@rule(aten.conj.default, aten._conj.default)
def conj(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    """A view of complex numbers (with a flag on it); real ones are returned as they are."""
    return ctx.alias(x) if x.dtype.is_complex else x


@rule(aten.conj_physical_.default)
def conj_physical_(ctx: RuleContext, x: FakeTensor) -> FakeTensor:
    return x


@rule(aten.polygamma.default, aten.special_polygamma.default)
def polygamma(ctx: RuleContext, n: int, x: FakeTensor) -> FakeTensor:
    return mapped(ctx, x, as_float(x.dtype))


@rule(aten.polygamma_.default)
def polygamma_(ctx: RuleContext, x: FakeTensor, n: int) -> FakeTensor:
    return write_into(ctx, x, (), as_float(x.dtype))


@rule(aten.frexp.Tensor)
def frexp(ctx: RuleContext, x: FakeTensor) -> tuple[FakeTensor, FakeTensor]:
    return mapped(ctx, x), mapped(ctx, x, torch.int32)


# -- two operands ----------------------------------------------------------------------------------


def binary(dtype_of: DtypeRule, common_of: DtypeRule = _same) -> Callable[..., FakeTensor]:
    """A rule for functions of two operands, either of which may be a number.

    Args:
        dtype_of: promoted dtype -> dtype of the result.
        common_of: promoted dtype -> dtype that operands are cast to.
    """
    same = dtype_of is _same and common_of is _same

    def binary_rule(ctx: RuleContext, a: Any, b: Any, *_: Any, **__: Any) -> FakeTensor:
        dtype = promoted(ctx, a, b)
        if same:
            result = common = dtype
        else:
            result, common = dtype_of(dtype), common_of(dtype)
        if not isinstance(b, FakeTensor):
            return elementwise(ctx, (a,), result, common)
        if not isinstance(a, FakeTensor):
            return elementwise(ctx, (b,), result, common)
        return elementwise(ctx, (a, b), result, common)

    return binary_rule


def binary_(dtype_of: DtypeRule) -> Callable[..., FakeTensor]:
    """The in-place form of :func:`binary`."""

    def binary_rule_(ctx: RuleContext, a: FakeTensor, b: Any, *_: Any, **__: Any) -> FakeTensor:
        dtype = dtype_of(promoted(ctx, a, b))
        return write_into(ctx, a, (b,) if isinstance(b, FakeTensor) else (), dtype)

    return binary_rule_


_ARITHMETIC = (
    "add sub subtract mul multiply fmod remainder maximum minimum fmax fmin hypot gcd lcm "
    "heaviside nextafter logaddexp logaddexp2 igamma igammac "
    "special_gammainc special_gammaincc bitwise_and bitwise_or bitwise_xor bitwise_left_shift "
    "bitwise_right_shift floor_divide __and__ __or__ __xor__ __lshift__ __rshift__ rsub _add_relu"
)
_FLOATING = (
    "true_divide atan2 arctan2 xlogy copysign special_xlogy special_xlog1py special_zeta "
    + " ".join(
        f"special_{kind}"
        for kind in (
            "chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v "
            "chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he "
            "laguerre_polynomial_l legendre_polynomial_p shifted_chebyshev_polynomial_t "
            "shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v "
            "shifted_chebyshev_polynomial_w"
        ).split()
    )
)
_COMPARISON = (
    "eq ne not_equal lt less le less_equal gt greater ge greater_equal "
    "logical_and logical_or logical_xor"
)
_BINARY: dict[DtypeRule, str] = {_same: _ARITHMETIC, as_float: _FLOATING, _bool: _COMPARISON}

for _dtype_of, _list in _BINARY.items():
    _common = as_float if _dtype_of is as_float else _same
    rule(*overloads(_existing(_list)))(binary(_dtype_of, _common))
    _in_place = _existing(_names(_list, inplace=True))
    rule(*overloads(_in_place))(binary_(_bool if _dtype_of is _bool else _dtype_of))

rule(*overloads("__iand__ __ior__ __ixor__ __ilshift__ __irshift__"))(binary_(_same))
rule(aten.max.other, aten.min.other)(binary(_same))
rule(aten.div.Tensor, aten.div.Scalar, aten.divide.Tensor, aten.divide.Scalar)(
    binary(as_float, as_float)
)
rule(aten.div_.Tensor, aten.div_.Scalar, aten.divide_.Tensor, aten.divide_.Scalar)(
    binary_(as_float)
)


@rule(aten.div.Tensor_mode, aten.div.Scalar_mode, aten.divide.Tensor_mode, aten.divide.Scalar_mode)
def div_mode(
    ctx: RuleContext, a: FakeTensor, b: Any, *, rounding_mode: str | None = None
) -> FakeTensor:
    """True division without a mode; "trunc" and "floor" keep integers."""
    return (_true_div if rounding_mode is None else _round_div)(ctx, a, b)


@rule(
    aten.div_.Tensor_mode, aten.div_.Scalar_mode, aten.divide_.Tensor_mode, aten.divide_.Scalar_mode
)
def div_mode_(
    ctx: RuleContext, a: FakeTensor, b: Any, *, rounding_mode: str | None = None
) -> FakeTensor:
    return (_true_div_ if rounding_mode is None else _round_div_)(ctx, a, b)


_true_div, _round_div = binary(as_float, as_float), binary(_same)
_true_div_, _round_div_ = binary_(as_float), binary_(_same)


def _float_power_dtype(ctx: RuleContext, a: Any, b: Any) -> torch.dtype:
    return torch.complex128 if ctx.promote(a, b).is_complex else torch.float64


rule(aten.pow.Tensor_Tensor, aten.pow.Tensor_Scalar)(binary(_same))


@rule(aten.pow.Scalar)
def pow_scalar(ctx: RuleContext, base: Any, exponent: FakeTensor) -> FakeTensor:
    """A number to tensor powers goes into row-major memory."""
    return contiguous(ctx, exponent.sizes, promoted(ctx, base, exponent), exponent.device)


rule(aten.pow_.Scalar, aten.pow_.Tensor)(binary_(_same))


@rule(aten.float_power.Tensor_Tensor, aten.float_power.Tensor_Scalar, aten.float_power.Scalar)
def float_power(ctx: RuleContext, a: Any, b: Any) -> FakeTensor:
    """Computed in double (or complex double) precision."""
    dtype = _float_power_dtype(ctx, a, b)
    tensors = [t for t in (a, b) if isinstance(t, FakeTensor)]
    return elementwise(ctx, tensors, dtype, dtype)


@rule(aten.float_power_.Tensor, aten.float_power_.Scalar)
def float_power_(ctx: RuleContext, a: FakeTensor, b: Any) -> FakeTensor:
    dtype = _float_power_dtype(ctx, a, b)
    if a.dtype is not dtype:
        raise RuntimeError(
            f"the base given to float_power_ has dtype {a.dtype} but the operation's result "
            f"requires dtype {dtype}"
        )
    return write_into(ctx, a, (b,) if isinstance(b, FakeTensor) else (), dtype)


@rule(aten.ldexp.Tensor)
def ldexp(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    """``a * 2.0 ** b``, the power in row-major memory."""
    return _round_div(ctx, a, contiguous(ctx, b.sizes, as_float(b.dtype), b.device))


@rule(aten.ldexp_.default)
def ldexp_(ctx: RuleContext, a: FakeTensor, b: FakeTensor) -> FakeTensor:
    power = contiguous(ctx, b.sizes, as_float(b.dtype), b.device)
    return write_into(ctx, a, (power,), promoted(ctx, a, power))


@rule(aten.complex.default)
def complex_(ctx: RuleContext, re: FakeTensor, im: FakeTensor) -> FakeTensor:
    if re.dtype is not im.dtype or re.dtype not in (torch.float16, torch.float32, torch.float64):
        raise RuntimeError(f"complex: the parts must be Half, Float or Double: {re}, {im}")
    return elementwise(ctx, (re, im), complex_of(re.dtype))


@rule(aten.polar.default)
def polar(ctx: RuleContext, magnitude: FakeTensor, angle: FakeTensor) -> FakeTensor:
    return elementwise(ctx, (magnitude, angle), complex_of(magnitude.dtype))


@rule(aten.isclose.default)
def isclose(
    ctx: RuleContext,
    a: FakeTensor,
    b: FakeTensor,
    rtol: Any = 1e-5,
    atol: Any = 1e-8,
    equal_nan: bool = False,
) -> FakeTensor:
    """``close = self == other``, then more conditions or-ed in place."""
    if a.dtype is not b.dtype:
        raise RuntimeError(f"{a.dtype} did not match {b.dtype}")
    must(ctx, rtol >= 0, f"rtol must be greater than or equal to zero, but got {rtol}")
    must(ctx, atol >= 0, f"atol must be greater than or equal to zero, but got {atol}")
    return elementwise(ctx, (a, b), torch.bool)


# -- three operands --------------------------------------------------------------------------------


@rule(aten.addcmul.default, aten.addcdiv.default)
def addcmul(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, value: Any = 1
) -> FakeTensor:
    dtype = x.dtype
    if a.dtype is not dtype or b.dtype is not dtype:
        dtype = ctx.promote(x, a, b)
    return elementwise(ctx, (x, a, b), dtype, dtype)


@rule(aten.addcmul_.default, aten.addcdiv_.default)
def addcmul_(
    ctx: RuleContext, x: FakeTensor, a: FakeTensor, b: FakeTensor, *, value: Any = 1
) -> FakeTensor:
    return write_into(ctx, x, (a, b), ctx.promote(x, a, b))


def _tensors(*operands: Any) -> tuple[FakeTensor, ...]:
    return tuple([t for t in operands if isinstance(t, FakeTensor)])


@rule(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(ctx: RuleContext, x: FakeTensor, end: FakeTensor, weight: Any) -> FakeTensor:
    return elementwise(ctx, _tensors(x, end, weight), x.dtype)


@rule(aten.lerp_.Scalar, aten.lerp_.Tensor)
def lerp_(ctx: RuleContext, x: FakeTensor, end: FakeTensor, weight: Any) -> FakeTensor:
    return write_into(ctx, x, _tensors(end, weight), x.dtype)


@rule(*overloads("clamp clip clamp_min clamp_max"))
def clamp(ctx: RuleContext, x: FakeTensor, low: Any = None, high: Any = None, **kw: Any) -> Any:
    """The bounds take part in the promotion."""
    bounds = [b for b in (low, high, *kw.values()) if b is not None]
    dtype = x.dtype
    for bound in bounds:
        if promoted(ctx, x, bound) is not dtype:
            dtype = ctx.promote(x, *bounds)
            break
    return elementwise(ctx, _tensors(x, *bounds), dtype, dtype)


@rule(*overloads("clamp_ clip_ clamp_min_ clamp_max_"))
def clamp_(ctx: RuleContext, x: FakeTensor, low: Any = None, high: Any = None, **kw: Any) -> Any:
    bounds = [b for b in (low, high, *kw.values()) if b is not None]
    return write_into(ctx, x, _tensors(*bounds), ctx.promote(x, *bounds))


@rule(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(ctx: RuleContext, condition: FakeTensor, a: Any, b: Any) -> FakeTensor:
    """The branches are promoted; numbers count as 0-dim operands."""
    dtype = promoted(ctx, a, b)
    operands = [condition]
    for branch in (a, b):
        if isinstance(branch, FakeTensor):
            operands.append(branch if branch.dtype is dtype else dense_like(ctx, branch, dtype))
    return elementwise(ctx, operands, dtype)


# -- writing ---------------------------------------------------------------------------------------


@rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(ctx: RuleContext, x: FakeTensor, mask: FakeTensor, value: Any) -> FakeTensor:
    """A contiguous copy of the broadcast tensor, then filled."""
    _check_fill(ctx, x, mask, value)
    if mask.sizes == x.sizes:
        return contiguous(ctx, x.sizes, x.dtype, x.device)
    return contiguous(ctx, ctx.broadcast(x.sizes, mask.sizes), x.dtype, x.device)


@rule(aten.masked_fill_.Scalar, aten.masked_fill_.Tensor)
def masked_fill_(ctx: RuleContext, x: FakeTensor, mask: FakeTensor, value: Any) -> FakeTensor:
    _check_fill(ctx, x, mask, value)
    if mask.sizes != x.sizes:
        fit(ctx, mask.sizes, x.sizes)
    return x


def _check_fill(ctx: RuleContext, x: FakeTensor, mask: FakeTensor, value: Any) -> None:
    """The mask is bool; the value is one number of a kind that the tensor can hold."""
    if mask.dtype is not torch.bool:
        raise RuntimeError(f"masked_fill only supports boolean masks, but got {mask.dtype}")
    if isinstance(value, FakeTensor) and value.sizes:
        raise RuntimeError(
            "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
            f"{len(value.sizes)} dimension(s)."
        )
    if ctx.promote(value).is_complex and not x.dtype.is_complex:
        raise RuntimeError(f"value cannot be converted to {x.dtype} without overflow")


@rule(
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.zero.default,
    *overloads("random"),
)
def fill(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """The functional forms of :func:`overwrite_`."""
    return dense_like(ctx, x)


@rule(
    aten.fill_.Scalar,
    aten.fill_.Tensor,
    aten.zero_.default,
    *overloads("random_"),
)
def overwrite_(ctx: RuleContext, x: FakeTensor, *_: Any, **__: Any) -> FakeTensor:
    """All elements are written; nothing about the tensor changes."""
    refuse_overlap(x)
    return x


@rule(aten.copy_.default)
def copy_(
    ctx: RuleContext, x: FakeTensor, source: FakeTensor, non_blocking: bool = False
) -> FakeTensor:
    """Writes ``source``, broadcast and cast, into ``x``."""
    refuse_overlap(x)
    if source.sizes != x.sizes:
        fit(ctx, source.sizes, x.sizes)
    return x


@rule(aten.copy.default)
def copy(
    ctx: RuleContext, x: FakeTensor, source: FakeTensor, non_blocking: bool = False
) -> FakeTensor:
    if source.sizes != x.sizes:
        fit(ctx, source.sizes, x.sizes)
    return whole_copy(ctx, x)
