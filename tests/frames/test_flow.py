"""Where ways meet, what loops are, and which variables count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stillframe.frames.decode import decode
from stillframe.frames.flow import END, Flow


def flow_of(function: Callable[..., Any]) -> Flow:
    return Flow(decode(function.__code__))


def branches(flow: Flow) -> list[tuple[int, int]]:
    """The two ways of every conditional jump on a value, in order."""
    found = []
    for i, name in enumerate(flow.handlers):
        if name.startswith("POP_JUMP_IF"):
            found.append((i + 1, flow.decoded.instructions[i][1]))
    return found


def names(flow: Flow, slots: frozenset[int]) -> set[str]:
    return {flow.decoded.local_names[slot] for slot in slots}


def meets(c: Any, x: Any) -> Any:
    if c:
        y = x
    else:
        y = x + 1
        z = y  # noqa: F841
    return y


def returns(c: Any, x: Any) -> Any:
    if c:
        return x + 1
    return x + 2 * x


def raises(c: Any, x: Any) -> Any:
    if c:
        raise ValueError(x)
    return x


def test_ways_meet_behind_an_if() -> None:
    flow = flow_of(meets)
    (ways,) = branches(flow)
    join = flow.join(ways)
    assert flow.decoded.line(join) == meets.__code__.co_firstlineno + 6
    assigned = flow.assigned(flow.places(ways, frozenset({join})))
    assert names(flow, assigned) == {"y", "z"}
    assert names(flow, flow.live(join)) == {"y"}


def test_ways_that_return_meet_at_the_end() -> None:
    flow = flow_of(returns)
    assert flow.join(branches(flow)[0]) == END


def test_a_way_that_raises_does_not_count() -> None:
    flow = flow_of(raises)
    (ways,) = branches(flow)
    assert sorted(flow.ends(way, frozenset()) for way in ways) == [False, True]
    goes_on = next(way for way in ways if flow.ends(way, frozenset()))
    assert flow.join(ways) == flow.same[goes_on]


def loops(c: Any, x: Any) -> Any:
    while c(x):
        for k in range(3):
            x = x + k
        if x > 5:
            break
    return x


def leaves(c: Any, x: Any) -> Any:
    while c(x):
        if x > 5:
            return x * 2 + 1 - x
        x = x + 1
    return x


def test_loops_begin_and_end() -> None:
    flow = flow_of(loops)
    kinds = sorted(flow.is_for(header) for header in flow.loops())
    assert kinds == [False, True]
    header = next(h for h in flow.loops() if not flow.is_for(h))
    (end,) = flow.loop_ends(header, frozenset())
    assert flow.decoded.line(end) == loops.__code__.co_firstlineno + 6
    assert flow.loop_around(header, frozenset()) == header
    assert flow.loop_around(header, frozenset({header})) is None


def test_a_loop_with_return_has_two_ends() -> None:
    flow = flow_of(leaves)
    (header,) = flow.loops()
    lines = {flow.decoded.line(end) for end in flow.loop_ends(header, frozenset())}
    assert lines == {leaves.__code__.co_firstlineno + k for k in (3, 5)}


def leaves_often(c: Any, x: Any) -> Any:
    while c(x):
        if x > 5:
            return x * 2
        if x > 6:
            return x * 3
        x = x + 1
    return x


def test_a_loop_with_two_returns_has_too_many_ends() -> None:
    flow = flow_of(leaves_often)
    (header,) = flow.loops()
    assert len(flow.exits(header, frozenset())) == 3
    assert flow.loop_ends(header, frozenset()) == ()


def counts(n: Any, x: Any) -> Any:
    for i in range(n):
        if x > i:
            break
    else:
        x = x + 1
    return x


def test_a_for_loop_ends_where_it_is_exhausted_first() -> None:
    flow = flow_of(counts)
    (header,) = flow.loops()
    ends = flow.loop_ends(header, frozenset())
    assert len(ends) == 2 and ends[0] == flow.exhausted(header)
    assert flow.decoded.line(ends[0]) == counts.__code__.co_firstlineno + 5
    slot = flow.loop_variable(header)
    assert slot is not None and flow.decoded.local_names[slot] == "i"


def reads_all(c: Any, x: Any) -> Any:
    y = x
    if c:
        y = 1
    return locals()


@pytest.mark.parametrize("function", [reads_all])
def test_locals_reads_every_variable(function: Callable[..., Any]) -> None:
    flow = flow_of(function)
    (ways,) = branches(flow)
    assert names(flow, flow.live(flow.join(ways))) == {"c", "x", "y"}
