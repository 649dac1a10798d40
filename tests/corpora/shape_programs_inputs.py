"""Symbolic-shape programs: inputs in containers, keywords, defaults, and the ways to write a spec."""

from __future__ import annotations

import collections
import dataclasses
from typing import NamedTuple

import torch
from tests.corpora.shape_programs import NOT_ONE, NOT_ONE_CALL, TWO_OR_MORE, Table, call, net, x_
from torch import nn

# fmt: off
PROGRAMS = Table()
row = PROGRAMS

BATCH = (0, 1, 2, 5, 9)
OUT = {10: "x", 64: "x", (3, 5): "x"}


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Sample:
    tokens: torch.Tensor
    weights: torch.Tensor


torch.export.register_dataclass(Sample, serialized_type_name="tests.corpora.shape_programs_inputs.Sample")


def one(b, f=4):
    return call(x_(b, f))


def pair(b, c=None):
    """Two tensors of b rows."""
    return x_(b, 4), x_(b if c is None else c, 4, seed=1)


def batch(d):
    return {0: d("b", max=9)}


# -- containers -----------------------------------------------------------------------------------

row("a dict of two", lambda batch: batch["x"] * batch["y"], lambda *s: call(dict(zip("xy", pair(*s), strict=True))),
    lambda d: {"batch": {"x": batch(d), "y": batch(d)}}, 3, BATCH, {(3, 4): "batch['y']", (4, 3): "batch['y']", 10: "batch['x']"})
row("a dict, the spec leaves one static", lambda batch: batch["x"].sum(0) * batch["y"], lambda b, c=3: call(dict(zip("xy", pair(b, c), strict=True))),
    lambda d: {"batch": {"x": batch(d)}}, 3, BATCH, {(3, 4): "batch['y']", (3, 1): "batch['y']", 10: "batch['x']"}, torch="refuses UserError",
    why="an entry that is left out is static, as an argument that is left out")
row("a list of two", lambda xs: torch.cat(xs), lambda *s: call(list(pair(*s))),
    lambda d: {"xs": [{0: d("b", max=9)}, {0: d("c", max=9)}]}, (3, 4), [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)],
    {(10, 4): "xs[0]", (3, 10): "xs[1]", (11, 11): "xs[0]"})
row("a tuple of a tensor and a list", lambda xs: xs[0] + xs[1][0] * xs[1][1], lambda b, c=None: call((x_(b, 4), list(pair(b, c)))),
    lambda d: {"xs": (batch(d), [batch(d), batch(d)])}, 3, BATCH, {(3, 4): "xs[1][1]", (4, 3): "xs[1][1]", 10: "xs[0]"})
row("an OrderedDict", lambda batch: sum(batch.values()), lambda *s: call(collections.OrderedDict(zip("xy", pair(*s), strict=True))),
    lambda d: {"batch": {"x": batch(d), "y": batch(d)}}, 3, BATCH, {(3, 4): "batch['y']", (4, 3): "batch['y']", 10: "batch['x']"})
row("a NamedTuple", lambda p: Pair(p.first * p.second, p.second), lambda *s: call(Pair(*pair(*s))),
    lambda d: {"p": Pair(batch(d), batch(d))}, 3, BATCH, {(3, 4): "p.second", (4, 3): "p.second", 10: "p.first"})
row("a NamedTuple, the spec a plain tuple", lambda p: p.first * p.second, lambda *s: call(Pair(*pair(*s))),
    lambda d: {"p": (batch(d), batch(d))}, 3, BATCH, {(3, 4): "p.second", (4, 3): "p.second", 10: "p.first"}, torch="refuses UserError",
    why="a spec by position says the same as one by name")
row("a dataclass", lambda sample: sample.tokens * sample.weights, lambda *s: call(Sample(*pair(*s))),
    lambda d: {"sample": Sample(batch(d), batch(d))}, 3, BATCH, {(3, 4): "sample.weights", (4, 3): "sample.weights", 10: "sample.tokens"}, torch="refuses ValueError",
    why="a spec may mirror the input with the very class of it")
