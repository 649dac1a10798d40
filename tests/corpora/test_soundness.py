"""A program equals its module on every call that it accepts: small programs that are easily wrong.

Each is exported, then called with inputs or state that differ from the example's. Expected
failures are wrong numbers that are not fixed yet; the list only shrinks, because a case that passes
fails the test. ``python -m tests.corpora.test_soundness --torch`` counts how torch.export does on the corpus.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import random
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.corpora.soundness_programs import (
    EQUAL,
    SOUND,
    X2,
    X3,
    XG,
    XT,
    Case,
    Equal,
    Export,
    Refuse,
    X,
    call,
    module,
    of,
    run,
    x_,
)
from torch import nn

import stillframe as sf

# fmt: off
CASES: list[Case] = []


def case(name: str, forward: Any, *calls: Any, state: Any = None, **options: Any) -> None:
    """Add a case; ``forward`` is a function of ``self`` and the inputs, or makes a module."""
    if options.get("unsound"):
        options.setdefault("verdict", SOUND)
    make = options.pop("make", None) or module(forward, **(state or {}))
    CASES.append(Case(name, make, calls, **options))


def batch(minimum: int = 0) -> Any:
    """Dim 0 of the only input varies."""
    return lambda dim: ({0: dim("b", min=minimum)},)


def two(first: Any, second: Any) -> Any:
    return lambda: call(first(), second())


def autocast() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@contextlib.contextmanager
def float64_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SIZES = of((5, 4), (0, 4), (1, 4), (2, 4), (3, 4), (8, 4))

# -- arguments ------------------------------------------------------------------------------------


def optional(self: Any, x: Any, y: Any = None, *, k: Any = 2, mode: str = "a") -> Any:
    x = x * k if mode == "a" else x - k
    return x if y is None else x + y


case("omitted, then a tensor", optional, X, two(lambda: x_(3, 4), lambda: x_(3, 4)),
     verdict=Refuse("y: is a tensor"))
case("None, then a tensor", optional, lambda: call(x_(3, 4), None),
     lambda: call(x_(3, 4), y=x_(3, 4)), verdict=Refuse("y: is a tensor"))
case("a tensor, then None", optional, lambda: call(x_(3, 4), x_(3, 4)),
     lambda: call(x_(3, 4), None), verdict=Refuse("y: is None"))
case("omitted defaults given, and keywords in another order", optional,
     lambda: call(x_(3, 4), k=3, mode="b"), lambda: call(mode="b", k=3, x=x_(3, 4)),
     lambda: call(x_(3, 4), None, mode="b", k=3))
for value in (3, True, 2.0, torch.tensor(2)):
    case(f"scalar 2, then {value!r}", optional, lambda: call(x_(3, 4), k=2),
         lambda v=value: call(x_(3, 4), k=v), verdict=Refuse("k: is"))
case("another string", optional, X, lambda: call(x_(3, 4), mode="b"), verdict=Refuse("mode: is"))
case("minus zero", lambda self, x, v: x * math.copysign(1, v), lambda: call(x_(3, 4), 0.0),
     lambda: call(x_(3, 4), -0.0), verdict=Refuse("v: is -0.0"))
case("another dtype", lambda self, x: x * (2 if x.dtype is torch.float32 else 3), X,
     lambda: call(x_(3, 4).double()), verdict=Refuse("x: dtype is float64"))
case("another device", lambda self, x: x * 2, X, lambda: call(x_(3, 4).to("meta")),
     verdict=Refuse("x: device is meta"))
case("another rank", lambda self, x: x * x.dim(), X, *of((1, 3, 4)), verdict=Refuse("has 3 dims"))
case("another static size", lambda self, x: x.sum(0), *of((3, 4), (2, 4)), verdict=Refuse("dim 0"))
case("a size above its range", lambda self, x: x * x.shape[0], *of((3, 4), (5, 4), (6, 4)),
     dims=lambda dim: ({0: dim("b", min=2, max=5)},), verdict=Refuse("outside 2..5"))
case("a size below its range", lambda self, x: x * x.shape[0], *of((3, 4), (2, 4), (1, 4)),
     dims=lambda dim: ({0: dim("b", min=2, max=5)},), verdict=Refuse("outside 2..5"))
case("one dim of two sizes", lambda self, x, y: x + y, lambda: call(x_(3, 4), x_(3, 4)),
     lambda: call(x_(1, 4), x_(1, 4)), lambda: call(x_(3, 4), x_(1, 4)),
     dims=lambda dim: ({0: dim("b", min=0)}, {0: dim("b", min=0)}),
     verdict=Refuse("y: dim 0"))


def rest(self: Any, *xs: Any, **named: Any) -> Any:
    total = sum(x * (i + 1) for i, x in enumerate(xs))
    return total + sum(x * (i + 1) for i, x in enumerate(named.values()))


def four(*names: str) -> Any:
    return lambda: call(x_(2), x_(2, seed=1), **{n: x_(2, seed=ord(n)) for n in names})


case("*args and **kwargs", rest, four("a", "b"), four("a", "b"))
case("**kwargs in another order", rest, four("a", "b"), four("b", "a"), verdict=Refuse("keys come"))
case("**kwargs, one more", rest, four("a"), four("a", "b"), verdict=Refuse("with ['b']"))
case("*args, one more", rest, lambda: call(x_(2)), lambda: call(x_(2), x_(2)),
     verdict=Refuse("2 values"))
case("a dict in another order", lambda self, d: sum(v * i for i, v in enumerate(d.values(), 1)),
     lambda: call({"a": x_(2), "b": x_(2)}), lambda: call({"b": x_(2), "a": x_(2)}),
     verdict=Refuse("keys come"))
Pair = collections.namedtuple("Pair", "p q")
case("containers in and out", lambda self, n: {"pair": Pair(n.q, n.p), "more": [n.p * 2, 3, None]},
     *[lambda: call(Pair(x_(2), x_(2, seed=1)))] * 2)
case("a tuple for a namedtuple", lambda self, n: n.p - n.q if isinstance(n, Pair) else n[0],
     lambda: call(Pair(x_(2), x_(2))), lambda: call((x_(2), x_(2))),
     verdict=Refuse("n: is a tuple"))

# -- what Python reads of an input ----------------------------------------------------------------

READS = "isinstance(x, nn.Parameter) asks no function of torch, so nobody notes it"
for name, read in {
    "is_contiguous": lambda x: x.is_contiguous(),
    "stride": lambda x: x.stride(0) == 4,
}.items():
    case(f"a branch on {name}", lambda self, x, read=read: x * (2 if read(x) else 3), X, XT,
         verdict=Refuse(f"x: {name}() is"))
for name, read, other in (
    ("requires_grad", lambda x: x.requires_grad, XG),
    ("storage_offset", lambda x: x.storage_offset(), lambda: call(x_(5, 4)[2:])),
    ("is_leaf", lambda x: x.is_leaf, lambda: call(x_(3, 4, grad=True) * 1)),
):
    case(f"a branch on {name}", lambda self, x, read=read: x * (2 if read(x) else 3), X, other,
         verdict=Refuse(f"x: {name}"))
case("a branch on the class Parameter",
     lambda self, x: x * (2 if isinstance(x, nn.Parameter) else 3), X,
     lambda: call(nn.Parameter(x_(3, 4))), unsound=READS, seen_strictly=True)
case("a branch on the layout of a dynamic input",
     lambda self, x: x * (2 if x.is_contiguous() else 3), *of((3, 4)), lambda: call(x_(4, 2).t()),
     dims=batch(), verdict=Refuse("x: is_contiguous() is"))
case("strides that become an argument", lambda self, x: x.as_strided((2, 2), (x.stride(0), 1)) * 1,
     X, XT, verdict=Refuse("x: stride() is"))
for name, thunks in (("contiguous", (X, XT)), ("transposed", (XT, X))):
    case(f"made contiguous and written, exported {name}",
         lambda self, x: (x.contiguous().mul_(2), x + 1), *thunks)
case("made contiguous and viewed", lambda self, x: x.contiguous().view(-1) * 2, X, XT)
case("a layout that nobody reads", lambda self, x: x.transpose(0, 1).reshape(-1) * 2, X, XT)
case("the layout of an empty result", lambda self, x: (x.sum(), (x * 2).stride(0)),
     *of((3, 4, 5), (3, 0, 5)), dims=lambda dim: ({1: dim("n", min=0)},),
     verdict=Refuse("x: stride() is"))


class Plus(torch.Tensor):
    """A subclass that changes what an operator gives."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result + 1 if func is torch.Tensor.mul else result


