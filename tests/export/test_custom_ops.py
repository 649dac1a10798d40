"""Custom operators in exported modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fake import custom_ops as ops
from torch import nn
from torch.library import get_ctx

import stillframe as sf

sfops = torch.ops.sfops


def in_place(x: torch.Tensor) -> torch.Tensor:
    y, z = x * 2, x + 5
    sfops.add_one_(y)
    return sfops.swap_(y, z) * y - z


def data_sizes(x: torch.Tensor) -> Any:
    picked = sfops.positive(x)
    y, n = sfops.counted(x)
    torch._check(n == picked.shape[0])
    return torch.cat([picked, picked]), y * n, picked.reshape(n, 1)


def lists(x: torch.Tensor) -> Any:
    a, b = sfops.rows([x, x * 2], [x.shape[0] - 1, 1])
    return a * 2, b, sfops.length(x)


def optional(x: torch.Tensor) -> Any:
    return sfops.moments(x), sfops.moments(x, x + 1)[1]


PROGRAMS: dict[str, Callable[..., Any]] = {
    "sizes": lambda x: sfops.scaled(sfops.doubled_rows(x), 0.5) + x.shape[0],
    "default": lambda x: sfops.scaled(x, 0.5, 3),
    "number": lambda x: sfops.scaled(x, 0.5, x.shape[0]) * sfops.length(x),
    "kernel for all devices": lambda x: sfops.cubed(x) + sfops.halved(x),
    "view": lambda x: sfops.head(x) * 2,
    "in place": in_place,
    "sizes from data": data_sizes,
    "lists": lists,
    "optional": optional,
    "gradient": lambda x: sfops.sine(x * 2) + 1,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, tmp_path: Path) -> None:
    """Static and with a symbol for every dim; also after saving and loading."""
    f = PROGRAMS[name]
    x = torch.randn(5, 3)
    torch.testing.assert_close(sf.export(f, (x,)).module()(x), f(x))
    dims = {0: sf.Dim("n", min=2, max=99), 1: sf.Dim("m", min=2, max=99)}
    program = sf.export(f, (x,), dynamic_shapes=(dims,))
    sf.save(program, tmp_path / "program.still")
    for run in (program.module(), sf.load(tmp_path / "program.still").module()):
        for sizes in ((5, 3), (2, 7)):
            x = torch.randn(*sizes)
            torch.testing.assert_close(run(x), f(x))


def test_the_operator_is_one_node() -> None:
    program = sf.export(lambda x: sfops.sine(sfops.halved(x)), (torch.ones(3),))
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert targets == [sfops.halved.default, sfops.sine.default]


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sfops.sine(x * self.weight)


def test_gradients_come_from_the_registered_formula() -> None:
    mod, x = Learned(), torch.randn(4, 3)
    run = sf.export(mod, (x,), dynamic_shapes=({0: sf.Dim("n", min=2)},)).module()
    x = torch.randn(6, 3)
    run(x).sum().backward()
    mod(x).sum().backward()
    torch.testing.assert_close(run.weight.grad, mod.weight.grad)


class Written(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sfops.add_one_(self.count)
        return x + self.count


def test_a_buffer_that_an_operator_changes() -> None:
    mod, x = Written(), torch.randn(3)
    run = sf.export(mod, (x,)).module()
    for _ in range(2):
        torch.testing.assert_close(run(x), mod(x))
        torch.testing.assert_close(run.count, mod.count)


def test_bounds_of_a_new_size_are_checked() -> None:
    run = sf.export(lambda x: sfops.some(x) * 2, (torch.ones(3),), dynamic_shapes=sf.auto).module()
    assert run(torch.ones(4)).shape == (4,)
    for x in (torch.ones(5), -torch.ones(3)):
        with pytest.raises(RuntimeError, match="sfops::some: a size is"):
            run(x)


def test_no_fake() -> None:
    with pytest.raises(sf.NotSupported, match="sfops::unknown has no fake") as caught:
        sf.export(lambda x: sfops.unknown(x), (torch.ones(3),))
    assert any("test_custom_ops.py" in line for line in caught.value.where)
    assert "register_fake" in caught.value.hints[0]


def test_a_wrong_fake_is_told_where_it_is_called() -> None:
    op = ops.broken("exported_alias", lambda x: x)
    with pytest.raises(sf.CustomOperatorError, match="sfops::exported_alias") as caught:
        sf.export(lambda x: op(x + 1), (torch.ones(3),))
    assert any("test_custom_ops.py" in line for line in caught.value.where)


def test_data_dependent_errors_pass_through() -> None:
    op = ops.broken("exported_asks", lambda x: x.new_empty(3 if x.sum() > 0 else 4))
    with pytest.raises(sf.DataDependentError):
        sf.export(lambda x: op(x), (torch.ones(3),))


# what the fake says, what the kernel does, schema, the message when the program runs
PROMISES: dict[str, tuple[Any, Any, str, str]] = {
    "dtype": (
        torch.empty_like, lambda x: x.double(), "(Tensor x) -> Tensor",
        r"returned float64\[4, 3\].*",
    ),
    "size": (
        torch.empty_like, lambda x: x[:2].clone(), "(Tensor x) -> Tensor",
        r"returned float32\[2, 3\].",
    ),
    "rank": (torch.empty_like, lambda x: x.sum(), "(Tensor x) -> Tensor", r"returned float32\[\]."),
    "second": (
        lambda x: (torch.empty_like(x), x.new_empty(1)), lambda x: (x.clone(), x.sum(0)),
        "(Tensor x) -> (Tensor, Tensor)", r"returned float32\[3\] for result\[1\]",
    ),
    "twice": (
        lambda x: (n := get_ctx().new_dynamic_size(), [x.new_empty(n), x.new_empty(n)])[1],
        lambda x: [x.sum(0), x.sum(1)], "(Tensor x) -> Tensor[]", r"for result\[1\]",
    ),
    "number": (lambda x: x.shape[0], lambda x: 7, "(Tensor x) -> SymInt", "returned 7"),
    "fewer": (
        lambda x: [x.clone(), x.clone()], lambda x: [x.clone()], "(Tensor x) -> Tensor[]",
        "returned 1 values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize("dynamic", (False, True))
def test_a_kernel_that_does_not_do_what_its_fake_said(name: str, dynamic: bool) -> None:
    fake, kernel, schema, says = PROMISES[name]
    op = getattr(sfops, f"promise_{name}", None)
    if op is None:
        op = ops.broken(f"promise_{name}", fake, schema, kernel)
    dims = ({0: sf.Dim("n", min=2, max=99)},) if dynamic else None
    x = torch.ones(4, 3)
    run = sf.export(lambda x: (op(x), x + 1), (x,), dynamic_shapes=dims).module()
    with pytest.raises(sf.CustomOperatorError, match=says) as caught:
        run(x)
    assert f"sfops::promise_{name}" in caught.value.what
