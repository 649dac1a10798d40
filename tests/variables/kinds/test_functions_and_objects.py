"""Functions, classes, wrappers and other Python objects, each with its guard."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import operator
import re
import sys
import types
import typing
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, refuses

import stillframe as sf
from stillframe.errors import InternalError
from stillframe.variables import (
    FrameState,
    Options,
    SourcelessBuilder,
    Translator,
    VariableTracker,
    VariableTrackerMeta,
    capture_frame,
    typestr,
)
from stillframe.variables.kinds import (
    comptime,
    descriptors,
    functions,
    lambdas,
    logs,
    python_modules,
    python_objects,
    trace_rules,
    user_objects,
    wrappers,
)
from stillframe.variables.registry import order, wrapper_of, wraps_if, wraps_object, wraps_type
from stillframe.variables.rules import (
    Rule,
    allow_in_graph,
    disallow_in_graph,
    forget_rule,
    rule_of,
)

X = torch.arange(3.0)


def x() -> torch.Tensor:
    return X.clone()


@pytest.fixture
def globals_(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The globals of this module, which are put back."""
    table = globals()
    before = dict(table)
    yield table
    table.clear()
    table.update(before)


def kind_of(monkeypatch: pytest.MonkeyPatch, function: Any, *args: Any) -> set[str]:
    """The kinds of variables that a capture makes."""
    seen: set[str] = set()
    plain = VariableTracker.__init__

    def noting(self: Any, *given: Any, **named: Any) -> None:
        plain(self, *given, **named)
        seen.add(type(self).__name__)

    monkeypatch.setattr(VariableTracker, "__init__", noting)
    capture_frame(function, args)
    return seen


# -- the order ------------------------------------------------------------------------------------


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
    assert wrapper_of(functools.partial(print)) is wrappers.wrap_partial
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
    monkeypatch.setattr(replaced, wrappers.REPLACEMENT, replacement, raising=False)

    def step(x: torch.Tensor) -> Any:
        return replaced(x), replaced

    capture = capture_frame(step, (x(),))
    result, function = capture(x())
    torch.testing.assert_close(result, X * 2)
    assert function is replaced  # what is run in its place is not what it is
    assert "FUNCTION_MATCH G['replaced']._torchdynamo_inline" in guards_of(capture)
    monkeypatch.setattr(replaced, wrappers.REPLACEMENT, other_replacement)
    assert wrappers.REPLACEMENT in refuses(capture, x())
    assert "WrapperUserFunctionVariable" in kind_of(monkeypatch, step, x())


# -- patterns, weak references --------------------------------------------------------------------

PATTERN = re.compile("a+")


