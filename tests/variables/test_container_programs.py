"""Random programs over containers beside eager: in every call that the guards admit they agree.

A program reads, changes and makes containers that share objects. It is captured in one world and
called in others, which are like the first but for one part or for what is one object. A failure
prints the program and the seeds; ``check(seed)`` runs it again.
"""

from __future__ import annotations

import collections
import linecache
import random
import types
from typing import Any, NamedTuple

import pytest
import torch
from tests.variables.checking import assert_same

import stillframe as sf
from stillframe.variables import FrameCapture, capture_frame


class Thing:
    def __init__(self, value: Any) -> None:
        self.v = value
        self.items = [value, [value]]


class Stack(list):  # type: ignore[type-arg]
    pass


class Pair(NamedTuple):
    a: Any
    b: Any


World = tuple[Any, ...]
NAMES = ("xs", "d", "t", "q", "s", "o", "p", "ns", "l", "nt", "od", "x")
SEQUENCES = ("xs", "t", "q", "l", "nt", "ns")
VALUES = (*NAMES, "out", "1", "xs[0]", "d.get('a')", "o.items")

EXPRESSIONS = (
    """
{seq}[0] | {seq}[-1] | len({seq}) | list({seq}) | tuple({seq}) | d.get('a') | d.get('k', 5)
list(d) | list(d.values()) | list(d.items()) | list(od) | o.v | o.items | p.items[1] | o is p
o.items is p.items | {seq}[0] is o | {any} | [{any}, {any}] | ({any}, {any}) | xs[1:] | xs + [1]
dict(z={any}, y={any}) | t + (1,) | [v for v in {seq}] | nt.a | nt._replace(a={any}) | sum(ns)
sum(ns) * x | x * ns[0] | 2 in {seq} | 'a' in {seq} | o in xs | xs == [1] | ns < [2] | sorted(ns)
max(ns) | isinstance({seq}[0], int) | 1 in s | len(s) | s >= set([1]) | bool({seq}) | xs and xs[0]
str(ns) | hash((ns[0], 1)) | dict(d) | d | d.copy() | type({seq}[0]) | list(reversed(xs))
list(zip(ns, {seq})) | list(enumerate(xs)) | {seq}.count(1) | any(v is x for v in xs)
next(iter(d.values())) | len(set([o, p])) | list(map(type, xs)) | d.keys() | o.items.copy()
collections.deque({seq}, 2) | frozenset(ns) | dict.fromkeys(ns, {any}) | Pair({any}, {any})
torch.stack([v for v in xs if isinstance(v, torch.Tensor)] + [x]) | Stack([{any}]) | {any} is {any}
(lambda *a, **k: (a, k))(*{seq}) | [{any}] == [{any}] | od == d | od.keys() == d.keys() | l + xs
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)

STATEMENTS = (
    """
xs.append({e}) | xs.insert(0, {e}) | xs[0] = {e} | xs[0:1] = [{e}] | xs.pop() if xs else 0
del xs[-1:] | xs += [{e}] | xs *= 2 | xs.reverse() | xs.clear() | xs.extend({seq}) | d['n'] = {e}
d['a'] = {e} | d.pop('a', None) | d.setdefault('k', []) | d.update(k={e}) | d.clear()
d.popitem() if d else 0 | od.move_to_end(next(iter(od))) | od['z'] = {e} | od.popitem(last=False)
q.append({e}) | q.appendleft({e}) | q.rotate(1) | q.popleft() if q else 0 | q[0] = {e} | s.add(5)
s.discard(1) | o.v = {e} | p.v = {e} | o.items.append({e}) | p.items[0] = {e} | o.items = {e}
o.new = {e} | l.append({e}) | l.tag = {e} | x = x * 2 | ns.append(4) | ns.sort() | o, p = p, o
xs, l = l, xs | out += [v for v in {seq}] | out += [(k, v) for k, v in d.items()] | xs.append(xs)
out.append({e}) | out.append(1 if {e} else 2) | out.append(out) | o.items[1].append({e})
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)


