"""Arrays, scalars and dtypes of NumPy in frames: inputs, memory, guards."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tests.variables.checking import agrees, assert_same, guards_of, refuses
from tests.variables.kinds.seen_kinds import watched

import stillframe as sf
from stillframe.variables import FrameState, Options, capture_frame

numpy_module = np
sine = np.sin
KEPT = np.arange(3.0)
FLOAT_LIMITS, INT_LIMITS = np.finfo(np.float32), np.iinfo(np.int8)


def array(*sizes: int, dtype: Any = np.float32) -> Any:
    return (np.arange(np.prod(sizes)).reshape(sizes) / 3).astype(dtype)


def read_only() -> Any:
    made = array(6)
    made.setflags(write=False)
    return made


# -- inputs ----------------------------------------------------------------------------------------


@pytest.mark.spec("5.19")
@pytest.mark.spec("5.30")
def test_an_array_from_outside_is_an_input_that_shares_its_memory() -> None:
    def works(a: Any) -> Any:
        a += 1
        part = a[1:]
        part *= 2
        a[0] = 5
        return part, a, a.T, a.sum(axis=0)

    with watched() as seen:
        capture = agrees(works, lambda: (array(3, 4),))
    assert seen.kind("L['a']") == "NumpyNdarrayVariable"
    assert "NumpyNdarrayVariable" in seen.made_kinds()
    place = "TENSOR_MATCH array_as_tensor(L['a'])"
    assert {"TYPE_MATCH L['a']", place} <= set(guards_of(capture))
    (argument,) = capture.inputs

    class Sub(np.ndarray):
        pass

    for other in (
        torch.ones(3, 4), array(3, 4).view(Sub), array(3, 4).tolist(), array(3, 5),
        array(3, 4, dtype=np.float64), array(4, 3).T, array(12),
    ):  # fmt: skip
        assert "L['a']" in refuses(capture, other)


@pytest.mark.spec("5.30")
def test_a_read_only_array_is_read_and_keeps_its_flag() -> None:
    def reads(a: Any) -> Any:
        return a + 1, a[1:], a

    capture = agrees(reads, lambda: (read_only(),))
    assert "writeable" in refuses(capture, array(6))
    example = read_only()
    capture_frame(reads, (example,))
    assert not example.flags.writeable
    with pytest.raises(sf.FrameError, match="assignment destination is read-only"):
        capture_frame(lambda a: a.__setitem__(0, 1), (read_only(),))


@pytest.mark.spec("5.30")
@pytest.mark.parametrize(
    ("example", "text"),
    [
        (np.array([None]), "dtype object"),
        (np.array(["a"]), "dtype <U1"),
        (np.arange(3, dtype=np.uint16), "dtype uint16"),
        (np.arange(3.0).astype(">f4"), "dtype >f4"),
        (np.arange(3.0)[::-1], "strides"),
    ],
)
def test_arrays_that_tensors_cannot_be_are_refused(example: Any, text: str) -> None:
    with pytest.raises(sf.FrameError, match=text):
        capture_frame(lambda a: a + 1, (example,))
    capture_frame(lambda a, x: x, (example, torch.ones(1)))  # it is not looked at


@pytest.mark.spec("5.19")
def test_numpy_is_left_alone_if_asked_to() -> None:
    with pytest.raises(sf.FrameError, match="leave NumPy alone"):
        capture_frame(lambda a: a + 1, (array(3),), options=Options(trace_numpy=False))


def test_sizes_that_varied_are_symbols() -> None:
    def works(a: Any) -> Any:
        return a * 2 + a.sum(), (a.T + 1).ravel(), np.zeros(a.shape[0]), np.stack([a, a]).mean(0)

    state = FrameState()
    agrees(works, lambda: (array(4, 2),), frame_state=state)
    agrees(works, lambda: (array(6, 2),), lambda: (array(9, 2),), frame_state=state)


def test_arrays_that_share_memory_do_so_in_every_call() -> None:
    def writes(a: Any, b: Any) -> Any:
        a[0] = 5
        return b.sum()

    def same() -> tuple[Any, ...]:
        made = array(6)
        return made, made

    def view() -> tuple[Any, ...]:
        made = array(6)
        return made, made[1:]

    apart = agrees(writes, lambda: (array(6), array(6)))
    one = agrees(writes, same)
    agrees(writes, view)
    assert "different objects" in refuses(apart, *same())
    refuses(one, array(6), array(6))


def test_containers_of_arrays_are_read_where_they_are() -> None:
    def joins(arrays: Any) -> Any:
        return np.concatenate(arrays), np.stack(arrays).sum(0), [a * 2 for a in arrays]

    capture = agrees(joins, lambda: ([array(3), array(3)],), lambda: ([array(3) + 1, array(3)],))
    assert "TENSOR_MATCH array_as_tensor(L['arrays'][1])" in guards_of(capture)

    def of_global(x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_numpy(KEPT)

    capture = agrees(of_global, lambda: (torch.ones(3),))
    with mock.patch.dict(globals(), KEPT=KEPT + 7):
        torch.testing.assert_close(capture(torch.ones(3)), of_global(torch.ones(3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda values: np.float32(2) in values,
        lambda values: values.index(np.float32(2)),
        lambda values: values == [3, 2],
        repr,
        lambda values: f"{values}",
        sorted,
        lambda values: max(values),
    ],
)
def test_what_c_code_would_read_of_scalars_in_a_list_is_refused(function: Any) -> None:
    def asks(values: Any) -> Any:
        return function(values)

    with pytest.raises(sf.StillframeError):
        capture_frame(asks, ([np.float32(3), np.float32(2)],))


# -- memory ----------------------------------------------------------------------------------------


def conjugates(a: Any) -> Any:
    b, c = np.conj(a), a.real
    b[0], c[1] = 7, 9
    return a, b, c


def flattens(a: Any) -> Any:
    b, c, d = a.ravel(), a.T.ravel(), (a.T * 2).ravel()
    b[0], c[1] = 7, 9
    e = (a + 1).T
    f = e.ravel()
    f[0] = 50
    return a, b, c, d, e, f, a.flatten(), a.reshape(-1)


def overlaps(a: Any) -> Any:
    a[1:] += a[:-1]
    a[1:] = a[:-1]
    a += a.T
    np.add(a[1:], 1, out=a[:-1])
    a.clip(0, 1, out=a)
    return a


def is_itself(a: Any) -> Any:
    return (
        np.asarray(a) is a, np.array(a) is a, a.astype(a.dtype, copy=False) is a, a.T is a,
        np.ascontiguousarray(a) is a,
    )  # fmt: skip


def makes_and_fills(a: Any) -> Any:
    made, other = np.zeros(3), np.zeros(3)
    for i in range(3):
        made[i] = a[i, 0]
    made += 1
    return made, other, np.broadcast_to(made, (2, 3))


@pytest.mark.spec("5.30")
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("function", [conjugates, flattens, is_itself, makes_and_fills])
def test_views_are_views_and_copies_are_copies(function: Any, dtype: Any) -> None:
    agrees(function, lambda: (array(4, 4, dtype=dtype),))


def test_writes_between_parts_of_one_array() -> None:
    agrees(overlaps, lambda: (array(4, 4),))


def test_a_copy_that_numpy_would_not_make_is_refused() -> None:
    def spreads(a: Any) -> Any:
        np.copyto(a[1:], a[:-1])
        return a

    with pytest.raises(sf.FrameError, match="copyto"):
        capture_frame(spreads, (array(4),))


def test_items_are_set_by_indices_and_masks() -> None:
    def sets(a: Any, places: Any, mask: Any) -> Any:
        a[places] = 0
        a[mask] = 1
        a[[0, 1]] += 5
        return a

    mask = np.array([1, 0, 1, 0, 1], bool)
    places = np.array([3, 1])
    agrees(sets, lambda: (array(5), places - 1, mask), lambda: (array(5), places, ~mask))


def test_tensors_and_arrays_over_one_memory() -> None:
    def there_and_back(t: torch.Tensor, a: Any) -> Any:
        b = t.numpy()
        b += 1
        u = torch.from_numpy(a)
        u.mul_(2)
        return t, b, a, u, torch.tensor(a), torch.as_tensor(b), np.asarray(t) + 1

    agrees(there_and_back, lambda: (torch.arange(3.0), array(3)))
    leaf = torch.arange(3.0, requires_grad=True)
    with pytest.raises(RuntimeError, match="requires grad"):
        capture_frame(lambda t: t.numpy(), (leaf,))
    agrees(lambda t: t.detach().numpy() * 2, lambda: (torch.arange(3.0, requires_grad=True),))
    with pytest.raises(sf.FrameError, match="mul\\(\\) of torch takes an array"):
        capture_frame(lambda t, a: t * a, (torch.ones(3), array(3)))


def test_arrays_in_objects_and_dicts_are_replaced() -> None:
    class Holder:
        def __init__(self) -> None:
            self.w = array(6)

    def replaces(holder: Any, table: Any) -> Any:
        holder.w = holder.w * 2
        holder.total = holder.w.sum()
        table["x"] = table["a"] * 2
        table["a"] += 1
        return holder, table

    agrees(replaces, lambda: (Holder(), {"a": array(2)}))


# -- scalars ---------------------------------------------------------------------------------------


@pytest.mark.spec("5.27")
@pytest.mark.spec("5.56")
@pytest.mark.parametrize(
    "value",
    [np.float64(3), np.float32(np.nan), np.float16(2), np.int64(3), np.uint8(255), np.bool_(True)],
)
def test_a_scalar_is_an_input_and_is_not_fixed(value: Any) -> None:
    def works(s: Any, a: Any) -> Any:
        return s + s, a * s, s, isinstance(s, float), type(s), s.dtype

    with watched() as seen, np.errstate(all="ignore"):
        capture = agrees(works, lambda: (value, array(2)))
        other = type(value)(1)
        assert_same(capture(other, array(2)), works(other, array(2)))
    variable: Any = seen.outside["L['s']"]
    assert type(variable).__name__ == "UnspecializedPythonVariable"
    assert variable.raw_value is value
    found = guards_of(capture)
    assert "TYPE_MATCH L['s']" in found
    assert not any(guard.startswith("CONSTANT_MATCH L['s']") for guard in found)
    for wrong in (float(value), np.array(value), np.int16(1)):
        assert "L['s']" in refuses(capture, wrong, array(2))


@pytest.mark.spec("5.27")
def test_a_scalar_is_promoted_as_numpy_does_and_not_as_python() -> None:
    def works(s: Any, a: Any) -> Any:
        return a * s, a * 2.0, a * np.float64(2)

    capture = agrees(works, lambda: (np.float64(3), array(2)))
    assert [result.dtype.name for result in capture(np.float64(3), array(2))] == [
        "float64", "float32", "float64",
    ]  # fmt: skip


@pytest.mark.spec("5.27")
@pytest.mark.parametrize("value", [np.float64(2.5), np.float32(2.5), np.int64(3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_torch_takes_a_scalar_for_a_number_of_python(value: Any, dtype: torch.dtype) -> None:
    def works(x: torch.Tensor, s: Any) -> Any:
        return x * s, torch.add(x, s), x[0] - s

    def world(value: Any) -> Any:
        return lambda: (torch.ones(3, dtype=dtype), value)

    agrees(works, world(value), world(type(value)(7)))


def test_what_a_scalar_is_worth_is_not_known() -> None:
    for function in (lambda s: 1 if s > 2 else 0, lambda s: float(s), lambda s: [0] * s):
        with pytest.raises(sf.StillframeError):
            capture_frame(function, (np.float64(3),))


def test_a_list_is_not_repeated_as_often_as_the_data_tell() -> None:
    with pytest.raises(sf.FrameError, match="a sequence and a scalar"):
        capture_frame(lambda s: [0] * s, (np.int64(3),))


# -- what numpy does beside arrays -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.matrix([[1.0]]), "matrix"), (np.ma.array([1.0]), "MaskedArray"),
        (np.random.default_rng(0), "Generator"), (np.random.RandomState(0), "RandomState"),
    ],
)  # fmt: skip
def test_other_holders_of_data_are_refused(value: Any, name: str) -> None:
    with pytest.raises(sf.FrameError, match=f"uses a {name} of NumPy"):
        capture_frame(lambda v: v is None, (value,))


def test_classes_of_numpy_make_nothing_that_is_not_watched() -> None:
    with pytest.raises(sf.FrameError, match="makes a ndarray of NumPy"):
        capture_frame(lambda: np.ndarray((3,)), ())


def test_errors_of_numpy_are_relied_on() -> None:
    def divides(a: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return a / 0

    def raises(a: Any) -> Any:
        with np.errstate(all="raise"):
            return a / 0

    capture = agrees(divides, lambda: (array(3),))
    with pytest.raises(sf.FrameError, match="errstate"):
        capture_frame(raises, (array(3),))
    with np.errstate(all="raise"):
        assert "NUMPY_ERRORS" in refuses(capture, array(3))
        with pytest.raises(sf.FrameError, match="np.seterr"):
            capture_frame(divides, (array(3),))


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import torch
import stillframe as sf
from stillframe.variables import capture_frame
x = torch.ones(2)
assert capture_frame(lambda x: [x + 1], (x,))(x)[0].tolist() == [2, 2]
try:
    capture_frame(lambda x: x.numpy(), (x,))
except sf.FrameError as e:
    assert "NumPy is not installed" in str(e), e
else:
    raise AssertionError("an array without NumPy")
"""


