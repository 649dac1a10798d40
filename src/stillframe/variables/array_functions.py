"""Functions of NumPy that torch's own NumPy does otherwise, or does not do: written on it here.

Each takes what NumPy gives in the present case, of which it may look at the dtype, and the
arguments as arrays of ``torch._numpy``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from stillframe.variables.array_table import FFT, tnp

Answer = Callable[..., Any]

#: name -> the function, for a name of the table; a method has a dot before its name.
OTHERWISE: dict[str, Answer] = {}


def _otherwise(*names: str) -> Callable[[Answer], Answer]:
    def register(answer: Answer) -> Answer:
        OTHERWISE.update(dict.fromkeys(names, answer))
        return answer

    return register


def _dtype(seen: Any) -> Any:
    return getattr(tnp, seen.dtype.name if seen.dtype.name != "bool" else "bool_")


@_otherwise("all", ".all")
def _all(seen: Any, array: Any, *args: Any, **kwargs: Any) -> Any:
    return tnp.all(tnp.asarray(array) != 0, *args, **kwargs)


@_otherwise("any", ".any")
def _any(seen: Any, array: Any, *args: Any, **kwargs: Any) -> Any:
    return tnp.any(tnp.asarray(array) != 0, *args, **kwargs)


@_otherwise("square")
def _square(seen: Any, array: Any, **kwargs: Any) -> Any:
    return tnp.multiply(array, array, **kwargs)


@_otherwise("fix")
def _fix(seen: Any, array: Any) -> Any:
    return tnp.trunc(array)


@_otherwise("sign")
def _sign(seen: Any, array: Any) -> Any:
    """NumPy says nan of nan, torch says 0."""
    made = tnp.sign(array)
    return tnp.where(tnp.isnan(array), array, made) if seen.dtype.kind == "f" else made


def _accumulate(name: str) -> Answer:
    def answer(seen: Any, array: Any, axis: Any = None, dtype: Any = None) -> Any:
        return getattr(tnp, name)(array, axis=axis, dtype=dtype or _dtype(seen))

    return answer


for _name in ("cumsum", "cumprod"):
    OTHERWISE[_name] = OTHERWISE[f".{_name}"] = _accumulate(_name)


@_otherwise("array", "asarray", "ascontiguousarray")
def _array(seen: Any, data: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """A list of arrays is a stack of them."""
    if isinstance(data, (list, tuple)):
        return tnp.stack([_array(seen, item) for item in data])
    return tnp.asarray(data).astype(_dtype(seen))


@_otherwise("where")
def _where(seen: Any, condition: Any, one: Any, other: Any) -> Any:
    dtype = _dtype(seen)
    return tnp.where(condition, tnp.asarray(one).astype(dtype), tnp.asarray(other).astype(dtype))


@_otherwise("diag")
def _diag(seen: Any, array: Any, k: int = 0) -> Any:
    return tnp.diagonal(array, k) if array.ndim == 2 else tnp.diag(array, k)


def _in_double(name: str) -> Answer:
    def answer(seen: Any, array: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(tnp, name)(array.astype(_dtype(seen)), *args, **kwargs)

    return answer


for _name in ("cov", "corrcoef"):
    OTHERWISE[_name] = _in_double(_name)


def _of_all(name: str) -> Answer:
    """Without an axis it is of all elements, and a scalar."""

    def answer(seen: Any, array: Any, *args: Any, **kwargs: Any) -> Any:
        function = getattr(tnp, name)
        rest = args[1:] if name != "median" else args
        if rest or kwargs.keys() - {"q"}:
            return function(array, *args, **kwargs)
        return function(array.ravel(), *args, axis=0, **kwargs)

    return answer


for _name in ("median", "percentile", "quantile"):
    OTHERWISE[_name] = _of_all(_name)


@_otherwise("reshape")
def _reshape(seen: Any, array: Any, shape: Any) -> Any:
    return tnp.reshape(array, shape if isinstance(shape, (tuple, list)) else (shape,))


@_otherwise("pad")
def _pad(
    seen: Any, array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0
) -> Any:
    if mode != "constant" or not isinstance(constant_values, (int, float)):
        raise NotImplementedError("only a constant around an array is known")
    pairs = np.broadcast_to(np.asarray(pad_width), (array.ndim, 2)).tolist()
    flat = [int(width) for pair in reversed(pairs) for width in pair]
    return torch.nn.functional.pad(array.tensor, flat, value=constant_values)


def _transform(name: str) -> Answer:
    """In the precision of the argument: torch's NumPy would take the double one."""

    def answer(seen: Any, array: Any, *args: Any, **kwargs: Any) -> Any:
        tensor = array.tensor
        if not (tensor.is_floating_point() or tensor.is_complex()):
            tensor = tensor.to(torch.float64)
        named = {_DIMS.get(key, key): value for key, value in kwargs.items()}
        return getattr(torch.fft, name)(tensor, *args, **named)

    return answer


_DIMS = {"axis": "dim", "axes": "dim"}
for _name in FFT:
    if not _name.endswith("freq"):
        OTHERWISE[f"fft.{_name}"] = _transform(_name)
