"""Subclasses of tensors from outside and in results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, new_translator, refuses
from torch.testing._internal.two_tensor import TwoTensor

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.source import LocalSource
from stillframe.variables import FrameState, Options, VariableBuilder, capture_frame
from stillframe.variables.dynamism import SubclassSymbolicContext, symbolic_context
from stillframe.variables.kinds.tensor_subclasses import (
    TensorSubclassVariable,
    TensorWithTFOverrideVariable,
    WrapperSubclassVariable,
)


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


FACTOR = 1


class Scaled(torch.Tensor):
    """A tensor times a number, which its class multiplies by when an operator comes."""

    inner: torch.Tensor
    scale: int

    @staticmethod
    def __new__(cls, inner: torch.Tensor, scale: int) -> Any:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype
        )

    def __init__(self, inner: torch.Tensor, scale: int) -> None:
        self.inner, self.scale = inner, scale

    def __tensor_flatten__(self) -> tuple[list[str], int]:
        return ["inner"], self.scale

    @staticmethod
    def __tensor_unflatten__(inner: Any, scale: int, size: Any, stride: Any) -> Any:
        return Scaled(inner["inner"], scale)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
        plain = [a.inner * (a.scale * FACTOR) if isinstance(a, Scaled) else a for a in args]
        out = func(*plain, **(kwargs or {}))
        return Scaled(out, 1) if isinstance(out, torch.Tensor) else out

    def total(self) -> torch.Tensor:
        return self.inner.sum()


def scaled(scale: int = 2, *sizes: int) -> tuple[Any, ...]:
    return (Scaled(t(*(sizes or (2, 3))), scale),)


@pytest.fixture(autouse=True)
def plain_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """``assert_close`` would send its own operators through the classes; compare inner tensors."""
    ordinary = torch.testing.assert_close

    def compare(ours: Any, theirs: Any, **options: Any) -> None:
        for cls, names in ((Scaled, ["inner"]), (TwoTensor, ["a", "b"])):
            if type(ours) is cls:
                for name in names:
                    ordinary(getattr(ours, name), getattr(theirs, name), **options)
                return
        ordinary(ours.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor), **options)

    monkeypatch.setattr(torch.testing, "assert_close", compare)


def build(value: Any, options: Options | None = None) -> Any:
    tx = new_translator(build, options or Options())
    with tracing(TracingContext(tx.recorder.fake_mode)):
        return VariableBuilder(tx, LocalSource("x"))(value)


# -- wrapper subclasses ----------------------------------------------------------------------------


@pytest.mark.spec("5.35", "5.38")
def test_a_wrapper_subclass_is_inputs_of_its_inner_tensors() -> None:
    assert type(build(*scaled())) is WrapperSubclassVariable

    def f(x: Any) -> Any:
        kinds = type(x), isinstance(x, Scaled), x.shape, x.dtype
        return x + 1, x.total(), x.scale, x.inner * 2, kinds, x

    capture = agrees(f, scaled)
    found = guards_of(capture)
    for guard in (
        "TYPE_MATCH L['x']", "EQUALS_MATCH inner_tensor_names(L['x'])",
        "EQUALS_MATCH inner_tensor_context(L['x'])", "TENSOR_MATCH L['x'].inner",
        "TENSOR_MATCH L['x']",
    ):  # fmt: skip
        assert guard in found
    assert [a.source.name() for a in capture.inputs if a.source] == ["L['x'].inner"]
    assert "scale" in refuses(capture, *scaled(3)) or "context" in refuses(capture, *scaled(3))
    assert refuses(capture, t(2, 3)) and refuses(capture, *scaled(2, 3, 2))


@pytest.mark.spec("5.35")
def test_the_code_of_the_class_is_run_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = agrees(lambda x: x * 2, scaled)
    assert capture.failure(*scaled()) is None
    monkeypatch.setitem(globals(), "FACTOR", 5)
    assert "FACTOR" in refuses(capture, *scaled())
    agrees(lambda x: x * 2, scaled)


@pytest.mark.spec("5.35")
def test_operators_come_to_the_class_in_parts_as_in_eager() -> None:
    """``linear`` is no operator by the time that a class sees it."""
    agrees(lambda x, w: torch.nn.functional.linear(x, w), lambda: (*scaled(), t(4, 3)))
    agrees(lambda x: Scaled(x, 4) + 1, lambda: (t(2, 3),))
    agrees(lambda x: x * 2 + x, lambda: (TwoTensor(t(2, 3), t(2, 3)),))


@pytest.mark.spec("5.35")
def test_gradients_of_wrapper_subclasses_are_refused() -> None:
    def product(x: Any, w: torch.Tensor) -> Any:
        return x @ w

    with pytest.raises(sf.StillframeError, match="requires a gradient"):
        capture_frame(product, (*scaled(), torch.nn.Parameter(t(3, 3))))
    two = TwoTensor(t(2).requires_grad_(), t(2).requires_grad_())
    with pytest.raises(sf.StillframeError, match="requires a gradient"):
        capture_frame(lambda x: x * 2, (two,))


@pytest.mark.spec("5.127")
def test_the_contexts_of_a_wrapper_subclass_are_one_for_each_inner_tensor() -> None:
    state, options = FrameState(), Options(assume_static_by_default=False)
    (value,) = scaled(2, 4, 3)
    context = symbolic_context(value, LocalSource("x"), state, options, False)
    assert isinstance(context, SubclassSymbolicContext) and len(context.dynamic_sizes) == 2
    assert [c.tensor_source.name() for c in context.inner_contexts.values()] == ["L['x'].inner"]
    outer = symbolic_context(value, LocalSource("x"), state, options, False, outer_only=True)
    assert not isinstance(outer, SubclassSymbolicContext)
    assert outer.dynamic_sizes == context.dynamic_sizes


@pytest.mark.spec("5.121", "5.127")
def test_sizes_of_a_wrapper_subclass_vary_with_those_of_its_inner_tensor() -> None:
    options = Options(assume_static_by_default=False)

    def f(x: Any) -> Any:
        return x * 2, x.shape[0]

    capture = agrees(f, lambda: scaled(2, 4, 3), lambda: scaled(2, 7, 3), options=options)
    assert "L['x'].inner" in [a.source.name() for a in capture.inputs if a.source]
    assert "size()[0]" in refuses(capture, *scaled(2, 1, 3))


# -- with __torch_function__ -----------------------------------------------------------------------


class Named(torch.Tensor):
    """One that changes nothing: results are of the class, too."""


class Loud(torch.Tensor):
    """Adding multiplies."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.add:
            func = torch.mul
        return super().__torch_function__(func, types, args, kwargs)

    def twice(self) -> Any:
        return self * (2 * FACTOR)

    @property
    def half(self) -> Any:
        return self / 2


