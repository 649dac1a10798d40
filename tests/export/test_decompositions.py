"""run_decompositions: which operators are left, what is kept of the program, and the rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.export import verifier
from stillframe.trace.decompositions import is_core

aten = torch.ops.aten

BATCH = sf.Dim("batch", min=1, max=64)


class Encoder(nn.Module):
    """A little of everything that decomposes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.conv = nn.Conv1d(16, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Any) -> Any:
        x = self.layer(self.embedding(ids)).transpose(1, 2)
        x = nn.functional.silu(self.norm(self.conv(x)))
        return nn.functional.log_softmax(self.head(self.pool(x).flatten(1)), -1)


def encoder() -> tuple[nn.Module, sf.ExportedProgram]:
    module = Encoder().eval()
    ids = torch.randint(1, 20, (4, 7))
    dims = {"ids": {0: BATCH, 1: sf.Dim("length", min=2, max=32)}}
    return module, sf.export(module, (ids,), dynamic_shapes=dims)


def targets(program: sf.ExportedProgram) -> set[Any]:
    return {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}


def assert_equal_results(program: sf.ExportedProgram, module: nn.Module, *args: Any) -> None:
    actual, expected = program.module()(*args), module(*args)
    for a, e in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, e)


# -- tables ---------------------------------------------------------------------------------------


def test_the_default_table_leaves_core_operators() -> None:
    module, program = encoder()
    core = program.run_decompositions()
    assert core.dialect == "core"
    assert program.dialect == "training"
    symbolic = {aten.sym_size.int}
    assert all(is_core(t) for t in targets(core) - symbolic)
    for sizes in ((4, 7), (1, 2), (9, 32)):
        assert_equal_results(core, module, torch.randint(1, 20, sizes))


