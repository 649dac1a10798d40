"""What NumPy says of a call: it is run on arrays that look like the arguments.

The values of the arguments are unknown, their dtypes, sizes and strides are known (sizes that vary
by the example). So NumPy is asked with other values, and the answer tells all that does not depend
on values.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillframe import torch_private
from stillframe.errors import FrameError, StillframeError
from stillframe.fake.tensor import FakeStorage, FakeTensor
from stillframe.shapes.env import to_size
from stillframe.symbolic import Expr
from stillframe.variables import array_table as table
from stillframe.variables.array_table import tnp
from stillframe.variables.arrays import DTYPES, TORCH_DTYPES, FakeArray, FakeScalar

if TYPE_CHECKING:
    from stillframe.variables.array_calls import NumpyCalls
    from stillframe.variables.translator import Translator


def mapped(function: Any, values: Any) -> Any:
    """The values in tuples, lists, dicts and slices replaced."""
    kind = type(values)
    if kind in (tuple, list):
        return kind(mapped(function, value) for value in values)
    if kind is dict:
        return {key: mapped(function, value) for key, value in values.items()}
    return function(values)


def dtype_on_tensors(value: Any) -> Any:
    if isinstance(value, np.dtype):
        return getattr(tnp, value.name if value.name != "bool" else "bool_", value)
    if isinstance(value, type) and issubclass(value, np.generic):
        return getattr(tnp, value.__name__ if value is not np.bool_ else "bool_", value)
    return value


#: Values of Python that NumPy may be given: they hold no others.
_PLAIN = (
    int, float, complex, bool, str, bytes, type(None), type(...), slice, range, type, np.dtype,
    np.generic,
)  # fmt: skip


def cast(value: Any, dtype: Any) -> Any:
    """An argument in the dtype in which NumPy computes."""
    if isinstance(value, np.generic):
        return value.astype(dtype)
    if dtype not in TORCH_DTYPES:
        return value
    if isinstance(value, tnp.ndarray):
        return tnp.ndarray(value.tensor.to(TORCH_DTYPES[dtype]))
    if not isinstance(value, FakeArray) or value.dtype == dtype:
        return value
    return FakeArray(value.calls, value.tensor.to(TORCH_DTYPES[dtype]))


def cast_all(args: tuple[Any, ...], dtypes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first arguments in the dtypes, the rest as they are."""
    count = len(dtypes)
    return (*map(cast, args[:count], dtypes), *args[count:])