LISTED = Options(traceable_tensor_subclasses=frozenset({Named, Loud}))


def of(cls: type) -> Callable[[], tuple[Any, ...]]:
    return lambda: (t(2, 3).as_subclass(cls),)


@pytest.mark.spec("5.36", "5.38")
def test_the_function_of_a_listed_subclass_is_run_by_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = build(*of(Loud)(), LISTED)
    assert type(made) is TensorWithTFOverrideVariable and made.python_type() is Loud

    def f(x: Any) -> Any:
        kinds = type(x), isinstance(x, Loud), isinstance(x, (int, torch.Tensor)), x.shape
        return torch.add(x, 2), x.twice(), x.half, kinds, x, x[0], torch.ones(3) + x, x.sum()

    capture = agrees(f, of(Loud), options=LISTED)
    assert "TYPE_MATCH L['x']" in guards_of(capture)
    assert refuses(capture, t(2, 3)) and refuses(capture, *of(Named)())
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert "FACTOR" in refuses(capture, *of(Loud)())


@pytest.mark.spec("5.36")
def test_results_and_views_are_of_the_class_as_in_eager() -> None:
    agrees(lambda x: (x + 1, x.view(6), x.add_(1), x), of(Named), options=LISTED)
    agrees(lambda x: x * 2, lambda: (t(2).requires_grad_().as_subclass(Loud),), options=LISTED)
    agrees(lambda x: x.as_subclass(torch.Tensor) + 1, of(Named), options=LISTED)


@pytest.mark.spec("5.36", "5.38")
def test_a_subclass_that_is_not_listed_is_refused_with_the_option() -> None:
    with pytest.raises(sf.StillframeError, match="traceable_tensor_subclasses"):
        capture_frame(lambda x: x + 1, of(Named)())
    with pytest.raises(sf.StillframeError, match="as_subclass"):
        capture_frame(lambda x: x.as_subclass(Named), (t(2),))


class OwnParameter(torch.nn.Parameter):
    """torch's functions do not care that it is one."""

    def twice(self) -> Any:
        return self * 2


def test_a_subclass_without_a_function_is_a_tensor_of_its_class() -> None:
    def f(p: Any) -> Any:
        return p.twice(), type(p), isinstance(p, torch.nn.Parameter), p + 1, p

    capture = agrees(f, lambda: (OwnParameter(t(2, 3)),))
    assert refuses(capture, torch.nn.Parameter(t(2, 3)))


@pytest.mark.spec("5.73")
def test_a_listed_class_makes_one_of_a_tensor() -> None:
    assert type(build(Named, LISTED)) is TensorSubclassVariable
    assert type(build(Named)) is not TensorSubclassVariable

    def f(x: torch.Tensor) -> Any:
        made: Any = Named(x)
        made.add_(1)
        return made * 2, x, Named

    agrees(f, lambda: (t(2, 3),), options=LISTED)
    with pytest.raises(sf.StillframeError, match="makes a Named"):
        capture_frame(lambda x: Named([1.0]), (t(2),), options=LISTED)
