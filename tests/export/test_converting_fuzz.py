"""Random programs with control flow on data: converted, they equal eager on every way."""

from __future__ import annotations

import linecache
import random
from typing import Any

import pytest
import torch

import stillframe as sf

INPUTS = [
    (torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2)),
    (torch.tensor([-1.0, -2.0]), torch.tensor(0)),
    (torch.tensor([0.25, 0.5, 0.1, 0.2]), torch.tensor(1)),
    (torch.tensor([4.0, -3.0, 2.0, 1.0, 0.5]), torch.tensor(3)),
    (torch.tensor([2.0, -3.0]), torch.tensor(4)),
]
CONDITIONS = (
    "a.sum() > b.sum()", "a.max() > 1.5", "b.min() < 0", "x.sum() > 0", "k > 2", "n.item() > 1",
    "a.mean() < 3", "x.shape[0] >= 0", "flag",
)  # fmt: skip
STATEMENTS = (
    "a = a + 1", "b = b * 0.5 - a", "a, b = b, a", "k += 2", "a = torch.where(a > 1, a, b)",
    "b = a if {c} else b - 1", "a = a * k", "flag = not flag", "flag = bool({c})", "f = f * 0.75",
    "b = b + f", "a = a.tanh()", "a = step(a)", "c = (b, k)", "a = c[0] + c[1]",
)  # fmt: skip
IN_PLACE = ("b.mul_(0.5)", "a += f", "b[:1] = 1", "a.clamp_(max=3)")
#: What may be wrong with a program: each has a hint that a person can follow.
RULES = (
    "structure", "return", "unassigned", "size", "depth", "kind", "alias", "effect", "operator",
)  # fmt: skip
START = """def program(x, n):
    a, b, c, k, f, flag = x + 0, x * 2, (x * 3, 1), 1, 1.0, False
    def step(y):
        if y.sum() > 2:
            return y * 0.5
        return y + 1
"""


class Writer:
    """Writes one program; every loop ends."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []

    def text(self) -> str:
        self.block(1, self.random.randint(3, 6), loops=0)
        return START + "\n".join([*self.lines, "    return a + b, k"]) + "\n"

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def condition(self) -> str:
        one, other = self.random.choices(CONDITIONS, k=2)
        forms = (f"{one}", f"({one} and {other})", f"({one} or {other})", f"(not {one})")
        return self.random.choices(forms, weights=(6, 1, 1, 1))[0]

    def block(self, depth: int, count: int, loops: int) -> None:
        for _ in range(count):
            kinds = (self.simple, self.branch, self.while_loop, self.for_loop)
            weights = (5, 3, 1, 1) if depth < 5 and loops < 2 else (1, 0, 0, 0)
            self.random.choices(kinds, weights)[0](depth, loops)

    def simple(self, depth: int, loops: int) -> None:
        writes = not loops and self.random.random() < 0.2
        statement = self.random.choice(IN_PLACE if writes else STATEMENTS)
        self.line(depth, statement.format(c=self.condition()))

    def branch(self, depth: int, loops: int) -> None:
        self.line(depth, f"if {self.condition()}:")
        self.block(depth + 1, 1, loops)
        ending = ("break", "continue", "return b, k") if loops else ("return a, k", "return b, k")
        if self.random.random() < 0.3:
            self.line(depth + 1, self.random.choice(ending))
        if self.random.random() < 0.6:
            self.line(depth, "else:")
            self.block(depth + 1, self.random.randint(1, 2), loops)

    def while_loop(self, depth: int, loops: int) -> None:
        counter, limit = f"w{len(self.lines)}", self.random.randint(1, 4)
        self.line(depth, f"{counter} = x.sum() * 0")
        if self.random.random() < 0.3:
            self.line(depth, "while True:")
            self.line(depth + 1, f"if {counter} > {limit}: break")
        else:
            self.line(depth, f"while {counter} < {limit} and {self.condition()}:")
        self.line(depth + 1, f"{counter} = {counter} + 1")
        self.block(depth + 1, self.random.randint(1, 3), loops + 1)
        self.otherwise(depth, loops)

    def for_loop(self, depth: int, loops: int) -> None:
        count = self.random.choice(("n.item()", "n.item() + 1", "2", "3"))
        self.line(depth, f"for i{depth} in range({count}):")
        self.block(depth + 1, self.random.randint(1, 3), loops + 1)
        self.line(depth + 1, f"a = a + i{depth}")
        self.otherwise(depth, loops)

    def otherwise(self, depth: int, loops: int) -> None:
        if self.random.random() < 0.3:
            self.line(depth, "else:")
            self.simple(depth + 1, loops)


def made(seed: int) -> tuple[str, Any]:
    """The text and the function of one program."""
    text, name = Writer(seed).text(), f"<program {seed}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"torch": torch}
    exec(compile(text, name, "exec"), names)
    return text, names["program"]


@pytest.mark.parametrize("seed", [*range(16), 144])
def test_a_random_program_equals_eager_or_is_refused(seed: int) -> None:
    text, program = made(seed)
    dims = ({0: sf.Dim("d")}, None)
    try:
        run = sf.export(
            program, INPUTS[0], dynamic_shapes=dims, strict=True, control_flow="convert"
        ).module()
    except sf.ConversionError as e:
        assert e.rule in RULES, text
        return
    for args in INPUTS:  # programs write to nothing that they did not make
        want, got = program(*args), run(*args)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4, equal_nan=True, msg=text)
        assert type(got[1]) is type(want[1]), text
