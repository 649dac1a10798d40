"""Which sizes of a frame's inputs vary, and what guards may do to them."""

from __future__ import annotations

import logging
import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.errors import NotSupported
from stillframe.fake.mode import FakeMode
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv
from stillframe.source import LocalSource
from stillframe.symbolic import Range
from stillframe.variables import FrameState, Options, capture_frame
from stillframe.variables.dynamism import (
    DimDynamic,
    ExportConstraint,
    FrameStateSizeEntry,
    RelaxedUnspecConstraint,
    StatefulSymbolicContext,
    StrictMinMaxConstraint,
    SubclassSymbolicContext,
    is_always_static,
    is_nested_int,
    symbolic_context,
)

X = LocalSource("x")
OPEN = Options(assume_static_by_default=False)
D, DUCK, STATIC, UNBACKED = (
    DimDynamic.DYNAMIC, DimDynamic.DUCK, DimDynamic.STATIC, DimDynamic.SIZE_LIKE_UNBACKED,
)  # fmt: skip


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


def marked(mark: str, *sizes: int, dim: int = 0, **bounds: int) -> torch.Tensor:
    """A tensor with one of torch's marks on a dim."""
    from torch._dynamo import decorators

    x = t(*sizes)
    getattr(decorators, mark)(x, dim, **bounds)
    return x


def context(
    tensor: torch.Tensor, state: FrameState | None = None, options: Options | None = None
) -> StatefulSymbolicContext:
    return symbolic_context(tensor, X, state or FrameState(), options or Options(), False)


