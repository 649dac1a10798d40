"""The functions and methods of NumPy that are captured, and where they differ from torch's.

A function is here if its values on tensors were compared with NumPy's, over dtypes and with special
values (``tests/variables/kinds/test_numpy_functions.py``). All others are refused by name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch._numpy

#: NumPy's functions on tensors. Their types are not declared.
tnp: Any = torch._numpy

#: Element by element.
_UFUNCS = """
absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_or bitwise_xor
ceil conjugate copysign cos cosh deg2rad degrees divide equal exp exp2 expm1 fabs float_power
floor floor_divide fmax fmin fmod gcd greater greater_equal hypot invert isfinite isinf
isnan lcm ldexp left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and
logical_not logical_or logical_xor matmul maximum minimum multiply negative nextafter not_equal
positive power rad2deg radians reciprocal remainder right_shift rint sign signbit sin sinh sqrt
square subtract tan tanh trunc
""".split()

#: Of whole arrays.
_FUNCTIONS = """
all amax amin angle any append argmax argmin argsort around array array_split asarray
ascontiguousarray atleast_1d atleast_2d atleast_3d average broadcast_arrays broadcast_to clip
column_stack concatenate copy corrcoef count_nonzero cov cross cumprod cumsum diag diagflat diagonal
diff dot dsplit dstack einsum empty_like expand_dims eye fix full full_like
hsplit hstack identity imag indices inner isclose iscomplex isneginf isposinf isreal kron linspace
logspace max mean median meshgrid min moveaxis nan_to_num ones ones_like outer pad percentile prod
ptp quantile ravel real repeat reshape roll round sinc sort split
squeeze stack std sum swapaxes take take_along_axis tensordot tile trace transpose tri tril triu
vander var vdot vsplit vstack where zeros zeros_like arange empty bartlett blackman hamming hanning
kaiser geomspace tril_indices triu_indices diag_indices copyto fill_diagonal
""".split()

_LINALG = """
cholesky det eigvalsh inv matrix_power multi_dot norm pinv slogdet solve tensorinv tensorsolve
""".split()

FFT = """
fft fft2 fftfreq fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2
rfftfreq rfftn
""".split()

#: Answered by what the arguments look like.
ABOUT = frozenset(
    """broadcast_shapes can_cast common_type iscomplexobj isrealobj isscalar issubdtype
    min_scalar_type ndim result_type shape size""".split()
)

#: Attributes of an array that are arrays.
ATTRIBUTES = frozenset({"T", "real", "imag"})

METHODS = frozenset(
    """all any argmax argmin argsort astype clip conj conjugate copy cumprod cumsum diagonal dot
    fill flatten max mean min prod ravel repeat reshape round sort squeeze std sum
    swapaxes take trace transpose var""".split()
)

REFLECTED = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide,
    "floordiv": np.floor_divide, "pow": np.power, "mod": np.remainder, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
    "matmul": np.matmul,
}  # fmt: skip

OPERATORS: dict[str, Any] = {
    **REFLECTED,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "abs": np.absolute, "neg": np.negative, "pos": np.positive,
    "invert": np.invert,
}  # fmt: skip


def _named() -> dict[int, tuple[Any, str]]:
    found: dict[int, tuple[Any, str]] = {}
    places = ((np, "", [*_UFUNCS, *_FUNCTIONS, *ABOUT]), (np.linalg, "linalg.", _LINALG))
    for place, prefix, names in (*places, (np.fft, "fft.", FFT)):
        for name in names:
            function = getattr(place, name)
            found[id(function)] = function, prefix + name
    return found


_NAMES = _named()

#: Make an array of anything.
CONVERSIONS_BY_NAME = frozenset({"array", "asarray", "ascontiguousarray"})
CONVERSIONS = tuple(getattr(np, name) for name in sorted(CONVERSIONS_BY_NAME))


def name_of(function: Any) -> str | None:
    """The name of a function of the table; None for any other."""
    entry = _NAMES.get(id(function))
    return None if entry is None else entry[1]


def on_tensors(name: str) -> Any:
    """The function of that name on tensors; a method has a dot before its name."""
    if name.startswith("."):
        return getattr(tnp.ndarray, name[1:])
    found: Any = tnp
    for part in name.split("."):
        found = getattr(found, part)
    return found


#: Their results have no values.
UNKNOWN = frozenset({"empty", "empty_like"})

_DIVISIONS = ("floor_divide", "remainder", "fmod", "mod")
_SHIFTS = ("left_shift", "right_shift")


def _is_integer(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype.kind in "biu" if isinstance(dtype, np.dtype) else isinstance(value, int)


def refusal_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Why a call may give other values than NumPy, although the table has the function."""
    if name in (*_DIVISIONS, *_SHIFTS, "power") and all(map(_is_integer, args[:2])):
        second: Any = args[1] if len(args) > 1 else None
        known = type(second) is int or isinstance(second, np.integer)
        if not known:
            return "of integers, by numbers that are not known now"
        if name in _DIVISIONS and not second:
            return "integers are divided by 0"
        if name not in _DIVISIONS and not 0 <= int(second) < 8:
            return "integers with such a second argument"
    if name == "argsort" and kwargs.get("kind") != "stable":
        return "the order of equal elements is not said (kind='stable')"
    return ""
