"""Fakes of custom operators: what they may use, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fake import custom_ops as ops
from torch.library import get_ctx

from stillframe.errors import CustomOperatorError, DataDependentError, NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Range

OUTSIDE = torch.ones(3)


def answer(op: Any, *values: Any, dynamic: bool = True, **kwargs: Any) -> Any:
    """What the fake mode says of ``op`` on tensors of the given sizes."""
    env = ShapeEnv()
    mode = FakeMode(env)
    sizes: dict[int, Any] = {}

    def fake(value: Any) -> Any:
        if isinstance(value, list):
            return [fake(v) for v in value]
        if not isinstance(value, torch.Tensor):
            return value
        if not dynamic:
            return FakeTensor.like_real(env, value)
        for n in value.shape:
            if n not in sizes:
                sizes[n] = env.new_symbol(f"d{n}", n, Range(2, 100))
        return FakeTensor.like_real(env, value, [sizes[n] for n in value.shape])

    overload = op if isinstance(op, torch._ops.OpOverload) else op.default
    result = mode.run(overload, tuple(fake(v) for v in values), kwargs)
    env.take_fresh_unbacked()
    return result


def sizes(value: Any) -> Any:
    """The sizes of fakes and symbolic numbers as text."""
    if isinstance(value, (list, tuple)):
        return [sizes(v) for v in value]
    return [str(s) for s in value.sizes] if isinstance(value, FakeTensor) else str(to_size(value))


X = torch.randn(5, 3)
sf = torch.ops.sfops


@pytest.mark.parametrize(
    ("op", "args", "dynamic", "static"),
    (
        (sf.scaled, (X, 0.5), ["s0", "s1"], ["5", "3"]),
        (sf.scaled, (X, 0.5, 3), ["s0", "s1"], ["5", "3"]),
        (sf.doubled_rows, (X,), ["2*s0", "s1"], ["10", "3"]),
        (sf.positive, (X,), ["u0"], ["u0"]),
        (sf.moments, (X,), [["s1"], ["s1"]], [["3"], ["3"]]),
        (sf.rows, ([X, X], [2, 3]), [["2", "s1"], ["3", "s1"]], [["2", "3"], ["3", "3"]]),
        (sf.length, (X,), "3*s0", "15"),
        (sf.counted, (X,), [["s0", "s1"], "u0"], [["5", "3"], "u0"]),
        (sf.cubed, (X,), ["s0", "s1"], ["5", "3"]),
        (sf.halved, (X,), ["s0", "s1"], ["5", "3"]),
        (sf.head, (X,), ["1", "s1"], ["1", "3"]),
        (sf.add_one_, (X,), "None", "None"),
    ),
)
def test_sizes(op: Any, args: Any, dynamic: Any, static: Any) -> None:
    assert sizes(answer(op, *args)) == dynamic
    assert sizes(answer(op, *args, dynamic=False)) == static


def test_bounds_of_a_new_size() -> None:
    result = answer(sf.some, X)
    (size,) = result.sizes
    assert result.env.facts.range_of(size) == Range(1, 4)
    assert [str(check.expr) for check in result.env.deferred] != []


def test_results_require_grad_as_in_eager() -> None:
    x = torch.randn(4, requires_grad=True)
    assert answer(sf.sine, x).requires_grad
    assert not answer(sf.sine, x.detach()).requires_grad
    with torch.no_grad():
        assert not answer(sf.sine, x).requires_grad


def test_a_view_shares_memory() -> None:
    env = ShapeEnv()
    x = FakeTensor.like_real(env, X)
    assert FakeMode(env).run(sf.head.default, (x,), {}).storage_ is x.storage_


@pytest.mark.parametrize("op", (sf.unknown, sf.undescribed))
@pytest.mark.parametrize("dynamic", (True, False))
def test_no_fake(op: Any, dynamic: bool) -> None:
    with pytest.raises(NotSupported) as caught:
        answer(op, X, dynamic=dynamic)
    name = op.default.name()
    assert f"The operator {name} has no fake" in str(caught.value)
    assert f'@torch.library.register_fake("{name}")' in caught.value.hints[0]


def test_an_argument_that_only_the_data_tells() -> None:
    def fake(x: Any) -> Any:
        return x.new_empty(3 if x.sum() > 0 else 4)

    with pytest.raises(DataDependentError):
        answer(ops.broken("asks_data", fake), X)


def _two(x: Any) -> Any:
    return torch.empty_like(x), torch.empty_like(x)


def _fails(x: Any) -> Any:
    torch._check(x.dim() == 7, lambda: "x must have 7 dims")
    return x.clone()


# name -> (fake, schema, what the message says)
WRONG: dict[str, tuple[Callable[..., Any], str, str]] = {
    "w_alias": (lambda x: x, "(Tensor x) -> Tensor", "returns x or a view of it for its result"),
    "w_view": (lambda x: x[0], "(Tensor x) -> Tensor", "returns x or a view of it"),
    "w_twice": (
        lambda x: [torch.empty_like(x)] * 2, "(Tensor x) -> (Tensor, Tensor)",
        "returns result 0 or a view of it for result 1",
    ),
    "w_count": (_two, "(Tensor x) -> (Tensor, Tensor, Tensor)", "returns 2, where"),
    "w_none": (lambda x: None, "(Tensor x) -> Tensor", "returns None for its result"),
    "w_number": (lambda x: 3, "(Tensor x) -> Tensor", "returns int 3 for its result"),
    "w_tensor": (lambda x: x.clone(), "(Tensor x) -> SymInt", "where the schema says"),
    "w_list": (lambda x: x.clone(), "(Tensor x) -> Tensor[]", "where the schema says a list"),
    "w_item": (lambda x: [x.clone(), 1], "(Tensor x) -> Tensor[]", "int 1 for its result[1]"),
    "w_nothing": (lambda x: x.clone(), "(Tensor x) -> ()", "where the operator returns nothing"),
    "w_real": (lambda x: OUTSIDE, "(Tensor x) -> Tensor", "a tensor that it did not make"),
    "w_meta": (
        lambda x: torch.empty(3, device="meta"), "(Tensor x) -> Tensor", "on the device meta",
    ),
    "w_other": (
        lambda x: x.clone(), "(Tensor(a) x) -> Tensor(a)", "other memory for its result",
    ),
    "w_inplace": (
        lambda x: x[:], "(Tensor(a!) x) -> Tensor(a!)", "does not return x itself for its result",
    ),
    "w_fails": (_fails, "(Tensor x) -> Tensor", "fails: RuntimeError: x must have 7 dims"),
    "w_numpy": (lambda x: x.numpy(), "(Tensor x) -> Tensor", "fails: "),
    "w_takes": (lambda x, y: x, "(Tensor x) -> Tensor", "takes (x, y), and the operator is called"),
    "w_bounds": (
        lambda x: x.new_empty(get_ctx().new_dynamic_size(min=-1)), "(Tensor x) -> Tensor",
        "a size is not negative",
    ),
    "w_hidden": (
        lambda x: x.new_empty(
            get_ctx().new_dynamic_size() + get_ctx().new_dynamic_size()
        ), "(Tensor x) -> Tensor", "returns it only as a part of others",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("dynamic", (True, False))
def test_wrong_fakes_are_told_by_name(name: str, dynamic: bool) -> None:
    fake, schema, says = WRONG[name]
    if not hasattr(sf, name):
        ops.broken(name, fake, schema)
    with pytest.raises(CustomOperatorError) as caught:
        answer(getattr(sf, name), X, dynamic=dynamic)
    assert caught.value.operator == f"sfops::{name}"
    assert f"sfops::{name}" in caught.value.what and says in str(caught.value)


def test_a_new_size_that_is_not_returned_is_forgotten() -> None:
    def fake(x: Any) -> Any:
        get_ctx().new_dynamic_size()
        return x.clone()

    assert sizes(answer(ops.broken("forgets", fake), X)) == ["s0", "s1"]


def test_the_context_ends_with_the_call() -> None:
    answer(sf.positive, X)
    assert get_ctx() is None
