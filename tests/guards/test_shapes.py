"""The guard on shapes: all conditions of an environment, over the places that tell sizes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.guards.holding import failure, holds

from stillframe.errors import InternalError
from stillframe.guards.checks import Checks, compile_checks
from stillframe.guards.kinds.shapes import SHAPE_ENV
from stillframe.shapes.env import Guard as EnvGuard
from stillframe.shapes.env import ShapeEnv
from stillframe.source import (
    LocalSource,
    ShapeEnvSource,
    Source,
    TensorProperty,
    TensorPropertySource,
)
from stillframe.symbolic import Expr, Range, add, eq, gt, mod, mul, unwrap

X, Y, N = LocalSource("x"), LocalSource("y"), LocalSource("n")


def size(source: Source, dim: int) -> Source:
    return TensorPropertySource(source, TensorProperty.SIZE, dim)


def stride(source: Source, dim: int) -> Source:
    return TensorPropertySource(source, TensorProperty.STRIDE, dim)


def shape_checks(env: ShapeEnv, numbers: Sequence[tuple[Source, Any]], **f_locals: Any) -> Checks:
    kind = functools.partial(SHAPE_ENV, env=env, numbers=tuple(numbers))
    return compile_checks([ShapeEnvSource().make_guard(kind)], f_locals, {})


def env_of(*hints: int) -> tuple[ShapeEnv, list[Expr]]:
    env = ShapeEnv()
    return env, [env.new_symbol(f"d{i}", hint, Range(2, 100)) for i, hint in enumerate(hints)]


def tensor(*sizes: int) -> torch.Tensor:
    return torch.empty(sizes)


@pytest.mark.spec("4.38")
def test_ranges_and_relations_between_places() -> None:
    env, (s,) = env_of(4)
    numbers = [(size(X, 0), s), (size(X, 1), 3), (size(Y, 0), s), (size(Y, 1), unwrap(mul(s, 2)))]
    checks = shape_checks(env, numbers, x=tensor(4, 3), y=tensor(4, 8))
    assert holds(checks, x=tensor(7, 3), y=tensor(7, 14))
    for x, y in [
        (tensor(1, 3), tensor(1, 2)), (tensor(101, 3), tensor(101, 202)),
        (tensor(7, 4), tensor(7, 14)), (tensor(7, 3), tensor(8, 14)), (tensor(7, 3), tensor(7, 15)),
    ]:  # fmt: skip
        assert not holds(checks, x=x, y=y)
    found = failure(checks, x=tensor(7, 3), y=tensor(8, 14))
    assert "L['y'].size()[0] equals L['x'].size()[0]" in str(found) and "8 beside 7" in str(found)


@pytest.mark.spec("4.38")
def test_guards_of_the_environment() -> None:
    env, (a, b) = env_of(6, 4)
    assert env.evaluate(gt(a, b)) and env.evaluate(eq(mod(a, 3), 0))
    checks = shape_checks(env, [(size(X, 0), a), (size(X, 1), b)], x=tensor(6, 4))
    for i, j in itertools.product(range(1, 14), range(1, 8)):
        wanted = i > j and i % 3 == 0 and 2 <= i and 2 <= j
        assert holds(checks, x=tensor(i, j)) is wanted, (i, j)
    found = failure(checks, x=tensor(4, 2))
    assert "L['x'].size()[0] % 3 == 0" in str(found) and "test_shapes.py" in str(found)
    assert "L['x'].size()[0] = 4" in str(found)


@pytest.mark.spec("4.38")
def test_what_was_supposed_is_checked() -> None:
    env, (a, b) = env_of(6, 5)
    env.suppose(EnvGuard(unwrap(eq(a, add(b, 1))), kind="assumed"))
    checks = shape_checks(env, [(size(X, 0), a), (size(X, 1), b)], x=tensor(6, 5))
    assert holds(checks, x=tensor(9, 8)) and not holds(checks, x=tensor(9, 9))


@pytest.mark.spec("4.38")
def test_strides_and_offsets() -> None:
    env, (a, b) = env_of(6, 4)
    numbers = [
        (size(X, 0), a), (size(X, 1), b), (stride(X, 0), b), (stride(X, 1), 1),
        (TensorPropertySource(X, TensorProperty.STORAGE_OFFSET), 0),
    ]  # fmt: skip
    checks = shape_checks(env, numbers, x=tensor(6, 4))
    assert holds(checks, x=tensor(3, 5)) and not holds(checks, x=tensor(5, 3).t())
    assert not holds(checks, x=tensor(4, 5)[1:])


@pytest.mark.spec("4.38")
def test_numbers_that_are_no_sizes() -> None:
    env = ShapeEnv()
    n = env.new_symbol("n", 3, Range(-10, 10))
    f = env.new_symbol("f", 0.5, Range(0, 1))
    assert env.evaluate(gt(f, 0.25))
    numbers = [(N, n), (LocalSource("f"), f), (LocalSource("k"), unwrap(add(n, 1)))]
    checks = shape_checks(env, numbers, n=3, f=0.5, k=4)
    assert holds(checks, n=-4, f=0.75, k=-3)
    for n_, f_, k_ in [
        (True, 0.5, 2), (3.0, 0.5, 4), (3, 1, 4), (3, 0.25, 4), (11, 0.5, 12), (3, 0.5, 4.0),
        (-11, 0.5, -10), (3, float("nan"), 4), (0, 0.5, True),
    ]:  # fmt: skip
        assert not holds(checks, n=n_, f=f_, k=k_), (n_, f_, k_)


@pytest.mark.spec("4.38")
def test_a_symbol_that_no_place_tells() -> None:
    env, (a, b) = env_of(6, 4)
    env.evaluate(gt(a, b))
    with pytest.raises(InternalError, match="no place tells the value of s1"):
        shape_checks(env, [(size(X, 0), a)], x=tensor(6))


@pytest.mark.spec("4.38")
def test_conditions_on_data_are_no_guards() -> None:
    env, (a,) = env_of(6)
    u = env.new_unbacked()
    env.suppose(EnvGuard(unwrap(gt(add(a, 1), u)), kind="assumed"))
    checks = shape_checks(env, [(size(X, 0), a)], x=tensor(6))
    assert holds(checks, x=tensor(5))


@pytest.mark.spec("4.38")
def test_a_condition_on_names_that_python_knows() -> None:
    env, (a, b) = env_of(6, 4)
    from stillframe.symbolic import max_

    env.evaluate(gt(max_(a, b), 5))
    names = [LocalSource("max"), LocalSource("int")]
    checks = shape_checks(
        env, [(size(names[0], 0), a), (size(names[1], 0), b)], max=tensor(6), int=tensor(4)
    )
    assert holds(checks, max=tensor(3), int=tensor(9))
    assert not holds(checks, max=tensor(5), int=tensor(5))