def make_world(seed: int) -> World:
    choose = random.Random(seed)
    first, second, tensor = Thing(choose.randint(1, 3)), Thing(choose.randint(1, 3)), make_tensor()
    pool = [
        first, second, tensor, make_tensor(), [1], [1, 2], {"k": 1}, (1, [2]), 1, 2, 3, True, "a",
        None, 2.5,
    ]  # fmt: skip

    def some(least: int, most: int) -> list[Any]:
        return [choose.choice(pool) for _ in range(choose.randint(least, most))]

    return (
        some(1, 4),
        {key: choose.choice(pool) for key in choose.sample(["a", "b", "k", 1, (1, 2)], 2)},
        tuple(some(1, 3)),
        collections.deque(some(1, 3), choose.choice([None, 3])),
        set(choose.sample([1, 2, 3, "a", 8, 16], choose.randint(1, 3))),
        choose.choice([first, second]),
        choose.choice([first, Thing(2)]),
        [choose.randint(1, 3) for _ in range(choose.randint(1, 3))],
        Stack(some(2, 2)),
        Pair(choose.choice(pool), choose.choice(pool)),
        collections.OrderedDict((key, choose.choice(pool)) for key in choose.sample("abc", 2)),
        choose.choice([tensor, make_tensor()]),
    )


def make_tensor() -> torch.Tensor:
    return torch.arange(2.0) + 1


def neighbour(seed: int, other: int) -> World:
    """The world of a seed with one part of another's, and maybe with one object at two places."""
    choose = random.Random(other)
    world = list(make_world(seed))
    part = choose.randrange(len(world))
    world[part] = make_world(other)[part]
    if choose.random() < 0.3:
        world[6] = world[5]
    if choose.random() < 0.2:
        world[0][0] = world[5]
    if choose.random() < 0.2:
        world[5].items = world[6].items
    return tuple(world)


def program(seed: int) -> str:
    choose = random.Random(seed)

    def expression() -> str:
        text = choose.choice(EXPRESSIONS)
        while "{any}" in text:
            text = text.replace("{any}", choose.choice(VALUES), 1)
        return text.replace("{seq}", choose.choice(SEQUENCES))

    def statement() -> str:
        text = choose.choice(STATEMENTS).replace("{seq}", choose.choice(SEQUENCES))
        return text.replace("{e}", expression())

    body = ["out = []", *(statement() for _ in range(choose.randint(1, 6)))]
    result = f"return out, {expression()}, {expression()}, {choose.choice(NAMES)}"
    return "\n    ".join([f"def run({', '.join(NAMES)}):", *body, result]) + "\n"


def compiled(seed: int) -> tuple[str, Any]:
    text, file = program(seed), f"<program {seed}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    found: dict[str, Any] = {}
    exec(compile(text, file, "exec"), globals(), found)
    return text, types.FunctionType(found["run"].__code__, globals(), "run")


def outcome(function: Any, world: World) -> Any:
    try:
        return "gives", function(*world)
    except Exception as e:
        return "raises", type(e), str(e)


def check(seed: int) -> collections.Counter[str]:
    """How many calls were admitted and refused; none may differ from eager."""
    text, function = compiled(seed)
    example, untouched = make_world(seed), make_world(seed)
    counts: collections.Counter[str] = collections.Counter()
    capture: FrameCapture | None = None
    try:
        capture = capture_frame(function, example)
    except sf.FrameError:
        counts["refused"] += 1
    except Exception as e:
        assert outcome(function, make_world(seed))[:2] == ("raises", type(e)), f"{e!r} in\n{text}"
    assert_same(without_constants(example), without_constants(untouched))
    if capture is None:
        return counts
    for other in range(1000 * seed, 1000 * seed + 12):
        ours, theirs = neighbour(seed, other), neighbour(seed, other)
        if capture.failure(*ours) is not None:
            counts["not admitted"] += 1
            continue
        results = outcome(capture, ours), outcome(function, theirs)
        try:
            assert_same(*map(without_constants, ((results[0], ours), (results[1], theirs))))
        except AssertionError as e:
            raise AssertionError(
                f"check({seed}), world {other}: {e}\n{text}\n{capture.text}"
            ) from e
        counts["same"] += 1
    return counts


def without_constants(value: Any) -> Any:
    """Equal tuples of constants may be one object or several: in the generated code they are."""
    if type(value) is tuple:
        return [without_constants(item) for item in value]
    if type(value) is list:
        for index, item in enumerate(value):
            if type(item) is tuple:
                value[index] = without_constants(item)
    return value


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_programs_agree_with_eager(first: int) -> None:
    counts = sum((check(seed) for seed in range(first, first + 20)), collections.Counter[str]())
    assert counts["same"] > 20
    assert counts["not admitted"] > 20
    assert counts["refused"] < 20