def test_the_same_operators_as_torch() -> None:
    module, program = encoder()
    ids = torch.randint(1, 20, (4, 7))
    dims = {"ids": {0: torch.export.Dim("b", min=1, max=64), 1: torch.export.Dim("l", max=32)}}
    theirs = torch.export.export(module, (ids,), dynamic_shapes=dims).run_decompositions()
    left = {n.target for n in theirs.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    ours = targets(program.run_decompositions())
    # some core operators are composite: torch takes them apart, and here they stay
    assert all(is_core(t) for t in ours - left)
    # the same said with other core operators, and expand where it changes nothing
    others = "squeeze.dims mean.dim scalar_tensor.default mul.Scalar expand.default".split()
    assert {str(t).removeprefix("aten.") for t in left - ours} <= set(others)


def test_an_empty_table_takes_nothing_apart() -> None:
    module, program = encoder()
    functional = program.run_decompositions({})
    assert functional.dialect == "functional"
    assert aten.linear.default in targets(functional)
    assert aten.layer_norm.default in targets(functional)
    assert_equal_results(functional, module, torch.randint(1, 20, (3, 5)))


def test_an_edited_table_keeps_an_operator_whole() -> None:
    module, program = encoder()
    table = sf.default_decompositions()
    del table[aten.linear.default]
    kept = program.run_decompositions(table)
    assert aten.linear.default in targets(kept)
    assert aten.layer_norm.default not in targets(kept)
    assert_equal_results(kept, module, torch.randint(1, 20, (3, 5)))
    assert aten.linear.default in sf.default_decompositions()


def test_a_function_of_the_users() -> None:
    def silu(x: Any) -> Any:
        return x / (1 + torch.exp(-x))

    module, program = encoder()
    table = {aten.silu.default: silu}
    apart = program.run_decompositions(table)
    assert aten.silu.default not in targets(apart)
    assert aten.exp.default in targets(apart)
    assert aten.linear.default in targets(apart)
    assert list(table) == [aten.silu.default]
    assert_equal_results(apart, module, torch.randint(1, 20, (3, 5)))


def test_a_function_that_declines() -> None:
    module, program = encoder()
    same = program.run_decompositions({aten.silu.default: lambda x: NotImplemented})
    assert aten.silu.default in targets(same)


def test_again_on_a_functional_program() -> None:
    module, program = encoder()
    again = program.run_decompositions({}).run_decompositions().run_decompositions()
    assert again.dialect == "core"
    assert_equal_results(again, module, torch.randint(1, 20, (3, 5)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([aten.linear.default], "must be a dict"),
        ({"linear": print}, "no operator overload"),
        ({aten.linear: print}, "no operator overload"),
        ({aten.linear.default: 3}, "no function"),
    ],
)
def test_tables_that_make_no_sense(table: Any, message: str) -> None:
    _, program = encoder()
    with pytest.raises(sf.InvalidInput, match=message):
        program.run_decompositions(table)


# -- what is kept ---------------------------------------------------------------------------------


def test_the_program_is_not_changed() -> None:
    _, program = encoder()
    before = str(program)
    program.run_decompositions()
    assert str(program) == before


def test_names_conditions_and_metadata_stay() -> None:
    _, program = encoder()
    core = program.run_decompositions()
    signature = core.graph_signature
    assert [s.arg.name for s in signature.input_specs] == [
        s.arg.name for s in program.graph_signature.input_specs
    ]
    assert core.range_constraints == program.range_constraints
    assert core.guards == program.guards
    calls = [n for n in core.graph.nodes if n.op == "call_function"]
    assert all("val" in n.meta for n in calls)
    addmm = next(n for n in calls if n.target is aten.addmm.default)
    assert any("layer" in path for path, _ in addmm.meta["nn_module_stack"].values())
    assert "forward" in addmm.meta["stack_trace"]
    with pytest.raises(sf.CallError):
        core.module()(torch.randint(1, 20, (65, 7)))


def test_symbols_of_data_keep_their_names() -> None:
    class Picks(nn.Module):
        def forward(self, x: Any, n: Any) -> Any:
            k = n.item()
            torch._check(k >= 1)
            torch._check(k <= x.shape[0])
            rows = x[:k] * 2
            return rows, x.nonzero(), torch.zeros(k, 2), x[x > 0]

    args = (torch.randn(5, 3), torch.tensor(2))
    program = sf.export(Picks(), args, dynamic_shapes={"x": {0: BATCH}, "n": None})
    core = program.run_decompositions()

    def bindings(p: sf.ExportedProgram) -> list[str]:
        return [str(s) for n in p.graph.nodes for s in n.meta.get("unbacked_bindings", {})]

    assert bindings(core) == bindings(program) != []
    assert_equal_results(core, Picks(), torch.randn(7, 3), torch.tensor(4))
    for bad in (9, 0):
        with pytest.raises(RuntimeError):
            core.module()(torch.randn(7, 3), torch.tensor(bad))


def test_checks_stay() -> None:
    class Checks(nn.Module):
        def forward(self, x: Any) -> Any:
            torch._assert_async((x > 0).all(), "must be positive")
            return x.sqrt()

    core = sf.export(Checks(), (torch.ones(3),)).run_decompositions()
    assert_equal_results(core, Checks(), torch.ones(3))
    with pytest.raises(RuntimeError, match="must be positive"):
        core.module()(-torch.ones(3))


def test_derived_dims() -> None:
    half = sf.Dim("half", min=1, max=16)

    class Pairs(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(x.shape[0] // 2, 2, 3).sum(1)

    program = sf.export(Pairs(), (torch.ones(8, 3),), dynamic_shapes={"x": {0: 2 * half}})
    core = program.run_decompositions()
    assert_equal_results(core, Pairs(), torch.randn(10, 3))


def test_random_draws_are_those_of_eager() -> None:
    class Draws(nn.Module):
        def forward(self, x: Any) -> Any:
            y = nn.functional.dropout(x, 0.3, True)
            return y + torch.rand_like(x) + torch.randn(x.shape) + torch.bernoulli(x.abs() / 4)

    program = sf.export(Draws(), (torch.rand(6, 5),), dynamic_shapes={"x": {0: BATCH}})
    core = program.run_decompositions().module()
    x = torch.rand(4, 5)
    torch.manual_seed(3)
    expected = Draws()(x)
    torch.manual_seed(3)
    torch.testing.assert_close(core(x), expected)


def test_an_operator_that_cannot_be_taken_apart_stays_whole_and_is_named() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.cell(x)[0]

    module = Recurrent()
    length = sf.Dim("length", min=1, max=20)
    program = sf.export(module, (torch.randn(2, 6, 3),), dynamic_shapes={"x": {1: length}})
    core = program.run_decompositions()
    assert core.dialect == "functional"
    assert any("aten.gru.input" in note and "stays whole" in note for note in core.notes)
    assert_equal_results(core, module, torch.randn(2, 9, 3))
    static = sf.export(module, (torch.randn(2, 6, 3),)).run_decompositions()
    assert static.dialect == "core"
    assert_equal_results(static, module, torch.randn(2, 6, 3))


def test_constants_that_decompositions_bring_along() -> None:
    def with_table(x: Any) -> Any:
        return x * torch.tensor([1.0, 2.0, 3.0])

    class Plain(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.relu(x)

    program = sf.export(Plain(), (torch.ones(3),))
    apart = program.run_decompositions({aten.relu.default: with_table})
    assert len(apart.constants) == 1
    result = apart.module()(torch.ones(3))
    assert torch.equal(result, torch.tensor([1.0, 2.0, 3.0]))
    assert not program.constants


# -- ambient modes --------------------------------------------------------------------------------


def test_modes_around_the_call_do_not_matter() -> None:
    _, program = encoder()
    plain = program.run_decompositions()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), torch.device("meta"):
        other = program.run_decompositions()
    assert [str(n.target) for n in other.graph.nodes] == [str(n.target) for n in plain.graph.nodes]
    with torch.inference_mode():
        program.run_decompositions({})


# -- files, printing ------------------------------------------------------------------------------


def test_files_keep_the_dialect(tmp_path: Any) -> None:
    module, program = encoder()
    for form in (program, program.run_decompositions({}), program.run_decompositions()):
        path = tmp_path / "program.still"
        sf.save(form, path)
        loaded = sf.load(path)
        assert loaded.dialect == form.dialect
        assert_equal_results(loaded, module, torch.randint(1, 20, (3, 5)))
    assert "aten.addmm" in str(loaded)


def test_a_loaded_program_can_be_taken_apart(tmp_path: Any) -> None:
    module, program = encoder()
    sf.save(program, tmp_path / "program.still")
    core = sf.load(tmp_path / "program.still").run_decompositions()
    assert targets(core) == targets(program.run_decompositions())
    assert_equal_results(core, module, torch.randint(1, 20, (3, 5)))


# -- the verifier ---------------------------------------------------------------------------------


def with_node(program: sf.ExportedProgram, target: Any) -> torch.fx.Node:
    """A further node in the graph of a program: ``target(ids, 1)``."""
    output = next(reversed(program.graph.nodes))
    source = next(n for n in program.graph.nodes if n.name == "ids")
    with program.graph.inserting_before(output):
        node = program.graph.call_function(target, (source, 1))
    node.meta["val"] = source.meta["val"]
    return node


@pytest.mark.spec("2.97")
def test_functional_programs_do_not_write() -> None:
    _, program = encoder()
    functional = program.run_decompositions({})
    node = with_node(functional, aten.add_.Tensor)
    with pytest.raises(sf.SpecViolationError) as caught:
        verifier.check(functional)
    assert node.name in str(caught.value) and "writes in place" in str(caught.value)
    with_node(program, aten.add_.Tensor)
    verifier.check(program)


@pytest.mark.spec("2.97")
def test_core_programs_have_core_operators() -> None:
    _, program = encoder()
    core, functional = program.run_decompositions(), program.run_decompositions({})
    node = with_node(core, aten.true_divide.Tensor)
    with pytest.raises(sf.SpecViolationError, match=r"no core operator.*run_decompositions") as e:
        verifier.check(core)
    assert node.name in str(e.value)
    with_node(functional, aten.true_divide.Tensor)
    verifier.check(functional)


@pytest.mark.spec("2.97")
def test_mutations_lead_and_have_targets() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, ids: Any) -> Any:
            self.total.add_(ids)
            return ids + 1

    program = sf.export(Writes(), (torch.ones(3),)).run_decompositions()
    specs = program.graph_signature.output_specs
    output = next(reversed(program.graph.nodes))
    values = output.args[0]
    specs.reverse()
    output.args = (tuple(reversed(values)),)
    with pytest.raises(sf.SpecViolationError, match="must come before"):
        verifier.check(program)
    specs.reverse()
    output.args = (values,)
    specs[0] = sf.OutputSpec(specs[0].kind, specs[0].arg, "nothing")
    with pytest.raises(sf.SpecViolationError, match="nothing, which is no input"):
        verifier.check(program)


def test_an_unknown_dialect() -> None:
    _, program = encoder()
    program.dialect = "greek"
    with pytest.raises(sf.SpecViolationError, match="is no dialect"):
        verifier.check(program)


# -- single operators -----------------------------------------------------------------------------


class Many(nn.Module):
    """Composite operators and decompositions that read, reshape, draw and count."""

    def forward(self, x: Any) -> Any:
        functional = nn.functional
        return (
            x.masked_fill(x > 0, torch.tensor(3.0)),
            torch.full((3, 4), 2.0) * x,
            torch.where(x > 0),
            x[x > 0],
            torch.repeat_interleave(x, 2, 0),
            torch.einsum("ij,kj->ik", x, x),
            x.std(),
            functional.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
            torch.linalg.norm(x),
            torch.fft.rfft(x),
            torch.meshgrid(x[0], x[1], indexing="ij")[0],
            torch.cdist(x, x),
            x.quantile(0.5),
            functional.pad(x[None], (1, 1), mode="reflect"),
            functional.cosine_similarity(x, x.flip(0)),
            functional.one_hot(x.argmax(1), 4),
            functional.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
            functional.group_norm(x[None], 3),
            functional.unfold(x[None, None], (2, 2)),
            torch.tensor_split(x, 2, 1),
            torch.block_diag(x, x),
        )


@pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
def test_operators_of_all_kinds(table: Any) -> None:
    module = Many()
    program = sf.export(module, (torch.randn(3, 4),))
    apart = program.run_decompositions(table)
    assert_equal_results(apart, module, torch.randn(3, 4))

    def bindings(p: sf.ExportedProgram) -> list[str]:
        return [str(s) for n in p.graph.nodes for s in n.meta.get("unbacked_bindings", {})]

    assert bindings(apart) == bindings(program)
    if table is None:
        assert apart.dialect == "core", apart.notes


def test_a_decomposition_may_not_read_numbers_from_data() -> None:
    def reads(x: Any) -> Any:
        return x * x.sum().item()

    class Plain(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.relu(x)

    program = sf.export(Plain(), (torch.ones(3),))
    same = program.run_decompositions({torch.ops.aten.relu.default: reads})
    assert aten.relu.default in targets(same)


def test_views_of_operators_that_are_kept_follow_writes() -> None:
    class Broadcast(nn.Module):
        def forward(self, x: Any) -> Any:
            y = x + 0
            rows, row = torch.broadcast_tensors(y, y[0])
            parts = y.tensor_split(2, 1)
            y.mul_(3)
            parts[1].add_(1)
            return rows, row, parts

    module = Broadcast()
    program = sf.export(module, (torch.randn(3, 4),))
    for table in (None, {}):
        assert_equal_results(program.run_decompositions(table), module, torch.randn(3, 4))


@torch.library.custom_op("decomposition_test::bump", mutates_args=("x",))
def bump(x: torch.Tensor, k: int) -> None:
    x.add_(k)


def test_custom_operators_that_write_are_refused() -> None:
    class Bumps(nn.Module):
        def forward(self, x: Any) -> Any:
            y = x + 0
            torch.ops.decomposition_test.bump(y, 2)
            return y

    program = sf.export(Bumps(), (torch.ones(3),))
    with pytest.raises(sf.NotSupported, match=r"bump.*no functional form"):
        program.run_decompositions()


def test_autocast_regions() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                y = self.linear(x)
            return y.float() + x

    module = Mixed()
    core = sf.export(module, (torch.randn(3, 4),)).run_decompositions()
    assert_equal_results(core, module, torch.randn(3, 4))
    run = core.module()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(sf.CallError, match="autocast"):
        run(torch.randn(3, 4))


def test_numbers_in_and_out() -> None:
    class Numbers(nn.Module):
        def forward(self, x: Any, n: Any, f: Any) -> Any:
            return x.shape[0] * 2, x * n, x * f, n + 1, x.shape[0] > 3

    module = Numbers()
    dims = {"x": {0: BATCH}, "n": sf.Dim("n"), "f": sf.Dim.DYNAMIC}
    core = sf.export(module, (torch.randn(5, 4), 3, 2.5), dynamic_shapes=dims).run_decompositions()
    assert_equal_results(core, module, torch.randn(7, 4), 6, 0.5)


DRAWS = {
    "exponential_": (),
    "uniform_": (-1, 2),
    "normal_": (1, 2),
    "geometric_": (0.3,),
    "cauchy_": (),
    "log_normal_": (),
    "random_": (10,),
    "bernoulli_": (0.3,),
}


@pytest.mark.parametrize("table", [None, {}], ids=["core", "functional"])
@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_written_in_place(name: str, table: Any) -> None:
    class Fills(nn.Module):
        def forward(self, x: Any) -> Any:
            y = torch.empty_like(x)
            getattr(y, name)(*DRAWS[name])
            getattr(y[1:], name)(*DRAWS[name])
            getattr(y.t(), name)(*DRAWS[name])
            return y, torch.rand(())

    program = sf.export(Fills(), (torch.rand(5, 6),), dynamic_shapes={"x": {0: BATCH}})
    run = program.run_decompositions(table).module()
    x = torch.rand(7, 6)
    torch.manual_seed(5)
    expected = Fills()(x)
    torch.manual_seed(5)
    for a, e in zip(run(x), expected, strict=True):
        assert torch.equal(a, e)
