"""NumPy's functions in frames, one by one, beside NumPy: the same dtypes, sizes and values."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.variables.checking import agrees, assert_same

import stillframe as sf
from stillframe.variables import capture_frame

_random = np.random.RandomState(0)
_square = np.eye(3) * 4 + _random.rand(3, 3)

#: What the letters in an expression mean. ``s`` and ``r`` have nan, infinities and both zeros.
ARRAYS: dict[str, Any] = {
    "a": _random.randn(3, 4).astype(np.float32),
    "b": (_random.rand(3, 4) + 0.5).astype(np.float32),
    "v": _random.randn(5),
    "i": _random.randint(-3, 4, (3, 4)),
    "j": _random.randint(1, 4, (3, 4)),
    "u": _random.randint(0, 200, (3, 4)).astype(np.uint8),
    "k": _random.rand(3, 4) > 0.5,
    "z": (_random.randn(3, 4) + 1j * _random.randn(3, 4)).astype(np.complex64),
    "s": np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.5, -2.5]),
    "r": np.array([1.0, np.nan, 2.0, 0.0, -0.0, np.inf, 2.0]),
    "h": _random.randn(3, 4).astype(np.float16),
    "q": _square + _square.T,
    "t": _random.randn(2, 3, 4),
    "x": np.array([0, 3, 1]),
}

Case = tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]


def case(text: str) -> Case:
    """The function of an expression, and what makes its arguments."""
    letters = re.findall(r"(?<![.\w'\"])[a-z](?![\w'\"(=])", text)
    names = sorted(set(letters) & ARRAYS.keys())
    function = eval(f"lambda {', '.join(names)}: {text}", {"np": np, "__name__": __name__})
    return function, lambda: tuple(copy.deepcopy(ARRAYS[name]) for name in names)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


# -- element by element ----------------------------------------------------------------------------

UNARY = """absolute arccos arccosh arcsin arcsinh arctan arctanh conjugate cos cosh deg2rad degrees
exp exp2 expm1 fabs isfinite isinf isnan log log10 log1p log2 logical_not negative positive rad2deg
radians reciprocal rint sign signbit sin sinh sqrt square tan tanh trunc ceil floor""".split()

BINARY = """add arctan2 copysign divide equal float_power floor_divide fmax fmin fmod greater
greater_equal hypot less less_equal logaddexp logaddexp2 logical_and logical_or logical_xor maximum
minimum multiply nextafter not_equal power remainder subtract""".split()

OF_INTEGERS = "bitwise_and bitwise_or bitwise_xor gcd lcm invert left_shift right_shift".split()


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("name", UNARY)
def test_of_one_array(name: str) -> None:
    for array in "as":
        function, make = case(f"np.{name}({array})")
        with np.errstate(all="ignore"):
            agrees(function, make)
    for array in "izukh":
        never_wrong(f"np.{name}({array})")


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("name", BINARY)
def test_of_two_arrays(name: str) -> None:
    for operands in ("a, b", "s, r", "a, 2", "a, 2.5", "a, np.float64(2)", "a, np.float32(2)"):
        function, make = case(f"np.{name}({operands})")
        with np.errstate(all="ignore"):
            agrees(function, make)
    for operands in ("i, j", "a, i", "z, a", "i, 2", "i, 2.5", "u, 3", "u, i", "k, k", "h, b"):
        never_wrong(f"np.{name}({operands})")


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("name", OF_INTEGERS)
def test_of_integers(name: str) -> None:
    operands = ("i", "u", "k") if name == "invert" else ("i, 2", "u, 3", "j, np.int32(2)")
    for text in operands:
        function, make = case(f"np.{name}({text})")
        agrees(function, make)
    for text in ("a, b", "i, j", "k, k", "u, i", "a"):
        never_wrong(f"np.{name}({text})")


def never_wrong(text: str) -> None:
    """The capture is right, or refused; where NumPy raises an error, it is refused."""
    function, make = case(text)
    try:
        with np.errstate(all="ignore"):
            expected = function(*make())
    except (TypeError, ValueError):
        with pytest.raises(sf.StillframeError):
            capture_frame(function, make())
        return
    try:
        capture = capture_frame(function, make())
    except sf.FrameError:
        return
    assert_same(capture(*make()), expected)


# -- of whole arrays -------------------------------------------------------------------------------

REDUCTIONS = """all any amax amin argmax argmin max min mean median prod ptp std sum var
count_nonzero average""".split()


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    for rest in ("a", "a, axis=0", "a, axis=1, keepdims=True", "i", "i, axis=0", "s"):
        function, make = case(f"np.{name}({rest})")
        with np.errstate(all="ignore"):
            agrees(function, make)
    for array in "zku":
        for rest in ("", ", axis=0", ", axis=1, keepdims=True"):
            never_wrong(f"np.{name}({array}{rest})")


FUNCTIONS = lines("""
    np.std(a, ddof=1)
    np.var(a, axis=0, ddof=1)
    np.sum(a, axis=(0, 1))
    np.sum(a, dtype=np.float64)
    np.mean(i, dtype=np.float32)
    np.cumsum(a)
    np.cumsum(a, axis=1)
    np.cumsum(k)
    np.cumprod(b, axis=0)
    np.append(a, b)
    np.append(a, b, axis=0)
    np.argsort(v, kind='stable')
    np.sort(a)
    np.sort(a, axis=0)
    np.sort(s)
    np.sort(i, axis=None)
    np.around(a, 1)
    np.round(a, 2)
    np.fix(a)
    np.array(a)
    np.asarray(a)
    np.array([a, b])
    np.array([1.5, 2]) + v[:2]
    np.array([a[0, 0], a[1, 1]])
    np.array_split(v, 2)
    np.split(a, 3)
    np.split(a, [1, 2], axis=1)
    np.hsplit(a, 2)
    np.vsplit(a, 3)
    np.dsplit(t, 2)
    np.ascontiguousarray(a.T)
    np.atleast_1d(v)
    np.atleast_2d(v)
    np.atleast_3d(v)
    np.broadcast_to(v, (2, 5))
    np.clip(a, -1, 1)
    np.clip(s, -1, 1)
    np.clip(a, None, 1)
    np.column_stack([v, v])
    np.concatenate([a, b])
    np.concatenate([a, i], axis=1)
    np.concatenate([a, b], axis=None)
    np.copy(a)
    np.corrcoef(a)
    np.cov(a)
    np.diag(q)
    np.diag(v)
    np.diag(q, -1)
    np.diagflat(v)
    np.diagonal(q)
    np.diff(v)
    np.diff(a, axis=0)
    np.diff(a, n=2)
    np.dot(a, b.T)
    np.dot(v, v)
    np.dstack([a, b])
    np.einsum('ij,kj->ik', a, b)
    np.einsum('ii', q)
    np.empty_like(a).shape
    np.expand_dims(a, 0)
    np.expand_dims(a, (0, 2))
    np.eye(3) + q
    np.eye(3, 4, k=1)
    np.full((2, 3), 7)
    np.full_like(i, 3)
    np.hstack([a, b])
    np.identity(3)
    np.imag(z)
    np.imag(a)
    np.real(z)
    np.real(a)
    np.indices((2, 3))
    np.inner(a, b)
    np.isclose(s, s, equal_nan=True)
    np.iscomplex(z)
    np.isreal(z)
    np.isneginf(s)
    np.isposinf(s)
    np.kron(q, q)
    np.linspace(0, 1, 5) + v
    np.logspace(0, 1, 5)
    np.matmul(a, b.T)
    np.matmul(v, v)
    np.meshgrid(v, v)
    np.meshgrid(v, v, indexing='ij')
    np.moveaxis(t, 0, -1)
    np.nan_to_num(s)
    np.ones((2, 2))
    np.ones_like(i, dtype=float)
    np.outer(v, v)
    np.pad(a, 1)
    np.pad(a, ((1, 0), (0, 2)), constant_values=3)
    np.percentile(a, 30)
    np.quantile(a, 0.3)
    np.quantile(v, 0.5)
    np.quantile(s, 0.5)
    np.ravel(a)
    np.ravel(a.T)
    np.repeat(v, 2)
    np.repeat(a, 3, axis=1)
    np.reshape(a, (4, 3))
    np.reshape(a, -1)
    np.roll(a, 1)
    np.roll(a, 1, axis=1)
    np.sinc(a)
    np.squeeze(a[None])
    np.stack([a, b])
    np.stack([a, b], axis=-1)
    np.swapaxes(a, 0, 1)
    np.take(v, [0, 2])
    np.take(a, 1, axis=0)
    np.take(v, x)
    np.take_along_axis(a, np.argsort(a, axis=0, kind='stable'), axis=0)
    np.tensordot(a, b.T, 1)
    np.tensordot(a, b, ([0, 1], [0, 1]))
    np.tile(v, 2)
    np.trace(q)
    np.transpose(a)
    np.transpose(t, (2, 0, 1))
    np.tri(3)
    np.tril(q)
    np.triu(q, 1)
    np.vander(v, 3, increasing=True)
    np.vdot(z, z)
    np.vstack([a, b])
    np.where(k, a, b)
    np.where(k, i, 1.5)
    np.where(a > 0, a, -a)
    np.zeros((2, 3)) + a[:2, :3]
    np.zeros_like(a)
    np.arange(5) * v
    np.hamming(5)
    np.kaiser(5, 2.0)
    np.geomspace(1, 10, 5)
    np.tril_indices(3)
    np.diag_indices(3)
    np.angle(z)
    np.linalg.cholesky(q)
    np.linalg.det(q)
    np.linalg.eigvalsh(q)
    np.linalg.inv(q)
    np.linalg.matrix_power(q, 3)
    np.linalg.multi_dot([a, b.T, a])
    np.linalg.norm(a)
    np.linalg.norm(a, axis=1)
    np.linalg.norm(v, 1)
    np.linalg.norm(q, np.inf)
    np.linalg.pinv(a)
    np.linalg.solve(q, v[:3])
    np.linalg.tensorinv(q, ind=1)
    np.fft.fft(v)
    np.fft.fft(a)
    np.fft.fft(z)
    np.fft.fft(v, n=8)
    np.fft.fft(v, norm='ortho')
    np.fft.fft2(a)
    np.fft.fftn(a)
    np.fft.fftshift(v)
    np.fft.ifft(v)
    np.fft.irfft(v)
    np.fft.rfft(a, axis=0)
    np.fft.rfftn(a)
    np.fft.fftfreq(5)
    np.shape(a)
    np.ndim(a)
    np.size(a)
    np.result_type(a, i)
    np.can_cast(np.int32, np.float64)
    np.isscalar(a)
    np.iscomplexobj(a)
    np.broadcast_shapes((3, 1), (4,))
    np.issubdtype(a.dtype, np.floating)
