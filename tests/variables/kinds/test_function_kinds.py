"""Functions, wrappers around them, and the rules for calls."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses
from tests.variables.kinds.watching import X, kept, kinds_in, x

import stillframe as sf
from stillframe.errors import InternalError
from stillframe.variables import (
    FrameState,
    Options,
    Translator,
    capture_frame,
)
from stillframe.variables.kinds import function_wrappers, logs, trace_rules
from stillframe.variables.registry import order, wrapper_of, wraps_if, wraps_object, wraps_type
from stillframe.variables.rules import (
    Rule,
    allow_in_graph,
    disallow_in_graph,
    forget_rule,
    rule_of,
)


@pytest.fixture
def globals_() -> Iterator[dict[str, Any]]:
    with kept(globals()) as table:
        yield table


class Node:
    def __init__(self, weight: int = 2) -> None:
        self.weight = weight


KEPT = Node()


def plain(a: Any, b: Any = 1) -> Any:
    return a + b


CALLS: list[Any] = []


def replacement(x: Any) -> Any:
    return x * 2


def replaced(x: Any) -> Any:
    raise AssertionError("not to be run")


def other_replacement(x: Any) -> Any:
    return x * 3


@pytest.mark.spec("5.7")
def test_first_match_wins_in_the_order_of_the_list() -> None:
    names = [name for name, _, _ in order()]
    assert names.index("function with a replacement") == 0
    places = ["nn.Module", "literal", "enum", "logger", "typing object", "function with a rule",
              "pretrained configuration", "function", "module", "method", "class"]  # fmt: skip
    assert [n for n in names if n in places] == places
    # the tables of types and of objects come before the list
    assert wrapper_of(functools.partial(print)) is function_wrappers.wrap_partial
    assert wrapper_of(print) is logs.wrap_debugging
    assert wrapper_of(object()) is None  # an object like any other


@pytest.mark.spec("5.7")
def test_a_key_twice_is_an_error() -> None:
    with pytest.raises(InternalError, match="two wrappers for values of class Pattern"):
        wraps_type(re.Pattern)(lambda builder, value: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InternalError, match="two wrappers for"):
        wraps_object(print)(lambda builder, value: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InternalError, match="two wrappers at place 93: class and mine"):
        wraps_if(93, "mine", bool)(lambda builder, value: None)  # type: ignore[arg-type, return-value]


@pytest.mark.spec("5.7")
def test_a_function_that_carries_a_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, function_wrappers.REPLACEMENT, replacement, raising=False)

    def step(x: torch.Tensor) -> Any:
        return replaced(x), replaced

    capture = capture_frame(step, (x(),))
    result, function = capture(x())
    torch.testing.assert_close(result, X * 2)
    assert function is replaced  # what is run in its place is not what it is
    assert "FUNCTION_MATCH G['replaced']._torchdynamo_inline" in guards_of(capture)
    monkeypatch.setattr(replaced, function_wrappers.REPLACEMENT, other_replacement)
    assert function_wrappers.REPLACEMENT in refuses(capture, x())
    assert "WrapperUserFunctionVariable" in kinds_in(step, x())


@pytest.mark.spec("5.88")
def test_functions_from_outside(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        return plain(x), plain

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is plain
    assert "FUNCTION_MATCH G['plain']" in guards_of(capture)
    assert "UserFunctionVariable" in kinds_in(step, x())
    globals_["plain"] = lambda a, b=1: a
    assert "plain" in refuses(capture, x())


@pytest.mark.spec("5.88")
def test_a_wrapper_is_passed_by_and_the_attribute_joins_the_source() -> None:
    def original(x: Any) -> Any:
        return x * 2

    @torch.jit.script_if_tracing
    def scripted(x: Any) -> Any:
        return x * 2

    def step(function: Any, x: torch.Tensor) -> Any:
        return function(x)

    capture = agrees(step, lambda: (scripted, x()))
    assert "CLOSURE_MATCH L['function'].__original_fn" in guards_of(capture)
    assert original(X).equal(capture(scripted, X))


@pytest.mark.spec("5.88", "5.138")
def test_functions_of_the_programs_own_are_made_again() -> None:
    def step(x: torch.Tensor) -> Any:
        total = x * 2

        def add(y: Any, by: Any = x, *, times: int = 2) -> Any:
            "Adds."
            nonlocal total
            total = total + y * times
            return total

        def read() -> Any:
            return total

        def again(n: int) -> Any:
            return again if n else 0

        add.note = [read]  # type: ignore[attr-defined]
        return add, read, functools.partial(add, 1, times=3), [1].append, [x].__len__, again

    def outcome(world: Any) -> Any:
        add, read, partial, append, length, again = world
        append(2)
        values = [add(1), read(), partial(), read(), append.__self__, length(), add.__doc__]
        return values, add.note[0] is read, partial.func is add, again(1) is again, add.__defaults__

    capture = capture_frame(step, (x(),))
    ours, theirs = outcome(capture(x())), outcome(step(x()))
    torch.testing.assert_close(ours[0][:4], theirs[0][:4])
    assert ours[0][4:] == theirs[0][4:] and ours[1:4] == theirs[1:4] == (True, True, True)
    torch.testing.assert_close(ours[4][0], X)


def test_a_closure_over_an_outside_variable_shares_it() -> None:
    count = 1

    def bump() -> None:
        nonlocal count
        count += 1

    def step(x: torch.Tensor) -> Any:
        return lambda: count

    inner = capture_frame(step, (x(),))(x())
    bump()
    assert inner() == 2


def scaled(x: Any, by: Any) -> Any:
    return x * by


PARTIAL: Any = functools.partial(scaled, by=2)


@pytest.mark.spec("5.53")
def test_partials(globals_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        return PARTIAL(x), PARTIAL, functools.partial(PARTIAL, x)(), functools.partial(scaled, x)

    capture = capture_frame(step, (x(),))
    ours, theirs = capture(x()), step(x())
    torch.testing.assert_close((ours[0], ours[2]), (theirs[0], theirs[2]))
    assert ours[1] is PARTIAL and ours[3].func is scaled
    torch.testing.assert_close(ours[3].args, theirs[3].args)
    guards = guards_of(capture)
    for guard in ("TYPE_MATCH G['PARTIAL']", "DICT_KEYS G['PARTIAL'].keywords",
                  "SEQUENCE_LENGTH G['PARTIAL'].args", "FUNCTION_MATCH G['PARTIAL'].func",
                  "CONSTANT_MATCH G['PARTIAL'].keywords['by']"):  # fmt: skip
        assert guard in guards
    assert "FunctoolsPartialVariable" in kinds_in(step, x())
    for other in (
        functools.partial(scaled, by=3), functools.partial(scaled, by=True),
        functools.partial(scaled), functools.partial(plain, b=2),
        type("Sub", (functools.partial,), {})(scaled, by=2),
    ):  # fmt: skip
        globals_["PARTIAL"] = other
        refuses(capture, x())
    globals_["PARTIAL"] = functools.partial(scaled, by=2)
    assert capture.failure(x()) is None
    globals_["PARTIAL"].keywords["by"] = 5
    assert "by" in refuses(capture, x())


@pytest.mark.spec("5.53")
def test_a_partial_with_a_keyword_that_is_no_plain_string() -> None:
    class Name(str):
        pass

    odd = functools.partial(dict, **{Name("a"): 1})
    if all(type(name) is str for name in odd.keywords):
        odd.keywords[Name("b")] = 2
    with pytest.raises(sf.FrameError, match="keyword"):
        capture_frame(lambda p, x: (p(), x), (odd, x()))


@pytest.mark.spec("5.53")
def test_a_partial_that_holds_objects_and_tensors() -> None:
    def step(partial: Any, x: torch.Tensor) -> Any:
        return partial(x)

    def through(node: Any, weight: torch.Tensor, x: Any) -> Any:
        return x * node.weight + weight

    def make() -> Any:
        return functools.partial(through, Node(), torch.ones(3)), x()

    capture = agrees(step, make)
    partial, _ = make()
    partial.args[0].weight = 9
    assert "args[0].weight" in refuses(capture, partial, X)


@functools.cache
def cached(n: Any) -> Any:
    return n * 2


class WithCache:
    def __init__(self) -> None:
        self.n = 3

    @functools.lru_cache  # noqa: B019
    def method(self, k: Any) -> Any:
        return k * self.n


@pytest.mark.spec("5.54")
def test_caches_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(o: Any, x: torch.Tensor) -> Any:
        return cached(x) + cached(3) + o.method(x)

    cached.cache_clear()
    o = WithCache()
    capture = capture_frame(step, (o, x()))
    assert cached.cache_info().currsize == 0 and WithCache.method.cache_info().currsize == 0
    torch.testing.assert_close(capture(o, X), X * 2 + 6 + X * 3)
    guards = guards_of(capture)
    assert "TYPE_MATCH G['cached']" in guards
    assert "FUNCTION_MATCH G['cached'].__wrapped__" in guards
    o.n = 4
    assert "n equals 3" in refuses(capture, o, X)
    assert "WrapperUserFunctionVariable" in kinds_in(step, WithCache(), x())
    monkeypatch.undo()
    for name in ("cache_info", "cache_clear"):
        with pytest.raises(sf.FrameError, match=name):
            capture_frame(lambda x, name=name: getattr(cached, name)(), (x(),))


OPTIONAL: Any = typing.Optional[int]  # noqa: UP045


@pytest.mark.spec("5.55")
def test_typing_objects(globals_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        return typing.cast(OPTIONAL, x), OPTIONAL, list[int], dict[str, OPTIONAL], int | str

    capture = capture_frame(step, (x(),))
    ours, theirs = capture(x()), step(x())
    assert ours[1:] == theirs[1:] and ours[1] is OPTIONAL
    assert "ID_MATCH G['OPTIONAL']" in guards_of(capture)
    assert "TypingVariable" in kinds_in(step, x())
    globals_["OPTIONAL"] = typing.Optional[str]  # noqa: UP045
    assert "OPTIONAL" in refuses(capture, x())

    def own(x: torch.Tensor) -> Any:
        class Local:
            pass

        return list[Local]

    with pytest.raises(sf.FrameError, match="types that last"):
        capture_frame(own, (x(),))


def opaque_double(x: Any, by: float = 2.0) -> Any:
    CALLS.append("run")
    return (x * by, x + by)


@pytest.mark.spec("5.66")
def test_rules_of_callables() -> None:
    assert rule_of(torch.add) is rule_of(torch.nn.functional.relu) is Rule.TORCH
    assert rule_of(len) is rule_of(str.join) is rule_of(torch.Tensor.add) is Rule.BUILT_IN
    assert rule_of(plain) is rule_of(Node) is rule_of(KEPT.__init__) is None
    with pytest.raises(sf.InvalidInput):
        allow_in_graph(KEPT.__init__)


@pytest.mark.spec("5.66")
def test_a_function_that_the_user_allows_is_one_node() -> None:
    allow_in_graph(opaque_double)
    try:

        def step(x: torch.Tensor) -> Any:
            double, more = opaque_double(x * 2, by=3.0)
            return double + more

        capture = capture_frame(step, (x(),))
        assert [n.target for n in capture.graph_module.graph.nodes].count(opaque_double) == 1
        del CALLS[:]
        torch.testing.assert_close(capture(x()), X * 6 + X * 2 + 3)
        assert CALLS == ["run"]
        tx = Translator(plain, FrameState(), Options())
        made = trace_rules.variable_of_rule(tx, opaque_double, Rule.ALLOWED)
        assert isinstance(made, trace_rules.TorchInGraphFunctionVariable) and made.user_allowed
        assert tx.has_user_defined_allowed_in_graph
    finally:
        forget_rule(opaque_double)
    assert rule_of(opaque_double) is None


@pytest.mark.spec("5.66")
@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x.add_(1), "new tensors|writes"),
        (lambda x: x.shape, "new tensors"),
        (lambda x: x, "new tensors"),
        (lambda x: x.nonzero(), "depends on data"),
    ],
    ids=["in place", "no tensor", "the argument", "data"],
)
def test_what_is_no_single_node_is_refused(function: Callable[..., Any], why: str) -> None:
    allow_in_graph(function)
    try:
        with pytest.raises(sf.FrameError, match=why):
            capture_frame(lambda f, x: f(x), (function, x()))
    finally:
        forget_rule(function)


@pytest.mark.spec("5.66")
def test_a_function_that_is_not_to_be_captured() -> None:
    @disallow_in_graph
    def never(x: Any) -> Any:
        return x

    @torch.compiler.disable
    def disabled(x: Any) -> Any:
        return x

    try:
        for function in (never, disabled):
            with pytest.raises(sf.FrameError, match="not to be captured"):
                capture_frame(lambda f, x: f(x), (function, x()))
        agrees(lambda f, x: x + 1, lambda: (never, x()))
    finally:
        forget_rule(never)


@pytest.mark.spec("5.66")
def test_functions_of_c_and_of_torch(globals_: dict[str, Any]) -> None:
    globals_["FUNCTION"], globals_["BOUND"] = torch.relu, [1, 2].append
    globals_["METHOD"] = str.upper

    def step(x: torch.Tensor) -> Any:
        return FUNCTION(x), METHOD("a"), FUNCTION, METHOD  # noqa: F821

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[2] is torch.relu
    guards = guards_of(capture)
    assert "FUNCTION_MATCH G['FUNCTION']" in guards and "BUILTIN_MATCH G['METHOD']" in guards
    globals_["FUNCTION"] = torch.sigmoid
    assert "FUNCTION" in refuses(capture, x())

    def append(x: torch.Tensor) -> Any:
        BOUND(x.shape[0])  # noqa: F821
        return x

    capture = capture_frame(append, (x(),))
    assert globals_["BOUND"].__self__ == [1, 2]
    capture(x())
    assert globals_["BOUND"].__self__ == [1, 2, 3]
