"""A program survives the file: graph, metadata, state, ties, signature, examples, structures."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import stillframe as sf
from stillframe.export.containers import Record
from stillframe.fake.tensor import FakeTensor


class Net(nn.Module):
    """Every kind of state, ties, strides, odd dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(8)
        self.norm.bias.requires_grad_(False)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.register_buffer("positions", torch.arange(8).expand(3, 8), persistent=False)
        self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("phase", torch.tensor([1 + 2j]))
        self.register_buffer("empty", torch.empty(0, 4))
        self.register_buffer("scalar", torch.tensor(7))
        self.plain = torch.full((8,), 0.5)

    def forward(self, ids: torch.Tensor, image: torch.Tensor, mask: Any = None) -> dict[str, Any]:
        x = self.norm(self.embed(ids) * self.plain + self.positions[0])
        seen = self.conv(image).mean((2, 3))
        return {
            "logits": self.head(x),
            "seen": (seen, seen.sum().to(self.short.dtype) + self.short),
            "flags": self.flags & (self.scalar > 3),
            "phase": self.phase * 2,
            "count": ids.shape[0] * 2,
            "none": None,
            "tail": torch.cat([self.empty, x[:, :4]]),
        }


def inputs(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 20, (n,)), torch.randn(2, 3, 6, 6)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def program(net: Net) -> sf.ExportedProgram:
    dims = {"ids": {0: sf.Dim("tokens", min=1, max=512)}, "image": None}
    return sf.export(net, inputs(), dynamic_shapes=dims)


@pytest.fixture(scope="module")
def loaded(program: sf.ExportedProgram, tmp_path_factory: Any) -> sf.ExportedProgram:
    path = tmp_path_factory.mktemp("artifact") / "net.still"
    sf.save(program, path)
    return sf.load(path)


def agree(a: Any, b: Any) -> None:
    assert pytree.tree_structure(a) == pytree.tree_structure(b)
    for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True):
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=0, atol=0, check_stride=True)
        else:
            assert x == y and type(x) is type(y)


def round_trip(program: sf.ExportedProgram, folder: Path) -> sf.ExportedProgram:
    sf.save(program, folder / "p.still")
    return sf.load(str(folder / "p.still"))


def test_it_computes_the_same(net: Net, loaded: sf.ExportedProgram) -> None:
    for n in (1, 5, 30):
        args = inputs(n)
        agree(loaded.module()(*args), net(*args))
    with pytest.raises(sf.CallError, match=r"ids: dim 0 \(tokens\) is 600, outside 1\.\.512"):
        loaded.module()(*inputs(600))


def test_it_prints_the_same(program: sf.ExportedProgram, loaded: sf.ExportedProgram) -> None:
    assert str(loaded) == str(program)
    assert str(loaded.graph_signature) == str(program.graph_signature)
    assert loaded.module().code == program.module().code


