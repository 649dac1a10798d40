"""Fakes of script objects, on their own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tests import script_classes

import stillframe as sf
from stillframe import torch_private
from stillframe.fake.mode import FakeMode
from stillframe.fake.script_objects import FakeScriptObject, make_fake, run_method
from stillframe.fake.tensor import FakeTensor
from stillframe.shapes.env import ShapeEnv

CLASSES = script_classes.load()


def fake_of(real: Any, mode: FakeMode) -> FakeScriptObject:
    def call(obj: Any, name: str, args: Any, kwargs: Any) -> Any:
        return run_method(mode, obj, name, args, kwargs)

    return make_fake(mode, real, "it", call)


@pytest.mark.spec("1.61")
def test_a_fake_is_made_of_the_flat_object() -> None:
    mode, real = FakeMode(ShapeEnv()), CLASSES._Foo(3, 4)
    fake = fake_of(real, mode)
    assert fake.real_obj is real
    assert fake.script_class_name == "__torch__.torch.classes._TorchScriptTesting._Foo"
    assert (fake.wrapped_obj.x, fake.wrapped_obj.y) == (3, 4)
    made = fake.add_tensor(mode.adopt(torch.ones(2)))
    assert isinstance(made, FakeTensor) and made.sizes == (2,)


@pytest.mark.spec("1.61")
def test_tensors_inside_are_fakes_of_the_mode() -> None:
    mode, real = FakeMode(ShapeEnv()), CLASSES._TensorQueue(torch.zeros(1))
    real.push(torch.ones(3, 2))
    fake = fake_of(real, mode)
    (inner,) = fake.wrapped_obj.queue
    assert isinstance(inner, FakeTensor) and inner.env is mode.env and inner.sizes == (3, 2)
    assert fake.size() == 1
    fake.pop()
    assert fake.size() == 0 and real.size() == 1


def test_copies_and_names() -> None:
    fake = fake_of(CLASSES._Foo(3, 4), FakeMode(ShapeEnv()))
    assert copy.deepcopy(fake) is fake and fake == fake and len({fake, fake}) == 1
    assert "_Foo" in repr(fake)
    with pytest.raises(sf.NotSupported, match="cannot be pickled"):
        pickle.dumps(fake)
    with pytest.raises(AttributeError, match="none called 'nothing'"):
        _ = fake.nothing
    with pytest.raises(AttributeError):
        fake.wrapped_obj = 3


def test_mistakes_of_the_fake_class_are_named() -> None:
    mode = FakeMode(ShapeEnv())
    fake = fake_of(CLASSES._Foo(3, 4), mode)
    with pytest.raises(sf.NotSupported, match="add_tensor of the fake class of .*_Foo fails"):
        fake.add_tensor()
    with pytest.raises(sf.NotSupported, match="has no method increment"):
        fake.increment(3)
    with pytest.raises(sf.NotSupported, match="has no fake class"):
        fake_of(CLASSES._StackString(["a"]), mode)


def test_what_a_script_object_is() -> None:
    assert torch_private.is_script_object(CLASSES._Foo(1, 2))
    assert not torch_private.is_script_object(torch.ones(2))
    assert torch_private.takes_script_object(torch.ops._TorchScriptTesting.takes_foo.default)
    assert not torch_private.takes_script_object(torch.ops.aten.add.Tensor)
    assert torch_private.registered_fake_class("no.such") is None
