"""Sets of guards, snapshots of them, and how guards get there."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

import pytest

from stillframe import stack
from stillframe.context import ModuleContextCheckpointState, TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.guards import GuardsContext, GuardsSet, install_guard, make_dupe_guard
from stillframe.guards.kinds.identity import DUPLICATE_INPUT, NOT_NONE_MATCH, TYPE_MATCH
from stillframe.source import (
    AttrSource,
    DuplicateInputs,
    FlattenScriptObjectSource,
    GlobalSource,
    Guard,
    LocalSource,
)

X, Y = LocalSource("x"), LocalSource("y")


def on(source: Any) -> Guard:
    return Guard(source, TYPE_MATCH)


def innermost(guard: Guard) -> str:
    assert guard.stack
    return stack.frames(guard.stack)[0][0].co_name


@pytest.mark.spec("4.42")
def test_a_set() -> None:
    guards = GuardsSet()
    assert not guards and len(guards) == 0 and list(guards) == [] and repr(guards) == "no guards"
    guards.add(on(Y))
    guards.add(on(X))
    guards.add(on(X))
    assert guards and len(guards) == 2 and on(X) in guards and on(GlobalSource("x")) not in guards
    assert [g.name for g in guards] == ["L['y']", "L['x']"]
    fewer = GuardsSet([on(X)])
    more = guards - fewer
    assert list(more) == [on(Y)] and len(guards) == 2 and not fewer - guards


@pytest.mark.spec("4.43", "4.10")
def test_adding_notes_where() -> None:
    guards = GuardsSet()
    with tracing(TracingContext(None)):
        TracingContext.set_current_loc("user.py", 5, "forward")
        guard = on(X)
        guards.add(guard)
    assert innermost(guard) == "test_adding_notes_where"
    assert guard.user_stack is not None and guard.user_stack[-1].name == "forward"
    assert "user.py:5 in forward" in repr(guards)


def helper(guards: GuardsSet, guard: Guard, skip: int) -> None:
    guards.add(guard, skip=skip)


@pytest.mark.spec("4.43")
def test_helpers_are_skipped() -> None:
    guards = GuardsSet()
    first, second = on(X), on(Y)
    helper(guards, first, 0)
    helper(guards, second, 1)
    assert innermost(first) == "helper" and innermost(second) == "test_helpers_are_skipped"


@pytest.mark.spec("4.43")
def test_stacks_that_are_known_stay() -> None:
    guards, guard = GuardsSet(), on(X)
    known: stack.RawStack = (helper.__code__, 0)
    guard.stack = known
    guards.add(guard)
    assert guard.stack is known and guard.user_stack is not None
    again = on(X)
    guards.add(again)  # it is there: nothing happens
    assert again.stack is None and again.user_stack is None and next(iter(guards)) is guard
    quiet = on(Y)
    guards.add(quiet, collect_debug_stack=False)
    assert quiet in guards and quiet.stack is None and quiet.user_stack is None


@pytest.mark.spec("4.43")
def test_update_skips_itself() -> None:
    guards, a, b = GuardsSet(), on(X), on(Y)
    guards.update(GuardsSet([a]), [b])
    assert list(guards) == [a, b]
    assert innermost(a) == innermost(b) == "test_update_skips_itself"


@pytest.mark.spec("4.44")
def test_removal_by_source() -> None:
    inner = AttrSource(X, "a")
    kept = [on(inner), on(Y)]
    guards = GuardsSet([on(X), Guard(X, NOT_NONE_MATCH), *kept])
    guards.remove_guards_with_source(LocalSource("x"))
    assert list(guards) == kept


@pytest.mark.spec("4.45", "4.46", "4.48")
def test_snapshots_are_independent() -> None:
    context = GuardsContext()
    context.dynamo_guards.add(on(X))
    context.aotautograd_guards.append(DuplicateInputs(X, Y))
    snapshot = context.copy_graphstate()
    context.dynamo_guards.add(on(Y))
    assert snapshot.dynamo_guards == {on(X)}
    for _ in range(2):
        context.restore_graphstate(snapshot)
        assert list(context.dynamo_guards) == [on(X)]
        context.dynamo_guards.add(on(Y))
    assert context.aotautograd_guards == [DuplicateInputs(X, Y)]  # no part of snapshots
    with pytest.raises(InternalError, match="GuardsCheckpointState was expected"):
        context.restore_graphstate(ModuleContextCheckpointState({}))  # type: ignore[arg-type]


@pytest.mark.spec("4.47")
def test_diff_is_one_sided_and_equality_is_not() -> None:
    context = GuardsContext()
    context.dynamo_guards.add(on(X))
    one = context.copy_graphstate()
    context.dynamo_guards.add(on(Y))
    two = context.copy_graphstate()
    assert two.diff(one) == {on(Y)} and one.diff(two) is None
    assert one != two and two != one
    other_order = GuardsContext()
    other_order.dynamo_guards = GuardsSet([on(Y), on(X)])
    assert other_order.copy_graphstate() == two
    assert hash(other_order.copy_graphstate()) == hash(two)


@pytest.mark.spec("4.41")
def test_install_guard(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="ongoing trace"):
        install_guard(on(X))

    def installing(guard: Guard, skip: int) -> None:
        install_guard(guard, skip=skip)

    quiet, told, skipped = on(X), on(Y), on(AttrSource(X, "a"))
    with tracing(TracingContext(None)) as context:
        assert context is not None
        TracingContext.set_current_loc("user.py", 5, "forward")
        install_guard(quiet)
        with caplog.at_level(logging.DEBUG, logger="stillframe.guards"):
            installing(told, 0)
            installing(skipped, 1)
        guards = context.part(GuardsContext).dynamo_guards
    assert list(guards) == [quiet, told, skipped]
    assert quiet.stack is None  # a stack costs more than the guard
    assert quiet.user_stack is not None and quiet.user_stack[-1].lineno == 5
    assert innermost(told) == "installing" and innermost(skipped) == "test_install_guard"
    assert "TYPE_MATCH L['y']" in caplog.text and "L['x']\n" not in caplog.text


@pytest.mark.spec("4.41", "4.52")
def test_guards_of_two_threads_stay_apart() -> None:
    found: dict[str, list[str]] = {}

    def capture(name: str) -> None:
        with tracing(TracingContext(None)) as context:
            assert context is not None
            for i in range(200):
                install_guard(on(LocalSource(f"{name}{i}")))
            found[name] = [g.name for g in context.part(GuardsContext).dynamo_guards]

    threads = [threading.Thread(target=capture, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [f"L['{name}{i}']" for i in range(200)] for name in "ab"}


@pytest.mark.spec("4.40")
def test_make_dupe_guard() -> None:
    made = make_dupe_guard(X, Y)
    assert isinstance(made, functools.partial) and made.func is DUPLICATE_INPUT
    assert made.keywords == {"source_b": Y}
    assert X.make_guard(made).sort_key()[0] is True
    g, h = GlobalSource("g"), GlobalSource("h")
    assert make_dupe_guard(g, h) is not None
    assert make_dupe_guard(None, X) is None and make_dupe_guard(X, None) is None
    assert make_dupe_guard(X, LocalSource("x")) is None
    assert make_dupe_guard(X, g) is None and make_dupe_guard(g, AttrSource(X, "a")) is None
    flat = AttrSource(FlattenScriptObjectSource(Y), "a")
    assert make_dupe_guard(X, flat) is None and make_dupe_guard(flat, X) is None
