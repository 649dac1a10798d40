"""State of a program: constants and their names, parameters, buffers, state before the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.export.signature import InputKind
from stillframe.fake.tensor import FakeTensor

X = torch.randn(3, 4)


def names(program: sf.ExportedProgram) -> list[str]:
    return [n.name for n in program.graph.nodes if n.op == "placeholder"]


def kinds(program: sf.ExportedProgram) -> list[tuple[str, str | None]]:
    return [(s.kind.name, s.target) for s in program.graph_signature.input_specs]


def agrees(program: sf.ExportedProgram, module: nn.Module, *args: Any) -> None:
    torch.testing.assert_close(program.module()(*args), module(*args))


class Inner(nn.Module):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


# -- constants ------------------------------------------------------------------------------------


class Aliases(nn.Module):
    """One tensor under three names, and an equal one that is another tensor."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.ones(4)
        self.first = Inner(table)
        self.second = self.first
        self.third = Inner(table)
        self.own = table
        self.equal = torch.ones(4)
        self.unused = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(x)) + self.own + self.equal


@pytest.mark.spec("1.53", "1.55", "2.41", "2.81")
def test_a_constant_keeps_all_its_names(tmp_path: Path) -> None:
    module = Aliases()
    program = sf.export(module, (X,))
    assert kinds(program) == [
        ("CONSTANT_TENSOR", "own"), ("CONSTANT_TENSOR", "equal"), ("USER_INPUT", None),
    ]  # fmt: skip
    assert names(program)[0] == "c_own", "own attributes come before those of children"
    assert list(program.constants) == ["own", "first.table", "second.table", "third.table", "equal"]
    assert program.constants["third.table"] is program.constants["own"]
    assert program.constants["equal"] is not program.constants["own"], "equal is not the same"
    agrees(program, module, X)
    sf.save(program, tmp_path / "m.still")
    loaded = sf.load(tmp_path / "m.still")
    assert list(loaded.constants) == list(program.constants)
    assert loaded.constants["third.table"] is loaded.constants["own"]
    agrees(loaded, module, X)


@pytest.mark.spec("1.54", "2.76")
def test_tensors_in_containers_are_named_by_the_module_that_uses_them() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = [torch.ones(4), torch.zeros(4)]
            self.named = {"k": torch.ones(4)}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.items[0] + self.named["k"]

    module = nn.Sequential(Listed(), Listed())
    program = sf.export(module, (X,))
    targets = [target for kind, target in kinds(program) if kind == "CONSTANT_TENSOR"]
    assert targets == [
        "0.lifted_tensor_0", "0.lifted_tensor_1", "1.lifted_tensor_2", "1.lifted_tensor_3",
    ]  # fmt: skip
    assert list(program.constants) == targets, "what forward does not use is not in the program"
    agrees(program, module, X)


@pytest.mark.spec("2.38")
def test_a_plain_tensor_attribute_is_a_constant_and_no_buffer() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = torch.ones(4)
            self.register_buffer("kept", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.plain + self.kept

    program = sf.export(M(), (X,))
    assert kinds(program)[:2] == [("BUFFER", "kept"), ("CONSTANT_TENSOR", "plain")]
    assert list(program.state_dict) == ["kept"] and list(program.constants) == ["plain"]
    assert dict(program.module().named_buffers()).keys() == {"kept"}


@pytest.mark.spec("2.42")
def test_names_of_constants_give_way() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = torch.ones(4)
            self.B_scale = torch.ones(4)

        def forward(self, x: torch.Tensor, c_x: torch.Tensor) -> torch.Tensor:
            return x * self.x + c_x * self.B_scale

    program = sf.export(M(), (X, X))
    assert names(program) == ["c_x_1", "c_b_scale", "x", "c_x"]
    assert [s.arg.name for s in program.graph_signature.input_specs] == names(program)
    assert program.graph_signature.inputs_to_lifted_tensor_constants == {
        "c_x_1": "x", "c_b_scale": "B_scale",
    }  # fmt: skip
    agrees(program, M(), X, X)


@pytest.mark.spec("2.75", "2.77")
def test_constants_are_placeholders_before_the_users_in_order_of_use() -> None:
    late, early = torch.ones(4), torch.zeros(4)

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * early + y * late * self.w + early

    program = sf.export(M(), (X, X), dynamic_shapes={"x": {0: sf.Dim("b")}, "y": {0: sf.Dim("b")}})
    assert names(program) == ["p_w", "c_lifted_tensor_0", "c_lifted_tensor_1", "x", "y"]
    assert torch.equal(program.constants["lifted_tensor_0"], early)
    assert all(node.op != "get_attr" for node in program.graph.nodes)
    for node in list(program.graph.nodes)[1:3]:
        assert isinstance(node.meta["val"], FakeTensor) and node.meta["val"].sizes == (4,)
        assert "nn_module_stack" not in node.meta and "stack_trace" not in node.meta


@pytest.mark.spec("2.34", "2.77", "2.91")
def test_a_module_without_inputs() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))
            self.c = torch.full((3,), 2.0)

        def forward(self) -> torch.Tensor:
            return self.w * self.c

    program = sf.export(M(), ())
    assert kinds(program) == [("PARAMETER", "w"), ("CONSTANT_TENSOR", "c")]
    assert program.module()().tolist() == [2.0] * 3
    assert not any(s.kind is InputKind.USER_INPUT for s in program.graph_signature.input_specs)