row("a dataclass, the spec a list", lambda sample: Sample(sample.tokens * 2, sample.weights), lambda *s: call(Sample(*pair(*s))),
    lambda d: {"sample": [batch(d), batch(d)]}, 3, BATCH, {(3, 4): "sample.weights", (4, 3): "sample.weights", 10: "sample.tokens"})
row("a list of pairs, as a key-value cache", lambda x, cache: [(torch.cat([k, x]), torch.cat([v, x])) for k, v in cache],
    lambda b, c, e=None: call(x_(b, 4), [(x_(c, 4), x_(c, 4)), (x_(c, 4), x_(c if e is None else e, 4))]),
    lambda d: {"x": batch(d), "cache": [({0: d("past", max=9)},) * 2] * 2}, (2, 3), [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)],
    {(10, 4): "x", (3, 10): "cache[0][0]", (1, 2, 3): "cache[1][1]"})
row("None among the inputs", lambda x, mask=None: x if mask is None else x * mask, lambda b, f=4: call(x_(b, f), None),
    lambda d: {"x": batch(d), "mask": None}, 3, BATCH, OUT)
row("a number among the inputs", lambda x, k: x * k, lambda b, f=4, k=3: call(x_(b, f), k), lambda d: {"x": batch(d), "k": None}, 3, BATCH,
    {10: "x", (3, 4, 2): "k", (3, 5): "x"})
row("a string and a flag among the inputs", lambda x, how, flag: x.sum(0) if how == "sum" and flag else x, lambda b, how="sum", flag=True: call(x_(b, 4), how, flag),
    lambda d: {"x": batch(d), "how": None, "flag": None}, 3, BATCH, {10: "x", (3, "mean"): "how", (3, "sum", False): "flag"})

# -- signatures -----------------------------------------------------------------------------------

row("keywords", lambda x, *, scale, bias: x * scale + bias, lambda b, c=None: call(x_(b, 4), scale=x_(b if c is None else c, 1), bias=x_(4)),
    lambda d: {"x": batch(d), "scale": batch(d), "bias": None}, 3, BATCH, {(3, 4): "scale", (3, 2): "scale", 10: "x"})
row("keywords in another order than the signature", lambda x, y, z: x * y - z, lambda b, c=None: call(z=x_(b if c is None else c, 4, seed=2), x=x_(b, 4), y=x_(b, 4, seed=1)),
    lambda d: {"x": batch(d), "y": batch(d), "z": batch(d)}, 3, BATCH, {(3, 4): "x", (3, 2): "x", 10: "z"})
row("*args", lambda *xs: sum(x.sum(0) for x in xs), lambda b, c, f=4: call(x_(b, f), x_(c, f)),
    lambda d: {"xs": (batch(d), {0: d("c", max=9)})}, (3, 4), [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)],
    {(10, 4): "xs[0]", (3, 10): "xs[1]", (11, 11): "xs[0]"})
row("**kwargs", lambda **kw: kw["x"] * kw["y"], lambda *s: call(**dict(zip("xy", pair(*s), strict=True))),
    lambda d: {"kw": {"x": batch(d), "y": batch(d)}}, 3, BATCH, {(3, 4): "y", (4, 3): "y", 10: "x"}, torch="refuses AssertionError",
    why="theirs fails inside; the spec mirrors the arguments")
row("**kwargs, the spec by keyword", lambda **kw: kw["x"] * kw["y"], lambda *s: call(**dict(zip("xy", pair(*s), strict=True))),
    lambda d: {"x": batch(d), "y": batch(d)}, 3, BATCH, {(3, 4): "y", (4, 3): "y", 10: "x"}, torch="refuses UserError",
    why="the caller knows keywords, not the name of the parameter that gathers them")
