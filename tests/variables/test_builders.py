"""The two builders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.frames import Machine
from stillframe.guards import GuardsContext
from stillframe.source import LocalSource
from stillframe.variables import (
    FrameState,
    MutableLocal,
    Options,
    SourcelessBuilder,
    Translator,
    VariableBuilder,
)
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.sequences import ListVariable, TupleVariable
from stillframe.variables.registry import wraps_object, wraps_type


def nothing() -> None:
    return None


@pytest.fixture
def tx() -> Iterator[Translator]:
    made = Translator(nothing, FrameState(), Options())  # type: ignore[arg-type]
    Machine(made)
    with tracing(TracingContext(made.recorder.fake_mode)):
        yield made


@pytest.mark.spec("5.1")
def test_the_builder_needs_a_source_and_a_context(tx: Translator) -> None:
    with pytest.raises(InternalError, match="SourcelessBuilder"):
        VariableBuilder(tx, None)  # type: ignore[arg-type]
    VariableBuilder(tx, LocalSource("x"))
    with tracing(None), pytest.raises(RuntimeError, match="within an ongoing trace"):
        VariableBuilder(tx, LocalSource("x"))


@pytest.mark.spec("5.7")
def test_a_key_has_one_wrapper() -> None:
    with pytest.raises(InternalError, match="two wrappers for values of class list"):
        wraps_type(list)(lambda builder, value: ConstantVariable(value))
    key = object()
    wraps_object(key)(lambda builder, value: ConstantVariable(value))
    with pytest.raises(InternalError, match="two wrappers for <object"):
        wraps_object(key)(lambda builder, value: ConstantVariable(value))


@pytest.mark.spec("5.136")
def test_the_sourceless_builder_is_a_function(tx: Translator) -> None:
    with pytest.raises(InternalError, match="create"):
        SourcelessBuilder()
    made = SourcelessBuilder.create(tx, [1, (2, "x")])
    assert isinstance(made, ListVariable) and isinstance(made.mutable, MutableLocal)
    assert made.source is None
    assert isinstance(SourcelessBuilder.create(tx, (1,)), TupleVariable)
    assert SourcelessBuilder.create(tx, made) is made
    assert not TracingContext.get().part(GuardsContext).dynamo_guards


@pytest.mark.spec("5.139")
def test_only_literals_are_wrapped_as_literals(tx: Translator) -> None:
    values: list[Any] = [1, 2.5, "x", None, (1, ("a", None)), frozenset({1})]
    for value in values:
        assert SourcelessBuilder.wrap_constant_literal(value).as_python_constant() is value
    for value in ([1], object(), (1, [2])):
        with pytest.raises(InternalError, match="not a literal"):
            SourcelessBuilder.wrap_constant_literal(value)
