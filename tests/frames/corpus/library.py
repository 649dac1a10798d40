"""Idioms of the standard library, whose Python code runs on the machine too."""

import collections
import contextlib
import dataclasses
import enum
import functools
import io
import itertools
import json
import operator
import re
import string
import typing
from dataclasses import dataclass, field

# -- dataclasses


def case_dataclass():
    @dataclass
    class P:
        x: int
        y: int = 2
        tags: list = field(default_factory=list)

    a, b = P(1), P(1)
    a.tags.append("t")
    return a, a == b, b, P(1, 3) == P(1, 3), P.__match_args__


def case_dataclass_order():
    @dataclass(order=True)
    class V:
        major: int
        minor: int = field(default=0)

    return V(1) < V(2), sorted([V(2), V(1, 5), V(1)]), max(V(1), V(3)), V(1) >= V(1)


def case_dataclass_frozen():
    @dataclass(frozen=True)
    class P:
        x: int

    p = P(1)
    out = [hash(p) == hash(P(1)), {p: "v"}[P(1)]]
    try:
        p.x = 2
    except dataclasses.FrozenInstanceError as e:
        out.append(str(e))
    return out


def case_dataclass_post_init():
    @dataclass
    class P:
        x: int
        double: int = field(init=False)
        scale: dataclasses.InitVar[int] = 2

        def __post_init__(self, scale):
            self.double = self.x * scale

    return P(3), P(3, 5).double


def case_dataclass_inheritance():
    @dataclass
    class A:
        x: int = 1

    @dataclass
    class B(A):
        y: int = 2

        def total(self):
            return self.x + self.y

    return B(), B(5).total(), [f.name for f in dataclasses.fields(B)]


def case_dataclass_tools():
    @dataclass
    class P:
        x: int
        inner: object = None

    p = P(1, P(2))
    return (
        dataclasses.asdict(p), dataclasses.astuple(p), dataclasses.replace(p, x=9),
        dataclasses.is_dataclass(p),
    )  # fmt: skip


def case_dataclass_slots_and_kw_only():
    @dataclass(slots=True, kw_only=True)
    class P:
        x: int
        y: int = 0

    return P(x=1), P.__slots__


def case_dataclass_bad_default():
    @dataclass
    class P:
        x: list = []


def case_make_dataclass():
    C = dataclasses.make_dataclass("C", [("x", int), ("y", int, field(default=5))])
    return C(1), C(1) == C(1, 5)


# -- enum


def case_enum():
    class C(enum.Enum):
        RED = 1
        GREEN = 2
        ALSO = 1

        @property
        def pretty(self):
            return self.name.title()

    return (
        C.RED, C(2), C["GREEN"], C.ALSO is C.RED, [c.name for c in C], C.RED.pretty, len(C),
        C.RED in C, {C.RED: 1}[C.ALSO], C.RED == 1, repr(C.GREEN), str(C.RED),
    )  # fmt: skip


def case_enum_invalid():
    class C(enum.Enum):
        A = 1

    C(5)


def case_enum_auto_and_int():
    class N(enum.IntEnum):
        A = enum.auto()
        B = enum.auto()

    return N.A + 1, N.B > N.A, sorted([N.B, N.A]), list(N), int(N.B)


def case_enum_flag():
    class F(enum.Flag):
        R = 4
        W = 2
        X = 1
        RW = R | W

    return F.R | F.W, F.RW & F.W, F.R in F.RW, F.X in F.RW, bool(F.R & F.X), F(3)


def case_enum_string():
    class S(str, enum.Enum):
        A = "a"

        @classmethod
        def parse(cls, text):
            return cls(text.lower())

    return S.parse("A") is S.A, S.A == "a", S.A.value


def case_enum_with_init():
    class P(enum.Enum):
        EARTH = (1, 2)
        MARS = (3, 4)

        def __init__(self, mass, radius):
            self.mass, self.radius = mass, radius

        def ratio(self):
            return self.mass / self.radius

    return P.EARTH.mass, P.MARS.ratio(), P((1, 2)).name


def case_enum_unique():
    @enum.unique
    class U(enum.Enum):
        A = 1
        B = 1


# -- contextlib


def case_contextmanager():
    log = []

    @contextlib.contextmanager
    def tag(name):
        log.append(f"<{name}>")
        try:
            yield name.upper()
        finally:
            log.append(f"</{name}>")

    with tag("a") as a, tag("b"):
        log.append(a)
    return log