row("an argument, *rest and a keyword", lambda x, *rest, y=None: x + rest[0] * y, lambda b, c=None: call(x_(b, 4), x_(b, 4), y=x_(b if c is None else c, 4)),
    lambda d: {"x": batch(d), "rest": (batch(d),), "y": batch(d)}, 3, BATCH, {(3, 4): "y", (4, 3): "y", 10: "x"})
row("defaults that are left out", lambda x, scale=2.0, shift=None: x * scale if shift is None else x + shift, one, lambda d: {"x": batch(d)}, 3, BATCH, OUT)
row("a default that is a size of another", lambda x, n=None: x[: (n or x.shape[0]) - 1], one, lambda d: {"x": {0: d("b", min=1, max=9)}}, 3, (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"}, torch="refuses UserError",
    why=NOT_ONE)
row("a module with a buffer of a dim", net(lambda self, x: x[: self.table.shape[0]] + self.table[: x.shape[0]], table=lambda: nn.Buffer(torch.ones(4, 4))), one,
    lambda d: ({0: d("b", max=4)},), 3, (0, 1, 2, 3, 4), {5: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why="a slice up to the whole buffer is allowed; theirs assumes that the slice is shorter")

# -- the ways to write a spec ---------------------------------------------------------------------

row("a spec by position", lambda x, y: x * y, lambda *s: call(*pair(*s)), lambda d: (batch(d), batch(d)), 3, BATCH, {(3, 4): "y", (4, 3): "y", 10: "x"})
row("a spec as a list", lambda x, y: x * y, lambda *s: call(*pair(*s)), lambda d: [batch(d), batch(d)], 3, BATCH, {(3, 4): "y", (4, 3): "y", 10: "x"})
row("a tensor's spec as a tuple with None", lambda x: x * 2, one, lambda d: {"x": (d("b", max=9), None)}, 3, BATCH, OUT)
row("a tensor's spec as a list with an int", lambda x: x * 2, one, lambda d: {"x": [d("b", max=9), 4]}, 3, BATCH, OUT)
row("Dim.STATIC beside a dim", lambda x: x * 2, one, lambda d: {"x": {0: d("b", max=9), 1: d.STATIC}}, 3, BATCH, OUT)
row("a ShapesCollection", lambda x, more: x * more["y"], lambda b, c=None: call(x_(b, 4), {"y": x_(b if c is None else c, 4, seed=1)}),
    lambda d: d.collection([(d.args[0], batch(d)), (d.args[1]["y"], batch(d))]), 3, BATCH, {(3, 4): "more['y']", (4, 3): "more['y']", 10: "x"})
row("Dim.AUTO that stays dynamic", lambda x: x.relu(), one, lambda d: ({0: d.AUTO},), 3, BATCH, {(3, 5): "x", (3, 3): "x", (9, 8): "x"})
row("Dim.AUTO on every dim of a product", lambda x, y: x @ y.mT, lambda b, c, f=4, g=None: call(x_(b, f), x_(c, f if g is None else g)),
    lambda d: ([d.AUTO] * 2, [d.AUTO] * 2), (3, 5), [(0, 1), (1, 0), (2, 5, 3), (9, 9, 1), (3, 4)], {(3, 4, 2, 3): "x", (3, 4, 4, 5): "x", (1, 1, 7, 1): "x"})
row("Dim.AUTO on two dims that are tied", lambda x, y: x + y, lambda *s: call(*pair(*s)), lambda d: ({0: d.AUTO}, {0: d.AUTO}), 3, BATCH,
    {(3, 4): "x", (4, 3): "x", (9, 8): "x"})
row("Dim.AUTO narrowed by a branch", lambda x: x * 2 if x.shape[0] > 2 else x, one, lambda d: ({0: d.AUTO},), 3, (3, 4, 5, 9, 20), {2: "x", 0: "x", (3, 5): "x"})
row("Dim.AUTO beside a Dim that it must equal", lambda x, y: x + y, lambda *s: call(*pair(*s)), lambda d: (batch(d), {0: d.AUTO}), 3, BATCH,
    {(3, 4): "x", (4, 3): "x", 10: "x"})


def two(b, c, f=4):
    """x of (b, 4) and y of (c, 4)."""
    return call(x_(b, f), x_(c, f, seed=1))


def auto(d):
    return ({0: d.AUTO}, {0: d.AUTO})


row("Dim.AUTO: twice the other", lambda x, y: x.view(-1, 2, 4).sum(1) + y, two, auto, (6, 3), [(0, 0), (2, 1), (4, 2), (6, 3), (10, 5)], {(6, 4): "x", (5, 2): "x", (3, 3): "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("Dim.AUTO: one more than the other", lambda x, y: x[1:] + y, two, auto, (4, 3), [(1, 0), (2, 1), (3, 2), (6, 5), (9, 8)], {(4, 4): "x", (3, 4): "x", (5, 3): "x"}, torch="specialises",
    why="theirs refuses two rows beside one; the slices agree there")
row("Dim.AUTO: a product that must divide", lambda x, y: (x @ y.T).view(-1, 6), two, auto, (3, 4), [(0, 5), (1, 6), (2, 3), (6, 1), (4, 9)], {(1, 5): "x", (2, 2): "x", (5, 5): "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("Dim.AUTO: a sum that must divide", lambda x, y: torch.cat([x, y]).view(-1, 3, 4), two, auto, (4, 5), [(0, 0), (1, 2), (2, 1), (6, 3), (4, 8)], {(1, 1): "x", (2, 2): "x", (5, 5): "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("Dim.AUTO: a remainder", lambda x, y: x * 2 if x.shape[0] % 3 == 1 else x, two, auto, (4, 5), [(1, 0), (4, 2), (7, 1), (10, 3), (13, 8)], {(0, 1): "x", (2, 2): "x", (5, 5): "x"})
row("Dim.AUTO: nearly the same", lambda x, y: x * 2 if abs(x.shape[0] - y.shape[0]) < 2 else x, two, auto, (4, 3), [(0, 0), (0, 1), (5, 4), (7, 7), (8, 9)], {(0, 2): "x", (4, 2): "x", (5, 9): "x"})
row("Dim.AUTO: the larger of the two by max", lambda x, y: x * max(x.shape[0], y.shape[0]), two, auto, (4, 3), [(0, 0), (1, 0), (5, 4), (7, 7), (9, 8)], {(0, 2): "x", (4, 5): "x", (5, 9): "x"})
row("Dim.AUTO: a chain of comparisons", lambda x, y: x * 2 if 1 < x.shape[0] <= y.shape[0] + 1 else x, two, auto, (4, 3), [(2, 1), (3, 2), (5, 7), (7, 7), (9, 8)], {(1, 2): "x", (4, 2): "x", (0, 9): "x"}, torch="wrong",
    why=TWO_OR_MORE)
row("Dim.AUTO: either of two", lambda x, y: x * 2 if x.shape[0] > 5 or y.shape[0] > 2 else x, two, auto, (4, 3), [(0, 3), (1, 4), (5, 7), (4, 5), (3, 3)], {(6, 3): "x", (4, 2): "y", (9, 0): "x"})
row("Dim.AUTO: a quotient as a float", lambda x, y: x * 2 if x.shape[0] * 0.1 > 0.3 else x, two, auto, (4, 3), [(4, 3), (5, 4), (6, 7), (8, 5), (9, 0)], {(2, 3): "x", (1, 2): "x", (0, 0): "x"})
row("Dim.AUTO: a quotient of the two, which may be 0", lambda x, y: x * 2 if x.shape[0] // y.shape[0] == 1 else x, two, auto, (4, 3), [(1, 1), (3, 2), (5, 4), (7, 7), (9, 8)],
    {(4, 2): "x", (1, 2): "x", (3, 0): "y"})
row("Dim.AUTO: a loop over the difference", lambda x, y: sum((x[i] for i in range(x.shape[0] - y.shape[0])), y.sum()), two, auto, (5, 3), [(2, 0), (3, 1), (5, 3), (7, 5), (9, 7)],
    {(4, 3): "x", (1, 2): "x", (5, 2): "x"}, torch="specialises",
    why="theirs adds x.size(0) >= 4, which nothing in the program asks; the difference is 2")
row("Dim.AUTO: pieces of two", lambda x, y: x.split(2)[-1] + y.sum(), two, auto, (5, 3), [(5, 0), (6, 1), (5, 3), (6, 5), (6, 7)], {(4, 3): "x", (7, 2): "x", (1, 2): "x"}, torch="specialises",
    why="the last of three pieces has one row or two; theirs keeps the example's")
row("Dim.DYNAMIC", lambda x: x.relu(), one, lambda d: ({0: d.DYNAMIC},), 3, BATCH, {(3, 5): "x", (3, 3): "x", (9, 8): "x"})
row("Dim.DYNAMIC narrowed by a branch", lambda x: x * 2 if x.shape[0] > 2 else x, one, lambda d: ({0: d.DYNAMIC},), 3, (3, 4, 5, 9, 20), {2: "x", 0: "x", (3, 5): "x"})
row("negative dims in the spec", lambda x: x.softmax(-1), lambda b, s: call(x_(b, s)), lambda d: ({-2: d("b", max=9), -1: d("s", max=9)},), (3, 5),
    [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)], {(10, 4): "x", (3, 10): "x", (11, 11): "x"})
row("a Dim of one size only", lambda x: x * x.shape[0], lambda b, s: call(x_(b, s)), lambda d: ({0: d("b", min=3, max=3), 1: d("s", max=9)},), (3, 4),
    [(3, 0), (3, 1), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"}, torch="refuses AssertionError",
    why="theirs fails inside on a range of one size; it is a range")
row("an example that is not contiguous", lambda x: x.reshape(-1) * 2, lambda b, s: call(x_(s, b).t()), lambda d: ({0: d("b", max=9), 1: d("s", max=9)},), (3, 4),
    [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)], {(10, 4): "x", (3, 10): "x", (11, 11): "x"})
row("an example in channels-last layout", net(lambda self, x: self.conv(x).flatten(1), conv=lambda: nn.Conv2d(3, 4, 3, padding=1)),
    lambda b, h, w=6: call(x_(b, 3, h, w).contiguous(memory_format=torch.channels_last)), lambda d: ({0: d("b", max=9), 2: d("h", min=1, max=9)},), (3, 4),
    [(1, 1), (2, 9), (9, 5), (4, 4), (3, 1)], {(10, 4): "x", (3, 10): "x", (3, 4, 5): "x"})
row("integer and boolean inputs", lambda x, m: torch.where(m, x, -x).cumsum(1), lambda b, s, c=None: call(torch.arange(b * s).view(b, s), x_(b if c is None else c, s) > 0),
    lambda d: ({0: d("b", max=9), 1: d("s", max=9)}, {0: d("b", max=9), 1: d("s", max=9)}), (3, 4),
    [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)], {(10, 4): "x", (3, 4, 2): "m", (3, 10): "x"})
row("complex inputs", lambda x: torch.view_as_real(x * x.conj()).sum(-1), lambda b, s: call(torch.complex(x_(b, s), x_(b, s, seed=1))), lambda d: ({0: d("b", max=9), 1: d("s", max=9)},), (3, 4),
    [(0, 1), (1, 0), (2, 5), (9, 9), (3, 4)], {(10, 4): "x", (3, 10): "x", (11, 11): "x"})
row("float64 and half inputs", lambda x, y: x * y.float() + y.mean(), lambda b, c=None: call(x_(b, 4).double(), x_(b if c is None else c, 4).half()), lambda d: (batch(d), batch(d)), 3,
    (1, 2, 3, 5, 9), {(3, 4): "y", (4, 3): "y", 10: "x"})
row("a tensor of no dims beside a batch", lambda x, k: x * k, lambda b, f=4: call(x_(b, f), torch.tensor(2.5)), lambda d: (batch(d), None), 3, BATCH, OUT)
