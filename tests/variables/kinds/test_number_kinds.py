"""Numbers and other literals from outside: constants, symbols, inputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, new_translator, refuses

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.shapes.env import ShapeEnv
from stillframe.source import (
    AttrSource,
    ConstantSource,
    DefaultsSource,
    GlobalSource,
    LocalSource,
    NNModuleSource,
    Source,
)
from stillframe.symbolic import Range, ge
from stillframe.variables import FrameState, Options, VariableBuilder, capture_frame
from stillframe.variables.kinds.constants import ConstantVariable
from stillframe.variables.kinds.numbers import SymNodeVariable

OPEN = Options(assume_static_by_default=False)
OPEN_FLOATS = Options(specialize_float=False)


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


class Building:
    """Values wrapped in a trace of their own.

    Args:
        options: of the trace.
        flags: of the tracing context.
    """

    def __init__(self, options: Options | None = None, **flags: Any) -> None:
        self.tx = new_translator(t, options or Options())
        self.context = TracingContext(self.tx.recorder.fake_mode)
        self.flags = flags

    def __call__(self, value: Any, source: Source | None = None) -> Any:
        with tracing(self.context), TracingContext.patch(**self.flags):
            return VariableBuilder(self.tx, source or LocalSource("n"))(value)

    @property
    def guards(self) -> list[str]:
        from stillframe.guards import GuardsContext

        found = self.context.part(GuardsContext).dynamo_guards
        return [f"{guard.kind} {guard.name}" for guard in found]


def times(x: torch.Tensor, n: Any) -> Any:
    return x * n, n + 1, n, [n]


# -- constants -------------------------------------------------------------------------------------

LITERALS: list[Any] = [
    7, 2.5, 1j, True, "text", b"bytes", None, ..., t.__code__, torch.device("cpu"), torch.float16,
    torch.channels_last, torch.strided, math.nan, -0.0,
]  # fmt: skip


@pytest.mark.spec("5.14", "5.24")
@pytest.mark.parametrize("value", LITERALS, ids=lambda value: type(value).__name__)
def test_a_literal_is_a_constant_that_is_checked(value: Any) -> None:
    build = Building()
    made = build(value)
    assert type(made) is ConstantVariable and made.as_python_constant() is value
    assert build.guards == ["CONSTANT_MATCH L['n']"]
    capture = agrees(lambda x, n: (x * 2, [n] if n is None else n), lambda: (t(2), value))
    for other in LITERALS:
        if other is not value:
            assert "L['n']" in refuses(capture, t(2), other)


@pytest.mark.spec("5.24")
def test_a_boolean_is_never_an_integer_and_zero_has_a_sign() -> None:
    capture = capture_frame(times, (t(2), True))
    assert refuses(capture, t(2), 1) and refuses(capture, t(2), False)
    capture = capture_frame(times, (t(2), 1))
    assert refuses(capture, t(2), True) and refuses(capture, t(2), 1.0)
    capture = capture_frame(times, (t(2), 0.0))
    assert refuses(capture, t(2), -0.0) and refuses(capture, t(2), math.nan)


@pytest.mark.spec("5.24")
@pytest.mark.parametrize(
    ("value", "source"),
    [
        (0, LocalSource("n")),
        (1, LocalSource("n")),
        (7, GlobalSource("n")),
        (7, AttrSource(NNModuleSource(LocalSource("m")), "n")),
        (7, DefaultsSource(LocalSource("f"), 0, False)),
        (7, AttrSource(LocalSource("c"), "cell_contents")),
    ],
    ids=lambda v: v.name() if isinstance(v, Source) else str(v),
)
def test_integers_that_stay_constants(value: int, source: Source) -> None:
    build = Building(OPEN)
    assert type(build(value, source)) is ConstantVariable
    assert build.guards == [f"CONSTANT_MATCH {source.name()}"]
    forced = Building(OPEN, force_unspec_int_unbacked_size_like=True)
    made = forced(value, source)
    assert type(made) is SymNodeVariable and forced.tx.env.is_unbacked(made.value.node.expr)


@pytest.mark.spec("5.24")
def test_all_integers_are_constants_where_that_is_asked() -> None:
    options = Options(specialize_int=True, assume_static_by_default=False)
    assert type(Building(options)(7)) is ConstantVariable
    assert type(Building(OPEN)(7)) is SymNodeVariable


# -- symbolic integers -----------------------------------------------------------------------------


@pytest.mark.spec("5.25")
def test_an_integer_that_varied_is_a_symbol_for_any_integer() -> None:
    state = FrameState()
    first = agrees(times, lambda: (t(2), 3), frame_state=state)
    assert "CONSTANT_MATCH L['n']" in guards_of(first)
    assert agrees(times, lambda: (t(2), 3), frame_state=state).failure(t(2), 4) is not None
    second = agrees(
        times, lambda: (t(2), 5), *(lambda n=n: (t(2), n) for n in (0, 1, -4, 2**40)),
        frame_state=state,
    )  # fmt: skip
    assert "TYPE_MATCH L['n']" in guards_of(second)
    assert refuses(second, t(2), True) and refuses(second, t(2), 2.0)
    third = agrees(times, lambda: (t(2), 3), frame_state=state)
    assert third.failure(t(2), 9) is None


@pytest.mark.spec("5.25")
def test_a_symbolic_integer_is_one_variable_and_tracked() -> None:
    build = Building(OPEN)
    made = build(7)
    assert build(7) is made and made.python_type() is int
    (tracked,) = build.tx.inputs.tracked_fakes
    assert tracked.fake is made.value and tracked.symbolic_context is None
    (argument,) = build.tx.inputs.arguments
    assert argument.source == LocalSource("n") and not argument.is_tensor
    constant = Building(OPEN)
    assert type(constant(7, ConstantSource("n"))) is ConstantVariable and constant.guards == []


@pytest.mark.spec("5.25")
def test_a_symbolic_integer_is_not_duck_shaped_with_sizes() -> None:
    capture = agrees(lambda x, n: x * n, lambda: (t(5), 5), lambda: (t(4), 7), options=OPEN)
    assert capture.failure(t(9), 2) is None


@pytest.mark.spec("5.25")
def test_the_force_flag_makes_a_size_that_only_the_data_knows() -> None:
    build = Building(force_unspec_int_unbacked_size_like=True)
    made = build(7)
    bounds = build.tx.env.facts.range_of(made.value.node.expr)
    assert bounds.lower == 0 and build.tx.env.hint_of(made.value.node.expr) is None
    assert build.guards == ["TYPE_MATCH L['n']"]


@pytest.mark.spec("5.25")
def test_what_the_program_asks_of_a_symbolic_integer_is_guarded() -> None:
    def f(x: torch.Tensor, n: int) -> Any:
        return x * 2 if n > 3 else x

    capture = agrees(f, lambda: (t(2), 5), lambda: (t(2), 9), options=OPEN)
    assert "L['n'] >= 4" in refuses(capture, t(2), 3)
    text = agrees(lambda x, n: (x * n, f"{n} {x.shape[0]:>3}", str(n)), lambda: (t(2), 5),
                  options=OPEN)  # fmt: skip
    assert "L['n'] == 5" in refuses(text, t(2), 6)
    chosen = agrees(lambda x, n: [1, 2, 3, 4][n], lambda: (t(2), 3), options=OPEN)
    assert refuses(chosen, t(2), 2)


# -- floats ----------------------------------------------------------------------------------------


@pytest.mark.spec("5.26")
def test_an_open_float_is_a_tensor_of_the_graph() -> None:
    values = (-0.0, 1e300, math.inf, 0.1, math.nan)
    capture = agrees(
        lambda x, n: (n * 2, n, x.sum() > n), lambda: (t(2), 2.5),
        *(lambda n=n: (t(2), n) for n in values), options=OPEN_FLOATS,
    )  # fmt: skip
    assert "TYPE_MATCH L['n']" in guards_of(capture)
    assert refuses(capture, t(2), 3) and refuses(capture, t(2), True)
    names = [a.source.name() for a in capture.inputs if a.source]
    assert "number_as_tensor(L['n'])" in names
    nodes = [n for n in capture.graph_module.graph.nodes if n.op == "placeholder"]
    (made,) = (n.meta["val"] for n in nodes if n.meta["val"].dim() == 0)
    assert made.dtype is torch.float64


@pytest.mark.spec("5.26")
def test_nan_and_constants_stay_constants() -> None:
    build = Building(OPEN_FLOATS)
    assert type(build(math.nan)) is ConstantVariable
    assert type(build(2.5, ConstantSource("c"))) is ConstantVariable
    assert type(build(2.5, LocalSource("m"))) is SymNodeVariable
    capture = capture_frame(lambda x, n: (x * n, n), (t(2), math.nan), options=OPEN_FLOATS)
    assert capture.failure(t(2), math.nan) is None and refuses(capture, t(2), 1.0)


# -- options, export -------------------------------------------------------------------------------


@pytest.mark.spec("5.28")
def test_the_defaults_of_the_options() -> None:
    options = Options()
    on = (
        options.specialize_float, options.assume_static_by_default,
        options.automatic_dynamic_shapes, options.trace_numpy,
        options.force_parameter_static_shapes, options.force_nn_module_property_static_shapes,
        options.skip_fsdp_guards,
    )  # fmt: skip
    off = (
        options.specialize_int, options.allow_rnn, options.allow_ignore_mark_dynamic,
        options.capture_sparse_compute,
    )  # fmt: skip
    assert all(on) and not any(off) and options.traceable_tensor_subclasses == frozenset()


@pytest.mark.spec("5.29")
@pytest.mark.parametrize("value", [7, 2.5])
def test_export_has_no_inputs_but_plain_locals(value: Any) -> None:
    options = Options(export=True, assume_static_by_default=False, specialize_float=False)
    assert type(Building(options)(value)) is SymNodeVariable
    with pytest.raises(InternalError, match=rf"{value} at L\['a'\].b"):
        Building(options)(value, AttrSource(LocalSource("a"), "b"))


# -- symbolic booleans -----------------------------------------------------------------------------


def booleans() -> tuple[ShapeEnv, Any, Any]:
    env = ShapeEnv()
    known = env.new_symbol("n", 5, Range(0, math.inf))
    return env, env.wrap(ge(known, 3)), env.wrap(ge(env.new_unbacked(), 3))


@pytest.mark.spec("5.84")
def test_a_symbolic_boolean_is_an_input_that_is_not_asked() -> None:
    env, known, unknown = booleans()

    def f(flag: Any, x: torch.Tensor) -> Any:
        return flag, torch.sym_ite(flag, 2, 3) * x

    for flag in (known, unknown):
        capture = capture_frame(f, (flag, t(2)))
        assert not any("['flag']" in guard for guard in guards_of(capture))
        for plain in (True, False):
            found, product = capture(plain, t(2))
            assert found is plain and product.tolist() == (t(2) * (2 if plain else 3)).tolist()
        assert "no boolean" in refuses(capture, 7, t(2))
    assert env.guards == []


@pytest.mark.spec("5.84")
def test_a_branch_on_a_symbolic_boolean_is_guarded_or_data_dependent() -> None:
    _, known, unknown = booleans()
    capture = capture_frame(lambda flag, x: x * 2 if flag else x, (known, t(2)))
    assert capture.failure(True, t(2)) is None
    assert "bool_as_int(L['flag']) == 1" in refuses(capture, False, t(2))
    assert refuses(capture, 1, t(2))
    with pytest.raises(sf.DataDependentError):
        capture_frame(lambda flag, x: x * 2 if flag else x, (unknown, t(2)))
    build = Building()
    made = build(known)
    assert type(made) is SymNodeVariable and made.python_type() is bool
    (tracked,) = build.tx.inputs.tracked_fakes
    assert tracked.source.name() == "bool_as_int(L['n'])" and build.guards == []
