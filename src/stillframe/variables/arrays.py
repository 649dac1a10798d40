"""Arrays of NumPy as tensors: what the program gets in their place.

An array is a tensor of the graph behind the attributes, operators and methods of an array. What
these do is answered by :mod:`stillframe.variables.array_calls`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from stillframe.fake.tensor import FakeTensor
from stillframe.variables import array_table as table

if TYPE_CHECKING:
    from stillframe.variables.array_calls import NumpyCalls

DTYPES = {
    getattr(torch, name): np.dtype(name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
        "complex64", "complex128",
    )
}  # fmt: skip
TORCH_DTYPES = {dtype: torch_dtype for torch_dtype, dtype in DTYPES.items()}


def torch_dtype_of(dtype: Any) -> torch.dtype | None:
    """The dtype of tensors for a dtype of arrays; None if there is none."""
    return TORCH_DTYPES.get(dtype)


class FakeArray:
    """What the program gets for an array.

    Args:
        calls: answers what is done with it.
        tensor: has its memory.
        writeable: whether the program may write to it.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, calls: NumpyCalls, tensor: torch.Tensor, writeable: bool = True) -> None:
        self.calls = calls
        assert type(tensor) is FakeTensor
        self.tensor = tensor
        self.writeable = writeable

    @property
    def __class__(self) -> Any:
        """For ``isinstance``: the class that the value has when the frame runs."""
        return self.numpy_class

    @__class__.setter
    def __class__(self, cls: Any) -> None:
        raise TypeError("the class of an array cannot be changed")

    @property
    def numpy_class(self) -> type:
        """The class of the value when the frame runs."""
        return np.ndarray

    # -- what is known of it ------------------------------------------------------------------

    @property
    def shape(self) -> tuple[Any, ...]:
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        return self.tensor.dim()

    @property
    def size(self) -> Any:
        return self.tensor.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.tensor.dtype]

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> Any:
        return self.size * self.itemsize

    def __len__(self) -> Any:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        if name in table.ATTRIBUTES:
            return self.calls.attribute(self, name)
        if name in table.METHODS:
            return functools.partial(self.calls.method, self, name)
        cls = self.numpy_class
        if hasattr(cls, name):
            raise self.calls.refusal(f"The frame uses .{name} of an array.")
        raise AttributeError(
            f"'{cls.__module__}.{cls.__qualname__}' object has no attribute '{name}'"
        )

    # -- items --------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self.calls.get_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.calls.set_item(self, key, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # -- as a value of Python -----------------------------------------------------------------

    def _one(self, what: str) -> FakeTensor:
        """The tensor, if it has one element."""
        if self.size != 1:
            raise self.calls.refusal(f"The frame makes {what} of an array of several elements.")
        return self.tensor

    def item(self, *place: Any) -> Any:
        """The element as a number of Python; the graph reads it."""
        if place:
            raise self.calls.refusal("The frame uses .item() of an array with a place.")
        return self._one("a number").item()

    def tolist(self) -> Any:
        """The elements as numbers of Python."""
        return self.tensor.tolist()

    def __bool__(self) -> bool:
        return bool(self._one("a boolean"))

    def __int__(self) -> int:
        return int(self._one("a number"))

    def __float__(self) -> float:
        return float(self._one("a number"))

    def __complex__(self) -> complex:
        return complex(self._one("a number"))

    def __index__(self) -> int:
        return operator.index(self._one("an index"))

    # -- what code of C asks ------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """An operator of a scalar of NumPy, or a function that nobody watched."""
        if method != "__call__":
            raise self.calls.refusal(f"{ufunc.__name__}.{method}() of NumPy is not captured.")
        return self.calls.call(ufunc, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise self.calls.refusal(f"{func.__name__}() of NumPy takes an array.")

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        leaves = pytree.tree_leaves((args, named))
        arrays = [leaf for leaf in leaves if type(leaf) in (FakeArray, FakeScalar)]
        if all(type(array) is FakeScalar for array in arrays):
            args, named = numbers_in((args, named))
            return func(*args, **named)
        raise arrays[0].calls.refusal(
            f"{getattr(func, '__name__', func)}() of torch takes an array.",
            ["torch.from_numpy(array) is the array as a tensor"],
        )


class FakeScalar(FakeArray):
    """What the program gets for a scalar of NumPy: a 0-dim array that cannot be written."""

    def __init__(self, calls: NumpyCalls, tensor: torch.Tensor, writeable: bool = False) -> None:
        super().__init__(calls, tensor, False)

    @property
    def numpy_class(self) -> type:
        return self.dtype.type

    def number(self) -> Any:
        """The value as a number of Python: that is what functions of torch make of a scalar."""
        if self.dtype.kind not in "iuf":
            raise self.calls.refusal(f"torch takes a scalar of NumPy of dtype {self.dtype}.")
        return self.tensor.item()

    def __hash__(self) -> int:  # type: ignore[override]
        raise self.calls.refusal("A scalar of NumPy is a key, or an element of a set.")


def numbers_in(values: Any) -> Any:
    """The values in a tree with numbers of Python in the place of scalars."""
    return pytree.tree_map_only(FakeScalar, FakeScalar.number, values)


def _refuse(name: str) -> None:
    def answer(self: FakeArray, *args: Any, **kwargs: Any) -> Any:
        raise self.calls.refusal(f"The frame uses __{name}__ of an array.")

    setattr(FakeArray, f"__{name}__", answer)


#: What looks at the values, or would make another object than NumPy's.
for _name in (
    "array", "contains", "copy", "deepcopy", "delitem", "divmod", "format", "rdivmod", "reduce",
    "reduce_ex", "repr", "str",
):  # fmt: skip
    _refuse(_name)


def _refuse_repeats(array: FakeArray, *others: Any) -> None:
    """``[0] * scalar`` repeats the list, as often as only the data can tell."""
    sequences = (list, tuple, str, bytes)
    if isinstance(array, FakeScalar) and any(isinstance(other, sequences) for other in others):
        raise array.calls.refusal("An operator is given a sequence and a scalar of NumPy.")


def _operator(name: str, function: Any) -> None:
    def answer(self: FakeArray, *others: Any) -> Any:
        _refuse_repeats(self, *others)
        return self.calls.call(function, (self, *others), {})

    def reflected(self: FakeArray, other: Any) -> Any:
        _refuse_repeats(self, other)
        return self.calls.call(function, (other, self), {})

    def in_place(self: FakeArray, other: Any) -> Any:
        if isinstance(self, FakeScalar):
            return answer(self, other)
        return self.calls.call(function, (self, other), {"out": self})

    setattr(FakeArray, f"__{name}__", answer)
    if name in table.REFLECTED:
        setattr(FakeArray, f"__r{name}__", reflected)
        setattr(FakeArray, f"__i{name}__", in_place)


for _name, _function in table.OPERATORS.items():
    _operator(_name, _function)
