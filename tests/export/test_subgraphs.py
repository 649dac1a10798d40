"""Programs with subgraphs in functional form: equal to eager, core operators inside, no writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.corpora import control_flow
from tests.corpora.control_flow import EXAMPLE, PROGRAMS
from tests.export.test_control_flow import (
    SURROUNDINGS,
    Around,
    check,
    compare_around,
    exported,
)
from tests.trace import test_attention, test_regions
from torch import nn
from torch.fx.experimental.symbolic_shapes import guard_or_false
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.export import verifier
from stillframe.export.subgraphs import nodes_of
from stillframe.trace.decompositions import default_table, is_core

aten, silu = torch.ops.aten, nn.functional.silu
TABLES = pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])


def targets(program: sf.ExportedProgram) -> set[Any]:
    return {n.target for n in nodes_of(program.graph_module) if n.op == "call_function"}


@TABLES
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_taken_apart_equals_eager(name: str, table: Any, tmp_path: Path) -> None:
    program = exported(name).run_decompositions(table)
    check(program.module(), name)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still")
    assert str(loaded) == str(program)
    check(loaded.run_decompositions().module(), name)


@TABLES
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_is_around_arms(name: str, table: Any) -> None:
    spec = ({0: sf.Dim.AUTO}, sf.Dim.AUTO)
    program = sf.export(Around(SURROUNDINGS[name], None), (EXAMPLE.clone(), 4), dynamic_shapes=spec)
    compare_around(name, program.run_decompositions(table))


@TABLES
@pytest.mark.parametrize("name", test_regions.PROGRAMS)
def test_regions_taken_apart(name: str, table: Any) -> None:
    f, plain = test_regions.PROGRAMS[name]
    program = test_regions.trace(f, "export").run_decompositions(table)
    assert getattr(torch.ops.higher_order, name) in targets(program)
    for x in test_regions.runs("export"):
        torch.testing.assert_close(program.module()(x), plain(x))


@TABLES
@pytest.mark.parametrize("name", test_attention.PROGRAMS)
def test_attention_functions(name: str, table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_attention.module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    f, q = test_attention.PROGRAMS[name], test_attention.queries(16)
    program = sf.export(f, (q,), dynamic_shapes=({1: sf.Dim.AUTO},)).run_decompositions(table)
    for length in (16, 20, 37):
        q = test_attention.queries(length)
        torch.testing.assert_close(program.module()(q), f(q))


# -- what is inside ------------------------------------------------------------------------------


class Layers(nn.Module):
    """An arm with composite operators, writes to memory of its own, and an arm inside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))

    def deep(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y.copy_(x)
        y[0].add_(self.block(x)[0])
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def outer(x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.max() > 1, self.deep, silu, (x,))

        return torch.cond(x.sum() > 0, outer, lambda x: x.softmax(1), (x,))

    def plain(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() <= 0:
            return x.softmax(1)
        return self.deep(x) if x.max() > 1 else silu(x)


RUNS = (EXAMPLE, -EXAMPLE, EXAMPLE.abs() * 0.4, torch.linspace(-3, 5, 18).reshape(6, 3))


def layers() -> tuple[Layers, sf.ExportedProgram]:
    module = Layers()
    return module, sf.export(module, (EXAMPLE,), dynamic_shapes=({0: sf.Dim.AUTO},))


def test_operators_of_arms_are_core_and_do_not_write() -> None:
    module, program = layers()
    assert aten.gelu.default not in {n.target for n in program.graph.nodes}
    assert {aten.layer_norm.default, aten.copy_.default} <= targets(program)
    core = program.run_decompositions()
    assert core.dialect == "core"
    operators = [t for t in targets(core) if isinstance(t, torch._ops.OpOverload)]
    assert all(is_core(t) or default_table().get(t) is None for t in operators)
    for x in RUNS:
        torch.testing.assert_close(core.module()(x), module.plain(x))


@TABLES
def test_programs_are_trained_like_the_module(table: Any) -> None:
    module, program = layers()
    copy = program.run_decompositions(table).module()
    for x in RUNS:
        for m, out in ((module, module.plain(x)), (copy, copy(x))):
            m.zero_grad()
            if out.requires_grad:
                (out * out).sum().backward()
        want = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        got = {n: p.grad for n, p in copy.named_parameters() if p.grad is not None}
        for name in {**want, **got}:  # an arm that has not run may leave zeros
            zero = torch.zeros(())
            torch.testing.assert_close(
                got.get(name, zero).sum(), want.get(name, zero).sum(), rtol=1e-4, atol=1e-5
            )


def test_a_function_of_the_users_that_brings_a_constant_and_a_size() -> None:
    """Both become operands, of both arms and of the operator around."""
    weight = torch.tensor([1.0, 2.0, 3.0])

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * weight * x.shape[0]

    module, program = layers()
    inner = program.run_decompositions({aten.silu.default: scaled})
    x = EXAMPLE.abs() * 0.4
    torch.testing.assert_close(inner.module()(x), x * weight * 4)
    for x in (RUNS[0], RUNS[1], RUNS[3]):
        torch.testing.assert_close(inner.module()(x), module.plain(x))
    assert any("lifted_tensor" in name for name in inner.constants)


def test_operands_and_results_keep_their_layout() -> None:
    """A function of the table returns what it computes in another memory order."""

    def transposed(x: torch.Tensor) -> torch.Tensor:
        return (x * 2).t().contiguous().t()

    def f(x: torch.Tensor) -> torch.Tensor:
        y = torch.cond(x.sum() > 0, lambda y: silu(y.view(3, -1)), lambda y: y.t() + 1, (silu(x),))
        return y.sin()

    def plain(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return (y.view(3, -1) * 2 if x.sum() > 0 else y.t() + 1).sin()

    program = sf.export(f, (EXAMPLE,)).run_decompositions({aten.silu.default: transposed})
    for x in (EXAMPLE, -EXAMPLE):
        torch.testing.assert_close(program.module()(x), plain(x), check_stride=False)


@pytest.mark.spec("2.43")
@TABLES
def test_checks_in_arms_stay(table: Any, tmp_path: Path) -> None:
    def arm(x: torch.Tensor) -> torch.Tensor:
        n = (x > 0).sum().item()
        torch._check(n >= 0)
        torch._check(n <= 5)
        return x[:, :1].expand(-1, n).sum(1)

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, arm, lambda x: x.sum(1), (x,))

    program = sf.export(f, (EXAMPLE,), dynamic_shapes=({0: sf.Dim.AUTO},)).run_decompositions(table)
    sf.save(program, tmp_path / "p.still")
    for module in (program.module(), sf.load(tmp_path / "p.still").module()):
        few = torch.tensor([[2.0, 2.0, 3.0]] + [[-0.1, -0.1, -0.2]] * 3)
        torch.testing.assert_close(module(few), few[:, 0] * 3)
        torch.testing.assert_close(module(-few.abs()), -few.abs().sum(1))
        many = EXAMPLE.abs() + 1
        with pytest.raises(RuntimeError, match="u0 <= 5"):
            module(many)
        torch.testing.assert_close(module(-many), -many.sum(1))


def test_what_is_decided_in_an_arm_is_not_decided_outside() -> None:
    """The number is at least 2 in the first arm only; the same operator runs in all places."""
    asked = []

    def by_size(x: torch.Tensor) -> torch.Tensor:
        asked.append(guard_or_false(x.shape[0] >= 2))
        return x * 2 if asked[-1] else x + x

    def f(x: torch.Tensor) -> torch.Tensor:
        n = (x > 0).sum().item()
        y = torch.zeros(n)
        z = torch.cond(n >= 2, lambda: silu(y).sum(), lambda: silu(y).sum())
        return z + silu(y).sum()

    program = sf.export(f, (EXAMPLE,))
    taken_apart = program.run_decompositions({aten.silu.default: by_size})
    assert asked == [True, False, False]
    for x in (EXAMPLE, -EXAMPLE.abs()):
        torch.testing.assert_close(taken_apart.module()(x), f_eager(x))


def f_eager(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(())


def test_results_are_in_memory_of_their_own() -> None:
    """Written into memory of its own, an operand would else be returned itself."""

    def arm(x: torch.Tensor) -> Any:
        y, z = torch.empty_like(x), torch.empty_like(x)
        y.copy_(x)
        z.copy_(y)
        return y, z

    def f(x: torch.Tensor) -> Any:
        y, z = torch.cond(x.sum() > 0, arm, lambda x: (x + 1, x + 2), (x,))
        x.add_(10)
        return y, z

    module = sf.export(f, (EXAMPLE.clone(),)).run_decompositions().module()
    x = EXAMPLE.clone()
    y, z = module(x)
    torch.testing.assert_close((x, y, z), (EXAMPLE + 10, EXAMPLE, EXAMPLE))
    assert len({t.untyped_storage().data_ptr() for t in (x, y, z)}) == 3


# -- refusals, and the rules ----------------------------------------------------------------------


def test_a_write_to_an_operand_is_refused_by_name() -> None:
    """A capture refuses it; a graph that somebody edited may have one."""
    _, program = layers()
    for node in nodes_of(program.graph_module):
        if node.target is aten.silu.default:
            node.target = aten.silu_.default
    with pytest.raises(sf.NotSupported, match="writes to its operand x"):
        program.run_decompositions()


def rewritten(program: sf.ExportedProgram, old: Any, new: Any) -> None:
    for node in nodes_of(program.graph_module):
        if node.target is old:
            node.target = new


@pytest.mark.parametrize(
    ("table", "new", "message"),
    [({}, aten.sigmoid_.default, "writes in place"), (None, aten.silu.default, "no core operator")],
)
def test_the_rules_hold_inside(table: Any, new: Any, message: str) -> None:
    _, program = layers()
    taken_apart = program.run_decompositions({**(table or {}), aten.silu.default: torch.sigmoid})
    if table is None:
        taken_apart = program.run_decompositions(
            {**sf.default_decompositions(), aten.silu.default: torch.sigmoid}
        )
        taken_apart.dialect = "core"
    verifier.check(taken_apart)
    rewritten(taken_apart, aten.sigmoid.default, new)
    with pytest.raises(sf.errors.SpecViolationError, match=message):
        verifier.check(taken_apart)


def test_a_loss_of_gradients_reaches_inside() -> None:
    """Gradients are off in the whole program, also where an arm would switch them on."""

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * self.weight
            with torch.no_grad():
                y.mul_(2)

            def arm(y: torch.Tensor) -> torch.Tensor:
                with torch.enable_grad():
                    return y.sin()

            return torch.cond(y.sum() > 0, arm, lambda y: y.cos(), (y,))

    program = sf.export(M(), (EXAMPLE,)).run_decompositions()
    assert not program.module()(EXAMPLE).requires_grad
    assert not program.module()(-EXAMPLE).requires_grad


# -- joint graphs ---------------------------------------------------------------------------------

NO_GRADIENT = {"integers_until_a_number", "prefixes"}  # refused by type


class Loss(nn.Module):
    def __init__(self, name: str, ops: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.name, self.ops = nn.Linear(3, 3), name, ops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = PROGRAMS[self.name](self.linear(x) * 0.7, self.ops or control_flow.torch_operators())
        leaves = [v for v in pytree.tree_leaves(y) if isinstance(v, torch.Tensor)]
        return sum((v * v).sum() for v in leaves) + self.linear(x).sum()


@pytest.mark.parametrize("name", PROGRAMS)
def test_joint_graphs(name: str) -> None:
    program = sf.export(Loss(name, None), (EXAMPLE,), dynamic_shapes=({0: sf.Dim.AUTO},))
    if name in NO_GRADIENT:
        with pytest.raises(sf.NotSupported):
            program.joint(0)
        return
    step = program.joint(0).module()
    others = () if name in control_flow.UNROLLED else control_flow.OTHER_SIZES
    for x in control_flow.SAME_SIZES + others:
        plain = Loss(name, control_flow.PLAIN)
        loss = plain(x)
        loss.backward()
        result, gradients, _ = step(x)
        torch.testing.assert_close(result, loss.detach())
        for parameter, value in plain.named_parameters():
            torch.testing.assert_close(gradients[parameter], value.grad)


def test_detach_in_an_arm_of_a_joint_graph() -> None:
    class M(Loss):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            pred = y.sum() > 0
            cond = self.ops.cond if self.ops else torch.cond
            loss: torch.Tensor = cond(pred, lambda y: y.detach() * y, lambda y: y * 2, (y,)).sum()
            return loss

    step = sf.export(M("", None), (EXAMPLE,)).joint(0).module()
    for x in control_flow.SAME_SIZES:
        plain = M("", control_flow.PLAIN)
        plain(x).backward()
        for name, gradient in step(x).parameter_gradients.items():
            torch.testing.assert_close(gradient, plain.get_parameter(name).grad)