case("a tensor subclass at export", lambda self, x: x * 2, lambda: call(x_(3, 4).as_subclass(Plus)),
     verdict=Export("NotSupported", "subclass"))

# -- aliasing and writes --------------------------------------------------------------------------


def same() -> Any:
    x = x_(3, 4)
    return call(x, x)


def overlapping() -> Any:
    x = x_(4, 4)
    return call(x[:3], x[1:])


def apart() -> Any:
    return call(x_(3, 4), x_(3, 4, seed=1))


def add_into(self: Any, x: Any, y: Any) -> Any:
    x.add_(1)
    return x + y


case("in place on an input", add_into, apart, apart)
case("in place, one tensor twice", add_into, apart, same, verdict=Refuse("share memory"))
case("in place, overlapping inputs", add_into, apart, overlapping, verdict=Refuse("share memory"))
case("in place, exported with one tensor twice", add_into, same, same, verdict=SOUND)
case("only read, one tensor twice", lambda self, x, y: x * 2 + y, apart, same)
IDENTITY = "plain tracing does not see Python compare two objects; strict capture does"
case("x is y, two tensors", lambda self, x, y: x * 2 if x is y else x + y, apart, apart)
case("x is y, one tensor twice", lambda self, x, y: x * 5 if x is y else x + y, apart, same,
     unsound=IDENTITY, seen_strictly=True)