""")

METHODS = lines("""
    a.sum()
    a.sum(axis=0)
    a.mean()
    a.std()
    a.var(ddof=1)
    a.max()
    a.min(axis=1)
    a.argmax()
    a.argmin(axis=0)
    a.all()
    a.any()
    a.prod()
    a.cumsum()
    a.cumprod(axis=0)
    a.reshape(4, 3)
    a.reshape((2, 6))
    a.reshape(-1)
    a.ravel()
    a.flatten()
    a.transpose()
    a.transpose(1, 0)
    a.swapaxes(0, 1)
    a.squeeze()
    a.clip(0, 1)
    a.round(1)
    a.repeat(2)
    a.take([0, 1])
    a.astype(np.float64)
    a.astype('int32')
    a.astype(np.bool_)
    a.astype(np.float32, copy=False)
    a.copy()
    a.conj()
    z.conjugate()
    a.dot(b.T)
    a.trace()
    a.diagonal()
    a.argsort(kind='stable')
    a.T
    z.real
    z.imag
    a[0]
    a[0, 1]
    a[1:]
    a[:, 1]
    a[:, None]
    a[..., 0]
    a[::2, 1:3]
    a[-1]
    a[[0, 1]]
    v[x]
    a.shape
    a.ndim
    a.size
    a.dtype
    a.itemsize
    a.nbytes
    len(a)
    [row.sum() for row in a]
    1 - a
    a // b
    a % b
    a ** 2
    2 ** b
    -a
    +a
    abs(a)
    ~k
    i & j
    i << 1
    i // 2
    i ** 2
    i / j
    a == b
    a @ b.T
    a + i
    np.float64(2) * a
    np.float32(2) * i
    a.sum() * 2
    a.mean() / i
    np.float64(1) + a.sum()
    a.max() > 0
    isinstance(a, np.ndarray)
    isinstance(a[0, 0], np.float32)
    type(a)
    type(a.sum())
    np.pi * a
