"""``with_state_dict``: what fits, what is told where it does not, ties, and what is copied."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import stillframe as sf


class Tied(nn.Module):
    """A tie, a written buffer, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.first.weight
        self.head.bias.requires_grad_(False)
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.head(self.first(x)) + self.count


X = torch.arange(8.0).reshape(2, 4)


def made(seed: int) -> Tied:
    torch.manual_seed(seed)
    return Tied()


@pytest.fixture
def program() -> sf.ExportedProgram:
    return sf.export(made(0), (X,))


def test_the_program_computes_with_the_new_weights(program: sf.ExportedProgram) -> None:
    other = made(1)
    before = {k: v.clone() for k, v in program.state_dict.items()}
    new = program.with_state_dict(other.state_dict())
    for found in (new, new.run_decompositions()):
        assert torch.equal(copy.deepcopy(found).module()(X), copy.deepcopy(other)(X))
    torch.testing.assert_close(dict(program.state_dict), before, rtol=0, atol=0)
    assert list(new.state_dict) == list(program.state_dict)
    kinds = {k: (type(v), v.requires_grad) for k, v in program.state_dict.items()}
    assert {k: (type(v), v.requires_grad) for k, v in new.state_dict.items()} == kinds


def test_tensors_are_taken_over_unless_they_are_written(program: sf.ExportedProgram) -> None:
    other = made(1)
    new = program.with_state_dict(dict(other.named_parameters(remove_duplicate=False)) | {
        "count": other.count
    })  # fmt: skip
    assert new.state_dict["first.weight"] is other.first.weight
    assert new.state_dict["head.bias"] is other.head.bias
    new.module()(X)
    assert torch.equal(other.count, torch.zeros(4))
    assert torch.equal(new.state_dict["count"], torch.ones(4))
    detached = program.with_state_dict(other.state_dict()).state_dict["first.weight"]
    assert detached.data_ptr() == other.first.weight.data_ptr()


def test_ties_stay_ties(program: sf.ExportedProgram) -> None:
    state = {k: v.clone() for k, v in made(1).state_dict().items()}  # equal, no more tied
    module = program.with_state_dict(state).module()
    assert module.head.weight is module.first.weight
    state["head.weight"] = state["head.weight"] + 1
    with pytest.raises(sf.InvalidInput, match=r"first\.weight, head\.weight: tied in the program"):
        program.with_state_dict(state)
    del state["head.weight"]
    module = program.with_state_dict(state, strict=False).module()
    assert module.head.weight is module.first.weight
    assert torch.equal(module.head.weight, state["first.weight"])


def test_all_that_does_not_fit_is_told(program: sf.ExportedProgram) -> None:
    state: dict[str, Any] = dict(program.state_dict)
    del state["count"]
    state["surplus"] = torch.ones(1)
    state["first.bias"] = torch.ones(5)
    state["head.bias"] = torch.ones(4, dtype=torch.float64)
    state["first.weight"] = [1.0]
    with pytest.raises(sf.InvalidInput) as caught:
        program.with_state_dict(state)
    text = str(caught.value)
    for part in (
        "count: is missing",
        "surplus: the program has no such tensor",
        "first.bias: shape is (5,), the program has (4,)",
        "head.bias: dtype is torch.float64, the program has torch.float32",
        "first.weight: is a list, not a tensor",
        "strict=False",
    ):
        assert part in text
    with pytest.raises(sf.InvalidInput) as caught:
        program.with_state_dict(state, strict=False)
    assert "missing" not in str(caught.value) and "first.bias" in str(caught.value)
    with pytest.raises(sf.InvalidInput, match="device is meta"):
        program.with_state_dict({"count": torch.ones(4, device="meta")}, strict=False)
    with pytest.raises(sf.InvalidInput, match="must be a dict by name, got list"):
        program.with_state_dict([])  # type: ignore[arg-type]