class Question:
    """What NumPy says of one call.

    Attributes:
        arrays: the arrays among the arguments, with what NumPy got in their place.
        is_symbolic: whether a size or a number of the arguments may vary.
    """

    def __init__(self, calls: NumpyCalls) -> None:
        self.calls = calls
        self.env = calls.tx.env
        self.arrays: list[tuple[FakeArray, Any]] = []
        self.is_symbolic = False
        self._boost = False
        self._copies: tuple[Any, Any] = (), {}
        self._memory: dict[int, tuple[FakeStorage, int]] = {}
        self._buffers: dict[int, Any] = {}

    def ask(self, function: Any, args: Any, kwargs: Any, method: str = "") -> Any:
        """What NumPy gives for arrays that look like the arguments.

        Raises:
            FrameError: NumPy raises an error.
        """
        self._boost = (getattr(function, "__module__", "") or "").startswith("numpy.linalg")
        mapped(self._measure, (args, kwargs))
        args, kwargs = mapped(self._stand_in, args), mapped(self._stand_in, kwargs)
        with torch_unseen(self.calls.tx):
            self._copies = mapped(_copied, args), mapped(_copied, kwargs)
        if method:
            function = functools.partial(_call_method, method)
        try:
            with torch_unseen(self.calls.tx), np.errstate(all="ignore"), _quiet():
                return function(*args, **kwargs)
        except Exception as e:
            name = method or getattr(function, "__name__", "")
            raise self.calls.refusal(
                f"NumPy refuses {name}(): {type(e).__name__}: {e}",
                why="it says so for arrays of these dtypes and sizes",
            ) from e

    def cast(self, dtypes: tuple[Any, ...]) -> None:
        """The rehearsal takes its arguments in these dtypes, too."""
        args, kwargs = self._copies
        with torch_unseen(self.calls.tx):
            self._copies = cast_all(args, dtypes), kwargs

    def rehearse(self, function: Any, seen: Any, name: str) -> None:
        """Run the function on tensors that hold the values which NumPy was given.

        Raises:
            FrameError: it fails, or gives other values.
        """
        args, kwargs = self._copies
        try:
            with torch_unseen(self.calls.tx), _quiet():
                made = function(*args, **kwargs)
                fits = name in table.UNKNOWN or _is_close(seen, made)
        except StillframeError:
            raise
        except Exception as e:
            raise self.calls.refusal(f"{name} of NumPy on tensors: {type(e).__name__}: {e}") from e
        if not fits:
            raise self.calls.refusal(f"{name} of NumPy gives other values than torch.")

    def _number(self, value: Any) -> Any:
        size = to_size(value)
        if not isinstance(size, Expr):
            return size
        self.is_symbolic = True
        if self.env.is_unbacked(size):
            raise self.calls.refusal("A number that only the data can tell is given to NumPy.")
        return self.env.hint_of(size)

    def _measure(self, value: Any) -> None:
        """How much memory the arrays of one storage reach over."""
        if not isinstance(value, FakeArray):
            return
        tensor = value.tensor
        reach = int(self._number(tensor.offset)) + 1
        for size, stride in zip(tensor.sizes, tensor.strides, strict=True):
            reach += max(int(self._number(size)) - 1, 0) * int(self._number(stride))
        key = id(tensor.storage_)
        known = self._memory.get(key, (tensor.storage_, 0))[1]
        self._memory[key] = tensor.storage_, max(reach, known)

    def _stand_in(self, value: Any) -> Any:
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self._number(value)
        if isinstance(value, torch.Tensor):
            raise self.calls.refusal(
                "A function of NumPy is given a tensor.", ["np.asarray(tensor)"]
            )
        if not isinstance(value, FakeArray):
            if isinstance(value, np.ndarray) or not isinstance(value, _PLAIN):
                raise self.calls.refusal(
                    f"A function of NumPy is given a value of class {type(value).__qualname__}.",
                    why="what it holds is not watched",
                )
            return value
        for known, stand_in in self.arrays:
            if known is value:
                return stand_in
        made = self._like(value)
        self.arrays.append((value, made))
        return made

    def _like(self, value: FakeArray) -> Any:
        tensor, dtype = value.tensor, value.dtype
        key = id(tensor.storage_)
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = _pattern(self._memory[key][1], dtype)
        if buffer.dtype != dtype:
            raise self.calls.refusal("Arrays of two dtypes share memory.")
        shape = tuple(int(self._number(size)) for size in tensor.sizes)
        strides = tuple(int(self._number(s)) * dtype.itemsize for s in tensor.strides)
        offset = int(self._number(tensor.offset))
        made = np.lib.stride_tricks.as_strided(buffer[offset:], shape, strides)
        if self._boost and len(shape) >= 2 and shape[-1] == shape[-2]:
            made = (made + 4 * shape[-1] * np.eye(shape[-1])).astype(dtype)
        if not value.writeable:
            made.setflags(write=False)
        return made[()] if isinstance(value, FakeScalar) else made

    @property
    def storages(self) -> int:
        """How many pieces of memory the arrays have."""
        return len(self._memory)

    def same(self, seen: Any) -> FakeArray | None:
        """The argument that NumPy gives back itself."""
        return next((value for value, stand_in in self.arrays if stand_in is seen), None)

    # -- comparing ----------------------------------------------------------------------------

    def answer(self, seen: Any, made: Any, name: str) -> Any:
        """The result for the program: what the tensors give, if NumPy says the same of it.

        Raises:
            FrameError: it does not.
        """
        if seen is None:
            return None
        same = self.same(seen)
        if same is not None:
            return same
        if isinstance(seen, (tuple, list)):
            made = list(made) if isinstance(made, (tuple, list)) else [made]
            if len(made) != len(seen):
                raise self._differs(name, f"{len(seen)} results", f"{len(made)}")
            items = [self.answer(s, m, name) for s, m in zip(seen, made, strict=True)]
            kind = type(seen)
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        if not isinstance(seen, (np.ndarray, np.generic)):
            return self._plain(seen, made, name)
        tensor = getattr(made, "tensor", made)
        if not isinstance(tensor, torch.Tensor):
            raise self._differs(name, describe(seen), repr(made))
        return self._array(seen, self.calls.tx.recorder.fake_mode.adopt(tensor), name)

    def _plain(self, seen: Any, made: Any, name: str) -> Any:
        if isinstance(made, (torch.SymInt, int)) and not isinstance(made, bool):
            if type(seen) is int and self._number(made) == seen:
                return made
        raise self._differs(name, f"a {type(seen).__name__}", f"{made!r}")

    def _array(self, seen: Any, tensor: FakeTensor, name: str) -> FakeArray:
        sizes = tuple(int(self._number(size)) for size in tensor.sizes)
        if DTYPES.get(tensor.dtype) != seen.dtype or sizes != seen.shape:
            raise self._differs(name, describe(seen), f"{tensor.dtype} of sizes {sizes}")
        if isinstance(seen, np.generic):
            return FakeScalar(self.calls, self._own(tensor))
        views = any(np.may_share_memory(seen, buffer) for buffer in self._buffers.values())
        if not views:
            own = self._laid_out(self._own(tensor), seen)
            return FakeArray(self.calls, own, seen.flags.writeable)
        if not self._shares(tensor) or self._strides(tensor) != _strides_of(seen):
            raise self.calls.refusal(
                f"{name} of NumPy gives a view of an array.",
                why="tensors have no such view, so a write to one of them would be missed",
            )
        return FakeArray(self.calls, tensor, seen.flags.writeable)

    def _shares(self, tensor: FakeTensor) -> bool:
        return id(tensor.storage_) in self._memory

    def _own(self, tensor: FakeTensor) -> Any:
        """The tensor with memory of its own, as NumPy's result has."""
        return tensor.clone() if self._shares(tensor) else tensor

    def _strides(self, tensor: FakeTensor) -> tuple[int, ...]:
        found = zip(tensor.sizes, tensor.strides, strict=True)
        return tuple(int(self._number(st)) for sz, st in found if self._number(sz) > 1)

    def _laid_out(self, tensor: FakeTensor, seen: Any) -> Any:
        """The tensor in the order of NumPy's result, on which later views depend."""
        if not seen.size or self._strides(tensor) == _strides_of(seen):
            return tensor
        order = sorted(range(seen.ndim), key=lambda d: (-seen.strides[d], d))
        back = sorted(range(seen.ndim), key=order.__getitem__)
        laid: Any = tensor.permute(order).clone(memory_format=torch.contiguous_format)
        laid = laid.permute(back)
        if self._strides(laid) != _strides_of(seen):
            raise self.calls.refusal("NumPy lays an array out with gaps.")
        return laid

    def _differs(self, name: str, numpy: str, tensors: str) -> FrameError:
        return self.calls.refusal(
            f"{name} of NumPy gives {numpy}; on tensors it would be {tensors}.",
            why="the result has to be NumPy's",
        )


