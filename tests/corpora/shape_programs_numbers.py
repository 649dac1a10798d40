"""Symbolic-shape programs: sizes in arithmetic, branches and asserts on sizes, derived dims."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from tests.corpora.shape_programs import (
    NOT_ONE,
    NOT_ONE_CALL,
    TWO_OR_MORE,
    Narrowed,
    Relation,
    Specialised,
    Table,
    call,
    x_,
)

# fmt: off
PROGRAMS = Table()
row = PROGRAMS

SIZES = (0, 1, 2, 5, 8, 12)
OUT = {13: "x", 64: "x", (3, 5): "x"}


def one(n, f=4):
    """x of (n, 4)."""
    return call(x_(n, f))


def two(n, m, f=4):
    """x of (n, 4) and y of (m, 4)."""
    return call(x_(n, f), x_(m, f, seed=1))


def up_to(high, low=0):
    return lambda d: ({0: d("n", min=low, max=high)},)


# -- sizes in arithmetic --------------------------------------------------------------------------

row("scaled by n ** -0.5", lambda x: x * (x.shape[0] + 1) ** -0.5, one, up_to(12), 4, SIZES, OUT)
row("math.sqrt of a size: C wants a float", lambda x: x / math.sqrt(x.shape[0] + 1), lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", max=9)},), (5, 4),
    [(5, 0), (5, 1), (5, 4), (5, 8), (5, 9)], {(4, 4): "x", (6, 4): "x", (5, 10): "x"}, Specialised("n", "x.size(0)", 5), torch="refuses UserError")
row("math.log of a size: C wants a float", lambda x: x * math.log(x.shape[0] + 1), lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", max=9)},), (5, 4),
    [(5, 0), (5, 1), (5, 4), (5, 8), (5, 9)], {(4, 4): "x", (6, 4): "x", (5, 10): "x"}, Specialised("n", "x.size(0)", 5), torch="refuses UserError")
row("len of a tensor: Python wants an int", lambda x: x * len(x), lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", max=9)},), (5, 4),
    [(5, 0), (5, 1), (5, 4), (5, 8), (5, 9)], {(4, 4): "x", (6, 4): "x", (5, 10): "x"}, Specialised("n", "x.size(0)", 5), torch="refuses UserError")
row("int of a size: Python wants an int", lambda x: x * int(x.shape[0]), lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", max=9)},), (5, 4),
    [(5, 0), (5, 1), (5, 4), (5, 8), (5, 9)], {(4, 4): "x", (6, 4): "x", (5, 10): "x"}, Specialised("n", "x.size(0)", 5), torch="refuses UserError")
row("math.ceil(n / 2) as a size", lambda x: x.new_ones(math.ceil(x.shape[0] / 2), 4) * x.sum(), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why=NOT_ONE)
row("math.floor(n / 3) as a size", lambda x: x.new_ones(math.floor(x.shape[0] / 3), 4) * x.sum(), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why=NOT_ONE)
row("torch.sym_int(n * 0.5) as a size", lambda x: x[: torch.sym_int(x.shape[0] * 0.5)] * 2, one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why="int(n/2) lies between 0 and n at every n; theirs cannot tell and guards")
row("int(n * 0.5): Python wants an int", lambda x: x[: int(x.shape[0] * 0.5)] * 2, lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", max=9)},), (5, 4),
    [(4, 0), (5, 1), (5, 4), (4, 8), (5, 9)], {(3, 4): "x", (6, 4): "x", (5, 10): "x"}, Narrowed("n", "n = Dim('n', min=4, max=5)"), torch="refuses UserError")
row("torch.sym_int(n * 0.7) as a size", lambda x: x[: torch.sym_int(x.shape[0] * 0.7)] * 2, one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why="int(0.7*n) lies between 0 and n at every n; theirs cannot tell and guards")
row("round(n / 3) as a factor", lambda x: x * round(x.shape[0] / 3), one, up_to(12), 5, SIZES, OUT)
row("round(n / 2) ties to even, as a size", lambda x: torch.arange(round(x.shape[0] / 2)) + x.sum(), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why=NOT_ONE)
row("n // 2 * 2 drops an odd row", lambda x: x[: x.shape[0] // 2 * 2].view(-1, 2, 4).sum(1), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why=NOT_ONE)
row("max(n, 4) as a size", lambda x: F.pad(x, (0, 0, 0, torch.sym_max(x.shape[0], 4) - x.shape[0])), one, up_to(12), 6, SIZES, OUT)
row("min of two sizes", lambda x, y: x[: torch.sym_min(x.shape[0], y.shape[0])] + y[: torch.sym_min(x.shape[0], y.shape[0])], two,
    lambda d: ({0: d("n", max=12)}, {0: d("m", max=12)}), (4, 6), [(4, 6), (6, 4), (0, 3), (1, 12), (5, 5)], {(13, 2): "x", (2, 13): "y", (2, 2, 5): "x"})
row("Python's max(n, 4) decides", lambda x: x * max(x.shape[0], 4), one, up_to(12), 6, (4, 5, 6, 8, 12), {3: "x", 0: "x", 13: "x"},
    Narrowed("n >= 4", "n = Dim('n', min=4, max=12)"),
    why="theirs replaces the builtin max while exporting; ours leaves Python alone and says what max decided")
row("n % 3 as a factor", lambda x: x * (x.shape[0] % 3 + 1), one, up_to(12), 5, SIZES, OUT)
row("a negative floor division", lambda x: x * (-x.shape[0] // 2) + -x.shape[0] % 5, one, up_to(12), 5, SIZES, OUT)
row("divmod of a size", lambda x: x * (x.shape[0] // 3) - x.shape[0] % 3, one, up_to(12), 5, SIZES, OUT)
row("n * n and n ** 2", lambda x: x * x.shape[0] ** 2 - x.numel() * x.shape[0], one, up_to(12), 5, SIZES, OUT)
row("a mean by the size", lambda x: x.sum(0) / (x.shape[0] + 1) + x.numel() / 4, one, up_to(12), 5, SIZES, OUT)
row("a size shift", lambda x: x * (2 ** x.shape[0]), one, up_to(12), 5, SIZES, OUT)
row("a size as a tensor", lambda x: x * torch.tensor(x.shape[0]) + torch.tensor([x.shape[0], 1, 2, 3]), one, up_to(12), 5, SIZES, OUT)
row("torch.sym_int of a float", lambda x: x[torch.sym_int(x.shape[0] / 4) :] * 2, one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why=NOT_ONE)
row("numel, size(), ndim", lambda x: x * x.numel() + x.size(0) * x.ndim, one, up_to(12), 5, SIZES, OUT)
row("arange, full, zeros, eye, linspace-like", lambda x: (torch.arange(x.shape[0]), torch.full((x.shape[0], 2), 0.5), torch.zeros(x.shape[0] + 1), torch.eye(x.shape[0])),
    one, up_to(12), 5, SIZES, OUT)
row("arange with steps", lambda x: (torch.arange(0, x.shape[0], 3), torch.arange(x.shape[0], 2 * x.shape[0] + 1, 2)), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why="the number of steps follows a formula at every n; theirs guards on the example's")
row("arange backwards", lambda x: x.index_select(0, torch.arange(x.shape[0] - 1, -1, -1)), one, up_to(12), 5, SIZES, OUT)
row("zeros_like, new_empty, rand of a size", lambda x: torch.zeros_like(x) + x.new_zeros(x.shape) + torch.rand(x.shape), one, up_to(12), 5, SIZES, OUT)
row("outputs that are sizes", lambda x: (x.shape[0], x.numel() // 2, x.shape[0] / 4, x.sum()), one, up_to(12), 5, SIZES, OUT)
row("an output that is a comparison of sizes", lambda x: (x * 2, torch.sym_not(x.shape[0] > 3)), one, up_to(12), 5, SIZES, OUT)
row("x.shape as an output", lambda x: (x * 2, x.shape, {"rows": x.shape[0] + 1}), one, up_to(12), 5, SIZES, OUT, torch="ok")
row("a size as a factor of two dims", lambda x, y: x.shape[0] * y.sum() - y.shape[0] * x.sum(), two,
    lambda d: ({0: d("n", max=12)}, {0: d("m", max=12)}), (4, 6), [(4, 6), (6, 4), (0, 3), (1, 12), (5, 5)], {(13, 2): "x", (2, 13): "y", (2, 2, 5): "x"})
row("ceil of a quotient of two sizes", lambda x, y: x * -(-x.shape[0] // y.shape[0]), two,
    lambda d: ({0: d("n", max=12)}, {0: d("m", min=1, max=12)}), (4, 6), [(4, 6), (6, 4), (0, 3), (1, 12), (5, 5)], {(13, 2): "x", (2, 0): "y", (2, 2, 5): "x"})

row("a row in the middle: x[n // 2]", lambda x: x[x.shape[0] // 2] * 2, one, up_to(12, 1), 5, (1, 2, 5, 8, 12), {0: "x", 13: "x", (3, 5): "x"}, torch="refuses UserError",
    why="n // 2 is a row for every n from 1 on; theirs cannot tell and guards")
row("a row in the middle by select", lambda x: x.select(0, x.shape[0] // 2) * 2, one, up_to(12, 1), 5, (1, 2, 5, 8, 12), {0: "x", 13: "x", (3, 5): "x"}, torch="refuses UserError",
    why="n // 2 is a row for every n from 1 on; theirs cannot tell and guards")
row("torch.sym_ite of a size", lambda x: x * torch.sym_ite(x.shape[0] > 3, 2, 3), one, up_to(12), 5, SIZES, OUT)
row("bits of a size", lambda x: x * (x.shape[0] & 3) + (x.shape[0] << 1) - (x.shape[0] >> 1), one, up_to(12), 5, SIZES, OUT)
row("x.shape.numel(): torch wants ints", lambda x: x * x[:, 0].shape.numel(), lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=12), 1: d("s", min=1, max=9)},), (5, 4),
    [(5, 1), (5, 2), (5, 4), (5, 8), (5, 9)], {(4, 4): "x", (6, 4): "x", (5, 10): "x"}, Specialised("n", "x.size(0)", 5), torch="refuses UserError")
row("math.prod and sum of a shape", lambda x: x * math.prod(x.shape) - sum(x.shape), one, up_to(12), 5, SIZES, OUT)
row("a shape turned around", lambda x: x.reshape(x.shape[::-1]).reshape(torch.Size([x.shape[0]]) + x.shape[1:]), one, up_to(12), 5, SIZES, OUT, torch="refuses UserError",
    why="both shapes hold 4*n elements at every n; theirs guards that n is not 4")
row("a comparison of shapes that are the same", lambda x: x * 2 if x.shape == x.sin().shape else x, one, up_to(12), 5, SIZES, OUT)
row("slices by what may be negative", lambda x: (x[: x.shape[0] - 3], x[x.shape[0] - 3 :], x[-(x.shape[0] - 3) :]), one, up_to(12), 5, (*SIZES, 3, 4), OUT, torch="refuses UserError",
    why="Python's rule for negative bounds is one formula; theirs takes the example's side of it")
row("roll and tril by what may be negative", lambda x: x.roll(x.shape[0] - 3, 0) + x.tril(x.shape[0] - 3), one, up_to(12), 5, (*SIZES, 3, 4), OUT)
row("zeros of what may be negative", lambda x: torch.zeros(x.shape[0] - 3) + x.sum(), one, up_to(12), 5, (3, 4, 5, 8, 12), {2: "x", 0: "x", 13: "x"},
    Narrowed("n >= 3", "n = Dim('n', min=3, max=12)"), torch="refuses UserError")
row("2 ** what may be negative is a float then", lambda x: x * 2 ** (x.shape[0] - 3), one, up_to(12), 5, (3, 4, 5, 8, 12), {2: "x", 0: "x", 13: "x"},
    Narrowed("n >= 3", "n = Dim('n', min=3, max=12)"), torch="refuses UserError")
row("a number among the sizes", lambda x: x * 2 if 4 in x.shape[:1] else x, one, up_to(12), 5, (3, 5, 6, 9, 12), {4: "x", 13: "x", (3, 5): "x"},
    Narrowed("n != 4", "assume = [n != 4]"), torch="refuses UserError")
row("expand of a slice of one", lambda x: x[:1].expand(x.shape[0] + 2, 4), one, up_to(12), 5, (1, 2, 5, 8, 12), {0: "x", 13: "x", (3, 5): "x"},
    Narrowed("n", "n = Dim('n', min=1, max=12)"),
    why="without a row there is nothing to expand; theirs promises the whole range and raises in the operator")
row("sorted sizes", lambda x: x * sorted([x.shape[0], 8])[0], one, up_to(12), 5, (0, 1, 2, 5, 7, 8), {9: "x", 12: "x", 13: "x"}, Narrowed("n", "n = Dim('n', max=8)"), torch="refuses UserError")

# -- branches and asserts on sizes ----------------------------------------------------------------


def short_or_long(x):
    return x * 2 if x.shape[0] > 3 else x - 1


def even(x):
    if x.shape[0] % 2 == 0:
        return x.view(-1, 2, 4).sum(1)
    return x


def asserted(x):
    assert x.shape[0] >= 2, "too short"
    assert x.shape[0] <= 8, "too long"
    return x * 2


def checked(x):
    torch._check(x.shape[0] >= 2, lambda: "too short")
    torch._check(x.shape[0] % 2 == 0)
    return x * 2


def between(x):
    return x * 2 if 2 <= x.shape[0] <= 8 else x


def raises(x):
    if x.shape[0] > 8:
        raise ValueError("too long")
    return x * x.shape[0]


def loop(x):
    total = x
    for i in range(3):
        if i < x.shape[0]:
            total = total + x[i]
    return total


def doubling(x):
    n = 1
    while n < x.shape[0]:
        n *= 2
    return F.pad(x, (0, 0, 0, n - x.shape[0]))


def empty_first(x):
    if x.shape[0] == 0:
        return x.new_zeros(4)
    return x.mean(0)


row("if n > 3", short_or_long, one, up_to(12), 5, (4, 5, 6, 8, 12), {3: "x", 0: "x", 13: "x"}, Narrowed("n >= 4", "n = Dim('n', min=4, max=12)"), torch="refuses UserError")
row("if n > 4, example on the other side", lambda x: x * 2 if x.shape[0] > 4 else x, one, up_to(12), 2, (0, 1, 2, 3, 4), {5: "x", 12: "x", 13: "x"}, Narrowed("n <= 4", "n = Dim('n', max=4)"), torch="refuses UserError")
row("if n > 3, declared so that it always holds", short_or_long, one, up_to(12, 4), 5, (4, 5, 6, 8, 12), {3: "x", 0: "x", 13: "x"})
row("if n % 2 == 0", even, one, up_to(12), 6, (0, 2, 4, 6, 12), {3: "x", 5: "x", 13: "x"}, Narrowed("n % 2 == 0", "_n = Dim('_n', max=6)"), torch="refuses UserError")
row("if n % 2 == 0, of 2*d", even, one, lambda d: ({0: 2 * d("h", max=6)},), 6, (0, 2, 4, 6, 12), {3: "x", 5: "x", 14: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("if n % 2 == 0, of 2*d + 1", even, one, lambda d: ({0: 2 * d("h", max=5) + 1},), 5, (1, 3, 5, 7, 11), {2: "x", 0: "x", 13: "x"})
row("assert on a range", asserted, one, up_to(12), 5, (2, 3, 5, 7, 8), {1: "x", 9: "x", 13: "x"}, Narrowed("n >= 2", "n = Dim('n', min=2, max=8)"), torch="refuses UserError")
row("torch._check of a range and a modulus", checked, one, up_to(12), 6, (2, 4, 6, 8, 12), {1: "x", 5: "x", 14: "x"}, Narrowed("n % 2 == 0", "_n = Dim('_n', min=1, max=6)"), torch="refuses UserError")
row("2 <= n <= 8", between, one, up_to(12), 5, (2, 3, 5, 7, 8), {1: "x", 9: "x", 13: "x"}, Narrowed("n <= 8", "n = Dim('n', min=2, max=8)"), torch="refuses UserError")
row("a raise for what is too long", raises, one, up_to(12), 5, (0, 1, 2, 5, 8), {9: "x", 12: "x", 13: "x"}, Narrowed("n <= 8", "n = Dim('n', max=8)"), torch="refuses UserError")
row("a loop that asks the size each time", loop, one, up_to(12), 5, (3, 4, 5, 8, 12), {2: "x", 0: "x", 13: "x"}, Narrowed("n >= 3", "n = Dim('n', min=3, max=12)"), torch="refuses UserError")
row("the next power of two by doubling", doubling, lambda n, s: call(x_(n, s)), lambda d: ({0: d("n", max=16), 1: d("s", max=9)},), (6, 4),
    [(5, 4), (6, 0), (7, 9), (8, 4), (5, 1)], {(4, 4): "x", (9, 4): "x", (8, 10): "x"}, Narrowed("n <= 8", "n = Dim('n', min=5, max=8)"), torch="refuses UserError")
row("a branch for the empty batch", empty_first, one, up_to(12), 5, (1, 2, 5, 8, 12), {0: "x", 13: "x", (3, 5): "x"}, Narrowed("n != 0", "n = Dim('n', min=1, max=12)"), torch="wrong",
    why="theirs takes n for not 0 without a word, and its program gives nan for the empty batch where eager gives zeros")
row("a branch for the empty batch, declared away", empty_first, one, up_to(12, 1), 5, (1, 2, 5, 8, 12), {0: "x", 13: "x", (3, 5): "x"}, torch="wrong",
    why="theirs does not check the declared min=1 and gives nan for the empty batch where eager gives zeros")
row("if n > 1", lambda x: x * 2 if x.shape[0] > 1 else x, one, up_to(12), 5, (2, 3, 5, 8, 12), {1: "x", 0: "x", 13: "x"}, Narrowed("n >= 2", "n = Dim('n', min=2, max=12)"), torch="wrong",
    why=TWO_OR_MORE)
row("if n < 2", lambda x: x.sum(0) if x.shape[0] < 2 else x, one, up_to(12, 1), 5, (2, 3, 5, 8, 12), {1: "x", 0: "x", 13: "x"}, Narrowed("n >= 2", "n = Dim('n', min=2, max=12)"), torch="wrong",
    why=TWO_OR_MORE)
row("if n > 1, of Dim.AUTO", lambda x: x * 2 if x.shape[0] > 1 else x, one, lambda d: ({0: d.AUTO},), 5, (2, 3, 5, 8, 12), {1: "x", 0: "x", (3, 5): "x"}, torch="wrong",
    why=TWO_OR_MORE)
row("if n > 1, of Dim.DYNAMIC", lambda x: x * 2 if x.shape[0] > 1 else x, one, lambda d: ({0: d.DYNAMIC},), 5, (2, 3, 5, 8, 12), {1: "x", 0: "x", (3, 5): "x"}, torch="wrong",
    why=TWO_OR_MORE)
row("if n == 1, of Dim.AUTO", lambda x: x * 2 if x.shape[0] == 1 else x, one, lambda d: ({0: d.AUTO},), 5, (0, 2, 3, 5, 8, 12), {1: "x", (1, 5): "x", (3, 5): "x"}, torch="wrong",
    why=TWO_OR_MORE)
row("if n, of Dim.AUTO", lambda x: x * 2 if x.shape[0] else x + torch.ones(1, 4), one, lambda d: ({0: d.AUTO},), 5, (1, 2, 3, 5, 8, 12), {0: "x", (1, 5): "x", (3, 5): "x"})
row("a divisor max(n - 1, 1) by a branch", lambda x: x.sum(0) / (x.shape[0] - 1 if x.shape[0] > 1 else 1), one, up_to(12), 5, (2, 3, 5, 8, 12), {1: "x", 0: "x", 13: "x"},
    Narrowed("n >= 2", "n = Dim('n', min=2, max=12)"), torch="wrong",
    why=TWO_OR_MORE)
row("the last step where there is one", lambda x: x[-1] if x.shape[0] >= 1 else torch.full((4,), 7.0), one, up_to(12), 5, (1, 2, 3, 5, 12), {0: "x", 13: "x", (3, 5): "x"},
    Narrowed("n >= 1", "n = Dim('n', min=1, max=12)"), torch="narrows",
    why="theirs takes the branch for granted and raises in the operator where eager has an answer")
row("a size whose half is one", lambda x: x * 2 if x.shape[0] // 2 == 1 else x, one, up_to(12), 6, (1, 4, 5, 8, 12), {2: "x", 3: "x", 13: "x"},
    Narrowed("n//2 != 1", "assume = [n//2 != 1]"), torch="refuses UserError")
row("a shape of one row, of Dim.AUTO", lambda x: x * 2 if x.shape == (1, 4) else x, one, lambda d: ({0: d.AUTO},), 5, (0, 2, 3, 5, 8, 12), {1: "x", (1, 5): "x", (3, 5): "x"}, torch="wrong",
    why=TWO_OR_MORE)
row("a branch on a product of sizes", lambda x: x * 2 if x.numel() > 8 else x, one, up_to(12), 5, (3, 4, 5, 8, 12), {2: "x", 0: "x", 13: "x"},
    Narrowed("n >= 3", "n = Dim('n', min=3, max=12)"), torch="refuses UserError")
row("a branch on the order of two sizes", lambda x, y: x.sum(0) if x.shape[0] >= y.shape[0] else y.sum(0), two,
    lambda d: ({0: d("n", max=12)}, {0: d("m", max=12)}), (6, 4), [(6, 4), (5, 5), (3, 0), (12, 1), (9, 8)], {(4, 6): "x", (13, 2): "x", (0, 1): "x"},
    Relation("m <= n", lambda d: ({0: d("n", max=12)}, {0: d.AUTO}), "derived"), torch="narrows",
    why="the declared dims allow m > n; theirs exports all the same and refuses that at the call")
row("a list indexed by a size", lambda x: x * [1, 2, 3, 4, 5, 6][x.shape[0]], lambda n, s: call(x_(n, s)),
    lambda d: ({0: d("n", max=5), 1: d("s", max=9)},), (3, 4), [(3, 0), (3, 1), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"},
    Specialised("n", "x.size(0)", 3), torch="refuses UserError")
row("range over a size", lambda x: sum(x[i] * i for i in range(x.shape[0])), lambda n, s: call(x_(n, s)),
    lambda d: ({0: d("n", max=5), 1: d("s", max=9)},), (3, 4), [(3, 0), (3, 1), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"},
    Specialised("n", "x.size(0)", 3), torch="refuses UserError")
row("iteration over the batch", lambda x: torch.stack([r * 2 for r in x]), lambda n, s: call(x_(n, s)),
    lambda d: ({0: d("n", max=5), 1: d("s", max=9)},), (3, 4), [(3, 0), (3, 1), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"},
    Specialised("n", "x.size(0)", 3), torch="refuses UserError")
row("== of a size and a constant", lambda x: x * 2 if x.shape[0] == 3 else x, lambda n, s: call(x_(n, s)),
    lambda d: ({0: d("n", max=5), 1: d("s", max=9)},), (3, 4), [(3, 0), (3, 1), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"},
    Specialised("n", "x.size(0)", 3), torch="refuses UserError")

# -- derived dims ---------------------------------------------------------------------------------

row("2*d beside d", lambda x, y: x.view(-1, 2, 4).sum(1) + y, two, lambda d: ({0: 2 * d("h", max=6)}, {0: d("h", max=6)}), (6, 3),
    [(0, 0), (2, 1), (4, 2), (10, 5), (12, 6)], {(6, 4): "x", (5, 2): "x", (14, 7): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("2*d beside d, declared free", lambda x, y: x.view(-1, 2, 4).sum(1) + y, two, lambda d: ({0: d("n", max=12)}, {0: d("m", max=6)}), (6, 3),
    [(0, 0), (2, 1), (4, 2), (10, 5), (12, 6)], {(6, 4): "x", (8, 3): "x", (14, 7): "y"},
    Relation("m == n//2", lambda d: ({0: 2 * d("m", max=6)}, {0: d("m", max=6)}), "derived"), torch="refuses UserError")
row("every second row of 2*d", lambda x, y: x[::2] + y, two, lambda d: ({0: 2 * d("h", max=6)}, {0: d("h", max=6)}), (6, 3),
    [(0, 0), (2, 1), (4, 2), (10, 5), (12, 6)], {(6, 4): "x", (5, 2): "x", (14, 7): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("d + 1 beside d", lambda x, y: x[1:] * y, two, lambda d: ({0: d("h", max=6) + 1}, {0: d("h", max=6)}), (6, 5),
    [(1, 0), (2, 1), (3, 2), (6, 5), (7, 6)], {(6, 6): "x", (5, 2): "x", (8, 7): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("d - 1 beside d", lambda x, y: x * y[:-1], two, lambda d: ({0: d("h", min=1, max=6) - 1}, {0: d("h", min=1, max=6)}), (4, 5),
    [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6)], {(6, 6): "x", (5, 2): "x", (6, 7): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("2*d - 1: between every two", lambda x, y: x[::2] + y, two, lambda d: ({0: 2 * d("h", min=1, max=6) - 1}, {0: d("h", min=1, max=6)}), (5, 3),
    [(1, 1), (3, 2), (5, 3), (9, 5), (11, 6)], {(6, 3): "x", (5, 2): "x", (13, 7): "y"}, torch="specialises",
    why=NOT_ONE_CALL)
row("2*d - 1 declared free", lambda x, y: torch.cat([y, y[1:]]) + x, two, lambda d: ({0: d("n", min=1, max=11)}, {0: d("m", min=1, max=6)}), (5, 3),
    [(1, 1), (3, 2), (5, 3), (9, 5), (11, 6)], {(6, 3): "x", (5, 2): "x", (13, 7): "y"},
    Relation("2*m == n + 1", lambda d: ({0: 2 * d("m", min=1, max=6) - 1}, {0: d("m", min=1, max=6)}), "derived"), torch="refuses UserError")
row("only 3*d is an input", lambda x: x.view(3, -1, 4).sum(0), one, lambda d: ({0: 3 * d("h", max=4)},), 6, (0, 3, 6, 9, 12), {5: "x", 7: "x", 15: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("only 3*d + 2 is an input", lambda x: x[2:].view(3, -1, 4).sum(0) + x[:2].sum(), one, lambda d: ({0: 3 * d("h", max=4) + 2},), 8, (2, 5, 8, 11, 14), {6: "x", 0: "x", 17: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("d, 2*d and 4*d: a pyramid", lambda x, y, z: x + F.avg_pool1d(y.T, 2).T + F.avg_pool1d(z.T, 4).T,
    lambda n, m=None, k=None: call(x_(n, 4), x_(2 * n if m is None else m, 4), x_(4 * n if k is None else k, 4)),
    lambda d: ({0: d("h", min=1, max=6)}, {0: 2 * d("h", min=1, max=6)}, {0: 4 * d("h", min=1, max=6)}), 3, (1, 2, 3, 5, 6),
    {(3, 7): "y", (3, 6, 13): "z", 7: "x"}, torch="specialises",
    why=NOT_ONE_CALL)
row("cat of d and d + 1 fills 2*d + 1", lambda x, y, z: torch.cat([x, y]) * z,
    lambda n, m=None, k=None: call(x_(n, 4), x_(n + 1 if m is None else m, 4), x_(2 * n + 1 if k is None else k, 4)),
    lambda d: ({0: d("h", max=6)}, {0: d("h", max=6) + 1}, {0: 2 * d("h", max=6) + 1}), 3, (0, 1, 2, 5, 6),
    {(3, 3): "y", (3, 4, 8): "z", 7: "x"})
row("a sum of two dims is a third", lambda x, y, z: torch.cat([x, y]) * z,
    lambda n, m, k=None: call(x_(n, 4), x_(m, 4), x_(n + m if k is None else k, 4)),
    lambda d: ({0: d("n", max=6)}, {0: d("m", max=6)}, {0: d("k", max=12)}), (3, 2), [(0, 0), (1, 2), (3, 3), (6, 1), (2, 6)],
    {(3, 2, 6): "x", (2, 2, 2): "x", (7, 1): "x"},
    Relation("k == m + n", lambda d: ({0: d("n", max=6)}, {0: d("m", max=6)}, {0: d.AUTO}), "derived"),
    why="the declared dims allow any k; theirs exports all the same and refuses k != n + m at the call")
