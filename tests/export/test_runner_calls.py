"""Which calls a program takes, and what it says to the others."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf


def agree(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def refused(call: Callable[[], Any], *parts: str) -> str:
    """The message of a refused call, which must hold all ``parts``; shown without inner errors."""
    with pytest.raises(sf.CallError) as caught:
        call()
    text = str(caught.value)
    for part in parts:
        assert part in text
    assert caught.value.__suppress_context__
    return text


X = torch.arange(6.0).reshape(2, 3)


# -- binding --------------------------------------------------------------------------------------


def model(x: Any, y: Any = None, flag: bool = True, *, scale: float = 2.0) -> Any:
    if y is not None:
        x = x + y
    return x * scale if flag else x


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((X,), {}), ((X, X), {}), ((X,), {"y": X}), ((), {"y": X, "x": X}), ((X, None, False), {}),
     ((X,), {"scale": 3.0, "flag": True})],
)  # fmt: skip
def test_every_way_to_make_the_same_call(args: Any, kwargs: Any) -> None:
    run = sf.export(model, args, kwargs).module()
    want = model(*args, **kwargs)
    agree(run(*args, **kwargs), want)
    names = ["x", "y", "flag"]
    by_name = {**dict(zip(names, args, strict=False)), **kwargs}
    agree(run(**by_name), want)
    agree(run(**dict(reversed(by_name.items()))), want)
    full = {"y": None, "flag": True, "scale": 2.0, **by_name}
    agree(run(full["x"], full["y"], full["flag"], scale=full["scale"]), want)


def test_wrong_names_are_errors_as_in_python() -> None:
    run = sf.export(model, (X,)).module()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        run()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        run(X, z=1)


def test_omitted_at_export() -> None:
    run = sf.export(model, (X,)).module()
    text = refused(lambda: run(X, X), "y: is a tensor of shape (2, 3)", "captured without it")
    assert "leave y out" in text
    refused(lambda: run(X, scale=3.0), "scale: is 3.0")
    refused(lambda: run(X, None, 1), "flag: is 1")
    refused(lambda: run(X, scale=2), "scale: is 2,")


def test_none_at_export() -> None:
    run = sf.export(model, (X, None)).module()
    refused(lambda: run(X, X), "y: is a tensor of shape (2, 3), the program was captured with None")
    run = sf.export(model, (X, X)).module()
    refused(lambda: run(X), "y: is None, the program takes a float32 tensor of shape (2, 3)")


def test_rest_and_keywords() -> None:
    def f(*rest: Any, **kw: Any) -> Any:
        return sum(rest) + kw["a"] - kw["b"][0]

    run = sf.export(f, (X, X + 1), {"a": X, "b": [X]}).module()
    agree(run(X, X, a=X + 3, b=[X]), f(X, X, a=X + 3, b=[X]))
    refused(lambda: run(X, a=X, b=[X]), "*rest: 1 values, the program takes 2")
    refused(lambda: run(X, X, a=X), "**kw: called without ['b']")
    refused(lambda: run(X, X, a=X, b=[X], c=X), "with ['c']")
    refused(lambda: run(X, X, b=[X], a=X), "the keys come as ['b', 'a']", "order")
    refused(lambda: run(X, torch.ones(1, 3), a=X, b=[X]), "rest[1]: dim 0 is 1")
    refused(lambda: run(X, X, a=X, b=[X[:1]]), "b[0]: dim 0 is 1")


def test_positional_only_and_keyword_only() -> None:
    def f(x: Any, /, y: Any, *, z: Any) -> Any:
        return x + y * z

    run = sf.export(f, (X, X), {"z": X}).module()
    agree(run(X, z=X, y=X), f(X, X, z=X))
    with pytest.raises(TypeError):
        run(x=X, y=X, z=X)
    with pytest.raises(TypeError):
        run(X, X, X)


def test_defaults_that_are_objects() -> None:
    marker = object()
    scale = torch.tensor(3.0)

    def f(x: Any, how: Any = marker, by: Any = scale) -> Any:
        return x * by

    run = sf.export(f, (X,)).module()
    agree(run(X), X * 3)
    agree(run(X, marker, scale), X * 3)
    refused(lambda: run(X, object()), "how: is an object")
    refused(lambda: run(X, by=torch.tensor(3.0)), "by: is a tensor")


# -- constants ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "others"),
    [
        (2, [3, 2.0, True, "2", None, X]),
        (True, [1, False, None]),
        (1.5, [1, 2.5, None]),
        (0.0, [-0.0, 0]),
        (float("nan"), [0.0]),
        ("sum", ["mean", b"sum", None]),
        (torch.float32, [torch.float64, None]),
        (None, [0, False, X]),
    ],
    ids=repr,
)
def test_constants_are_fixed_in_type_and_value(value: Any, others: list[Any]) -> None:
    def f(x: Any, how: Any) -> Any:
        return x + 1

    run = sf.export(f, (X, value)).module()
    agree(run(X, value), X + 1)
    if isinstance(value, str):
        agree(run(X, "".join(["s", "um"])), X + 1)  # equal and not identical
    if isinstance(value, float):
        agree(run(X, float(repr(value))), X + 1)
    for other in others:
        refused(lambda other=other: run(X, other), "how: is ", "captured with")


# -- containers -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Batch:
    ids: Any
    mask: Any = None


Point = collections.namedtuple("Point", "a b")


@pytest.fixture
def batch_class() -> Iterator[None]:
    pytree.register_dataclass(Batch)
    yield
    pytree.SUPPORTED_NODES.pop(Batch)
    pytree.SUPPORTED_SERIALIZED_TYPES.pop(Batch)
    pytree.CONSTANT_NODES.discard(Batch)


def total(data: Any) -> Any:
    return sum(leaf.sum() for leaf in pytree.tree_leaves(data) if isinstance(leaf, torch.Tensor))


@pytest.mark.parametrize(
    ("value", "others"),
    [
        ([X, X], [(X, X), [X], [X, X, X], X, {"a": X}, None, iter([X, X])]),
        ((X, [X]), [[X, [X]], (X, (X,)), (X, X), (X,)]),
        ({"a": X, "b": X}, [{"a": X}, {"a": X, "c": X}, [X, X], {"b": X, "a": X}]),
        (collections.OrderedDict(a=X), [{"a": X}, collections.OrderedDict(b=X)]),
        (collections.defaultdict(list, a=X), [{"a": X}, collections.defaultdict(int, a=X)]),
        (Point(X, X), [(X, X), collections.namedtuple("Point", "a b")(X, X), Point(X, None)]),
        (collections.deque([X]), [[X], collections.deque([X, X])]),
        ({"x": {"y": [X, None]}}, [{"x": {"y": [X, X]}}, {"x": {"y": [None, X]}}]),
        ((), [[], (X,), None]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_containers_are_fixed(value: Any, others: list[Any]) -> None:
    def f(x: Any, data: Any) -> Any:
        return x + total(data)

    run = sf.export(f, (X, value)).module()
    agree(run(X, value), f(X, value))
    for other in others:
        refused(lambda other=other: run(X, other), "data")


def test_paths_in_messages(batch_class: None) -> None:
    run = sf.export(lambda data: total(data), ({"a": [X, Batch(X)]},)).module()
    agree(run({"a": [X, Batch(X)]}), 2 * X.sum())
    refused(lambda: run({"a": [X, Batch(X.double())]}), "data['a'][1].ids: dtype is float64")
    refused(lambda: run({"a": [X, Batch(X, X)]}), "data['a'][1]: a Batch")
    refused(
        lambda: run({"a": [X, X]}), "data['a'][1]: is a tensor of shape (2, 3)", "takes a Batch"
    )


def test_library_output_classes() -> None:
    from transformers.modeling_outputs import BaseModelOutput

    def f(out: Any) -> Any:
        return BaseModelOutput(last_hidden_state=out.last_hidden_state * 2)

    example = BaseModelOutput(last_hidden_state=X)
    run = sf.export(f, (example,)).module()
    got = run(example)
    assert type(got) is BaseModelOutput
    agree(got.last_hidden_state, X * 2)
    refused(lambda: run({"last_hidden_state": X}), "out: is a dict", "BaseModelOutput")


# -- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (X.double(), "dtype is float64, the program takes float32"),
        (X.to("meta"), "device is meta, the program takes cpu"),
        (X.to_sparse(), "layout is sparse_coo"),
        (X[None], "has 3 dims, shape (1, 2, 3); the program takes 2, shape (2, 3)"),
        (X[0], "has 1 dims"),
        (X[:1], "dim 0 is 1, the program takes 2"),
        (X.numpy(), "is a ndarray"),
        ([[1.0, 2.0, 3.0]] * 2, "is a list"),
        (None, "is None"),
        (3.0, "is 3.0"),
    ],
    ids=[
        "dtype",
        "device",
        "layout",
        "rank",
        "rank less",
        "size",
        "numpy",
        "list",
        "None",
        "float",
    ],
)
def test_tensors_are_checked(other: Any, part: str) -> None:
    run = sf.export(torch.relu, (X,)).module()
    refused(lambda: run(other), "arg0: ", part)


def test_tensors_that_are_fine() -> None:
    run = sf.export(lambda x: x * 2, (X,)).module()
    agree(run(nn.Parameter(X)), nn.Parameter(X) * 2)
    agree(run(X.t().contiguous().t()), X * 2)
    scalar = sf.export(lambda x: x * 2, (torch.tensor(1.5),)).module()
    agree(scalar(torch.tensor(4.0)), torch.tensor(8.0))
    refused(lambda: scalar(torch.ones(1)), "has 1 dims")


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.spec("2.98")
def test_ranges_with_the_users_names() -> None:
    dims = {"input_ids": {0: sf.Dim("batch", min=1), 1: sf.Dim("seq", min=2, max=512)}}
    run = sf.export(
        lambda input_ids: input_ids + 1, (torch.ones(2, 5),), dynamic_shapes=dims
    ).module()
    agree(run(torch.ones(1, 512)), torch.full((1, 512), 2.0))
    refused(lambda: run(torch.ones(1, 600)), "input_ids: dim 1 (seq) is 600, outside 2..512")
    refused(lambda: run(torch.ones(1, 1)), "input_ids: dim 1 (seq) is 1, outside 2..512")
    refused(lambda: run(torch.ones(0, 5)), "input_ids: dim 0 (batch) is 0, outside 1..")


@pytest.mark.spec("2.98")
def test_equal_sizes() -> None:
    n = sf.Dim("n")
    run = sf.export(lambda x, y: x + y, (X, X), dynamic_shapes=({0: n}, {0: n})).module()
    agree(run(X[:1], X[:1]), X[:1] * 2)
    refused(lambda: run(X, X[:1]), "y: dim 0 is 1, must be n = 2", "n is from dim 0 of x")


@pytest.mark.spec("2.98")
def test_derived_sizes() -> None:
    n = sf.Dim("n", min=1, max=10)

    def f(x: Any, y: Any) -> Any:
        return x.sum() + y.sum()

    run = sf.export(
        f, (torch.ones(4), torch.ones(5)), dynamic_shapes=({0: 2 * n}, {0: 2 * n + 1})
    ).module()
    agree(run(torch.ones(6), torch.ones(7)), torch.tensor(13.0))
    refused(lambda: run(torch.ones(5), torch.ones(6)), "x: dim 0", "is 5, is not 2*n")
    refused(lambda: run(torch.ones(6), torch.ones(8)), "y: dim 0 is 8, must be 2*n + 1 = 7")
    refused(lambda: run(torch.ones(22), torch.ones(23)), "n is 11, outside 1..10")


def test_guards_name_the_users_line() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] % 2 == 0:  # the line
            return x * 2
        return x

    run = sf.export(f, (torch.ones(4),), dynamic_shapes=({0: sf.Dim.AUTO},)).module()
    agree(run(torch.ones(6)), torch.full((6,), 2.0))
    text = refused(lambda: run(torch.ones(5)), "takes only sizes with", "% 2 == 0", "=5")
    assert "if x.shape[0] % 2 == 0:  # the line" in text


def test_the_first_misfit_is_reported_with_its_argument() -> None:
    run = sf.export(lambda x, y: x + y, (X, X)).module()
    assert "x: " in refused(lambda: run(X.double(), X[:1]))


def test_a_program_runs_on_every_size_it_admits() -> None:
    n = sf.Dim("n", min=1)
    m = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    run = sf.export(m, (X,), dynamic_shapes=({0: n},)).module()
    for size in (1, 2, 7):
        x = torch.randn(size, 3)
        agree(run(x), m(x))


def test_errors_of_operators_are_not_taken_for_misfits() -> None:
    run = sf.export(lambda x, i: x[i], (X, torch.tensor([0]))).module()
    with pytest.raises(IndexError):
        run(X, torch.tensor([9]))


# -- cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 16, 64])
def test_a_call_costs_no_more_than_eager(length: int) -> None:
    """The best of several interleaved runs; the margin is for noise, the aim is far below."""
    import timeit

    m = nn.Sequential(*(nn.Linear(8, 8) for _ in range(length))).eval()
    x = torch.randn(2, 8)
    run = sf.export(m, (x,), dynamic_shapes=({0: sf.Dim("b", min=1)},)).module()
    number = max(1, 2000 // length)
    seen = []
    with torch.no_grad():
        for _ in range(8):  # one undisturbed attempt is enough
            eager, ours = (
                min(timeit.repeat(lambda call=call: call(x), number=number, repeat=5))
                for call in (m, run)
            )
            seen.append(ours / eager)
            if ours < eager:
                return
    raise AssertionError(f"calls cost {[round(s, 2) for s in seen]} times eager's")
