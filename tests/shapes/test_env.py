"""ShapeEnv: questions, guards, unbacked symbols, the protocol inside torch's SymInt."""

from __future__ import annotations

import math

import pytest
import torch

from stillframe.errors import DataDependentError, InternalError
from stillframe.shapes import layout
from stillframe.shapes.env import ShapeEnv, to_size
from stillframe.symbolic import Expr, Range, eq, symbol


def env_with(*ranges: tuple[int, float, int]) -> tuple[ShapeEnv, list[torch.SymInt]]:
    """An environment with one symbol per (lower, upper, hint)."""
    env = ShapeEnv()
    symbols = [
        env.new_symbol(f"d{i}", hint, Range(lower, upper))
        for i, (lower, upper, hint) in enumerate(ranges)
    ]
    return env, [env.wrap(s) for s in symbols]


def test_facts_decide_without_a_guard() -> None:
    env, (s,) = env_with((2, 64, 7))
    assert s > 1 and s <= 64 and not s == 0 and s * 128 != 0
    assert (s + 3) * 2 - 2 * s == 6
    assert env.guards == []


def test_hints_decide_with_a_guard_and_a_line() -> None:
    env, (s,) = env_with((2, 64, 7))
    if s > 5:
        pass
    (guard,) = env.guards
    assert "if s > 5:" in guard.where[-1]
    assert s > 5 and len(env.guards) == 1, "asked again, it is a fact"


def test_arithmetic_on_symints_is_exact() -> None:
    env, (s, t) = env_with((2, 64, 7), (2, 64, 5))
    cases = [
        (s + t, 12), (s - t, 2), (s * t, 35), (s // t, 1), (s % t, 2), (-s // 2, -4), (s**2, 49),
        (torch.sym_max(s, t), 7), (torch.sym_min(s, t), 5), (s / t, 1.4), (2 - s, -5),
        (100 // s, 14),
        (math.ceil(s / 2), 4), (math.floor(s / 2), 3), (torch.sym_int(s / 2), 3),
        (torch.sym_float(s), 7.0), (s**-0.5, 7**-0.5), (torch.sym_sum([s, t, 1]), 13),
    ]  # fmt: skip
    for got, want in cases:
        expr = to_size(got)
        assert isinstance(expr, Expr), got
        assert env.hint_of(expr) == pytest.approx(want)
    assert env.guards == []


@pytest.mark.spec("2.17")
def test_unbacked_questions_name_the_line_and_the_check() -> None:
    env = ShapeEnv()
    u = env.wrap(env.new_unbacked())
    with pytest.raises(DataDependentError) as caught:
        if u > 4:
            pass
    text = str(caught.value)
    assert "if u > 4:" in text and "torch._check" in text and "u0" in text


def test_checks_refine_unbacked() -> None:
    env = ShapeEnv()
    u = env.wrap(env.new_unbacked())
    torch._check(u <= 10)
    torch._check(u >= 3)
    assert u < 11 and u > 2
    assert len(env.deferred) == 2
    with pytest.raises(RuntimeError):
        torch._check(u > 20)


def test_int_of_a_symbol_specialises_with_a_guard() -> None:
    env, (s,) = env_with((2, 64, 7))
    assert list(range(s)) == list(range(7))
    assert len(env.guards) == 1 and env.guards[0].expr is eq(symbol("s0"), 7)


@pytest.mark.spec("1.32")
def test_frozen() -> None:
    env, (s,) = env_with((2, 64, 7))
    env.freeze()
    assert s >= 2
    with pytest.raises(InternalError, match="frozen"):
        bool(s > 5)
    with pytest.raises(InternalError, match="frozen"):
        env.new_unbacked()


def test_guard_or_false_takes_the_general_branch() -> None:
    from torch.fx.experimental.symbolic_shapes import (
        guard_or_false,
        guard_or_true,
        statically_known_true,
    )

    env, (s,) = env_with((0, math.inf, 1))
    assert guard_or_false(s == 1) is False and guard_or_true(s == 1) is True
    assert statically_known_true(s >= 0) and not statically_known_true(s == 1)
    assert env.guards == []


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 5), (4,), (), (2, 0, 3), (7, 1)])
@pytest.mark.parametrize("form", ["plain", "transposed", "channels_last"])
def test_layout_agrees_with_torch(shape: tuple[int, ...], form: str) -> None:
    t = torch.empty(shape)
    if form == "transposed":
        t = t.transpose(0, -1) if t.dim() > 1 else t
    elif form == "channels_last":
        t = t.to(memory_format=torch.channels_last) if t.dim() == 4 else t
    sizes, strides = tuple(t.shape), t.stride()
    assert layout.is_contiguous(sizes, strides) == t.is_contiguous()
    assert layout.contiguous_strides(sizes) == torch.empty(sizes).stride()
    if t.dim() == 4 and 0 not in shape:
        expected = t.is_contiguous(memory_format=torch.channels_last)
        assert layout.is_channels_last(sizes, strides) == expected
    if 0 not in shape:
        dense = torch.ops.aten.is_non_overlapping_and_dense(t)
        assert layout.is_non_overlapping_and_dense(sizes, strides) == dense


def test_symbolic_layouts_ask_nothing() -> None:
    env, _ = env_with((0, math.inf, 3), (0, math.inf, 5))
    a, b = symbol("s0"), symbol("s1")
    strides = layout.contiguous_strides((a, b, 8))
    assert layout.is_contiguous((a, b, 8), strides)
    assert not layout.is_contiguous((b, a, 8), (strides[1], strides[0], 1))
    assert layout.is_non_overlapping_and_dense((b, a, 8), (strides[1], strides[0], 1))
    assert layout.stride_order((b, a, 8), (strides[1], strides[0], 1)) == (2, 0, 1)
    assert env.guards == []