@pytest.mark.spec("5.19")
def test_frames_are_captured_where_numpy_is_not_installed() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT_NUMPY], check=True)


# -- functions, dtypes, limits ---------------------------------------------------------------------


@pytest.mark.spec("5.57")
def test_numpy_and_its_functions_are_known_by_identity() -> None:
    def works(a: Any) -> Any:
        return sine(a) + numpy_module.cos(a)

    with watched() as seen:
        capture = agrees(works, lambda: (array(3),))
    assert seen.kind("G['sine']") == seen.kind("G['numpy_module']") == "NumpyVariable"
    found = guards_of(capture)
    assert {"FUNCTION_MATCH G['sine']", "TYPE_MATCH G['numpy_module']"} <= set(found)
    with mock.patch.dict(globals(), sine=np.cos):
        assert "G['sine']" in refuses(capture, array(3))
    with mock.patch.dict(globals(), numpy_module=copy):
        assert "G['numpy_module']" in refuses(capture, array(3))


@pytest.mark.spec("5.58")
@pytest.mark.parametrize("dtype", [np.dtype("float64"), np.float64, np.int32, np.bool_])
def test_a_dtype_is_known_by_identity(dtype: Any) -> None:
    def casts(a: Any, dtype: Any) -> Any:
        return a.astype(dtype), np.ones(2, dtype), dtype, a.dtype

    with watched() as seen:
        capture = agrees(casts, lambda: (array(3), dtype))
    assert seen.kind("L['dtype']") == "NumpyDTypeVariable"
    assert "NumpyDTypeVariable" in seen.made_kinds()
    assert "ID_MATCH L['dtype']" in guards_of(capture)
    assert "L['dtype']" in refuses(capture, array(3), np.dtype("float16"))


