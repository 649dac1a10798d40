"""What the recorder makes of a run: nodes, metadata, symbolic values, effects."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.fake.tensor import FakeTensor


def calls(program: sf.ExportedProgram) -> list[Any]:
    return [n.target for n in program.graph.nodes if n.op == "call_function"]


def dynamic(f: Any, *sizes: int) -> sf.ExportedProgram:
    dims = {i: sf.Dim(f"d{i}", min=2, max=99) for i in range(len(sizes))}
    return sf.export(f, (torch.randn(*sizes),), dynamic_shapes=(dims,))


@pytest.mark.spec("3.21")
def test_targets_are_overloads() -> None:
    program = sf.export(lambda x: torch.relu(x + 1), (torch.ones(3),))
    assert calls(program) == [torch.ops.aten.add.Tensor, torch.ops.aten.relu.default]
    assert [n.name for n in program.graph.nodes] == ["x", "add", "relu", "output"]


@pytest.mark.spec("3.11")
def test_items_of_a_tuple_are_made_when_used() -> None:
    program = sf.export(lambda x: torch.split(x, 2)[1] + 1, (torch.ones(6),))
    assert calls(program) == [
        torch.ops.aten.split.Tensor, operator.getitem, torch.ops.aten.add.Tensor,
    ]  # fmt: skip


@pytest.mark.spec("3.32")
def test_one_node_per_expression() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0] * x.shape[1]
        m = x.shape[1] * x.shape[0]
        return x.reshape(n) + torch.zeros(m)

    program = dynamic(f, 3, 5)
    assert calls(program).count(operator.mul) == 1
    x = torch.randn(4, 7)
    torch.testing.assert_close(program.module()(x), f(x))


def test_floats_from_sizes() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * x.shape[1] ** -0.5 + x.shape[0] / 3

    program = dynamic(f, 3, 5)
    for size in ((4, 7), (2, 2)):
        x = torch.randn(*size)
        torch.testing.assert_close(program.module()(x), f(x))


def test_dead_nodes_go_and_effects_stay() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        x.sin()
        y = x.clone()
        y[0] = 5
        torch.rand(2)
        return y

    program = sf.export(f, (torch.ones(3),))
    names = [str(t) for t in calls(program)]
    assert "aten.sin.default" not in names
    assert any("fill_" in n or "copy_" in n for n in names)
    assert "aten.rand.default" in names, "random operators keep their place in the stream"


@pytest.mark.spec("3.12", "2.67", "2.69")
def test_unbacked_sizes() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        picked = x[x > 0]
        n = picked.shape[0]
        torch._check(n <= 1000)
        return torch.cat([picked, picked]) * n

    program = sf.export(f, (torch.randn(9),), dynamic_shapes=({0: sf.Dim("n", min=2, max=99)},))
    assert any("unbacked_bindings" in n.meta for n in program.graph.nodes)
    for size in (9, 30):
        x = torch.randn(size)
        torch.testing.assert_close(program.module()(x), f(x))


@pytest.mark.spec("2.70")
def test_checks_on_data_stay_in_the_program() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        n = x.sum().to(torch.int64).item()
        torch._check(n >= 0)
        torch._check(n < 10)
        return torch.zeros(n)

    program = sf.export(f, (torch.ones(3),))
    run = program.module()
    assert run(torch.ones(3)).shape == (3,)
    with pytest.raises(RuntimeError):
        run(torch.full((3,), 5.0))


@pytest.mark.spec("3.22")
def test_in_place_operators_stay_in_place() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        z = y[0]
        y.mul_(2)
        return z + y.sum()

    program = sf.export(f, (torch.ones(3),))
    assert torch.ops.aten.mul_.Tensor in calls(program)
    torch.testing.assert_close(program.module()(torch.ones(3)), f(torch.ones(3)))


def test_shared_modules_take_the_path_of_the_call() -> None:
    class Block(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.inner = shared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    shared = nn.Linear(2, 2)
    program = sf.export(nn.Sequential(Block(shared), Block(shared)), (torch.ones(1, 2),))
    paths = [
        list(n.meta["nn_module_stack"].values())[-1][0]
        for n in program.graph.nodes
        if n.target is torch.ops.aten.linear.default
    ]
    assert paths == ["0.inner", "1.inner"]


@pytest.mark.spec("3.43")
def test_autocast_in_forward() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x

    x = torch.randn(4, 4)
    program = sf.export(f, (x,))
    assert program.module()(x).dtype is torch.bfloat16
    torch.testing.assert_close(program.module()(x), f(x))


def test_captures_nest() -> None:
    """A module whose forward exports another module, inside a capture, is not confused."""
    inner = nn.Linear(2, 2)

    class Outer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    def hook(module: nn.Module, args: Any) -> None:
        assert calls(sf.export(inner, (torch.ones(1, 2),))) == [torch.ops.aten.linear.default]

    outer = Outer()
    outer.register_forward_pre_hook(hook)
    program = sf.export(outer, (torch.ones(3),))
    assert calls(program) == [torch.ops.aten.mul.Tensor]


def test_other_devices_as_metadata() -> None:
    from stillframe.fake.mode import FakeMode
    from stillframe.shapes.env import ShapeEnv

    env = ShapeEnv()
    mode = FakeMode(env)
    x = FakeTensor.make(env, (2, 3), (3, 1), 0, torch.float32, torch.device("cuda", 0))
    with mode.computing():
        y = torch.nn.functional.relu(x @ x.T).to("cpu")
    assert x.device.type == "cuda" and y.device.type == "cpu" and tuple(y.shape) == (2, 2)


class Normalised(nn.Module):
    """Two layers whose results nobody uses, but whose statistics change in training."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = nn.BatchNorm1d(4)
        self.instance = nn.InstanceNorm1d(4, track_running_stats=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batch(x)
        self.instance(x)
        return x * 2


def test_statistics_that_a_schema_hides_are_writes() -> None:
    mod, x = Normalised(), torch.randn(3, 4, 5)
    before = {k: v.clone() for k, v in mod.state_dict().items()}
    run = sf.export(mod, (x,)).module()
    run(x)
    for name, value in mod.state_dict().items():
        assert torch.equal(value, before[name]), "a program has statistics of its own"
    mod(x)
    for name, value in run.state_dict().items():
        torch.testing.assert_close(value, mod.state_dict()[name])
    assert not torch.equal(
        before["instance.running_mean"], run.state_dict()["instance.running_mean"]
    )


def test_evaluation_leaves_no_dead_norm() -> None:
    program = sf.export(Normalised().eval(), (torch.randn(3, 4, 5),))
    assert calls(program) == [torch.ops.aten.mul.Tensor]