def case_contextmanager_with_error():
    @contextlib.contextmanager
    def swallow():
        try:
            yield
        except ValueError as e:
            print("swallowed", e)

    with swallow():
        raise ValueError("x")
    with swallow():
        raise KeyError("y")


def case_contextmanager_as_decorator():
    log = []

    @contextlib.contextmanager
    def around():
        log.append("in")
        yield
        log.append("out")

    @around()
    def f(x):
        log.append(x)
        return x

    return f(1), f(2), log


def case_suppress_and_nullcontext():
    with contextlib.suppress(KeyError, IndexError):
        {}["x"]
    with contextlib.nullcontext(5) as n:
        return n


def case_exit_stack():
    log = []
    with contextlib.ExitStack() as stack:
        for i in range(3):
            stack.callback(log.append, i)
        stack.enter_context(contextlib.closing(io.StringIO()))
        log.append("body")
    return log


def case_redirect_stdout():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print("hidden")
    return out.getvalue()


def case_context_decorator():
    class Track(contextlib.ContextDecorator):
        def __enter__(self):
            print("enter")
            return self

        def __exit__(self, *e):
            print("exit")

    @Track()
    def f():
        return 1

    return f()


# -- functools


def case_lru_cache():
    calls = []

    @functools.lru_cache(maxsize=None)
    def f(n):
        calls.append(n)
        return n if n < 2 else f(n - 1) + f(n - 2)

    return f(10), len(calls), f.cache_info().hits > 0, f.__name__


def case_cache_clear():
    @functools.cache
    def f(x):
        print("computed")
        return x

    f(1), f(1)
    f.cache_clear()
    return f(1)


def case_cached_property():
    class A:
        @functools.cached_property
        def x(self):
            print("computed")
            return 5

    a = A()
    return a.x, a.x, a.__dict__


def case_partial():
    def f(a, b, c=0, *, d=1):
        return a, b, c, d

    g = functools.partial(f, 1, d=5)
    h = functools.partial(g, 2)
    return g(2), h(c=3), g.args, g.keywords, h.func is f


def case_partialmethod():
    class A:
        def set(self, key, value):
            return key, value

        on = functools.partialmethod(set, value=True)

    return A().on("x")


def case_reduce():
    return functools.reduce(lambda a, b: a + [b * 2], [1, 2], []), functools.reduce(
        operator.mul, range(1, 6)
    )


def case_total_ordering():
    @functools.total_ordering
    class V:
        def __init__(self, x):
            self.x = x

        def __eq__(self, o):
            return self.x == o.x

        def __lt__(self, o):
            return self.x < o.x

    return V(1) <= V(2), V(2) > V(1), V(1) >= V(1), sorted([V(3), V(1)])[0].x


def case_cmp_to_key():
    return sorted([3, 1, 2], key=functools.cmp_to_key(lambda a, b: b - a))


def case_singledispatch():
    @functools.singledispatch
    def show(x):
        return "object"

    @show.register
    def _(x: int):
        return f"int {x}"

    @show.register(list)
    def _(x):
        return [show(v) for v in x]

    return show("a"), show(1), show([1, "b", [2]]), show(True)


def case_wraps():
    def deco(f):
        @functools.wraps(f)
        def w(*a):
            return f(*a)

        return w

    @deco
    def original(x: int) -> int:
        "doc"
        return x

    return original.__name__, original.__doc__, original.__annotations__, original(3)


# -- collections


def case_namedtuple():
    P = collections.namedtuple("P", ["x", "y"], defaults=[0])
    p = P(1)
    return p, p.x, p._replace(y=5), p._asdict(), P._fields, P._make([7, 8]), p + (1,), p == (1, 0)


def case_typed_namedtuple():
    class P(typing.NamedTuple):
        x: int
        y: int = 2

        def total(self):
            return self.x + self.y

    a, b = P(1)
    return P(1), P(1, 5).total(), a, b, P._field_defaults


def case_counter():
    c = collections.Counter("mississippi")
    c.update("ss")
    c["z"] -= 1
    return c.most_common(2), c["nope"], sorted((c & collections.Counter("sip")).items()), c.total()


def case_defaultdict():
    groups = collections.defaultdict(list)
    for word in "apple avocado banana".split():
        groups[word[0]].append(word)
    tree = collections.defaultdict(lambda: collections.defaultdict(int))
    tree["a"]["b"] += 1
    return dict(groups), tree["a"]["b"], len(tree["c"])


