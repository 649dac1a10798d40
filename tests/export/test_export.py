"""``sf.export``: arguments, graphs, dims, messages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf
from stillframe.export.signature import InputKind, OutputKind
from stillframe.fake.tensor import FakeTensor


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.norm = nn.LayerNorm(8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, Any]:
        x = self.norm(self.body(self.embed(ids)))
        if mask is not None:
            x = x * mask[:, :, None]
        pooled = x.sum(1) / ids.shape[1]
        return {"tokens": x, "pooled": pooled.view(-1, 2, 4), "length": ids.shape[1], "none": None}


def example(b: int = 3, s: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 20, (b, s)), torch.rand(b, s)


def dims() -> dict[str, Any]:
    batch, seq = sf.Dim("batch", min=1, max=64), sf.Dim("seq", min=1, max=512)
    return {"ids": {0: batch, 1: seq}, "mask": {0: batch, 1: seq}}


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(net: Net) -> sf.ExportedProgram:
    return sf.export(net, example(), dynamic_shapes=dims())


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.spec("2.2")
@pytest.mark.parametrize("args", [[1], torch.ones(2), {"x": 1}], ids=["list", "tensor", "dict"])
def test_args_must_be_a_tuple(net: Net, args: Any) -> None:
    with pytest.raises(sf.InvalidInput, match="args must be a tuple") as caught:
        sf.export(net, args)
    assert type(args).__name__ in str(caught.value)
    assert caught.value.kind is sf.UserErrorKind.INVALID_INPUT


@pytest.mark.spec("1.4")
def test_unknown_leaf_is_named(net: Net) -> None:
    with pytest.raises((sf.InvalidInput, ValueError), match="object"):
        sf.export(net, (object(),))


def test_sparse_input_is_refused_by_path() -> None:
    with pytest.raises(sf.NotSupported, match="x.*layout torch.sparse_csc"):
        sf.export(lambda x: x * 2, (torch.eye(3).to_sparse_csc(),))


# -- the graph ------------------------------------------------------------------------------------


@pytest.mark.spec("2.53", "2.63", "2.82", "2.84")
def test_placeholders_in_order(program: sf.ExportedProgram) -> None:
    names = [n.name for n in program.graph.nodes if n.op == "placeholder"]
    assert names[0] == "p_embed_weight" and names[-2:] == ["ids", "mask"]
    assert names == [s.arg.name for s in program.graph_signature.input_specs]
    kinds = [s.kind for s in program.graph_signature.input_specs]
    assert kinds == [InputKind.PARAMETER] * 7 + [InputKind.USER_INPUT] * 2
    assert [s.kind for s in program.graph_signature.output_specs] == [OutputKind.USER_OUTPUT] * 4


def test_composites_stay_whole(program: sf.ExportedProgram) -> None:
    targets = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert {"aten.linear.default", "aten.layer_norm.default", "aten.embedding.default"} <= targets


@pytest.mark.spec("3.8", "3.50", "3.51", "3.52", "2.28", "2.92", "2.93")
def test_node_metadata(program: sf.ExportedProgram) -> None:
    linear = next(n for n in program.graph.nodes if n.name == "linear")
    assert isinstance(linear.meta["val"], FakeTensor)
    stack = linear.meta["nn_module_stack"]
    assert list(stack.values())[0] == ("", f"{Net.__module__}.Net")
    assert list(stack.values())[-1] == ("body.0", "torch.nn.modules.linear.Linear")
    assert "x = self.norm(self.body(self.embed(ids)))" in linear.meta["stack_trace"]
    assert linear.meta["torch_fn"][0].startswith("linear_")
    for node in program.graph.nodes:
        if node.op in ("placeholder", "output"):
            assert "nn_module_stack" not in node.meta and "stack_trace" not in node.meta


@pytest.mark.spec("2.23", "2.32")
def test_module_call_graph(program: sf.ExportedProgram, net: Net) -> None:
    fqns = [entry.fqn for entry in program.module_call_graph]
    assert fqns == [name for name, _ in net.named_modules()]
    assert program.module_call_graph[0].signature is not None
    assert program.module_call_graph[1].signature is None


@pytest.mark.spec("3.5", "3.10")
def test_unused_sizes_leave_no_node() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        b, s, _ = x.shape
        unused = (b * s + 3) // 2  # noqa: F841
        return x.reshape(b, s * 4)

    program = sf.export(
        f, (torch.randn(3, 5, 4),), dynamic_shapes=({0: sf.Dim("b", min=2), 1: sf.Dim("s", min=2)},)
    )
    names = [n.name for n in program.graph.nodes if n.op == "call_function"]
    assert [n.rstrip("_0123456789") for n in names] == [
        "sym_size_int",
        "sym_size_int",
        "mul",
        "reshape",
    ]


@pytest.mark.spec("2.85")
def test_user_names_win() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mul = nn.Parameter(torch.ones(3))

        def forward(self, mul: torch.Tensor, p_mul: torch.Tensor) -> torch.Tensor:
            return mul * p_mul * self.mul

    program = sf.export(M(), (torch.ones(3), torch.ones(3)))
    placeholders = [n.name for n in program.graph.nodes if n.op == "placeholder"]
    assert placeholders == ["p_mul_1", "mul", "p_mul"]
    calls = [n.name for n in program.graph.nodes if n.op == "call_function"]
    assert calls == ["mul_1", "mul_2"]


@pytest.mark.spec("3.20", "3.25")
def test_fresh_constants_are_copied() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        c = torch.tensor(1.0)
        c.add_(2)
        assert c.item() == 3.0
        return x + c

    program = sf.export(f, (torch.ones(2),))
    run = program.module()
    for _ in range(2):
        assert run(torch.ones(2)).tolist() == [4.0, 4.0]


@pytest.mark.spec("3.34", "2.87")
def test_grad_mode_is_recorded() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                a = self.w * 2
            assert not a.requires_grad
            return x * a + self.w

    module = M()
    program = sf.export(module, (torch.ones(3),))
    fakes = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    assert fakes["p_w"].requires_grad and not fakes["x"].requires_grad
    run = program.module()
    run(torch.ones(3)).sum().backward()
    module(torch.ones(3)).sum().backward()
    grads = [dict(m.named_parameters())["w"].grad for m in (run, module)]
    assert grads[0] is not None and torch.equal(grads[0], grads[1])
    with torch.no_grad():
        result = run(torch.ones(3))
        assert not torch.is_grad_enabled() and not result.requires_grad, "the caller's mode rules"


# -- dims -----------------------------------------------------------------------------------------


@pytest.mark.spec("1.45", "1.48")
def test_ranges(program: sf.ExportedProgram) -> None:
    ranges = {
        program.dim_names[str(k)]: (v.lower, v.upper) for k, v in program.range_constraints.items()
    }
    assert ranges == {"batch": (1, 64), "seq": (1, 512)}
    assert program.guards == []


@pytest.mark.parametrize("size", [(1, 1), (1, 512), (64, 1), (5, 9)])
def test_all_admitted_sizes(program: sf.ExportedProgram, net: Net, size: tuple[int, int]) -> None:
    ids, mask = example(*size)
    got, want = program.module()(ids, mask), net(ids, mask)
    assert got.keys() == want.keys()
    assert got["length"] == want["length"] and got["none"] is None
    torch.testing.assert_close(got["tokens"], want["tokens"])
    torch.testing.assert_close(got["pooled"], want["pooled"])


@pytest.mark.parametrize("example_size", [1, 2, 64], ids=["one", "two", "the maximum"])
def test_examples_do_not_decide(net: Net, example_size: int) -> None:
    program = sf.export(net, example(example_size, 7), dynamic_shapes=dims())
    ids, mask = example(9, 4)
    torch.testing.assert_close(program.module()(ids, mask)["tokens"], net(ids, mask)["tokens"])


@pytest.mark.spec("1.47", "1.23")
def test_derived_dims() -> None:
    half = sf.Dim("half", min=2, max=32)

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 2).sum(1) + y[1:]

    program = sf.export(
        f, (torch.randn(8), torch.randn(5)), dynamic_shapes={"x": {0: 2 * half}, "y": {0: half + 1}}
    )
    run = program.module()
    x, y = torch.randn(20), torch.randn(11)
    torch.testing.assert_close(run(x, y), f(x, y))
    with pytest.raises(sf.CallError, match="x"):
        run(torch.randn(21), y)


@pytest.mark.spec("1.35", "1.36", "1.37", "2.17")
def test_violations_are_told_together() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 4:
            x = x + 1
        for _ in range(y.shape[0]):
            x = x * 2
        return x.view(-1, 4)

    spec = {"x": {0: sf.Dim("n", min=2, max=64)}, "y": {0: sf.Dim("m", min=2, max=8)}}
    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, (torch.ones(8), torch.ones(3)), dynamic_shapes=spec)
    text = str(caught.value)
    assert "if x.shape[0] > 4:" in text and "for _ in range(y.shape[0]):" in text
    assert "m, n" in text
    assert "L['" not in text and "s0" not in text, "the user's names"
    assert "Dim('_n', min=2, max=16)" in text and "4*_n" in text
    pasted: dict[str, Any] = {"Dim": sf.Dim}
    exec(caught.value.spec, pasted)
    module = sf.export(
        f, (torch.ones(8), torch.ones(3)), dynamic_shapes=pasted["dynamic_shapes"]
    ).module()
    assert module(torch.ones(12), torch.ones(3)).shape == (3, 4)
    assert "leave it static" in text


def test_the_suggested_spec_works() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 4:
            x = x + 1
        return x

    with pytest.raises(sf.ConstraintViolationError) as caught:
        sf.export(f, (torch.ones(8),), dynamic_shapes=({0: sf.Dim("n", min=2, max=64)},))
    names: dict[str, Any] = {"Dim": sf.Dim}
    exec(caught.value.spec, names)
    assert "min=5" in caught.value.spec and "n = Dim(" in str(caught.value)
    program = sf.export(f, (torch.ones(8),), dynamic_shapes=names["dynamic_shapes"])
    torch.testing.assert_close(program.module()(torch.ones(33)), f(torch.ones(33)))
    with pytest.raises(sf.CallError):
        program.module()(torch.ones(3))


@pytest.mark.spec("1.38")
def test_auto_dims_keep_their_guards() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] > 4 else x - 1

    program = sf.export(f, (torch.ones(8),), dynamic_shapes=({0: sf.Dim.AUTO},))
    run = program.module()
    assert run(torch.ones(5)).tolist() == [2.0] * 5
    with pytest.raises(sf.CallError, match="x"):
        run(torch.ones(3))


# -- state ----------------------------------------------------------------------------------------


@pytest.mark.spec("1.51", "1.52", "2.76", "2.79")
def test_one_constant_one_placeholder() -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.ones(3)
            self.inner = nn.Module()
            self.inner.b = torch.zeros(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.a + self.a + self.inner.b

    program = sf.export(M(), (torch.ones(3),))
    assert sorted(program.constants) == ["a", "inner.b"]
    specs = [s.kind for s in program.graph_signature.input_specs]
    assert specs == [InputKind.CONSTANT_TENSOR] * 2 + [InputKind.USER_INPUT]
    assert [n.name for n in program.graph.nodes if n.op == "placeholder"][:2] == [
        "c_a",
        "c_inner_b",
    ]


@pytest.mark.spec("2.95")
def test_program_fields(program: sf.ExportedProgram, net: Net) -> None:
    assert list(program.state_dict) == list(net.state_dict())
    assert program.example_inputs is not None and len(program.example_inputs[0]) == 2
    assert program.graph is program.graph_module.graph
    with pytest.raises(sf.NotSupported, match="module"):
        program(*example())
    with pytest.raises(sf.NotSupported, match="save"):
        import pickle

        pickle.dumps(program)
    assert program.dialect == "training" and program.run_decompositions().dialect == "core"


def test_deepcopy_is_independent(program: sf.ExportedProgram) -> None:
    copied = copy.deepcopy(program)
    copied.state_dict["norm.weight"].data.zero_()
    assert bool((program.state_dict["norm.weight"] == 1).all())
    ids, mask = example()
    assert not torch.equal(
        copied.module()(ids, mask)["tokens"], program.module()(ids, mask)["tokens"]
    )


def test_a_copy_keeps_names_that_shadow_builtins() -> None:
    program = sf.export(nn.Linear(3, 2), (torch.ones(1, 3),))  # its argument is called input
    copied = copy.deepcopy(program)
    assert [n.name for n in copied.graph.nodes] == [n.name for n in program.graph.nodes]


def test_print_shows_dims_and_shapes(program: sf.ExportedProgram) -> None:
    text = str(program)
    assert "batch: 1..64" in text and "seq: 1..512" in text
    assert "ids: i64[batch, seq]" in text
    assert "f32[batch, seq, 16] = aten.linear.default(" in text


# -- verify ---------------------------------------------------------------------------------------


def test_verify_agrees(program: sf.ExportedProgram, net: Net) -> None:
    report = program.verify(net, samples=3)
    assert len(report.samples) == 4 and report.max_difference < 1e-5
    assert len({tuple(s.sizes.values()) for s in report.samples}) == 4


def test_verify_finds_a_difference(program: sf.ExportedProgram, net: Net) -> None:
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.norm.bias.add_(1)
    with pytest.raises(sf.VerificationError, match=r"output\['tokens'\] differs by up to 1"):
        program.verify(other)


def test_verify_during_export(net: Net) -> None:
    sf.export(net, example(), dynamic_shapes=dims(), verify=2)


def test_functions_export_too() -> None:
    program = sf.export(lambda x, scale=2.0: x * scale, (torch.ones(3),))
    assert program.module()(torch.ones(3)).tolist() == [2.0] * 3