case("outputs that are inputs, views and one another",
     lambda self, x: (x, x.t(), x[1:], x.float(), x.reshape(-1), x.detach(), [x * 2] * 2),
     X, X2)
case("reshape of another layout, written", lambda self, x: (x.reshape(-1).mul_(2), x * 1), X, X2)


def written_views(self: Any, x: Any) -> Any:
    x[:2].mul_(2)
    x[0, 0] = 5
    x.masked_fill_(x < 0, 0)
    x.view(-1)[::3] += 1
    return x.sum(0)


case("views written in place", written_views, X, X2)
case("expand, then write", lambda self, x: x.expand(3, 4).add_(1), *of((1, 4), (1, 4)),
     verdict=Export("RuntimeError", "a single memory location"))
case("sizes changed in place", lambda self, x: x.unsqueeze_(0) * x.dim(), X,
     verdict=Export("NotSupported", "sizes or strides"))


def mutate_output(outputs: Any, arguments: Any, mod: Any) -> None:
    with torch.no_grad():
        if outputs is not None:
            outputs.add_(1)


def mutate_input(outputs: Any, arguments: Any, mod: Any) -> None:
    with torch.no_grad():
        arguments[0][0].zero_()


case("a buffer returned, changed by the caller", lambda self, x: self.b, X, X2,
     state={"b_b": torch.ones(2)}, between=mutate_output)
case("a constant returned, changed by the caller", lambda self, x: torch.tensor([1.0, 2.0]), X, X2,
     between=mutate_output)


def write_constant(self: Any, x: Any) -> Any:
    t = torch.tensor([1.0, 2.0])
    t[0] = x.sum()
    n = torch.tensor(1)
    n.view(1).add_(2)
    return t * n.item()


def new_data(self: Any, x: Any) -> Any:
    t = torch.tensor(3.0)
    t.data = x.sum()
    return x * t.item()


case("a constant written in forward", write_constant, X, X2)
case("a constant given other data", new_data, X, X2,
     verdict=Export("NotSupported", "tensor.data = ..."))

# -- state in Python ------------------------------------------------------------------------------

COUNT = 0
TABLE: dict[str, int] = {}


def global_counter(self: Any, x: Any) -> Any:
    global COUNT
    COUNT += 1
    return x * COUNT


def global_dict(self: Any, x: Any) -> Any:
    TABLE["n"] = TABLE.get("n", 0) + 1
    return x * TABLE["n"]


class ClassCounter(nn.Module):
    count = 0

    def forward(self, x: Any) -> Any:
        type(self).count += 1
        return x * self.count


def fresh(make: Any) -> Any:
    def make_all() -> nn.Module:
        global COUNT
        COUNT = ClassCounter.count = 0
        TABLE.clear()
        return make()

    return make_all


def closure_counter() -> nn.Module:
    n = 0

    def forward(self: Any, x: Any) -> Any:
        nonlocal n
        n += 1
        return x * n

    return module(forward)()


def default_counter() -> nn.Module:
    def forward(self: Any, x: Any, _seen: Any = ()) -> Any:
        return step(x)

    def step(x: Any, seen: list[int] = []) -> Any:  # noqa: B006
        seen.append(1)
        return x * len(seen)

    return module(forward)()


case("a global counter", None, X, X2, make=fresh(module(global_counter)), verdict=Export("SideEffectError", "forward changes"))
case("a counter in a global dict", None, X, X2, make=fresh(module(global_dict)), verdict=Export("SideEffectError", "forward changes"))
case("a counter on the class", None, X, X2, make=fresh(ClassCounter), verdict=Export("SideEffectError", "forward changes"))
case("a counter in a closure", None, X, X2, make=closure_counter, verdict=Export("SideEffectError", "forward changes"))
case("a list as default argument", None, X, X2, make=default_counter, verdict=Export("SideEffectError", "forward changes"))