def case_deque():
    d = collections.deque([1, 2, 3], maxlen=3)
    d.append(4)
    d.appendleft(0)
    d.rotate(1)
    return d, d.popleft(), list(d), 2 in d


def case_ordered_dict():
    d = collections.OrderedDict(a=1, b=2)
    d.move_to_end("a")
    return list(d), d.popitem(last=False), d == {"a": 1}


def case_chain_map():
    base, over = {"a": 1, "b": 2}, {"a": 3}
    m = collections.ChainMap(over, base)
    m["c"] = 5
    return m["a"], m["b"], over, sorted(m), m.new_child({"z": 1})["z"]


def case_user_dict_and_list():
    class D(collections.UserDict):
        def __getitem__(self, k):
            return super().__getitem__(k.lower())

    class L(collections.UserList):
        def first(self):
            return self[0]

    d = D(a=1)
    return d["A"], list(d.items()), L([3, 1]).first(), sorted(L([2, 1])), L([1]) + [2]


# -- itertools


def case_groupby_objects():
    rows = [("a", 1), ("a", 2), ("b", 3)]
    return {k: [v for _, v in g] for k, g in itertools.groupby(rows, key=operator.itemgetter(0))}


def case_chain_of_generators():
    def g(n):
        yield from range(n)

    return list(itertools.chain(g(2), g(3))), list(itertools.chain.from_iterable(map(g, [1, 2])))


def case_windows():
    def windows(it, n):
        its = itertools.tee(it, n)
        for i, t in enumerate(its):
            for _ in range(i):
                next(t, None)
        return zip(*its)

    return list(windows([1, 2, 3, 4], 3))


def case_round_robin():
    def round_robin(*its):
        pending = collections.deque(map(iter, its))
        while pending:
            it = pending.popleft()
            try:
                yield next(it)
            except StopIteration:
                continue
            pending.append(it)

    return "".join(round_robin("ABC", "D", "EF"))


def case_powerset():
    s = [1, 2, 3]
    return list(itertools.chain.from_iterable(itertools.combinations(s, r) for r in range(4)))


# -- typing


def case_generic():
    T = typing.TypeVar("T")

    class Stack(typing.Generic[T]):
        def __init__(self) -> None:
            self.items: list[T] = []

        def push(self, x: T) -> "Stack[T]":
            self.items.append(x)
            return self

    return Stack[int]().push(1).items, Stack.__parameters__ == (T,), Stack.__name__


def case_annotations():
    def f(x: typing.Optional[int], *y: "str") -> typing.List[int]:
        return []

    return typing.get_type_hints(f), typing.get_origin(list[int]), typing.get_args(dict[str, int])


def case_union_types():
    return int | None, isinstance(5, int | str), typing.Union[int, str] == int | str


def case_typed_dict():
    class D(typing.TypedDict, total=False):
        a: int

    return D(a=1), D.__annotations__, D.__total__


def case_cast_and_overload():
    return typing.cast(int, "x"), typing.TYPE_CHECKING, typing.Literal["a"].__args__


def case_new_type():
    UserId = typing.NewType("UserId", int)
    return UserId(5), UserId.__name__


# -- text


def case_re():
    return (
        re.findall(r"\d+", "a1b22"), re.sub(r"(\w)(\d)", r"\2\1", "a1b2"),
        re.sub(r"\d", lambda m: str(int(m[0]) * 2), "a1b4"), re.split(r"[,;]", "a,b;c"),
        re.match(r"(?P<k>\w+)=(?P<v>\w+)", "a=b").groupdict(), re.fullmatch("a+", "aab"),
        [m.span() for m in re.finditer("a", "banana")], re.escape("a.b"),
    )  # fmt: skip


def case_re_compile():
    p = re.compile(r"(a)(b)?", re.I)
    return p.search("xA").groups(), p.subn("-", "abA"), p.pattern, bool(p.flags & re.I)


def case_re_error():
    re.compile("(")


def case_template():
    return string.Template("$a and ${b} $$").substitute(a=1, b=2), string.Template(
        "$x"
    ).safe_substitute()


def case_formatter():
    class F(string.Formatter):
        def get_value(self, key, args, kwargs):
            return kwargs.get(key, f"<{key}>")

    return F().format("{a} {b!r:>6}", a=1), string.capwords("a bc")


