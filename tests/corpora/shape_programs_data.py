"""Symbolic-shape programs: sizes and numbers that only the data can tell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.corpora.shape_programs import DataDependent, Specialised, Table, call, function, x_

# fmt: off
PROGRAMS = Table()
row = PROGRAMS

BATCH = (0, 1, 2, 5, 9)
OUT = {10: "x", 64: "x", (3, 5): "x"}
NUMBERS = [(6, 3), (6, 0), (5, 5), (9, 1), (3, 2), (6, 6)]
OUT_NUMBERS = {(10, 3): "x", (12, 3): "x", (6, 3, 5): "x"}
TWO = [(6, 3, 2), (6, 0, 4), (5, 5, 0), (9, 1, 8), (3, 2, 1)]
OUT_TWO = {(10, 3, 2): "x", (12, 3, 2): "x", (6, 3, 2, 5): "x"}


def one(b, f=4):
    """x of (b, 4)."""
    return call(x_(b, f))


def number(b, n, f=4):
    """x of (b, 4) and the number n."""
    return call(x_(b, f), torch.tensor(n))


def numbers(b, n, m, f=4):
    """x of (b, 4) and the numbers n and m in one tensor."""
    return call(x_(b, f), torch.tensor([n, m]))


def batch(d):
    return ({0: d("b", max=9)},)


def batch_and_number(d):
    return ({0: d("b", max=9)}, None)


# -- item and tolist ------------------------------------------------------------------------------

row("item as a factor", lambda x, n: x * n.item() + n.item() // 2, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("item in a floor division and a remainder", lambda x, n: x * (n.item() // 2) - n.item() % 3, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("a float item as a factor", lambda x, n: x * n.item() + x.max(dim=1).values.sum().item(), lambda b, n, f=4: call(x_(b, f), torch.tensor(float(n))), batch_and_number,
    (6, 3), NUMBERS, OUT_NUMBERS)
row("a slice up to an item", lambda x, n: x[: n.item()] * 2, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("a slice from an item", lambda x, n: x[n.item() :].sum(0), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)


def zeros(x, n):
    u = n.item()
    torch._check(u >= 0)
    return torch.zeros(u, 4) + x.sum(0)


def narrowed(x, n):
    u = n.item()
    torch._check(u >= 0)
    torch._check(u <= x.shape[0])
    return x.narrow(0, 0, u) * 2


def is_size(x, n):
    u = n.item()
    torch._check_is_size(u)
    torch._check(u <= 9)
    return x.new_ones(u, 3), torch.arange(u)


def expanded(x, n):
    u = n.item()
    torch._check(u >= 0)
    return x[:, None].expand(-1, u, -1).sum(0)


def rolled(x, n):
    return x.roll(n.item(), 0) + x.tril(n.item())


row("zeros of an item that is checked", zeros, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("zeros of an item, unchecked: a negative one raises in both", lambda x, n: torch.zeros(n.item(), 4) + x.sum(0), number, batch_and_number, (6, 3), [*NUMBERS, (6, -1)], OUT_NUMBERS)
row("narrow to an item within the size", narrowed, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("_check_is_size and an upper end", is_size, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("expand to an item", expanded, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("roll and tril by an item", rolled, number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)


def viewed(x, n):
    u = n.item()
    torch._check(u > 0)
    torch._check(x.shape[0] % u == 0)
    return x.view(u, -1, 4).sum(0)


def reshaped(x, n):
    u = n.item()
    torch._check(u >= 0)
    return torch.ones(u, 6).view(u * 2, 3) + x.sum(), torch.ones(u, 6).view(u, 2, 3).permute(1, 0, 2).reshape(2, -1)


def two_sizes(x, n):
    u, v = n.tolist()
    torch._check(u >= 0)
    torch._check(v >= 0)
    return torch.cat([torch.ones(u, 4), torch.zeros(v, 4)]) * x.sum(), torch.ones(u, v)


def split_in_two(x, n):
    u, v = n.tolist()
    torch._check(u >= 0)
    torch._check(v >= 0)
    torch._check(u + v == x.shape[0])
    first, second = x.split([u, v])
    return first.sum(0) - second.mean(0)


def equal_sizes(x, n):
    u, v = n.tolist()
    torch._check(u >= 0)
    torch._check(u == v)
    return torch.ones(u, 4) + torch.zeros(v, 4) + x.sum(0)


def ordered(x, n):
    u, v = n.tolist()
    torch._check(u >= 0)
    torch._check(v >= u)
    return torch.ones(v, 4).narrow(0, 0, u) * x.sum(0)


def branch_decided(x, n):
    u = n.item()
    torch._check(u >= 2)
    return x * 2 if u > 1 else x - 1


def interpolated(x, n):
    u = n.item()
    torch._check(u >= 1)
    return F.interpolate(x[None], size=u, mode="linear")


ALIGNED = [(6, 4, 2), (6, 0, 6), (5, 5, 0), (9, 1, 8), (3, 2, 1)]
row("view in as many rows as an item", viewed, number, batch_and_number, (6, 3), [(6, 3), (6, 1), (6, 6), (9, 3), (4, 2), (6, 4)], OUT_NUMBERS)
row("views of an unbacked size", reshaped, number, batch_and_number, (6, 3), NUMBERS[:1] + NUMBERS[2:], OUT_NUMBERS)
row("cat of two unbacked sizes", two_sizes, numbers, batch_and_number, (6, 3, 2), TWO, OUT_TWO)
row("split in unbacked sizes", split_in_two, numbers, batch_and_number, (6, 4, 2), ALIGNED, {(10, 4, 6): "x", (12, 4, 8): "x", (6, 4, 2, 5): "x"})
row("two unbacked sizes that are checked equal", equal_sizes, numbers, batch_and_number, (6, 3, 3), [(6, 3, 3), (6, 0, 0), (5, 5, 5), (9, 1, 1), (3, 2, 2), (3, 2, 1)],
    {(10, 3, 3): "x", (12, 3, 3): "x", (6, 3, 3, 5): "x"})
row("two unbacked sizes in order", ordered, numbers, batch_and_number, (6, 3, 4), [(6, 3, 4), (6, 0, 0), (5, 5, 8), (9, 1, 1), (3, 2, 2), (3, 2, 1)],
    {(10, 3, 3): "x", (12, 3, 3): "x", (6, 3, 3, 5): "x"})
row("a branch that a check decides", branch_decided, number, batch_and_number, (6, 3), [(6, 3), (6, 2), (5, 5), (9, 7), (3, 4), (3, 1), (2, 0)], OUT_NUMBERS)
row("tolist of a length that is known", lambda x, n: sum(x.sum() * v for v in n.tolist()), numbers, batch_and_number, (6, 3, 2), TWO, OUT_TWO)
row("a check between data and a size", lambda x, n: (torch._check(n.max().item() < x.shape[0]), x[n])[1], numbers, batch_and_number, (6, 3, 2), [(6, 3, 2), (6, 0, 4), (6, 5, 0), (9, 1, 8), (3, 2, 1), (3, 3, 0)], OUT_TWO)

# -- sizes that operators find in the data --------------------------------------------------------

row("nonzero", lambda x: x.nonzero(), one, batch, 3, BATCH, OUT)
row("nonzero as a tuple, and its size", lambda x: (x.nonzero(as_tuple=True)[0] + 1, x.nonzero().shape[0] * x), one, batch, 3, BATCH, OUT)
row("a boolean mask", lambda x: x[x > 0] * 2 + 1, one, batch, 3, BATCH, OUT)
row("a boolean mask of rows", lambda x: x[x.sum(1) > 0].relu() @ x.T, one, batch, 3, BATCH, OUT)
row("two masks, joined", lambda x: torch.cat([x[x > 0], x[x <= 0], x[x > 9]]), one, batch, 3, BATCH, OUT)
row("one mask of two tensors", lambda x: x[x > 0] + (x * 2)[x > 0], one, batch, 3, BATCH, OUT)
row("writing through a mask", lambda x: x.masked_scatter(x > 0, x[x > 0].flip(0)), one, batch, 3, BATCH, OUT)
row("assignment to a mask", lambda x: x.clone().index_put_((x > 0,), torch.tensor(0.0)), one, batch, 3, BATCH, OUT)
row("masked_select and a mean", lambda x: x.masked_select(x > 0).sum() / (x > 0).sum().clamp(min=1), one, batch, 3, BATCH, OUT)
row("unique with its inverse", lambda x: torch.unique((x * 2).long(), return_inverse=True), one, batch, 3, BATCH, OUT)
row("unique, then an embedding of what was found", lambda x: F.embedding(torch.unique(x.long().abs()), torch.ones(20, 4)).sum(0), one, batch, 3, BATCH, OUT)
row("repeat_interleave by data", lambda x: x.repeat_interleave(x[:, 0].abs().long(), 0), one, batch, 3, BATCH, OUT)
row("bincount", lambda x: torch.bincount(x.flatten().abs().long(), minlength=3).sum(), one, batch, 3, BATCH, OUT)
row("a mask, a linear map, and back", lambda x: torch.zeros_like(x).masked_scatter(x > 0, (x[x > 0][:, None] @ torch.ones(1, 1)).flatten()), one, batch, 3, BATCH, OUT)
row("argwhere and gather", lambda x: x[torch.argwhere(x[:, 0] > 0)[:, 0]].sum(0), one, batch, 3, BATCH, OUT)
row("the size of a mask as an output", lambda x: (x[x > 0].shape[0], x[x > 0].numel() + x.shape[0]), one, batch, 3, BATCH, OUT)

row("rows of a mask through attention", lambda x: F.scaled_dot_product_attention(x[x[:, 0] > 0][None], x[None], x[None]), one, lambda d: ({0: d("b", min=1, max=9)},), 3,
    (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"})
row("rows of a mask, sorted, cumulated, stacked", lambda x: torch.stack([x[x[:, 0] > 0].sort(0).values, x[x[:, 0] > 0].cumsum(0)], 1).flatten(1), one, batch, 3, BATCH, OUT)
row("rows of a mask, padded to the batch", lambda x: F.pad(x[x[:, 0] > 0], (0, 0, 0, x.shape[0] - x[x[:, 0] > 0].shape[0])) + x, one, batch, 3, BATCH, OUT)
row("rows of a mask through a convolution", lambda x: F.conv1d(x[x[:, 0] > 0].T[None], torch.ones(2, 4, 3), padding=1), one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 8, 9), {0: "x", 10: "x", (3, 5): "x"})
row("the picks of a mask in pairs: an odd number raises in both", lambda x: torch.cat([x[x > 0], x[x > 0]]).view(-1, 2).sum(0), one, batch, 3, BATCH, OUT)
row("a mask's share of the batch", lambda x: x * (x[x > 0].shape[0] / (x.numel() + 1)) + (x > 0).float().mean(), one, batch, 3, BATCH, OUT)
row("ragged pieces by tolist, padded", lambda x, n: torch.nn.utils.rnn.pad_sequence([x[: n.tolist()[0]], x[n.tolist()[0] :]]), numbers, batch_and_number, (6, 3, 2), TWO, OUT_TWO)
row("pad by an item", lambda x, n: F.pad(x, (0, 0, n.item(), 1)), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("arange between two items", lambda x, n: torch.arange(n.tolist()[0], n.tolist()[0] + 3) * x.sum(), numbers, batch_and_number, (6, 3, 2), TWO, OUT_TWO)
row("a slice between two items", lambda x, n: x[n.tolist()[1] : n.tolist()[0]].sum(0), numbers, batch_and_number, (6, 3, 2), TWO, OUT_TWO)
row("topk of an item", lambda x, n: x.topk(n.item(), 0).values.sum(0), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("select of an item", lambda x, n: x.select(0, n.item()) * 2, number, batch_and_number, (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2), (3, -1)], OUT_NUMBERS)
row("a row by an item: x[n.item()]", lambda x, n: x[n.item()] * 2, number, batch_and_number, (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2), (3, -1), (3, 7)], OUT_NUMBERS)
row("a row by a tensor of no dims: x[n]", lambda x, n: x[n] * 2, number, batch_and_number, (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2), (3, -1), (3, 7)], OUT_NUMBERS)
row("a row by a tensor of one dim: x[n[None]]", lambda x, n: x[n[None]][0] * 2, number, batch_and_number, (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2), (3, -1), (3, 7)], OUT_NUMBERS)
row("index_select by an item", lambda x, n: x.index_select(0, n.reshape(1)) * 2, number, batch_and_number, (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2), (3, -1), (3, 7)], OUT_NUMBERS)
row("a tensor filled with an item", lambda x, n: torch.full((x.shape[0], 2), n.item()) * x[:, :2], number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("a comparison of an item as an output", lambda x, n: (x * 2, n.item() > 2, n.item() * 3), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS)
row("interpolate to an item", interpolated, number, batch_and_number, (6, 3), [(6, 3), (6, 1), (5, 5), (9, 1), (3, 2), (6, 6)], OUT_NUMBERS)

def stepped(x, n):
    u = n.item()
    torch._check(u >= 1)
    return x[::u]


# -- refused, with the check that makes it pass ---------------------------------------------------


def items(check, then):
    """The program without the check, and the maker of the one with it."""
    def without(x, n):
        return then(x, n.item())

    def checked(x, n):
        u = n.item()
        check(x, u)
        return then(x, u)

    return without, function(checked)


def case(name, then, suggests, check, example, inside, torch="refuses GuardOnDataDependentSymNode", **options):
    without, checked = items(check, then)
    row(name, without, number, batch_and_number, example, inside, OUT_NUMBERS, DataDependent(suggests, checked), torch=torch, **options)


AT_LEAST_2 = [(6, 3), (6, 2), (5, 5), (9, 7), (3, 4)]
case("if item > 1", lambda x, u: x * 2 if u > 1 else x, "torch._check(u0 >= 2)", lambda x, u: torch._check(u >= 2), (6, 3), AT_LEAST_2)
case("if item == 0", lambda x, u: x if u == 0 else x * 2, "torch._check", lambda x, u: torch._check(u != 0), (6, 3), AT_LEAST_2)
case("if item < the size", lambda x, u: x[u:] if u < x.shape[0] else x, "torch._check", lambda x, u: torch._check(u < x.shape[0]), (6, 3), [(6, 3), (6, 0), (5, 4), (9, 1), (3, 2)])
case("if item % 2 == 0", lambda x, u: x * 2 if u % 2 == 0 else x, "torch._check(u0 % 2 == 0)", lambda x, u: torch._check(u % 2 == 0), (6, 4), [(6, 4), (6, 0), (5, 2), (9, 8), (3, 2)])
case("if 2 <= item <= 8", lambda x, u: x * 2 if 2 <= u <= 8 else x, "torch._check(u0 >= 2)", lambda x, u: (torch._check(u >= 2), torch._check(u <= 8)), (6, 3), AT_LEAST_2)
case("assert on an item", lambda x, u: [x * u for _ in [0] if u >= 0][0], "torch._check(u0 >= 0)", lambda x, u: torch._check(u >= 0), (6, 3), NUMBERS)
case("max of an item and 4", lambda x, u: x * max(u, 4), "torch._check", lambda x, u: torch._check(u >= 4), (6, 5), [(6, 4), (6, 5), (5, 6), (9, 7), (3, 9)], torch="ok",
    why="theirs replaces the builtin max while exporting; ours leaves Python alone and asks for torch.sym_max or a check")
case("an item as an index of a list", lambda x, u: x * [1, 2, 3][u], "torch._check", lambda x, u: torch._check(u == 2), (6, 2), [(b, 2) for b in BATCH])
case("a loop up to an item", lambda x, u: sum(x * i for i in range(u)), "torch._check", lambda x, u: torch._check(u == 3), (6, 3), [(b, 3) for b in BATCH])

row("int() of a tensor: Python wants an int", lambda x, n: x * int(n), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS,
    DataDependent("torch._check", function(lambda x, n: x * n.item())), torch="refuses GuardOnDataDependentSymNode")
row("float() of a tensor: Python wants a float", lambda x, n: x * float(n), number, batch_and_number, (6, 3), NUMBERS, OUT_NUMBERS,
    DataDependent("torch._check", function(lambda x, n: x * n.float().item())), torch="refuses GuardOnDataDependentSymNode")
row("slices with a step from the data", lambda x, n: x[:: n.item()], number, batch_and_number, (6, 3), [(6, 3), (6, 1), (5, 4), (9, 1), (3, 2), (3, 7)], OUT_NUMBERS,
    DataDependent("torch._check", function(stepped)), torch="refuses GuardOnDataDependentSymNode")
row("pieces of a size from the data", lambda x, n: x.split(n.item())[0], number, batch_and_number, (6, 3), [(6, 3), (6, 1), (5, 4), (9, 1), (3, 2), (3, 7)], OUT_NUMBERS,
    DataDependent("torch._check", function(lambda x, n: x[: n.item()] * 1)), torch="refuses GuardOnDataDependentSymNode")
row("one_hot of as many classes as the data says", lambda x, n: F.one_hot(torch.arange(2), n.item()) + x.sum(), number, batch_and_number, (6, 3), [(6, 3), (6, 2), (5, 4), (9, 6), (3, 2), (3, 7)], OUT_NUMBERS,
    DataDependent("torch._check", function(lambda x, n: (torch.arange(2)[:, None] == torch.arange(n.item())).long() + x.sum())), torch="refuses GuardOnDataDependentSymNode")
row("if any of the data is positive", lambda x: x * 2 if (x > 0).any() else x, one, batch, 3, BATCH, OUT,
    DataDependent("torch.where", function(lambda x: torch.where((x > 0).any(), x * 2, x))), torch="refuses GuardOnDataDependentSymNode")
row("if the sum is positive", lambda x: x * 2 if x.sum() > 0 else -x, one, batch, 3, BATCH, OUT,
    DataDependent("torch.where", function(lambda x: torch.where(x.sum() > 0, x * 2, -x))), torch="refuses GuardOnDataDependentSymNode")
row("if a mask finds nothing", lambda x: x[x > 9].mean() if x[x > 9].shape[0] > 0 else x.sum(), one, batch, 3, BATCH, OUT,
    DataDependent("torch.where", function(lambda x: torch.where((x > 9).any(), x[x > 9].mean(), x.sum()))), torch="refuses GuardOnDataDependentSymNode")
row("while the data says so", lambda x: x * 2 if bool(x.abs().max(dim=1).values.sum() < 1) else x, one, batch, 3, BATCH, OUT,
    DataDependent("torch.where", function(lambda x: torch.where(x.abs().max(dim=1).values.sum() < 1, x * 2, x))), torch="refuses GuardOnDataDependentSymNode")
row("an assert on the data", lambda x: [x.sqrt() for _ in [0] if (x * x).min() >= 0][0], one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 9), {0: "x", 10: "x", (3, 5): "x"},
    DataDependent("torch.where", function(lambda x: x.sqrt())), torch="refuses GuardOnDataDependentSymNode")
row("a sum of the picks of two masks", lambda x: x[x * x >= 0] + x[x > -9], one, batch, 3, BATCH, OUT)
row("the first row of a mask", lambda x: x[x[:, 0] > -9][0], one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 8, 9), {0: "x", 10: "x", (3, 5): "x"})
row("squeeze of what a mask found", lambda x: x[x > 0].squeeze(0), one, batch, 3, BATCH, OUT)
row("max over what a mask found", lambda x: x[x > 0].max() + x[x > -9].amin(), one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 8, 9), {0: "x", 10: "x", (3, 5): "x"})
row("split by tolist", lambda x, n: [p.sum(0) for p in x.split(n.tolist())], numbers, batch_and_number, (6, 4, 2), ALIGNED, {(10, 4, 6): "x", (12, 4, 8): "x", (6, 4, 2, 5): "x"})
row("tolist of a dynamic length", lambda x: x * len(x[:, 0].tolist()), lambda b, s: call(x_(b, s)), lambda d: ({0: d("b", max=9), 1: d("s", min=1, max=9)},), (3, 4),
    [(3, 1), (3, 2), (3, 4), (3, 8), (3, 9)], {(2, 4): "x", (4, 4): "x", (3, 10): "x"}, Specialised("b", "x.size(0)", 3), torch="refuses UserError")


def chunked(x):
    found = x[x > 0]
    torch._check(found.shape[0] >= 2)
    return [c.sum() for c in found.chunk(2)]


row("chunk of what a mask found", lambda x: [c.sum() for c in x[x > 0].chunk(2)], one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 8, 9), {0: "x", 10: "x", (3, 5): "x"},
    DataDependent("torch._check(u0 >= 2)", function(chunked)), torch="refuses GuardOnDataDependentSymNode")
row("iteration over what a mask found", lambda x: sum(v * 2 for v in x[x > 0]), one, lambda d: ({0: d("b", min=1, max=9)},), 3, (1, 2, 3, 5, 8, 9), {0: "x", 10: "x", (3, 5): "x"},
    DataDependent("torch._check", function(lambda x: (x[x > 0] * 2).sum())), torch="refuses GuardOnDataDependentSymNode")