@pytest.mark.spec("5.59")
def test_limits_of_dtypes() -> None:
    def reads(a: Any) -> Any:
        return (
            a * FLOAT_LIMITS.eps, INT_LIMITS.max, INT_LIMITS.dtype, np.finfo(np.float64).max,
            np.finfo(a.dtype).tiny, np.iinfo("int16").min,
        )  # fmt: skip

    with watched() as seen:
        capture = agrees(reads, lambda: (array(3),))
    assert seen.kind("G['FLOAT_LIMITS']") == "NumpyTypeInfoVariable"
    assert seen.kind("G['INT_LIMITS']") == "NumpyTypeInfoVariable"
    found = guards_of(capture)
    assert "ID_MATCH G['FLOAT_LIMITS']" in found
    assert {"TYPE_MATCH G['INT_LIMITS']", "ID_MATCH G['INT_LIMITS'].dtype"} <= set(found)
    with mock.patch.dict(globals(), INT_LIMITS=np.iinfo(np.int8)):  # made anew, of the same dtype
        assert capture.failure(array(3)) is None
    with mock.patch.dict(globals(), INT_LIMITS=np.iinfo(np.int16)):
        assert "INT_LIMITS" in refuses(capture, array(3))
    with mock.patch.dict(globals(), FLOAT_LIMITS=np.finfo(np.float16)):
        assert "FLOAT_LIMITS" in refuses(capture, array(3))