def case_json():
    data = {"a": [1, 2.5, None, True], "b": {"c": "é\n"}}
    text = json.dumps(data)
    return text, json.loads(text) == data, json.dumps(data, indent=1, sort_keys=True)


def case_json_hooks():
    class E(json.JSONEncoder):
        def default(self, o):
            return sorted(o) if isinstance(o, set) else super().default(o)

    out = [json.dumps({"s": {2, 1}}, cls=E), json.loads("[1.5]", parse_float=lambda s: s + "f")]
    out.append(json.loads('{"a": 1}', object_hook=lambda d: list(d.items())))
    try:
        json.dumps(object())
    except TypeError as e:
        out.append(str(e))
    try:
        json.loads("{bad")
    except json.JSONDecodeError as e:
        out.append((e.pos, e.msg))
    return out


def case_textwrap():
    import textwrap

    return textwrap.wrap("the quick brown fox jumps", 10), textwrap.dedent("  a\n   b")


def case_heapq():
    import heapq

    h = []
    for x in [5, 1, 4]:
        heapq.heappush(h, x)
    return heapq.heappop(h), heapq.nlargest(2, [1, 5, 3]), list(heapq.merge([1, 4], [2]))


def case_heapq_with_objects():
    import heapq

    @functools.total_ordering
    class Job:
        def __init__(self, p):
            self.p = p

        def __lt__(self, o):
            return self.p < o.p

        def __eq__(self, o):
            return self.p == o.p

    h = []
    for p in (3, 1, 2):
        heapq.heappush(h, Job(p))
    return [heapq.heappop(h).p for _ in range(3)]


def case_bisect():
    import bisect

    a = [1, 3, 5]
    bisect.insort(a, 4)
    return a, bisect.bisect_left(a, 3), bisect.bisect(a, 3), bisect.bisect([-1, 2, -3], 2, key=abs)


def case_fractions():
    from fractions import Fraction

    return Fraction(1, 3) + Fraction(1, 6), Fraction("0.25"), float(Fraction(1, 4)), Fraction(3) > 2


def case_decimal():
    from decimal import Decimal

    return Decimal("0.1") + Decimal("0.2"), Decimal(1) / 3, round(Decimal("2.675"), 2)


def case_datetime():
    from datetime import date, datetime, timedelta

    d = date(2024, 2, 28) + timedelta(days=2)
    return d.isoformat(), (date(2024, 3, 1) - d).days, datetime(2024, 1, 1).strftime("%Y/%m")


def case_random():
    import random

    r = random.Random(7)
    items = list(range(5))
    r.shuffle(items)
    return r.random(), r.randint(1, 10), r.choice("abc"), items, r.sample(range(10), 3)


def case_statistics():
    import statistics

    return statistics.mean([1, 2, 4]), statistics.median([3, 1, 2]), statistics.stdev([1, 2, 3])


def case_copy_and_pickle():
    import copy
    import pickle

    data = {"a": [1, (2, 3)], "b": {4}}
    deep = copy.deepcopy(data)
    deep["a"].append(5)
    return data, deep, pickle.loads(pickle.dumps(data)) == data


def case_struct_and_bytes():
    import struct

    return struct.pack("<hi", 1, 2), struct.unpack("<h", b"\x01\x00"), b"ab".hex(), "é".encode()


def case_hashlib_and_base64():
    import base64
    import hashlib

    return hashlib.md5(b"a").hexdigest(), base64.b64encode(b"abc"), base64.b64decode("YWJj")


def case_pathlib():
    from pathlib import PurePosixPath

    p = PurePosixPath("/a/b") / "c.txt"
    return str(p), p.suffix, p.stem, p.parent.name, p.parts, p.with_suffix(".md").name


def case_string_io_csv():
    import csv

    out = io.StringIO()
    csv.writer(out).writerows([[1, "a,b"], [2, 'q"']])
    rows = list(csv.DictReader(io.StringIO("x,y\n1,2\n")))
    return out.getvalue(), rows, list(csv.reader(["a;b"], delimiter=";"))


def case_operator():
    class A:
        def __init__(self, x):
            self.x = x

        def __add__(self, o):
            return "added"

    return (
        operator.attrgetter("x")(A(1)), operator.add(A(1), 2), operator.itemgetter(0, 2)("abc"),
        sorted([A(2), A(1)], key=operator.attrgetter("x"))[0].x, operator.contains([1], 1),
        operator.iadd([1], [2]), operator.not_(0), operator.index(3),
    )  # fmt: skip


