"""Contexts: ids, dynamic scope, where in user code, state that can be put back."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import traceback
from traceback import FrameSummary
from types import SimpleNamespace
from typing import Any

import pytest

from stillframe.context import (
    GLOBAL_STATE_KEYS,
    CompileContext,
    CompileId,
    GlobalContext,
    GlobalContextCheckpointState,
    ModuleContext,
    TraceId,
    TracingContext,
    WeakByIdentity,
    compile_context,
    real_stack,
    tracing,
)
from stillframe.errors import InternalError


def names(stack: traceback.StackSummary | None) -> list[str] | None:
    return None if stack is None else [frame.name for frame in stack]


def frame(name: str) -> FrameSummary:
    return FrameSummary("user.py", 1, name, lookup_line=False)


# -- ids and compilations --------------------------------------------------------------------------


@pytest.mark.spec("4.1", "4.2")
def test_ids() -> None:
    compile_id = CompileId(3, 1)
    assert str(compile_id) == "3/1"
    assert str(TraceId(compile_id, 0)) == "3/1" and str(TraceId(compile_id, 2)) == "3/1_2"
    assert {compile_id, CompileId(3, 1)} == {compile_id} and TraceId(compile_id, 0).attempt == 0


@pytest.mark.spec("4.51")
def test_compile_context_is_in_scope() -> None:
    assert CompileContext.try_get() is None
    assert CompileContext.current_compile_id() is None
    assert CompileContext.current_trace_id() is None
    with pytest.raises(RuntimeError, match="ongoing compilation"):
        CompileContext.get()
    outer, inner = CompileContext(CompileId(0, 0)), CompileContext(None)
    with compile_context(outer):
        outer.attempt += 1  # a restart: the context stays
        assert CompileContext.get() is outer and str(CompileContext.current_trace_id()) == "0/0_1"
        with compile_context(inner):
            assert CompileContext.get() is inner
            assert CompileContext.current_compile_id() is None
            assert CompileContext.current_trace_id() is None
        with pytest.raises(KeyError), compile_context(None):
            assert CompileContext.try_get() is None
            raise KeyError
        assert CompileContext.current_compile_id() == CompileId(0, 0)
    assert CompileContext.try_get() is None
    with pytest.raises(InternalError, match="not a compile id"):
        CompileContext("3/1")  # type: ignore[arg-type]


@pytest.mark.spec("4.51", "4.52")
def test_contexts_are_of_one_thread() -> None:
    seen: list[Any] = []
    with compile_context(CompileContext(None)), tracing(TracingContext(None)):
        look = threading.Thread(
            target=lambda: seen.extend([CompileContext.try_get(), TracingContext.try_get()])
        )
        look.start()
        look.join()
        assert CompileContext.try_get() is not None and TracingContext.try_get() is not None
    assert seen == [None, None]


# -- tracing ---------------------------------------------------------------------------------------


@pytest.mark.spec("4.52", "4.62")
def test_tracing_context_is_in_scope() -> None:
    assert TracingContext.try_get() is None
    with pytest.raises(RuntimeError, match="must be called within an ongoing trace"):
        TracingContext.get()
    first, second = TracingContext(None), TracingContext(None)
    with tracing(first) as given:
        assert given is first and TracingContext.get() is first
        with tracing(None):
            assert TracingContext.try_get() is None
        with tracing(second):
            assert TracingContext.get() is second
        assert TracingContext.get() is first
    assert TracingContext.try_get() is None


@pytest.mark.spec("4.53")
def test_what_a_tracing_context_holds() -> None:
    mode = SimpleNamespace(env=SimpleNamespace(drop_caches=lambda: None))
    context = TracingContext(mode)
    assert context.fake_mode is mode
    assert isinstance(context.module_context, ModuleContext)
    assert isinstance(context.global_context, GlobalContext)
    assert context.frame_summary_stack == [] and context.loc_in_frame is None
    for name in ("fw_metadata", "aot_graph_name", "params_flat", "output_strides"):
        assert getattr(context, name) is None
    assert context.force_unspec_int_unbacked_size_like is False
    assert context.fakify_first_call is False
    part = context.part(ModuleContext)
    assert context.part(ModuleContext) is part is not TracingContext(None).part(ModuleContext)


@pytest.mark.spec("4.53")
def test_tensor_to_context_is_weak_and_by_identity() -> None:
    import torch

    table = TracingContext(None).tensor_to_context
    a, b = torch.ones(2), torch.ones(2)
    table[a] = "of a"
    assert table[a] == "of a" and table.get(b) is None and b not in table
    table[a] = "newer"
    assert table.get(a) == "newer" and len(table) == 1
    with pytest.raises(KeyError):
        table[b]
    del a
    gc.collect()
    assert len(table) == 0


def test_a_dead_key_does_not_take_a_new_one_along() -> None:
    class Thing:
        pass

    table: WeakByIdentity[int] = WeakByIdentity()
    for i in range(100):  # addresses come round again
        thing = Thing()
        table[thing] = i
        assert table[thing] == i and len(table) <= 2


@pytest.mark.spec("4.54")
def test_clear_forgets_the_global_state() -> None:
    context = TracingContext(None)
    context.global_context.global_state["grad_enabled"] = (print, True)
    context.clear()
    assert context.global_context.global_state == {}


@pytest.mark.spec("4.55")
def test_patch() -> None:
    with tracing(TracingContext(None)) as context:
        assert context is not None
        with (
            pytest.raises(ZeroDivisionError),
            TracingContext.patch(aot_graph_name="g", fakify_first_call=True),
        ):
            assert context.aot_graph_name == "g" and context.fakify_first_call is True
            raise ZeroDivisionError
        assert context.aot_graph_name is None and context.fakify_first_call is False
        with (
            pytest.raises(AttributeError, match="no_such"),
            TracingContext.patch(aot_graph_name="g", no_such=1),
        ):
            pass
        assert context.aot_graph_name is None
        # a method is no field
        with pytest.raises(AttributeError), TracingContext.patch(clear=None):
            pass


@pytest.mark.spec("4.56", "4.57", "4.58")
def test_the_user_stack_follows_the_calls() -> None:
    assert TracingContext.extract_stack() == traceback.StackSummary()
    with tracing(TracingContext(None)):
        assert names(TracingContext.extract_stack()) == []
        TracingContext.set_current_loc("user.py", 5, "outer")
        assert names(TracingContext.extract_stack()) == ["outer"]
        with TracingContext.current_frame(frame("caller")):
            assert names(TracingContext.extract_stack()) == ["caller"]  # the location is hidden
            TracingContext.set_current_loc("user.py", 9, "inner")
            assert names(TracingContext.extract_stack()) == ["caller", "inner"]
            with TracingContext.current_frame(None):
                assert names(TracingContext.extract_stack()) == ["caller"]
        (location,) = TracingContext.extract_stack()
        assert (location.name, location.lineno) == ("outer", 5)


@pytest.mark.spec("4.57")
def test_a_location_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    asked: list[str] = []
    monkeypatch.setattr(linecache, "getline", lambda *a, **k: asked.append(a[0]) or "the text")
    with tracing(TracingContext(None)):
        TracingContext.set_current_loc("user.py", 5, "f")
        (location,) = TracingContext.extract_stack()
        assert asked == []
        assert location.line == "the text" and "user.py" in asked


@pytest.mark.spec("4.58", "4.60", "4.62")
def test_the_innermost_scope_gives_the_stack() -> None:
    with pytest.raises(KeyError) as caught, tracing(TracingContext(None)):
        TracingContext.set_current_loc("user.py", 5, "outer")
        with TracingContext.current_frame(frame("caller")):
            TracingContext.set_current_loc("user.py", 9, "inner")
            raise KeyError
    assert names(real_stack(caught.value)) == ["caller", "inner"]


@pytest.mark.spec("4.62")
def test_tracing_gives_a_stack_to_exceptions() -> None:
    with pytest.raises(KeyError) as caught, tracing(TracingContext(None)):
        TracingContext.set_current_loc("user.py", 5, "outer")
        raise KeyError
    assert names(real_stack(caught.value)) == ["outer"]
    with pytest.raises(KeyError) as caught, tracing(None):
        raise KeyError
    assert "real_stack" not in vars(caught.value)


@pytest.mark.spec("4.59", "4.60")
def test_clear_frame() -> None:
    with pytest.raises(KeyError) as caught, tracing(TracingContext(None)):
        with TracingContext.current_frame(frame("caller")):
            TracingContext.set_current_loc("user.py", 9, "inner")
            with pytest.raises(ValueError) as knows, TracingContext.clear_frame():
                known = ValueError()
                known.real_stack = traceback.StackSummary.from_list([frame("own")])  # type: ignore[attr-defined]
                raise known
            assert names(real_stack(knows.value)) == ["own"]
            with TracingContext.clear_frame():
                assert names(TracingContext.extract_stack()) == []
            assert names(TracingContext.extract_stack()) == ["caller", "inner"]
            with TracingContext.clear_frame():
                raise KeyError
    assert vars(caught.value)["real_stack"] is None  # no scope outside gave it another


@pytest.mark.spec("4.60")
def test_an_exception_of_any_class_gets_its_stack() -> None:
    class Stubborn(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "real_stack":
                raise RuntimeError("frozen")
            super().__setattr__(name, value)

        def __getattr__(self, name: str) -> object:
            return "something"

    with pytest.raises(Stubborn) as caught, tracing(TracingContext(None)):
        TracingContext.set_current_loc("user.py", 5, "f")
        raise Stubborn
    assert names(real_stack(caught.value)) == ["f"]


@pytest.mark.spec("4.61")
def test_report_output_strides() -> None:
    with TracingContext.report_output_strides() as strides:
        assert strides is None
    with tracing(TracingContext(None)) as context:
        assert context is not None
        with TracingContext.report_output_strides() as outer:
            assert outer == [] and context.output_strides is outer
            with TracingContext.report_output_strides() as inner:
                assert inner is not outer and inner is not None
                inner += [(3, 1), None]
            assert context.output_strides is outer == []
        assert context.output_strides is None


@pytest.mark.spec("4.62")
def test_tracing_drops_caches_of_the_shape_environment() -> None:
    from stillframe.fake.mode import FakeMode
    from stillframe.shapes.env import ShapeEnv
    from stillframe.symbolic import Range

    env = ShapeEnv()
    mode = FakeMode(env)
    size = env.wrap(env.new_symbol("n", 5, Range(2, 100)))
    with pytest.raises(KeyError), tracing(TracingContext(mode)):
        assert env._wrapped and env._nodes
        raise KeyError
    assert not env._wrapped and not env._nodes
    assert bool(size > 1) and env.guards == []  # a symbol that is still held answers


# -- state that can be put back --------------------------------------------------------------------


@pytest.mark.spec("4.45", "4.46", "4.49")
def test_module_snapshots_are_independent() -> None:
    context = ModuleContext()
    context.nn_modules["a"] = object()
    snapshot = context.copy_graphstate()
    context.nn_modules["b"] = object()
    assert set(snapshot.nn_modules) == {"a"}
    for _ in range(2):  # what is done after the first use does not show in the second
        context.restore_graphstate(snapshot)
        assert set(context.nn_modules) == {"a"}
        context.nn_modules["c"] = object()
    with pytest.raises(InternalError, match="ModuleContextCheckpointState was expected"):
        context.restore_graphstate(GlobalContextCheckpointState({}))  # type: ignore[arg-type]


@pytest.mark.spec("4.47")
def test_diff_is_one_sided_and_equality_is_not() -> None:
    context, module = ModuleContext(), object()
    empty = context.copy_graphstate()
    context.nn_modules["a"] = module
    one = context.copy_graphstate()
    assert one.diff(empty) == {"a"} and empty.diff(one) is None
    assert one != empty and empty != one and one == context.copy_graphstate()
    context.nn_modules["a"] = object()
    assert context.copy_graphstate().diff(one) is None
    assert context.copy_graphstate() != one  # another module of the same name

    few = GlobalContextCheckpointState({"grad_enabled": (print, True)})
    none = GlobalContextCheckpointState({})
    assert few.diff(none) == {"grad_enabled"} and none.diff(few) is None
    assert few != none and none != few
    assert few == GlobalContextCheckpointState({"grad_enabled": (print, True)})


@pytest.mark.spec("4.50", "4.45")
def test_global_state_is_restored_whole_or_not_at_all() -> None:
    told: dict[str, Any] = {}

    def setting(name: str, value: Any) -> Any:
        return (lambda argument: told.__setitem__(name, argument)), value

    context = GlobalContext()
    context.global_state = {name: setting(name, i) for i, name in enumerate(GLOBAL_STATE_KEYS)}
    snapshot = context.copy_graphstate()
    context.global_state = {}
    context.restore_graphstate(snapshot)
    assert told == {name: i for i, name in enumerate(GLOBAL_STATE_KEYS)}
    context.global_state.clear()
    assert set(snapshot.global_state) == GLOBAL_STATE_KEYS

    told.clear()
    missing = {k: v for k, v in snapshot.global_state.items() if k != "grad_enabled"}
    with pytest.raises(InternalError, match="global state mismatch: grad_enabled"):
        context.restore_graphstate(GlobalContextCheckpointState(missing))
    more = {**snapshot.global_state, "further": setting("further", 0)}
    with pytest.raises(InternalError, match="global state mismatch: further"):
        context.restore_graphstate(GlobalContextCheckpointState(more))
    assert told == {}


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, stillframe.context, stillframe.source, stillframe.guards;"
        "import stillframe.guards.kinds.containers, stillframe.guards.kinds.values;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