def attribute_counter(self: Any, x: Any) -> Any:
    self.n += 1
    return x * self.n


def nested_list(self: Any, x: Any) -> Any:
    self.state["seen"].append(1)
    return x * len(self.state["seen"])


def deque(self: Any, x: Any) -> Any:
    self.seen.append(1)
    return x * len(self.seen)


def namespace(self: Any, x: Any) -> Any:
    self.config.step += 1
    return x * self.config.step


def cache_object(self: Any, x: Any) -> Any:
    old = getattr(self.cache, "x", None)
    self.cache.x = x if old is None else old + x
    return self.cache.x * 1


case("an attribute counter", attribute_counter, X, X2, state={"n": 0},
     verdict=Export("SideEffectError", "self.n"))
case("a list append", deque, X, X2, state={"seen": list},
     verdict=Export("SideEffectError", "self.seen"))
case("a list in a dict", nested_list, X, X2, state={"state": lambda: {"seen": []}}, verdict=Export("SideEffectError", "forward changes"))
case("a deque", deque, X, X2, state={"seen": collections.deque}, verdict=Export("SideEffectError", "forward changes"))
case("an object's attribute", namespace, X, X2,
     state={"config": lambda: types.SimpleNamespace(step=0)}, verdict=Export("SideEffectError", "forward changes"))
case("a cache object", cache_object, X, X2, state={"cache": types.SimpleNamespace}, verdict=Export("SideEffectError", "forward changes"))
case("an iterator", lambda self, x: x * next(self.it), X, X2,
     state={"it": lambda: itertools.count(1)}, verdict=Export("SideEffectError", "forward changes"))


def count_in_tensor(self: Any, x: Any) -> Any:
    self.t.add_(1)
    return x * self.t


case("a plain tensor written", count_in_tensor, X, X2, state={"t": torch.zeros(1)})

# -- buffers and parameters -----------------------------------------------------------------------


def count_in_buffer(self: Any, x: Any) -> Any:
    self.n += 1
    return x * self.n.item()


def history(self: Any, x: Any) -> Any:
    out = x - self.older
    self.older = self.newer
    self.newer = x * 1
    return out


def swap(self: Any, x: Any) -> Any:
    self.a, self.b = self.b, self.a
    return x * self.a


def keep_input(self: Any, x: Any) -> Any:
    old = self.last * 2
    self.last = x
    return old + x


def keep_output(self: Any, x: Any) -> Any:
    self.last = self.last + x
    return self.last


KEEP = "rebinding.py allows a new value that shares memory with an input or output"
case("a counter buffer", count_in_buffer, X, X2, X3, state={"b_n": torch.tensor(0)})
case("a running sum returned", keep_output, X, X2, state={"b_last": torch.zeros(3, 4)})
case("history in two buffers", history, X, X2, X3,
     state={"b_newer": torch.zeros(3, 4), "b_older": torch.ones(3, 4)})
case("two buffers swapped", swap, X, X2,
     state={"b_a": torch.tensor(2.0), "b_b": torch.tensor(3.0)})
case("an input kept, then changed by the caller", keep_input, X, X2,
     state={"b_last": torch.zeros(3, 4)}, between=mutate_input, unsound=KEEP)
case("an output kept, then changed by the caller", keep_output, X, X2,
     state={"b_last": torch.zeros(3, 4)}, between=mutate_output, unsound=KEEP)


def norm_dead(self: Any, x: Any) -> Any:
    self.norm(x)
    return x * 2


case("batch norm in training", lambda self, x: self.norm(x), X, X2, X3,
     state={"norm": lambda: nn.BatchNorm1d(4)})
case("batch norm in training, result unused", norm_dead, X, X2,
     state={"norm": lambda: nn.BatchNorm1d(4)})
case("batch norm with cumulative average", lambda self, x: self.norm(x), X, X2,
     state={"norm": lambda: nn.BatchNorm1d(4, momentum=None)},
     verdict=Export("DataDependentError", "depends on the data"))


def load_doubled(outputs: Any, arguments: Any, mod: Any) -> None:
    mod.load_state_dict({k: v * 2 for k, v in mod.state_dict().items()})


def freeze(outputs: Any, arguments: Any, mod: Any) -> None:
    mod.requires_grad_(False)


def widen(outputs: Any, arguments: Any, mod: Any) -> None:
    mod.lin.weight = nn.Parameter(torch.ones(8, 4))


