"""Random programs of views and writes: functional forms equal eager, twice in a row.

A failure prints the program as Python that can be pasted. ``STILLFRAME_FUZZ=1000`` runs more.
"""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf

PROGRAMS = int(os.environ.get("STILLFRAME_FUZZ", "60"))

VIEWS = (
    "{a}[{i}]", "{a}[:, {j}]", "{a}[1:]", "{a}[:, ::2]", "{a}.t()", "{a}.transpose(0, 1)",
    "{a}.unsqueeze(1).squeeze(1)", "{a}.narrow(0, 0, 2)", "{a}.diagonal()", "{a}.view(-1)",
    "{a}.reshape(-1)", "{a}.unbind(0)[{i}]", "{a}.split(2, 1)[0]", "{a}.chunk(2, 0)[-1]",
    "{a}.flatten()", "{a}.detach()", "{a}.expand(2, *{a}.shape)[1]", "{a}.view({a}.shape)",
    "{a}.permute(1, 0)", "{a}.as_strided((2, 2), (1, 2))", "{a}.contiguous()",
)  # fmt: skip
FRESH = ("{a} + 1", "{a} * 0.5", "{a}.clone()", "{a}.sin()", "torch.zeros_like({a})", "{a} - {a}")
WRITES = (
    "{a}.add_(1)", "{a}.mul_(0.5)", "{a}.zero_()", "{a}.fill_(2)", "{a}[0] = 3", "{a}.neg_()",
    "{a}.copy_({b}.sum())", "{a}.add_({b}.mean())", "{a}[..., -1] = {b}.max()", "{a}.clamp_(-1, 2)",
    "{a}.masked_fill_({a} > 1, -0.5)", "{a}.copy_({a}.flip(0))", "torch.sin({a}, out={a})",
)  # fmt: skip


def lines_of(rng: random.Random) -> list[str]:
    """The statements of a forward over ``x`` (3, 4), ``y`` (4, 4) and the buffer ``b`` (3, 4)."""
    names = ["x", "y", "b"]
    lines = ["b = self.b"]
    for number in range(rng.randint(3, 10)):
        a, b = rng.choice(names), rng.choice(names)
        kind = rng.choices(("view", "fresh", "write"), (4, 2, 4))[0]
        fields = {"a": a, "b": b, "i": rng.randint(-1, 1), "j": rng.randint(-1, 1)}
        if kind == "write":
            lines.append(rng.choice(WRITES).format(**fields))
            continue
        name = f"v{number}"
        form = rng.choice(VIEWS if kind == "view" else FRESH)
        lines.append(f"{name} = {form.format(**fields)}")
        names.append(name)
    kept = rng.sample(names, min(len(names), 3))
    return [*lines, f"return {', '.join(kept)}"]


def module_of(lines: list[str]) -> nn.Module:
    body = "\n".join(f"        {line}" for line in lines)
    text = (
        "class Fuzzed(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.register_buffer('b', torch.linspace(-2, 2, 12).reshape(3, 4))\n"
        f"    def forward(self, x, y):\n{body}\n"
    )
    namespace: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(text, namespace)
    made: nn.Module = namespace["Fuzzed"]()
    return made


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(-3, 3, 12).reshape(3, 4), torch.linspace(1, -1, 16).reshape(4, 4)


def seen(module: nn.Module) -> list[torch.Tensor]:
    """Results, inputs and the buffer after each of two calls."""
    found = []
    for _ in range(2):
        x, y = inputs()
        result = module(x, y)
        found += [t.detach().clone() for t in (*result, x, y, module.b)]
    return found