""")


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("text", FUNCTIONS)
def test_functions(text: str) -> None:
    agrees(*case(text))


@pytest.mark.spec("5.19")
@pytest.mark.parametrize("text", METHODS)
def test_methods_and_operators(text: str) -> None:
    agrees(*case(text))


def test_the_table_is_long_enough() -> None:
    ufuncs = [*UNARY, *BINARY, *OF_INTEGERS, *REDUCTIONS]
    assert len({*ufuncs, *FUNCTIONS, *METHODS}) >= 300


# -- refused ---------------------------------------------------------------------------------------

REFUSED = {
    "np.random.rand(3) + v[:3]": "rand",
    "np.nonzero(a)": "nonzero",
    "a[a > 0]": "mask",
    "np.unique(i)": "unique",
    "np.cbrt(a)": "cbrt",  # nan for negative numbers on tensors
    "np.heaviside(s, r)": "heaviside",  # nan is not kept on tensors
    "np.flip(a)": "flip",
    "a[::-1]": "backwards",
    "np.rot90(a)": "rot90",
    "np.partition(v, 2)": "partition",
    "np.argsort(v)": "order of equal elements",
    "np.searchsorted(v, 1.0)": "searchsorted",  # of what is not sorted, anything
    "np.sum(u)": "uint64",
    "np.reshape(a, (2, 6), order='F')": "reshape",
    "np.sum(a, where=k)": "sum",
    "np.sum(a, initial=3)": "sum",
    "np.add.reduce(a)": "add.reduce",
    "np.vectorize(lambda e: e)(a)": "captured",
    "np.apply_along_axis(np.sum, 0, a)": "apply_along_axis",
    "np.histogram(v)": "histogram",
    "np.load('x')": "load",
    "i // j": "not known now",
    "i % j": "not known now",
    "i ** j": "not known now",
    "i << j": "not known now",
    "i // 0": "divided by 0",
    "a.tobytes()": "tobytes",
    "a.flat[0]": "flat",
    "a.view(np.int32)": "view",
    "divmod(a, 2)": "divmod",
    "str(a)": "__str__",
    "f'{a}'": "__format__",
    "2.0 in a": "__contains__",
    "{a[0, 0]: 1}": "compares or hashes",
    "a.ctypes": "ctypes",
    "np.ndarray.tobytes(a)": "ndarray.tobytes",
    "np.zeros(3, dtype='datetime64[s]')": "datetime64",
    "a.astype(object)": "astype",
    "np.float32(a)": "float32",
    "np.linalg.eig(q)": "eig",
    "np.matmul(a, b)": "NumPy refuses matmul",
}


@pytest.mark.spec("5.57")
@pytest.mark.parametrize("text", REFUSED)
def test_what_differs_or_is_not_known_is_refused(text: str) -> None:
    function, make = case(text)
    with pytest.raises(sf.FrameError, match=re.escape(REFUSED[text])):
        capture_frame(function, make())