def tied() -> nn.Module:
    mod = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    mod[1].weight = mod[0].weight
    return mod


STATE = "the shape of a parameter is read at export, and not checked at calls"
case("load_state_dict between calls", lambda self, x: self.lin(x), X, X2, between=load_doubled)
case("tied weights, loaded between calls", None, X, X2, make=tied, between=load_doubled)
case("a branch on a frozen parameter",
     lambda self, x: x * (2 if self.lin.weight.requires_grad else 3), X, X2, between=freeze,
     verdict=Refuse("self.lin.weight: requires_grad is"))
case("a parameter of another shape", lambda self, x: x / self.lin.weight.shape[0], X, X2,
     between=widen, unsound=STATE)

# -- random numbers -------------------------------------------------------------------------------


def unused_draws(self: Any, x: Any) -> Any:
    F.dropout(x, 0.5, True)
    F.rrelu(x, training=True)
    F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5)
    torch.empty(5).normal_()
    torch.multinomial(torch.ones(4), 2)
    return x * torch.rand(3, 4)


def seeded(self: Any, x: Any) -> Any:
    torch.manual_seed(0)
    return x * torch.rand(3, 4)


def forked(self: Any, x: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = torch.rand(3, 4)
    return x * y


def rewound(self: Any, x: Any) -> Any:
    old = torch.get_rng_state()
    y = torch.rand(3, 4)
    torch.set_rng_state(old)
    return x * y + torch.rand(3, 4)


case(
    "dropout", lambda self, x: self.lin(F.dropout(F.alpha_dropout(x, 0.3, True), 0.5, True)), X, X2
)
case("draws that nobody uses", unused_draws, X, X2)
case("a draw as a number", lambda self, x: x * torch.bernoulli(torch.tensor(0.5)).item(), X, X2, X3)
case("manual_seed in forward", seeded, X, X2, verdict=Export("SideEffectError", "random state"))
case("random.random", lambda self, x: x * random.random(), X, X2,
     verdict=Export("SideEffectError", "draws from or seeds random"))
case("a seeded fork", forked, X, X2, verdict=Export("SideEffectError", "random state"))
case("the generator's state set", rewound, X, X2,
     verdict=Export("SideEffectError", "random state"))
case("a generator object", lambda self, x: x * torch.rand(3, generator=torch.Generator()).sum(), X,
     verdict=Export("NotSupported", "Generator"))
case("a Random on the module", lambda self, x: x * self.rng.random(), X, X2,
     state={"rng": lambda: random.Random(0)}, verdict=Export("SideEffectError", "forward changes"))

# -- ambient modes and gradients ------------------------------------------------------------------


def half_no_grad(self: Any, x: Any) -> Any:
    with torch.no_grad():
        y = self.lin(x)
    return self.lin(x) + y


def no_autocast(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", enabled=False):
        return self.lin(x)


def with_autocast(self: Any, x: Any) -> Any:
    with autocast():
        y = self.lin(x)
    return y, self.lin(x)


class Tripled(torch.autograd.Function):
    """A gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 3


def hooked(self: Any, x: Any) -> Any:
    y = self.lin(x)
    y.register_hook(lambda g: g * 3)
    return y * 2


def backward_inside(self: Any, x: Any) -> Any:
    x = x.detach().requires_grad_()
    (x**3).sum().backward()
    return x.grad


case("a no_grad region", half_no_grad, X, XG)
case("a no_grad region, called without grad", half_no_grad, X, X2, around=torch.no_grad)
case("a no_grad region, exported without grad", half_no_grad, X, X2, around_export=torch.no_grad)
case("a branch on is_grad_enabled", lambda self, x: x * (2 if torch.is_grad_enabled() else 3), X,
     around=torch.no_grad, verdict=Refuse("torch: grad mode is False"))
case("an autocast region", with_autocast, X, X2)
case("called under autocast", lambda self, x: self.lin(x), X, around=autocast)
case("a region without autocast, called under it", no_autocast, X, around=autocast,
     verdict=Refuse("call it outside of torch.autocast"))
case("a dtype that autocast decides",
     lambda self, x: x * (2 if self.lin(x).dtype is x.dtype else 3), X, around=autocast,
     verdict=Refuse("torch: autocast is True"))
case(
    "a default dtype that is not read", lambda self, x: x * 2 + x.long(), X, around=float64_default
)
case("another default dtype", lambda self, x: (x * 2, torch.tensor(1.5)), X, around=float64_default,
     example=X, verdict=Refuse("torch: default dtype is torch.float64"))
case("inference_mode region", torch.inference_mode()(lambda self, x: self.lin(x)), X)
case("gradients", lambda self, x: F.gelu(self.lin(x)).softmax(-1) @ x.t(), XG, XG)
case("detach and data", lambda self, x: self.lin(x).detach() + self.lin(x.data), XG, XG)
case("a gradient of one's own", lambda self, x: Tripled.apply(self.lin(x)), X, X2)
case("a hook on a tensor", hooked, X, verdict=Export("NotSupported", "uses autograd"))
case("backward in forward", backward_inside, X, verdict=Export("NotSupported", "uses autograd"))
case("a constant that requires grad", lambda self, x: x * self.t[0], X,
     state={"t": lambda: [torch.ones(4, requires_grad=True)]})
case("requires_grad_ in forward", lambda self, x: x.requires_grad_() * 2, X,
     verdict=Export("NotSupported", "uses autograd"))

# -- numbers made from sizes ----------------------------------------------------------------------

NUMBERS: dict[str, Any] = {
    "n / 2": lambda n: n / 2,
    "ceil": lambda n: math.ceil(n / 2),
    "round to even": lambda n: round(n / 2),
    "n ** -0.5": lambda n: (n + 1) ** -0.5,
    "negative // and %": lambda n: (-n // 2) + (-n % 3) * 10,
    "trunc of a negative": lambda n: math.trunc((n - 4) / 3),
    "// of a float": lambda n: (n - 4) // 1.5,
}
for name, number in NUMBERS.items():
    case(f"size: {name}", lambda self, x, number=number: x * number(x.shape[0]), *SIZES,
         dims=batch())
case("a branch on a size", lambda self, x: x * (2 if x.shape[0] > 3 else 3), *SIZES, dims=batch(),
     verdict=Export("ConstraintViolationError", "sizes of b"))
case("a list indexed by a size", lambda self, x: x * [1, 2, 3, 4, 5, 6][x.shape[0]], *SIZES,
     dims=batch(), verdict=Export("ConstraintViolationError", "sizes of b"))
SYMBOLS = "a symbolic size is a SymInt: isinstance tells it from an int, unnoticed"
case("isinstance of a size", lambda self, x: x * (2 if isinstance(x.shape[0], int) else 3), *SIZES,
     dims=batch(), unsound=SYMBOLS, seen_strictly=True)
case("a size as text", lambda self, x: x * len(str(x.shape[0])), *of((5, 4), (10, 4)),
     dims=batch(), verdict=Export("ConstraintViolationError", "sizes of b"))


def parts(pieces: Any) -> Any:
    return sum(p.sum() * (i + 1) * (1 + p.shape[0]) for i, p in enumerate(pieces))


SHAPES: dict[str, Any] = {
    "x[:5] and x[-3:]": lambda x: x[:5].sum() * x[:5].shape[0] + x[-3:].sum() * x[-3:].shape[0],
    "x[n-2:] and x[1:n-1]": lambda x: parts((x[x.shape[0] - 2 :], x[1 : x.shape[0] - 1], x[:-2])),
    "x[1:-1:3]": lambda x: parts((x[1:-1:3], x[::2])),
    "reshape(-1)": lambda x: x.reshape(-1, 2) * x.reshape(-1, 2).shape[0],
    "view, then in place": lambda x: (x.view(-1).mul_(2), x + 1),
    "tensor_split": lambda x: parts(x.tensor_split(3)),
    "pad to a multiple": lambda x: F.pad(x, (0, 0, 0, -x.shape[0] % 4)).reshape(-1, 4, 4),
    "causal mask": lambda x: (x @ x.t()).masked_fill(~torch.ones(2 * x.shape[:1]).tril().bool(), 0),
    "arange, full, cumsum": lambda x: (
        x.cumsum(0) * torch.arange(x.shape[0])[:, None]
        + torch.full((x.shape[0], 1), 0.5) / (1 + x.shape[0])
    ),
    "expand and repeat": lambda x: x[:, None].expand(-1, x.shape[0], 4).repeat(2, 1, 1).sum(1),
    "mean over the batch": lambda x: (x.sum(0) / (x.shape[0] + 1), x.mean(0), x.var(0)),
    "broadcast with 1": lambda x: (x + torch.ones(1, 1)) * (x + torch.ones(1, 4)).shape[0],
    "cat and flip": lambda x: torch.cat([x, x[1:].flip(0)]) * torch.cat([x, x[1:]]).shape[0],
    "bincount": lambda x: torch.bincount(torch.arange(x.shape[0]), minlength=3),
}
for name, function in SHAPES.items():
    case(f"sizes: {name}", lambda self, x, f=function: f(x), *SIZES, dims=batch())
for name, function in (
    ("chunk", lambda x: parts(x.chunk(3))),
    ("squeeze", lambda x: x.squeeze() * x.squeeze().dim()),
    ("x[2]", lambda x: x[2]),
    ("expand(5)", lambda x: x.expand(5, 4)),
):
    case(f"narrow sizes: {name}", lambda self, x, f=function: f(x), *SIZES, dims=batch(),
         verdict=Export("ConstraintViolationError", "sizes of b"))
case("a size of a result that cannot be", lambda self, x: x * F.pad(x, (0, 0, -2, -1)).shape[0],
     *SIZES, dims=batch(), verdict=SOUND)
case("a negative length", lambda self, x: x * x.unfold(0, 3, 1).shape[0], *SIZES, dims=batch(),
     verdict=SOUND)
case("a size that becomes -1", lambda self, x: x[:, :1, None].expand(-1, 1, x.shape[0] - 3).sum(2),
     *SIZES, dims=batch(), verdict=SOUND)
case("a size -1 of expand, read", lambda self, x: x * x[:, :1].expand(-1, x.shape[0] - 3).shape[1],
     *SIZES, dims=batch(), verdict=SOUND)

IMAGES = of((1, 2, 8, 8), (1, 2, 7, 9), (2, 2, 5, 3), (1, 2, 12, 11), (0, 2, 8, 8))
WINDOWS: dict[str, Any] = {
    "conv": lambda x: F.conv2d(x, torch.ones(3, 2, 3, 3), stride=2, padding=1),
    "conv_transpose": lambda x: F.conv_transpose2d(x, torch.ones(2, 3, 3, 3), stride=2, padding=1),
    "max_pool, ceil": lambda x: F.max_pool2d(x, 2, 3, 1, ceil_mode=True),
    "avg_pool, ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "interpolate 0.7": lambda x: F.interpolate(x, scale_factor=0.7, mode="nearest-exact"),
    "interpolate 1.3": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "circular pad": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
}


def image_dims(dim: Any) -> Any:
    return ({0: dim("b", min=0), 2: dim("h", min=3, max=64), 3: dim("w", min=3, max=64)},)


for name, function in WINDOWS.items():
    case(f"windows: {name}", lambda self, x, f=function: (f(x), f(x).shape[2] * f(x).shape[3]),
         *IMAGES, dims=image_dims)

# -- numbers and sizes made from data -------------------------------------------------------------


def number(*values: Any) -> list[Any]:
    return [lambda v=v: call(x_(6, 4), torch.tensor(v)) for v in values]


def check(x: Any, n: Any) -> Any:
    torch._check(n.item() >= 1)
    return x * (2 if n.item() > 0 else 3)


ITEMS: dict[str, Any] = {
    "arithmetic": lambda x, n: x * (n.item() // 2) + (n.item() % 3) - abs(n.item()) / 2,
    "rounding": lambda x, n: x * math.floor(n.item() / 2) + round(n.item() / 2) + n.item() ** 2,
    "slices": lambda x, n: parts((x[: n.item()], x[n.item() :], x[-2:])),
    "zeros": lambda x, n: torch.zeros(n.item(), 2) + torch.ones(1, 2),
    "a check that decides": check,
    "roll, pad, tril": lambda x, n: x.roll(n.item(), 0) + x.tril(n.item()),
}
for name, function in ITEMS.items():
    case(f"item: {name}", lambda self, x, n, f=function: f(x, n), *number(3, 2, 1, 0, 5, -2, 9),
         verdict=SOUND if name == "a check that decides" else EQUAL)
case("item: a branch", lambda self, x, n: x * (2 if n.item() > 2 else 3), *number(3, 1),
     verdict=Export("DataDependentError", "depends on the data"))
case("item: a float",
     lambda self, x, n: x * round(n.item()) + math.floor(n.item()) * (n.item() % 2), *number(3.0, 0.5, 2.5, -2.5, 3.7))
case("item: text", lambda self, x, n: x * len(str(n.item())), *number(3, 10),
     verdict=Export("DataDependentError", "depends on the data"))
VECTORS = [
    lambda v=v: call(torch.tensor(v))
    for v in ([3.0, -1, 2, 0], [0.0, 0, 0, 0], [0.0, 0, 1, 0], [1.0, 2, 3, 4], [-1.0, 2, 2, 7])
]
DATA: dict[str, Any] = {
    "nonzero": lambda x: (x.nonzero(), x.nonzero().shape[0] * x, torch.where(x > 0)[0]),
    "mask": lambda x: (x[x > 0] + x[x > 0], x[x > 0].sum() / (x[x > 0].shape[0] + 1)),
    "unique": lambda x: x.unique(return_inverse=True, return_counts=True),
    "repeat_interleave": lambda x: x.repeat_interleave(x.abs().long()),
    "mask written": lambda x: (x.masked_fill_(x > 1, 0.0), torch.cat([x[x > 0], x[x <= 0]])),
    "an item as a divisor": lambda x: x / (x.max().item() + 8),
}
for name, function in DATA.items():
    case(f"data: {name}", lambda self, x, f=function: f(x), *VECTORS)
case("data: a branch on any", lambda self, x: x * 2 if (x > 0).any() else x * 3, *VECTORS,
     verdict=Export("DataDependentError", "depends on the data"))

# -- modules of torch.nn --------------------------------------------------------------------------

SEQUENCES = of((2, 5, 8), (1, 5, 8), (3, 1, 8), (1, 1, 8), (0, 5, 8))


def sequence_dims(dim: Any) -> Any:
    return ({0: dim("b", min=0), 1: dim("s", min=1)},)


for kind in (nn.LSTM, nn.GRU):
    case(f"{kind.__name__}", lambda self, x: self.rnn(x), *SEQUENCES, dims=sequence_dims,
         state={"rnn": lambda kind=kind: kind(8, 4, 2, batch_first=True, bidirectional=True)})


def attention(self: Any, x: Any, mask: Any) -> Any:
    return self.attention(x, x, x, key_padding_mask=mask)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


MASKS = [
    lambda m=m: call(x_(2, 5, 8), torch.tensor(m).bool())
    for m in ([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]])
]
for context in (contextlib.nullcontext, torch.no_grad):
    grad = "no_grad" if context is torch.no_grad else "grad"
    case(f"MultiheadAttention, {grad}", attention, *MASKS, around=context,
         state={"attention": lambda: nn.MultiheadAttention(8, 2, batch_first=True).eval()})
    case(f"TransformerEncoder with padding, {grad}",
         lambda self, x, mask: self.encoder(x, src_key_padding_mask=mask), *MASKS, around=context,
         state={"encoder": encoder})


# fmt: on
# -- the tests ------------------------------------------------------------------------------------


def with_stillframe(mod: nn.Module, args: Any, kwargs: Any, dims: Any) -> nn.Module:
    spec = None if dims is None else dims(sf.Dim)
    return sf.export(mod, args, kwargs, dynamic_shapes=spec).module()


def with_torch(mod: nn.Module, args: Any, kwargs: Any, dims: Any) -> nn.Module:
    spec = None if dims is None else dims(torch.export.Dim)
    program = torch.export.export(mod, args, kwargs, dynamic_shapes=spec, strict=False)
    return program.module()


def _marked(item: Case) -> Any:
    marks = pytest.mark.xfail(strict=True, reason=item.unsound) if item.unsound else ()
    return pytest.param(item, id=item.name, marks=marks)


@pytest.mark.parametrize("item", [_marked(c) for c in CASES])
def test_program(item: Case) -> None:
    error, outcomes = run(item, with_stillframe)
    silent = [f"call {i}: {o.kind}: {o.text}" for i, o in enumerate(outcomes) if o.silent]
    assert not silent
    verdict = item.verdict
    if isinstance(verdict, Export):
        assert type(error).__name__ == verdict.error, error
        assert verdict.text in str(error)
        return
    if isinstance(verdict, (Equal, Refuse)) and error is not None:
        raise error
    *before, last = [o.kind for o in outcomes] or ["equal"]
    if isinstance(verdict, Refuse):
        assert last in ("refused", "both raise")
        assert verdict.text in outcomes[-1].text
        last = "equal"
    if isinstance(verdict, (Equal, Refuse)):
        assert {*before, last} <= {"equal", "both raise"}, outcomes


def main() -> None:
    """Print the outcome of every case, and how many are silently wrong."""
    export = with_torch if "--torch" in sys.argv else with_stillframe
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wrong = refused = 0
    for item in CASES:
        error, outcomes = run(item, export)
        kinds = [o.kind for o in outcomes] or [f"export raises {type(error).__name__}"]
        wrong += any(o.silent for o in outcomes)
        refused += error is not None
        print(f"{item.name:55} {', '.join(kinds)}")
    print(f"{len(CASES)} programs: {wrong} silently wrong, {refused} refused at export")


if __name__ == "__main__":
    main()