@pytest.mark.spec("2.80")
def test_an_unregistered_parameter_is_a_constant_with_a_note() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Parameter(torch.full((4,), 3.0))]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.hidden[0]

    module = M()
    program = sf.export(module, (X,))
    assert kinds(program)[0] == ("CONSTANT_TENSOR", "lifted_tensor_0")
    assert any("lifted_tensor_0 is a Parameter that no module has" in n for n in program.notes)
    assert program.constants["lifted_tensor_0"] is module.hidden[0]
    agrees(program, module, X)


@pytest.mark.spec("1.62", "2.44")
def test_what_a_program_holds_is_real() -> None:
    program = sf.export(Aliases(), (X,))
    held = [*program.constants.values(), *program.state_dict.values(), *program.example_inputs[0]]
    assert held and not any(isinstance(value, FakeTensor) for value in held)


# -- state ----------------------------------------------------------------------------------------


class Rebinding(nn.Module):
    """Ties, and a forward that changes which tensors its names stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(4))
        self.register_buffer("n", torch.zeros(()))
        self.b = self.a
        self.inner = nn.Linear(4, 4)
        self.register_buffer("m", torch.zeros(()))
        self.again = self.inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n = self.n + 1
        return self.inner(x * self.a) + self.b * self.n


@pytest.mark.spec("2.9", "2.22")
def test_state_is_that_of_before_the_run() -> None:
    module = Rebinding()
    expected = list(module.state_dict(keep_vars=True).items())
    program = sf.export(module, (X,))
    assert kinds(program)[:-1] == [
        ("PARAMETER", "a"), ("PARAMETER", "b"), ("PARAMETER", "inner.weight"),
        ("PARAMETER", "inner.bias"), ("PARAMETER", "again.weight"), ("PARAMETER", "again.bias"),
        ("BUFFER", "n"), ("BUFFER", "m"),
    ]  # fmt: skip
    assert set(program.state_dict) == {name for name, _ in expected}
    for name, value in expected:
        assert torch.equal(program.state_dict[name], value)
        if isinstance(value, nn.Parameter):
            assert program.state_dict[name] is value, "live variables, no detached copies"
    assert float(program.state_dict["n"]) == 0


@pytest.mark.spec("2.30", "2.39", "2.36")
def test_state_goes_by_its_original_names() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.Blocks = nn.ModuleList([nn.Linear(4, 4), nn.BatchNorm1d(4)])
            self.tied = self.Blocks[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tied(self.Blocks[1](self.Blocks[0](x)))

    module = Deep().eval()
    program = sf.export(module, (X,))
    targets = [target for kind, target in kinds(program) if kind != "USER_INPUT"]
    assert set(targets) == set(module.state_dict()) == set(program.state_dict)
    assert set(program.module().state_dict()) == set(module.state_dict())
    assert "p_blocks_0_weight" in names(program)
    agrees(program, module, X)
    vals = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    assert vals["p_blocks_0_weight"] is vals["p_tied_weight"], "a tie is one value"


@pytest.mark.spec("2.24", "2.25", "2.27", "2.47")
def test_nothing_is_put_around_the_module() -> None:
    """A module may even have a child of the name that others give to the module itself."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._export_root = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._export_root[0](x * 2)

    program = sf.export(Root(), (X,))
    assert list(program.state_dict) == ["_export_root.0.weight", "_export_root.0.bias"]
    mul, linear = (n for n in program.graph.nodes if n.op == "call_function")
    root = ("", f"{Root.__module__}.{Root.__qualname__}")
    assert list(mul.meta["nn_module_stack"].items()) == [("L__self__", root)]
    assert list(linear.meta["nn_module_stack"].items()) == [
        ("L__self__", root),
        ("L__self__._export_root.0", ("_export_root.0", "torch.nn.modules.linear.Linear")),
    ]


@pytest.mark.spec("2.27")
def test_nodes_that_no_module_call_made_belong_to_the_root() -> None:
    class Direct(nn.Module):
        """A module whose call does not go through nn.Module's."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward(x)

    for module in (Direct(), sf.export(nn.Linear(4, 4), (X,)).module()):
        for node in sf.export(module, (X,)).graph.nodes:
            if node.op == "call_function":
                assert list(node.meta["nn_module_stack"]) == ["L__self__"]
                assert node.meta["nn_module_stack"]["L__self__"][0] == ""
