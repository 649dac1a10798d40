"""The order of side effects: as it stands in training programs, by tokens in functional ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import script_classes

import stillframe as sf
from stillframe import Dim, InputKind, OutputKind, TokenArgument, torch_private

LOG: list[float] = []


@torch.library.custom_op("stillframe_tokens::log", mutates_args=())
def log(x: torch.Tensor) -> torch.Tensor:
    LOG.append(float(x.sum()))
    return x.clone()


@torch.library.custom_op("stillframe_tokens::numbers", mutates_args=())
def numbers(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    LOG.append(-1.0)
    return x.nonzero(), x + 1


@log.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@numbers.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return torch.empty((count, x.dim()), dtype=torch.int64), torch.empty_like(x)


from torch._library.effects import EffectType  # noqa: E402

for name in ("log", "numbers"):
    torch.library._register_effectful_op(f"stillframe_tokens::{name}", EffectType.ORDERED)

OPS = torch.ops.stillframe_tokens


class Logs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> Any:
        OPS.log(x)
        self.count += 1
        y = OPS.log(x * 2)
        places, more = OPS.numbers(x)
        return y + self.count, places.shape[0], places.sum() + more.sum()


def run(function: Any, x: torch.Tensor) -> tuple[Any, list[float]]:
    LOG.clear()
    return function(x), list(LOG)


def same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def programs() -> tuple[Logs, Any, Any]:
    module = Logs()
    program = sf.export(module, (torch.ones(3, 2),), dynamic_shapes={"x": {0: Dim("b")}})
    return module, program, program.run_decompositions()


@pytest.mark.spec("2.57")
def test_effects_stay_and_keep_their_order() -> None:
    module, training, _ = programs()
    x = torch.tensor([[1.0, 0.0]] * 5)
    before = [n.target for n in training.graph.nodes if "stillframe" in str(n.target)]
    assert before == [OPS.log.default, OPS.log.default, OPS.numbers.default]
    expected, log_of_module = run(module, x)
    assert log_of_module == [5.0, 10.0, -1.0]
    for program in (training, programs()[2]):  # each counts on from its own buffer
        got, log_of_program = run(program.module(), x)
        same(got, expected)
        assert log_of_program == log_of_module


@pytest.mark.spec("2.57")
@pytest.mark.spec("2.61")
def test_tokens_lead_inputs_and_outputs() -> None:
    _, training, functional = programs()
    assert training.graph_signature.input_tokens == ()
    signature = functional.graph_signature
    first, last = signature.input_specs[0], signature.output_specs[0]
    assert (first.kind, last.kind) == (InputKind.TOKEN, OutputKind.TOKEN)
    assert first.arg == TokenArgument("token") and isinstance(last.arg, TokenArgument)
    assert signature.output_specs[1].kind is OutputKind.BUFFER_MUTATION
    token = functional.graph.find_nodes(op="placeholder")[0]
    assert tuple(token.meta["val"].shape) == (0,)
    calls = [n for n in functional.graph.nodes if n.target is torch_private.with_effects()]
    for call, after in zip(calls, calls[1:], strict=False):
        assert after.args[0].args == (call, 0), "each takes the token of the one before"
    assert calls[0].args[0] is token
    assert "with_effects(token, stillframe_tokens.log.default, x)" in str(functional)


def test_effects_are_saved_with_their_order(tmp_path: Path) -> None:
    module, _, functional = programs()
    sf.save(functional, tmp_path / "logs.still")
    loaded = sf.load(tmp_path / "logs.still")
    assert str(loaded.graph) == str(functional.graph)
    x = torch.tensor([[1.0, 0.0]] * 5)
    expected = run(module, x)
    got, log = run(loaded.module(), x)
    same(got, expected[0])
    assert log == expected[1]


def test_without_effects_there_is_no_token() -> None:
    program = sf.export(lambda x: x + 1, (torch.ones(2),)).run_decompositions()
    assert program.graph_signature.input_tokens == program.graph_signature.output_tokens == ()


def test_an_effect_without_a_token_is_not_functional() -> None:
    _, training, functional = programs()
    with pytest.raises(sf.SpecViolationError, match="it takes a token"):
        sf.export(lambda x: OPS.log(x), (torch.ones(2),))._replaced(dialect="functional")
    with pytest.raises(sf.NotSupported, match="TOKEN inputs"):
        functional.run_decompositions()


def test_script_objects_in_functional_programs() -> None:
    classes = script_classes.load()

    def f(x: torch.Tensor, queue: Any) -> Any:
        queue.push(x.sin())
        torch.ops._TorchScriptTesting.queue_push(queue, x)
        return queue.pop() + queue.pop(), queue.size()

    def empty() -> Any:
        return classes._TensorQueue(torch.zeros(1))

    program = sf.export(f, (torch.ones(2, 3), empty()))
    functional = program.run_decompositions()
    x = torch.randn(2, 3)
    same(functional.module()(x, empty()), f(x, empty()))
    full = empty()
    full.push(x)
    with pytest.raises(sf.CustomOperatorError, match="method size returned 1"):
        functional.module()(x, full)
    functional.verify(f)


def test_what_an_object_holds_is_not_written() -> None:
    classes = script_classes.load()

    def f(x: torch.Tensor, queue: Any) -> Any:
        y = x + 1
        queue.push(y)
        y.add_(1)
        return queue.pop()

    queue = classes._TensorQueue(torch.zeros(1))
    program = sf.export(f, (torch.ones(2), queue))
    same(program.module()(torch.ones(2), queue), torch.full((2,), 3.0))
    with pytest.raises(sf.NotSupported, match="that a script object was given, or gave"):
        program.run_decompositions()
