"""Symbolic-shape programs: elementwise operators, joining, splitting, reshaping."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.corpora.shape_programs import (
    EXAMPLE_01,
    NOT_ONE,
    NOT_ONE_CALL,
    Narrowed,
    Relation,
    Specialised,
    Table,
    call,
    ints,
    x_,
)

# fmt: off
PROGRAMS = Table()
row = PROGRAMS

BATCH = (0, 1, 2, 5, 9)


def one(b, f=4):
    """x of (b, 4)."""
    return call(x_(b, f))


def two(b, c, f=4):
    """x of (b, 4) and y of (c, 4)."""
    return call(x_(b, f), x_(c, f, seed=1))


def image(b, h, w, c=3):
    return call(x_(b, c, h, w))


# -- elementwise and broadcasting -----------------------------------------------------------------

row("pointwise on a batch that may be empty", lambda x: torch.relu(x) * 2 + x.abs(), one,
    lambda d: ({0: d("b", min=0, max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("pointwise, example of size 1", lambda x: x.sigmoid() - x, one,
    lambda d: ({0: d("b", min=1, max=9)},), 1, (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"}, torch="refuses UserError",
    why=EXAMPLE_01)
row("pointwise, example of size 0", lambda x: x.sigmoid() - x, one,
    lambda d: ({0: d("b", min=0, max=9)},), 0, BATCH, {11: "x", 10: "x", (3, 5): "x"}, torch="refuses UserError",
    why=EXAMPLE_01)
row("pointwise, example at its maximum", lambda x: x.exp(), one,
    lambda d: ({0: d("b", min=2, max=9)},), 9, (2, 3, 4, 5, 9), {1: "x", 10: "x", 0: "x"})
row("one dim of two inputs", lambda x, y: x * y + y, lambda b, c=None: two(b, b if c is None else c),
    lambda d: ({0: d("b", max=9)}, {0: d("b", max=9)}), 3, BATCH, {(3, 4): "y", (3, 1): "y", 10: "x"})
row("two dims that must be equal", lambda x, y: x + y, two,
    lambda d: ({0: d("b", max=9)}, {0: d("c", max=9)}), (3, 3), [(b, b) for b in BATCH],
    {(3, 4): "y", (4, 3): "y", (3, 1): "y"},
    Relation("b == c", lambda d: ({0: d("b", max=9)}, {0: d("b", max=9)})), torch="refuses UserError")
row("two dims, broadcast apart", lambda x, y: x[:, None] * y[None], two,
    lambda d: ({0: d("b", max=9)}, {0: d("c", max=9)}), (3, 5),
    [(1, 1), (0, 2), (2, 0), (9, 4), (1, 7)], {(3, 10): "y", (10, 3): "x", (2, 2, 3): "x"})
row("a dim beside a static 1", lambda x, y: x + y, lambda b, c=1: two(b, c),
    lambda d: ({0: d("b", max=9)}, None), 3, BATCH, {(3, 2): "y", (3, 3): "y", 10: "x"})
row("a dim beside a static 4", lambda x, y: x + y, lambda b, s, c=4: call(x_(s, b), x_(c)),
    lambda d: ({0: d("s", max=9), 1: d("b", max=9)}, None), (4, 2), [(4, s) for s in BATCH],
    {(3, 2): "x", (1, 2): "x", (4, 10): "x"}, Specialised("b", "x.size(1)", 4), torch="refuses UserError")
row("broadcast_tensors of three", lambda x, y, z: torch.broadcast_tensors(x, y, z)[0] + z,
    lambda b, s: call(x_(b, 1), x_(1, s), x_(1)),
    lambda d: ({0: d("b", max=9)}, {1: d("s", max=9)}, None), (3, 5),
    [(1, 1), (0, 3), (2, 0), (5, 9), (9, 1)], {(10, 1): "x", (1, 10): "y", (10, 10): "x"})
row("where and clamp", lambda x, y: torch.where(x > y, x, y).clamp(-1, 1),
    lambda b, s: call(x_(b, s), x_(s, seed=2)),
    lambda d: ({0: d("b", max=9), 1: d("s", max=9)}, {0: d("s", max=9)}), (3, 5),
    [(1, 1), (0, 3), (2, 0), (5, 9), (9, 1)], {(10, 1): "x", (1, 10): "x", (11, 10): "x"})
row("masked_fill by a mask of another rank", lambda x, m: x.masked_fill(m[:, None] > 0, 0.0),
    lambda b, s, c=None: call(x_(b, s), ints(b if c is None else c, below=2)),
    lambda d: ({0: d("b", max=9), 1: d("s", max=9)}, {0: d("b", max=9)}), (3, 5),
    [(1, 1), (0, 3), (2, 0), (5, 9), (9, 1)], {(10, 1): "x", (1, 10): "x", (3, 5, 4): "m"})
row("in place on the input", lambda x: x.mul_(2).add_(1), one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("in place on a slice of the input", lambda x: x[1:].mul_(2).sum() + x, one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why=NOT_ONE)
row("reductions over the dynamic dim", lambda x: (x.sum(0), x.mean(0), x.softmax(0).argmax(1)), one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("max over a dynamic dim; of no rows raises in both", lambda x: x.max(0).values - x.amin(0), one,
    lambda d: ({0: d("b", max=9)},), 3, (1, 2, 3, 5, 9), {64: "x", 10: "x", (3, 5): "x"})
row("cumsum, flip, sort", lambda x: x.cumsum(0).flip(0).sort(0).values, one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("topk of a constant", lambda x: x.topk(3, dim=0).values, one,
    lambda d: ({0: d("b", max=9)},), 5, (3, 4, 5, 8, 9), {2: "x", 0: "x", 10: "x"},
    Narrowed("b >= 3", "b = Dim('b', min=3, max=9)"), torch="refuses UserError")
row("var and normalisation by hand", lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
    lambda b, s: call(x_(b, s)), lambda d: ({0: d("b", max=9), 1: d("s", min=2, max=9)},), (3, 5),
    [(1, 2), (0, 3), (2, 9), (5, 9), (9, 4)], {(10, 2): "x", (1, 10): "x", (3, 1): "x"})
row("squeeze of a dim that may be 1", lambda x: x.squeeze(0), one,
    lambda d: ({0: d("b", min=1, max=9)},), 3, (2, 3, 4, 5, 9), {1: "x", 10: "x", (3, 5): "x"},
    Narrowed("b", "b = Dim('b', min=2, max=9)"),
    why="the rank of the result depends on b == 1; their graph claims one rank for both")
row("squeeze of a dim that may be 0 and 1", lambda x: x.squeeze(0), one,
    lambda d: ({0: d("b", max=9)},), 3, (0, 2, 3, 4, 5, 9), {1: "x", 10: "x", (3, 5): "x"},
    Narrowed("b != 1", "assume = [b != 1]"),
    why="the rank of the result depends on b == 1; their graph claims one rank for both")

for form, forward in (
    ("broadcast", lambda x: x + torch.ones(x.shape[0] + 1, 1)),
    ("expanded", lambda x: x.expand(x.shape[0] + 1, -1) * 2),
    ("copied", lambda x: torch.ones(x.shape[0] + 1, x.shape[1]).copy_(x)),
):
    row(f"one row {form} to one more: only one row can be", forward, lambda b, s: call(x_(b, s)),
        lambda d: ({0: d("b", max=9), 1: d("s", max=9)},), (1, 4), [(1, 0), (1, 1), (1, 4), (1, 8), (1, 9)],
        {(2, 4): "x", (0, 4): "x", (1, 10): "x"}, Specialised("b", "x.size(0)", 1), torch="refuses UserError")

# -- cat, stack, split ----------------------------------------------------------------------------

row("cat of two lengths", lambda x, y: torch.cat([x, y]).relu(), two,
    lambda d: ({0: d("b", max=9)}, {0: d("c", max=9)}), (3, 5),
    [(1, 1), (0, 2), (2, 0), (9, 4), (0, 0)], {(3, 10): "y", (10, 3): "x", (2, 2, 3): "x"})
row("cat along another dim ties two dims", lambda x, y: torch.cat([x, y], 1), two,
    lambda d: ({0: d("b", max=9)}, {0: d("c", max=9)}), (3, 3), [(b, b) for b in BATCH],
    {(3, 4): "y", (4, 3): "y", (3, 1): "y"},
    Relation("b == c", lambda d: ({0: d("b", max=9)}, {0: d("b", max=9)})), torch="refuses UserError")
row("cat with itself and a constant", lambda x: torch.cat([x, x[:1], torch.zeros(2, 4)]), one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("stack", lambda x, y: torch.stack([x, y, x + y], 1).sum(1), lambda b, c=None: two(b, b if c is None else c),
    lambda d: ({0: d("b", max=9)}, {0: d("b", max=9)}), 3, BATCH, {(3, 4): "y", (3, 1): "y", 10: "x"})
row("split at a constant", lambda x: [p.sum() for p in x.split([2, x.shape[0] - 2])], one,
    lambda d: ({0: d("b", min=2, max=9)},), 4, (2, 3, 4, 5, 9), {1: "x", 0: "x", 10: "x"}, torch="refuses AssertionError",
    why="theirs fails inside on a comparison of b with 5/2; b - 2 is a size for the whole declared range")
row("split at a constant; of a dim too small raises in both", lambda x: [p * 2 for p in x.split([2, x.shape[0] - 2])],
    one, lambda d: ({0: d("b", max=9)},), 4, (2, 3, 4, 5, 9), {64: "x", 10: "x", (3, 5): "x"}, torch="refuses AssertionError",
    why="theirs fails inside on a comparison of b with 5/2; where b - 2 is negative eager raises too")
row("split into pieces of two: their number is fixed", lambda x: torch.stack([p.sum() for p in x.split(2)]), lambda b, s: call(x_(b, s)),
    lambda d: ({0: d("b", min=1, max=9), 1: d("s", max=9)}, ), (6, 4), [(5, 1), (6, 4), (5, 0), (6, 9), (6, 1)],
    {(4, 4): "x", (7, 4): "x", (6, 10): "x"}, Narrowed("b", "b = Dim('b', min=5, max=6)"), torch="refuses UserError")
row("split by the whole size", lambda x: x.split(x.shape[0])[0] * 2, one, lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why="there is one piece at every size; theirs divides by the size to count the pieces")
row("split by the whole size, example of size 0", lambda x: x.split(x.shape[0])[0] * 2, one, lambda d: ({0: d("b", max=9)},), 0, BATCH, {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why=EXAMPLE_01)
row("chunk in one", lambda x: x.chunk(1)[0] * 2, one, lambda d: ({0: d("b", max=9)},), 0, BATCH, {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why=EXAMPLE_01)
row("chunk of a doubled size", lambda x: torch.mul(*x.chunk(2)), lambda b, f=4: call(x_(b, f)),
    lambda d: ({0: 2 * d("b", min=1, max=9)},), 6, (2, 4, 6, 10, 18), {3: "x", 0: "x", 20: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("chunk in two of any size", lambda x: torch.mul(*x.chunk(2)), lambda b, f=4: call(x_(b, f)),
    lambda d: ({0: d("b", min=1, max=18)},), 6, (2, 4, 6, 10, 18), {3: "x", 1: "x", 20: "x"},
    Narrowed("b % 2 == 0", "_b = Dim('_b', min=1, max=9)"), torch="refuses UserError")
row("unbind beside dynamic dims", lambda x: sum(p * (i + 1) for i, p in enumerate(x.unbind(2))),
    lambda b, s, f=4: call(x_(b, s, f)), lambda d: ({0: d("b", max=9), 1: d("s", max=9)},), (3, 5),
    [(1, 1), (0, 3), (2, 0), (5, 9), (9, 1)], {(10, 1): "x", (1, 10): "x", (3, 5, 3): "x"})
row("unbind of the dynamic dim", lambda x: sum(p * (i + 1) for i, p in enumerate(x.unbind(1))),
    lambda b, s, f=4: call(x_(b, s, f)), lambda d: ({0: d("b", max=9), 1: d("s", max=9)},), (3, 5),
    [(b, 5) for b in BATCH], {(3, 4): "x", (3, 6): "x", (10, 5): "x"}, Specialised("s", "x.size(1)", 5), torch="refuses UserError")
row("narrow from the end", lambda x: x.narrow(0, x.shape[0] - 2, 2), one,
    lambda d: ({0: d("b", min=2, max=9)},), 4, (2, 3, 4, 5, 9), {1: "x", 0: "x", 10: "x"})
row("slices from both ends", lambda x: (x[:3], x[-3:], x[1:-1], x[::2], x[4:]), one,
    lambda d: ({0: d("b", max=9)},), 5, (*BATCH, 3, 4), {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why="slices clamp at every size; theirs makes the example's clamping the only one")
row("an index from the end", lambda x: x[-1] + x[0], one,
    lambda d: ({0: d("b", max=9)},), 5, (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"},
    Narrowed("b >= 1", "b = Dim('b', min=1, max=9)"),
    why="x[-1] exists from one row on; theirs promises the whole range and raises in the operator")
row("an index needs four", lambda x: x[3] * 2, one,
    lambda d: ({0: d("b", max=9)},), 5, (4, 5, 6, 8, 9), {3: "x", 0: "x", 10: "x"},
    Narrowed("b >= 4", "b = Dim('b', min=4, max=9)"), torch="refuses UserError")
row("shifted differences: n and n - 1", lambda x: x[1:] - x[:-1], one,
    lambda d: ({0: d("b", min=1, max=9)},), 5, (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"}, torch="refuses UserError",
    why=NOT_ONE)
row("teacher forcing: y is one shorter", lambda x, y: x[:-1] * y, two,
    lambda d: ({0: d("s", min=1, max=9) + 1}, {0: d("s", min=1, max=9)}), (4, 3),
    [(2, 1), (3, 2), (6, 5), (9, 8), (10, 9)], {(4, 4): "x", (1, 0): "y", (11, 10): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("teacher forcing with two free dims", lambda x, y: x[:-1] * y, two,
    lambda d: ({0: d("t", min=1, max=10)}, {0: d("s", min=0, max=9)}), (4, 3),
    [(1, 0), (2, 1), (6, 5), (9, 8), (10, 9)], {(4, 4): "x", (4, 2): "x", (12, 11): "x"},
    Relation("s == t - 1", lambda d: ({0: d("s", max=9) + 1}, {0: d("s", max=9)}), "derived"), torch="refuses UserError")
row("tensor_split into three", lambda x: [p.sum(0) for p in x.tensor_split(3)], one,
    lambda d: ({0: d("b", max=9)},), 5, BATCH, {10: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why="the pieces have sizes for every b; theirs turns the example's remainder into guards")

# -- reshape, view, permute -----------------------------------------------------------------------

THREE = [(1, 1), (0, 3), (2, 0), (5, 9), (9, 1)]


def three(b, s, f=4):
    """x of (b, s, 4)."""
    return call(x_(b, s, f))


def bs(d):
    return ({0: d("b", max=9), 1: d("s", max=9)},)


OUT3 = {(10, 1): "x", (1, 10): "x", (3, 5, 3): "x"}

row("view as heads", lambda x: x.view(x.shape[0], x.shape[1], 2, 2).transpose(1, 2), three, bs, (3, 5), THREE, OUT3)
row("flatten two dims and back", lambda x: (x.flatten(0, 1) * 2).unflatten(0, x.shape[:2]), three, bs, (3, 5), THREE, OUT3)
row("reshape(-1) of a product", lambda x: x.reshape(-1) * x.reshape(-1, 4).shape[0], three, bs, (3, 5), THREE, OUT3)
row("view of a transposed product", lambda x: x.transpose(0, 1).reshape(-1, 4).sum(1), three, bs, (3, 5), THREE, OUT3)
row("permute and contiguous", lambda x: x.permute(2, 0, 1).contiguous().view(4, -1), three, bs, (3, 5), THREE, OUT3)
row("view of b*s as s*b", lambda x: x.reshape(x.shape[1], x.shape[0], 4) + 1, three, bs, (3, 5), THREE, OUT3, torch="specialises",
    why="both shapes hold b*s*4 elements at every size; theirs keeps how the example's sizes divide")
row("expand to the size of another", lambda x, y: x[:, None].expand(-1, y.shape[0], -1) * y, two,
    lambda d: ({0: d("b", max=9)}, {0: d("c", max=9)}), (3, 5),
    [(1, 1), (0, 2), (2, 0), (9, 4), (1, 7)], {(3, 10): "y", (10, 3): "x", (2, 2, 3): "x"})
row("repeat by a size", lambda x: x.repeat(x.shape[0], 2), lambda b, f=4: call(x_(b, f)),
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("view in quarters", lambda x: x.view(x.shape[0] // 4, 4).sum(1), lambda n: call(x_(n)),
    lambda d: ({0: d("n", min=4, max=40)},), 8, (4, 8, 12, 20, 40), {6: "x", 7: "x", 44: "x"},
    Narrowed("n % 4 == 0", "_n = Dim('_n', min=1, max=10)"),
    torch="refuses UserError")
row("view in quarters of 4*n", lambda x: x.view(x.shape[0] // 4, 4).sum(1), lambda n: call(x_(n)),
    lambda d: ({0: 4 * d("n", min=1, max=10)},), 8, (4, 8, 12, 20, 40), {6: "x", 7: "x", 44: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("view with -1 in rows of six", lambda x: x.view(-1, 6), lambda n: call(x_(n)),
    lambda d: ({0: d("n", max=60)},), 12, (0, 6, 12, 30, 60), {8: "x", 7: "x", 66: "x"},
    Narrowed("n % 6 == 0", "_n = Dim('_n', max=10)"), torch="refuses UserError")
row("two divisibilities of one dim", lambda x: (x.view(-1, 4), x.view(6, -1)), lambda n: call(x_(n)),
    lambda d: ({0: d("n", max=60)},), 12, (0, 24, 12, 36, 60), {8: "x", 6: "x", 72: "x"},
    Narrowed("n % 4 == 0", "_n = Dim('_n', max=5)"), torch="refuses UserError")
row("a product that must divide", lambda x: x.view(-1, 6), lambda b, f=3: call(x_(b, f)),
    lambda d: ({0: d("b", max=10)},), 4, (0, 2, 4, 6, 10), {3: "x", 1: "x", 12: "x"},
    Narrowed("b % 2 == 0", "_b = Dim('_b', max=5)"), torch="refuses UserError")
row("movedim and einops-like patches",
    lambda x: x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
    lambda b, h, w, c=3: image(b, h, w, c),
    lambda d: ({0: d("b", max=4), 2: 2 * d("h", min=1, max=8), 3: 2 * d("w", min=1, max=8)},), (2, 4, 6),
    [(1, 2, 2), (0, 4, 4), (3, 16, 2), (4, 2, 16), (2, 6, 4)], {(1, 3, 2): "x", (1, 4, 18): "x", (5, 2, 2): "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("diagonal and tril", lambda x: (torch.diagonal(x), x.tril(), x.triu(1)), lambda b, s: call(x_(b, s)), bs,
    (3, 5), [*THREE, (4, 4)], {(10, 1): "x", (1, 10): "x", (12, 12): "x"})
row("a square by one dim", lambda x: torch.diagonal(x) @ x, lambda s, t=None: call(x_(s, s if t is None else t)),
    lambda d: ({0: d("s", max=9), 1: d("s", max=9)},), 3, BATCH, {(3, 4): "x", (4, 3): "x", 10: "x"})
row("windows of two by view, padded",
    lambda x: [y := F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2)), y.view(y.shape[0] // 2, 2, y.shape[1] // 2, 2, 4).transpose(1, 2).reshape(-1, 4, 4)][1],
    three, bs, (3, 5), THREE, OUT3, torch="refuses UserError",
    why="an even number of rows can be viewed in pairs; theirs refuses the range (so does ours, as yet)")
row("roll and flip by a size", lambda x: x.roll(x.shape[0] // 2, 0).flip(1), one,
    lambda d: ({0: d("b", max=9)},), 3, BATCH, {10: "x", 64: "x", (3, 5): "x"})
row("pad to a multiple of eight", lambda x: F.pad(x, (0, 0, 0, -x.shape[0] % 8)).view(-1, 8, 4), one,
    lambda d: ({0: d("b", max=20)},), 5, (0, 1, 7, 8, 9, 16, 20), {21: "x", 64: "x", (3, 5): "x"}, torch="refuses UserError",
    why="b + -b % 8 is always a multiple of 8; theirs cannot prove it")
row("unsqueeze, expand, reshape", lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1).reshape(x.shape[0], -1, 4),
    three, bs, (3, 5), [(1, 1), (2, 3), (4, 4), (9, 1), (5, 9)], OUT3)
row("sliding windows by unfold", lambda x: x.unfold(1, 3, 1).mean(-1), lambda b, s: call(x_(b, s)),
    lambda d: ({0: d("b", max=9), 1: d("s", min=3, max=12)},), (3, 5),
    [(1, 3), (0, 3), (2, 4), (5, 9), (9, 12)], {(10, 3): "x", (1, 2): "x", (3, 13): "x"}, torch="refuses UserError",
    why=NOT_ONE)
row("sliding windows, stride two; of too short a time raises in both", lambda x: x.unfold(1, 3, 2).mean(-1), lambda b, s: call(x_(b, s)),
    lambda d: ({0: d("b", max=9), 1: d("s", max=12)},), (3, 5),
    [(1, 3), (0, 3), (2, 4), (5, 9), (9, 12), (1, 2)], {(10, 3): "x", (1, 64): "x", (3, 13): "x"}, torch="refuses UserError",
    why=NOT_ONE)