def test_state(program: sf.ExportedProgram, loaded: sf.ExportedProgram) -> None:
    assert list(loaded.state_dict) == list(program.state_dict)
    assert list(loaded.constants) == list(program.constants)
    for mine, theirs in (
        (loaded.state_dict, program.state_dict),
        (loaded.constants, program.constants),
    ):
        for fqn, value in theirs.items():
            found = mine[fqn]
            assert type(found) is type(value), fqn
            assert found.requires_grad == value.requires_grad, fqn
            agree(found, value)
    assert loaded.state_dict["embed.weight"] is loaded.state_dict["head.weight"]
    # strides survive: the layout of the memory is part of what was captured
    assert loaded.state_dict["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    assert loaded.constants["positions"].stride() == (0, 1)


def test_metadata(program: sf.ExportedProgram, loaded: sf.ExportedProgram) -> None:
    for a, b in zip(program.graph.nodes, loaded.graph.nodes, strict=True):
        assert (a.op, a.name, str(a.target)) == (b.op, b.name, str(b.target))
        assert set(a.meta) - {"val"} == set(b.meta) - {"val"}
        for key in ("stack_trace", "nn_module_stack", "torch_fn"):
            assert a.meta.get(key) == b.meta.get(key), (a.name, key)
        _same_val(a.meta["val"], b.meta["val"])


def _same_val(a: Any, b: Any) -> None:
    if isinstance(a, FakeTensor):
        assert isinstance(b, FakeTensor)
        for name in ("sizes", "strides", "offset", "dtype", "device", "requires_grad"):
            assert getattr(a, name) == getattr(b, name), name
        assert a.storage_.written == b.storage_.written
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            _same_val(x, y)
    else:
        assert str(a) == str(b) and type(a) is type(b)


def test_memory_that_is_shared_in_metadata(
    program: sf.ExportedProgram, loaded: sf.ExportedProgram
) -> None:
    def groups(p: sf.ExportedProgram) -> list[list[str]]:
        found: dict[int, list[str]] = {}
        for node in p.graph.nodes:
            if isinstance(node.meta["val"], FakeTensor):
                found.setdefault(id(node.meta["val"].storage_), []).append(node.name)
        return list(found.values())

    assert groups(program) == groups(loaded)


def test_the_rest(program: sf.ExportedProgram, loaded: sf.ExportedProgram) -> None:
    assert loaded.range_constraints == program.range_constraints
    assert loaded.dim_names == program.dim_names
    assert loaded.call_spec == program.call_spec
    assert loaded.out_spec == program.out_spec
    assert loaded.module_call_graph == program.module_call_graph
    assert loaded.training is False and loaded.root_class == "Net"
    assert loaded.notes == program.notes and loaded.fallbacks == program.fallbacks
    agree(loaded.example_inputs, program.example_inputs)


def test_saved_twice(
    loaded: sf.ExportedProgram, program: sf.ExportedProgram, tmp_path: Path
) -> None:
    again = round_trip(loaded, tmp_path)
    assert str(again) == str(loaded)
    sf.save(program, tmp_path / "first.still")
    assert (tmp_path / "first.still").read_bytes() == (tmp_path / "p.still").read_bytes()


def test_guards_and_auto_dims(tmp_path: Path) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] % 2 == 0:  # the line
            return x * 2
        return x

    program = sf.export(f, (torch.ones(4),), dynamic_shapes=({0: sf.Dim.AUTO},))
    loaded = round_trip(program, tmp_path)
    assert loaded.guards == program.guards
    agree(loaded.module()(torch.ones(6)), torch.full((6,), 2.0))
    with pytest.raises(sf.CallError, match="the line"):
        loaded.module()(torch.ones(5))


def test_data_dependent_sizes(tmp_path: Path) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.nonzero().sum(1) * 2

    program = sf.export(f, (torch.tensor([0, 1, 1]),))
    loaded = round_trip(program, tmp_path)
    agree(loaded.module()(torch.tensor([1, 1, 0])), torch.tensor([0, 2]))
    assert str(loaded) == str(program)


def test_odd_operands(tmp_path: Path) -> None:
    def f(x: torch.Tensor) -> Any:
        y = x.masked_fill(x > 1, float("-inf")).nan_to_num(nan=0.0, neginf=-(2.0**100))
        z = x.to(torch.float64).contiguous(memory_format=torch.contiguous_format)
        return (
            y[1:, ::2],
            z,
            torch.full((2,), 1 + 2j),
            torch.zeros(2, device="cpu", dtype=torch.int8),
        )

    program = sf.export(f, (torch.randn(4, 4),))
    x = torch.randn(4, 4)
    agree(round_trip(program, tmp_path).module()(x), f(x))


def test_the_written_buffers_are_the_programs_own(tmp_path: Path) -> None:
    m = nn.BatchNorm1d(3).train()
    program = sf.export(m, (torch.randn(4, 3),))
    loaded = round_trip(program, tmp_path)
    before = (tmp_path / "p.still").read_bytes()
    run = loaded.module()
    x = torch.randn(4, 3)
    agree(run(x), m(x))
    agree(run.running_mean, m.running_mean)
    assert (tmp_path / "p.still").read_bytes() == before  # a write copies the page, not the file
    with pytest.raises(sf.NotSupported, match="train mode"):
        run.eval()


