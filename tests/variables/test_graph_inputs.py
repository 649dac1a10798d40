"""The inputs of a captured frame's graph, and the record of them."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from tests.variables.checking import agrees, guards_of, new_translator

import stillframe as sf
from stillframe.context import TracingContext, tracing
from stillframe.errors import InternalError
from stillframe.source import AttrSource, ConstantSource, LocalSource, NNModuleSource
from stillframe.variables import (
    BackwardStateGraphArg,
    GraphArg,
    Options,
    Residue,
    TrackedFake,
    Translator,
    VariableBuilder,
    capture_frame,
)

X, Y = LocalSource("x"), LocalSource("y")


def t(*sizes: int) -> torch.Tensor:
    return torch.arange(float(torch.Size(sizes).numel())).reshape(sizes) + 1


def residue() -> Residue:
    return Residue(lambda value: pytest.fail("no value is made here"))


def translator(options: Options | None = None) -> Translator:
    return new_translator(t, options or Options())


# -- GraphArg --------------------------------------------------------------------------------------


@pytest.mark.spec("5.118")
def test_a_tensor_example_is_held_weakly_and_needs_a_fake() -> None:
    tx, x = translator(), t(2)
    fake = tx.recorder.fake_mode.adopt(t(2))
    argument = GraphArg(X, x, fake)
    assert argument.example is x and argument.is_tensor and not argument.pass_arg_as_tensor
    with pytest.raises(InternalError, match="without a fake"):
        GraphArg(X, t(2), None)
    del x
    gc.collect()
    with pytest.raises(InternalError, match=r"GraphArg\(L\['x'\]\) is gone"):
        print(argument.example)
    kept = GraphArg(X, t(2), fake, keep=True)
    gc.collect()
    assert kept.example.tolist() == [1, 2]
    assert GraphArg(X, 2.5, fake, is_tensor=False).example == 2.5
    kept.erase()
    assert kept.example is None and kept.fake is None


@pytest.mark.spec("5.118")
def test_arguments_are_equal_by_the_name_of_their_source() -> None:
    one, same, other = GraphArg(X, 1, None), GraphArg(X, 2, None), GraphArg(Y, 1, None)
    assert one == same and hash(one) == hash(same) and one != other
    nowhere = GraphArg(None, 1, None)
    assert nowhere == nowhere and nowhere != GraphArg(None, 1, None) and nowhere != one


@pytest.mark.spec("5.118")
def test_an_argument_reads_its_source_and_makes_tensors_of_numbers() -> None:
    for as_tensor, given, expected in ((False, 3, 3), (True, 2.5, torch.tensor(2.5).double())):
        writer = residue()
        GraphArg(X, given, None, pass_arg_as_tensor=as_tensor).reconstruct(writer)
        _, run = writer.finish(None)
        found = run({"x": given}, {})
        assert type(found) is type(expected) and found == expected
        assert not as_tensor or found.dtype is torch.float64


@pytest.mark.spec("5.119")
def test_the_state_of_a_backward_is_made_anew_and_kept() -> None:
    class State:
        pass

    argument = BackwardStateGraphArg("state", State)
    assert argument.source is None and not argument.is_tensor
    writer = residue()
    argument.reconstruct(writer)
    text, run = writer.finish(None)
    assert "state = v1" in text
    assert type(run({}, {})) is State and run({}, {}) is not run({}, {})
    with pytest.raises(InternalError, match="no variable is reserved"):
        BackwardStateGraphArg("", State).reconstruct(residue())


@pytest.mark.spec("5.120")
def test_a_tracked_fake_is_equal_by_identity_and_name() -> None:
    class Same:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    fake, other = Same(), Same()
    one = TrackedFake(fake, X, None)
    assert one == TrackedFake(fake, LocalSource("x"), "context") and len({one, one}) == 1
    assert hash(one) == hash(TrackedFake(fake, X, "context"))
    assert one != TrackedFake(other, X, None) and one != TrackedFake(fake, Y, None)
    assert one != 3 and one.symbolic_context is None


# -- faking and recording --------------------------------------------------------------------------


@pytest.mark.spec("5.121")
def test_a_tensor_is_faked_and_recorded_with_its_context_and_sources() -> None:
    tx, x = translator(Options(assume_static_by_default=False)), t(4, 3)
    context = TracingContext(tx.recorder.fake_mode)
    with tracing(context):
        assert tx.inputs.fake_and_record(X, 3, None) == 3  # type: ignore[arg-type]
        made = VariableBuilder(tx, X)(x)
        held = VariableBuilder(tx, ConstantSource("c"))(t(5))
        numbers = tx.inputs.number_places()
    (tracked,) = tx.inputs.tracked_fakes
    assert tracked.fake is made.value and context.tensor_to_context[x] is tracked.symbolic_context
    assert tx.inputs.sources_of[id(x)] == [X]
    assert held.value.sizes == (5,)
    assert [s.name() for s, _ in numbers] == [
        "L['x'].size()[0]", "L['x'].size()[1]", "L['x'].stride()[0]",
    ]  # fmt: skip
    assert made.value.storage_.given


@pytest.mark.spec("5.121")
def test_what_cannot_be_faked_is_refused_with_the_cause() -> None:
    from torch._dynamo import mark_dynamic

    x = t(4, 4)[:, :3]
    mark_dynamic(x, 0)
    with pytest.raises(sf.StillframeError, match="cannot be an input") as e:
        capture_frame(lambda x: x * 2, (x,))
    assert "gaps" in str(e.value) and isinstance(e.value.__cause__, sf.NotSupported)


@pytest.mark.spec("5.121", "5.122")
def test_tensors_of_modules_have_static_sizes() -> None:
    tx = translator(Options(assume_static_by_default=False))
    place = AttrSource(NNModuleSource(LocalSource("m")), "buffer")
    with tracing(TracingContext(tx.recorder.fake_mode)):
        assert VariableBuilder(tx, place)(t(4, 3)).value.sizes == (4, 3)
        assert VariableBuilder(tx, X)(torch.nn.Parameter(t(4, 3))).value.sizes == (4, 3)
        assert VariableBuilder(tx, Y)(t(4, 3)).value.sizes != (4, 3)


def test_inputs_that_no_operator_uses_are_dropped_unless_they_tell_a_symbol() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.shape[0] == x.shape[1], y.dtype, x.shape[0]

    open_ = Options(assume_static_by_default=False)
    capture = agrees(f, lambda: (t(4, 3), t(2)), lambda: (t(5, 5), t(2)), options=open_)
    assert "L['x']" in [a.source.name() for a in capture.inputs if a.source]
    static = agrees(f, lambda: (t(4, 3), t(2)))
    assert static.inputs == [] and "TENSOR_MATCH L['y']" in guards_of(static)


def test_a_capture_keeps_no_example_and_is_freed_as_a_whole() -> None:
    x = t(3)
    capture = capture_frame(lambda x: x * 2, (x,))
    fake = next(n.meta["val"] for n in capture.graph_module.graph.nodes if "val" in n.meta)
    tensor, env = weakref.ref(x), weakref.ref(fake.env)
    del x, fake
    gc.collect()
    assert tensor() is None and env() is not None
    del capture
    gc.collect()
    assert env() is None