def _strides_of(seen: Any) -> tuple[int, ...]:
    found = zip(seen.shape, seen.strides, strict=True)
    return tuple(st // seen.itemsize for sz, st in found if sz > 1)


def _copied(value: Any) -> Any:
    """What NumPy is given, for the same function on tensors."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype in TORCH_DTYPES:
        return tnp.ndarray(torch.from_numpy(np.array(value, order="K", copy=True)))
    return dtype_on_tensors(value)


#: How near values have to be, by the kind and the size of the dtype.
_NEAR = {("f", 2): 2e-2, ("f", 4): 1e-3, ("c", 8): 1e-3, ("f", 8): 1e-6, ("c", 16): 1e-6}


def _is_close(seen: Any, made: Any) -> bool:
    """Whether results have the same values, as near as their dtypes tell."""
    if isinstance(seen, (tuple, list)) and isinstance(made, (tuple, list)):
        return len(seen) == len(made) and all(map(_is_close, seen, made))
    tensor = getattr(made, "tensor", made)
    if not isinstance(seen, (np.ndarray, np.generic)) or not isinstance(tensor, torch.Tensor):
        return True
    found = tensor.resolve_conj().resolve_neg().numpy()
    near = _NEAR.get((seen.dtype.kind, seen.dtype.itemsize), 0.0)
    return found.shape == seen.shape and bool(
        np.allclose(found, seen, rtol=near, atol=near, equal_nan=seen.dtype.kind in "fc")
    )


def _call_method(name: str, array: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(array, name)(*args, **kwargs)


def _pattern(count: int, dtype: np.dtype[Any]) -> Any:
    """Memory with values that no function has trouble with."""
    if dtype.kind in "biu":
        return np.zeros(count, dtype)
    values = (np.arange(count) * 0.618) % 1 * 4 - 1.5
    return (values + 1j * values[::-1] if dtype.kind == "c" else values).astype(dtype)


def describe(seen: Any) -> str:
    """An array or scalar of NumPy in words."""
    kind = "a scalar" if isinstance(seen, np.generic) else f"an array of sizes {seen.shape} and"
    return f"{kind} of dtype {seen.dtype}"


@contextlib.contextmanager
def torch_unseen(tx: Translator) -> Iterator[None]:
    """What runs inside is no part of the program."""
    ours = (tx.recorder.mode, tx.recorder.functions)
    with torch_private.modes_taken_off(lambda mode: any(mode is own for own in ours)):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