def case_inspect():
    import inspect

    def f(a, b=2, *c, d, **e):
        pass

    s = inspect.signature(f)
    return str(s), list(s.parameters), s.bind(1, d=3).args, inspect.isfunction(f)


def case_inspect_generator():
    import inspect

    def g():
        yield

    return inspect.isgeneratorfunction(g), inspect.isgenerator(g()), inspect.isclass(int)


def case_ast():
    import ast

    tree = ast.parse("a + b * 2")

    class V(ast.NodeVisitor):
        def __init__(self):
            self.names = []

        def visit_Name(self, node):
            self.names.append(node.id)

    v = V()
    v.visit(tree)
    return v.names, ast.unparse(tree), ast.literal_eval("[1, {'a': 2}]")


def case_types():
    import types

    ns = types.SimpleNamespace(a=1, b=2)
    ns.c = 3
    m = types.ModuleType("m")
    m.x = 5
    proxy = types.MappingProxyType({"a": 1})
    return ns, m.x, proxy["a"], types.MethodType(lambda self: self, 5)()


def case_types_new_class():
    import types

    A = types.new_class("A", (), {}, lambda ns: ns.update(x=1))
    return A.x, A.__name__


def case_import_forms():
    import os.path
    from collections import abc as c
    from math import pi as p
    from math import sqrt

    import collections.abc as d

    return os.path.join("a", "b"), p > 3, c is d, sqrt(4)


def case_import_missing():
    from math import nope


def case_import_star():
    names = {}
    exec("from math import *", names)
    return names["sqrt"](4)


def case_queue_and_array():
    import array
    import queue

    q = queue.SimpleQueue()
    a = array.array("i", [1, 2])
    a.append(3)
    return list(a), a.tolist(), q.empty()


def case_graphlib():
    import graphlib

    return list(graphlib.TopologicalSorter({"c": {"b"}, "b": {"a"}}).static_order())


def case_pprint_and_reprlib():
    import pprint
    import reprlib

    return pprint.pformat({"b": [1] * 3, "a": "x"}), reprlib.repr(list(range(100)))


def case_calendar_and_shlex():
    import calendar
    import shlex

    return calendar.monthrange(2024, 2), calendar.isleap(2000), shlex.split("a 'b c'")


def case_urllib_parse():
    from urllib.parse import parse_qs, quote, urlsplit

    return quote("a b"), parse_qs("a=1&a=2"), urlsplit("http://x.y/z?q#f").netloc


def case_html_and_textual():
    import html

    return html.escape("<a&b>"), html.unescape("&lt;")


def case_difflib():
    import difflib

    return difflib.get_close_matches("appel", ["ape", "apple"]), list(
        difflib.unified_diff(["a"], ["b"], lineterm="")
    )


def case_abc_numbers():
    import numbers

    return isinstance(1, numbers.Integral), isinstance(1.0, numbers.Rational)


def case_contextvars():
    import contextvars

    v = contextvars.ContextVar("v", default=1)
    t = v.set(2)
    out = [v.get()]
    v.reset(t)
    return out, v.get()


def case_logging():
    import logging

    out = io.StringIO()
    log = logging.Logger("corpus")
    log.addHandler(logging.StreamHandler(out))
    log.warning("careful %s", 5)
    log.debug("x %r", [1])
    return out.getvalue()


def case_argparse():
    import argparse

    p = argparse.ArgumentParser(prog="x")
    p.add_argument("n", type=int)
    p.add_argument("--flag", action="store_true")
    return p.parse_args(["5", "--flag"])


def case_configparser():
    import configparser

    c = configparser.ConfigParser()
    c.read_string("[a]\nx = 1\ny = %(x)s2\n")
    return c["a"]["y"], c.getint("a", "x"), c.sections()


def case_default_dict_with_python_factory():
    made = []

    def factory():
        made.append(len(made))
        return list(made)

    class D(collections.defaultdict):
        pass

    d, e = collections.defaultdict(factory), D(factory)
    d["a"].append("x")
    d["b"] += ["y"]
    e[1].append(2)
    return d, dict(e), made, "z" in d


def case_default_dict_without_factory():
    return collections.defaultdict(None)["k"]
