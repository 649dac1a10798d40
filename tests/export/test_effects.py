"""Non-strict capture says what it cannot express: each refusal with its message."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from torch import nn

import stillframe as sf

X = torch.randn(3, 4)


def refuse(module: nn.Module, *args: object, **kwargs: object) -> str:
    """The message of the refusal."""
    with pytest.raises(sf.SideEffectError) as caught:
        sf.export(module, args or (X,), kwargs)
    return str(caught.value)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.count = 0
        self.seen: list[int] = []
        self.register_buffer("total", torch.zeros(4))


def test_tensor_attribute_assigned() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = self.linear(x)
            return self.last

    text = refuse(M())
    assert "assigns a tensor to self.last, which is no registered buffer" in text
    assert "self.register_buffer('last', initial_value)" in text


def test_plain_attribute_changed() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x * self.count

    text = refuse(M())
    assert "changes the attribute self.count (was assigned)" in text


def test_attribute_of_a_submodule() -> None:
    class Inner(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    assert "self.inner.count" in refuse(M())


def test_list_attribute_appended() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(1)
            return x

    assert "changes the attribute self.seen (was changed)" in refuse(M())


def test_parameter_replaced() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.linear.weight = nn.Parameter(torch.zeros(4, 4))
            return self.linear(x)

    assert "changes the parameter self.linear.weight" in refuse(M())


def test_module_added() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.extra = nn.ReLU()
            return self.extra(x)

    assert "changes the module self.extra" in refuse(M())


def test_hook_registered_in_forward() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.linear.register_forward_hook(lambda *a: None)
            return self.linear(x)

    assert "hook" in refuse(M())


def test_input_list_mutated() -> None:
    class M(nn.Module):
        def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
            xs.append(xs[0] + 1)
            return xs[-1]

    text = refuse(M(), [X])
    assert "changes its input args[0] (a list) in place" in text


def test_input_dict_mutated() -> None:
    class M(nn.Module):
        def forward(self, *, state: dict[str, torch.Tensor]) -> torch.Tensor:
            state["y"] = state["x"] * 2
            return state["y"]

    with pytest.raises(sf.SideEffectError, match="changes its input state"):
        sf.export(M(), (), {"state": {"x": X}})


def test_branch_on_data() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x + 1
            return x - 1

    with pytest.raises(sf.DataDependentError) as caught:
        sf.export(M(), (X,))
    text = str(caught.value)
    assert "depends on the data" in text
    assert "if x.sum() > 0:" in text, "the user's line is shown"
    assert "torch.where" in text and "torch.cond" in text


def test_numpy_in_forward() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(numpy.asarray(x.numpy()) * 2)

    with pytest.raises(sf.NotSupported, match="NumPy array"):
        sf.export(M(), (X,))


@pytest.mark.parametrize(
    "draw", [random.random, lambda: float(numpy.random.rand())], ids=["random", "numpy"]
)
def test_python_randomness(draw: object) -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * draw()  # type: ignore[operator]

    state = random.getstate()
    assert "baked into the program" in refuse(M())
    assert random.getstate() == state, "the generator is put back"


def test_seeding_in_forward() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(3)
            return x + torch.rand(4)

    before = torch.get_rng_state()
    assert "random state" in refuse(M())
    assert torch.equal(before, torch.get_rng_state())


def test_constants_are_lifted_and_listed() -> None:
    table = torch.arange(12.0).reshape(3, 4)

    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.tensor([2.0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + table + torch.tensor([1.0, 2.0, 3.0, 4.0])

    module = M()
    program = sf.export(module, (X,))
    names = set(program.graph_signature.lifted_tensor_constants)
    assert (
        names == {"scale", "lifted_tensor_0", "lifted_tensor_1"} | (names - names)
        or "scale" in names
    )
    assert len(program.constants) == 3
    assert any("constant scale: (1,) float32" in note for note in program.notes)
    torch.testing.assert_close(program.module()(X), module(X))


@pytest.mark.spec("2.50")
@pytest.mark.spec("2.54")
def test_rebound_buffer_becomes_a_copy() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total = self.total + x.sum(0)
            return x + self.total

    module = M()
    kept = module.total
    program = sf.export(module, (X,))
    assert module.total is kept and bool((kept == 0).all()), "the capture left no trace"
    run = program.module()
    for _ in range(2):
        torch.testing.assert_close(run(X), module(X))
    torch.testing.assert_close(dict(run.named_buffers())["total"], module.total)


def test_rebound_buffer_of_another_shape() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total = x
            return x + 1

    assert "another shape or dtype" in refuse(M())


@pytest.mark.parametrize("initial", [torch.zeros(0), None], ids=["empty", "none"])
def test_a_buffer_that_the_first_call_fills(initial: torch.Tensor | None) -> None:
    class M(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", initial)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.total is None or self.total.numel() == 0:
                self.total = torch.zeros_like(x)
            self.total = self.total + x
            return self.total * 2

    module = M()
    assert "call the module once, then export it" in refuse(module)
    module(X)
    run = sf.export(module, (X,)).module()
    for _ in range(2):
        torch.testing.assert_close(run(X), module(X))


def test_equal_reassignment_is_no_change() -> None:
    class M(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count = 0
            self.seen = []
            return self.linear(x)

    module = M()
    seen = module.seen
    sf.export(module, (X,))
    assert module.seen is seen


@pytest.mark.spec("3.58")
def test_the_memory_of_a_tensor() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            address = x.data_ptr()
            return x + address

    with pytest.raises(sf.NotSupported) as caught:
        sf.export(M(), (X,))
    text = str(caught.value)
    assert "asks for the memory of a tensor (Tensor.data_ptr)" in text
    assert "address = x.data_ptr()" in text


def test_what_needs_data_is_told_with_the_line() -> None:
    class M(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lengths = torch.ones(x.shape[0], dtype=torch.int64)
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
            return torch.nn.utils.rnn.pad_packed_sequence(packed)[0]

    with pytest.raises(sf.StillframeError) as caught:
        sf.export(M(), (torch.randn(3, 3, 4),))
    assert "pad_packed_sequence(packed)" in str(caught.value)


def test_errors_of_the_user_stay_the_users() -> None:
    def wrong_shapes(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(7, 7)

    with pytest.raises(RuntimeError, match="shape") as caught:
        sf.export(wrong_shapes, (X,))
    assert not isinstance(caught.value, sf.StillframeError)

    def out_of_range(x: torch.Tensor) -> torch.Tensor:
        return x.sum(5)

    with pytest.raises(IndexError):
        sf.export(out_of_range, (X,))