def test_a_part_of_the_weights(program: sf.ExportedProgram) -> None:
    new = program.with_state_dict({"count": torch.full((4,), 5.0), "x": X}, strict=False)
    assert torch.equal(new.state_dict["count"], torch.full((4,), 5.0))
    assert new.state_dict["first.weight"] is program.state_dict["first.weight"]


def test_other_strides_become_those_of_the_program(program: sf.ExportedProgram) -> None:
    state = made(1).state_dict()
    turned = state["first.weight"].t().contiguous().t()
    state["first.weight"] = state["head.weight"] = turned
    new = program.with_state_dict(state).state_dict["first.weight"]
    assert new.stride() == (4, 1) and torch.equal(new, turned)


def test_what_is_not_tied_does_not_become_a_tie() -> None:
    """``load_state_dict`` copies values; two names that show one memory are still two tensors."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.zeros(2))
            self.register_buffer("b", torch.zeros(2))
            self.v = nn.Parameter(torch.zeros(2))
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a.add_(x)
            return self.b * 1 + self.v * self.w

    shared = torch.ones(2)
    program = sf.export(Two(), (torch.ones(2),))
    new = program.with_state_dict(dict.fromkeys(("a", "b", "v", "w"), shared))
    module = new.module()
    assert torch.equal(module(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(module(torch.ones(2)), torch.full((2,), 2.0))
    assert module.v.data_ptr() != module.w.data_ptr()
    assert torch.equal(shared, torch.ones(2))


def test_tensors_that_the_program_keeps_do_not_become_ties() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(2))
            self.b = nn.Parameter(torch.ones(2))
            self.c = torch.full((2,), 3.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.a + self.b * self.c

    program = sf.export(Two(), (torch.ones(2),))
    for source in (program.state_dict["b"], program.constants["c"]):
        new = program.with_state_dict({"a": source}, strict=False)
        assert torch.equal(new.state_dict["a"], source)
        assert new.state_dict["a"].data_ptr() != source.data_ptr()


def test_views_are_not_replaced_one_by_one() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.zeros(4))
            self.register_buffer("part", self.whole[:2])
            self.w = nn.Parameter(torch.ones(2))
            self.w_double = self.w.detach()[:1]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.part + self.w * self.w_double

    mod = Views()
    program = sf.export(mod, (torch.ones(2),))
    with pytest.raises(sf.InvalidInput, match="whole and part show the same memory"):
        program.with_state_dict({"part": torch.ones(2)}, strict=False)
    with pytest.raises(sf.InvalidInput, match="w_double and w show the same memory"):
        program.with_state_dict({"w": torch.ones(2)}, strict=False)


def test_a_loaded_program(program: sf.ExportedProgram, tmp_path: Any) -> None:
    other = made(1)
    sf.save(program, tmp_path / "p.still")
    loaded = sf.load(tmp_path / "p.still").with_state_dict(other.state_dict())
    sf.save(loaded, tmp_path / "q.still")
    for found in (loaded, sf.load(tmp_path / "q.still")):
        assert torch.equal(found.module()(X), copy.deepcopy(other)(X))


def test_several_graphs_get_the_same_tensors() -> None:
    mod = made(0)
    programs = sf.combine(sf.export(mod, (X,)), sf.export(mod, (X[:1],)))
    other = made(1)
    new = programs.with_state_dict(other.state_dict())
    first, second = new.methods["forward"]
    assert all(first.state_dict[k] is second.state_dict[k] for k in first.state_dict)
    module, reference = new.module(), copy.deepcopy(other)
    assert torch.equal(module(X), reference(X))
    assert torch.equal(module(X[:1]), reference(X[:1]))
    assert torch.equal(programs.state_dict["count"], torch.zeros(4))


def test_two_tensors_over_one_memory_are_no_tie() -> None:
    """Each has its own gradient, so they are not made one."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(2))
            self.b = nn.Parameter(self.a.data)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.a + self.b

    mod = Shared()
    program = sf.export(mod, (torch.ones(2),))
    with pytest.raises(sf.InvalidInput, match="a and b show the same memory"):
        program.with_state_dict(mod.state_dict())