def doubles(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def asks_for_a_range(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 3 else x


def asks_for_one_size(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 6 else x


# -- the decision ----------------------------------------------------------------------------------


@pytest.mark.spec("5.122", "5.128")
def test_what_is_always_static() -> None:
    plain, parameter = t(2), torch.nn.Parameter(t(2))
    loose = Options(
        force_parameter_static_shapes=False, force_nn_module_property_static_shapes=False
    )
    for value, of_module, strict, relaxed in (
        (plain, False, False, False), (plain, True, True, False),
        (parameter, False, True, False), (3, False, True, True),
    ):  # fmt: skip
        assert is_always_static(value, of_module, Options()) is strict
        assert is_always_static(value, of_module, loose) is relaxed
    found = symbolic_context(marked("mark_dynamic", 4, 3), X, FrameState(), OPEN, True)
    assert found.dynamic_sizes == (STATIC, STATIC) and found.constraint_sizes == (None, None)
    layer = torch.nn.Linear(3, 3)
    capture = capture_frame(layer, (t(4, 3),), options=OPEN)
    assert capture.failure(t(9, 3)) is None
    assert refuses(capture, t(9, 5))


@pytest.mark.spec("5.124", "5.132", "5.133")
@pytest.mark.parametrize(
    ("mark", "bounds", "expected"),
    [
        ("mark_unbacked", {}, (UNBACKED, None)),
        ("mark_dynamic", {}, (D, RelaxedUnspecConstraint())),
        ("mark_dynamic", {"min": 2, "max": 9}, (D, StrictMinMaxConstraint(Range(2, 9)))),
        ("mark_dynamic", {"max": 9}, (D, StrictMinMaxConstraint(Range(2, 9)))),
        ("mark_dynamic", {"min": 1}, (D, StrictMinMaxConstraint(Range(1, math.inf)))),
        ("maybe_mark_dynamic", {}, (D, None)),
        ("mark_static", {}, (STATIC, None)),
    ],
)
def test_marks(mark: str, bounds: dict[str, int], expected: Any) -> None:
    found = context(marked(mark, 4, 3, **bounds))
    assert (found.dynamic_sizes[0], found.constraint_sizes[0]) == expected
    assert (found.dynamic_sizes[1], found.constraint_sizes[1]) == (STATIC, None)
    by_default = context(marked(mark, 4, 3, **bounds), options=OPEN)
    assert by_default.dynamic_sizes == (expected[0], DUCK)
    ignored = context(marked(mark, 4, 3, **bounds), options=Options(allow_ignore_mark_dynamic=True))
    varied = RelaxedUnspecConstraint(warn_only=True) if mark == "mark_dynamic" else None
    assert ignored.constraint_sizes == (varied, None)
    assert ignored.dynamic_sizes[0] is expected[0]


@pytest.mark.spec("5.130", "5.132")
def test_what_was_seen_decides_where_nothing_is_marked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = FrameState()
    assert context(t(4, 3), state).dynamic_sizes == (STATIC, STATIC)
    assert state.entries["L['x']"] == FrameStateSizeEntry(None, (4, 3))
    with caplog.at_level(logging.INFO, "stillframe.variables.dynamism"):
        found = context(t(5, 3), state)
    assert "L['x']: sizes (5, 3) after (4, 3)" in caplog.text
    warns = RelaxedUnspecConstraint(warn_only=True)
    assert found.dynamic_sizes == (D, STATIC) and found.constraint_sizes == (warns, None)
    assert context(t(5, 3), state).dynamic_sizes == (D, STATIC)
    assert context(marked("mark_static", 6, 3), state).dynamic_sizes == (STATIC, STATIC)
    assert context(t(5), state).dynamic_sizes == (D,)
    assert state.entries["L['x']"] == FrameStateSizeEntry(None, None)
    off = Options(automatic_dynamic_shapes=False)
    assert context(t(5, 3), state, off).dynamic_sizes == (STATIC, STATIC)


@pytest.mark.spec("5.132")
def test_a_dynamic_mark_clears_what_was_seen() -> None:
    state = FrameState()
    context(marked("mark_dynamic", 4, 3), state)
    assert state.entries["L['x']"].size == (None, 3)
    assert context(t(4, 3), state).dynamic_sizes == (D, STATIC)


@pytest.mark.spec("5.131")
def test_constraints_of_an_export_intersect_under_the_first_name() -> None:
    x, y = t(4, 3), t(4)
    constraints = (
        ExportConstraint(weakref.ref(x), 0, Range(2, 64), debug_name="batch"),
        ExportConstraint(weakref.ref(y), 0, Range(3, 100), shared=(weakref.ref(x), 0)),
        ExportConstraint(weakref.ref(x), 0, Range(0, 32), True, "other"),
    )
    names: dict[str, str] = {}
    options = Options(constraints=constraints)
    found = symbolic_context(x, X, FrameState(), options, False, names)
    assert found.dynamic_sizes == (D, STATIC)
    assert found.constraint_sizes == (StrictMinMaxConstraint(Range(3, 32)), None)
    assert names == {"L['x'].size()[0]": "batch"}
    assert context(t(4, 3), options=options).dynamic_sizes == (STATIC, STATIC)
    capture = capture_frame(doubles, (x,), options=options)
    assert capture.failure(t(32, 3)) is None
    assert "3 <= L['x'].size()[0] <= 32" in refuses(capture, t(33, 3))
    with pytest.raises(sf.ConstraintViolationError, match="The size batch"):
        capture_frame(asks_for_a_range, (x,), options=options)


@pytest.mark.spec("5.126")
def test_a_view_has_the_context_of_its_base_too() -> None:
    base = t(6, 8)
    found = context(base[2:].t())
    assert found.view_base_context is not None
    assert found.view_base_context.dynamic_sizes == (STATIC, STATIC)
    assert found.view_base_context.tensor_source.name() == "L['x']._base"  # type: ignore[attr-defined]
    assert context(base).view_base_context is None
    state = FrameState()
    f = lambda x: (x.reshape(-1) * 2, x.t())  # noqa: E731
    agrees(f, lambda: (t(6, 8)[2:],), frame_state=state)
    second = agrees(f, lambda: (t(9, 8)[2:],), lambda: (t(3, 8),), frame_state=state)
    assert guards_of(second) == ["TENSOR_MATCH L['x']"]


@pytest.mark.spec("5.125", "5.134")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors() -> None:
    rows = [t(2, 3), t(4, 3)]
    with pytest.raises(NotSupported, match="nested"):
        context(torch.nested.nested_tensor(rows))
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    ragged: Any = jagged.shape[1]
    assert is_nested_int(ragged) and not is_nested_int(jagged.shape[0])
    state = FrameState()
    for _ in range(2):  # no reason for "already symbolic", nor for "has varied"
        found = context(jagged, state)
        assert isinstance(found, SubclassSymbolicContext)
        assert found.dynamic_sizes == (STATIC, D, STATIC)
        assert found.constraint_sizes == (None, None, None)
        assert set(found.inner_contexts) >= {"_values", "_offsets"}
    same = torch.nested.nested_tensor_from_jagged(jagged.values() * 2, jagged.offsets())
    other = torch.nested.nested_tensor(rows, layout=torch.jagged)
    assert ragged == same.shape[1] and ragged != other.shape[1]


@pytest.mark.spec("5.129")
def test_sizes_that_are_symbols_already_stay_so() -> None:
    env = ShapeEnv()
    FakeMode(env)
    n = env.new_symbol("n", 5, Range(0, math.inf))
    given = FakeTensor.make(env, (n, 1), (1, 1), 0, torch.float32, torch.device("cpu"))
    found = context(given, options=OPEN)
    assert found.dynamic_sizes == (D, STATIC) and found.constraint_sizes == (None, None)

    def f(x: torch.Tensor) -> Any:
        return x * 2, x.shape[0]

    capture = capture_frame(f, (given,))
    assert capture.failure(given) is None
    (node,) = (p for p in capture.graph_module.graph.nodes if p.op == "placeholder")
    assert type(node.meta["val"].sizes[0]) is not int and node.meta["val"].sizes[1] == 1


# -- the symbols -----------------------------------------------------------------------------------


@pytest.mark.spec("5.123", "5.130")
def test_a_frame_that_saw_two_sizes_takes_any() -> None:
    state = FrameState()
    first = agrees(doubles, lambda: (t(4, 3),), frame_state=state)
    assert "sizes" in refuses(first, t(6, 3))
    second = agrees(doubles, lambda: (t(6, 3),), lambda: (t(9, 3),), frame_state=state)
    assert refuses(second, t(6, 4))
    third = agrees(doubles, lambda: (t(6, 5),), lambda: (t(8, 9),), frame_state=state)
    assert third.failure(t(2, 2)) is None
    ranks = agrees(doubles, lambda: (t(6),), lambda: (t(3),), frame_state=state)
    assert refuses(ranks, t(6, 5))


@pytest.mark.spec("5.123")
def test_a_restart_gives_the_same_symbols() -> None:
    from stillframe.trace.recorder import Recorder
    from stillframe.trace.scope import ModuleScope
    from stillframe.variables.inputs import GraphInputs

    x, env = t(4, 5), ShapeEnv()
    first = TracingContext(None)
    made = []
    contexts = []
    for _ in range(2):
        recorder = Recorder(env, ModuleScope([]), lambda *_: None)  # type: ignore[arg-type,return-value]
        attempt = TracingContext(None)
        attempt.tensor_to_context = first.tensor_to_context
        with tracing(attempt):
            inputs = GraphInputs(env, recorder, FrameState(), OPEN)
            made.append(inputs.fake_and_record(X, x, inputs.placeholder(X)).sizes)
            contexts.append(inputs.tracked_fakes[0].symbolic_context)
    assert made[0] == made[1] and contexts[0] is contexts[1]
    assert all(type(size) is not int for size in made[0])
    known = contexts[0].symbols[env]
    assert set(known) == {"L['x'].size()[0]", "L['x'].size()[1]"}
    assert contexts[0].tensor_source == X


@pytest.mark.spec("5.124", "5.133")
def test_equal_sizes_share_a_symbol_unless_they_are_marked() -> None:
    shared = agrees(
        lambda x, y: x * y.sum(), lambda: (t(4, 4), t(4)), lambda: (t(6, 6), t(6)), options=OPEN
    )
    assert "equals" in refuses(shared, t(6, 5), t(6))

    def marked_pair(n: int, m: int) -> Callable[[], Any]:
        return lambda: (marked("mark_dynamic", n, 3), marked("mark_dynamic", m, 3))

    agrees(lambda x, y: (x * 2, y * 2), marked_pair(4, 4), marked_pair(5, 7))


@pytest.mark.spec("5.124")
def test_an_unbacked_size_has_no_example_to_decide_by() -> None:
    def make(n: int) -> Callable[[], Any]:
        return lambda: (marked("mark_unbacked", n, 3),)

    f = lambda x: (x * 2, x.shape[0], x.sum(0))  # noqa: E731
    capture = agrees(f, make(4), make(7), make(1), make(0))
    assert refuses(capture, t(4, 4))
    with pytest.raises(sf.DataDependentError):
        capture_frame(asks_for_a_range, make(4)())


@pytest.mark.spec("5.135")
def test_zero_and_one_specialise_unless_a_promise_says_otherwise() -> None:
    state = FrameState()
    agrees(doubles, lambda: (t(4, 3),), frame_state=state)
    ones = agrees(doubles, lambda: (t(1, 3),), frame_state=state)
    assert refuses(ones, t(2, 3))
    many = agrees(doubles, lambda: (t(5, 3),), frame_state=state)
    for size in (0, 1):
        assert "2 <= L['x'].size()[0]" in refuses(many, t(size, 3))
    promised = agrees(doubles, *(lambda n=n: (marked("mark_dynamic", n, 3),) for n in (1, 6, 0)))
    assert promised.failure(t(1, 3)) is None


def test_memory_with_gaps_keeps_its_sizes() -> None:
    gaps = lambda n: lambda: (t(n, 4)[:, :3],)  # noqa: E731
    state = FrameState()
    agrees(doubles, gaps(4), frame_state=state)
    second = agrees(doubles, gaps(6), frame_state=state)
    assert refuses(second, *gaps(7)())
    x = marked("mark_dynamic", 4, 4)[:, :3]
    x._dynamo_dynamic_indices = {0}  # type: ignore[attr-defined]
    with pytest.raises(sf.StillframeError, match="gaps"):
        capture_frame(doubles, (x,))


# -- promises --------------------------------------------------------------------------------------


@pytest.mark.spec("5.124")
@pytest.mark.parametrize(
    ("f", "bounds", "says"),
    [
        (doubles, {}, ""),
        (asks_for_a_range, {}, ""),
        (asks_for_one_size, {}, "was promised to vary"),
        (doubles, {"min": 2, "max": 9}, ""),
        (asks_for_a_range, {"min": 4, "max": 9}, ""),
        (asks_for_a_range, {"min": 2, "max": 9}, r"any of 2..9.*`size >= 4`"),
        (lambda x: x * t(1, 1).expand_as(x) if x.shape[0] % 2 == 0 else x, {"max": 9}, "any of"),
        (lambda x: x.squeeze(0), {"min": 1}, "any of 1.."),
    ],
)
def test_guards_keep_the_promises_that_marks_make(f: Any, bounds: Any, says: str) -> None:
    def make(n: int) -> Callable[[], Any]:
        return lambda: (marked("mark_dynamic", n, 6, **bounds),)

    if not says:
        agrees(f, make(6), make(8))
        return
    with pytest.raises(sf.ConstraintViolationError, match=says) as e:
        capture_frame(f, make(6)())
    assert "L['x'].size()[0]" in str(e.value) and __file__ in str(e.value)


@pytest.mark.spec("5.124", "5.132")
def test_a_size_that_varied_and_is_asked_for_is_a_warning() -> None:
    state = FrameState()
    agrees(asks_for_one_size, lambda: (t(4, 3),), frame_state=state)
    with pytest.warns(UserWarning, match=r"L\['x'\].size\(\)\[0\]"):
        capture = capture_frame(asks_for_one_size, (t(6, 3),), frame_state=state)
    assert refuses(capture, t(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture_frame(doubles, (t(6, 3),), frame_state=state)