def runs(lines: list[str]) -> bool:
    try:
        seen(module_of(lines))
    except (RuntimeError, IndexError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    lines = lines_of(rng)
    while not runs(lines):
        lines = lines_of(rng)
    module = module_of(lines)
    text = "\n".join(lines)
    expected = seen(copy.deepcopy(module))
    sizes = {0: sf.Dim("n", min=3, max=9)} if seed % 2 else None
    try:
        program = sf.export(module, inputs(), dynamic_shapes={"x": None, "y": sizes})
    except (sf.NotSupported, sf.ConstraintViolationError):
        return
    for table in (None, {}):
        try:
            functional = program.run_decompositions(table)
        except sf.NotSupported:
            assert any(word in text for word in ("as_strided", "expand", "reshape", "contiguous"))
            continue
        actual = seen(copy.deepcopy(functional).module())  # state is shared with the program
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert a.shape == e.shape and torch.allclose(a, e, equal_nan=True), f"{i}:\n{text}"


# -- gradients ------------------------------------------------------------------------------------

GRAD_VIEWS = (
    "{a}[{i}]", "{a}[:, {j}]", "{a}[1:]", "{a}.t()", "{a}.narrow(0, 0, 2)", "{a}.diagonal()",
    "{a}.view(-1)", "{a}.reshape(-1)", "{a}.unbind(0)[{i}]", "{a}.detach()", "{a}.contiguous()",
)  # fmt: skip
GRAD_FRESH = (
    "{a} + 1", "{a} * {a}", "{a}.clone()", "{a}.sin()", "{a} - {b}.mean()",
    "{a}.exp().mul_({b}.sum())",
)  # fmt: skip
GRAD_WRITES = (
    "{a}.add_(1)", "{a}.mul_(0.5)", "{a}[0] = 3", "{a}.mul_({b}.mean())", "{a}.copy_({b}.sum())",
    "{a}[..., -1] = {b}.max()", "{a}.copy_({b})",
)  # fmt: skip


def differentiable_lines(rng: random.Random) -> list[str]:
    """The statements of a forward over ``x`` and the parameter ``w``, that returns a loss."""
    names = ["h"]
    lines = ["h = x * self.w"]
    for number in range(rng.randint(3, 9)):
        a, b = rng.choice(names), rng.choice(names)
        fields = {"a": a, "b": b, "i": rng.randint(-1, 1), "j": rng.randint(-1, 1)}
        forms = rng.choices((GRAD_VIEWS, GRAD_FRESH, GRAD_WRITES), (4, 2, 4))[0]
        line = rng.choice(forms).format(**fields)
        if forms is not GRAD_WRITES:
            line = f"v{number} = {line}"
            names.append(f"v{number}")
        lines.append(f"with torch.no_grad(): {line}" if rng.random() < 0.12 else line)
    kept = rng.sample(names, min(len(names), 3))
    total = " + ".join(f"({n} * {n}).sum() * {i}" for i, n in enumerate(kept, 1))
    return [*lines, f"return {total}"]


def differentiable(lines: list[str]) -> nn.Module:
    body = "\n".join(f"        {line}" for line in lines)
    text = (
        "class Fuzzed(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.linspace(0.5, 1, 12).reshape(3, 4))\n"
        f"    def forward(self, x):\n{body}\n"
    )
    namespace: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(text, namespace)
    made: nn.Module = namespace["Fuzzed"]()
    return made


def gradient(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the gradient of ``w``: zeros where there is none."""
    loss = module(torch.linspace(-1, 1, 12).reshape(3, 4))
    (w,) = module.parameters()
    (found,) = torch.autograd.grad(loss, [w], allow_unused=True)
    return loss, torch.zeros_like(w) if found is None else found


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_gradients_of_random_programs(seed: int) -> None:
    """They equal eager's, in the functional program and in the joint graph, or there are none."""
    rng = random.Random(seed)
    while True:
        lines = differentiable_lines(rng)
        module = differentiable(lines)
        try:
            loss, expected = gradient(module)
        except (RuntimeError, IndexError):
            continue
        break
    text = "\n".join(lines)
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    program = sf.export(module, (x,))
    functional = program.run_decompositions().module()
    actual = functional(x)
    torch.testing.assert_close(actual, loss, msg=text)
    try:
        joint = program.joint(0).module()(x)
    except (sf.NotSupported, sf.InvalidInput):
        assert not actual.requires_grad, text
        return
    found = joint.parameter_gradients.get("w", torch.zeros(3, 4))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=text)
    _, found = gradient(functional)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=text)