def test_training_a_loaded_program(tmp_path: Path) -> None:
    m = nn.Linear(3, 2)
    run = round_trip(sf.export(m, (torch.ones(1, 3),)), tmp_path).module()
    optimizer = torch.optim.SGD(run.parameters(), lr=0.1)
    run(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(run.weight, m.weight)


def test_inputs_that_may_not_overlap(tmp_path: Path) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.add_(y)

    run = round_trip(sf.export(f, (torch.ones(2), torch.ones(2))), tmp_path).module()
    x = torch.ones(2)
    with pytest.raises(sf.CallError, match="share memory"):
        run(x, x)


def test_defaults(tmp_path: Path) -> None:
    marker = object()

    def f(x: Any, a: int = 3, b: Any = None, c: Any = marker, d: Any = ("t", 1.5)) -> Any:
        return x * a

    run = round_trip(sf.export(f, (torch.ones(2),)), tmp_path).module()
    agree(run(torch.ones(2), 3, None, d=("t", 1.5)), torch.full((2,), 3.0))
    with pytest.raises(sf.CallError, match="a: is 4"):
        run(torch.ones(2), 4)
    with pytest.raises(sf.CallError, match="c: is an object"):
        run(torch.ones(2), c=marker)  # a file does not hold it, so it can only be left out


@pytest.mark.parametrize(
    "value", [2**80, math.inf, "text", True, None, 1.5, torch.float16], ids=repr
)
def test_constant_inputs(value: Any, tmp_path: Path) -> None:
    program = sf.export(lambda x, how: x + 1, (torch.ones(2), value))
    run = round_trip(program, tmp_path).module()
    agree(run(torch.ones(2), value), torch.full((2,), 2.0))
    with pytest.raises(sf.CallError, match="how: is"):
        run(torch.ones(2), "other")


def test_custom_operators_by_name(tmp_path: Path) -> None:
    @torch.library.custom_op("stillframe_artifact_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)
    program = sf.export(lambda x: twice(x) + 1, (torch.ones(2),))
    agree(round_trip(program, tmp_path).module()(torch.ones(2)), torch.full((2,), 3.0))


# -- other processes ------------------------------------------------------------------------------


def in_another_process(code: str, *args: Any) -> str:
    """What a fresh Python prints; it must end well."""
    source = Path(sf.__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, env={"PYTHONPATH": str(source)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_library_classes_where_the_library_is_not_loaded(tmp_path: Path) -> None:
    from transformers.modeling_outputs import BaseModelOutput

    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return BaseModelOutput(last_hidden_state=x * 2, hidden_states=(x,))

    program = sf.export(M(), (torch.ones(2),))
    path = tmp_path / "m.still"
    sf.save(program, path)
    assert type(sf.load(path).module()(torch.ones(2))) is BaseModelOutput
    printed = in_another_process(
        """
        import sys, torch, stillframe as sf
        program = sf.load(sys.argv[1])
        out = program.module()(torch.ones(2))
        assert out.last_hidden_state is out["last_hidden_state"] is out[0]
        assert "transformers" not in sys.modules
        sf.save(program, sys.argv[2])
        print(type(out).__name__, out.type_name, out[0].tolist(), list(out))
        """,
        path,
        tmp_path / "again.still",
    )
    name = "transformers.modeling_outputs.BaseModelOutput"
    assert printed.split() == [
        "Record",
        name,
        "[2.0,",
        "2.0]",
        "['last_hidden_state',",
        "'hidden_states']",
    ]
    assert type(sf.load(tmp_path / "again.still").module()(torch.ones(2))) is BaseModelOutput


def test_local_namedtuples_become_records(tmp_path: Path) -> None:
    import collections

    Local = collections.namedtuple("Local", "a b")
    program = sf.export(lambda x: Local(x, x + 1), (torch.ones(2),))
    out = round_trip(program, tmp_path).module()(torch.ones(2))
    assert isinstance(out, Record) and out.type_name.endswith("Local")
    agree(out.b, torch.full((2,), 2.0))


def test_unregistered_operators_are_named(tmp_path: Path) -> None:
    @torch.library.custom_op("stillframe_absent_test::thrice", mutates_args=())
    def thrice(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    thrice.register_fake(torch.empty_like)
    sf.save(sf.export(lambda x: thrice(x), (torch.ones(2),)), tmp_path / "t.still")
    printed = in_another_process(
        """
        import sys, stillframe as sf
        try:
            sf.load(sys.argv[1])
        except sf.ArtifactError as e:
            print(e)
        """,
        tmp_path / "t.still",
    )
    assert (
        "stillframe_absent_test::thrice" in printed and "not registered in this process" in printed
    )