@pytest.mark.spec("5.15")
def test_a_pattern_is_known_by_identity(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        return x + len(PATTERN.findall("aabaa")), PATTERN, re.compile("b")

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is PATTERN
    assert "ID_MATCH G['PATTERN']" in guards_of(capture)
    globals_["PATTERN"] = re.compile("b+")
    assert "PATTERN" in refuses(capture, x())


class Node:
    def __init__(self, weight: int = 2) -> None:
        self.weight = weight


KEPT = Node()
REFERENCE: Any = weakref.ref(KEPT)


@pytest.mark.spec("5.16")
def test_a_weak_reference_leads_to_what_is_guarded(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        found = REFERENCE()
        return (x * found.weight, found, REFERENCE) if found is not None else (x, None, None)

    capture = agrees(step, lambda: (x(),))
    _, found, reference = capture(x())
    assert found is KEPT and reference is REFERENCE
    assert "TYPE_MATCH G['REFERENCE']" in guards_of(capture)
    KEPT.weight = 3
    assert "G['REFERENCE']().weight equals 2" in refuses(capture, x())
    KEPT.weight = 2
    dead = weakref.ref(Node())
    globals_["REFERENCE"] = dead
    assert "REFERENCE" in refuses(capture, x())
    gone = agrees(step, lambda: (x(),))
    globals_["REFERENCE"] = weakref.ref(KEPT)
    assert "is None" in refuses(gone, x())


@pytest.mark.spec("5.16")
def test_weak_references_made_inside_and_proxies(globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        node = Node()
        return node, weakref.ref(node), weakref.ref(node)().weight + x

    node, reference, _ = capture_frame(step, (x(),))(x())
    assert reference() is node
    globals_["REFERENCE"] = weakref.proxy(KEPT)
    with pytest.raises(sf.FrameError, match="weak reference"):
        capture_frame(lambda x: x + REFERENCE.weight, (x(),))


# -- inspect.signature, comptime, the version -----------------------------------------------------


def signed(a: Any, b: Any = 2, *, c: list[int] = [3]) -> int:  # noqa: B006
    return int(a)


@pytest.mark.spec("5.20")
def test_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        def mine(p: int, q: Any = x) -> None: ...

        signature = inspect.signature(signed)
        names = list(signature.parameters)
        bound = signature.bind(1, b=3).arguments
        default = signature.parameters["c"].default
        return x + len(names), names, dict(bound), default, str(inspect.signature(mine).parameters)

    def plain(x: torch.Tensor) -> Any:
        signature = inspect.signature(signed)
        default = signature.parameters["c"].default
        return x + len(signature.parameters), list(signature.parameters), default, signature

    capture = capture_frame(plain, (x(),))
    ours, theirs = capture(x()), plain(x())
    assert ours[1:3] == theirs[1:3] and ours[2] is signed.__kwdefaults__["c"]
    assert ours[3] == theirs[3]
    assert "FUNCTION_MATCH G['signed']" in guards_of(capture)
    assert {"LambdaVariable", "InspectSignatureVariable"} <= kind_of(monkeypatch, plain, x())
    monkeypatch.setattr(signed, "__defaults__", (5,))
    assert "code and defaults" in refuses(capture, x())
    monkeypatch.undo()
    monkeypatch.setitem(signed.__annotations__, "b", int)
    assert "__annotations__" in refuses(capture, x())
    monkeypatch.undo()
    monkeypatch.setattr(signed, "__signature__", inspect.signature(len), raising=False)
    assert "__signature__" in refuses(capture, x())
    with pytest.raises(sf.FrameError, match="text of a tensor"):
        capture_frame(step, (x(),))


@pytest.mark.spec("5.20")
def test_a_signature_of_a_class_is_found_by_running_inspect() -> None:
    def step(x: torch.Tensor) -> Any:
        return x, [*inspect.signature(Node).parameters], [*inspect.signature(KEPT_CALL).parameters]

    agrees(step, lambda: (x(),))


KEPT_CALL = functools.partial(signed, 1)


@pytest.mark.spec("5.21")
def test_comptime_looks_at_the_capture(capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def step(x: torch.Tensor, n: int, unused: int) -> Any:
        y = x.relu() * n

        @sf.comptime
        def _(context: Any) -> None:
            seen["graph"], seen["guards"] = context.graph(), context.guards()
            seen["locals"], seen["stack"] = context.locals(), context.stack()
            context.print_graph()

        sf.comptime(lambda context: seen.setdefault("calls", []).append(y.shape[0]))
        sf.comptime.print_guards()
        sf.comptime.print_locals()
        sf.comptime.print_stack()
        return y

    capture = capture_frame(step, (x(), 3, 5))
    out = capsys.readouterr().out
    assert "relu" in seen["graph"] and seen["graph"] in out
    assert "CONSTANT_MATCH L['n']" in seen["guards"] and "CONSTANT_MATCH L['n']" in out
    assert "LazyVariableTracker" in seen["locals"]["unused"]
    assert "TensorVariable" in seen["locals"]["x"] and "y" in seen["locals"]
    assert "in step" in seen["stack"][-1] and "in step" in out
    assert seen["calls"] == [3]
    assert not any("unused" in guard for guard in guards_of(capture))
    assert not any("comptime" in guard for guard in guards_of(capture))
    torch.testing.assert_close(capture(x(), 3, 6), X.relu() * 3)
    assert capsys.readouterr().out == "" and seen["calls"] == [3]


@pytest.mark.spec("5.21")
def test_comptime_does_nothing_outside(capsys: pytest.CaptureFixture[str]) -> None:
    assert sf.comptime(lambda context: 1 / 0) is None
    sf.comptime.print_graph()
    assert capsys.readouterr().out == ""


@pytest.mark.spec("5.21")
def test_comptime_of_a_context_that_fails_is_the_programs_error() -> None:
    with pytest.raises(ZeroDivisionError):
        capture_frame(lambda x: sf.comptime(lambda context: 1 / 0), (x(),))


@pytest.mark.spec("5.23")
def test_the_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        y = x + 1 if torch.__version__ >= "2.0" else x
        return y, torch.__version__, torch.__version__.split(".")[0]

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is torch.__version__
    assert not any("version" in guard for guard in guards_of(capture))
    assert "TorchVersionVariable" in kind_of(monkeypatch, step, x())


# -- objects --------------------------------------------------------------------------------------


class Slotted:
    __slots__ = ("a", "__hidden", "never")

    def __init__(self, a: Any) -> None:
        self.a, self.__hidden = a, 3

    def hidden(self) -> int:
        return self.__hidden


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    a: Any
    b: int = 3


class Counted:
    made = 0

    def __new__(cls, *args: Any) -> Any:
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any) -> None:
        self.more = args


class Guarded:
    """Has its own way of setting attributes."""

    def __init__(self) -> None:
        object.__setattr__(self, "n", 1)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value * 2)


class Failure(ValueError):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@pytest.mark.spec("5.32", "5.96")
def test_an_object_is_its_class_and_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(node: Any, x: torch.Tensor) -> Any:
        node.seen = x.shape[0]
        return x * node.weight, node

    capture = agrees(step, lambda: (Node(), x()))
    assert "TYPE_MATCH L['node']" in guards_of(capture)
    more = Node()
    more.other = 1  # type: ignore[attr-defined]
    assert capture.failure(more, X) is None
    assert "weight" in refuses(capture, Node(3), X)
    assert "is of class" in refuses(capture, type("Sub", (Node,), {})(), X)
    assert "UserDefinedObjectVariable" in kind_of(monkeypatch, step, Node(), x())


@pytest.mark.spec("5.32")
def test_an_object_with_its_own_way_of_setting_is_read_only() -> None:
    def read(o: Any, x: torch.Tensor) -> Any:
        return x + o.n

    def write(o: Any, x: torch.Tensor) -> Any:
        o.n = 3
        return x

    agrees(read, lambda: (Guarded(), x()))
    o = Guarded()
    with pytest.raises(sf.FrameError, match="sets the attribute n"):
        capture_frame(write, (o, x()))
    assert o.n == 1


@pytest.mark.spec("5.96", "5.138")
def test_objects_of_the_programs_own_are_made_again() -> None:
    def step(x: torch.Tensor) -> Any:
        slotted, frozen = Slotted(x * 2), Frozen(x + 1)
        frozen.b.append(3)
        try:
            raise Failure("text", 5) from KeyError("why")
        except Failure as e:
            error = e
        error.add_note("noted")
        stop = StopIteration(x)
        return slotted, frozen, Counted(x, frozen), error, stop, FrozenSlots(x)

    capture = capture_frame(step, (x(),))
    (ours, theirs) = capture(x()), step(x())
    for (one, other) in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
    assert ours[0].hidden() == 3 and not hasattr(ours[0], "never")
    torch.testing.assert_close(ours[0].a, X * 2)
    assert dataclasses.fields(ours[1]) == dataclasses.fields(theirs[1]) and ours[1].b == [3]
    assert ours[2].args[1] is ours[1] and ours[2].more[0] is ours[2].args[0]
    error = ours[3]
    assert (error.args, error.code, error.__notes__) == (("text",), 5, ["noted"])
    assert isinstance(error.__cause__, KeyError) and error.__suppress_context__
    torch.testing.assert_close(ours[4].value, X)
    assert ours[5].b == 3
    assert capture(x())[0] is not ours[0]


@pytest.mark.spec("5.138")
def test_what_cannot_be_made_again_is_named() -> None:
    def opaque(x: torch.Tensor) -> Any:
        return torch.Generator()

    with pytest.raises(sf.FrameError, match=r"torch\._C\.Generator"):
        capture_frame(opaque, (x(),))

    def own_class(x: torch.Tensor) -> Any:
        class Local:
            pass

        return Local

    def named(x: torch.Tensor) -> Any:
        return type("Node", (), {})

    for function in (own_class, named, lambda x: own_class(x)()):
        with pytest.raises(sf.FrameError, match="program made this class"):
            capture_frame(function, (x(),))


# -- functions ------------------------------------------------------------------------------------

CALLS: list[Any] = []


def plain(a: Any, b: Any = 1) -> Any:
    return a + b


@pytest.mark.spec("5.88")
def test_functions_from_outside(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    def step(x: torch.Tensor) -> Any:
        return plain(x), plain

    capture = agrees(step, lambda: (x(),))
    assert capture(x())[1] is plain
    assert "FUNCTION_MATCH G['plain']" in guards_of(capture)
    assert "UserFunctionVariable" in kind_of(monkeypatch, step, x())
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
    assert "FunctoolsPartialVariable" in kind_of(monkeypatch, step, x())
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


@functools.lru_cache(maxsize=None)
def cached(n: Any) -> Any:
    CALLS.append(n)
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
    assert not any(isinstance(value, torch.Tensor) for value in CALLS)
    torch.testing.assert_close(capture(o, X), X * 2 + 6 + X * 3)
    guards = guards_of(capture)
    assert "TYPE_MATCH G['cached']" in guards
    assert "FUNCTION_MATCH G['cached'].__wrapped__" in guards
    o.n = 4
    assert "n equals 3" in refuses(capture, o, X)
    assert "WrapperUserFunctionVariable" in kind_of(monkeypatch, step, WithCache(), x())
    monkeypatch.undo()
    for name in ("cache_info", "cache_clear"):
        with pytest.raises(sf.FrameError, match=name):
            capture_frame(lambda x: getattr(cached, name)(), (x(),))


OPTIONAL: Any = typing.Optional[int]


@pytest.mark.spec("5.55")
def test_typing_objects(globals_: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(x: torch.Tensor) -> Any:
        return typing.cast(OPTIONAL, x), OPTIONAL, list[int], typing.Dict[str, OPTIONAL], int | str

    capture = capture_frame(step, (x(),))
    ours, theirs = capture(x()), step(x())
    assert ours[1:] == theirs[1:] and ours[1] is OPTIONAL
    assert "ID_MATCH G['OPTIONAL']" in guards_of(capture)
    assert "TypingVariable" in kind_of(monkeypatch, step, x())
    globals_["OPTIONAL"] = typing.Optional[str]
    assert "OPTIONAL" in refuses(capture, x())

    def own(x: torch.Tensor) -> Any:
        class Local:
            pass

        return list[Local]

    with pytest.raises(sf.FrameError, match="types that last"):
        capture_frame(own, (x(),))


# -- rules ----------------------------------------------------------------------------------------


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


# -- configurations -------------------------------------------------------------------------------


@pytest.mark.spec("5.67")
def test_a_pretrained_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("transformers.configuration_utils")

    class PretrainedConfig:
        attribute_map: typing.ClassVar[dict[str, str]] = {"width": "hidden_size"}

        def __init__(self) -> None:
            self.hidden_size = 4
            self.depth = 2

        def __getattribute__(self, name: str) -> Any:
            names = object.__getattribute__(self, "attribute_map")
            return object.__getattribute__(self, names.get(name, name))

        @property
        def area(self) -> int:
            return self.width * self.depth  # type: ignore[attr-defined, no-any-return]

    stand_in.PretrainedConfig = PretrainedConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers.configuration_utils", stand_in)

    def step(config: Any, x: torch.Tensor) -> Any:
        return x * config.width

    def area(config: Any, x: torch.Tensor) -> Any:
        return x * config.area

    capture = agrees(step, lambda: (PretrainedConfig(), x()))
    assert guards_of(capture) == [
        "TYPE_MATCH L['config']", "CONSTANT_MATCH L['config'].hidden_size", "TENSOR_MATCH L['x']",
    ] or set(guards_of(capture)) >= {
        "TYPE_MATCH L['config']", "CONSTANT_MATCH L['config'].hidden_size",
    }  # fmt: skip
    other = PretrainedConfig()
    other.depth = 9
    assert capture.failure(other, X) is None
    assert "depth" in refuses(agrees(area, lambda: (PretrainedConfig(), x())), other, X)
    other.hidden_size = 5
    assert "hidden_size" in refuses(capture, other, X)
    assert "HFPretrainedConfigVariable" in kind_of(monkeypatch, step, PretrainedConfig(), x())


# -- modules, methods, descriptors, classes -------------------------------------------------------


class LoudModule(types.ModuleType):
    pass


@pytest.mark.spec("5.89")
def test_modules_of_python(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    module = LoudModule("made_for_this_test")
    module.factor = 3  # type: ignore[attr-defined]
    globals_["MODULE"] = module

    def step(x: torch.Tensor) -> Any:
        return x * MODULE.factor, MODULE  # type: ignore[name-defined]  # noqa: F821

    capture = agrees(step, lambda: (x(),))
    assert "FUNCTION_MATCH G['MODULE']" in guards_of(capture)
    assert "PythonModuleVariable" in kind_of(monkeypatch, step, x())
    module.factor = 4  # type: ignore[attr-defined]
    assert "factor" in refuses(capture, x())
    monkeypatch.setitem(sys.modules, "made_for_this_test", module)
    capture = agrees(step, lambda: (x(),))
    module.factor = 5  # type: ignore[attr-defined]
    assert "factor" in refuses(capture, x())
    globals_["MODULE"] = LoudModule("other")
    refuses(capture, x())


@pytest.mark.spec("5.89")
def test_what_stands_for_a_module_in_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    class DummyModule:
        def __init__(self, name: str) -> None:
            self.__name__ = name
            self.factor = 3

    record = types.ModuleType("torch._dynamo.replay_record")
    record.DummyModule = DummyModule  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch._dynamo.replay_record", record)
    module = DummyModule("numpy")

    def step(module: Any, x: torch.Tensor) -> Any:
        return x * module.factor

    capture = agrees(step, lambda: (module, x()))
    assert "FUNCTION_MATCH L['module']" in guards_of(capture)
    refuses(capture, DummyModule("numpy"), X)
    module.factor = 4
    assert "factor" in refuses(capture, module, X)


@pytest.mark.spec("5.90", "5.146")
def test_methods_that_somebody_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    spec = torch.utils._pytree.tree_flatten([1, (2, 3)])[1]

    def step(method: Any, x: torch.Tensor) -> Any:
        return method(x), method

    capture = agrees(step, lambda: (layer.forward, x()))
    guards = guards_of(capture)
    assert "FUNCTION_MATCH L['method'].__func__" in guards
    assert "TYPE_MATCH L['method'].__self__" in guards
    result, method = capture(other.forward, X)
    torch.testing.assert_close(result, other(X))
    assert method == other.forward
    assert "__func__" in refuses(capture, layer.extra_repr, X)
    assert "UserMethodVariable" in kind_of(monkeypatch, step, layer.forward, x())
    monkeypatch.undo()

    def unflatten(method: Any, x: torch.Tensor) -> Any:
        return method([x, x, x])

    capture = agrees(unflatten, lambda: (spec.unflatten, x()))
    shorter = torch.utils._pytree.tree_flatten([1, 2, 3])[1]
    refuses(capture, shorter.unflatten, X)


@pytest.mark.spec("5.90")
def test_a_method_of_an_object_of_the_users() -> None:
    class Scale:
        def __init__(self, by: int) -> None:
            self.by = by

        def scale(self, x: Any) -> Any:
            return x * self.by

    def step(methods: Any, x: torch.Tensor) -> Any:
        return methods["m"](x)

    capture = agrees(step, lambda: ({"m": Scale(3).scale}, x()))
    assert "by equals 3" in refuses(capture, {"m": Scale(4).scale}, X)


@pytest.mark.spec("5.91", "5.92")
def test_descriptors_and_method_wrappers(
    monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]
) -> None:
    globals_["GETSET"], globals_["WRAPPER"] = vars(type)["__dict__"], [1].__len__
    globals_["SLOT"] = vars(Slotted)["a"]

    def step(x: torch.Tensor) -> Any:
        return (
            x + WRAPPER(), WRAPPER, GETSET, SLOT.__get__(Slotted(3)), [x, x].__len__,  # noqa: F821
        )  # fmt: skip

    capture = capture_frame(step, (x(),))
    result, wrapper, getset, three, own = capture(x())
    torch.testing.assert_close(result, X + 1)
    assert wrapper is globals_["WRAPPER"] and getset is globals_["GETSET"] and three == 3
    assert own() == 2
    kinds = kind_of(monkeypatch, step, x())
    assert {"GetSetDescriptorVariable", "MethodWrapperVariable"} <= kinds
    # their identity is not relied on
    guards = guards_of(capture)
    assert not {"ID_MATCH G['WRAPPER']", "ID_MATCH G['GETSET']"} & set(guards)
    globals_["WRAPPER"] = [1].__len__
    assert capture.failure(x()) is None
    globals_["WRAPPER"] = [1, 2].__len__
    assert "length 1" in refuses(capture, x())
    globals_["WRAPPER"] = [1].__hash__
    refuses(capture, x())
    globals_["WRAPPER"], globals_["GETSET"] = [1].__len__, vars(type)["__mro__"]
    refuses(capture, x())


@pytest.mark.spec("5.93")
def test_classes(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    class Meta(type):
        pass

    class Made(metaclass=Meta):
        factor = 3

    globals_["CLASS"] = Made

    def step(x: torch.Tensor) -> Any:
        return x * CLASS.factor, CLASS, int, CLASS()  # type: ignore[name-defined]  # noqa: F821

    capture = agrees(step, lambda: (x(),))
    assert "FUNCTION_MATCH G['CLASS']" in guards_of(capture)
    assert "UserDefinedClassVariable" in kind_of(monkeypatch, step, x())
    globals_["CLASS"] = type("Made", (Made,), {})
    assert "CLASS" in refuses(capture, x())


# -- printing and logging -------------------------------------------------------------------------


@pytest.mark.spec("5.50")
def test_prints_are_put_off(capsys: pytest.CaptureFixture[str]) -> None:
    class Shown:
        def __repr__(self) -> str:
            return "shown"

    items = [1, 2]

    def step(x: torch.Tensor) -> Any:
        print("first", x * 2, items, {"k": x.shape}, Shown(), sep="|")
        items.append(3)
        print("second", file=sys.stderr)
        return x

    capture = capture_frame(step, (x(),))
    assert capsys.readouterr() == ("", "") and items == [1, 2]
    capture(x())
    ours = capsys.readouterr()
    del items[2:]
    step(x())
    assert ours == capsys.readouterr()
    assert "tensor([0., 2., 4.])" in ours.out and "shown" in ours.out and "[1, 2]" in ours.out


@pytest.mark.spec("5.50")
def test_what_cannot_be_put_off_is_refused() -> None:
    def writes(x: torch.Tensor) -> Any:
        y = x * 2
        print(y)
        y.add_(1)
        return y

    with pytest.raises(sf.FrameError, match="writes to it afterwards"):
        capture_frame(writes, (x(),))
    with pytest.raises(sf.FrameError, match="reorderable_logging_functions"):
        capture_frame(
            lambda x: print(x), (x(),), options=Options(reorderable_logging_functions=frozenset())
        )
    import logging

    with pytest.raises(sf.FrameError, match="calls info"):
        capture_frame(lambda x: logging.info("a"), (x(),))


@pytest.mark.spec("5.50")
def test_logging_that_may_be_put_off(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    options = Options(reorderable_logging_functions=frozenset({logging.warning}))

    def step(x: torch.Tensor) -> Any:
        logging.warning("got %s of %d", x, 3)
        return x

    capture = capture_frame(step, (x(),), options=options)
    assert not caplog.messages
    capture(x())
    assert caplog.messages == ["got tensor([0., 1., 2.]) of 3"]


@pytest.mark.spec("5.50")
def test_warnings_blame_the_line_of_the_program() -> None:
    def step(x: torch.Tensor) -> Any:
        warnings.warn("careful", DeprecationWarning, stacklevel=1)
        warnings.warn(RuntimeWarning("very"))
        return x

    def caught(function: Any) -> list[Any]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            function(x())
        return [(str(w.message), w.category, w.filename, w.lineno) for w in found]

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        capture = capture_frame(step, (x(),))
    assert not found
    assert caught(capture) == caught(step)

    def inside(x: torch.Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.warn("not heard")
        return x

    with pytest.raises(sf.FrameError, match="warn|filters"):
        capture_frame(inside, (x(),))


@pytest.mark.spec("5.51")
def test_loggers(monkeypatch: pytest.MonkeyPatch, globals_: dict[str, Any]) -> None:
    import logging

    globals_["LOGGER"] = logging.getLogger("of this test")

    def step(x: torch.Tensor) -> Any:
        LOGGER.info("hello %s", x)  # type: ignore[name-defined]  # noqa: F821
        return x + 1, LOGGER  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(sf.FrameError, match="method info of the logger of this test"):
        capture_frame(step, (x(),))
    options = Options(ignored_logger_methods=frozenset({logging.Logger.info}))
    capture = capture_frame(step, (x(),), options=options)
    assert "FUNCTION_MATCH G['LOGGER']" in guards_of(capture)
    assert capture(x())[1] is globals_["LOGGER"]
    globals_["LOGGER"] = logging.getLogger("other")
    assert "LOGGER" in refuses(capture, x())


def test_text_of_tensors_is_refused_and_of_sizes_fixed() -> None:
    for function in (
        lambda x: f"{x}", lambda x: str(x), lambda x: repr([x]), lambda x: "%s" % x,
        lambda x: "{}".format(x), lambda x: repr(collections.deque([x])),
        lambda x: "%(a)s" % {"a": x}, lambda x: x.__repr__(),
    ):  # fmt: skip
        with pytest.raises(sf.FrameError, match="text of a tensor"):
            capture_frame(function, (x(),))
    state = FrameState()

    def sized(x: torch.Tensor) -> Any:
        return x * 2, f"{x.shape[0]} {x.shape[0]:03d}", "%s" % x.shape[0], str(x.shape[0])

    agrees(sized, lambda: (torch.ones(3),), frame_state=state)
    capture = agrees(sized, lambda: (torch.ones(5),), frame_state=state)
    refuses(capture, torch.ones(6))


def test_getters_read_what_is_guarded(globals_: dict[str, Any]) -> None:
    globals_["GETTER"] = operator.attrgetter("weight")

    def step(o: Any, x: torch.Tensor) -> Any:
        first = GETTER(o)  # type: ignore[name-defined]  # noqa: F821
        second = operator.itemgetter(0, 1)([x, first])
        return second, operator.methodcaller("add", first, alpha=2)(x)

    capture = agrees(step, lambda: (Node(), x()))
    assert "weight" in refuses(capture, Node(4), X)
    globals_["GETTER"] = operator.attrgetter("other")
    refuses(capture, Node(), X)


# -- made during the trace ------------------------------------------------------------------------


def translator() -> Translator:
    return Translator(plain, FrameState(), Options())


@pytest.mark.spec("5.138")
def test_sourceless_kinds() -> None:
    tx = translator()
    spec = torch.utils._pytree.tree_flatten([1, 2])[1]
    tracker = VariableTracker(3)
    sentinel = vars(dataclasses)["_HAS_DEFAULT_FACTORY"]
    expected: list[tuple[Any, type]] = [
        (sentinel, user_objects.UserDefinedObjectVariable),
        (len, functions.BuiltinVariable),
        (torch.relu, trace_rules.TorchInGraphFunctionVariable),
        (torch.nn.functional.relu, trace_rules.TorchInGraphFunctionVariable),
        (plain, functions.BuiltinVariable),
        (KEPT.__init__, functions.UserMethodVariable),
        (Node, user_objects.UserDefinedClassVariable),
        ([].__len__, descriptors.MethodWrapperVariable),
        ([].append, descriptors.BoundBuiltinVariable),
        (vars(type)["__dict__"], descriptors.GetSetDescriptorVariable),
        (spec, user_objects.UserDefinedObjectVariable),
        (re.compile("a"), python_objects.RegexPatternVariable),
        (sys, python_modules.PythonModuleVariable),
        (KEPT, user_objects.UserDefinedObjectVariable),
        (functools.partial(plain), wrappers.FunctoolsPartialVariable),
        (inspect.signature(plain), lambdas.InspectSignatureVariable),
        (sf.comptime, comptime.ComptimeVariable),
    ]
    assert SourcelessBuilder.create(tx, tracker) is tracker
    for value, kind in expected:
        made = SourcelessBuilder.create(tx, value)
        assert isinstance(made, kind) and made.source is None, typestr(made)
    allow_in_graph(plain)
    try:
        made = SourcelessBuilder.create(tx, plain)
        assert isinstance(made, trace_rules.TorchInGraphFunctionVariable)
        assert tx.has_user_defined_allowed_in_graph
    finally:
        forget_rule(plain)


@pytest.mark.spec("5.138")
def test_a_tree_spec_is_made_again() -> None:
    def step(x: torch.Tensor) -> Any:
        return torch.utils._pytree.tree_flatten({"a": x, "b": (x, 2)})[1]

    assert capture_frame(step, (x(),))(x()) == step(x())


@pytest.mark.spec("5.139")
def test_a_literal_is_asked_for() -> None:
    assert SourcelessBuilder.wrap_constant_literal((1, frozenset("a"))).is_python_constant()
    with pytest.raises(InternalError, match="not a literal: list"):
        SourcelessBuilder.wrap_constant_literal([1])


# -- completeness ---------------------------------------------------------------------------------


@pytest.mark.spec("5.146")
def test_lambdas_and_attributes_not_looked_up() -> None:
    tx = translator()
    made = lambdas.LambdaVariable(len, lambda tx, args, kwargs: (args, kwargs))
    assert made.handles_calls and made.call_function(tx, (1,), {"a": 2}) == ((1,), {"a": 2})

    class Owner(VariableTracker):
        def call_method(self, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
            return name, args, kwargs

    try:
        attribute = lambdas.GetAttrVariable(None, Owner(KEPT), "apply")
        assert attribute.call_function(tx, (1,), {}) == ("apply", (1,), {})
    finally:
        del VariableTrackerMeta.all_kinds["Owner"]


@pytest.mark.spec("5.146")
def test_texts_of_types_and_the_registry() -> None:
    made = functions.UserMethodVariable(KEPT.__init__)
    assert typestr(made, 3, KEPT) == f"UserMethodVariable(method) int {__name__}.Node"
    assert VariableTrackerMeta.all_kinds["UserMethodVariable"] is functions.UserMethodVariable
    with pytest.raises(InternalError, match="there is a kind of variable UserMethodVariable"):
        type("UserMethodVariable", (VariableTracker,), {})


#: All kinds that the specification names, by the family that has them.
KINDS = {
    "here": """
        VariableTracker LazyVariableTracker ConstantVariable EnumVariable SymNodeVariable
        TensorVariable UserDefinedObjectVariable UserDefinedClassVariable UserFunctionVariable
        UserMethodVariable WrapperUserFunctionVariable BuiltinVariable BaseListVariable
        TupleVariable ListVariable SizeVariable ConstDictVariable SetVariable PythonModuleVariable
        UnspecializedNNModuleVariable RegexPatternVariable WeakRefVariable LambdaVariable
        GetAttrVariable InspectSignatureVariable ComptimeVariable TorchVersionVariable
        DebuggingVariable LoggingLoggerVariable FunctoolsPartialVariable TypingVariable
        TorchInGraphFunctionVariable SkipFunctionVariable HFPretrainedConfigVariable
        GetSetDescriptorVariable MethodWrapperVariable""",
    "containers": """
        TupleIteratorVariable SliceVariable RangeVariable NamedTupleVariable
        PythonSysModulesVariable CustomizedDictVariable DefaultDictVariable ItertoolsVariable
        RestrictedListSubclassVariable""",
    "tensors": """
        TensorWithTFOverrideVariable UnspecializedPythonVariable TensorSubclassVariable""",
    "modules": """
        DelayGraphBreakVariable FSDPManagedNNModuleVariable NNModuleVariable OptimizerVariable
        CollectiveFunctionRewriteVariable StreamContextVariable StreamVariable EventVariable
        WorldMetaClassVariable ProcessGroupVariable DeviceMeshVariable PlacementClassVariable
        PlacementVariable SourcelessGraphModuleVariable""",
    "numpy and torch": """
        NumpyNdarrayVariable NumpyVariable NumpyDTypeVariable NumpyTypeInfoVariable
        AutogradFunctionVariable AutogradFunctionContextVariable SavedTensorBox
        AutogradEngineVariable TorchHigherOrderOperatorVariable SDPAParamsVariable
        NullContextVariable PreserveVersionContextVariable KeyedJaggedTensorVariable
        TritonKernelVariable AutocastModeVariable TorchCtxManagerClassVariable
        TorchScriptObjectVariable""",
}


@pytest.mark.spec("5.146")
@pytest.mark.parametrize("family", KINDS)
def test_all_kinds_exist(family: str) -> None:
    import stillframe.variables as package
    from stillframe.variables import kinds

    places = [package, *vars(kinds).values()]
    missing = [
        name for name in KINDS[family].split()
        if name not in VariableTrackerMeta.all_kinds
        and not any(hasattr(place, name) for place in places)
    ]  # fmt: skip
    if family != "here" and missing:
        pytest.skip(f"not built yet: {', '.join(missing)}")
    assert not missing
